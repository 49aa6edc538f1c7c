"""Evidence in a conversion: the first episodes are measured before anything is written, every other as it is read.

`fwdata.store.evidence` keeps the verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fwdata.api import Episode
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement
from fwdata.evidence.registry import find_detector
from fwdata.evidence.sentences import CAUSES, agreement, measured, together, unmeasured
from fwdata.evidence.thumbnails import LIGHT_EVERY, LIGHT_VIDEO_EVERY, Collector, looked_through
from fwdata.pipeline.roots import RootedRecording
from fwdata.store.evidence import read_evidence
from fwdata.store.files import LocalFiles

FIRST_SHARE, MIN_FIRST, MAX_FIRST = 10, 4, 10
"""One recording in ten is measured before anything is written, at least 4 and at most 10."""

IMAGE_SHARE, MIN_IMAGES = 50, 3
"""One recording in fifty has its images measured before anything is written, at most MAX_FIRST, as that decodes them
once more; none where that makes fewer than 3, which tell nothing about a data set: there images are measured as they
are converted."""

SHOWN_SHARE, MIN_SHOWN, MAX_SHOWN = 10, 10, 20
"""All detectors see the images of one recording in ten that is converted, at least 10 and at most 20."""

EVERY_FRAME, EVERY_FRAME_LONG, LONG = 4, 2, 300
"""Of those, the recordings whose videos of a real robot are looked at frame by frame, and of how many where they have
at least so many rows; of others every second frame."""

MOST_COMPARED = 2_000
"""Recordings up to which what all of them are compared by, some 4 kB of each, is kept while they are converted: that
saves reading their rows again at the end."""

DRY_SHARE, DRY_IMAGES = 10, 5
"""A dry run, which writes nothing later, looks at the images of one recording in ten, at least 5."""

DRY_ROWS, DRY_BYTES = 100, 1 << 30
"""It reads the rows of so many recordings, or of fewer that come to so many bytes, evenly spread."""


@dataclass(frozen=True)
class EvidenceGate:
    """What the first episodes showed, for workers: which later contradictions leave a recording out."""

    accepted: Mapping[str, str] = field(default_factory=dict)
    """Detector -> the user's reason to keep what was decided."""
    confirmed: frozenset[tuple[str, str]] = frozenset()
    """(detector, subject) that the first episodes confirmed."""
    shown: frozenset[str] = frozenset()
    """Ids of the recordings whose images all detectors see; those of others only the light ones."""
    closely: tuple[str, ...] = ()
    """Ids of those of them whose videos are looked at frame by frame; where they are long, of the first of these."""
    compares: bool = True
    """Whether what all episodes are compared by is made of their rows as they are converted; else of the store."""

    def every(self, recording: str, episode: Episode) -> int:
        """Of how many frames of a recording one has a thumbnail; more of rendered ones, which show single rows."""
        video = any(camera.encoding == "video" for camera in episode.cameras.values())
        if recording not in self.shown:
            return LIGHT_VIDEO_EVERY if video else LIGHT_EVERY
        if not video or episode.conventions.simulated:
            return 1
        most = EVERY_FRAME_LONG if len(episode.state) >= LONG else EVERY_FRAME
        return 1 if recording in self.closely[:most] else 2

    def reason(self, measurement: EpisodeMeasurement) -> str | None:
        """Why a recording must be left out, or None."""
        for verdict in sorted(measurement.verdicts, key=lambda each: each.detector not in CAUSES):
            if verdict.verdict != "contradicted" or verdict.action != "stop" or verdict.detector in self.accepted:
                continue
            detector = find_detector(verdict.detector)
            if (verdict.detector, verdict.subject) in self.confirmed or detector.min_episodes == 1:
                subject = f" {verdict.subject}" if verdict.subject else ""
                advice = agreement(verdict, together(measurement.options, measurement.verdicts))
                left_open = unmeasured(verdict, measurement.verdicts)
                advice += f" ({left_open})" * bool(left_open)
                return (
                    f"{REFUSED} {detector.question}{subject}: {detector.word} {verdict.decided!r}, measured "
                    f"{measured(verdict)}; {advice}, or "
                    f'--accept {detector.name}="why" keeps it'
                )
        return None


REFUSED = "the data contradict what was decided:"
"""How the reason of a recording that evidence left out begins."""


def gate_of(
    verdicts: Sequence[DatasetVerdict], accepted: Mapping[str, str], recordings: Sequence[RootedRecording]
) -> EvidenceGate:
    """What workers need of the verdicts of the first episodes. recordings: all that are converted."""
    sure = ((v.detector, v.subject) for v in verdicts if v.verdict == "confirmed" and v.episodes_for >= 3)
    shown = shown_recordings(recordings)
    closely = tuple(dict.fromkeys(each.id for most in (EVERY_FRAME_LONG, EVERY_FRAME) for each in spread(shown, most)))
    ids = frozenset(recording.id for recording in shown)
    return EvidenceGate(dict(accepted), frozenset(sure), ids, closely, len(recordings) <= MOST_COMPARED)


def spread(items: Sequence[RootedRecording], count: int) -> list[RootedRecording]:
    """At most `count` of the recordings, evenly spread, in order."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, count).round().astype(int))]


def first_recordings(
    recordings: Sequence[RootedRecording], thorough: bool = False
) -> list[tuple[RootedRecording, bool]]:
    """(recording, whether its images are measured) of those that are measured before anything is written.

    thorough: as a dry run does.
    """
    count = len(recordings)
    images = max(DRY_IMAGES, count // DRY_SHARE) if thorough else min(MAX_FIRST, count // IMAGE_SHARE)
    images = min(MAX_SHOWN, images)
    images = images if images >= MIN_IMAGES else 0
    shown_later = shown_recordings(recordings)  # what is known of their images is not measured again
    chosen = spread(shown_later, max(min(MAX_FIRST, max(MIN_FIRST, count // FIRST_SHARE)), images))
    shown = {recording.id for recording in spread(chosen, images)} if images else set()
    return [(recording, recording.id in shown) for recording in chosen]


def dry_recordings(recordings: Sequence[RootedRecording]) -> list[tuple[RootedRecording, bool]]:
    """The same of those that a dry run reads, so that it can say what the conversion would leave out."""
    images = {recording.id: shown for recording, shown in first_recordings(recordings, thorough=True)}
    usual = sum(recording.ref.num_bytes for recording in recordings) / max(1, len(recordings))
    more = {recording.id for recording in spread(recordings, min(DRY_ROWS, int(DRY_BYTES / max(1.0, usual))))}
    return [(r, images.get(r.id, False)) for r in recordings if r.id in images or r.id in more]


def shown_recordings(recordings: Sequence[RootedRecording]) -> list[RootedRecording]:
    """The recordings whose images all detectors see while they are converted, evenly spread."""
    return spread(recordings, min(MAX_SHOWN, max(MIN_SHOWN, len(recordings) // SHOWN_SHARE)))


def read_thumbnails(episode: Episode) -> dict[str, Collector]:
    """Camera -> what is taken of all frames of an episode, in one pass. Raises what reading a camera raises."""
    rows, rendered = len(episode.state), episode.conventions.simulated
    return {name: looked_through(camera, rows, rendered) for name, camera in episode.cameras.items()}


def episode_as_seen(recording: RootedRecording, episode: Episode, hz: float, images: bool) -> EpisodeInput:
    """One episode as detectors see it. images: read its cameras for the detectors that look at them.

    Raises what reading a camera raises.
    """
    return episode_with(recording, episode, hz, read_thumbnails(episode) if images else {})


def episode_with(
    recording: RootedRecording,
    episode: Episode,
    hz: float,
    taken: Mapping[str, Collector],
    every: int = 1,
) -> EpisodeInput:
    """One episode as detectors see it. taken: by camera, of every so many rows; incomplete ones are left out."""
    rows = EpisodeInput(
        id=recording.id,
        group=recording.group,
        state=episode.state,
        action=episode.action,
        state_names=tuple(episode.state_names),
        action_names=tuple(episode.action_names),
        timestamp_s=episode.timestamp_ns / 1e9,
        hz=hz,
        instruction=episode.instructions[0],
        claims=episode.conventions,
    )
    return with_images(rows, episode, taken, every) if taken else rows


def with_images(rows: EpisodeInput, episode: Episode, taken: Mapping[str, Collector], every: int) -> EpisodeInput:
    """The same with what was taken of its images; see `episode_with`."""
    wanted = -(-len(episode.state) // every)
    thumbnails = {name: each.take() for name, each in taken.items()}
    looks = {name: each.look(episode.cameras[name]) for name, each in taken.items()}
    return rows.seen(
        {name: found for name, found in thumbnails.items() if len(found) == wanted},
        {name: look for name, look in looks.items() if look is not None},
        every,
    )


def recorded_gate(out: Path, accepted: Mapping[str, str], recordings: Sequence[RootedRecording]) -> EvidenceGate | None:
    """The gate of a store that a conversion continues, by the verdicts of the first and of all that it holds.

    None where it was begun without evidence.
    """
    record = read_evidence(LocalFiles(out))
    if record is None:
        return None
    verdicts = (*record.first_verdicts(), *record.verdicts())
    return gate_of(verdicts, {**record.accepted(), **accepted}, recordings)
