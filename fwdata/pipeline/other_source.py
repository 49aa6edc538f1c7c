"""Whether recordings are of another source than the one that was named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fwdata.errors import FwdataError, UsageError, quoted
from fwdata.manifest import load_manifest
from fwdata.pipeline.registry import built_in, chooser, default_manifest, load_converter


def with_other_source[T](look: Callable[[], T], source: str, root: Path) -> T:
    """What `look` finds. Its UsageError is raised again with the source that reads what lies at `root`, if one does."""
    try:
        return look()
    except UsageError as error:
        other = source_of(root, but=source)
        if other is None:
            raise
        command = f"fwdata convert {other} {quoted(root)} --out STORE"
        what = str(error).partition("; give ")[0]  # what else to give the source that was named would mislead
        raise type(error)(f"{what}; source {other} reads it: {command}") from None


def source_of(root: Path, but: str = "") -> str | None:
    """The first built-in source other than `but` that finds recordings at `root`, with its own manifest."""
    return next((name for name in sorted(built_in() - {but}) if root.exists() and _reads(name, root)), None)


def _reads(source: str, root: Path) -> bool:
    try:
        choose = chooser(source)
        manifest = load_manifest(default_manifest(source)) if choose is None else choose((root,), {})
        return bool(load_converter(manifest).discover(root).episodes)
    except FwdataError:
        return False
