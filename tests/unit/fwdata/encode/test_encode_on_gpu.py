"""Encoding on a GPU: what latents and text promise on a CPU, and how long they take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import toy_store, tree
from gpu_figures import FIGURES, MARKS, ON_GPU, milliseconds
from gpu_figures import device as device

from fwdata.encode.latents import EncodeRequest, encode_latents
from fwdata.encode.vae.net import VaeConfig, WanVae
from fwdata.encode.vae.wan import LatentVae, load_vae, use_channels_last

pytestmark = MARKS

DTYPES = ("float32", "bfloat16")


def clips(count: int, size: tuple[int, int] = (96, 64)) -> list[np.ndarray]:
    """uint8 [9, *size, 3] each, smooth."""
    t, y, x = np.meshgrid(np.arange(9), np.arange(size[0]), np.arange(size[1]), indexing="ij")
    waves = [np.sin((x + 3 * t + 5 * k) / 7) + np.cos(y / (5 + k)) for k in range(count + 2)]
    pixels = [np.clip(127.5 + 60 * wave, 0, 255).astype(np.uint8) for wave in waves]
    return [np.stack(pixels[k : k + 3], axis=-1) for k in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_clips_bits_do_not_depend_on_what_is_under_way(device: torch.device, dtype: str) -> None:
    """Three forwards under way, each waited for on this device; a window's first latent is that of its frame alone."""
    vae, (one, two, three) = load_vae("tiny", device=str(device), dtype=dtype), clips(3)
    alone = [vae.encode(clip) for clip in (one, two, three)]
    begun = [vae.submit([clip]) for clip in (one, two, three)]
    for expected, forward in zip(alone, begun, strict=True):
        assert np.array_equal(forward.result()[0], expected)
    assert np.array_equal(vae.encode_first(one[0])[:, 0], alone[0][:, 0])
    both = vae.submit([one, two]).result()
    assert np.array_equal(vae.submit([two, one]).result()[::-1], both)


def test_float32_is_that_of_a_cpu_and_bfloat16_is_close(device: torch.device) -> None:
    (clip,) = clips(1)
    exact = load_vae("tiny").encode(clip).astype(np.float64)
    for dtype, limit in (("float32", 2e-3), ("bfloat16", 5e-2)):
        found = load_vae("tiny", device=str(device), dtype=dtype).encode(clip)
        distance = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
        FIGURES.append((f"tiny VAE, {dtype}, distance from float32 on a CPU", f"{distance:.1e}"))
        assert distance < limit


def test_a_store_is_encoded_twice_to_the_same_bytes(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("one", "two"):
        store = toy_store(tmp_path / name, monkeypatch, {"a": (40,)})
        request = EncodeRequest(store, "tiny", stride=4, device=str(device))
        encode_latents(replace(request, stride=8) if name == "two" else request, lambda frames: None, lambda *_: None)
        encode_latents(request, lambda frames: None, lambda *_: None)  # of the second: refined
        found.append(tree(next(iter((store / "latents").glob("*/p*")))))
    assert found[0] == found[1]


def test_the_real_width_is_timed(device: torch.device) -> None:
    """Windows of 384x320 by dtype, layout and clips per forward."""
    base, size = (160, (384, 320)) if ON_GPU else (8, (64, 64))
    zeros = (0.0,) * 48
    torch.manual_seed(0)
    net = WanVae(VaeConfig(base, base, zeros, zeros), decoder=False).eval().requires_grad_(False)
    exact: dict[int, torch.Tensor] = {}
    for dtype, last in ((torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)):
        net = net.to(device, dtype)
        if last:
            use_channels_last(net)
        for count in (1, 4):
            frames = torch.from_numpy(np.stack(clips(count, size))).permute(0, 4, 1, 2, 3).to(device)
            x = (frames.float() / 127.5 - 1.0).to(dtype)
            flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            with torch.inference_mode(), flags:
                spent = milliseconds(lambda net=net, x=x: net.moments(x), device) / count
                out = net.moments(x)[0].float()
            exact.setdefault(count, out)
            distance = float((out - exact[count]).norm() / exact[count].norm())
            what = f"VAE at Wan2.2's width, {dtype}, {'channels last, ' if last else ''}{count} per forward"
            FIGURES.append((what, f"{spent:.1f} ms a window, {distance:.1e} from float32"))
            assert distance < 0.05


def test_a_vae_says_which_gpu_made_its_latents(device: torch.device) -> None:
    vae = load_vae("tiny", device=str(device), dtype="bfloat16")
    assert isinstance(vae, LatentVae)
    assert ("device" in vae.identity()) == ON_GPU
    assert vae.channels_last == ON_GPU


def test_umt5_is_timed(device: torch.device) -> None:
    from transformers import UMT5Config, UMT5EncoderModel

    small = {"vocab_size": 512, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    xxl = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    config = UMT5Config(feed_forward_proj="gated-gelu", **(xxl if ON_GPU else small))
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    model = model.to(torch.bfloat16).to_empty(device=device).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    for rows in (32, 128):
        ids = torch.ones(1, rows, dtype=torch.long, device=device)
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=ids).last_hidden_state
            spent = milliseconds(lambda ids=ids: model(input_ids=ids, attention_mask=ids), device)
        assert (
            states.shape == (1, rows, config.d_model)
            and states.device.type == device.type
            and bool(states.isfinite().all())
        )
        FIGURES.append((f"UMT5 {'xxl' if ON_GPU else 'small'}, bfloat16, {rows} rows", f"{spent:.1f} ms a prompt"))
