"""Every record of a store's metadata, typed. `fwdata.store.metadata` reads and writes them.

A record is checked when it is read. Fields that this version does not know are kept, so that a store of a newer minor
version opens and is copied unchanged: what is read and written again has the bytes it had.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from fwdata.field_docs import DocumentedModel
from fwdata.store.files import json_digest
from fwdata.window import Window

type JsonObject = dict[str, Any]
"""Free-form JSON: what a user or a converter declares, which fwdata stores, compares and shows, and never steers by."""

type Count = Annotated[int, Field(strict=True, ge=0)]
"""A number of things; not negative, and not a number in quotes."""

type Number = Annotated[float, Field(strict=True)]
"""A finite number."""

type Digest = str
"""sha256 in hex."""


class Record(DocumentedModel):
    """Base of all records: immutable, unknown fields kept, and written with exactly the fields that were set."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def to_json(self) -> JsonObject:
        """The record as it is stored: the fields that were read or set, unknown ones included."""
        return self.model_dump(mode="json", exclude_unset=True)

    def digest(self) -> Digest:
        """sha256 of the stored record, which is what `zarr.json` carries and what caches refer to. Computed anew."""
        return json_digest(self.to_json())


class SealedRecord(Record):
    """What every complete folder has. Written last, when everything else is there."""

    state: Literal["complete"]
    """Tells a complete folder from one that is still written."""
    digests: dict[str, Digest]
    """sha256 of every file below the folder by path; its own zarr.json excepted, and of a part its stitched frames."""

    def array_digest(self, name: str) -> Digest:
        """sha256 of an array's metadata; empty, which no metadata match, for an array that the folder does not list."""
        return self.digests.get(f"{name}/zarr.json", "")


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


class OriginRecord(Record):
    """One input of a merged store."""

    store: str
    """Short unique name of the input."""
    fingerprint: str
    """Fingerprint of the input when it was merged."""
    parts: Count
    """Parts that came from it."""
    episodes: Count
    """Episodes that came from it."""
    frames: Count
    """Rows that came from it."""
    options: JsonObject
    """The converter's options in its manifest."""
    renamed: Count
    """Recordings that got a new id because an earlier input has theirs."""


class StoreRecord(Record):
    """The root of a store: what all of its episodes share."""

    layout_version: Count
    """Version of the on-disk layout."""
    source: str
    """Name of the converter."""
    fps: Number
    """True rate of the rows in Hz."""
    cameras: tuple[str, ...]
    """Names of the cameras in stitching order."""
    state_names: tuple[str, ...]
    """One name per state dimension."""
    action_names: tuple[str, ...]
    """One name per action dimension."""
    manifest: JsonObject
    """The dataset's manifest as it was; checked by `Store.manifest`, against the manifest's own definition."""
    fps_nominal: Number | None = None
    """Rate that the source is labelled with, in Hz, where it differs from `fps`."""
    units: JsonObject = Field(default_factory=dict)
    """Units of state and action, as the manifest declares them."""
    stitch_hash: str = ""
    """Digest of the stitching that the store was made with."""
    manifest_digest: Digest = ""
    """sha256 of the manifest; see `Manifest.digest`."""
    decisions: JsonObject = Field(default_factory=dict)
    """Conventions that the converter decided for the whole root, by name."""
    roots: tuple[str, ...] = ()
    """Names of the folders that were converted."""
    merged: tuple[OriginRecord, ...] = ()
    """The stores that it was merged from, in order; empty for a converted store."""
    writer: str = ""
    """Name and version of the program that wrote it."""
    named_dimensions: bool = False
    """Whether arrays name their dimensions, as xarray asks. False in stores of earlier releases, which are continued
    and repaired as they were begun, so that their digests stay."""

    @property
    def per_episode(self) -> tuple[str, ...]:
        """Dotted keys of the episodes' metadata that hold decisions; see `fwdata.api.Discovery.per_episode`."""
        found = self.decisions.get("per_episode", [])
        lists = found.values() if isinstance(found, dict) else [found]  # of several roots that differ: by root
        return tuple(dict.fromkeys(str(key) for keys in lists if isinstance(keys, list) for key in keys))


class PlannedEpisodeRecord(Record):
    """A recording of the plan."""

    id: str
    """Id of its episode."""
    source: str
    """The recording, as the store calls it."""
    bytes: Count
    """Its size in the source."""


class PlannedPartRecord(Record):
    """A part of the plan."""

    name: str
    """Name of its folder below `parts`."""
    group: str
    """Natural unit that its recordings share."""
    episodes: tuple[PlannedEpisodeRecord, ...]
    """Its recordings, in conversion order."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each recording by id, which `fwdata.store.files.plan_digest` is computed from."""
        return {episode.id: episode.bytes for episode in self.episodes}


class CountRecord(Record):
    """Recordings that were not taken, for one reason; see `fwdata.api.LeftOut`."""

    reason: str
    """What they are and why they are not taken."""
    count: Count
    """How many there are."""
    examples: tuple[str, ...]
    """One or two of them."""
    asked: bool = False
    """Whether an option of the user leaves them out."""


class PlanRecord(Record):
    """The plan of a conversion: which recording belongs to which part, and what discovery left out."""

    parts: tuple[PlannedPartRecord, ...]
    """In conversion order; parts of later runs come last."""
    skipped: tuple[LeftOutRecord, ...]
    """Recordings that discovery left out."""
    warnings: tuple[str, ...]
    """Sentences of discovery for the user."""
    left_out: tuple[CountRecord, ...] = ()
    """Recordings that were not taken although nothing is wrong with them, counted by reason."""
    exclude: tuple[str, ...] = ()
    """Names of recordings that `--exclude` left out."""
    only: tuple[str, ...] = ()
    """Names of the recordings that `--only` took."""


class MadeFromRecord(Record):
    """What everything that is made from a part has, finished or not."""

    source: Digest
    """Digest of the record of the part."""


class StitchedRecord(SealedRecord):
    """The stitched frames of a part, materialised."""

    source: Digest
    """Digest of the record of the part they were made from."""
    stitch_hash: str
    """Digest of the stitching they were made with."""


class CacheRecord(Record):
    """What every cache has."""

    name: str
    """Name given with `--name`."""
    fingerprint: str
    """12 hex digits: digest of the identity."""
    identity: JsonObject
    """Every setting that can change a bit of the cache."""

    def key(self) -> str:
        """Name of the cache's folder."""
        return f"{self.name}-{self.fingerprint}"


class WindowRecord(Record):
    """The training window of a latent cache; see `fwdata.window.Window`."""

    num_frames: Count
    """Raw frames covered."""
    video_stride: Count
    """Raw frames between two video frames."""
    latent_frames: Count
    """Latent frames of the window, the first frame's included."""
    action_horizon: Count
    """Action rows of the window."""

    def window(self) -> Window:
        """The checked window. ValueError where the numbers do not fit together."""
        window = Window(num_frames=self.num_frames, video_stride=self.video_stride, action_horizon=self.action_horizon)
        if self.latent_frames != window.latent_frames:
            raise ValueError(f"latent_frames must be {window.latent_frames}, not {self.latent_frames}")
        return window


class LatentCacheRecord(CacheRecord):
    """A latent cache."""

    vae: str
    """What loads the VAE again: "tiny-libero", "tiny", "wan2.2", a path or a hub id."""
    stride: Annotated[int, Field(strict=True, ge=1)]
    """Frames between two window starts that have future latents."""
    shape: tuple[Count, Count, Count]
    """(C, h, w) of one latent frame."""
    window: WindowRecord
    """The window whose future latents are stored."""

    @property
    def compute_dtype(self) -> str:
        """dtype that the VAE computed in; "float32" where its identity does not name one."""
        vae = self.identity.get("vae")
        return str(vae.get("compute_dtype", "float32")) if isinstance(vae, dict) else "float32"


class LatentPartRecord(SealedRecord):
    """The latents of one part."""

    source: Digest
    """Digest of the record of the part they were made from."""
    frames: Count
    """Frames with a first-frame latent: all rows of the part."""
    windows: Count
    """Window starts with future latents."""


class LatentDraftRecord(Record):
    """Latents of a part that are being written; a killed run continues if their part is the same."""

    state: Literal["writing"] = "writing"
    """Replaced by "complete" when everything is there."""
    source: Digest
    """Digest of the record of the part they are made from."""


class TextCacheRecord(CacheRecord):
    """A text cache."""

    encoder: str
    """What loads the text encoder again: "tiny", "umt5-xxl", a path or a hub id."""
    dim: Count
    """D: width of an embedding row."""
    max_tokens: Count
    """L: rows of an embedding, padding included."""


class TextPartRecord(SealedRecord):
    """One part of a text cache."""

    prompts: Count
    """Prompts of the part."""


class SegmentRecord(Record):
    """A span of an episode with one instruction."""

    first_frame: Count
    """First frame of the span."""
    last_frame: Count
    """Last frame of the span, included."""
    instruction: str
    """Its text; empty where the recording has none."""


class SegmentsRecord(Record):
    """Spans of an episode's own metadata."""

    segments: tuple[SegmentRecord, ...]
    """In frame order, one instruction each."""


class CameraSizesRecord(Record):
    """Frame sizes of an episode's own metadata."""

    camera_sizes: dict[str, tuple[Count, Count]]
    """(height, width) in pixels of each camera's frames."""


class DetailsRecord(Record):
    """The document of one episode: its instructions and every decision made for it."""

    instructions: Annotated[tuple[str, ...], Field(min_length=1)]
    """Training instructions, canonical first."""
    metadata: JsonObject
    """Decisions of the converter for this episode, by name. fwdata reads `SegmentsRecord` and `CameraSizesRecord`."""
