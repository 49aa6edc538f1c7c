"""The dataset manifest: the only definition of its format, and how one is found and read.

A manifest describes one dataset, and has two halves with two lifetimes:

    Source   converter, cameras, fps, units, options: what the stored bytes depend on; fixed once a store is converted
    View     stitch, window, split, normalisation, prompt, description: how they are used; `fwdata view` changes it

Built-in manifests live in `manifests/*.yaml`; `--manifest` also takes a path, and `FWDATA_PLUGINS` names a folder
with `<name>.py` converters and `<name>.yaml` manifests of your own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ModelWrapValidatorHandler, StrictInt, model_validator

from fwdata.errors import ManifestError, UsageError, did_you_mean
from fwdata.images.layouts import BUILT_IN, checked_tiles, find_layout, fitting_advice, is_layout, nearest_advice
from fwdata.plugins import plugin_dir
from fwdata.validation import Model, load_yaml, parse_model, validate_model
from fwdata.window import Window

if TYPE_CHECKING:
    from pydantic.config import JsonDict
    from pydantic_core import ErrorDetails

__all__ = [
    "Fps",
    "Manifest",
    "Model",
    "Normalisation",
    "Source",
    "Split",
    "StitchSpec",
    "View",
    "Window",
    "built_in_path",
    "check_stitched_size",
    "load_manifest",
    "load_yaml",
    "manifest_names",
    "parse_model",
    "plugin_dir",
    "shared_manifest",
    "validate_model",
]

PROMPT_TEMPLATE = "A video recorded from a robot's point of view executing the following instruction: {task}"
"""Fast-WAM's prompt (robot_video_dataset.py)."""

IMAGE_STEP = 32
"""A stitched image is encoded in steps of so many pixels: the VAE's stride 16 times the patch of 2."""


def _only_one_size(schema: JsonDict) -> None:
    """What is computed may be left out; see `StitchSpec._fill_in`."""
    schema["required"] = ["layout"]
    schema["anyOf"] = [{"required": ["size"]}, {"required": ["camera_size"]}]


def _known_layout(name: str) -> str:
    find_layout(name)
    return name


LayoutName = Annotated[str, AfterValidator(_known_layout), Field(examples=list(BUILT_IN))]
"""The name of a stitch layout."""


class StitchSpec(Model):
    """How camera frames become one image; see `fwdata.images.stitch`.

    With the layouts `horizontal` and `vertical`, one of camera_size and size follows from the other.
    """

    layout: LayoutName
    """How the cameras are arranged: horizontal, vertical, robotwin, or a layout of FWDATA_PLUGINS or of a package."""
    cameras: tuple[str, ...] = Field(min_length=1)
    """Names in stitching order; all layouts need them in this order. Default: the manifest's cameras."""
    camera_size: tuple[StrictInt, StrictInt]
    """(height, width) in pixels that every camera is resized to first; the aspect ratio is not kept. Default: what
    follows from `size`."""
    size: tuple[StrictInt, StrictInt]
    """(height, width) of the stitched image in pixels, multiples of 32. Default: what follows from `camera_size`."""

    model_config = ConfigDict(json_schema_extra=_only_one_size)

    @model_validator(mode="wrap")
    @classmethod
    def _fill_in(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Compute the size that is not given; it does not count as set."""
        computed = _following_size(data) if isinstance(data, Mapping) else {}
        made = handler({**data, **computed} if computed else data)
        made.model_fields_set.difference_update(computed)
        return made

    @model_validator(mode="after")
    def _sizes_fit(self) -> StitchSpec:
        n = len(self.cameras)
        if min(*self.camera_size, *self.size) < 1:
            raise ValueError(f"sizes must be at least 1, found camera_size {self.camera_size} and size {self.size}")
        if len(set(self.cameras)) != n:
            raise ValueError(f"cameras must be distinct, found {list(self.cameras)}")
        try:
            checked_tiles(self.layout, n, self.camera_size, self.size)
        except ValueError as error:
            raise ValueError(
                f"{error}{fitting_advice(self.layout, n, self.camera_size, self.size, IMAGE_STEP)}"
            ) from None
        return self


def _following_size(data: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The one of `size` and `camera_size` that follows from the other; empty where both or neither are given.

    What is malformed is left to the checks of the fields. ValueError for a size that does not divide among the cameras.
    """
    names, layout = data.get("cameras"), data.get("layout")
    given = [key for key in ("camera_size", "size") if data.get(key) is not None]
    if not isinstance(layout, str) or not is_layout(layout) or len(given) != 1:
        return {}
    if not isinstance(names, list | tuple) or not names:
        return {}
    value, n = data[given[0]], len(names)
    if not _is_size(value):
        return {}
    arrangement, known = find_layout(layout), (value[0], value[1])
    if given == ["camera_size"]:
        size = arrangement.size_of(n, known)
        return {} if size is None else {"size": size}
    try:
        each = arrangement.camera_size_of(n, known)
    except ValueError as error:
        raise ValueError(f"{error}{nearest_advice(layout, n, known, known, IMAGE_STEP)}") from None
    return {} if each is None else {"camera_size": each}


def following_sizes(stitch: Mapping[str, Any], decided: Collection[str]) -> list[str]:
    """Which of `size` and `camera_size` the layout computes anew where keys of `stitch` were decided; at most one."""
    names, layout = stitch.get("cameras"), stitch.get("layout")
    if not isinstance(layout, str) or not is_layout(layout) or not isinstance(names, list | tuple):
        return []
    by_size = "size" in decided and "camera_size" not in decided
    key, known = ("camera_size", "size") if by_size else ("size", "camera_size")
    if key in decided or not _is_size(stitch.get(known)):
        return []
    arrangement, size = find_layout(layout), (stitch[known][0], stitch[known][1])
    compute = arrangement.camera_size_of if by_size else arrangement.size_of
    with contextlib.suppress(ValueError):
        return [] if compute(len(names), size) is None else [key]
    return [key]


def _is_size(value: object) -> bool:
    return isinstance(value, list | tuple) and [type(v) for v in value] == [int, int]


class Split(Model):
    """Validation split by episode, as the official trainer draws it.

    With E episodes, `numpy.random.default_rng(seed)` shuffles 0..E-1 and the first int(E * (1 - val)) train. A set so
    small that `E * val < 1` has no validation episodes.
    """

    val: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the episodes that are held out for validation."""
    seed: int = 42
    """Seed of the shuffle."""


def _or_number(schema: JsonDict) -> None:
    mapping = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "number", "exclusiveMinimum": 0}, mapping]


class Fps(Model):
    """Rate of the rows; a manifest may give hz alone, as a number: `fps: 20`."""

    model_config = ConfigDict(json_schema_extra=_or_number)

    hz: float = Field(gt=0, allow_inf_nan=False)
    """True rate in Hz."""
    nominal: float | None = Field(default=None, allow_inf_nan=False)
    """The label in Hz that the source carries, where it differs; null: it does not."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, data: Any) -> Any:
        if isinstance(data, int | float) and not isinstance(data, bool):
            return {"hz": data}
        if not isinstance(data, Mapping | Fps):
            raise ValueError(f"must be a number of Hz, or a mapping of hz and nominal, found {data!r}")
        return data


class Normalisation(Model):
    """How fwtrain scales state and action."""

    mode: Literal["zscore", "minmax", "quantile"] = "zscore"
    """"zscore" maps to mean 0 and deviation 1; "minmax" maps the extremes, "quantile" the 1 % and 99 % quantiles, to -1
    and 1; see `fwdata.normalise`."""
    delta_actions: tuple[int, ...] = ()
    """Action dimensions that are deltas, which are set to 0 (not repeated) past the end of an episode."""

    def check_actions(self, count: int, where: str) -> None:
        """ManifestError unless every delta is one of `count` dimensions of the action."""
        wrong = [number for number in self.delta_actions if not 0 <= number < count]
        if wrong:
            raise ManifestError(
                f"{where}: normalisation.delta_actions: must be dimensions of the action, 0 to {count - 1}, "
                f"found {wrong[0]}"
            )


def _plain_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", value):
        raise ValueError(f"{value!r} must be a plain name of letters, digits, '_' and '-'")
    return value


def _plain_cameras(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:  # they become names of folders
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise ValueError(f"camera {name!r} must be letters, digits, '_', '.' and '-', not beginning with '.'")
    if len(set(value)) != len(value):
        raise ValueError(f"cameras must be distinct, found {list(value)}")
    return value


def _has_task(value: str) -> str:
    if value.count("{task}") != 1:
        raise ValueError("prompt must contain {task} exactly once")
    return value


class SourceKeys(Model):
    """The manifest's part of a Source."""

    converter: Annotated[str, AfterValidator(_plain_name)]
    """Name of the converter: robotwin, libero, r1lite, lerobot, or your own."""
    cameras: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_plain_cameras)]
    """Cameras that are stored, by the names the converter gives them."""
    fps: Fps
    """Rate of the rows in Hz: a number, or a mapping."""
    units: dict[str, str] = Field(default_factory=dict)
    """Units of `state` and `action`, in words; only shown."""
    options: dict[str, object] = Field(default_factory=dict)
    """The converter's own options; what is absent takes the converter's default."""


class Source(SourceKeys):
    """What the stored bytes depend on: two conversions of the same recordings with equal Sources are equal."""

    version: int = 1
    """The converter's version; see `fwdata.api.Converter`."""


class View(Model):
    """How stored bytes are used: caches and training depend on it, the episodes do not."""

    description: str = ""
    """The dataset in a sentence; "": none."""
    stitch: StitchSpec
    """How the cameras become one image."""
    window: Window = Window()
    """Frames and actions of one training sample."""
    split: Split = Split()
    """Which episodes validate."""
    normalisation: Normalisation = Normalisation()
    """How training scales state and action."""
    prompt: Annotated[str, AfterValidator(_has_task)] = PROMPT_TEMPLATE
    """The text that is encoded for an instruction, which stands in place of {task}."""

    def render_prompt(self, instruction: str) -> str:
        """The text that is encoded for an instruction."""
        return self.prompt.replace("{task}", instruction)


class Manifest(SourceKeys, View):
    """One dataset: a Source and a View under a name.

    Raises ManifestError (through `load_manifest`) for unknown keys and values that do not fit.
    """

    name: Annotated[str, AfterValidator(_plain_name)]
    """What `--manifest` and messages call it."""

    @model_validator(mode="wrap")
    @classmethod
    def _stitch_all(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Stitch the manifest's cameras where `stitch` names none; they do not count as set."""
        stitch = data.get("stitch") if isinstance(data, Mapping) else None
        if not isinstance(stitch, Mapping) or "cameras" in stitch or "cameras" not in data:
            return handler(data)
        made = handler({**data, "stitch": {**stitch, "cameras": data["cameras"]}})
        made.stitch.model_fields_set.discard("cameras")
        return made

    @classmethod
    def first_faults(cls, errors: list[ErrorDetails], data: object) -> list[ErrorDetails]:
        """Without what only follows: a size that cannot be computed, and cameras that `stitch` took from `cameras`."""
        stitch = data.get("stitch") if isinstance(data, Mapping) else None
        given = set(stitch) if isinstance(stitch, Mapping) else set()
        wrong_cameras = "cameras" not in given and any(error["loc"][:1] == ("cameras",) for error in errors)
        sizes, places = {"size", "camera_size"}, {error["loc"] for error in errors}

        def follows(error: ErrorDetails) -> bool:
            loc = error["loc"]
            if loc[:1] != ("stitch",):
                return False
            if wrong_cameras and (loc[:2] == ("stitch", "cameras") or len(loc) == 1):
                return True
            missing = error["type"] == "missing" and loc[-1] in sizes and bool(sizes & given)
            return missing and (wrong_cameras or any(p != loc and p[:1] == ("stitch",) for p in places))

        return [error for error in errors if not follows(error)]

    @model_validator(mode="after")
    def _cameras_agree(self) -> Manifest:
        missing = [c for c in self.stitch.cameras if c not in self.cameras]
        if missing:
            raise ValueError(f"stitch.cameras names {missing}, which are not in cameras {list(self.cameras)}")
        return self

    def source(self, version: int = 1) -> Source:
        """What stored bytes depend on, with the converter at `version`."""
        return Source(**dict(self.source_keys), version=version)

    @property
    def source_keys(self) -> SourceKeys:
        """What stored bytes depend on, the converter's version left out."""
        return SourceKeys(**{key: getattr(self, key) for key in SourceKeys.model_fields})

    @property
    def view(self) -> View:
        """How stored bytes are used."""
        return View(**{key: getattr(self, key) for key in View.model_fields})

    def digest(self) -> str:
        """sha256 of the manifest's canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def check_stitched_size(stitch: StitchSpec, where: str) -> None:
    """ManifestError unless the stitched image can be encoded: both sides a multiple of IMAGE_STEP."""
    height, width = stitch.size
    if height % IMAGE_STEP or width % IMAGE_STEP:
        near = nearest_advice(stitch.layout, len(stitch.cameras), stitch.camera_size, stitch.size, IMAGE_STEP)
        raise ManifestError(
            f"{where}: stitch.size: the stitched image of {height}x{width} must be a multiple of {IMAGE_STEP} on both "
            f"sides (VAE stride 16, patch 2){near}"
        )


def manifest_names() -> list[str]:
    """Names that `--manifest` takes: the built-in manifests and those of FWDATA_PLUGINS."""
    names = {p.name[:-5] for p in importlib.resources.files("manifests").iterdir() if p.name.endswith(".yaml")}
    plugins = plugin_dir()
    if plugins is not None and plugins.is_dir():
        names |= {p.stem for p in plugins.glob("*.yaml")}
    return sorted(names)


def built_in_path(name: str) -> str:
    """Where the file of a built-in manifest lies, to copy it from any folder."""
    return str(importlib.resources.files("manifests") / f"{name}.yaml")


def load_manifest(name_or_path: str) -> Manifest:
    """Read a manifest by built-in name, plugin name or path.

    Raises ManifestError naming the keys, the closest known ones, and a stitched size that cannot be encoded; UsageError
    when there is no such manifest.
    """
    return _checked(_text_of(name_or_path), f"manifest {name_or_path}")


def shared_manifest(name: str) -> Manifest:
    """As `load_manifest`, the same object for the same text, not to be changed: recognising a source looks at all."""
    return _kept(_text_of(name), f"manifest {name}")


def _checked(text: str, where: str) -> Manifest:
    manifest = parse_model(Manifest, text, where)
    check_stitched_size(manifest.stitch, where)
    return manifest


_kept = lru_cache(maxsize=64)(_checked)


def _text_of(name: str) -> str:
    try:
        return _manifest_text(name)
    except UnicodeDecodeError as error:
        raise ManifestError(f"manifest {name} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _manifest_text(name_or_path: str) -> str:
    plugins = plugin_dir()
    if plugins is not None and (plugins / f"{name_or_path}.yaml").is_file():
        return (plugins / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    builtin = importlib.resources.files("manifests") / f"{name_or_path}.yaml"
    if "/" not in name_or_path and builtin.is_file():
        return builtin.read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path.read_text(encoding="utf-8")
    raise UsageError(f"no manifest {name_or_path!r}{did_you_mean(name_or_path, manifest_names())}")
