"""A small store with everything in it: raw and JPEG cameras, stitched frames, latents, text, statistics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fixtures import FakeVae, run_convert, toy_manifest, write_toy

from fwdata.encode import latents as encoding
from fwdata.encode.latents import EncodeRequest, encode_latents
from fwdata.encode.prompts import encode_text
from fwdata.store.caches.stats import compute_statistics, save_statistics
from fwdata.store.caches.stitched import materialise
from fwdata.store.reader import open_store


@contextmanager
def quick(**patches: Any) -> Iterator[pytest.MonkeyPatch]:
    """A monkeypatch outside of tests: no waiting for the disk, small shards and parts, the toy plug-in, a fake VAE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("fwdata.store.layout.LATENT_SHARD", 4)
        patch.setattr("fwdata.pipeline.plan.PART_EPISODES", 2)
        patch.setattr(encoding, "load_vae", lambda spec, **_: FakeVae(spec))
        yield patch


def full_store(folder: Path) -> Path:
    """Two tasks, five episodes in three parts, and every cache; at folder/toy.zarr, recordings in folder/raw."""
    for name, (data, modified) in _full().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(modified, modified))
    return folder / "toy.zarr"


@cache
def _full() -> dict[str, tuple[bytes, int]]:
    """Every file of `full_store` and when it was modified, which a store knows of its recordings. Made once."""
    with quick() as patch, TemporaryDirectory() as made:
        folder, manifest = Path(made), toy_manifest(patch)
        raw, out = write_toy(folder / "raw", {"lift": [5, 4, 6], "push": [3, 7]}), folder / "toy.zarr"
        run_convert(raw, out, manifest)
        materialise(out)
        encode_latents(EncodeRequest(out, "fake", stride=2), lambda count: None, lambda *values: None)
        encode_text(out, "tiny")
        store = open_store(out)
        save_statistics(store, compute_statistics(store))
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def said_by(path: Path, episode_id: str) -> dict[str, Any]:
    """What a store says of one episode, pictures included, caches not; as comparable values."""
    episode = next(e for e in open_store(path).episodes if e.id == episode_id)
    pictures = {name: episode.frames(name).tobytes() for name in episode.metadata["camera_sizes"]}
    rows = [episode.state().tobytes(), episode.action().tobytes(), episode.timestamp_ns().tobytes()]
    return {"pictures": pictures, "rows": rows, "texts": episode.instructions, "about": episode.metadata}
