"""Files of a store: metadata of groups, digests, the write lock, and reads from a local folder or a URL."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Buffer, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from fwdata.errors import StoreBusy, StoreDamaged, StoreError, UsageError, quoted
from fwdata.io import folder_lock, made_folder, refuse_url, shared_folder_lock, write_atomic
from fwdata.store.indented import indented
from fwdata.store.leases import live_leases

MAX_HANDLES = 128
"""Open file descriptors a reader keeps per process."""


SMALL_BYTES = 2**16
"""Files up to so many bytes are hashed without a buffer of 256 kB, which costs more than they do."""


def canonical_json(value: object) -> bytes:
    """The one byte string a JSON value is written as (sorted keys, two-space indent, newline at the end)."""
    return (indented(value) + "\n").encode()


def json_digest(value: object) -> str:
    """sha256 (hex) of `canonical_json`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def plan_digest(refs: Mapping[str, int]) -> str:
    """sha256 over the ids and sizes of a part's recordings."""
    text = "\n".join(f"{name}\t{size}" for name, size in refs.items())
    return hashlib.sha256(text.encode()).hexdigest()


def write_group(path: Path) -> None:
    """Write the metadata of a plain Zarr v3 group, without a record of ours; see `fwdata.store.metadata`."""
    write_atomic(path / "zarr.json", canonical_json({"zarr_format": 3, "node_type": "group", "attributes": {}}))


def ensure_groups(root: Path, path: Path) -> None:
    """Write plain group metadata for every folder from `path` up to, not including, `root`, where there is none."""
    while path != root:
        if not (path / "zarr.json").exists():
            write_group(path)
        path = path.parent


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes, streamed; about 1.5 GB/s."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= SMALL_BYTES:
            return hashlib.sha256(file.read()).hexdigest()
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder` but its own zarr.json, by POSIX path relative to it."""
    found = (Path(top, name) for top, _, names in os.walk(folder) for name in names if not name.startswith("."))
    keys = sorted(path.relative_to(folder) for path in found if path.is_file())
    return {key.as_posix(): file_sha256(folder / key) for key in keys if key.as_posix() != "zarr.json"}


@contextlib.contextmanager
def write_lock(store: Path) -> Iterator[None]:
    """Hold the store's only write lock (on the folder itself, so nothing is left behind).

    The system releases it when the process dies. StoreBusy says who holds it, or who works on a unit of the store on
    any machine; StoreError for a store with symbolic links, since writing through one would change files elsewhere, and
    UsageError for one inside another store. A folder made for it is gone again if left empty.
    """
    refuse_nested(store)
    with made_folder(store), folder_lock(store):
        _refuse_links(store)
        for lease in live_leases(store):
            raise StoreBusy(
                f"{store} is being written by process {lease.pid} on {lease.host} ({lease.job}, {lease.unit}); see "
                f"`fwdata status {quoted(store)}`, wait for it to end or stop it"
            )
        yield


@contextlib.contextmanager
def shared_write(store: Path) -> Iterator[None]:
    """Write a store beside others that do so too, each its own units; StoreBusy while `write_lock` is held here."""
    refuse_nested(store)
    with made_folder(store), shared_folder_lock(store):
        _refuse_links(store)
        yield


def is_store_folder(folder: Path) -> bool:
    """Whether a folder of this machine has the two things that every store has."""
    return (folder / "zarr.json").is_file() and (folder / "parts").is_dir()


def refuse_nested(store: Path) -> None:
    """UsageError for a URL, and for a folder inside another store, which would not verify any more."""
    refuse_url(store, "this command writes local stores only")
    for parent in store.resolve().parents:
        if is_store_folder(parent):
            raise UsageError(f"{store} lies inside the store {parent}, which it would damage; choose another place")


def _refuse_links(store: Path) -> None:
    for path in (p for pattern in ("*", "*/*", "*/*/*") for p in store.glob(pattern) if p.is_symlink()):
        raise StoreError(f"{path} is a symbolic link; a store is written only where its own folders are")


@dataclass(frozen=True)
class Listing:
    """Everything below a place."""

    sizes: Mapping[str, int]
    """Size in bytes of every file by key, hidden ones too, sorted."""
    folders: frozenset[str]
    """Keys of the folders, empty ones too where there are such."""

    @classmethod
    def of_objects(cls, sizes: Mapping[str, int]) -> Listing:
        """Of storage without folders of its own."""
        folders = {"/".join(parts[:n]) for key in sizes for parts in [key.split("/")] for n in range(1, len(parts))}
        return cls(dict(sorted(sizes.items())), frozenset(folders))

    @property
    def keys(self) -> list[str]:
        """The files that are not hidden and not in hidden folders."""
        return [key for key in self.sizes if not any(part.startswith(".") for part in key.split("/"))]


class Files(Protocol):
    """Read access to the keys of a store. `location` is what messages call it."""

    location: str

    def read(self, key: str) -> bytes | None: ...
    def read_range(self, key: str, start: int, length: int) -> bytes: ...
    def read_into(self, key: str, start: int, buffers: Sequence[Buffer], length: int) -> None: ...
    def read_tail(self, key: str, length: int) -> bytes: ...
    def names(self, key: str) -> list[str]: ...
    def read_ahead(self, keys: Iterable[str]) -> None: ...
    def listing(self) -> Listing: ...
    def sha256(self, key: str) -> tuple[str, int] | None: ...
    def each[V](self, call: Callable[[str], V], keys: Iterable[str]) -> Iterator[V]: ...


class FileHandle:
    """A file descriptor that closes when the last user lets go of it."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self.fd).st_size
        self._moving = threading.Lock()  # Windows has neither pread nor preadv

    def read(self, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`, fewer at the file's end."""
        if hasattr(os, "pread"):
            return os.pread(self.fd, length, start)
        with self._moving, open(self.fd, "rb", buffering=0, closefd=False) as file:
            file.seek(start)
            return file.read(length)

    def read_into(self, start: int, buffers: Sequence[Buffer]) -> int:
        """Fill writable buffers from `start` on; returns the bytes read, fewer at the file's end."""
        if hasattr(os, "preadv"):
            return os.preadv(self.fd, buffers, start)
        with self._moving, open(self.fd, "rb", buffering=0, closefd=False) as file:
            file.seek(start)
            return sum(file.readinto(buffer) or 0 for buffer in buffers)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)


def _file_size(path: Path) -> int | None:
    """Size of a file; None for what is not one, or not there any more."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


class LocalFiles:
    """A store in a local folder. Thread-safe; picklable; keeps at most MAX_HANDLES descriptors open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = str(root)
        self._lock = threading.Lock()
        self._handles: OrderedDict[str, FileHandle] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalFiles, (self.root,)

    def read(self, key: str) -> bytes | None:
        """The whole file, or None when there is none."""
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, key: str) -> list[str]:
        """Sorted names of the folders below `key`, hidden ones left out; empty when there is none."""
        try:
            return sorted(e.name for e in os.scandir(self.root / key) if e.is_dir() and not e.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def handle(self, key: str) -> FileHandle:
        """The open file of a key, from a bounded least-recently-used set. StoreDamaged when it is missing."""
        with self._lock:
            found = self._handles.get(key)
            if found is None:
                try:
                    found = FileHandle(self.root / key)
                except (FileNotFoundError, NotADirectoryError):
                    raise StoreDamaged(
                        f"{self.root / key} is missing; run `fwdata verify {quoted(self.root)}` to see what else is "
                        "damaged"
                    ) from None
                self._handles[key] = found
                if len(self._handles) > MAX_HANDLES:
                    self._handles.popitem(last=False)
            else:
                self._handles.move_to_end(key)
            return found

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`; StoreDamaged when the file is shorter."""
        handle = self.handle(key)  # held until the read is done: another thread may push it out of the open set
        data = handle.read(start, length)
        if len(data) != length:
            self._refuse_end(key, start + len(data), start + length)
        return data

    def read_into(self, key: str, start: int, buffers: Sequence[Buffer], length: int) -> None:
        """Fill writable buffers of `length` bytes in all, one after another, without a copy; see `read_range`."""
        handle = self.handle(key)
        found = handle.read_into(start, buffers)
        if found != length:
            self._refuse_end(key, start + found, start + length)

    def _refuse_end(self, key: str, end: int, expected: int) -> NoReturn:
        advice = f"run `fwdata verify {quoted(self.location)}`"
        raise StoreDamaged(f"{self.root / key} ends after {end} bytes, expected {expected} or more; {advice}")

    def read_tail(self, key: str, length: int) -> bytes:
        """The last `length` bytes; StoreDamaged when the file is shorter."""
        size = self.handle(key).size
        if size < length:
            raise StoreDamaged(f"{self.root / key} holds {size} bytes, expected at least {length}")
        return self.read_range(key, size - length, length)

    def read_ahead(self, keys: Iterable[str]) -> None:
        """Nothing: local files are read when they are needed."""

    def listing(self) -> Listing:
        """Every file and folder."""
        sizes: dict[str, int] = {}
        folders: set[str] = set()
        for top, inside, names in os.walk(self.root):
            here = Path(top).relative_to(self.root).as_posix()
            base = "" if here == "." else f"{here}/"
            folders |= {f"{base}{name}" for name in inside}
            sizes |= {f"{base}{name}": size for name in names if (size := _file_size(Path(top, name))) is not None}
        return Listing(dict(sorted(sizes.items())), frozenset(folders))

    def each[V](self, call: Callable[[str], V], keys: Iterable[str]) -> Iterator[V]:
        """call(key) for every key, in their order."""
        return map(call, keys)

    def sha256(self, key: str) -> tuple[str, int] | None:
        """sha256 (hex) and size of a file, streamed, None when there is none."""
        path = self.root / key
        return (file_sha256(path), path.stat().st_size) if path.is_file() else None

    def keys(self) -> list[str]:
        """Every file, sorted; hidden ones and those in hidden folders left out."""
        return self.listing().keys

    def write(self, key: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        write_atomic(self.root / key, data)
