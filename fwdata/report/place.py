"""Where a page may be written: not into a store, and not in the place of a file that is something else."""

from __future__ import annotations

from pathlib import Path

from fwdata.errors import UsageError
from fwdata.report.page import POLICY
from fwdata.store.files import is_store_folder, refuse_nested

HEAD = 1000
"""Bytes at the start of a page that hold `POLICY`."""

OTHERS = (".htm", ".txt", ".pdf", ".json", ".md", ".xml")
"""Endings of files that a page is not, and that nobody gives a folder."""


def page_place(out: Path, name: str, option: str) -> Path:
    """The path of a page for `out`, a file NAME.html or a folder that gets `name`.

    UsageError, naming `option`, for another kind of file, a place inside a store, or a file that no page of this
    toolkit is.
    """
    path = out if out.suffix == ".html" else out / name
    other = out.suffix in OTHERS and not out.is_dir()
    if other or path.is_dir() or (path != out and out.is_file()):
        raise UsageError(f"{option} {out}: name a file ending in .html, or a folder")
    refuse_nested(path)
    refuse_foreign(path)
    return path


def refuse_no_folder(out: Path, option: str) -> None:
    """UsageError, naming `option`, where `out` or what is above it is a file, or it is or lies in a store."""
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{option} {out}: {path} is a file; name a folder")
    if is_store_folder(out):
        raise UsageError(f"{option} {out} is a store, which it would damage; choose another place")
    refuse_nested(out)


def refuse_foreign(path: Path) -> None:
    """UsageError for a file that is not a page of this toolkit, before it would be replaced."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if POLICY.encode() not in file.read(HEAD):
            raise UsageError(f"{path} exists and is not a page that this toolkit wrote; name another place")
