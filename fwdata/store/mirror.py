"""The working copy of a store behind a URL, in a local folder: its metadata, what a command adds, and data it reads.

    <scratch>/stores/<name>-<8 hex>/remote.json     the URL, and what was in step with it
    <scratch>/stores/<name>-<8 hex>/store/..        the store, with whatever files are needed

`fwdata.store.working_copy` fills it, sends what a command wrote and removes it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fwdata.errors import StoreDamaged, quoted
from fwdata.io import write_atomic
from fwdata.store.files import FileHandle, LocalFiles
from fwdata.store.layout import sealed_above
from fwdata.store.locations import StoreUrl, parse_location
from fwdata.store.metadata import read_complete
from fwdata.store.records import SealedRecord
from fwdata.store.remote import RemoteFiles
from fwdata.store.scratch import scratch_folder

STATE = "remote.json"
"""File beside the folder that makes it a working copy."""


@dataclass(frozen=True)
class MirrorState:
    """What is known of the URL."""

    url: StoreUrl
    """Where the store lies."""
    synced: frozenset[str]
    """Keys of metadata that were there when it was last in step."""

    def save(self, root: Path) -> None:
        """Write it beside a working copy."""
        content = {"url": str(self.url), "synced": sorted(self.synced)}
        write_atomic(root.parent / STATE, json.dumps(content).encode())


def mirror_state(root: Path) -> MirrorState | None:
    """What a folder is a working copy of; None for a folder that is none."""
    try:
        content = json.loads((root.parent / STATE).read_bytes())
        url = parse_location(content["url"])
    except (OSError, ValueError, KeyError):
        return None
    return MirrorState(url, frozenset(content["synced"])) if isinstance(url, StoreUrl) else None


def mirror_root(url: StoreUrl) -> Path:
    """Folder of the working copy of a URL, the same for every command."""
    name = str(url).rpartition("/")[2]
    return scratch_folder() / "stores" / f"{name}-{hashlib.sha256(str(url).encode()).hexdigest()[:8]}" / "store"


class MirrorFiles(LocalFiles):
    """Files of a working copy: those that are not there are fetched whole when they are read, and stay."""

    def __init__(self, root: Path, url: StoreUrl) -> None:
        super().__init__(root)
        self.remote = RemoteFiles(url)

    def __reduce__(self) -> tuple[Any, ...]:
        return MirrorFiles, (self.root, self.remote.url)

    def _fetch(self, key: str) -> bytes | None:
        """Fetch a file of a unit that is complete here, None for what the URL does not have either.

        StoreDamaged for one whose bytes are not those that its unit lists: it is not kept.
        """
        unit = sealed_above(key)
        if unit is None or not (self.root / unit / "zarr.json").is_file():
            return None
        data = self.remote.read(key)
        if data is not None:
            record = read_complete(LocalFiles(self.root), unit, SealedRecord)
            expected = None if record is None else record.digests.get(key.removeprefix(f"{unit}/"))
            found = hashlib.sha256(data).hexdigest()
            if found != expected:
                raise StoreDamaged(
                    f"{self.remote.location}/{key} is damaged: {len(data)} bytes with sha256 {found[:12]}.., expected "
                    f"{expected[:12] + '..' if expected else 'no such file'}; run `fwdata verify "
                    f"{quoted(self.remote.location)}` to see what else is"
                )
            with contextlib.suppress(FileNotFoundError):  # its unit was removed meanwhile
                write_atomic(self.root / key, data)
        return data

    def read(self, key: str) -> bytes | None:
        """The whole file, fetched where it is not here."""
        found = super().read(key)
        return self._fetch(key) if found is None else found

    def handle(self, key: str) -> FileHandle:
        """The open file of a key, fetched where it is not here."""
        if not (self.root / key).is_file():
            self._fetch(key)
        return super().handle(key)
