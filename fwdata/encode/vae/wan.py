"""Images to latents with the Wan2.2 VAE or an embedded small one: `tiny` of the same architecture, `tiny-libero`.

A latent is the posterior mean, normalised per channel: z = (mu - mean) / std in float32, stored as float16. The number
of clips per forward changes bits (up to 2e-6 in float32 with the tiny VAE on a CPU), their order and neighbours do not;
so does the number of CPU threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fwdata.encode.devices import need_device
from fwdata.encode.vae.base import Vae
from fwdata.encode.vae.files import VaeWeights, config_fields, find_weights
from fwdata.encode.vae.net import CHUNK, LATENT_CHANNELS, PATCH, SPATIAL_STRIDE, TEMPORAL_STRIDE, WanVae
from fwdata.encode.vae.patch_net import PatchConfig, PatchVae
from fwdata.errors import FwdataError, UsageError
from fwdata.plugins import VAES

VAE_CODE_VERSION = 1
"""Raised whenever this code's latents can change for the same weights and images; part of a cache's identity."""

type Dtype = Literal["float32", "bfloat16"]
"""What a VAE computes in."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LatentVae(Vae):
    """A loaded VAE. Keeps no state between calls.

    name: "tiny", "tiny-libero", "wan2.2" or "custom"; spec: what `load_vae` was given, enough to load it again; net:
    the network, in inference mode.
    """

    channels = LATENT_CHANNELS
    spatial_stride = SPATIAL_STRIDE
    temporal_stride = TEMPORAL_STRIDE

    def __init__(self, spec: str, weights: VaeWeights, dtype: str, device: str) -> None:
        self.spec, self.name, self.config = spec, weights.name, weights.config
        self.dtype, self.device = dtype, device
        self.weights_sha256 = weights.fingerprint()
        decoder = any(name.startswith("decoder.") for name in weights.tensors)
        self.net = _build(spec, weights, decoder).to(device, DTYPES[dtype]).eval().requires_grad_(False)
        if self.channels_last:
            use_channels_last(self.net)
        shape = (1, LATENT_CHANNELS, 1, 1, 1)
        self._mean = torch.tensor(weights.config.latents_mean, dtype=torch.float32, device=device).view(shape)
        self._std = torch.tensor(weights.config.latents_std, dtype=torch.float32, device=device).view(shape)

    @property
    def ahead(self) -> int:
        """Forwards that may be under way while the next one is prepared."""
        return 2 if self.on_gpu else 0

    @property
    def channels_last(self) -> bool:
        """Whether the convolutions' tensors lie with their channels last: in bfloat16 on a GPU."""
        return self.on_gpu and self.dtype == "bfloat16"

    def identity(self) -> dict[str, object]:
        """JSON values that say which latents this VAE makes: a cache with another identity must not be used.

        A GPU adds its name, and in bfloat16 the layout, which change bits; `distance_to_float32` is recorded beside
        them by whoever measures it.
        """
        found = self._identity()
        if self.on_gpu:
            found["device"] = torch.cuda.get_device_name(self.device)
        if self.channels_last:
            found["memory_format"] = "channels_last_3d"
        return found

    def _identity(self) -> dict[str, object]:
        return {
            "name": self.name,
            "weights": self.weights_sha256,
            "config": {k: v for k, v in config_fields(self.config).items() if not k.startswith("latents_")},
            "compute_dtype": self.dtype,
            "code": VAE_CODE_VERSION,
        }

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Inference on the VAE's device. On CUDA float32 convolutions without TF32, the same algorithm on every call,
        and its GPU as the current one: an event of another GPU passes before this one's latents are there."""
        with torch.inference_mode():
            if not self.on_gpu:
                yield
                return
            flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            with torch.cuda.device(self.device), flags:
                yield

    def submit(self, clips: Sequence[NDArray[np.uint8]]) -> PendingLatents:
        """Begin a forward of n clips of equal shape, uint8 [1 + 4k, H, W, 3] RGB each; a GPU goes on with it.

        H and W must be multiples of 32. Raises UsageError for a clip of another shape or dtype. The bits of a clip's
        latents depend on n: n clips are one forward.
        """
        for clip in clips:
            _check_clip(clip)
        began = time.perf_counter()
        with self._inference():
            frames = torch.from_numpy(np.stack(clips))
            if self.on_gpu:
                frames = frames.pin_memory()
            start = _mark(self.on_gpu)
            x = frames.to(self.device, non_blocking=True).permute(0, 4, 1, 2, 3).to(torch.float32) / 127.5 - 1.0
            mean = self.net.moments(x.to(DTYPES[self.dtype]))[0]
            z = ((mean.float() - self._mean) / self._std).to(torch.float16)
            out = torch.empty(z.shape, dtype=torch.float16, pin_memory=self.on_gpu)
            out.copy_(z, non_blocking=True)
            end = _mark(self.on_gpu)
        return PendingLatents(self.spec, out, start, end, time.perf_counter() - began)

    def encode(self, clip: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Normalised latents of one clip: uint8 [1 + 4k, H, W, 3] RGB to float16 [48, 1 + k, H/16, W/16].

        H and W must be multiples of 32. The first latent frame has the bits of `encode_first(clip[0])`. Raises
        UsageError for a clip of another shape or dtype, FwdataError for a latent that float16 cannot hold.
        Cost of the tiny VAE at 96 x 64 px on one CPU thread: about 35 ms for 9 frames, 6 ms for one.
        """
        latents: NDArray[np.float16] = self.submit([clip]).result()[0]
        return latents

    def encode_first(self, frame: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Latents of one image: uint8 [H, W, 3] to float16 [48, 1, H/16, W/16]."""
        return self.encode(frame[None])

    def decode(self, latents: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Images of normalised latents: float [48, 1 + k, h, w] to uint8 [1 + 4k, 16 h, 16 w, 3] RGB.

        For previews: three to four times the cost of `encode`. Raises UsageError for another shape or if the VAE was
        loaded without its decoder.
        """
        if latents.ndim != 4 or latents.shape[0] != LATENT_CHANNELS:
            raise UsageError(f"expected latents of shape [48, frames, h, w], found {list(latents.shape)}")
        if self.net.decoder is None:
            raise UsageError(f"VAE {self.spec!r} was loaded without its decoder; load it with decoder=True")
        with self._inference():
            z = torch.from_numpy(latents.astype(np.float32)).to(self.device)
            mean = z.unsqueeze(0) * self._std + self._mean
            decoded = self.net.decoded(mean.to(DTYPES[self.dtype]))[0].float()
            pixels = ((decoded.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
            out: NDArray[np.uint8] = pixels.permute(1, 2, 3, 0).contiguous().cpu().numpy()
        return out


@dataclass
class PendingLatents:
    """A forward under way, and what becomes of it."""

    spec: str
    """What loaded the VAE."""
    out: torch.Tensor
    """float16 [n, 48, 1 + k, h, w] in the host's memory, filled when `end` has passed."""
    start: torch.Event | None
    """When a GPU began; None on a CPU."""
    end: torch.Event | None
    """When a GPU is done."""
    seconds: float
    """Seconds of the forward: of the GPU's own clock once `result` has returned, of the caller's on a CPU."""

    def result(self) -> NDArray[np.float16]:
        """float16 [n, 48, 1 + k, h, w]; waits for a GPU. FwdataError for a latent that float16 cannot hold."""
        if self.start is not None and self.end is not None:
            self.end.synchronize()
            self.seconds = self.start.elapsed_time(self.end) / 1e3
        latents: NDArray[np.float16] = self.out.numpy()
        if not np.isfinite(latents).all():
            raise FwdataError(
                f"VAE {self.spec!r} gave latents that float16 cannot hold (its largest number is 65504); "
                "check that the weights belong to this VAE, or encode with --dtype float32"
            )
        return latents


def _mark(on_gpu: bool) -> torch.Event | None:
    """A moment on the current GPU's clock, None on a CPU."""
    if not on_gpu:
        return None
    event = torch.Event("cuda", enable_timing=True)
    event.record()
    return event


PROBE_SHAPE = (9, 96, 64, 3)


def probe_clip() -> NDArray[np.uint8]:
    """uint8 [9, 96, 64, 3]: a moving pattern, the same on every machine, that roundings are measured on."""
    t, y, x = np.meshgrid(*(np.arange(size) for size in PROBE_SHAPE[:3]), indexing="ij")
    waves = [np.sin((x + 3 * t) / 7) + np.cos(y / 5), np.sin((y - 2 * t) / 9), np.cos((x + y + t) / 11)]
    return np.clip(127.5 + 60 * np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def distance_to_float32(vae: Vae) -> float:
    """Relative distance (L2 norms, two digits) of a VAE's latents of `probe_clip` from those of the same weights on the
    same device in float32."""
    exact = load_vae(vae.spec, device=vae.device, dtype="float32").encode(probe_clip()).astype(np.float64)
    found = vae.encode(probe_clip()).astype(np.float64)
    return float(f"{np.linalg.norm(found - exact) / np.linalg.norm(exact):.1e}")


def load_vae(
    spec: str,
    *,
    device: str = "cpu",
    dtype: Dtype = "float32",
    decoder: bool = False,
) -> Vae:
    """Load a VAE by name.

    spec: "tiny" or "tiny-libero" (embedded), "wan2.2" (hub id Wan-AI/Wan2.2-TI2V-5B-Diffusers), a folder in diffusers
    layout (config.json and safetensors, directly or under vae/), the folder of the original release or its file
    Wan2.2_VAE.pth (or the same tensors as safetensors), a hub id of any of these, of which no other file is downloaded,
    or the name of a plugin (`fwdata.encode.vae.base`). decoder: also load what `decode` needs.

    Raises UsageError when the VAE cannot be found or downloaded, or is not of the Wan2.2 kind (48 channels, strides 16
    and 4). The number of CPU threads is the caller's: it changes float32 bits, so fix it (one per process).
    """
    if dtype not in DTYPES:
        raise UsageError(f"VAE dtype must be one of {', '.join(sorted(DTYPES))}, found {dtype!r}")
    if spec in VAES.names():
        made: Vae = VAES.load(spec)(need_device(device), dtype, decoder)
        made.spec = spec
        return made
    return LatentVae(spec, find_weights(spec, decoder), dtype, need_device(device))


@dataclass(frozen=True)
class LatentFormat:
    """What decides the size of a VAE's latents; see `Vae`."""

    channels: int
    """Channels of a latent."""
    spatial_stride: int
    """Pixels of an image per pixel of a latent."""


def latent_format(spec: str) -> LatentFormat:
    """The latents of a VAE that `load_vae` takes. Only a plugin is loaded for it: all others have those of Wan2.2."""
    if spec in VAES.names():
        plugin = load_vae(spec)
        return LatentFormat(plugin.channels, plugin.spatial_stride)
    return LatentFormat(LATENT_CHANNELS, SPATIAL_STRIDE)


def use_channels_last(net: torch.nn.Module) -> None:
    """Lay the weights of the 3-D convolutions out with their channels last; what passes through them follows."""
    for module in net.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)


def _build(spec: str, weights: VaeWeights, decoder: bool) -> WanVae | PatchVae:
    """The network with the checkpoint's tensors; UsageError names the first missing, extra or misshapen one."""
    with torch.device("meta"):
        config = weights.config
        net = PatchVae(config, decoder) if isinstance(config, PatchConfig) else WanVae(config, decoder)
    expected = {name: tuple(p.shape) for name, p in net.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in weights.tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UsageError(
                f"VAE {spec!r}: tensor {name!r}: expected shape {expected.get(name, 'no such tensor')}, "
                f"found {found.get(name, 'no such tensor')}"
            )
    for name, tensor in sorted(weights.tensors.items()):
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise UsageError(
                f"VAE {spec!r}: tensor {name!r} is quantised ({tensor.dtype}); expected bf16, float16 or float32"
            )
        if not (tensor.is_meta or bool(torch.isfinite(tensor).all())):
            raise UsageError(f"VAE {spec!r}: tensor {name!r} holds values that are not finite; download the file again")
    net.load_state_dict(weights.tensors, strict=True, assign=True)
    return net


def _check_clip(clip: NDArray[np.uint8]) -> None:
    """UsageError unless the clip is uint8 [1 + 4k, H, W, 3] with H and W multiples of 32."""
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3:
        raise UsageError(f"expected a uint8 clip [frames, H, W, 3], found {clip.dtype} {list(clip.shape)}")
    frames, height, width, _ = clip.shape
    if frames < 1 or (frames - 1) % CHUNK:
        raise UsageError(f"the VAE takes 1 + 4k frames (1, 5, 9, ..), found {frames}")
    unit = SPATIAL_STRIDE * PATCH
    if height % unit or width % unit or not height or not width:
        raise UsageError(
            f"the image's height and width must be multiples of {unit} (VAE stride 16, model patch 2), "
            f"found {height} x {width}; change stitch.size in the manifest"
        )
