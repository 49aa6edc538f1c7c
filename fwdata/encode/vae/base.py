"""What a VAE offers to encoding, previews and policies.

One of another kind is one file: `vaes/NAME.py` in FWDATA_PLUGINS, or an entry point of `fwdata.vaes`, with a function
`load(device: str, dtype: str, decoder: bool)` that returns a `Vae` (see `fwdata.plugins`). `--vae NAME` then takes it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import UsageError


class Forward(Protocol):
    """A forward under way."""

    def result(self) -> NDArray[np.float16]:
        """float16 [n, C, 1 + k, h, w]; waits for the device."""

    @property
    def seconds(self) -> float:
        """Seconds of the forward, once `result` has returned."""


class Vae(ABC):
    """A loaded VAE that takes 1 + 4k frames to 1 + k latent frames. Keeps no state between calls."""

    spec: str
    """What `load_vae` was given, enough to load it again."""
    name: str
    """What its latents' identity calls it."""
    channels: int
    """Channels of a latent."""
    weights_sha256: str
    """Digest of everything that decides its latents."""
    spatial_stride: int = 16
    """Pixels of an image per pixel of a latent."""
    dtype: str = "float32"
    """What it computes in: float32 or bfloat16."""
    device: str = "cpu"
    """torch's name of its device."""

    @abstractmethod
    def encode(self, clip: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Normalised latents of one clip: uint8 [1 + 4k, H, W, 3] RGB to float16 [channels, 1 + k, h, w].

        The first latent frame must be that of `clip[:1]` alone, bit for bit.
        """

    def decode(self, latents: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Images of latents: float [channels, 1 + k, h, w] to uint8 [1 + 4k, H, W, 3] RGB. UsageError without one."""
        raise UsageError(f"VAE {self.spec!r} has no decoder")

    def identity(self) -> dict[str, object]:
        """JSON values that say which latents this VAE makes: a cache with another identity must not be used."""
        return {"name": self.name, "weights": self.weights_sha256, "compute_dtype": self.dtype}

    def encode_first(self, frame: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Latents of one image: uint8 [H, W, 3] to float16 [channels, 1, h, w]."""
        return self.encode(frame[None])

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.device.startswith("cuda")

    @property
    def ahead(self) -> int:
        """Forwards that may be under way while the next one is prepared."""
        return 0

    def submit(self, clips: Sequence[NDArray[np.uint8]]) -> Forward:
        """Begin a forward of clips of equal length; here each is encoded at once, one after another."""
        began = time.perf_counter()
        latents = np.stack([self._checked(clip, self.encode(clip)) for clip in clips])
        return _Done(latents, time.perf_counter() - began)

    def _checked(self, clip: NDArray[np.uint8], latents: NDArray[np.float16]) -> NDArray[np.float16]:
        """The latents of a clip. UsageError unless they are what `encode` promises."""
        frames, height, width, _ = clip.shape
        stride = self.spatial_stride
        expected = (self.channels, 1 + (frames - 1) // 4, height // stride, width // stride)
        found = f"{getattr(latents, 'dtype', type(latents).__name__)} {list(getattr(latents, 'shape', ()))}"
        if found != f"float16 {list(expected)}":
            raise UsageError(
                f"VAE {self.name!r}: encode must return float16 {list(expected)} for {frames} frames of "
                f"{height}x{width}, found {found}"
            )
        if not np.isfinite(latents).all():
            raise UsageError(f"VAE {self.name!r}: encode returned latents that are not finite")
        return latents


@dataclass(frozen=True)
class _Done:
    """A forward that is over."""

    latents: NDArray[np.float16]
    seconds: float

    def result(self) -> NDArray[np.float16]:
        """See Forward."""
        return self.latents
