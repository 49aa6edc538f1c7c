"""Seeded damage to recordings: to the bytes of any file, to its place in the tree, to the structure of HDF5 and JSON.

`mutate_tables` does it to Parquet columns, `mutate_messages` to the messages of MCAP and ROS 1 files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

type Rng = np.random.Generator
type Mutation = Callable[[Path, Rng], str]
"""Changes one file in place and says how: `kind (details)`."""

HUGE = 2**40


def flip(path: Path, rng: Rng) -> str:
    data = bytearray(path.read_bytes())
    count = int(rng.integers(1, 4))
    for _ in range(count):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return f"bits flipped ({count})"


def truncate(path: Path, rng: Rng) -> str:
    size = int(rng.integers(path.stat().st_size))
    path.write_bytes(path.read_bytes()[:size])
    return f"cut (to {size} bytes)"


def zero_block(path: Path, rng: Rng) -> str:
    data = bytearray(path.read_bytes())
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 4096))
    data[start : start + length] = bytes(len(data[start : start + length]))
    path.write_bytes(data)
    return f"zeros (at {start})"


def move_block(path: Path, rng: Rng) -> str:
    data = bytearray(path.read_bytes())
    length = int(rng.integers(1, max(2, min(2048, len(data)))))
    source, target = (int(rng.integers(max(1, len(data) - length))) for _ in range(2))
    data[target : target + length] = data[source : source + length]
    path.write_bytes(data)
    return f"bytes moved (from {source} to {target})"


def insert(path: Path, rng: Rng) -> str:
    data, at = path.read_bytes(), int(rng.integers(path.stat().st_size))
    path.write_bytes(data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:])
    return f"bytes inserted (at {at})"


def big_number(path: Path, rng: Rng) -> str:
    """Eight bytes become a huge or negative number: a size, a count or an offset somewhere."""
    data = bytearray(path.read_bytes())
    at = int(rng.integers(max(1, len(data) - 8)))
    value = [2**63 - 1, 2**32 - 1, 2**40, 2**31, 2**64 - 1][int(rng.integers(5))]
    data[at : at + 8] = value.to_bytes(8, "little")
    path.write_bytes(data)
    return f"a huge number (at {at}: {value})"


def empty(path: Path, rng: Rng) -> str:
    path.write_bytes(b"")
    return "emptied"


BYTES: tuple[Mutation, ...] = (flip, flip, truncate, zero_block, move_block, insert, big_number, big_number, empty)


def _datasets(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) else None)
    return sorted(found)


def hdf5(path: Path, rng: Rng) -> str:
    """Change one dataset of an HDF5 file: type, shape, values, or what stands in its place."""
    with h5py.File(path, "r+") as file:
        names = _datasets(file)
        name = names[int(rng.integers(len(names)))]
        values = file[name][()]
        kinds = list(HDF5)
        kind = kinds[int(rng.integers(len(kinds)))]
        del file[name]
        HDF5[kind](file, name, values, rng)
    return f"HDF5: {kind} ({name})"


def _shorter(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    file[name] = values[:-1] if np.ndim(values) else values


def _longer(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    file[name] = np.concatenate([values, values[-1:]]) if np.ndim(values) else values


def _special(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    array = np.array(values)
    if array.dtype.kind == "f" and array.size:
        flat = array.reshape(-1)
        with np.errstate(over="ignore"):
            flat[int(rng.integers(flat.size))] = [np.nan, np.inf, -np.inf, 1e300][int(rng.integers(4))]
    file[name] = array


def _other_type(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    array = np.array(values)
    dtypes = ["<i2", "<f4", "<c16", "S3", "<u8"]
    try:
        file[name] = array.astype(dtypes[int(rng.integers(len(dtypes)))])
    except (ValueError, TypeError):
        file[name] = np.zeros(3, "<c16")


def _other_rank(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    file[name] = np.array(values)[..., None] if rng.integers(2) else np.array(values).reshape(-1)


def _group(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    file.create_group(name)


def _huge(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    """A declared size of terabytes without a byte behind it."""
    array = np.array(values)
    shape = tuple(max(1, n) for n in array.shape[1:])
    file.create_dataset(name, shape=(HUGE, *shape), chunks=(1, *shape), dtype=array.dtype)


def _bomb(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    """Many rows that compress to nothing."""
    array = np.array(values)
    shape = (200_000, *array.shape[1:])
    rows = array[:1].nbytes if array.ndim else 0
    if not rows:
        return
    chunk = (max(1, min(1000, 2**20 // rows)), *array.shape[1:])
    file.create_dataset(name, shape=shape, chunks=chunk, dtype=array.dtype, compression="gzip", fillvalue=None)


def _external(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    file[name] = h5py.ExternalLink("/etc/passwd" if rng.integers(2) else "../other.hdf5", "/x")


def _external_storage(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    array = np.array(values)
    if array.dtype.kind in "fiu" and array.nbytes:
        file.create_dataset(name, shape=array.shape, dtype=array.dtype, external=[("/etc/passwd", 0, array.nbytes)])


def _virtual(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    array = np.array(values)
    layout = h5py.VirtualLayout(shape=array.shape, dtype=array.dtype)
    if array.ndim:
        layout[:] = h5py.VirtualSource("../other.hdf5", "x", shape=array.shape)
    file.create_virtual_dataset(name, layout)


def _loop(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    file[name] = h5py.SoftLink(f"/{name}")


def _gone(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    pass


def _reversed(file: h5py.File, name: str, values: Any, rng: Rng) -> None:
    file[name] = np.array(values)[::-1] if np.ndim(values) else values


HDF5: dict[str, Callable[[h5py.File, str, Any, Rng], None]] = {
    "one row less": _shorter,
    "one row more": _longer,
    "a value that is not finite": _special,
    "another type": _other_type,
    "another rank": _other_rank,
    "a group": _group,
    "terabytes declared": _huge,
    "compressed bomb": _bomb,
    "external link": _external,
    "external storage": _external_storage,
    "virtual dataset": _virtual,
    "link to itself": _loop,
    "absent": _gone,
    "reversed in time": _reversed,
}


def json_value(path: Path, rng: Rng) -> str:
    """Replace one value of a JSON (or JSON lines) file."""
    lines = path.suffix == ".jsonl"
    text = path.read_text(encoding="utf-8")
    document = [json.loads(line) for line in text.splitlines() if line] if lines else json.loads(text)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(document)
    if not places:
        return flip(path, rng)
    node, key = places[int(rng.integers(len(places)))]
    value = _values()[int(rng.integers(len(_values())))]
    node[key] = value
    encoded = [json.dumps(row) for row in document] if lines else [json.dumps(document)]
    path.write_text("\n".join(encoded), encoding="utf-8")
    return f"JSON value ({key} = {str(value)[:40]})"


def _values() -> list[Any]:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    return [None, -1, 0, 2**63, 1e308, "", "../../../../etc/passwd", "/etc/passwd", "a" * 100_000, [], {}, deep, True]


def nested_json(path: Path, rng: Rng) -> str:
    """Brackets nested past any parser's patience."""
    depth = int(rng.integers(1000, 200_000))
    path.write_text("[" * depth + "]" * depth, encoding="utf-8")
    return f"JSON nested ({depth} brackets)"


def moved_out(path: Path, rng: Rng) -> str:
    """The file is no longer one of the tree: a link, a folder, a pipe that nobody writes to."""
    kinds = list(PLACES)
    return place(path, kinds[int(rng.integers(len(kinds)))])


def place(path: Path, kind: str) -> str:
    """Put one of PLACES where the file was."""
    data = path.read_bytes()
    path.unlink()
    PLACES[kind](path, data)
    return f"place: {kind}"


def _link_to_copy(path: Path, data: bytes) -> None:
    """Below the folder of all runs, beside the recordings."""
    outside = next(p for p in path.parents if p.name == "raw").parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / path.name).write_bytes(data)
    path.symlink_to(outside / path.name)


PLACES: dict[str, Callable[[Path, bytes], None]] = {
    "link out of the tree": _link_to_copy,
    "link to a foreign file": lambda path, data: path.symlink_to("/etc/passwd"),
    "link to itself": lambda path, data: path.symlink_to(path),
    "link to nothing": lambda path, data: path.symlink_to(path.with_name("absent")),
    "link to its folder": lambda path, data: path.symlink_to(path.parent),
    "link to a device": lambda path, data: path.symlink_to("/dev/zero"),
    "folder": lambda path, data: path.mkdir(),
    "pipe": lambda path, data: os.mkfifo(path),
    "lost": lambda path, data: None,
}


def mutations_for(path: Path) -> tuple[Mutation, ...]:
    """What can be done to a file, by what it holds."""
    from fault.mutate_messages import messages
    from fault.mutate_tables import parquet

    structure: dict[str, tuple[Mutation, ...]] = {
        ".hdf5": (hdf5,) * 6,
        ".h5": (hdf5,) * 6,
        ".json": (*(json_value,) * 6, nested_json),
        ".jsonl": (*(json_value,) * 6, nested_json),
        ".parquet": (parquet,) * 9,
        ".mcap": (messages,) * 9,
        ".bag": (messages,) * 9,
    }
    return (*BYTES, moved_out, *structure.get(path.suffix, ()))
