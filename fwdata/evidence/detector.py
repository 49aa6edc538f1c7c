"""What a detector is: a name, what it needs, how it measures one episode, and how a data set is pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fwdata.evidence import pooling
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Outcome, Severity, Trace, Verdict


@dataclass(frozen=True)
class Detector:
    """Base of all detectors; subclasses set the class variables and override `measure`, `trace` or `pool`."""

    name: ClassVar[str]
    """Name in records, messages and `--accept`."""
    code: ClassVar[str]
    """Short code in the documentation, e.g. "a1"."""
    question: ClassVar[str]
    """The convention in words, e.g. "gripper polarity"."""
    action: ClassVar[Severity]
    """What a contradiction does to a conversion."""
    needs_images: ClassVar[bool] = False
    """Whether it looks at thumbnails; such detectors see at most 20 episodes of a camera, unless `light`."""
    light: ClassVar[bool] = False
    """For detectors that look at thumbnails: cheap enough to see those of every episode whose frames are read."""
    compares: ClassVar[bool] = False
    """Whether `pool` compares the rows or texts of all episodes with each other, by their traces."""
    min_rows: ClassVar[int] = 8
    """Rows that an episode needs before it tells anything."""
    advice: ClassVar[str] = "use a manifest or options that say so"
    """What to set or do where no option of the converter agrees with a contradiction."""
    word: ClassVar[str] = "decided"
    """How a message calls what the data are compared with: "expected" where no converter decides it."""
    min_episodes: ClassVar[int] = pooling.MIN_EPISODES
    """Episodes with evidence below which a contradiction only warns; 1 for rules that need no statistics."""

    def prepare(self, episodes: Sequence[EpisodeInput]) -> None:
        """Find what `measure` is to ask of each of several episodes, where that costs less of all of them at once."""

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """Verdicts of one episode, one per subject; () for detectors that only look at whole data sets."""
        return ()

    def trace(self, episode: EpisodeInput) -> tuple[Trace, ...]:
        """What `pool` needs of an episode besides its verdicts."""
        return ()

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """Verdicts of the data set, one per subject."""
        return pooling.by_agreement(episodes, self.name, self.min_episodes)

    def verdict(
        self,
        outcome: Outcome,
        detail: str,
        *,
        subject: str = "",
        value: float | None = None,
        n: int = 0,
        decided: str = "",
        measured: str = "",
        action: Severity | None = None,
    ) -> Verdict:
        """A verdict of this detector."""
        found = object.__new__(Verdict)  # a quarter of the time of its __init__, of thousands of them
        fields = {
            "detector": self.name,
            "verdict": outcome,
            "subject": subject,
            "value": value,
            "interval": None,
            "n": n,
            "detail": detail,
            "action": action or self.action,
            "decided": decided,
            "measured": measured,
        }
        object.__setattr__(found, "__dict__", fields)
        return found

    def abstain(self, detail: str, *, subject: str = "", decided: str = "", value: float | None = None) -> Verdict:
        """No evidence, and why."""
        return self.verdict("no evidence", detail, subject=subject, decided=decided, value=value)
