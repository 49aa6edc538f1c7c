"""Records of a part, of its episodes and cameras, and of one episode's own document."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fwdata.store.records.base import Count, Digest, OpenRecord, Record, SealedRecord


class FileRecord(Record):
    """A file that a recording was read from."""

    path: str
    """Path relative to the root that was converted, POSIX."""
    bytes: Count
    """Size of the file in bytes."""
    sha256: Digest
    """sha256 of the file's bytes."""


class LeftOutRecord(Record):
    """A recording that is not in the store, and why."""

    source: str
    """The recording, as the store calls it: path relative to the root, `#demo_3` where a file holds several."""
    reason: str
    """Why it was left out, one sentence."""


class EpisodeRecord(Record):
    """One episode of a part: what is needed to find its rows. Its other decisions are in `DetailsRecord`."""

    id: str
    """Stable, unique and human-readable."""
    source: str
    """The recording: path relative to the root, POSIX, `#demo_3` appended where a file holds several."""
    task: str
    """Name of the task."""
    instruction: str
    """The canonical training instruction."""
    start: Count
    """First row of the episode in the part's arrays."""
    length: Count
    """Rows (frames) of the episode."""
    files: tuple[FileRecord, ...]
    """Files it was read from, the recording itself first."""
    embodiment: str = ""
    """The robot; empty where the recording does not name one."""
    instruction_per_frame: bool = False
    """Whether the text of a window depends on its first frame (see `SegmentRecord`)."""


class VideoHeaderRecord(Record):
    """What decoding a video needs besides its packets; see `fwdata.images.video.VideoHeader`."""

    codec: str
    """Name of the codec."""
    extradata: str
    """Parameter sets as the container holds them, base64."""
    init: str
    """Start of a fragmented MP4 of the same stream, base64; empty: none."""
    pix_fmt: str
    """Pixel format of the decoded frames, as FFmpeg names it."""
    matrix: Count
    """AVColorSpace of the stream."""
    range: Count
    """AVColorRange of the stream; 2 is full range."""


class CameraRecord(Record):
    """How one camera of a part is stored."""

    encoding: Literal["raw", "jpeg", "video"]
    """"raw": pixels, losslessly compressed; "jpeg", "video": recorded buffers or packets, byte for byte."""
    height: Count
    """Rows of a frame in pixels; of the part's first episode where JPEG sizes differ."""
    width: Count
    """Columns of a frame in pixels."""
    channel_order: str
    """"rgb", "bgr" (a decoder shows red and blue exchanged), or that the array `swapped` says it for each frame."""
    media_type: str | None = None
    """Media type of JPEG buffers; absent otherwise."""
    headers: tuple[VideoHeaderRecord, ...] = ()
    """Of video: what decoding needs besides packets, one for every stream of equal parameters."""


class PartRecord(SealedRecord):
    """A complete part: its episodes and the sha256 of each of its files."""

    group: str
    """Natural unit that its episodes share (task, embodiment and setting for RoboTwin)."""
    plan: Digest
    """Digest of the recordings that were planned for it; see `fwdata.store.files.plan_digest`."""
    frames: Count
    """Rows of all its episodes."""
    episodes: tuple[EpisodeRecord, ...]
    """In row order; empty when all of its recordings were left out."""
    quarantined: tuple[LeftOutRecord, ...]
    """Planned recordings that could not be converted."""
    cameras: dict[str, CameraRecord]
    """Cameras by name."""


class SegmentRecord(OpenRecord):
    """A span of an episode with one instruction; other keys are `fwdata.api.EpisodeSegment.details`."""

    first_frame: Count
    """First frame of the span."""
    last_frame: Count
    """Last frame of the span, included."""
    instruction: str
    """Its text; empty where the recording has none."""


class EpisodeDecisionsRecord(OpenRecord):
    """Every decision made for an episode, by name; other keys are `fwdata.api.Episode.metadata`."""

    camera_sizes: dict[str, tuple[Count, Count]] = Field(default_factory=dict)
    """(height, width) in pixels of each camera's frames."""
    warnings: tuple[str, ...] = ()
    """Sentences about the recording for the user."""
    embodiment: str = ""
    """The robot; absent where the recording does not name one."""
    segments: tuple[SegmentRecord, ...] = ()
    """In frame order, one instruction each; absent where the source has no such notion."""
    instruction_per_frame: bool = False
    """Whether the text of a window depends on its first frame; absent without segments."""


class DetailsRecord(Record):
    """The document of one episode: its instructions and every decision made for it."""

    instructions: Annotated[tuple[str, ...], Field(min_length=1)]
    """Training instructions, canonical first."""
    metadata: EpisodeDecisionsRecord
    """Decisions for this episode, by name."""
