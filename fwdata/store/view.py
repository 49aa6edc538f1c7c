"""The view of a store: how its bytes are used, where each value comes from, and how one is changed.

A store's root metadata hold the manifest it was converted with. What was changed since lies beside it, in the group
`view/`, so that the episodes and their identity stay as they are:

    given      keys that the manifest stated; the others took their defaults
    manifest   the view of a later manifest, where a rerun of the conversion brought another one
    set        values set with `fwdata view STORE --set KEY=VALUE`, by dotted key; they win
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from fwdata.errors import StoreDamaged
from fwdata.manifest import Manifest, View, following_sizes, validate_model
from fwdata.store.files import Files
from fwdata.store.metadata import read_record, write_record
from fwdata.store.records import JsonObject, ViewRecord
from fwdata.store.sources import SOURCES

VIEW = "view"
"""Group that holds the record."""

type Origin = Literal["manifest", "default", "set"]
"""Where a value comes from: the manifest, the default of a key it does not state, or `fwdata view --set`."""


@dataclass(frozen=True)
class ViewSetting:
    """One value of a view."""

    key: str
    """Dotted key, e.g. "split.val"."""
    value: Any
    """The value, plain JSON."""
    origin: Origin
    """Where it comes from."""


@dataclass(frozen=True)
class StoreView:
    """The view of one store."""

    converted: Manifest
    """The manifest the store was converted with."""
    record: ViewRecord
    """What was changed since."""
    manifest: Manifest
    """The manifest as it is used now: the Source of the conversion with the current View."""

    @property
    def settings(self) -> tuple[ViewSetting, ...]:
        """Every value with its origin, in the order of the model's fields."""
        return tuple(ViewSetting(key, value, self._origin(key)) for key, value in flat(self.manifest.view))

    def _origin(self, key: str) -> Origin:
        if key in self.record.set or _partner(key) in self.record.set:
            return "set"
        given = self.record.given
        if given is not None:
            return "manifest" if key in given else "default"
        return "default" if dict(flat(self.manifest.view)).get(key) == _default(key) else "manifest"


def flat(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, plain JSON value) of every value of a model and of those inside it."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def given_keys(manifest: Manifest) -> tuple[str, ...]:
    """Dotted keys of the view that a manifest states itself."""
    return tuple(key for key, _ in flat(manifest.view) if _is_set(manifest, key))


def _is_set(model: BaseModel, key: str) -> bool:
    name, _, rest = key.partition(".")
    return name in model.model_fields_set and (not rest or _is_set(getattr(model, name), rest))


_ANY_STITCH = {"layout": "horizontal", "cameras": ["-"], "camera_size": [32, 32]}


@cache
def view_defaults() -> JsonObject:
    """Every dotted key of a view with its default; those of `stitch` have none and come with some value."""
    return dict(flat(View.model_validate({"stitch": _ANY_STITCH})))


def _default(key: str) -> Any:
    """The default of a key; Ellipsis, which no value equals, where it has none."""
    return ... if key.startswith("stitch.") else view_defaults().get(key, ...)


def _partner(key: str) -> str:
    """The key whose value decides `key` where only it is set: the two sizes of `stitch` follow each other."""
    return {"stitch.size": "stitch.camera_size", "stitch.camera_size": "stitch.size"}.get(key, "")


def read_view(files: Files, converted: Mapping[str, Any]) -> StoreView:
    """The view of a store whose root metadata hold the manifest `converted`. StoreDamaged for a record that is not one.

    Cost: one small file.
    """
    where = f"the manifest in {files.location}"
    record = read_record(files, VIEW, ViewRecord)
    if record is None and files.names(SOURCES):
        raise StoreDamaged(
            f"{files.location}/{VIEW}/zarr.json is missing; the same `fwdata convert` writes it again, without "
            "what was set with `fwdata view`"
        )
    if record is not None and not ViewRecord.model_fields.keys() <= record.model_fields_set:
        raise StoreDamaged(f"{files.location}/{VIEW}/zarr.json does not hold a view; the file is damaged or another's")
    record = record or ViewRecord()
    original = validate_model(Manifest, converted, where)
    return StoreView(original, record, effective_manifest(original, record, where))


def effective_manifest(converted: Manifest, record: ViewRecord, where: str) -> Manifest:
    """The manifest of a conversion with what a record changed in it. ManifestError for values that do not fit."""
    if record.manifest is None and not record.set:
        return converted
    data = {**converted.model_dump(mode="json"), **(record.manifest or {})}
    for key, value in record.set.items():
        data = _with(data, key.split("."), value)
    stitch = data["stitch"] = dict(data["stitch"])
    decided = {key.partition(".")[2] for key in record.set if key.startswith("stitch.")}
    if decided & {"layout", "cameras", "size", "camera_size"}:
        for key in following_sizes(stitch, decided):
            del stitch[key]
    return validate_model(Manifest, data, where)


def _with(data: Mapping[str, Any], path: Sequence[str], value: Any) -> JsonObject:
    """The mapping with one nested value replaced."""
    name, *rest = path
    return {**data, name: _with(data.get(name) or {}, rest, value) if rest else value}


def changes(before: StoreView, after: StoreView) -> list[tuple[str, Any, Any]]:
    """(key, value before, value after) of every value that differs between two views of one store."""
    old = {setting.key: setting.value for setting in before.settings}
    return [(s.key, old[s.key], s.value) for s in after.settings if s.value != old[s.key]]


def write_view(path: Path, record: ViewRecord) -> None:
    """Keep a record, atomically. The caller holds the store's write lock."""
    write_record(path / VIEW, record)
