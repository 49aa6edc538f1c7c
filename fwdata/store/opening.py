"""The files of a store, by path or URL."""

from __future__ import annotations

from pathlib import Path

from fwdata.errors import StoreError, quoted
from fwdata.store.files import LocalFiles
from fwdata.store.locations import parse_location
from fwdata.store.mirror import MirrorFiles, mirror_state
from fwdata.store.remote import RemoteFiles


def open_target(location: str | Path) -> LocalFiles | RemoteFiles:
    """Files of a local folder or of a URL that a store is copied to, there or not."""
    place = parse_location(location)
    if isinstance(place, Path):
        state = mirror_state(place)
        return LocalFiles(place) if state is None else MirrorFiles(place, state.url)
    return RemoteFiles(place)


def open_files(location: str | Path) -> LocalFiles | RemoteFiles:
    """Files of a local folder or of a URL (`s3://`, `https://`, ..). StoreError when a local folder is absent."""
    files = open_target(location)
    if isinstance(files, LocalFiles) and files.root.is_file():
        raise StoreError(
            f"{files.root} is a file, and a store is a folder; to make one of recordings: "
            f"`fwdata convert SOURCE {quoted(files.root)} --out STORE`"
        )
    if isinstance(files, LocalFiles) and not files.root.is_dir():
        raise StoreError(
            f"there is no store at {files.root}; make one with `fwdata convert SOURCE RAW --out {quoted(files.root)}`"
        )
    return files
