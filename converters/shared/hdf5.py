"""HDF5 recordings of any source, opened without trusting the file.

Nothing outside the file is reached: external links, external storage and virtual datasets of other files are refused.
Sizes are checked before anything is allocated. Every function raises BadEpisode naming the key and what was found.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from converters.shared.content import not_content
from fwdata.api import BadEpisode, opening

if TYPE_CHECKING:
    import h5py

MAX_FRAME_BYTES = 256 << 20
MAX_CHUNK_BYTES = 512 << 20

_PLUGIN_FILTERS = {
    307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32017: "sz",
    32018: "fcidecomp", 32024: "sz3", 32026: "blosc2", 32028: "sperr",
}  # fmt: skip
"""Registered HDF5 filters that hdf5plugin brings (https://pypi.org/project/hdf5plugin)."""

_OTHER_FILTERS = {305: "lzo", 32000: "lzf", 32014: "fpzip", 32019: "jpeg", 32020: "vbz", 32023: "granular bitround"}
"""Registered HDF5 filters that neither HDF5 nor hdf5plugin brings (https://github.com/HDFGroup/hdf5_plugins)."""


@contextmanager
def open_recording(path: Path) -> Iterator[h5py.File]:
    """Open one HDF5 file read-only; every failure of reading it becomes a BadEpisode that names the file."""
    _register_plugins()
    with naming_file(path), opening(path), _read_only(path) as file, _remembered(file):
        yield file


def _read_only(path: Path) -> h5py.File:
    """As h5py.File(path, "r", locking="best-effort"), which makes lists of settings for every file."""
    import h5py

    return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, fapl=_access()))


@cache
def _access() -> h5py.h5p.PropFAID:
    import h5py

    settings = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    settings.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    settings.set_file_locking(True, True)
    return settings


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Let every failure of reading an HDF5 file be a BadEpisode that names it."""
    try:
        yield
    except BadEpisode:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        other = not_content(path, path.name)
        if other is not None:
            raise BadEpisode(other) from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadEpisode(
            f"{path.name} cannot be read as HDF5 (truncated, damaged or still being written): {reason}; fetch it "
            "again, or leave it out (--exclude)"
        ) from (error)


@cache
def _register_plugins() -> None:
    """Let HDF5 read what the package hdf5plugin reads, where it is installed."""
    with suppress(ImportError):
        importlib.import_module("hdf5plugin")


type Node = h5py.Group | h5py.Dataset | None

KEPT_NODES = 512
"""Most objects of one open file that are remembered."""


class FileState(NamedTuple):
    """What tells a file from one that was changed or replaced."""

    name: str
    """Its path as it was opened."""
    changed_ns: int
    """Time of its last change, ns since 1970."""
    num_bytes: int
    """Its size."""


@dataclass
class _Opened:
    """What is remembered of a file while it is open, so that HDF5 is asked once."""

    nodes: dict[str, Node] = field(default_factory=dict)
    """What its keys lead to."""
    sound: dict[str, h5py.Dataset] = field(default_factory=dict)
    """Those of them that `dataset` has checked."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """What `group_keys` found."""
    state: FileState | None = None
    """What `file_state` found."""
    userblock: int | None = None
    """What `userblock_of` found."""


_opened: dict[int, _Opened] = {}
"""By number of a file that `open_recording` has open."""


@contextmanager
def _remembered(file: h5py.File) -> Iterator[None]:
    number = file.id.id
    _opened[number] = _Opened()
    try:
        yield
    finally:
        del _opened[number]


def file_state(file: h5py.File) -> FileState:
    """What a file is now; while `open_recording` has it open, what it was when first asked for."""
    opened = _opened.get(file.id.id) or _Opened()
    if opened.state is None:
        name = file.filename
        status = Path(name).stat()
        opened.state = FileState(name, status.st_mtime_ns, status.st_size)
    return opened.state


def userblock_of(file: h5py.File) -> int:
    """Bytes of a file that precede HDF5's own."""
    opened = _opened.get(file.id.id) or _Opened()
    if opened.userblock is None:
        opened.userblock = int(file.userblock_size)
    return opened.userblock


def find(file: h5py.File, key: str) -> Node:
    """The object at `key`, or None; BadEpisode where a link or a dataset leads out of the file."""
    opened = _opened.get(file.id.id)
    if opened is None:
        return _find(file, key)
    if key not in opened.nodes:
        found = _find(file, key)
        if len(opened.nodes) >= KEPT_NODES:
            opened.nodes.clear()
            opened.sound.clear()
            opened.names.clear()
        opened.nodes[key] = found
    return opened.nodes[key]


OWN_VALUES = "copy the values into it, as h5py does with file[name] = values, or leave it out (--exclude)"
"""What to do about a recording that refers to other files."""


def _find(file: h5py.File, key: str) -> Node:
    import h5py

    plain, found = _by_plain_links(file, key)
    if plain:
        if isinstance(found, h5py.Dataset):
            _check_storage(found, key)
        return found
    todo, node, walked, hops = key.strip("/").split("/"), file["/"], "", 0
    while todo:
        name = todo.pop(0)
        link = node.get(name, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise BadEpisode(
                f"{walked}/{name} is an external link to {link.filename}, and only the recording's own file is read; "
                f"{OWN_VALUES}"
            )
        if isinstance(link, h5py.SoftLink):
            hops += 1
            if hops > 16:
                raise BadEpisode(f"{key} runs through a loop of soft links")
            target = link.path.split("/")
            if link.path.startswith("/"):
                node, walked = file["/"], ""
            todo = [part for part in target if part not in ("", ".")] + todo
            continue
        node, walked = node[name], f"{walked}/{name}"
    if isinstance(node, h5py.Dataset):
        _check_storage(node, key)
    return node


def _by_plain_links(file: h5py.File, key: str) -> tuple[bool, Node]:
    """(True, the object at `key` or None) where a plain link leads there from the object above it, at a fraction of
    the cost of asking about every kind of link; else (False, None)."""
    import h5py

    above, _, name = key.strip("/").rpartition("/")
    if name in ("", ".") or not name.isascii():
        return False, None
    group = find(file, above) if above else file["/"]
    link = name.encode()
    if not isinstance(group, h5py.Group) or not group.id.links.exists(link):
        return True, None
    if group.id.links.get_info(link).type != h5py.h5l.TYPE_HARD:
        return False, None
    node = h5py.h5o.open(group.id, link)
    if isinstance(node, h5py.h5g.GroupID):
        return True, h5py.Group(node)
    if not isinstance(node, h5py.h5d.DatasetID):
        return False, None
    return True, h5py.Dataset(node, readonly=file.id.id in _opened)  # h5py then asks once for shape, type and space


def _check_storage(node: h5py.Dataset, key: str) -> None:
    """BadEpisode where a dataset's values are not in its file, or packed by a filter that is not installed."""
    if in_one_piece(node):
        return
    if node.external or (node.is_virtual and any(s.file_name != "." for s in node.virtual_sources())):
        raise BadEpisode(f"{key} takes its data from other files, and only the recording's own is read; {OWN_VALUES}")
    parts = [node.file.get(source.dset_name) for source in node.virtual_sources()] if node.is_virtual else [node]
    for part in parts:
        if part is None or (node.is_virtual and (part.is_virtual or part.external)):
            raise BadEpisode(
                f"{key} is a virtual dataset of datasets that are absent or virtual themselves; copy the data"
            )
        _check_filters(part, key)


def in_one_piece(node: h5py.Dataset) -> bool:
    """Whether a dataset's values are stored in its file one after another, which no virtual, external, chunked, packed
    or unwritten ones are; one question to HDF5 instead of several."""
    return node.id.get_offset() is not None


def _check_filters(node: h5py.Dataset, key: str) -> None:
    import h5py

    created = node.id.get_create_plist()
    for number in range(created.get_nfilters()):
        code, _, _, name = created.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        called = (_PLUGIN_FILTERS | _OTHER_FILTERS).get(code) or name.decode(errors="replace") or "unknown"
        cure = "set HDF5_PLUGIN_PATH to the folder of the filter's library"
        if code not in _OTHER_FILTERS:
            doubt = "" if code in _PLUGIN_FILTERS else " (which may bring it)"
            cure = f"pip install hdf5plugin{doubt}, or {cure}"
        else:
            cure += ", which hdf5plugin does not bring, or unpack it where it can be read: h5repack -f NONE OLD NEW"
        raise BadEpisode(
            f"{key} is not damaged, but packed by HDF5 filter {code} ({called}), which is not installed; {cure}"
        )


def check_written(node: h5py.Dataset, key: str) -> None:
    """BadEpisode where some values of a dataset were never written: HDF5 reads those as a fill value, mostly zero.

    A writer that is killed leaves such chunks, and a virtual dataset may map a part of its values alone. Call it for
    what is stored; of what is only compared, an unwritten part changes nothing. Cost: some microseconds per 100 chunks.
    """
    if not node.size or in_one_piece(node):
        return
    if node.is_virtual:
        _check_mapped(node, key)
        for source in node.virtual_sources():
            check_written(node.file[source.dset_name], f"{key} (by {source.dset_name})")
    elif node.chunks:
        wanted = math.prod(-(-size // chunk) for size, chunk in zip(node.shape, node.chunks, strict=True))
        found = int(node.id.get_num_chunks())
        if found < wanted:
            raise BadEpisode(
                f"{key}: {wanted - found} of {wanted} chunks were never written, and would be read as "
                f"{node.fillvalue!s}: its writer was stopped, or left them out; {UNWRITTEN}"
            )
    elif not node.id.get_storage_size():
        raise BadEpisode(
            f"{key} has the shape {node.shape}, but no value was ever written, and all would be read as "
            f"{node.fillvalue!s}; {UNWRITTEN}"
        )


UNWRITTEN = "record or copy it again, or leave the recording out (--exclude)"


def _check_mapped(node: h5py.Dataset, key: str) -> None:
    """BadEpisode where a virtual dataset maps fewer values than it has, or more than its sources have."""
    import h5py

    sources = node.virtual_sources()
    if any(_is_endless(source.vspace) for source in sources):
        return  # maps all that its source has, which HDF5 takes for its shape
    mapped = sum(int(source.vspace.get_select_npoints()) for source in sources)
    if 0 <= mapped < node.size:
        raise BadEpisode(
            f"{key} is a virtual dataset that maps {mapped} of its {node.size} values, and the others would be read as "
            f"{node.fillvalue!s}; copy the data to a dataset of its own, or leave the recording out (--exclude)"
        )
    for source in sources:
        held = node.file[source.dset_name].shape
        whole = source.src_space.get_select_type() != h5py.h5s.SEL_HYPERSLABS  # all of it: it has no bounds
        last = tuple(size - 1 for size in held) if whole else source.src_space.get_select_bounds()[1]
        short = math.prod(held) < source.vspace.get_select_npoints()
        if short or any(end >= size for end, size in zip(last, held, strict=False)):
            raise BadEpisode(
                f"{key} is a virtual dataset that maps more of {source.dset_name} than its shape {held} holds; "
                f"{UNWRITTEN}"
            )


def _is_endless(space: h5py.h5s.SpaceID) -> bool:
    """Whether a selection goes on as far as its source does."""
    import h5py

    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return False
    return any(h5py.h5s.UNLIMITED in sizes for sizes in space.get_regular_hyperslab())


def group_keys(file: h5py.File, key: str) -> list[str]:
    """Sorted names in a group (those that are UTF-8); empty where there is none."""
    import h5py

    opened = _opened.get(file.id.id) or _Opened()
    if key not in opened.names:
        node = find(file, key) if key else file["/"]
        held = node if isinstance(node, h5py.Group) else ()
        opened.names[key] = sorted(name for name in held if isinstance(name, str))
    return list(opened.names[key])


def dataset(file: h5py.File, key: str) -> h5py.Dataset | None:
    """The dataset at `key`, or None; BadEpisode for a group, and for sizes that no genuine file has."""
    opened = _opened.get(file.id.id)
    if opened is None:
        return _dataset(file, key)
    known = opened.sound.get(key)
    if known is None and (known := _dataset(file, key)) is not None:
        opened.sound[key] = known
    return known


def _dataset(file: h5py.File, key: str) -> h5py.Dataset | None:
    import h5py

    node = find(file, key)
    if node is None:
        return None
    if not isinstance(node, h5py.Dataset) or node.shape is None:
        raise BadEpisode(
            f"{key} must be a dataset, found {'an empty one' if isinstance(node, h5py.Dataset) else 'a group'}"
        )
    try:
        itemsize = node.dtype.itemsize
    except TypeError as error:
        raise BadEpisode(f"{key} has a data type that cannot be read: {error}") from None
    chunks = None if in_one_piece(node) else node.chunks
    if not chunks and node.size * itemsize > file.id.get_filesize():
        raise BadEpisode(f"{key} claims {node.shape} of {node.dtype}, more bytes than the whole file has")
    if chunks and int(np.prod(chunks, dtype=np.float64)) * itemsize > MAX_CHUNK_BYTES:
        raise BadEpisode(f"{key} has chunks of {chunks} {node.dtype}, more than {MAX_CHUNK_BYTES >> 20} MiB each")
    return node
