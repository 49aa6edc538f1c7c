"""A small VAE of the Wan2.2 VAE's geometry that works on 16 x 16 patches: the embedded `tiny-libero`.

Causal, 16x in space, 4x in time, 48 latent channels, a first frame alone and then 4 frames at a time, as `net.WanVae`.
A linear code of every patch (at first the 48 leading principal components of its 768 values) is corrected by a small
network in the encoder, which sees the neighbouring patches, and in the decoder, which sees the latent frame before too.
Everything runs at 1/16 of the resolution: encoding a frame takes about 1 ms on a CPU. The posterior is a point.

Letters in shapes: B batch, T frames of one chunk (1 or 4), h w rows and columns of patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fwdata.encode.vae.net import CHUNK, LATENT_CHANNELS, SPATIAL_STRIDE

PIXELS = 3 * SPATIAL_STRIDE**2
"""Values of a patch of one frame."""
LOG_VARIANCE = -30.0
"""Of the posterior: none, in diffusers' bounds."""


@dataclass(frozen=True)
class PatchConfig:
    """Sizes of one patch VAE."""

    latents_mean: tuple[float, ...]
    """48 values, subtracted from latents."""
    latents_std: tuple[float, ...]
    """48 values that latents are divided by."""
    frame_dim: int = 128
    """Channels that a frame of a chunk is read into and written from."""
    base_dim: int = 192
    """Channels of the encoder's correction."""
    decoder_base_dim: int = 256
    """Channels of the decoder's correction."""
    z_dim: int = LATENT_CHANNELS
    """Latent channels."""


def point(inputs: int, outputs: int) -> nn.Conv2d:
    """A linear map of every patch."""
    return nn.Conv2d(inputs, outputs, 1)


def around(inputs: int, outputs: int) -> nn.Conv2d:
    """A linear map of every patch with its eight neighbours."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class PatchEncoder(nn.Module):
    """One chunk to its latent frame."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        frame, width = config.frame_dim, config.base_dim
        self.code_first, self.code_chunk = point(PIXELS, config.z_dim), point(CHUNK * PIXELS, config.z_dim)
        self.read = point(PIXELS, frame)
        self.join_first, self.join_chunk = point(frame, width), point(CHUNK * frame, width)
        self.mix = around(width, width)
        self.correct = point(width, config.z_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, 768, h, w] to [B, 48, h, w]."""
        batch, frames, _, *grid = x.shape
        code, join = (self.code_first, self.join_first) if frames == 1 else (self.code_chunk, self.join_chunk)
        y = join(F.silu(self.read(x.flatten(0, 1))).view(batch, -1, *grid))
        y = y + self.mix(F.silu(y))
        z: Tensor = code(x.flatten(1, 2)) + self.correct(F.silu(y))
        return z


class PatchDecoder(nn.Module):
    """A latent frame, and the one before it, to the chunk's frames."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        frame, width = config.frame_dim, config.decoder_base_dim
        self.paint_first, self.paint_chunk = point(config.z_dim, PIXELS), point(config.z_dim, CHUNK * PIXELS)
        self.mix = around(2 * config.z_dim, width)
        self.widen, self.narrow = point(width, 2 * width), point(2 * width, width)
        self.part_first, self.part_chunk = point(width, frame), point(width, CHUNK * frame)
        self.write = point(frame, PIXELS)

    def forward(self, z: Tensor, past: Tensor | None) -> Tensor:
        """[B, 48, h, w] to [B, T, 768, h, w]: one frame without a past, 4 with."""
        batch, _, *grid = z.shape
        paint, part = (self.paint_first, self.part_first) if past is None else (self.paint_chunk, self.part_chunk)
        y = self.mix(torch.cat([z, torch.zeros_like(z) if past is None else past], dim=1))
        y = y + self.narrow(F.silu(self.widen(F.silu(y))))
        detail = self.write(F.silu(part(F.silu(y)).view(-1, self.write.in_channels, *grid)))
        x: Tensor = paint(z).view(batch, -1, PIXELS, *grid) + detail.view(batch, -1, PIXELS, *grid)
        return x


class PatchVae(nn.Module):
    """Encoder and, unless `decoder` is False, decoder. Answers to the same calls as `net.WanVae`."""

    def __init__(self, config: PatchConfig, decoder: bool = True) -> None:
        super().__init__()
        self.config = config
        self.encoder = PatchEncoder(config)
        self.decoder = PatchDecoder(config) if decoder else None

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, 1 + 4k, H, W] in -1..1 to the posterior's (mean, log variance), [B, 48, 1 + k, h, w] each."""
        frames = F.pixel_unshuffle(x.transpose(1, 2), SPATIAL_STRIDE)
        chunks = [frames[:, :1], *(frames[:, i : i + CHUNK] for i in range(1, frames.shape[1], CHUNK))]
        mean = torch.stack([self.encoder(chunk) for chunk in chunks], dim=2)
        return mean, torch.full_like(mean, LOG_VARIANCE)

    def decoded(self, mean: Tensor) -> Tensor:
        """Unnormalised latents [B, 48, 1 + k, h, w] to images [B, 3, 1 + 4k, H, W], nominally in -1..1."""
        if self.decoder is None:
            raise ValueError("this VAE was loaded without its decoder")
        latents = mean.unbind(2)
        chunks = [self.decoder(z, latents[i - 1] if i else None) for i, z in enumerate(latents)]
        return F.pixel_shuffle(torch.cat(chunks, dim=1), SPATIAL_STRIDE).transpose(1, 2)
