"""Reading a few recordings before their turn, so that the rows of all of them are measured at once.

Measured one by one between images, every detector's code and tables have left the caches; of many episodes at once,
detector by detector, they take half as long. What is measured is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from fwdata.api import Converter, Episode
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import compared_traces, measure_rows
from fwdata.evidence.records import EpisodeMeasurement, Trace
from fwdata.pipeline.evidence import episode_as_seen
from fwdata.pipeline.reading import kept_measurement, read_recording
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import RootedRecording

MOST = 32
"""Recordings that are read before the first of them is converted, at most."""

MOST_NUMBERS = 250_000
"""Numbers of state and action after which no more are read: what is computed of them takes some 50 times as many
bytes."""

MOST_BYTES = 64 << 20
"""Bytes of recordings after which no more are read, where their episodes may hold images."""


@dataclass(frozen=True, eq=False)
class ReadAhead:
    """A recording that was read before its turn."""

    episode: Episode
    """What was read."""
    seen: EpisodeInput
    """The same as detectors see it, without images."""
    known: EpisodeMeasurement
    """What its rows show, or what was known of it before."""
    complete: bool
    """Whether the images of all its cameras are measured in it, too."""
    compared: tuple[Trace, ...] = ()
    """What it is compared with all others by, see `EvidenceGate.compares`."""


def in_turn(
    request: ConvertRequest,
    converter: Converter,
    recordings: Sequence[RootedRecording],
    left_out: Collection[str],
    announce: Callable[[RootedRecording], None],
) -> Iterator[tuple[RootedRecording, ReadAhead | None]]:
    """Every recording in order, with what was read ahead of it.

    None for one that is read in its own turn: where no conventions are measured, one that is left out, or that raised
    something, which it will do again. announce: called before each is read.
    """
    if request.gate is None:
        yield from ((recording, None) for recording in recordings)
        return
    first = 0
    while first < len(recordings):
        group = _group(converter, recordings, first)
        read = {}
        numbers, last = 0, first
        for last in range(first, first + group):
            recording = recordings[last]
            if recording.id not in left_out:
                announce(recording)
                episode = _read(request, converter, recording)
                if episode is not None:
                    read[last] = episode
                    numbers += episode.state.size + episode.action.size
            if numbers >= MOST_NUMBERS:
                break
        known = _measured(request, recordings, read)
        read.clear()
        for place in range(first, last + 1):
            yield recordings[place], known.pop(place, None)
        first = last + 1


def _group(converter: Converter, recordings: Sequence[RootedRecording], first: int) -> int:
    """How many recordings from the first on are read together, at least one."""
    if getattr(converter, "slow_reading", False):  # whose episodes hold no images
        return min(MOST, len(recordings) - first)
    count, held = 0, 0
    for recording in recordings[first : first + MOST]:
        held += recording.ref.num_bytes
        if count and held > MOST_BYTES:
            break
        count += 1
    return count


def _read(request: ConvertRequest, converter: Converter, recording: RootedRecording) -> Episode | None:
    try:
        return read_recording(request, converter, recording)
    except Exception:  # noqa: BLE001 - read once more in its turn, where the reason is recorded
        return None


def _measured(
    request: ConvertRequest, recordings: Sequence[RootedRecording], read: dict[int, Episode]
) -> dict[int, ReadAhead]:
    """By place, what the rows of several episodes show. Empty where one of them raises: each is measured alone,
    and the error is recorded for its recording."""
    hz = request.manifest.fps.hz
    try:
        before = {place: kept_measurement(request, recordings[place]) for place in read}
        seen = {
            place: kept.seen if kept else episode_as_seen(recordings[place], read[place], hz, False)
            for place, kept in before.items()
        }
        new = [place for place, kept in before.items() if kept is None]
        rows = dict(zip(new, measure_rows([seen[place] for place in new]), strict=True))
        compares = request.gate is not None and request.gate.compares
        traces = compared_traces([each.unclaimed() for each in seen.values()]) if compares else [()] * len(seen)
    except Exception:  # noqa: BLE001 - each is measured in its turn, where the reason is recorded
        return {}
    found = {place: (kept.found, kept.images) if kept else (rows[place], False) for place, kept in before.items()}
    both = zip(seen.items(), traces, strict=True)
    return {place: ReadAhead(read[place], each, *found[place], told) for (place, each), told in both}
