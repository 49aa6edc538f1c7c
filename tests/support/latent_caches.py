"""Latent caches filled with random numbers, without a VAE."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fwdata
from fwdata.store.caches.identity import latent_settings
from fwdata.store.caches.latents import LatentPartWriter, create_latents

SHAPE = (48, 4, 4)


def random_latents(path: Path, stride: int = 1, shape: tuple[int, int, int] = SHAPE, name: str = "default") -> None:
    """Add a complete latent cache to the store at `path`; deterministic."""
    store = fwdata.open(path)
    window = store.manifest.window
    identity = {**latent_settings(store.manifest), "vae": {"name": "random"}, "stride": stride}
    key = create_latents(store, name, identity, "tiny", shape, replace=False).key
    random = np.random.default_rng(0)
    for part in store.parts:
        episodes = store.episodes.of(part)
        starts = np.concatenate([window.starts(e.num_frames, stride) + e.start for e in episodes])
        frames = sum(e.num_frames for e in episodes)
        writer = LatentPartWriter(path, key, part, shape, window.latent_frames - 1, len(starts))
        for row in range(frames):
            writer.add_first(row, random.standard_normal(shape, np.float32).astype(np.float16))
        for row in range(len(starts)):
            future = random.standard_normal((shape[0], window.latent_frames - 1, *shape[1:]), np.float32)
            writer.add_future(row, future.astype(np.float16))
        writer.commit(starts)
