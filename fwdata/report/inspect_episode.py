"""What a store holds of one episode: warnings, verdicts on conventions, and every decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from fwdata.errors import UsageError, did_you_mean
from fwdata.evidence import sentences
from fwdata.evidence.records import Verdict, VerdictJson
from fwdata.store.evidence import read_part_evidence
from fwdata.store.reader import Store
from fwdata.store.records import JsonObject
from fwdata.wording import counted


class EpisodeJson(TypedDict):
    """The document of `fwdata inspect --episode --json`."""

    index: int
    """Number in the store."""
    id: str
    """Its id."""
    part: str
    """Part that holds it."""
    source: str
    """Its recording, relative to the converted root."""
    task: str
    """Name of the task."""
    split: str
    """train or val."""
    frames: int
    """Rows."""
    instructions: list[str]
    """Training instructions, canonical first."""
    warnings: list[str]
    """What was warned about when it was converted."""
    verdicts: list[VerdictJson]
    """What the detectors say of it; empty where nothing was measured."""
    decisions: JsonObject
    """What was decided for it; each converter's own JSON."""


@dataclass(frozen=True)
class EpisodeDescription:
    """One episode as `fwdata inspect --episode` shows it."""

    index: int
    """Number in the store."""
    id: str
    """Its id."""
    part: str
    """Part that holds it."""
    source: str
    """Its recording, relative to the converted root."""
    task: str
    """Name of the task."""
    split: str
    """"train" or "val"."""
    frames: int
    """Rows."""
    instructions: tuple[str, ...]
    """Training instructions, canonical first."""
    warnings: tuple[str, ...]
    """What was warned about when it was converted."""
    verdicts: tuple[Verdict, ...]
    """What the detectors say of it; () where nothing was measured."""
    decisions: JsonObject
    """Its metadata: what was decided for it."""

    def to_json(self) -> EpisodeJson:
        """Plain JSON."""
        return {
            "index": self.index,
            "id": self.id,
            "part": self.part,
            "source": self.source,
            "task": self.task,
            "split": self.split,
            "frames": self.frames,
            "instructions": list(self.instructions),
            "warnings": list(self.warnings),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "decisions": self.decisions,
        }

    def lines(self) -> list[str]:
        """As `fwdata inspect` prints it, decisions excepted."""
        found = [
            f"episode {self.index}, {self.id}: {counted(self.frames, 'frame')} of {self.source}, {self.split}",
            f"  task {self.task}: {self.instructions[0]}",
            *(f"  warning: {text}" for text in self.warnings),
            *(f"  evidence {sentences.episode_line(verdict)}" for verdict in self.verdicts),
        ]
        return found if self.verdicts else [*found, "  evidence: no convention was measured for it"]


def describe_episode(store: Store, wanted: str) -> EpisodeDescription:
    """One episode by index or id. UsageError where there is none. Reads metadata only."""
    known = [episode.id for part in store.parts for episode in part.record.episodes]
    number = int(wanted) if wanted.isdecimal() and wanted not in known else None
    if number is None and wanted in known:
        number = known.index(wanted)
    if number is None or number >= len(known):
        raise UsageError(
            f"--episode {wanted}: {store.location} has no such episode; give an id, or an index of 0 .. "
            f"{len(known) - 1}{did_you_mean(wanted, known)}"
        )
    episode = store.episodes[number]
    measured = {m.episode: m for m in read_part_evidence(store.files, episode.part.name)}
    found = measured.get(episode.id)
    metadata = dict(episode.metadata)
    warnings = tuple(str(text) for text in metadata.pop("warnings", ()))
    return EpisodeDescription(
        index=episode.index,
        id=episode.id,
        part=episode.part.name,
        source=episode.source,
        task=episode.task,
        split=episode.split,
        frames=episode.num_frames,
        instructions=tuple(episode.instructions),
        warnings=warnings,
        verdicts=found.verdicts if found else (),
        decisions=metadata,
    )
