"""Windows of the store as typed, normalised batches. Nothing but the store is read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fwdata.manifest import Manifest
from fwdata.normalise import Float32, Normaliser
from fwdata.window import Window, WindowIndex
from fwdata.window_batches import WindowBatches
from fwtrain.batch import Batch
from fwtrain.data.contract import CacheLike, TextLike
from fwtrain.data.order import BatchPlan, Indices, Stream, derived_seed

TEXT_BYTES = 2 << 30
"""Upper bound of text embeddings kept in memory; further prompts push out the least recently used."""


class TextTable:
    """Embeddings by prompt, read once and kept up to `TEXT_BYTES`. Thread-safe."""

    def __init__(self, text: TextLike, max_bytes: int = TEXT_BYTES) -> None:
        self._text = text
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, prompt: str) -> torch.Tensor:
        """float32 [L, Dt] of one prompt. Raises StoreError (from the store) for a prompt that was never encoded."""
        with self._lock:
            found = self._kept.get(prompt)
            if found is not None:
                self._kept.move_to_end(prompt)
                return found
        rows = torch.from_numpy(np.ascontiguousarray(self._text.embedding(prompt), dtype=np.float32))
        with self._lock:
            if prompt not in self._kept:
                self._kept[prompt] = rows
                self._bytes += rows.nbytes
                while self._bytes > self._max_bytes and len(self._kept) > 1:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return rows

    def stack(self, prompts: Sequence[str]) -> torch.Tensor:
        """float32 [B, L, Dt], each padded with zero rows to the longest L."""
        return torch.nn.utils.rnn.pad_sequence([self.get(prompt) for prompt in prompts], batch_first=True)


class WindowReader:
    """Reads batches of windows.

    episodes: those that WindowIndex.episode counts. sample_instructions: draw one of an episode's instructions for
    every window and epoch (else the first one). State and action rows of an episode are read once and kept.
    Latents are read straight into the batch.
    """

    def __init__(
        self,
        episodes: Sequence[Any],
        index: WindowIndex,
        cache: CacheLike[Any],
        text: TextTable,
        manifest: Manifest,
        state: Normaliser,
        action: Normaliser,
        *,
        seed: int = 0,
        sample_instructions: bool = False,
    ) -> None:
        self.episodes = episodes
        self.index = index
        delta = manifest.normalisation.delta_actions
        self._windows = WindowBatches(
            episodes, cache.windows(episodes), cache.window, cache.shape, state, action, delta
        )
        self._text = text
        self._manifest = manifest
        self._pin = torch.cuda.is_available()
        self._seed = seed
        self._sample = sample_instructions

    @property
    def window(self) -> Window:
        """Shape of one window."""
        return self._windows.window

    def fetch(self, plan: BatchPlan, part: slice = slice(None)) -> Batch:
        """The batch of one plan, or a part of its windows, on the CPU: latents float16, the rest float32. Thread-safe.

        A window's values do not depend on the part it is read in.
        """
        windows = plan.windows[part]
        episode, start = self.index.episode[windows], self.index.start[windows]
        channels, *size = self._windows.shape
        first = self._empty(len(windows), channels, *size)
        future = self._empty(len(windows), channels, self.window.latent_frames - 1, *size) if plan.video else None
        buffers = (first.numpy(), None if future is None else future.numpy())
        read = self._windows.read(episode, start, plan.video, *buffers)
        prompts = self._prompts(episode, start, plan, part)
        return Batch(
            first=first,
            future=future,
            future_is_pad=None if read.future_is_pad is None else torch.from_numpy(read.future_is_pad),
            context=self._text.stack(prompts),
            proprio=torch.from_numpy(read.proprio),
            action=torch.from_numpy(read.action),
            action_is_pad=torch.from_numpy(read.action_is_pad),
        )

    def _empty(self, *shape: int) -> torch.Tensor:
        """A float16 buffer, page-locked where a GPU will fetch it."""
        return torch.empty(shape, dtype=torch.float16, pin_memory=self._pin)

    def describe(self, plan: BatchPlan) -> str:
        """`"episode_a frames 3, 17; episode_b frame 4"`: where a batch came from, for messages."""
        frames: dict[int, list[int]] = {}
        for number, start in zip(self.index.episode[plan.windows], self.index.start[plan.windows], strict=True):
            frames.setdefault(int(number), []).append(int(start))
        parts = [
            f"{self.episodes[number].id} frame{'s' if len(rows) > 1 else ''} {', '.join(map(str, sorted(rows)))}"
            for number, rows in sorted(frames.items())
        ]
        return "; ".join(parts)

    def raw_action(self, plan: BatchPlan) -> Float32:
        """float32 [B, A, a] recorded actions in the robot's units, the last row repeated past the end."""
        chunks = []
        for number, start in zip(self.index.episode[plan.windows], self.index.start[plan.windows], strict=True):
            rows = self._windows.rows(int(number)).action
            chunks.append(rows[self.window.action_indices(int(start), len(rows))])
        return np.stack(chunks)

    def _texts(self, number: int, start: int) -> tuple[str, ...]:
        """Possible instructions: its frame's text where the recording's changes, else the episode's wordings."""
        episode = self.episodes[number]
        at = episode.instruction_at(start)
        return episode.instructions if self._sample and at == episode.instructions[0] else (at,)

    def _prompts(self, episode: Indices, start: Indices, plan: BatchPlan, part: slice) -> list[str]:
        texts = [self._texts(number, frame) for number, frame in zip(episode.tolist(), start.tolist(), strict=True)]
        if not self._sample:
            return [self._manifest.render_prompt(choices[0]) for choices in texts]
        seed = derived_seed(self._seed, Stream.INSTRUCTION, plan.epoch, plan.number)
        draws = np.random.default_rng(seed).integers(0, 1 << 62, len(plan.windows))[part]
        picks = zip(texts, draws.tolist(), strict=True)
        return [self._manifest.render_prompt(choices[draw % len(choices)]) for choices, draw in picks]
