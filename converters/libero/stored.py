"""What was decided about an episode of a store, as far as its metadata tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from converters.libero.cameras import Operation
from converters.libero.gripper import OWN_RULE
from converters.libero.options import LiberoOptions
from converters.libero.orientation import rotation_of
from converters.shared import conventions as claims
from fwdata.api import Conventions, Json, RateClaim, converter_options
from fwdata.manifest import Manifest, validate_model

PLACES = {"image": "fixed", "wrist_image": "wrist"}


def stored_conventions(
    manifest: Manifest, names: tuple[tuple[str, ...], tuple[str, ...]], metadata: Mapping[str, Json]
) -> Conventions:
    """See `fwdata.api.StoredConventions`."""
    merged = converter_options(manifest.options, LiberoOptions().model_dump(), "libero")
    options = validate_model(LiberoOptions, merged, f"options of manifest {manifest.name!r}")
    found = claims.libero(placed(manifest.cameras), chosen=turned_by_option(options, manifest.cameras))
    if options.absolute_actions:
        found = replace(found, action="absolute", rotations=tuple(replace(c, command=()) for c in found.rotations))
    rate = RateClaim(manifest.fps.hz, _number(metadata, "fps_label"), clock=_number(metadata, "fps_clock"))
    found = replace(found, rate=rate, effect_row=effect_row(metadata), reordered=reordered(manifest))
    return replace(found, options=agreeing(manifest, options, metadata))


def placed(cameras: Iterable[str]) -> dict[str, str]:
    """ "fixed" and "wrist" -> the camera that is there, of those known."""
    return {PLACES[name]: name for name in cameras if name in PLACES}


def turned_by_option(options: LiberoOptions, cameras: Iterable[str]) -> list[str]:
    """Cameras that an option turns, whatever the recordings say."""
    return [name for name in cameras if rotation_of(options.rotation, name) != "auto"]


def reordered(manifest: Manifest) -> bool:
    """`Conventions.reordered`: whether the view stitches the manifest's two cameras the other way round."""
    cameras = manifest.cameras
    return len(cameras) == 2 and manifest.stitch.cameras == tuple(reversed(cameras))


def _number(metadata: Mapping[str, Json], key: str) -> float | None:
    value = metadata.get(key)
    return float(value) if isinstance(value, int | float) else None


def effect_row(metadata: Mapping[str, Json]) -> int | None:
    """`Conventions.effect_row` of an episode by its metadata."""
    timing = metadata.get("obs_timing")
    return {"after_action": 0, "before_action": 1}.get(timing) if isinstance(timing, str) else None


UPSIDE_DOWN: Mapping[Operation, Operation] = {
    "rot180": "mirror",
    "mirror": "rot180",
    "none": "flip_vertical",
    "flip_vertical": "none",
}
"""What turns a camera's stored frames -> the same with top and bottom exchanged."""

MIRRORED: Mapping[Operation, Operation] = {
    "rot180": "flip_vertical",
    "flip_vertical": "rot180",
    "none": "mirror",
    "mirror": "none",
}
"""The same with left and right exchanged."""


def agreeing(manifest: Manifest, options: LiberoOptions, metadata: Mapping[str, Json]) -> dict[str, str]:
    """`Conventions.options`: what would agree with the opposite of each decision. metadata: of the episode."""
    cameras = manifest.cameras
    found = claims.rate_option(_number(metadata, "fps_clock") or _number(metadata, "fps_label"))
    found |= claims.order_option("mounts_exchanged", tuple(reversed(cameras))) if len(cameras) == 2 else {}
    opens = metadata.get("gripper_action") != OWN_RULE
    found["gripper_polarity"] = f"--gripper {'plus_closes' if opens else 'plus_opens'}"
    found["action_meaning"] = "--no-absolute-actions" if options.absolute_actions else "--absolute-actions"
    if (other := _other_text(options, metadata)) is not None:
        found["instruction_ending"] = f"--instruction {other}"
    for name, done in _turned(metadata.get("rotation"), cameras).items():
        side = "wrist_left_right" if PLACES.get(name) == "wrist" else "camera_left_right"
        found[f"{side} {name}"] = f"--rotation {name}={MIRRORED[done]}"
        found[f"camera_up_down {name}"] = f"--rotation {name}={UPSIDE_DOWN[done]}"
        found[f"camera_up_down+camera_left_right {name}"] = f"--rotation {name}={MIRRORED[UPSIDE_DOWN[done]]}"
    return found


def _other_text(options: LiberoOptions, metadata: Mapping[str, Json]) -> str | None:
    """The option that takes an instruction from the file's name instead of from the file, or the reverse; None where
    the other one has none."""
    if metadata.get("instruction_source") != "file name":
        return "file_name_always" if metadata.get("instruction_file_name") else None
    return (
        "problem_info" if options.instruction != "problem_info" and metadata.get("instruction_problem_info") else None
    )


def _turned(told: Json, cameras: Sequence[str]) -> dict[str, Operation]:
    """Camera -> what was done to its frames, by metadata `rotation`; {} where it does not tell."""
    text = told if isinstance(told, str) else ""
    each = dict(part.split("=") for part in text.split(",")) if "=" in text else dict.fromkeys(cameras, text)
    known: tuple[Operation, ...] = get_args(Operation.__value__)
    return {name: done for name in cameras for done in known if each.get(name) == done}
