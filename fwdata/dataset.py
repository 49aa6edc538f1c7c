"""Cached training windows as a PyTorch dataset, for trainers other than `fwtrain`.

from torch.utils.data import DataLoader
dataset = fwdata.WindowDataset("data/libero.zarr")
loader = DataLoader(dataset, batch_size=32, sampler=dataset.sampler(seed=0), num_workers=2)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from fwdata.errors import StoreError, UsageError
from fwdata.normalise import Normaliser
from fwdata.store.indices import whole_numbers
from fwdata.store.reader import open_store
from fwdata.store.row_reader import Verify
from fwdata.window import build_index
from fwdata.window_batches import WindowBatches

PROMPTS_KEPT = 4096
"""Prompt embeddings kept in memory by one process; a further prompt drops them all."""

SPLITS = ("train", "val", "all")
VERIFY = ("always", "first-read")


class WindowSample(NamedTuple):
    """One training window; a `DataLoader` stacks the fields. A action rows, F latent frames, L text tokens."""

    first: torch.Tensor
    """float16 [C, h, w]: normalised first-frame latent."""
    future: torch.Tensor
    """float16 [C, F-1, h, w]: normalised future latents; zeros where `has_future` is False."""
    future_is_pad: torch.Tensor
    """bool [F-1]: True where a future latent lies past the episode's end, or there is none."""
    has_future: torch.Tensor
    """bool []: whether the window has future latents (every `stride` frames)."""
    context: torch.Tensor
    """float32 [L, Dt]: text embedding, zero rows past the prompt's length. Shared by samples: not to be changed."""
    proprio: torch.Tensor
    """float32 [p]: normalised state at the first frame."""
    action: torch.Tensor
    """float32 [A, a]: normalised action chunk."""
    action_is_pad: torch.Tensor
    """bool [A]: True past the episode's end."""


class SamplerState(TypedDict):
    """Where a `WindowSampler` stands."""

    seed: int
    """Seed of the order."""
    epoch: int
    """Epoch, from 0."""
    position: int
    """Windows of the epoch that were handed out."""
    size: NotRequired[int]
    """Windows of the dataset; missing in states of earlier versions."""


class WindowSampler(Sampler[int]):
    """Windows of a dataset in an order that is a function of (seed, epoch) alone and can be continued.

    size: windows of the dataset. `state_dict` tells how many windows of the epoch have been handed out; a DataLoader
    with workers asks ahead, so give `load_state_dict` the number of windows that were trained on.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size, self._seed, self._epoch, self._position = size, seed, 0, 0

    def __len__(self) -> int:
        return self._size - self._position

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._size)
        while self._position < self._size:
            self._position += 1
            yield int(order[self._position - 1])
        self._epoch, self._position = self._epoch + 1, 0

    def state_dict(self) -> SamplerState:
        """Seed, epoch, and windows of the epoch handed out so far."""
        return {"seed": self._seed, "epoch": self._epoch, "position": self._position, "size": self._size}

    def load_state_dict(self, state: SamplerState) -> None:
        """Continue where another sampler stood. UsageError for a state of another dataset, or one that cannot be."""
        missing = [key for key in ("seed", "epoch", "position") if key not in state]
        if missing:
            raise UsageError(f"a sampler's state holds seed, epoch and position; {missing[0]} is missing")
        if state.get("size", self._size) != self._size:
            raise UsageError(
                f"the state is of a dataset of {state['size']} windows, this one has {self._size}: its order is "
                "another; open the same store with the same split and future_only, or begin with a new sampler"
            )
        if not 0 <= state["position"] <= self._size or state["epoch"] < 0:
            raise UsageError(
                f"epoch {state['epoch']} and position {state['position']} do not fit {self._size} windows; "
                "load what state_dict gave"
            )
        self._seed, self._epoch, self._position = state["seed"], state["epoch"], state["position"]


class WindowDataset(Dataset[WindowSample]):
    """Every usable window of a store's episodes: a map-style dataset over cached latents, text, state and action.

    store: path or URL of the store. split: "train", "val" or "all" episodes. latents, text: names of the caches, None
    for the only one. future_only: only windows that have future latents. verify: "always" checks every row's checksum
    on every read, "first-read" once per process and open file. Picklable; safe with `fork` and `spawn` workers. Raises
    StoreError where a cache is absent or incomplete, UsageError for another split or verify.
    """

    def __init__(
        self,
        store: str | Path,
        split: Literal["train", "val", "all"] = "train",
        *,
        latents: str | None = None,
        text: str | None = None,
        future_only: bool = False,
        verify: Verify = "always",
    ) -> None:
        for option, value, known in (("split", split, SPLITS), ("verify", verify, VERIFY)):
            if value not in known:
                raise UsageError(f"{option} must be one of {', '.join(known)}, found {value!r}")
        opened = open_store(store)
        self._episodes = [e for e in opened.episodes if split in (e.split, "all")]
        self._manifest = opened.manifest
        cache, self._text = opened.latents(latents), opened.text(text)
        mode, statistics = self._manifest.normalisation.mode, opened.stats()
        self.state = Normaliser.from_statistics(
            statistics.state, mode, opened.state_names, "state", where=opened.location
        )
        self.action = Normaliser.from_statistics(
            statistics.action, mode, opened.action_names, "action", where=opened.location
        )
        self._manifest.normalisation.check_actions(len(opened.action_names), f"the view of {opened.location}")
        self.index = build_index(self._episodes, cache, cache.window)
        if future_only:
            self.index = self.index.with_future()
        if not len(self.index):
            raise StoreError(f"{opened.location} has no usable window in its {split} episodes")
        self._windows = WindowBatches(
            self._episodes,
            cache.windows(self._episodes, verify=verify),
            cache.window,
            cache.shape,
            self.state,
            self.action,
            self._manifest.normalisation.delta_actions,
        )
        self._prompts: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: int) -> WindowSample:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[WindowSample]:
        """Several windows in one read; `DataLoader` calls it with a whole batch. IndexError outside the dataset."""
        wanted = whole_numbers(positions, "windows")
        if wanted.size and (wanted.min() < -len(self) or wanted.max() >= len(self)):
            raise IndexError(f"the dataset has windows 0..{len(self) - 1}, asked for {wanted.tolist()}")
        samples: dict[int, WindowSample] = {}
        video = self.index.video[wanted]
        for rows, has_future in ((np.flatnonzero(video), True), (np.flatnonzero(~video), False)):
            if len(rows):
                samples.update(zip(rows.tolist(), self._read(wanted[rows], has_future), strict=True))
        return [samples[i] for i in range(len(wanted))]

    def _read(self, wanted: NDArray[np.int64], has_future: bool) -> Iterator[WindowSample]:
        episode, start = self.index.episode[wanted], self.index.start[wanted]
        read = self._windows.read(episode, start, has_future)
        channels, *size = self._windows.shape
        future, pad = read.future, read.future_is_pad
        if future is None or pad is None:
            steps = self._windows.window.latent_frames - 1
            future = np.zeros((len(wanted), channels, steps, *size), np.float16)
            pad = np.ones((len(wanted), steps), np.bool_)
        for i, (number, frame) in enumerate(zip(episode.tolist(), start.tolist(), strict=True)):
            yield WindowSample(
                first=torch.from_numpy(read.first[i]),
                future=torch.from_numpy(future[i]),
                future_is_pad=torch.from_numpy(pad[i]),
                has_future=torch.tensor(has_future),
                context=self._context(number, frame),
                proprio=torch.from_numpy(read.proprio[i]),
                action=torch.from_numpy(read.action[i]),
                action_is_pad=torch.from_numpy(read.action_is_pad[i]),
            )

    def sampler(self, seed: int = 0) -> WindowSampler:
        """A resumable random order over the dataset's windows."""
        return WindowSampler(len(self), seed)

    def _context(self, number: int, frame: int) -> torch.Tensor:
        prompt = self._manifest.render_prompt(self._episodes[number].instruction_at(frame))
        found = self._prompts.get(prompt)
        if found is None:
            if len(self._prompts) >= PROMPTS_KEPT:
                self._prompts.clear()
            found = torch.from_numpy(np.asarray(self._text.embedding(prompt), np.float32))
            self._prompts[prompt] = found
        return found
