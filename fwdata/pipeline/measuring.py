"""Measuring recordings before a conversion, in a worker process or in this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fwdata.api import Episode
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure, measure_rows
from fwdata.evidence.records import EpisodeMeasurement
from fwdata.pipeline.evidence import episode_as_seen
from fwdata.pipeline.memory import keep_freed
from fwdata.pipeline.part import RecordingOutcome, Unreadable, kept_apart, use_recording
from fwdata.pipeline.reading import KeptMeasurement, keep_measurement
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import RootedRecording
from fwdata.pipeline.workers import LeftOut, Link

type Chosen = Sequence[tuple[RootedRecording, bool]]
"""(recording, whether its images are measured)."""


@dataclass(frozen=True)
class _Read:
    """A recording that was read."""

    rows: int
    warnings: tuple[str, ...]
    seen: EpisodeInput | None
    """None where conventions are not measured."""


def measure_recordings(
    request: ConvertRequest, chosen: Chosen, left_out: LeftOut, *, link: Link
) -> tuple[RecordingOutcome, ...]:
    """What some recordings show of the conventions, without --no-evidence, or why they cannot be read, in order.

    The rows of all of them are measured at once, see `measure_rows`.
    """
    keep_freed()
    read = [_read(request, recording, images, left_out, link) for recording, images in chosen]
    link.announce(None)
    alone = [each for each, (_, images) in zip(read, chosen, strict=True) if not images]
    rows = [each.seen for each in alone if isinstance(each, _Read) and each.seen is not None]
    try:
        known = dict(zip((each.id for each in rows), measure_rows(rows, traced=True), strict=True))
    except Exception:  # noqa: BLE001 - each is measured alone, where the reason is recorded
        known = {}
    found = zip(chosen, read, strict=True)
    return tuple(_outcome(request, recording, images, each, known) for (recording, images), each in found)


def _read(
    request: ConvertRequest, recording: RootedRecording, images: bool, left_out: LeftOut, link: Link
) -> _Read | Unreadable:
    def use(episode: Episode) -> _Read:
        hz = request.manifest.fps.hz
        seen = episode_as_seen(recording, episode, hz, images) if request.evidence else None
        return _Read(len(episode.state), tuple(episode.warnings), seen)

    return use_recording(request, recording, use, left_out, link)


def _outcome(
    request: ConvertRequest,
    recording: RootedRecording,
    images: bool,
    read: _Read | Unreadable,
    known: dict[str, EpisodeMeasurement],
) -> RecordingOutcome:
    """What became of one. known: by id, what the rows of some show."""
    if isinstance(read, Unreadable):
        return RecordingOutcome(recording.source, 0, read.reason)
    if read.seen is None:
        return RecordingOutcome(recording.source, read.rows, warnings=read.warnings)
    seen = read.seen
    found: EpisodeMeasurement | Unreadable
    found = known[seen.id] if seen.id in known else kept_apart(recording, lambda: measure(seen))
    if isinstance(found, Unreadable):
        return RecordingOutcome(recording.source, 0, found.reason)
    keep_measurement(request, recording, KeptMeasurement(found, images, seen.seen({}, {}, 1)))
    return RecordingOutcome(recording.source, read.rows, warnings=read.warnings, measurement=found)
