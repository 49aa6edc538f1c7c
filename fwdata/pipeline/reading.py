"""Reading recordings; one that is measured before it is converted is read once, where reading is slow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fwdata.api import Converter, Episode
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import EpisodeMeasurement
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import RootedRecording

MAX_KEPT = 24
"""Episodes that a process keeps: more than are measured before a conversion."""


@dataclass(frozen=True, eq=False)
class KeptMeasurement:
    """What a recording showed before the conversion."""

    found: EpisodeMeasurement
    """What was measured."""
    images: bool
    """Whether in the images of all its cameras, too."""
    seen: EpisodeInput
    """The recording as detectors saw it, with what they computed of its rows, without images."""


type Marks = tuple[tuple[str, int, int], ...]
type Key = tuple[str, Path, str, Marks]

_kept: dict[Key, Episode] = {}
_measured: dict[Key, KeptMeasurement] = {}


def read_recording(
    request: ConvertRequest, converter: Converter, recording: RootedRecording, *, again: bool = False
) -> Episode:
    """Read a recording, or take what this process has read of it before, if its files are as they were.

    again: it will be asked for once more, so keep it, where the converter's class says that reading is slow
    (`slow_reading`). Raises what `Converter.read` raises.
    """
    if not getattr(converter, "slow_reading", False):
        return converter.read(recording.root.path, recording.ref)
    key = _key(request, recording)
    episode = _kept.pop(key, None)
    if episode is None:
        episode = converter.read(recording.root.path, recording.ref)
    if again and len(_kept) < MAX_KEPT and _key(request, recording) == key:
        _kept[key] = episode
    return episode


def keep_measurement(request: ConvertRequest, recording: RootedRecording, kept: KeptMeasurement) -> None:
    """Keep what a recording showed before the conversion, for `kept_measurement` in this process."""
    if len(_measured) < MAX_KEPT:
        _measured[_key(request, recording)] = kept


def kept_measurement(request: ConvertRequest, recording: RootedRecording) -> KeptMeasurement | None:
    """What was kept, if the recording's files are as they were."""
    return _measured.pop(_key(request, recording), None) if _measured else None


def _key(request: ConvertRequest, recording: RootedRecording) -> Key:
    """The recording, how it is read, and size and time of the last change of its files."""
    root = recording.root.path
    base, found = root.parent if root.is_file() else root, []
    for name in recording.ref.files:
        try:
            status = (base / name).stat()
        except OSError:  # reading it says what is wrong
            found.append((name, -1, -1))
        else:
            found.append((name, status.st_size, status.st_mtime_ns))
    return request.manifest.digest(), root, recording.ref.id, tuple(found)
