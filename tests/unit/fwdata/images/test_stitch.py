"""Stitching: the official goldens, torchvision's float result, layout and colour."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from fixtures import (
    ROBOTWIN,
    robotwin_store,
)
from numpy.typing import NDArray
from PIL import Image
from robotwin_files import encode
from torch.nn.functional import interpolate

import fwdata
from fwdata.errors import ManifestError, UsageError
from fwdata.images.jpeg import decode_rgb
from fwdata.images.stitch import resize_weights, stitch, stitch_hash, tiles
from fwdata.manifest import StitchSpec, load_manifest, validate_model

GOLDEN = ROBOTWIN / "stitch_golden"
ITEMS = json.loads((GOLDEN / "golden.json").read_text())["items"]
SIZES = ((240, 320), (480, 640), (180, 320))


def spec_of(layout: str, camera_size: tuple[int, int], size: tuple[int, int], cameras: int = 3) -> StitchSpec:
    names = tuple(f"c{i}" for i in range(cameras))
    return StitchSpec(layout=layout, cameras=names, camera_size=camera_size, size=size)  # type: ignore[arg-type]


def official(frames: list[NDArray[Any]], spec: StitchSpec) -> NDArray[Any]:
    """float32 [n, H, W, 3] in grey levels, unrounded: the official loader's steps on floats."""
    h, w = spec.camera_size

    small = [resize(torch.from_numpy(f).permute(0, 3, 1, 2).float() / 255, (h, w)) for f in frames]
    if spec.layout == "robotwin":
        height, width = spec.size
        head = resize(small[0], (height * 2 // 3, width))
        wrists = [resize(s, (height // 3, width // 2)) for s in small[1:]]
        joined = torch.cat([head, torch.cat(wrists, -1)], -2)
    else:
        joined = torch.cat(small, -1 if spec.layout == "horizontal" else -2)
    return joined.permute(0, 2, 3, 1).numpy() * 255


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """What torchvision's `Resize(antialias=True)` calls; see the test marked slow."""
    return interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def patterns(height: int, width: int, seed: int) -> NDArray[Any]:
    """uint8 [2, height, width, 3]: rectangles with 1-pixel lines, and white noise."""
    rng = np.random.default_rng(seed)
    sharp = np.zeros((height, width, 3), np.uint8)
    for _ in range(25):
        top, left = rng.integers(height), rng.integers(width)
        sharp[top : top + rng.integers(1, height // 3), left : left + rng.integers(1, width // 3)] = rng.integers(256)
    sharp[:: int(rng.integers(5, 9))] = 255
    sharp[:, :: int(rng.integers(5, 9))] = (255, 0, 0)
    return np.stack([sharp, rng.integers(0, 256, (height, width, 3), np.uint8)])


@pytest.mark.parametrize("name", sorted(ITEMS))
def test_golden_pictures_match_at_every_pixel(name: str) -> None:
    item = ITEMS[name]
    spec = StitchSpec(
        layout=item["layout"],
        cameras=tuple(item["cameras"]),
        camera_size=tuple(item["camera_resize_hw"]),
        size=tuple(item["video_size_hw"]),
    )
    with h5py.File(ROBOTWIN / item["source"]) as file:
        buffers = {c: bytes(file[f"observation/{c}/rgb"][item["frame"]]) for c in spec.cameras}
    found = stitch({c: decode_rgb(b, True)[None] for c, b in buffers.items()}, spec)[0]
    golden = np.asarray(Image.open(GOLDEN / name).convert("RGB"))
    assert found.shape == golden.shape == (*spec.size, 3)
    assert int(np.abs(found.astype(int) - golden.astype(int)).max()) <= 1
    for check in item["float_checks"]:
        value = found[check["y"], check["x"]] / 127.5 - 1
        assert np.allclose(value, check["chw_value"], atol=1 / 127.5 * 0.51)


@pytest.mark.parametrize("source", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    "spec",
    [
        spec_of("robotwin", (240, 320), (384, 320)),
        spec_of("horizontal", (112, 112), (112, 336)),
        spec_of("vertical", (96, 128), (192, 128), cameras=2),
    ],
    ids=lambda s: s.layout,
)
def test_every_pixel_is_the_official_float_rounded_once(source: tuple[int, int], spec: StitchSpec) -> None:
    frames = [patterns(*source, seed) for seed in range(len(spec.cameras))]
    found = stitch(dict(zip(spec.cameras, frames, strict=True)), spec)
    assert float(np.abs(found - official(frames, spec)).max()) <= 0.51


@pytest.mark.parametrize(
    "sizes", [((24, 32), (12, 16)), ((32, 32), (28, 28)), ((15, 20), (12, 16)), ((9, 7), (18, 21))]
)
def test_halves_go_up_on_every_processor(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """The same in exact fractions: no sum is rounded, so no order of adding matters."""
    (h, w), camera_size = sizes
    frames = np.random.default_rng(3).integers(0, 256, (1, h, w, 3), np.uint8)
    rows, columns = (fractions(n, m) for n, m in zip((h, w), camera_size, strict=True))
    lines = np.tensordot(rows, frames[0].astype(object), 1)
    exact = np.tensordot(lines, columns, (1, 1)).swapaxes(1, 2)
    found = stitch({"c0": frames}, spec_of("horizontal", camera_size, camera_size, cameras=1))[0]
    assert np.array_equal(found, np.floor(exact + Fraction(1, 2)).astype(int))


def fractions(n: int, m: int) -> np.ndarray:
    """Fractions [m, n]: the weights of `resize_weights`, not rounded."""
    scale = Fraction(n, m)
    support = max(scale, Fraction(1))
    taps = np.array(
        [
            [max(0, 1 - abs(j - scale * (i + Fraction(1, 2)) + Fraction(1, 2)) / support) for j in range(n)]
            for i in range(m)
        ]
    )
    return taps / taps.sum(1)[:, None]


def test_weights_are_torchvisions_filter() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((640, 320), (320, 224), (180, 240), (240, 256), (7, 5), (5, 7), (3, 1), (1, 4)):
        signal = rng.random(n, dtype=np.float32)
        expected = resize(torch.from_numpy(signal)[None, None, None], (1, m))[0, 0, 0].numpy()
        weights = resize_weights(n, m)
        assert np.allclose(weights.sum(1), 1) and weights.min() >= 0
        assert float(np.abs(weights @ signal - expected).max()) < 1e-4


@pytest.mark.slow
def test_the_reference_is_torchvisions_resize() -> None:
    from torchvision.transforms.v2 import functional as tv

    picture = torch.from_numpy(patterns(480, 640, 0)).permute(0, 3, 1, 2).float() / 255
    for size in ((240, 320), (224, 224), (480, 700)):
        assert torch.equal(tv.resize(picture, list(size), antialias=True), resize(picture, size))


def test_constant_cameras_give_exact_tiles() -> None:
    spec = load_manifest("robotwin").stitch
    colours = [(200, 10, 30), (5, 255, 0), (0, 128, 255)]
    frames = {c: np.full((1, 240, 320, 3), colour, np.uint8) for c, colour in zip(spec.cameras, colours, strict=True)}
    (found,) = stitch(frames, spec)
    assert found.shape == (384, 320, 3)
    assert (found[:256] == colours[0]).all()
    assert (found[256:, :160] == colours[1]).all()
    assert (found[256:, 160:] == colours[2]).all()
    assert tiles(spec) == [(0, 0, 256, 320), (256, 0, 128, 160), (256, 160, 128, 160)]


def test_horizontal_and_vertical_keep_camera_order() -> None:
    frames = {f"c{i}": np.full((1, 8, 8, 3), 50 * i + 20, np.uint8) for i in range(3)}
    across = stitch(frames, spec_of("horizontal", (4, 6), (4, 18)))[0]
    down = stitch(frames, spec_of("vertical", (4, 6), (12, 6)))[0]
    assert across[0, ::6, 0].tolist() == down[::4, 0, 0].tolist() == [20, 70, 120]


@pytest.mark.parametrize("marked", [False, True])
def test_red_stays_red(marked: bool) -> None:
    red = np.full((48, 64, 3), (220, 20, 20), np.uint8)
    decoded = decode_rgb(encode(red, marked), not marked)[None]
    spec = spec_of("robotwin", (48, 64), (96, 64))
    found = stitch(dict.fromkeys(spec.cameras, decoded), spec)[0].astype(int)
    assert found[..., 0].min() > 200 and found[..., 1:].max() < 45


def test_batching_changes_no_pixel() -> None:
    spec = spec_of("robotwin", (240, 320), (384, 320))
    frames = {c: np.concatenate([patterns(180, 320, s + i) for s in range(2)]) for i, c in enumerate(spec.cameras)}
    together = stitch(frames, spec)
    for t in range(4):
        alone = stitch({c: f[t : t + 1] for c, f in frames.items()}, spec)[0]
        assert np.array_equal(alone, together[t])
    assert stitch({c: f[:0] for c, f in frames.items()}, spec).shape == (0, 384, 320, 3)


def test_cameras_may_differ_in_size() -> None:
    spec = spec_of("horizontal", (32, 32), (32, 64), cameras=2)
    found = stitch({"c0": patterns(32, 32, 0), "c1": patterns(64, 48, 1)}, spec)
    assert np.array_equal(found[:, :, :32], patterns(32, 32, 0))
    assert float(np.abs(found - official([patterns(32, 32, 0), patterns(64, 48, 1)], spec)).max()) <= 0.51


def test_wrong_frames_are_refused() -> None:
    spec = spec_of("horizontal", (8, 8), (8, 16), cameras=2)
    good = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match=r"\['c1'\] are missing"):
        stitch({"c0": good}, spec)
    with pytest.raises(UsageError, match="equal frame counts"):
        stitch({"c0": good, "c1": good[:1]}, spec)
    with pytest.raises(UsageError, match="'c1' must be uint8"):
        stitch({"c0": good, "c1": good.astype(np.float32)}, spec)


@pytest.mark.parametrize(
    ("layout", "cameras", "size", "words"),
    [
        ("horizontal", 2, [224, 224], ["(224, 448)", "(224, 224)"]),
        ("vertical", 2, [224, 448], ["(448, 224)", "(224, 448)"]),
        ("robotwin", 2, [384, 320], ["exactly 3 cameras", "found 2"]),
        ("robotwin", 3, [385, 320], ["divisible by 3", "(385, 320)"]),
        ("horizontal", 2, [0, 0], ["at least 1"]),
    ],
)
def test_size_mismatch_names_both_sizes(layout: str, cameras: int, size: list[int], words: list[str]) -> None:
    data = {"layout": layout, "cameras": ["a", "b", "c"][:cameras], "camera_size": [224, 224], "size": size}
    with pytest.raises(ManifestError) as caught:
        validate_model(StitchSpec, data, "stitch")
    assert all(word in str(caught.value) for word in words)


def test_hash_changes_with_every_choice() -> None:
    base = load_manifest("robotwin").stitch
    changes: list[dict[str, object]] = [
        {"cameras": base.cameras[::-1]},
        {"camera_size": (120, 160)},
        {"size": (192, 160)},
        {"layout": "vertical"},
    ]
    hashes = {stitch_hash(base), *(stitch_hash(base.model_copy(update=change)) for change in changes)}
    assert len(hashes) == 5


def test_stored_pictures_are_the_stitched_cameras(tmp_path: Path) -> None:
    store = fwdata.open(robotwin_store(tmp_path, episodes=1))
    episode, spec = store.episodes[0], store.manifest.stitch
    expected = stitch({c: episode.frames(c) for c in spec.cameras}, spec)
    assert np.array_equal(episode.stitched(), expected)
    assert np.array_equal(episode.stitched([4, 0, 4]), expected[[4, 0, 4]])
