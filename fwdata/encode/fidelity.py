"""How well a VAE shows a store's images: a policy cannot see what its latents do not hold."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fwdata.encode.vae.wan import Dtype, load_vae
from fwdata.errors import UsageError
from fwdata.store.reader import Store

FRAMES = 4
"""Frames that are encoded and decoded, spread over the episodes."""
LOW_PSNR = 20.0
"""dB below which objects of a scene come back as blobs: the embedded VAE of another world shows LIBERO at 14 to 15."""


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two uint8 images of equal shape in dB; infinite for equal ones."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def reconstruction_psnr(store: Store, spec: str, device: str, dtype: Dtype) -> float | None:
    """Mean PSNR in dB of `FRAMES` stitched images after encoding and decoding; None when the VAE has no decoder.

    Costs loading the VAE with its decoder and 4 to 5 encoded frames' time per frame.
    """
    episodes = store.episodes
    found = []
    try:
        vae = load_vae(spec, device=device, dtype=dtype, decoder=True)
        for number in range(FRAMES):
            episode = episodes[number * len(episodes) // FRAMES]
            frame = number * episode.num_frames // FRAMES
            image = episode.stitched([frame])[0]
            found.append(psnr(image, vae.decode(vae.encode_first(image))[0]))
    except UsageError:  # without a decoder
        return None
    return float(np.mean(found))
