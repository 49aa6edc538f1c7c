"""The place that a store is copied to: what lies there already, which copy may write there, and how it is written.

A copy begins with a claim, `.copy.json`: which store it brings. So a half copy belongs to one store, and two copies of
different stores never mix their files. It is made, like every object that was not there before, on the condition that
there is none; what was there is replaced on the condition that nobody has changed it meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fwdata.errors import StaleCache, StoreBusy, UsageError
from fwdata.io import remove
from fwdata.store.files import Listing, LocalFiles, canonical_json, write_lock
from fwdata.store.layout import CLAIM, may_be_sealed, part_base, part_generation
from fwdata.store.remote import Entry, RemoteFiles

type Place = LocalFiles | RemoteFiles


@dataclass(frozen=True)
class CopiedStore:
    """What tells the store that is copied from others."""

    location: str
    """Path or URL, for messages."""
    root: bytes
    """Its zarr.json."""
    keys: tuple[str, ...]
    """Every file."""
    marks: Mapping[str, str]
    """sha256 of the zarr.json of each part, by name."""

    @classmethod
    def read(cls, files: Place, keys: list[str]) -> CopiedStore:
        """Of an open store."""
        names = _parts(keys)
        files.read_ahead(f"parts/{name}/zarr.json" for name in names)
        marks = {name: _digest(files.read(f"parts/{name}/zarr.json")) for name in names}
        return cls(files.location, files.read("zarr.json") or b"", tuple(keys), marks)

    def claim(self) -> bytes:
        """What its copy claims a place with."""
        return canonical_json({"root": _digest(self.root), "parts": dict(self.marks)})

    def is_claimed_by(self, claim: bytes) -> bool:
        """Whether a claim is that of a copy of this store, in this state or another one."""
        try:
            found = json.loads(claim)
            parts = dict(found["parts"])
            same = found["root"] == _digest(self.root)
        except (ValueError, KeyError, TypeError):
            return False
        return same and all(parts.get(name, mark) == mark for name, mark in self.marks.items())

    def has_replaced(self, part: str) -> bool:
        """Whether a part is an earlier generation of one of the store's."""
        same = (part_generation(name) for name in self.marks if part_base(name) == part_base(part))
        return part_generation(part) < max(same, default=0)


class Target:
    """A place while a store is copied there."""

    def __init__(self, files: Place, store: CopiedStore) -> None:
        self._files, self._store = files, store
        self._entries: Mapping[str, Entry] = {}
        self.have = Listing({}, frozenset())
        """What lay there when the copy began."""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the place for the block, which writes only what was missing or is out of date.

        UsageError for a place that holds something else, StaleCache for one that holds another store, a newer state of
        this one, or a half copy of such; nothing is written then. StoreBusy while another process writes there.
        """
        files = self._files
        if isinstance(files, LocalFiles):
            for parent in (files.root, *files.root.parents):
                if parent.exists() and not parent.is_dir():
                    raise UsageError(f"{files.root}: {parent} is a file; name a folder")
            with write_lock(files.root):
                self._look()
                yield
        else:
            self._look()
            yield

    def _look(self) -> None:
        if isinstance(self._files, RemoteFiles):
            self._entries = self._files.entries()
            self.have = Listing.of_objects({key: entry.size for key, entry in self._entries.items()})
        else:
            self.have = self._files.listing()
        self._check()
        if CLAIM not in self.have.sizes and self.have.sizes.keys() >= set(self._store.keys):
            return  # a whole copy: most likely nothing is to be written
        claim = None if self._create(CLAIM, self._store.claim()) else self._files.read(CLAIM)
        if claim is not None and not self._store.is_claimed_by(claim):
            raise StaleCache(
                f"another store is being copied to {self._files.location}, or half of it was; choose another place, or "
                "remove what lies there"
            )

    def _check(self) -> None:
        """Refuse a place whose contents would be mixed with the store's, or lost."""
        files, store = self._files, self._store
        root = files.read("zarr.json")
        if root is not None and root != store.root:
            raise StaleCache(f"{files.location} holds another store than {store.location}; choose another place")
        own = {key.partition("/")[0] for key in store.keys}
        places = {key.partition("/")[0] for key in (*self.have.keys, *self.have.folders)}
        foreign = sorted(place for place in places - own if not place.startswith("."))
        if foreign:
            raise UsageError(f"{files.location} holds {foreign[0]}, which is not of this store; choose another place")
        there = _parts(self.have.keys)
        files.read_ahead(f"parts/{name}/zarr.json" for name in there)
        for name in there:
            where, ours = f"{files.location}/parts/{name}", store.marks.get(name)
            if ours is None and not store.has_replaced(name):
                raise StaleCache(
                    f"{where} is not in {store.location}: a newer state of this store, or another store, lies there; "
                    "copy from where it came, or choose another place"
                )
            mark = files.read(f"parts/{name}/zarr.json")
            if ours is not None and mark is not None and _digest(mark) != ours:
                raise StaleCache(
                    f"{where} holds other recordings than {store.location}/parts/{name}; choose another place"
                )

    def _create(self, key: str, data: bytes) -> bool:
        """Write a file that is not there; False when it is, with the same bytes or others."""
        if isinstance(self._files, RemoteFiles):
            return self._files.create(key, data)
        if self._files.read(key) is not None:
            return False
        self._files.write(key, data)
        return True

    def write(self, key: str, data: bytes) -> None:
        """Write a file that is missing or has other bytes. StoreBusy when another process has written it meanwhile."""
        if isinstance(self._files, LocalFiles):
            self._files.write(key, data)
            return
        entry = self._entries.get(key)
        done = self._files.create(key, data) if entry is None else self._files.replace(key, data, entry.tag)
        if not done and self._files.read(key) != data:
            raise StoreBusy(
                f"{self._files.location}/{key} is being written by another process with other bytes; wait for it to "
                "end, then run the same command again"
            )

    def drop_mark(self, folder: str) -> None:
        """Remove the mark of a unit that is about to be replaced: readers see none until it is whole."""
        if f"{folder}/zarr.json" in self.have.sizes:
            self._remove([f"{folder}/zarr.json"])
            self._entries = {key: entry for key, entry in self._entries.items() if key != f"{folder}/zarr.json"}

    def finish(self) -> None:
        """Remove what later generations have replaced, marks first, and the claim. Everything else is written."""
        own = set(self._store.keys)
        old = [key for key in self.have.keys if key not in own and self._is_replaced(key)]
        self._remove([key for key in old if may_be_sealed(key.removesuffix("/zarr.json"))])
        self._remove(old)
        self._remove([CLAIM])

    def _is_replaced(self, key: str) -> bool:
        """Whether a file is of a part that a later generation has replaced, or was made from it."""
        found = _OF_PART.match(key)
        return found is not None and found["part"] not in self._store.marks and self._store.has_replaced(found["part"])

    def _remove(self, keys: list[str]) -> None:
        if isinstance(self._files, RemoteFiles):
            self._files.delete(keys)
            return
        for key in keys:
            remove(self._files.root / key)
            with contextlib.suppress(OSError):  # not empty yet
                for folder in (self._files.root / key).parents:
                    folder.rmdir()


_OF_PART = re.compile(r"(?:parts|sources|evidence|latents/[^/]+)/(?P<part>p\d+(?:-\d+)?)/")


def _parts(keys: Iterable[str]) -> list[str]:
    return sorted({key.split("/")[1] for key in keys if re.match(r"parts/p[^/]*/", key)})


def _digest(data: bytes | None) -> str:
    return hashlib.sha256(data or b"").hexdigest()
