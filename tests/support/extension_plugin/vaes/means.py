"""Means of 16x16 pixels: 3 channels, no weights."""

import numpy as np
from numpy.typing import NDArray

from fwdata.encode.vae.base import Vae


class Means(Vae):
    name, channels, weights_sha256 = "means", 3, "none"

    def encode(self, clip: NDArray[np.uint8]) -> NDArray[np.float16]:
        n, height, width, _ = clip.shape
        small = clip.reshape(n, height // 16, 16, width // 16, 16, 3).mean((2, 4)) / 127.5 - 1
        later = small[1:].reshape(-1, 4, *small.shape[1:]).mean(1)
        return np.concatenate([small[:1], later]).transpose(3, 0, 1, 2).astype(np.float16)


def load(device: str, dtype: str, decoder: bool) -> Vae:
    return Means()
