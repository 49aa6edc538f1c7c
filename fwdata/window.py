"""Training windows: which frames, actions and latents one sample is made of.

A window starts at any frame `t0` of an episode with `T` frames (every frame is a start, the last one included):

    raw frames     t0 .. t0+32         33 frames, clamped to T-1
    video frames   t0, t0+4, .. t0+32   9 frames (every 4th)
    latent frames  0: frame t0 alone; 1: offsets 4..16; 2: offsets 20..32
    actions        t0 .. t0+31         32 rows, clamped to T-1

An index past the end is clamped to the last frame and marked as padding. Source: Fast-WAM's dataset class
(robot_video_dataset.py, base_lerobot_dataset.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fwdata.validation import Model

VAE_TEMPORAL_STRIDE = 4
"""Video frames per latent frame after the first one (Wan2.2 VAE)."""


type Frame = int | NDArray[np.int64]
"""One frame or length, or int64 [n, 1] of n windows, whose results then have n rows."""


class Window(Model):
    """Shape of one training window. Raises ValueError when the numbers do not fit together."""

    num_frames: int = Field(default=33, ge=1)
    """Raw frames covered, 1 + a multiple of video_stride * 4."""
    video_stride: int = Field(default=4, ge=1)
    """Raw frames between two video frames."""
    action_horizon: int = Field(default=32, ge=1)
    """Action rows of the window."""

    @model_validator(mode="after")
    def _fits(self) -> Window:
        if (self.num_frames - 1) % (self.video_stride * VAE_TEMPORAL_STRIDE):
            raise ValueError(
                f"num_frames - 1 = {self.num_frames - 1} must be a multiple of video_stride * 4 = "
                f"{self.video_stride * VAE_TEMPORAL_STRIDE}: the VAE takes video frames in groups of 4"
            )
        if self.num_video_frames > 1 and self.action_horizon % (self.num_video_frames - 1):
            raise ValueError(
                f"action_horizon {self.action_horizon} must be a multiple of "
                f"the {self.num_video_frames - 1} video steps"
            )
        return self

    @property
    def num_video_frames(self) -> int:
        """Video frames of the window (9 for 33 raw frames at stride 4)."""
        return (self.num_frames - 1) // self.video_stride + 1

    @property
    def latent_frames(self) -> int:
        """Latent frames of the window, the first frame's included (3 for 9 video frames)."""
        return (self.num_video_frames - 1) // VAE_TEMPORAL_STRIDE + 1

    def video_indices(self, start: Frame, length: Frame) -> NDArray[np.int64]:
        """int64 [num_video_frames]: frame indices of the window, clamped to the episode's last frame."""
        offsets = np.arange(0, self.num_frames, self.video_stride, dtype=np.int64)
        found: NDArray[np.int64] = np.minimum(offsets + start, np.asarray(length - 1, np.int64))
        return found

    def action_indices(self, start: Frame, length: Frame) -> NDArray[np.int64]:
        """int64 [action_horizon]: action rows of the window, clamped to the episode's last row."""
        offsets = np.arange(self.action_horizon, dtype=np.int64)
        found: NDArray[np.int64] = np.minimum(offsets + start, np.asarray(length - 1, np.int64))
        return found

    def action_is_pad(self, start: Frame, length: Frame) -> NDArray[np.bool_]:
        """bool [action_horizon]: True where the unclamped row lies past the episode's end."""
        return np.asarray(start + np.arange(self.action_horizon) >= length)

    def image_is_pad(self, start: Frame, length: Frame) -> NDArray[np.bool_]:
        """bool [num_video_frames]: True where the unclamped video frame lies past the episode's end."""
        return np.asarray(start + np.arange(0, self.num_frames, self.video_stride) >= length)

    def latent_is_pad(self, start: Frame, length: Frame) -> NDArray[np.bool_]:
        """bool [latent_frames]: a future latent is padding iff all four of its video frames are."""
        image = self.image_is_pad(start, length)
        future = image[..., 1:].reshape(*image.shape[:-1], -1, VAE_TEMPORAL_STRIDE).all(axis=-1)
        return np.concatenate([image[..., :1], future], axis=-1)

    def starts(self, length: int, stride: int = 1) -> NDArray[np.int64]:
        """int64 [m]: window starts 0, stride, 2*stride, .. of an episode with `length` frames."""
        return np.arange(0, length, stride, dtype=np.int64)


class _AnyWindow(type):
    """Every `Window` is an instance of its classes."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Window)


class WindowSpec(metaclass=_AnyWindow):
    """`Window` under its earlier name, with the arguments it took: positions too, and a `latent_frames` to check.

    Makes a `Window`, and every `Window` is an instance. ValueError as for `Window`, or where latent_frames differ.
    """

    def __new__(
        cls, num_frames: int = 33, video_stride: int = 4, latent_frames: int | None = None, action_horizon: int = 32
    ) -> Any:
        """The `Window` of these numbers."""
        made = Window(num_frames=num_frames, video_stride=video_stride, action_horizon=action_horizon)
        if latent_frames not in (None, made.latent_frames):
            raise ValueError(f"latent_frames must be {made.latent_frames}, not {latent_frames}")
        return made


class FramesLike(Protocol):
    """What an index of windows asks of an episode."""

    @property
    def num_frames(self) -> int: ...
    def valid(self) -> NDArray[np.bool_]: ...


class StartsLike[E: FramesLike](Protocol):
    """What an index of windows asks of a latent cache."""

    def starts(self, episode: E) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class WindowIndex:
    """All usable window starts of some episodes."""

    episode: NDArray[np.int64]
    """int64 [n]: position in the episode list."""
    start: NDArray[np.int64]
    """int64 [n]: first frame."""
    video: NDArray[np.bool_]
    """bool [n]: the window has future latents."""

    def __len__(self) -> int:
        return len(self.start)

    def with_future(self) -> WindowIndex:
        """The windows that have future latents."""
        return WindowIndex(self.episode[self.video], self.start[self.video], self.video[self.video])


def build_index[E: FramesLike](episodes: Sequence[E], cache: StartsLike[E], window: Window) -> WindowIndex:
    """Index every usable window start. Windows that reach an invalid frame are left out. One small read per episode."""
    numbers: list[NDArray[np.int64]] = []
    starts: list[NDArray[np.int64]] = []
    video: list[NDArray[np.bool_]] = []
    for number, episode in enumerate(episodes):
        usable = usable_starts(episode, window)
        numbers.append(np.full(len(usable), number, dtype=np.int64))
        starts.append(usable)
        video.append(np.isin(usable, cache.starts(episode), assume_unique=True))
    if not starts:
        return WindowIndex(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    return WindowIndex(np.concatenate(numbers), np.concatenate(starts), np.concatenate(video))


def usable_starts(episode: FramesLike, window: Window) -> NDArray[np.int64]:
    """Starts whose window, clamped to the episode, holds no frame marked invalid."""
    starts = window.starts(episode.num_frames)
    bad = np.concatenate([[0], np.cumsum(~episode.valid())])
    ends = np.minimum(starts + window.num_frames, episode.num_frames)
    usable: NDArray[np.int64] = starts[bad[ends] == bad[starts]]
    return usable
