"""One episode of a LeRobot dataset: its number, length, texts and the files it is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GOOD = frozenset({"success", "successful", "is_success", "task_success", "episode_success", "valid", "is_valid"})
"""Keys of an episode's metadata whose falsehood marks it as failed."""

BAD = frozenset({"failed", "failure", "is_failed", "is_failure", "discarded", "discard", "is_discarded", "invalid"})
"""Keys of an episode's metadata whose truth marks it as failed."""

_FALSE = frozenset({"false", "0", "0.0", "no", "failed", "failure", "fail"})
_TRUE = frozenset({"true", "1", "1.0", "yes", "failed", "failure", "fail"})


def said_failed(told: Mapping[str, object], tasks: tuple[str, ...]) -> str:
    """How an episode's metadata mark it as failed or not valid; "" where they do not.

    tasks: texts registered for it; GR00T's sets have "valid" or "invalid" among them.
    """
    for keys, marks in ((GOOD, _FALSE), (BAD, _TRUE)):
        for key in keys & told.keys():
            if str(told[key]).strip().lower() in marks:
                return f"{key} is {told[key]}"
    return "its tasks hold 'invalid'" if "invalid" in tasks else ""


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
    followed: bool = False
    """Whether it was recovered and another episode follows it in the last file of a recording that was killed: frames
    that no row has are behind both, of rows that were lost."""
    images: tuple[str, ...] = ()
    """Files of its images in order, `file` the first, where they were not encoded yet (option recover); (): a video."""

    @property
    def files(self) -> tuple[str, ...]:
        """All files that its frames are in."""
        return self.images or (self.file,)


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
    failed: str = ""
    """What the metadata say where they mark the episode as failed or not valid, such as `success is False`."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Why a camera's frames are not there, a sentence by feature key; {}: nothing is known beyond `videos`."""
