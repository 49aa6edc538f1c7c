"""The Wan2.2 video VAE as plain torch modules: causal, 16x in space, 4x in time, 48 latent channels.

Parameter names and arithmetic are those of diffusers' `AutoencoderKLWan` (is_residual = True, patch_size = 2), so its
checkpoints load unchanged and the latents have the same bits; the tests hold both side by side. Written out here
because importing diffusers takes several seconds, which every command that touches an image would pay.

Letters in shapes: B batch, C channels, T frames of one chunk, H W rows and columns at that depth.

A clip runs through in chunks: frame 0 alone, then 4 frames at a time (1 latent frame each). Every causal convolution
keeps the last 2 frames it has seen, so a chunk depends on the past alone. Sources: diffusers
models/autoencoders/autoencoder_kl_wan.py; Wan2.2 wan/modules/vae2_2.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 2
LATENT_CHANNELS = 48
SPATIAL_STRIDE = 16
TEMPORAL_STRIDE = 4
CHUNK = TEMPORAL_STRIDE

type Memory = dict[nn.Module, Tensor]
"""Last frames seen by each causal layer of one clip; empty before the first chunk."""


@dataclass(frozen=True)
class VaeConfig:
    """Sizes of one VAE, in the field names of diffusers' config.json."""

    base_dim: int
    """Channels of the encoder at full resolution."""
    decoder_base_dim: int
    """Channels of the decoder at full resolution."""
    latents_mean: tuple[float, ...]
    """48 numbers, subtracted from a latent's channels before they are stored."""
    latents_std: tuple[float, ...]
    """48 numbers, which the difference is divided by."""
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    """Factors of the channels at the 4 levels."""
    num_res_blocks: int = 2
    """Residual blocks per encoder level; the decoder has one more."""
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    """Which of the 3 halvings also halve time (spelt as in diffusers)."""
    z_dim: int = LATENT_CHANNELS
    """Channels of a latent."""


class CausalConv3d(nn.Conv3d):
    """3-D convolution that sees only the past: k-1 frames (zeros before the clip) stand before the chunk."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel)
        self.margin = kernel // 2

    def forward(self, x: Tensor, memory: Memory) -> Tensor:  # type: ignore[override]
        """[B, C, T, H, W] to [B, outputs, T, H, W]."""
        if self.margin == 0:
            return F.conv3d(x, self.weight, self.bias)
        past = memory.get(self)
        if self.training:
            return self._train(x, memory, past)
        x = F.pad(x, (self.margin,) * 4)
        if past is None:
            past = x.new_zeros(x.shape[0], x.shape[1], 2 * self.margin, *x.shape[3:])
        x = torch.cat([past, x], dim=2)
        memory[self] = x[:, :, -2 * self.margin :].clone()  # a view would keep the whole chunk alive
        return frame_by_frame(x, self.weight, self.bias)

    def _train(self, x: Tensor, memory: Memory, past: Tensor | None) -> Tensor:
        """The same sums as one conv2d, frames folded into the batch and taps into channels.

        Several times faster to differentiate on a CPU than conv3d; rounding differs in the last bits. The zeros before
        the clip's first frame are left out.
        """
        b, c, t, h, w = x.shape
        weight = self.weight
        if past is None and t == 1:
            memory[self] = torch.cat([torch.zeros_like(x), x], dim=2)
            weight = weight[:, :, -1:]
        else:
            past = torch.zeros_like(x[:, :, :1]).repeat(1, 1, 2, 1, 1) if past is None else past
            x = torch.cat([past, x], dim=2)
            memory[self] = x[:, :, -2:]
        taps = weight.shape[2]
        folded = torch.cat([x[:, :, k : k + t] for k in range(taps)], dim=1).transpose(1, 2).reshape(b * t, -1, h, w)
        kernel = weight.transpose(1, 2).reshape(self.out_channels, taps * c, *weight.shape[3:])
        y = F.conv2d(folded, kernel, self.bias, padding=self.margin)
        return y.view(b, t, self.out_channels, h, w).transpose(1, 2)


def frame_by_frame(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """Unpadded conv3d of a chunk, computed one output frame at a time on one CPU thread.

    There torch lowers conv3d to one matrix product over all frames whose unfolded input (27 C values a pixel) does
    not fit the cache; a frame at a time gives the same bits in 0.6 of the time. Elsewhere one call.
    """
    taps, frames = weight.shape[2], x.shape[2]
    count = (frames - taps) // stride + 1
    if count == 1 or x.device.type != "cpu" or torch.get_num_threads() > 1 or x.requires_grad:
        return F.conv3d(x, weight, bias, (stride, 1, 1))
    parts = [F.conv3d(x[:, :, i * stride : i * stride + taps], weight, bias) for i in range(count)]
    return torch.cat(parts, dim=2)


class TimeConv(nn.Conv3d):
    """Three-tap convolution along time; its owner passes the past."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, (3, 1, 1), stride=(stride, 1, 1))


class RMSNorm(nn.Module):
    """Root-mean-square norm over channels, statistics in float32; weight `gamma` [C, 1, ..]."""

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * axes))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype as x."""
        if self.training:  # faster to differentiate on a CPU, equal but for rounding
            unit = x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-12)
        else:
            unit = F.normalize(x.float(), dim=1).to(x.dtype)
        scaled: Tensor = unit * self.scale * self.gamma
        return scaled


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, twice; a 1x1x1 convolution on the shortcut where widths differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(inputs, 3)
        self.conv1 = CausalConv3d(inputs, outputs, 3)
        self.norm2 = RMSNorm(outputs, 3)
        self.conv2 = CausalConv3d(outputs, outputs, 3)
        self.conv_shortcut = CausalConv3d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """[B, C, T, H, W] to [B, outputs, T, H, W]."""
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x, memory)
        x = self.conv1(F.silu(self.norm1(x)), memory)
        y: Tensor = self.conv2(F.silu(self.norm2(x)), memory)
        return y + shortcut


class FrameAttention(nn.Module):
    """Single-head self-attention among the positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] to the same."""
        b, c, t, h, w = x.shape
        flat = self.norm(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
        qkv = self.to_qkv(flat).reshape(b * t, 1, c * 3, h * w).permute(0, 1, 3, 2).contiguous()
        q, k, v = qkv.chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1).permute(0, 2, 1).reshape(b * t, c, h, w)
        y = self.proj(y).view(b, t, c, h, w).permute(0, 2, 1, 3, 4)
        out: Tensor = y + x
        return out


class MidBlock(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([FrameAttention(channels)])
        self.resnets = nn.ModuleList([ResidualBlock(channels, channels) for _ in range(2)])

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """[B, C, T, H, W] to the same."""
        x = self.attentions[0](self.resnets[0](x, memory))
        y: Tensor = self.resnets[1](x, memory)
        return y


def average_down(x: Tensor, channels: int, time: int, space: int) -> Tensor:
    """Shortcut of a halving: blocks of time x space x space values become channels, which are averaged in groups."""
    x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    b, c, t, h, w = x.shape
    x = x.view(b, c, t // time, time, h // space, space, w // space, space)
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6).contiguous()
    return x.view(b, channels, -1, t // time, h // space, w // space).mean(dim=2)


def repeat_up(x: Tensor, channels: int, time: int, first: bool) -> Tensor:
    """Shortcut of a doubling, the counterpart of `average_down`; the first chunk keeps only its last frame."""
    b, c, t, h, w = x.shape
    x = x.repeat_interleave(channels * time * 4 // c, dim=1).view(b, channels, time, 2, 2, t, h, w)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).contiguous().view(b, channels, t * time, h * 2, w * 2)
    return x[:, :, time - 1 :] if first else x


def each_frame(layer: nn.Module, x: Tensor) -> Tensor:
    """A 2-D layer applied to every frame of [B, C, T, H, W]."""
    b, c, t, h, w = x.shape
    y: Tensor = layer(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
    return y.view(b, t, *y.shape[1:]).permute(0, 2, 1, 3, 4)


class Downsampler(nn.Module):
    """Halves space, and time as well when `time`; the first frame of a clip stays one frame."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = TimeConv(channels, channels, stride=2) if time else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """[B, C, T, H, W] to [B, C, T or T/2, H/2, W/2]."""
        x = each_frame(self.resample, x)
        if self.time_conv is None:
            return x
        past = memory.get(self)
        memory[self] = x[:, :, -1:]
        if past is None:
            return x
        y: Tensor = self.time_conv(torch.cat([past, x], dim=2))
        return y


class DownBlock(nn.Module):
    """Residual blocks and a halving (none at the last level), around an averaging shortcut."""

    def __init__(self, inputs: int, outputs: int, blocks: int, halve: bool, time: bool) -> None:
        super().__init__()
        self.outputs, self.space, self.time = outputs, 2 if halve else 1, 2 if time else 1
        widths = [inputs] + [outputs] * blocks
        self.resnets = nn.ModuleList([ResidualBlock(a, b) for a, b in pairwise(widths)])
        self.downsampler = Downsampler(outputs, time) if halve else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """[B, C, T, H, W] to [B, outputs, T or T/2, H/2, W/2]."""
        shortcut = average_down(x, self.outputs, self.time, self.space)
        for block in self.resnets:
            x = block(x, memory)
        if self.downsampler is not None:
            x = self.downsampler(x, memory)
        return x + shortcut


class Encoder(nn.Module):
    """One chunk of patchified frames to 96 channels of moments per latent frame."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.base_dim * m for m in (1, *config.dim_mult)]
        times = (*config.temperal_downsample, False)
        last = len(config.dim_mult) - 1
        self.conv_in = CausalConv3d(3 * PATCH**2, widths[0], 3)
        self.down_blocks = nn.ModuleList(
            DownBlock(widths[i], widths[i + 1], config.num_res_blocks, i < last, times[i]) for i in range(last + 1)
        )
        self.mid_block = MidBlock(widths[-1])
        self.norm_out = RMSNorm(widths[-1], 3)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.z_dim, 3)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """[B, 12, 1 or 4, H, W] to [B, 96, 1, H/8, W/8]."""
        x = self.conv_in(x, memory)
        for block in self.down_blocks:
            x = block(x, memory)
        x = F.silu(self.norm_out(self.mid_block(x, memory)))
        y: Tensor = self.conv_out(x, memory)
        return y


class Upsampler(nn.Module):
    """Doubles space, and time as well when `time`; the first frame of a clip stays one frame."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        scale = nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact")
        self.resample = nn.Sequential(scale, nn.Conv2d(channels, channels, 3, padding=1))
        self.time_conv = TimeConv(channels, channels * 2, stride=1) if time else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """[B, C, T, H, W] to [B, C, T or 2T, 2H, 2W]."""
        if self.time_conv is not None:
            past = memory.get(self)
            if past is None:
                memory[self] = torch.zeros_like(x[:, :, -1:]).repeat(1, 1, 2, 1, 1)
            else:
                b, c, t, h, w = x.shape
                seen = torch.cat([past, x], dim=2)
                memory[self] = seen[:, :, -2:]
                x = self.time_conv(seen).reshape(b, 2, c, t, h, w)
                x = torch.stack((x[:, 0], x[:, 1]), 3).reshape(b, c, t * 2, h, w)
        return each_frame(self.resample, x)


class UpBlock(nn.Module):
    """Residual blocks and a doubling (none at the last level), around a repeating shortcut where it doubles."""

    def __init__(self, inputs: int, outputs: int, blocks: int, double: bool, time: bool) -> None:
        super().__init__()
        self.outputs, self.time = outputs, 2 if time else 1
        widths = [inputs] + [outputs] * (blocks + 1)
        self.resnets = nn.ModuleList([ResidualBlock(a, b) for a, b in pairwise(widths)])
        self.upsampler = Upsampler(outputs, time) if double else None

    def forward(self, x: Tensor, memory: Memory, first: bool) -> Tensor:
        """[B, C, T, H, W] to [B, outputs, T or 2T, 2H, 2W]."""
        source = x
        for block in self.resnets:
            x = block(x, memory)
        if self.upsampler is None:
            return x
        y: Tensor = self.upsampler(x, memory)
        return y + repeat_up(source, self.outputs, self.time, first)


class Decoder(nn.Module):
    """One latent frame to a chunk of patchified frames: 1 for the first, 4 for each later one."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        mult = config.dim_mult[::-1]
        widths = [config.decoder_base_dim * m for m in (mult[0], *mult)]
        times = (*config.temperal_downsample[::-1], False)
        last = len(mult) - 1
        self.conv_in = CausalConv3d(config.z_dim, widths[0], 3)
        self.mid_block = MidBlock(widths[0])
        self.up_blocks = nn.ModuleList(
            UpBlock(widths[i], widths[i + 1], config.num_res_blocks, i < last, times[i]) for i in range(last + 1)
        )
        self.norm_out = RMSNorm(widths[-1], 3)
        self.conv_out = CausalConv3d(widths[-1], 3 * PATCH**2, 3)

    def forward(self, x: Tensor, memory: Memory, first: bool) -> Tensor:
        """[B, 48, 1, h, w] to [B, 12, 1 or 4, 8h, 8w]."""
        x = self.mid_block(self.conv_in(x, memory), memory)
        for block in self.up_blocks:
            x = block(x, memory, first)
        y: Tensor = self.conv_out(F.silu(self.norm_out(x)), memory)
        return y


def patchify(x: Tensor) -> Tensor:
    """[B, 3, T, H, W] to [B, 12, T, H/2, W/2]."""
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t, h // PATCH, PATCH, w // PATCH, PATCH).permute(0, 1, 6, 4, 2, 3, 5)
    return x.reshape(b, c * PATCH**2, t, h // PATCH, w // PATCH)


def unpatchify(x: Tensor) -> Tensor:
    """[B, 12, T, H/2, W/2] to [B, 3, T, H, W]."""
    b, c, t, h, w = x.shape
    x = x.reshape(b, c // PATCH**2, PATCH, PATCH, t, h, w).permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(b, c // PATCH**2, t, h * PATCH, w * PATCH)


class WanVae(nn.Module):
    """Encoder and, unless `decoder` is False, decoder. Weights are torch's default until a checkpoint is loaded."""

    def __init__(self, config: VaeConfig, decoder: bool = True) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, 1)
        self.post_quant_conv = CausalConv3d(config.z_dim, config.z_dim, 1) if decoder else None
        self.decoder = Decoder(config) if decoder else None

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, 1 + 4k, H, W] in -1..1 to the posterior's (mean, log variance), [B, 48, 1 + k, h, w] each."""
        memory: Memory = {}
        x = patchify(x)
        chunks = [x[:, :, :1], *(x[:, :, i : i + CHUNK] for i in range(1, x.shape[2], CHUNK))]
        out = torch.cat([self.encoder(chunk, memory) for chunk in chunks], dim=2)
        mean, log_variance = self.quant_conv(out, memory).chunk(2, dim=1)
        return mean, log_variance

    def decoded(self, mean: Tensor) -> Tensor:
        """Unnormalised latents [B, 48, 1 + k, h, w] to images [B, 3, 1 + 4k, H, W], nominally in -1..1."""
        if self.decoder is None or self.post_quant_conv is None:
            raise ValueError("this VAE was loaded without its decoder")
        memory: Memory = {}
        x = self.post_quant_conv(mean, memory)
        out = [self.decoder(x[:, :, i : i + 1], memory, i == 0) for i in range(x.shape[2])]
        return unpatchify(torch.cat(out, dim=2))
