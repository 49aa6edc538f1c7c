"""Files that are whole or absent after a crash, and locks of folders: everything the project writes goes through here.

Importing needs nothing but the standard library on any system; locks need Linux or macOS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fwdata.errors import FwdataError, StoreBusy, UsageError

type Json = bool | int | float | str | list[Json] | dict[str, Json] | None
"""Any JSON value: what is open by nature, such as a converter's own decisions."""

_TOKEN: ContextVar[str] = ContextVar("writer_token", default="")


@contextlib.contextmanager
def among_writers() -> Iterator[str]:
    """Let several processes and machines write the same files: temporary names in the block carry a random token.

    Yields the token, 8 hex digits. Outside of such a block one process writes at a time, and a rerun of a killed one
    replaces the temporary files that it left.
    """
    token = secrets.token_hex(4)
    before = _TOKEN.set(token)
    try:
        yield token
    finally:
        _TOKEN.reset(before)


def writer_token() -> str:
    """The token of the block of `among_writers` that this code runs in, "" outside of one."""
    return _TOKEN.get()


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk, quota or limit that is full, which the system gives for a write without naming the file."""


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Put around what writes `path`: an error of a full disk in the block names it."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and flush it to disk; a crash can leave a part of it."""
    with naming(path), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: temporary name in the same folder (made if absent), flush to disk, rename."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def whole_file(path: Path, suffix: str = "") -> Iterator[Path]:
    """A temporary path in the same folder (made if absent) for the block to write; flushed and renamed when it ends
    well, removed when it does not. suffix: of the temporary name, for writers that go by it."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    token = writer_token()  # without one there is one writer at a time: a rerun replaces what a kill left
    temporary = path.with_name(f".{path.name}{'.' if token else ''}{token}.tmp{suffix}")
    try:
        with naming(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a document as `write_atomic` does; keys in their order, one space per level. See `plain_json`."""
    write_atomic(path, (json.dumps(value, indent=1, default=plain_json) + "\n").encode())


@runtime_checkable
class _HasJson(Protocol):
    def to_json(self) -> object: ...


def plain_json(value: object) -> object:
    """A record, dataclass, pydantic model or path inside a document as JSON takes it. TypeError for anything else.

    What has a `to_json` decides itself: a record of a store is the fields that were set.
    """
    from pydantic import BaseModel

    if isinstance(value, _HasJson):
        return value.to_json()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} {value!r} has no form in JSON")


def json_fault(value: object, where: str) -> str | None:
    """The first place at which a value is not `Json` (a tuple is a list), and what stands there; None: it is.

    where: what the value is called, `decisions`; the answer is then like `decisions.seeds[3] is nan`.
    """
    if isinstance(value, dict):
        for key, below in value.items():
            if not isinstance(key, str):
                return f"{where} has the key {key!r}, which is not text"
            if fault := text_fault(key):
                return f"{where} has a key with {fault}"
            if fault := json_fault(below, f"{where}.{key}"):
                return fault
        return None
    if isinstance(value, list | tuple):
        return next((fault for i, v in enumerate(value) if (fault := json_fault(v, f"{where}[{i}]"))), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is {value}, which JSON does not have"
    if isinstance(value, str) and (fault := text_fault(value)):
        return f"{where} has {fault}"
    if value is None or isinstance(value, bool | int | float | str):
        return None
    return f"{where} is {shortened(repr(value))} of type {type(value).__name__}"


def text_fault(text: str) -> str | None:
    """What of a text UTF-8 does not have; None where it has all."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half of a character (U+{ord(text[error.start]):04X}), which is no text: {shortened(ascii(text))}"
    return None


def shortened(text: str, most: int = 60) -> str:
    """At most so many characters of a text, two dots for what is left out."""
    return text if len(text) <= most else f"{text[: most - 2]}.."


def refuse_url(path: Path, instead: str) -> None:
    """UsageError for a URL where a path is needed. instead: `caches are written to local stores only`."""
    found = re.match(r"([a-z][a-z0-9+]+):/+(.*)", str(path))
    if found:
        raise UsageError(f"{found[1]}://{found[2]} is a URL; {instead}")


def sync(path: Path) -> None:
    """Flush a file or folder that is there to disk. Systems that open no folders flush names by themselves."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make a folder and its parents; those that were made and are empty when the block ends are removed again."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


@contextlib.contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Hold the lock of an existing folder, on the folder itself, so that nothing is left behind.

    Released when the process dies. StoreBusy says who else holds it; FwdataError where the system has no such locks.
    """
    with _opened(path) as folder:
        _lock(path, folder, shared=False)
        yield


@contextlib.contextmanager
def shared_folder_lock(path: Path) -> Iterator[None]:
    """Hold a folder's lock together with others that share it; StoreBusy while `folder_lock` is held. See there.

    Both locks are known on this machine only, also where the folder lies on a network file system.
    """
    with _opened(path) as folder:
        _lock(path, folder, shared=True)
        yield


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold an existing folder's lock as `folder_lock` does, waiting for others to let go of it: for short work."""
    import fcntl  # absent on Windows

    with _opened(path) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def check_free(path: Path) -> None:
    """StoreBusy when another process holds the folder's lock now: asked before what takes long."""
    if path.is_dir():
        with _opened(path) as folder:
            _lock(path, folder, shared=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    if os.name == "nt":
        raise FwdataError(f"cannot lock {path}: writing needs Linux or macOS; reading works on this system")
    folder = os.open(path, os.O_RDONLY)
    try:
        yield folder
    finally:
        os.close(folder)


def _lock(path: Path, folder: int, *, shared: bool) -> None:
    import fcntl  # absent on Windows, where stores are read only

    try:
        fcntl.flock(folder, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _lock_holder(os.fstat(folder).st_ino)
        raise StoreBusy(f"{path} is being written by {holder}; wait for it to end or stop it") from None


def _lock_holder(inode: int) -> str:
    """`process 1234 (fwdata convert ..)` from Linux's lock table; `another process` elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if "->" not in fields and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                command = Path(f"/proc/{fields[4]}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {fields[4]} ({command.strip()})"
    return "another process"
