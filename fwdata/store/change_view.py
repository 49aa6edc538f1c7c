"""Changing the view of a store: values set by hand, and the view of the manifest of a later conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fwdata.errors import ManifestError, UsageError, did_you_mean
from fwdata.manifest import Manifest, Source, check_stitched_size
from fwdata.store.files import write_lock
from fwdata.store.reader import open_store
from fwdata.store.view import StoreView, effective_manifest, given_keys, view_defaults, write_view


def change_view(
    path: Path, values: Mapping[str, Any], unset: Sequence[str] = (), *, dry_run: bool = False
) -> tuple[StoreView, StoreView]:
    """Set and unset values of a local store's view; returns the view (before, after).

    Written whole or not at all, under the store's write lock; nothing is written where nothing changes. UsageError for
    a key that is not of the view or was not set, ManifestError for a value that does not fit, StoreBusy when another
    process writes to the store. A size of `stitch` that was set earlier gives way to what it contradicts.
    """
    for key in (*values, *unset):
        _check_key(key, path)
    if dry_run:
        return _changed(path, values, unset)
    _changed(path, values, unset)  # before the lock, which makes the folder
    with write_lock(path):
        before, after = _changed(path, values, unset)
        if after.record != before.record:
            write_view(path, after.record)
    return before, after


def _changed(path: Path, values: Mapping[str, Any], unset: Sequence[str]) -> tuple[StoreView, StoreView]:
    store = open_store(path)
    before = store.view
    for key in unset:
        if key not in before.record.set:
            raise UsageError(f"--unset {key}: not set in {path}{did_you_mean(key, before.record.set)}")
    kept = {key: value for key, value in before.record.set.items() if key not in unset}
    try:
        after = _with_set(before, {**kept, **values}, path)
    except ManifestError:
        older = "stitch.camera_size" if "stitch.size" in values else "stitch.size"
        if older not in kept or not any(key.startswith("stitch.") for key in values):
            raise
        after = _with_set(before, {**{k: v for k, v in kept.items() if k != older}, **values}, path)
    after.manifest.normalisation.check_actions(len(store.action_names), f"the view of {path}")
    if after.manifest.stitch != before.manifest.stitch:
        check_stitched_size(after.manifest.stitch, f"the view of {path}")
    return before, after


def _with_set(before: StoreView, values: Mapping[str, Any], path: Path) -> StoreView:
    """The view with exactly these values set by hand. ManifestError for values that do not fit."""
    record = before.record.model_copy(update={"set": dict(values)})
    return StoreView(before.converted, record, effective_manifest(before.converted, record, f"the view of {path}"))


def adopt_manifest(path: Path, manifest: Manifest) -> tuple[StoreView, StoreView]:
    """Take over the view of the manifest that a conversion is run again with; returns the view (before, after).

    What was set with `fwdata view` stays. The caller holds the store's write lock.
    """
    before = open_store(path).view
    view = manifest.view.model_dump(mode="json")
    known = before.record.manifest or before.converted.view.model_dump(mode="json")
    if view == known:
        return before, before
    update = {"given": given_keys(manifest), "manifest": view}
    record = before.record.model_copy(update=update)
    after = StoreView(before.converted, record, effective_manifest(before.converted, record, f"the view of {path}"))
    write_view(path, record)
    return before, after


def _check_key(key: str, path: Path) -> None:
    if key in view_defaults():
        return
    if key.partition(".")[0] in Source.model_fields:
        raise UsageError(
            f"{key} belongs to the source: the bytes in {path} depend on it; convert to another --out to change it"
        )
    raise UsageError(f"the view has no key {key!r}{did_you_mean(key, list(view_defaults()))}")
