"""Which manifest a LeRobot dataset is converted with when none is named.

The one that fits of the built-in manifests and the user's own: its features, sizes, rate and robot and, for RoboTwin,
the rule of its rows (real ALOHA robots are published with the same features). Where none fits and the features are
plain (images, one state, one action), a manifest is made from meta/info.json.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from converters.lerobot.discovery import DatasetFolder
from converters.lerobot.grippers import check_one_scale, recorded_scale
from converters.lerobot.info import MAX_NUMBERS, Info
from converters.lerobot.mapping import fit
from converters.lerobot.meta import load_dataset
from converters.lerobot.options import MAPPING, options_of
from converters.lerobot.own_exports import true_rate
from converters.lerobot.recognise import broken_promise, detect, near_misses, readable
from converters.lerobot.twins import twins
from fwdata.errors import UsageError, quoted
from fwdata.manifest import Manifest, built_in_path, load_manifest, validate_model
from fwdata.wording import counted

TEMPLATE, PLAIN = "lerobot", "lerobot-plain"
PLAIN_SIDE = 224
"""Pixels of each camera's square where they are joined side by side, as Fast-WAM does for LIBERO."""

_STATES, _ACTIONS = ("observation.state", "state"), ("action", "actions")
_HEAD = re.compile(r"(^|_)(head|high|top|front|overhead|ego|main)(_|$)")


class Apart(UsageError):
    """Datasets that differ, so that no mapping of one store would help."""


def choose(places: Sequence[DatasetFolder], options: Mapping[str, Any]) -> Manifest:
    """The manifest of these datasets. options: the user's; a mapping among them is taken as it is.

    Raises UsageError when several fit, or when none does and the features are not plain. Reads meta/info.json and,
    to recognise RoboTwin, the numbers of the first episodes.
    """
    infos = readable(places)
    if not MAPPING & options.keys():
        names = detect(places)
        if len(names) == 1:
            return load_manifest(names[0])
        if names:
            raise UsageError(
                f"{places[0].folder} fits the manifests {' and '.join(names)}: add --manifest with one of them"
            )
    try:
        names = [place.relative or str(place.folder) for place in places] if len(places) == len(infos) else []
        return plain_manifest(infos, options, _true_rates(places, infos), names)
    except Apart as error:
        _check_one_kind(places)
        root = places[0].folder.parent if len(places) > 1 else places[0].folder
        raise UsageError(f"{root}: {error}") from None
    except UsageError as error:
        _check_one_kind(places)
        raise UsageError(
            f"{places[0].folder} is a LeRobot {infos[0].version} dataset of robot {infos[0].robot or 'unknown'!r} with "
            f"{infos[0].fps:g} fps that fits no published mapping, and {error}; copy "
            f"{quoted(built_in_path(TEMPLATE))}, fill in its options cameras, state and action, and pass it with "
            "--manifest, or give --state and --action here "
            f"({describe(infos[0])})"
        ) from None


def _check_one_kind(places: Sequence[DatasetFolder]) -> None:
    """UsageError where one dataset fits another manifest than the first, so that each is fine alone."""
    kinds = [(place.folder, " or ".join(detect([place])) or "no published mapping") for place in places]
    other = next((kind for kind in kinds if kind[1] != kinds[0][1]), None)
    if other is not None:
        raise UsageError(
            f"{kinds[0][0]} fits {kinds[0][1]}, {other[0]} fits {other[1]}; a store holds datasets of one kind: "
            "convert each to a store of its own"
        )


def why(manifest: Manifest, places: Sequence[DatasetFolder]) -> str:
    """One sentence for the metadata: how the manifest relates to the datasets, however it was chosen."""
    if manifest.name == PLAIN:
        return f"{PLAIN}: made from meta/info.json, no published mapping fits"
    names = detect(places)
    if names == [manifest.name]:
        return f"{manifest.name}: the only one that fits the features, rate and robot"
    return f"{manifest.name}: named by the user" + (f"; {' and '.join(names)} fit" if names else "")


def doubts(manifest: Manifest, places: Sequence[DatasetFolder]) -> list[str]:
    """Sentences for the user about the choice: what speaks against a named manifest, or for one that was not taken."""
    if manifest.name == PLAIN:
        return [
            f"the features fit manifest {name} as well, which is not taken: {reason}"
            for name, reason in near_misses(places).items()
        ]
    reason = broken_promise(manifest, places)
    other = "leave --manifest out to convert them with the manifest that fits"
    return [f"manifest {manifest.name} was named, but {reason}; {other}"] if reason else []


def check_together(places: Sequence[DatasetFolder], manifest: Manifest, options: Mapping[str, Any]) -> None:
    """UsageError where datasets given one by one hold the same recordings, or grippers of different scales."""
    if options.get("copies") != "keep":
        for twin in twins(places):
            raise UsageError(
                f"{twin.place.folder} holds the same recordings as {twin.original.folder} (equal rows in "
                f"{counted(len(twin.episodes), 'episode')}); give one of them, or both with --copies keep"
            )
    own = options_of(manifest.model_copy(update={"options": {**manifest.options, **options}}))
    scales = {}
    for place in places:
        try:
            dataset = load_dataset(place.folder)
            scale = recorded_scale(dataset, fit(dataset.info, own.cameras, own.variants()))
        except UsageError:
            continue  # said when it is its turn
        if scale is not None:
            scales[str(place.folder)] = scale
    check_one_scale(scales, own.gripper_unit)


def _true_rates(places: Sequence[DatasetFolder], infos: Sequence[Info]) -> Sequence[float]:
    """Rows per second of each dataset: as our own exports say, which round their label, else info.json's."""
    if len(places) != len(infos):  # one of them cannot be read
        return [info.fps for info in infos]
    return [true_rate(place.folder, info) or info.fps for place, info in zip(places, infos, strict=True)]


def plain_manifest(
    infos: Sequence[Info], options: Mapping[str, Any], rates: Sequence[float], names: Sequence[str] = ()
) -> Manifest:
    """A manifest from meta/info.json: all cameras in its order, one state, one action, its own rate.

    A head, a left and a right camera are stitched as RoboTwin's, all others side by side. options: cameras, state,
    action and vectors of the user take the place of those found. rates: true rows per second of each dataset.
    names: how errors call the datasets; () where one of them cannot be read.
    UsageError when something is missing, or where the datasets differ.
    """
    info, template = infos[0], load_manifest(TEMPLATE)
    cameras = _plain_cameras(info) if "cameras" not in options else {}
    found: dict[str, object] = {"cameras": cameras} if cameras else {}
    if "vectors" not in options:
        found |= {
            key: _only(info, keys) for key, keys in (("state", _STATES), ("action", _ACTIONS)) if key not in options
        }
    if rates[0] != info.fps and "rate" not in options:
        found["fps_labels"] = [info.fps]
    mapped = options.get("cameras") or found.get("cameras")
    if not isinstance(mapped, Mapping):
        raise UsageError(f"option cameras must map our names to feature keys, found {mapped!r}")
    stored = [str(name) for name in mapped]
    data = template.model_dump(mode="json")
    data |= {
        "name": PLAIN,
        "description": f"LeRobot dataset as meta/info.json describes it, {counted(len(stored), 'camera')}",
        "fps": {"hz": options.get("rate") or rates[0]},
        "cameras": stored,
        "stitch": _plain_stitch(stored),
        "options": found,
    }
    manifest = validate_model(Manifest, data, "the mapping made from meta/info.json")
    for place, (other, rate) in enumerate(zip(infos, rates, strict=True)):
        if abs(rate - rates[0]) > 0.01 * rates[0]:
            one, two = (f"{names[n]} has" if names else "one has" for n in (0, place))
            raise Apart(
                f"its datasets have two rates: {one} {_said_rate(info, rates[0])}, {two} {_said_rate(other, rate)}; "
                "a store has one rate: convert those of each rate apart"
            )
        lacking = [key for key in cameras.values() if key not in other.image_features()]
        if lacking:
            raise Apart(
                f"one of its datasets has no camera {lacking[0]!r}; convert it apart, or name the cameras that all "
                "have with --cameras"
            )
    return manifest


def _said_rate(info: Info, rate: float) -> str:
    """A dataset's rate with what says so."""
    where = "by meta/info.json" if rate == info.fps else f"by the store it was exported from ({info.fps:g} is a label)"
    return f"{rate:g} rows per second {where}"


def _plain_cameras(info: Info) -> dict[str, str]:
    """Our name -> key of every colour camera, in the order of info.json."""
    keys = info.image_features()
    if not keys:
        depth = ", ".join(info.depth())
        raise UsageError("it has no images" + (f" of colours, only distances ({depth})" if depth else ""))
    short = [_name(key.rpartition(".")[2]) for key in keys]
    names = short if len(set(short)) == len(keys) else [_name(key) for key in keys]
    found: dict[str, str] = {}
    for name, key in zip(names, keys, strict=True):  # cam-1 and cam_1 would share a name
        free = (f"{name}_{number}" for number in itertools.count(2) if f"{name}_{number}" not in {*names, *found})
        found[name if name not in found else next(free)] = key
    return found


def _name(text: str) -> str:
    """Letters, digits and `_` of a feature's name; "camera" where that leaves none, as of 头部."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name.strip("_") else "camera"


def _only(info: Info, keys: Sequence[str]) -> str:
    key = next((key for key in keys if key in info.vectors()), None)
    if key is None:
        there = next((info.features[key] for key in keys if key in info.features), None)
        found = f", found {there.dtype} of shape {list(there.shape)}" if there else ""
        raise UsageError(f"it has no feature {keys[0]!r} of 1 to {MAX_NUMBERS} numbers{found}")
    return key


def _plain_stitch(names: Sequence[str]) -> dict[str, object]:
    sides = {side: [n for n in names if side in n.split("_")] for side in ("left", "right")}
    heads = [n for n in names if _HEAD.search(n) and n not in (*sides["left"], *sides["right"])]
    if len(heads) == len(sides["left"]) == len(sides["right"]) == 1:
        cameras = [heads[0], sides["left"][0], sides["right"][0]]
        return {"layout": "robotwin", "cameras": cameras, "camera_size": [240, 320], "size": [384, 320]}
    size = [PLAIN_SIDE, PLAIN_SIDE * len(names)]
    return {"layout": "horizontal", "cameras": list(names), "camera_size": [PLAIN_SIDE] * 2, "size": size}


def describe(info: Info) -> str:
    """The features that a mapping can use, in one line."""
    vectors = [f"{key} ({info.features[key].size})" for key in info.vectors() if not key.endswith("index")]
    return f"cameras {', '.join(info.image_features()) or 'none'}; numbers {', '.join(vectors) or 'none'}"
