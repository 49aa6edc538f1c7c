"""`fwdata view`: how a store's bytes are used, where each value comes from, and how to change one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from fwdata.api import Json
from fwdata.cli.converter_options import parse_options
from fwdata.console import emit_json, print_table
from fwdata.manifest import SourceKeys, View

if TYPE_CHECKING:
    from fwdata.report.view_store import CacheFit
    from fwdata.store.reader import Store
    from fwdata.store.view import StoreView


class ViewChange(TypedDict):
    """A value that was, or would be, changed."""

    key: str
    """Dotted key."""
    before: Json
    """The value before, plain JSON."""
    after: Json
    """The value after, plain JSON."""


class CacheFitJson(TypedDict):
    """Whether a cache fits the view."""

    kind: str
    """latents, text or stats."""
    name: str
    """Its name."""
    fits: bool
    """Whether it was made under this view."""
    differs: list[str]
    """Settings that it lacks."""


class ViewJson(TypedDict):
    """The document of `fwdata view --json`."""

    store: str
    """The store."""
    name: str
    """Name of the manifest; with the keys of `view` and `source` it is a whole one, for `--manifest FILE.yaml`."""
    view: View
    """How the stored bytes are used."""
    origin: dict[str, str]
    """Dotted key -> "manifest", "default" or "set"."""
    source: SourceKeys
    """What the stored bytes depend on, the converter's version left out."""
    changed: list[ViewChange]
    """What `--set` and `--unset` change."""
    caches: list[CacheFitJson]
    """The caches of the store."""
    dry_run: bool
    """Whether nothing was written."""


ORIGINS = {"manifest": "manifest", "default": "default", "set": "set later"}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="view")(view)


def view(
    store: Annotated[str, typer.Argument(help="The store: a path or a URL.")],
    values: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: KEY=VALUE, e.g. split.val=0.1; repeatable.")
    ] = None,
    unset: Annotated[list[str] | None, typer.Option("--unset", help="Take back what was set: KEY; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show or change how a store is used: stitching, window, split, normalisation, prompt, description.

    The episodes stay as they are. Caches made under another view stay too, and are used again when it is set back.

    Example: fwdata view data/libero.zarr --set stitch.size=[256,512] --set split.val=0.1
    """
    from fwdata import open as open_store
    from fwdata.report.view_store import cache_fits
    from fwdata.store.change_view import change_view
    from fwdata.store.working_copy import reading_copy, working_copy

    opened = open_store(store)
    before = after = opened.view
    if values or unset:
        with (reading_copy if dry_run else working_copy)(store) as path:
            before, after = change_view(path, parse_options(values or []), unset or (), dry_run=dry_run)
    fits = cache_fits(opened, after.manifest)
    if as_json:
        emit_json(view_json(opened, before, after, fits, dry_run))
    else:
        _print(store, before, after, fits, dry_run)


def view_json(store: Store, before: StoreView, after: StoreView, fits: list[CacheFit], dry_run: bool) -> ViewJson:
    """The document of `--json`. origin: "manifest", "default" or "set"; differs: settings that a cache lacks."""
    from fwdata.store.view import changes

    manifest = after.manifest
    return {
        "store": store.location,
        "name": manifest.name,
        "view": manifest.view,
        "origin": {setting.key: setting.origin for setting in after.settings},
        "source": manifest.source_keys,
        "changed": [{"key": key, "before": old, "after": new} for key, old, new in changes(before, after)],
        "caches": [
            {"kind": fit.kind, "name": fit.name, "fits": not fit.differs, "differs": fit.differs} for fit in fits
        ],
        "dry_run": dry_run,
    }


def _print(store: str, before: StoreView, after: StoreView, fits: list[CacheFit], dry_run: bool) -> None:
    from fwdata.store.view import changes

    rows: list[tuple[str, ...]] = [(s.key, str(s.value), ORIGINS[s.origin]) for s in after.settings]
    print_table(f"{store}: {after.manifest.name}", ("key", "value", "from"), rows)
    for key, old, new in changes(before, after):
        print(f"  {'would change' if dry_run else 'changed'} {key}: {old} -> {new}")
    for fit in fits:
        if fit.differs:
            print(f"  {fit.kind} {fit.name}: made under another view ({'; '.join(fit.differs)}); {fit.advice}")
        else:
            print(f"  {fit.kind} {fit.name}: fits")
