"""Seeded damage to the files of a store: one change at a time, undone afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

type Kind = Literal["flip", "truncate", "delete", "swap"]


@dataclass(frozen=True)
class Damage:
    """One change. files: those that were touched, relative to the store."""

    kind: Kind
    files: tuple[str, ...]


def all_files(store: Path) -> list[Path]:
    """Every file of a store that holds at least one byte."""
    return sorted(p for p in store.rglob("*") if p.is_file() and p.stat().st_size)


@contextlib.contextmanager
def damaged(store: Path, kind: Kind, rng: np.random.Generator) -> Iterator[Damage]:
    """Damage a random place of a random file; the store is as before when the block ends."""
    files = all_files(store)
    chosen = [files[int(rng.integers(len(files)))]]
    if kind == "delete":
        chunks = [p for p in files if "c" in p.relative_to(store).parts]
        chosen = [chunks[int(rng.integers(len(chunks)))]]
    if kind == "swap":
        others = [p for p in files if p.read_bytes() != chosen[0].read_bytes()]
        alike = [p for p in others if p.name == chosen[0].name and p.stat().st_size == chosen[0].stat().st_size]
        pool = alike if alike and rng.integers(2) else others  # the wickedest swap: same name, same size
        chosen.append(pool[int(rng.integers(len(pool)))])
    before = [p.read_bytes() for p in chosen]
    try:
        _change(kind, chosen, before, rng)
        yield Damage(kind, tuple(p.relative_to(store).as_posix() for p in chosen))
    finally:
        for path, data in zip(chosen, before, strict=True):
            path.write_bytes(data)


def _change(kind: Kind, chosen: list[Path], before: list[bytes], rng: np.random.Generator) -> None:
    data = before[0]
    if kind == "flip":
        flipped = bytearray(data)
        flipped[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        chosen[0].write_bytes(flipped)
    elif kind == "truncate":
        chosen[0].write_bytes(data[: int(rng.integers(len(data)))])
    elif kind == "delete":
        chosen[0].unlink()
    else:
        chosen[0].write_bytes(before[1])
        chosen[1].write_bytes(data)
