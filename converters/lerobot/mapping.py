"""Which features of a LeRobot dataset become cameras, state and action: alternatives tried in order, by a manifest.

Published datasets of one robot differ in keys and vector sizes; a manifest lists every variant, the first whose keys
and sizes a dataset has is taken. So the manifests are also the table from which a dataset's mapping is recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema, field_validator

from converters.lerobot.column_names import contradiction, kind_of, number_of, side_of
from converters.lerobot.info import MAX_NUMBERS, Feature, Info
from fwdata.errors import UsageError, did_you_mean
from fwdata.manifest import Model

_TEXT = {"type": "string"}
_PART = re.compile(r"(?P<key>[^\[\]]+?)(?:\[(?P<start>\d{1,6}):(?P<stop>\d{1,6})\])?")


type Keys = Annotated[tuple[str, ...], WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]})]
"""Names of features, or one name."""


class Vectors(Model):
    """One way in which datasets hold state and action."""

    name: str = "manifest"
    """How decisions call this alternative; "manifest" for the short form (options state and action)."""
    state: Keys
    """Parts that are joined to the state, each `key` or `key[start:stop]`."""
    action: Keys
    """Parts that are joined to the action, each `key` or `key[start:stop]`."""
    sizes: dict[str, int] = Field(default_factory=dict)
    """Features that must exist with exactly this many numbers, for telling alternatives apart; empty: no condition."""
    by_names: bool = False
    """Whether columns are found by the names in info.json where these tell sides, joints and grippers."""
    state_names: tuple[str, ...] = ()
    """Names of the joined state columns; empty: those of info.json."""
    action_names: tuple[str, ...] = ()
    """Names of the joined action columns; empty: those of info.json."""

    @field_validator("state", "action", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("state", "action")
    @classmethod
    def _parts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("needs at least one key")
        for part in value:
            split_part(part)
        return value


@dataclass(frozen=True)
class Columns:
    """Numbers of one feature that are taken, in this order."""

    key: str
    """The feature."""
    indices: tuple[int, ...]
    """Positions in its vector."""

    def text(self) -> str:
        """`key[0:6]`, for the metadata."""
        first, last = self.indices[0], self.indices[-1]
        if self.indices == tuple(range(first, last + 1)):
            return f"{self.key}[{first}:{last + 1}]"
        return f"{self.key}[{', '.join(map(str, self.indices))}]"


@dataclass(frozen=True)
class Fit:
    """A dataset's features as a manifest maps them."""

    cameras: Mapping[str, str]
    """Camera name in the manifest -> feature key."""
    variant: str
    """Name of the `Vectors` that fits."""
    found_by: str
    """How columns were found: "position" or "feature names"."""
    state: tuple[Columns, ...]
    """Where the state's columns come from, in order."""
    action: tuple[Columns, ...]
    """Where the action's columns come from, in order."""
    state_names: tuple[str, ...]
    """One name per state column."""
    action_names: tuple[str, ...]
    """One name per action column."""


def split_part(part: str) -> tuple[str, int | None, int | None]:
    """`key[0:6]` -> (key, 0, 6), `key` -> (key, None, None); ValueError for anything else."""
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is not a feature: expected a key such as 'observation.state', or 'key[0:6]'")
    if match["start"] is None:
        return match["key"], None, None
    start, stop = int(match["start"]), int(match["stop"])
    if start >= stop:
        raise ValueError(f"{part!r} takes no column: expected start < stop")
    return match["key"], start, stop


def fit(info: Info, cameras: Mapping[str, Sequence[str]], variants: Iterable[Vectors]) -> Fit:
    """Map a dataset's features; UsageError naming what is missing in it.

    cameras: our name -> keys tried in order.
    """
    chosen = fit_cameras(info, cameras)
    reasons = []
    for vectors in variants:
        try:
            return _fit_vectors(info, chosen, vectors)
        except UsageError as error:
            reasons.append(f"{vectors.name}: {error}" if vectors.name != "manifest" else str(error))
    raise UsageError("; ".join(reasons))


def fit_cameras(info: Info, cameras: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Our name -> feature key of every camera; UsageError naming the one that is missing."""
    return {name: _camera(info, name, keys) for name, keys in cameras.items()}


def _camera(info: Info, name: str, keys: Sequence[str]) -> str:
    images = info.image_features()
    for key in keys:
        if key in images:
            return key
    wanted = keys[0] if len(keys) == 1 else f"one of {', '.join(keys)}"
    absent = [key for key, feature in info.features.items() if feature.absent]
    listed = f"; listed without images: {', '.join(absent)}" if absent else ""
    depth = [key for key in info.depth() if key in keys]
    listed += f"; {', '.join(depth)} measures distances and has no colours" if depth else ""
    raise UsageError(f"camera {name} needs the feature {wanted}; its cameras are {', '.join(images) or 'none'}{listed}")


def _fit_vectors(info: Info, cameras: Mapping[str, str], vectors: Vectors) -> Fit:
    for key, size in vectors.sizes.items():
        found = _vector(info, key).size
        if found != size:
            raise UsageError(f"{key} has {found} numbers, not {size}")
    sides = []
    named = True
    for parts, names in ((vectors.state, vectors.state_names), (vectors.action, vectors.action_names)):
        columns = _by_names(info, parts, names) if vectors.by_names else None
        named = named and columns is not None
        sides.append(columns or tuple(_by_position(info, part) for part in parts))
    state, action = sides
    _check_names(info, state, vectors.state_names)
    _check_names(info, action, vectors.action_names)
    return Fit(
        cameras,
        vectors.name,
        "feature names" if named else "position",
        state,
        action,
        _names(info, state, vectors.state_names, "state"),
        _names(info, action, vectors.action_names, "action"),
    )


def _vector(info: Info, key: str) -> Feature:
    feature = info.features.get(key)
    if feature is None:
        raise UsageError(f"no feature {key!r}{did_you_mean(key, info.vectors())}")
    if key not in info.vectors():
        raise UsageError(
            f"{key} is a feature of {feature.dtype} of shape {list(feature.shape)}, expected 1 to {MAX_NUMBERS} numbers"
        )
    return feature


def _by_position(info: Info, part: str) -> Columns:
    key, start, stop = split_part(part)
    size = _vector(info, key).size
    if stop is not None and stop > size:
        raise UsageError(f"{key} has {size} numbers, {part} needs {stop}")
    return Columns(key, tuple(range(start or 0, stop or size)))


def _by_names(info: Info, parts: Sequence[str], wanted: Sequence[str]) -> tuple[Columns, ...] | None:
    """Columns of the parts' one feature by side and kind; None where the names in info.json do not tell."""
    keys = {split_part(part)[0] for part in parts}
    if len(keys) != 1:
        return None
    key = keys.pop()
    names = _vector(info, key).names
    places: dict[tuple[str, str], list[int]] = {}
    for index, name in enumerate(names):
        kind = _kind(name)
        if kind is not None:
            places.setdefault(kind, []).append(index)
    for kind, found in places.items():
        numbers = [number_of(names[index]) for index in found]
        if None not in numbers and len(set(numbers)) == len(numbers):  # joint_2 may stand before joint_1
            places[kind] = [index for _, index in sorted(zip(numbers, found, strict=True))]
    indices = []
    for name in wanted:
        kind = _kind(name)
        left = places.get(kind, []) if kind is not None else []
        if not left:
            return None
        indices.append(left.pop(0))
    return (Columns(key, tuple(indices)),)


def _kind(name: str) -> tuple[str, str] | None:
    """(side, joint or gripper) of a column's name; None where it is not one of an arm's joints or its gripper."""
    side, kind = side_of(name), kind_of(name)
    return (side, kind) if side and kind in ("joint", "gripper") else None


def _check_names(info: Info, columns: Sequence[Columns], wanted: Sequence[str]) -> None:
    """UsageError where the dataset's own names contradict those that a mapping gives by position."""
    flat = [(part.key, index) for part in columns for index in part.indices]
    for (key, index), name in zip(flat, wanted, strict=False):
        names = info.features[key].names
        reason = contradiction(names[index], name) if index < len(names) and len(names) > 1 else None
        if reason:
            raise UsageError(f"column {index} of {key}: {reason}")


def _names(info: Info, columns: Sequence[Columns], wanted: Sequence[str], what: str) -> tuple[str, ...]:
    count = sum(len(part.indices) for part in columns)
    if wanted:
        if len(wanted) != count:
            raise UsageError(f"{what}_names lists {len(wanted)} names, the features have {count} numbers")
        return tuple(wanted)
    told: list[str] = []
    for part in columns:
        feature, plain = info.features[part.key], part.key.rpartition(".")[2]
        one_for_all = len(feature.names) == 1 < feature.size
        names = () if one_for_all else feature.names
        told += [names[i] if i < len(names) else f"{plain}_{i}" for i in part.indices]
    if len(set(told)) != count:
        told = [f"{part.key}_{i}" for part in columns for i in part.indices]
    return tuple(told)


def name_notes(info: Info, mapping: Fit) -> list[str]:
    """A sentence for every feature used whose names in info.json are more or fewer than its values, or not unique.

    Also one for cameras without colours, which are left out.
    """
    depth = info.depth()
    notes = [f"{', '.join(depth)}: distances by name or format, not colours; left out"] if depth else []
    used = {*mapping.state_names, *mapping.action_names}
    for key in dict.fromkeys(part.key for part in (*mapping.state, *mapping.action)):
        feature, plain = info.features[key], key.rpartition(".")[2]
        count, taken = len(feature.names), not used.isdisjoint(feature.names)
        twice = len(set(feature.names)) < count
        if count < 2 or (count == feature.size and not twice):
            continue
        if twice and not taken:
            become = f"its columns are called {key}_0, {key}_1, .."
        elif not taken:
            become = "the manifest's own names are used"
        elif count > feature.size:
            become = f"the last {count - feature.size} are unused"
        else:
            become = f"the others are called {', '.join(f'{plain}_{i}' for i in range(count, feature.size))}"
        same = ", some of them twice" if twice else ""
        notes.append(f"{key} has {feature.size} values and {count} names{same}; {become}")
    return notes
