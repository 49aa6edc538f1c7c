"""A store behind a URL, through obstore: reads of whole objects and ranges, listings, and conditional writes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Buffer, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from fwdata.errors import StoreDamaged, StoreError, UsageError, needed_for, one_line, quoted
from fwdata.store.files import Listing
from fwdata.store.locations import StoreUrl
from fwdata.store.remote_clients import Client, connect, request_seconds
from fwdata.store.remote_errors import cut_short, reaching

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode
    from obstore.store import ObjectStore

IN_FLIGHT = 16
"""Requests at once where many objects are read or written."""

JOINED_GAP = 256 * 2**10
"""Bytes between two ranges of one object that are read with them rather than asked for apart."""
MAX_DEPTH = 16
"""Folders in folders that a listing of a web server is followed into; the deepest file of a store lies in eight."""
CUT_ANSWERS = 4
"""How often an answer that ends before its end is asked for again."""

_first_process: int | None = None
"""Process that made the first request: the client's threads are not in those it forks."""


class Entry(NamedTuple):
    """An object as a listing has it."""

    size: int
    """Bytes."""
    tag: str
    """ETag, "" where the storage tells none."""
    modified: datetime
    """When it was written, by the storage's clock."""


class RemoteFiles:
    """Objects below a URL. Thread-safe; picklable. Every failure is a StoreError of one sentence, StoreDamaged for an
    object that is missing or short. requests: how many were made, for reports."""

    def __init__(self, url: StoreUrl) -> None:
        self.url = url
        self.location = str(url)
        self.requests = 0
        self._connected: Client | None = None
        self._read_ahead: dict[str, bytes | None] = {}
        self._listed: bool = False

    def __reduce__(self) -> tuple[type[RemoteFiles], tuple[StoreUrl]]:
        return RemoteFiles, (self.url,)

    def _client(self) -> Client:
        global _first_process
        if _first_process is None:
            _first_process = os.getpid()
        if _first_process != os.getpid():
            raise StoreError(
                f"{self.location} cannot be read in a process that was forked after its first request; start workers "
                "with multiprocessing_context='forkserver' or 'spawn', or copy the store"
            )
        if self._connected is None:
            self._connected = connect(self.url)
        self.requests += 1
        return self._connected

    def _where(self, key: str) -> str:
        return f"{self.location}/{key}" if key else self.location

    def _ask[V](self, where: str, call: Callable[[ObjectStore, str], V]) -> V:
        """call(client, what keys follow): one request, made again where its answer was cut short."""
        with needed_for("a store behind a URL"):
            from obstore.exceptions import BaseError
        end = time.monotonic() + request_seconds()
        for tries in range(CUT_ANSWERS, -1, -1):
            client = self._client()
            with reaching(where, self.url.scheme):
                try:
                    return call(client.store, client.base)
                except BaseError as error:
                    if not tries or not cut_short(error) or time.monotonic() > end:
                        raise
        raise AssertionError("unreachable")

    def _get(self, key: str, call: Callable[[ObjectStore, str], Iterable[Buffer]]) -> list[bytes] | None:
        """What a request reads of an object, None for one that is not there."""
        try:
            return self._ask(self._where(key), lambda store, base: [bytes(piece) for piece in call(store, base + key)])
        except FileNotFoundError:
            return None

    def read(self, key: str) -> bytes | None:
        """The whole object, or None when there is none."""
        if key in self._read_ahead:
            return self._read_ahead.pop(key)
        found = self._get(key, lambda store, path: [store.get(path).bytes()])
        return None if found is None else found[0]

    def read_ahead(self, keys: Iterable[str]) -> None:
        """Fetch small objects at once; the next `read` of each takes what came."""
        wanted = list(keys)
        if len(wanted) > 1:
            self._read_ahead.update(zip(wanted, at_once(self.read, wanted), strict=True))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`; StoreDamaged when the object is shorter or missing."""
        found = self._get(key, lambda store, path: [store.get_range(path, start=start, length=length)])
        if found is None:
            raise self._missing(key)
        if len(found[0]) != length:
            end = start + len(found[0])
            advice = f"run `fwdata verify {quoted(self.location)}`"
            raise StoreDamaged(f"{self._where(key)} ends after {end} bytes, expected {start + length}; {advice}")
        return found[0]

    def read_ranges(self, key: str, starts: Sequence[int], length: int) -> list[bytes]:
        """Ranges of one length of one object, close ones in one request; see `read_range`."""
        spans: list[tuple[int, int]] = []
        for start in sorted(starts):
            if spans and start - spans[-1][1] <= JOINED_GAP:
                spans[-1] = (spans[-1][0], max(spans[-1][1], start + length))
            else:
                spans.append((start, start + length))
        read = {begin: memoryview(self.read_range(key, begin, end - begin)) for begin, end in spans}
        begins = [max(begin for begin in read if begin <= start) for start in starts]
        return [
            bytes(read[begin][start - begin : start - begin + length])
            for begin, start in zip(begins, starts, strict=True)
        ]

    def read_into(self, key: str, start: int, buffers: Sequence[Buffer], length: int) -> None:
        """Fill writable buffers of `length` bytes in all, one after another."""
        data, offset = self.read_range(key, start, length), 0
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            view[:] = data[offset : offset + len(view)]
            offset += len(view)

    def read_tail(self, key: str, length: int) -> bytes:
        """The last `length` bytes, in one request; StoreDamaged when the object is shorter."""
        options: GetOptions = {"range": {"suffix": length}}
        found = self._get(key, lambda store, path: [store.get(path, options=options).bytes()])
        if found is None:
            raise self._missing(key)
        if len(found[0]) != length:
            raise StoreDamaged(f"{self._where(key)} holds {len(found[0])} bytes, expected at least {length}")
        return found[0]

    def _missing(self, key: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self._where(key)} is missing; run `fwdata verify {quoted(self.location)}` to see what else is damaged"
        )

    def names(self, key: str) -> list[str]:
        """Sorted names of the folders below `key`, hidden ones left out; empty when there is none."""
        if self.url.scheme == "hf":
            from fwdata.store.remote_listing import hub_files

            base = f"{key}/" if key else ""
            inside = (k.removeprefix(base) for k, _ in hub_files(self.url) if k.startswith(base))
            found = {name.partition("/")[0] for name in inside if "/" in name}
        elif self.url.scheme in ("http", "https"):
            found = {name[:-1] for name in self._index(key) if name.endswith("/")}
        else:
            answer = self._ask(
                self._where(key), lambda store, base: store.list_with_delimiter((base + key).rstrip("/") or None)
            )
            found = {str(name).rstrip("/").rpartition("/")[2] for name in answer["common_prefixes"]}
        return sorted(name for name in found if not name.startswith("."))

    def _index(self, key: str) -> list[str]:
        """Names in a folder of a web server. StoreError for one that lists no folders."""
        from fwdata.store.remote_listing import index_page

        data = self.read(key)
        names = [] if data is None else index_page(data)
        if not self._listed:
            self._listed = "zarr.json" in (index_page(self.read("") or b"") if key else names)
            if not self._listed:
                raise StoreError(
                    f"the server of {self.location} does not list folders; turn directory listings on (nginx: "
                    "`autoindex on`), or copy the store"
                )
        return names

    def listing(self) -> Listing:
        """Every object; sizes are 0 on web servers, which do not tell them."""
        if self.url.scheme == "hf":
            from fwdata.store.remote_listing import hub_files

            return Listing.of_objects(self._plain(dict(hub_files(self.url))))
        if self.url.scheme in ("http", "https"):
            return Listing.of_objects(self._plain(dict.fromkeys(self._walk(""), 0)))
        return Listing.of_objects({key: entry.size for key, entry in self.entries().items()})

    def entries(self, folder: str = "") -> dict[str, Entry]:
        """Every object below a folder by key, hidden ones too; of a place that can only be read those of `listing`,
        without tags and as if they were new."""
        if not self.url.writable:
            now, base = datetime.now(UTC), f"{folder}/" if folder else ""
            return {k: Entry(n, "", now) for k, n in self.listing().sizes.items() if k.startswith(base)}
        return self._plain(self._ask(self._where(folder), lambda store, base: _entries(store, base, folder)))

    def _plain[V](self, found: dict[str, V]) -> dict[str, V]:
        """What was listed. StoreError for a key that would lead out of a folder it is copied to."""
        for key in found:
            if any(part in {"", ".", ".."} for part in key.split("/")) or "\\" in key or not key.isprintable():
                raise StoreError(
                    f"{self.location} lists {one_line(key)!r}, which no file of a store is called; remove it"
                )
        return found

    def _walk(self, key: str) -> list[str]:
        found: list[str] = []
        if key.count("/") >= MAX_DEPTH:
            raise StoreError(f"the server of {self.location} lists folders without end, as in {one_line(key)}")
        for name in self._index(key):
            path = f"{key}/{name}" if key else name
            found += self._walk(path[:-1]) if path.endswith("/") else [path]
        return found

    def keys(self) -> list[str]:
        """Every object, sorted; hidden ones and those in hidden folders left out."""
        return self.listing().keys

    def sha256(self, key: str) -> tuple[str, int] | None:
        """sha256 (hex) and size of an object, None when there is none; held in memory."""
        try:
            data = self._ask(self._where(key), lambda store, base: store.get(base + key).bytes())
        except FileNotFoundError:
            return None
        return hashlib.sha256(data).hexdigest(), len(data)  # of the client's own memory: no copy of it

    def each[V](self, call: Callable[[str], V], keys: Iterable[str]) -> Iterator[V]:
        """call(key) for every key, several at once, in the keys' order."""
        return at_once(call, keys)

    def write(self, key: str, data: bytes) -> None:
        """Write an object in one request, which is whole or absent."""
        self._put(key, data, "overwrite")

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one; False when there is."""
        from obstore.exceptions import AlreadyExistsError

        try:
            self._put(key, data, "create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Write an object in place of the one with ETag `tag`; False when that is not there any more."""
        from obstore.exceptions import PreconditionError

        try:
            self._put(key, data, {"e_tag": tag})
        except (PreconditionError, FileNotFoundError):
            return False
        return True

    def _put(self, key: str, data: bytes, mode: PutMode) -> None:
        if not self.url.writable:
            raise UsageError(f"{self.location} can only be read")
        self._ask(self._where(key), lambda store, base: store.put(base + key, data, mode=mode, use_multipart=False))

    def entry(self, key: str) -> Entry | None:
        """Size, ETag and age of an object, None when there is none."""
        try:
            return _entry(self._ask(self._where(key), lambda store, base: store.head(base + key)))
        except FileNotFoundError:
            return None

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are gone already are no failure."""
        if keys:
            self._ask(self.location, lambda store, base: store.delete([base + key for key in keys]))


def _entries(store: ObjectStore, base: str, folder: str) -> dict[str, Entry]:
    pages = store.list((base + folder).rstrip("/") or None)
    return {meta["path"].removeprefix(base): _entry(meta) for page in pages for meta in page}


def _entry(meta: ObjectMeta) -> Entry:
    return Entry(meta["size"], meta["e_tag"] or "", meta["last_modified"])


def at_once[K, V](call: Callable[[K], V], keys: Iterable[K]) -> Iterator[V]:
    """call(key) for every key, several at once, in the keys' order; the first failure is raised."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="remote")
    try:
        yield from pool.map(call, keys)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
