"""One episode of a LeRobot dataset: its number, length, texts and the files it is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class VideoPlace:
    """Where an episode's frames of one camera are."""

    file: str
    """The video, relative to the dataset, POSIX."""
    start_s: float | None = None
    """Time of the episode's first frame in the file, seconds; None: the file holds this episode alone."""
    stop_s: float | None = None
    """Time at which the episode ends in the file, seconds; None: the file holds this episode alone."""
    unsure: bool = False
    """Whether `start_s` was counted from the rows before, in a video that has fewer frames than its episodes rows."""


@dataclass(frozen=True)
class EpisodeMeta:
    """One episode as described by the metadata."""

    index: int
    """Its `episode_index`."""
    length: int
    """Rows, and so frames."""
    tasks: tuple[str, ...]
    """All texts registered for it, in no useful order."""
    raw_name: str
    """The recording it was made from; "" where the metadata do not name one."""
    data_file: str
    """The Parquet file of its rows, relative to the dataset, POSIX."""
    videos: Mapping[str, VideoPlace]
    """Place of its frames by feature key; a camera whose place the metadata do not give is absent."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Why a camera's frames are not there, a sentence by feature key; {}: nothing is known beyond `videos`."""
