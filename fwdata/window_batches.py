"""Training windows of some episodes as arrays, any number in one call: latents, normalised actions and state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.normalise import Float32, Normaliser
from fwdata.window import Window

type Frames = NDArray[np.int64]


class RowsLike(Protocol):
    """Latents of windows by episode number; see `fwdata.store.caches.window_rows.WindowRows`."""

    def read(
        self,
        episode: Frames,
        start: Frames,
        out_first: NDArray[np.float16],
        out_future: NDArray[np.float16] | None = None,
    ) -> None: ...


@dataclass(frozen=True)
class EpisodeRows:
    """Rows of one episode."""

    state: Float32
    """float32 [T, p], normalised."""
    action: Float32
    """float32 [T, a], in the robot's units."""


@dataclass(frozen=True)
class WindowArrays:
    """n windows; A action horizon, a action width, p proprioception width, F latent frames."""

    first: NDArray[np.float16]
    """float16 [n, C, h, w]: normalised first-frame latents."""
    future: NDArray[np.float16] | None
    """float16 [n, C, F-1, h, w]: normalised future latents; None when they were not asked for."""
    future_is_pad: NDArray[np.bool_] | None
    """bool [n, F-1]: True where a future latent lies past the episode's end; None like `future`."""
    proprio: Float32
    """float32 [n, p]: normalised state at the window's first frame."""
    action: Float32
    """float32 [n, A, a]: normalised action chunk, the last row repeated past the episode's end."""
    action_is_pad: NDArray[np.bool_]
    """bool [n, A]: True past the episode's end."""


class WindowBatches:
    """Reads windows of `episodes`, numbered as in the sequence. Thread-safe.

    latents: the episodes' latents, `cache.windows(episodes)`. shape: (C, h, w) of a latent frame. delta: action
    dimensions that count from the state, where a row past the end means no motion. State and action rows of an episode
    are read once and kept.
    """

    def __init__(
        self,
        episodes: Sequence[Any],
        latents: RowsLike,
        window: Window,
        shape: tuple[int, int, int],
        state: Normaliser,
        action: Normaliser,
        delta: Sequence[int] = (),
    ) -> None:
        self.episodes, self.window, self.shape = episodes, window, shape
        self._latents, self._state, self._action = latents, state, action
        self._delta = np.asarray(delta, np.int64)
        self._rows: dict[int, EpisodeRows] = {}

    def read(
        self,
        episode: Frames,
        start: Frames,
        video: bool = True,
        first: NDArray[np.float16] | None = None,
        future: NDArray[np.float16] | None = None,
    ) -> WindowArrays:
        """The windows that start at frames `start` (int64 [n]) of the episodes `episode` (int64 [n]).

        video: whether future latents are read. first, future: C-contiguous float16 buffers to fill; new ones when None.
        Raises ValueError for no window, and what `WindowRows.read` raises.
        """
        count, (channels, height, width) = len(episode), self.shape
        if not count:
            raise ValueError("a batch needs at least one window")
        if first is None:
            first = np.empty((count, channels, height, width), np.float16)
        if video and future is None:
            future = np.empty((count, channels, self.window.latent_frames - 1, height, width), np.float16)
        self._latents.read(episode, start, first, future if video else None)
        action, pad, proprio = self._chunks(episode, start)
        future_pad = self._future_pad(episode, start) if video else None
        return WindowArrays(first, future if video else None, future_pad, proprio, action, pad)

    def rows(self, number: int) -> EpisodeRows:
        """Normalised state and raw action rows of one episode."""
        found = self._rows.get(number)
        if found is None:
            episode = self.episodes[number]
            found = self._rows[number] = EpisodeRows(self._state.apply(episode.state()), episode.action())
        return found

    def _chunks(self, episode: Frames, start: Frames) -> tuple[Float32, NDArray[np.bool_], Float32]:
        """Normalised action [n, A, a], its padding [n, A] and normalised state [n, p]."""
        owners = [self.rows(number) for number in episode.tolist()]
        begin, length = start[:, None], np.array([[len(rows.action)] for rows in owners], np.int64)
        pad = self.window.action_is_pad(begin, length)
        indices = self.window.action_indices(begin, length)
        action = np.stack([rows.action[wanted] for rows, wanted in zip(owners, indices, strict=True)])
        for column in self._delta.tolist():
            action[..., column][pad] = 0.0  # a delta past the end is "no motion", not the last motion again
        state = np.stack([rows.state[frame] for rows, frame in zip(owners, start.tolist(), strict=True)])
        return self._action.apply(action), pad, state

    def _future_pad(self, episode: Frames, start: Frames) -> NDArray[np.bool_]:
        length = np.array([[self.episodes[number].num_frames] for number in episode.tolist()], np.int64)
        return self.window.latent_is_pad(start[:, None], length)[:, 1:]
