"""A store in memory with the public reader's names, for fast tests of training. Deterministic; numpy only."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from fwdata.errors import StoreError
from fwdata.manifest import load_manifest
from fwdata.window import Window

CHANNELS, HEIGHT, WIDTH = 48, 6, 4
TEXT_ROWS, TEXT_WIDTH = 8, 16
NAMES = tuple(f"joint{i}" for i in range(14))


@dataclass
class FakeEpisode:
    """One recording whose action is the next state; `state[t, 0] == index` tells where a row came from."""

    index: int
    num_frames: int
    split: str = "train"
    instructions: tuple[str, ...] = ("lift the block", "raise the block")
    task: str = "lift"
    invalid: tuple[int, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    files: tuple[dict[str, Any], ...] = ()

    @property
    def id(self) -> str:
        return f"episode{self.index}"

    @property
    def source(self) -> str:
        return f"{self.id}.hdf5"

    def instruction_at(self, frame: int) -> str:
        return self.instructions[0]

    def _rows(self) -> np.ndarray:
        time = np.arange(self.num_frames + 1, dtype=np.float32)[:, None]
        phase = np.arange(14, dtype=np.float32)[None] * 0.4 + self.index * 0.7
        return np.sin(time * 0.15 + phase).astype(np.float32)

    def state(self) -> np.ndarray:
        return self._rows()[:-1].copy()

    def action(self) -> np.ndarray:
        return self._rows()[1:].copy()

    def valid(self) -> np.ndarray:
        valid = np.ones(self.num_frames, np.bool_)
        valid[list(self.invalid)] = False
        return valid


@dataclass
class FakeCache:
    """Latents that are a smooth function of episode and frame. `future_calls` counts reads of future latents."""

    stride: int = 1
    fingerprint: str = "fake-cache"
    name: str = "fake"
    vae: str = "fake"
    shape: tuple[int, int, int] = (CHANNELS, HEIGHT, WIDTH)
    window: Window = field(default_factory=Window)
    future_calls: int = 0
    poison: tuple[int, int] | None = None
    identity: dict[str, Any] = field(default_factory=lambda: {"vae": "fake"})

    def starts(self, episode: FakeEpisode) -> np.ndarray:
        return self.window.starts(episode.num_frames, self.stride)

    def first(self, episode: FakeEpisode, indices: np.ndarray) -> np.ndarray:
        base = np.linspace(-1, 1, CHANNELS * HEIGHT * WIDTH).reshape(CHANNELS, HEIGHT, WIDTH)
        phase = np.asarray(indices)[:, None, None, None] * 0.15 + episode.index * 0.7
        latents = np.sin(3 * base[None] + phase).astype(np.float16)
        if self.poison and self.poison[0] == episode.index:
            latents[np.asarray(indices) == self.poison[1]] = np.nan
        return latents

    def future(self, episode: FakeEpisode, starts: np.ndarray) -> np.ndarray:
        self.future_calls += 1
        missing = np.setdiff1d(starts, self.starts(episode))
        if len(missing):
            raise StoreError(f"{episode.id}: no future latents at frame {missing[0]}")
        last = episode.num_frames - 1
        return np.stack([self.first(episode, np.minimum(starts + step, last)) for step in (16, 32)], axis=2)

    def windows(self, episodes: list[FakeEpisode], caches: list[FakeCache] | None = None) -> FakeRows:
        return FakeRows(caches or [self] * len(episodes), episodes)


@dataclass
class FakeRows:
    """Latents of windows into buffers, through the cache's own reads."""

    caches: list[FakeCache]
    episodes: list[FakeEpisode]

    def read(self, episode: np.ndarray, start: np.ndarray, first: np.ndarray, future: np.ndarray | None = None) -> None:
        for number in np.unique(episode):
            rows, owner, cache = np.flatnonzero(episode == number), self.episodes[number], self.caches[number]
            first[rows] = cache.first(owner, start[rows])
            if future is not None:
                future[rows] = cache.future(owner, start[rows])


class FakeText:
    """Deterministic embeddings; the last rows are zero."""

    name = encoder = "fake"
    fingerprint = "fake-text"
    max_tokens, dim = TEXT_ROWS, TEXT_WIDTH

    @property
    def identity(self) -> dict[str, Any]:
        return {"encoder": "fake"}

    def embedding(self, prompt: str) -> np.ndarray:
        random = np.random.default_rng(zlib.crc32(prompt.encode()))
        rows = random.standard_normal((TEXT_ROWS, TEXT_WIDTH)).astype(np.float16)
        rows[5:] = 0
        return rows


def vector_statistics(rows: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(
        min=rows.min(0),
        max=rows.max(0),
        mean=rows.mean(0),
        std=rows.std(0, ddof=1),
        q01=np.quantile(rows, 0.01, axis=0),
        q99=np.quantile(rows, 0.99, axis=0),
    )


class FakeStore:
    """A few episodes, one latent cache, one text cache."""

    layout_version = 1
    location = "fake.zarr"
    fingerprint = "fake-store"
    embodiments: frozenset[str] = frozenset()
    source = "fake"
    fps = 15.0
    state_names = NAMES
    action_names = NAMES
    cameras = ("head_camera", "left_camera", "right_camera")
    stitch_layout = "robotwin"

    def __init__(
        self, lengths: tuple[int, ...] = (40, 20, 33, 50), val: int = 1, stride: int = 1, **episode: Any
    ) -> None:
        train = len(lengths) - val
        self.episodes = [
            FakeEpisode(i, length, "train" if i < train else "val", **episode) for i, length in enumerate(lengths)
        ]
        self.cache = FakeCache(stride)
        self.metadata = {"manifest": load_manifest("robotwin-sample").model_dump(mode="json")}

    def latents(self, name: str | None = None) -> FakeCache:
        return self.cache

    def text(self, name: str | None = None) -> FakeText:
        return FakeText()

    def stats(self) -> SimpleNamespace:
        train = [e for e in self.episodes if e.split == "train"]
        return SimpleNamespace(
            state=vector_statistics(np.concatenate([e.state() for e in train])),
            action=vector_statistics(np.concatenate([e.action() for e in train])),
        )
