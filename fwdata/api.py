"""The converter contract: all that a new source format has to know about.

A converter is a module or package `converters/<name>` with a class `Converter` that has two methods. It may also lie in
the folder FWDATA_PLUGINS, or in an installed package with an entry point `<name> = "package.module"` of the group
`fwdata.converters`; then its manifest `<name>.yaml` may lie beside the module.

    discover(root)  -> Discovery     cheap and sorted: paths and sizes, no pixels, nothing decoded
    read(root, ref) -> Episode       one recording; pure; raises BadEpisode with a reason

It may have functions besides, for sources that are found on a hub or come in many forms, and for `fwdata doctor` (see
`Fetch`, `ChooseManifest` and `StoredConventions`):

    fetch(name, manifest, options)  -> Path       where a root that is not a path on disk was downloaded to
    choose_manifest(roots, options) -> Manifest   when the user names none
    stored_conventions(manifest, names, metadata) -> Conventions   what was decided about an episode of a store

Its options may be declared as a pydantic model `Options` in the module; their fields become flags of `fwdata convert`
(`--max-episodes-per-task 5`), explained by the docstring under each field (with `use_attribute_docstrings`, as of
`fwdata.manifest.Model`) or by its description.

Where `discover` opens files, `with opening(path):` around it names the one that a library crashes on or never returns
from, and such a file is left out.

It knows its source format and nothing of Zarr, stitching or torch. Everything else (resume, workers, quarantine,
checksums, stitching, statistics, latents) is done by fwdata for every converter alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fwdata.cameras import Camera, EncodedCamera, EncodedFrame, RawCamera, VideoCamera
from fwdata.encode.hub import is_hub_id
from fwdata.errors import BadEpisode, UsageError
from fwdata.evidence.claims import (
    ActionMeaning,
    ArmClaim,
    Bound,
    CameraClaim,
    ColourClaim,
    Conventions,
    GripperClaim,
    GripperScale,
    RateClaim,
    RotationClaim,
    UnitClaim,
)
from fwdata.images.video import VideoHeader, VideoPacket
from fwdata.io import Json, json_fault, shortened, text_fault
from fwdata.manifest import Manifest
from fwdata.pipeline.guarded_open import opening

__all__ = [
    "ActionMeaning",
    "ArmClaim",
    "BadEpisode",
    "Bound",
    "Camera",
    "CameraClaim",
    "ChooseManifest",
    "ColourClaim",
    "Conventions",
    "Converter",
    "Discovery",
    "EncodedCamera",
    "EncodedFrame",
    "Episode",
    "EpisodeRef",
    "EpisodeSegment",
    "Fetch",
    "GripperClaim",
    "GripperScale",
    "Json",
    "LeftOut",
    "Manifest",
    "RateClaim",
    "RawCamera",
    "RotationClaim",
    "Skipped",
    "StoredConventions",
    "UnitClaim",
    "UsageError",
    "VideoCamera",
    "VideoHeader",
    "VideoPacket",
    "is_hub_id",
    "is_wanted",
    "opening",
]

type Fetch = Callable[[str, str | None, Mapping[str, Any]], Path]
"""Module-level `fetch`: (name, manifest and options of the user) -> folder. Raises UsageError when it cannot."""

type ChooseManifest = Callable[[Sequence[Path], Mapping[str, Any]], Manifest]
"""Module-level `choose_manifest`: (roots, options of the user) -> manifest, before the options are applied to it."""

type StoredConventions = Callable[[Manifest, tuple[tuple[str, ...], tuple[str, ...]], Mapping[str, Json]], Conventions]
"""Module-level `stored_conventions`: (manifest of the store, names of its state and action columns, `Episode.metadata`)
-> `Episode.conventions` as far as they are known without the recording, so that a store can be measured again."""


@dataclass(frozen=True)
class EpisodeRef:
    """One recording that was found, before it is read. Picklable; sent to worker processes."""

    id: str
    """Stable, unique in the root, human-readable; becomes `episode.id`."""
    source: str
    """Path relative to the converted root, POSIX, `#demo_3` appended where a file holds several episodes."""
    files: tuple[str, ...]
    """Every file the episode is read from, relative to the root, POSIX; the first one is the recording itself."""
    group: str
    """Natural unit of storage (task, embodiment and setting for RoboTwin): episodes of one part share it."""
    num_bytes: int
    """Size of this episode in its source, for planning parts and estimating time."""
    hints: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """What the converter's own `read` needs to know of it; fwdata does not look inside."""
    num_frames: int | None = None
    """Recorded frames, where discovery learns them at little cost; None: unknown until it is read."""
    entries: Mapping[str, str] = field(default_factory=dict)
    """Those of `files` that list many recordings -> digest of what they say of this one. While that is the same, the
    recording has not changed, whatever else such a file holds. Empty: every byte of `files` counts."""
    embodiment: str = ""
    """The robot, where its place or header names it; recordings of several robots are refused. Empty: not known yet."""


@dataclass(frozen=True)
class Skipped:
    """A recording that discovery already knows cannot or must not be converted (a duplicate, an empty file)."""

    source: str
    """Path relative to the converted root, POSIX."""
    reason: str
    """Why, one sentence."""
    damaged: bool = True
    """Whether it cannot be converted. False where it is left out on purpose (a duplicate, another robot, marked as
    failed), which does not end a conversion with on_error "fail"."""


_wanted: ContextVar[Callable[[EpisodeRef], bool] | None] = ContextVar("wanted", default=None)


def is_wanted(ref: EpisodeRef) -> bool:
    """Whether the user leaves a recording in (`--exclude`, `--only`). `discover` returns all, and may refuse a root
    for what those show that are wanted."""
    wanted = _wanted.get()
    return wanted is None or wanted(ref)


@contextmanager
def wanting(wanted: Callable[[EpisodeRef], bool] | None) -> Iterator[None]:
    """What `is_wanted` answers inside; None: always True."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


@dataclass(frozen=True)
class LeftOut:
    """Recordings that a conversion does not take although nothing is known to be wrong with them, for one reason."""

    reason: str
    """What they are and why they are not taken, as a noun phrase: "archives that are not unpacked"."""
    count: int
    """How many there are."""
    examples: tuple[str, ...] = ()
    """One or two of them."""
    asked: bool = False
    """Whether an option of the user leaves them out; others are shown as a warning."""
    names: tuple[str, ...] = ()
    """All of them, as `EpisodeRef.source` would call them, for who asks for one; () where they have no names."""


@dataclass(frozen=True)
class Discovery:
    """What a root holds."""

    episodes: tuple[EpisodeRef, ...]
    """In conversion order, which must not depend on the order of directory listings."""
    skipped: tuple[Skipped, ...] = ()
    """Recordings left out, each with its reason; they end in the quarantine list."""
    decisions: Mapping[str, Json] = field(default_factory=dict)
    """Conventions decided for the whole root, plain JSON (stored in the metadata, printed by `fwdata inspect`)."""
    warnings: tuple[str, ...] = ()
    """Sentences for the user (gaps in numbering, unknown task names, ..)."""
    left_out: tuple[LeftOut, ...] = ()
    """Recordings that are not taken, counted by reason: filtered ones, archives, groups of other names."""
    per_episode: tuple[str, ...] = ()
    """Dotted keys of `Episode.metadata` that hold what was decided for each episode; `fwdata inspect` counts them."""

    def __post_init__(self) -> None:
        """UsageError where `decisions` are not plain JSON, or hold what fwdata keeps beside them."""
        if not isinstance(self.decisions, Mapping):
            raise UsageError(f"Discovery.decisions must map names to JSON, found {shortened(repr(self.decisions))}")
        if fault := json_fault(dict(self.decisions), "Discovery.decisions"):
            raise UsageError(f"{fault}; decisions must be plain JSON: text, numbers, true or false, lists, mappings")
        keys: object = self.per_episode
        if not isinstance(keys, tuple | list) or not all(isinstance(key, str) for key in keys):
            raise UsageError(
                f"Discovery.per_episode must be names of keys, found {shortened(repr(self.per_episode))}; "
                'write ("seed", "colour")'
            )
        for key, instead in (("per_episode", "state Discovery.per_episode"), ("cameras", "they are the manifest's")):
            if key in self.decisions:
                raise UsageError(f"Discovery.decisions must not hold {key!r}, which fwdata adds itself: {instead}")


MAX_TEXT = 10_000
"""Characters of a task or instruction; text encoders read some 2,000 of them."""

MAX_EPISODE_PIXELS = 1 << 40
"""Pixels of one camera of an episode (14 days of 720p at 15 Hz): a header that claims more is damaged, and is refused
before anything is allocated for it."""


@dataclass(frozen=True)
class EpisodeSegment:
    """Consecutive rows of one instruction."""

    first_frame: int
    """Row it begins with."""
    last_frame: int
    """Row it ends with, included."""
    instruction: str
    """Its training text; empty where the recording has none for these rows."""
    details: Mapping[str, Json] = field(default_factory=dict)
    """What else the recording says of it, stored beside it as JSON; fwdata does not look inside."""

    def to_json(self) -> dict[str, Json]:
        """As it is stored in the episode's metadata."""
        span: dict[str, Json] = {"first_frame": self.first_frame, "last_frame": self.last_frame}
        return {**self.details, **span, "instruction": self.instruction}


STEERING = ("embodiment", "segments", "instruction_per_frame", "warnings")
"""Fields of an episode that are stored among its metadata."""


@dataclass(frozen=True)
class Episode:
    """One converted recording; T rows, one for every frame kept."""

    cameras: Mapping[str, Camera]
    """In stitching order (the manifest's order)."""
    state: NDArray[np.float32]
    """float32 [T, Ds], raw units of the source; names in `state_names`."""
    action: NDArray[np.float32]
    """float32 [T, Da], what was commanded at frame t; names in `action_names`."""
    timestamp_ns: NDArray[np.int64]
    """int64 [T], nanoseconds from the first frame, true stamps where the source has them."""
    valid: NDArray[np.bool_]
    """bool [T], False where alignment rules marked the frame."""
    state_names: Sequence[str]
    """One name per dimension of `state`."""
    action_names: Sequence[str]
    """One name per dimension of `action`."""
    task: str
    """Name of the task."""
    instructions: Sequence[str]
    """Training instructions, canonical first; at least one."""
    metadata: Mapping[str, Json] = field(default_factory=dict)
    """Decisions of this episode (setting, colour order, rotation, seed, ..) as JSON; fwdata does not look inside."""
    warnings: Sequence[str] = ()
    """Sentences for the user; they do not keep the episode out."""
    conventions: Conventions = field(default_factory=Conventions)
    """What was decided about the meaning of numbers and images, typed; it is measured and never stored."""
    embodiment: str | None = None
    """The robot, whose statistics are kept apart from another's; None or empty where the source does not name it."""
    segments: Sequence[EpisodeSegment] | None = None
    """Rows of one instruction each, where the source has more texts than one; None: it has no such notion."""
    instruction_per_frame: bool | None = None
    """Whether a window trains on the text of its first row's segment, not on the canonical one; None: no segments."""

    def stored_metadata(self) -> dict[str, Json]:
        """Every decision of the episode as it is stored: `metadata` with the typed fields that the source has."""
        found: dict[str, Json] = dict(self.metadata)
        if self.embodiment is not None:
            found["embodiment"] = self.embodiment
        if self.segments is not None:
            found["segments"] = [segment.to_json() for segment in self.segments]
        if self.instruction_per_frame is not None:
            found["instruction_per_frame"] = self.instruction_per_frame
        return found

    def __post_init__(self) -> None:
        """Refuse an episode that breaks the contract, so that an invalid one cannot reach a store.

        Arrays of other number types are cast where no value changes (float64 to float32: rounds to the nearest).
        BadEpisode names every fault at once.
        """
        faults = [*self._cast(), *self._texts()]
        if not faults:  # the rows can be looked at
            faults = [*self._rows(), *self._stray()]
        if faults:
            raise BadEpisode("; ".join(faults))

    def _cast(self) -> Iterator[str]:
        """Bring the four arrays to their types; what is wrong with them."""
        for name, dtype, ndim in (
            ("state", np.float32, 2),
            ("action", np.float32, 2),
            ("timestamp_ns", np.int64, 1),
            ("valid", np.bool_, 1),
        ):
            given = np.asarray(getattr(self, name))
            made = _lossless(given, np.dtype(dtype)) if given.ndim == ndim else None
            if made is None:
                yield f"{name} must be {ndim}-D {np.dtype(dtype)}, found {given.ndim}-D {given.dtype}"
            else:
                object.__setattr__(self, name, made)

    def _texts(self) -> Iterator[str]:
        if not self.instructions or not all(text.strip() for text in self.instructions):
            yield "the recording has no instruction text"
        for text in (self.task, *self.instructions, *(part.instruction for part in self.segments or ())):
            if fault := text_fault(text):
                yield f"the task or an instruction has {fault}"
                break
        longest = max(len(text) for text in (self.task, *self.instructions))
        if longest > MAX_TEXT:
            yield f"the task or an instruction has {longest} characters; at most {MAX_TEXT} are taken"

    def _rows(self) -> Iterator[str]:
        rows = len(self.state)
        for name in ("action", "timestamp_ns", "valid"):
            if len(getattr(self, name)) != rows:
                yield f"{name} has {len(getattr(self, name))} rows, state has {rows}"
        if rows == 0:
            yield "the recording holds no frame with an action"
        for name, camera in self.cameras.items():
            if rows * camera.height * camera.width > MAX_EPISODE_PIXELS:
                yield (
                    f"camera {name}: {rows} frames of {camera.height}x{camera.width}; at most {MAX_EPISODE_PIXELS} "
                    "pixels are possible"
                )
        for name, array, names in (
            ("state", self.state, self.state_names),
            ("action", self.action, self.action_names),
        ):
            if array.shape[1] != len(names):
                yield f"{name} has {array.shape[1]} dimensions, but {len(names)} names are given"
            elif not np.isfinite(array).all():
                row, dim = np.argwhere(~np.isfinite(array))[0]
                yield f"{name} is not finite at frame {row}, dimension {names[dim]}"
        if (np.diff(self.timestamp_ns) < 0).any():
            yield "timestamps go backwards"

    def _stray(self) -> Iterator[str]:
        for key in STEERING:
            if key in self.metadata:
                yield f"metadata must not hold {key!r}: it is a field of Episode of that name"
        if "camera_sizes" in self.metadata:
            yield "metadata must not hold 'camera_sizes': fwdata stores them from `cameras`"
        if fault := json_fault(dict(self.metadata), "metadata"):
            yield f"{fault}; metadata must be plain JSON: text, numbers, true or false, lists, mappings"
        if self.instruction_per_frame and not self.segments:
            yield "instruction_per_frame needs segments, and the episode has none"


def _lossless(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The array as `dtype` where no value changes but by float rounding; None where one would.

    Floats become float32, which must not overflow. Whole numbers stay exact. bool takes 0 and 1 alone.
    """
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "fiub":
        return None
    with np.errstate(all="ignore"):
        made = array.astype(dtype)
    if dtype.kind == "f" and array.dtype.kind == "f":
        return made if np.array_equal(np.isfinite(made), np.isfinite(array)) else None
    return made if np.array_equal(made.astype(array.dtype), array) else None


@runtime_checkable
class Converter(Protocol):
    """One source format. Built as `Converter(manifest)`; holds no state besides its manifest and options.

    A class may carry `version`, a whole number from 1 (the default). Raise it with every change by which a recording
    converts to other bytes: stores that an older version made then say so, and `fwdata convert --update` renews them.
    What is stored must follow from the recording, the manifest's Source and the version alone. It may carry
    `slow_reading = True` where `read` decodes images and its episodes hold none: one that was measured before the
    conversion is then converted as it was read.
    """

    def __init__(self, manifest: Manifest) -> None: ...

    def discover(self, root: Path) -> Discovery:
        """Find the recordings below `root`. Costs one directory walk; raises UsageError when there are none."""
        ...

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        """Read one recording. Raises BadEpisode with a reason that names the key and what was found."""
        ...


def converter_options(options: Mapping[str, Any], known: Mapping[str, Any], converter: str) -> dict[str, object]:
    """Merge a manifest's `options` over a converter's defaults; UsageError with the closest match for unknown keys."""
    from fwdata.errors import did_you_mean

    for key in options:
        if key not in known:
            raise UsageError(f"converter {converter!r} has no option {key!r}{did_you_mean(key, known)}")
    return {**known, **options}
