"""Stores behind URLs: what they hold, converted to, and compared with a local one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fixtures import run_convert, tree

from fwdata.store.copying import copy_store
from fwdata.store.opening import open_target
from fwdata.store.remote import RemoteFiles
from fwdata.store.working_copy import working_copy


def objects(url: str) -> RemoteFiles:
    files = open_target(url)
    assert isinstance(files, RemoteFiles)
    return files


def converted(made: tuple[Path, Path, Any], url: str) -> None:
    with working_copy(url) as path:
        run_convert(made[0], path, made[2])


def same(url: str, store: Path, tmp_path: Path) -> bool:
    copy_store(url, str(tmp_path / "copy.zarr"))
    return tree(tmp_path / "copy.zarr") == tree(store)
