"""Latent caches: which frames a latent has seen, resuming, and refusing what does not match."""

from __future__ import annotations

import pickle
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import (
    FakeVae,
    run_convert,
    stamps,
    toy_manifest,
    toy_store,
    tree,
    write_toy,
)
from paths import SUPPORT
from typer.testing import CliRunner

import fwdata
from fwdata.cli import app
from fwdata.encode.estimate import at_hand
from fwdata.encode.latents import EncodeReport, EncodeRequest, encode_latents, latent_shape, plan_latents
from fwdata.encode.vae.wan import LatentFormat, latent_format
from fwdata.errors import StaleCache, StoreDamaged, StoreError, UsageError
from fwdata.store.verify import verify_store
from fwdata.window import Window

torch.set_num_threads(1)
TASKS = {"a": [13, 3], "b": [11]}
FRAMES = 27


def encode(path: Path, **options: object) -> EncodeReport:
    """Encode without a progress display."""
    request = EncodeRequest(path, "fake", **options)  # type: ignore[arg-type]
    return encode_latents(request, lambda frames: None, lambda first, windows, seconds: None)


@pytest.fixture
def vae(monkeypatch: pytest.MonkeyPatch) -> FakeVae:
    found = FakeVae()
    monkeypatch.setattr("fwdata.encode.latents.load_vae", lambda spec, device, dtype: found)
    return found


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return toy_store(tmp_path, monkeypatch, TASKS)


def test_a_size_that_does_not_suit_a_vae_is_refused_with_the_view_that_does(path: Path) -> None:
    moved = path.rename(path.with_name("my store.zarr"))
    coarse = LatentFormat(3, 32)
    with pytest.raises(UsageError, match="must be a multiple of 64") as refused:
        latent_shape(fwdata.open(moved), coarse)
    words = shlex.split(re.search("`fwdata (.*)`", str(refused.value))[1])
    assert words[1] == str(moved)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    height, width = fwdata.open(moved).manifest.stitch.size
    assert latent_shape(fwdata.open(moved), coarse) == (3, height // 32, width // 32)


@pytest.mark.parametrize("stride", [1, 4])
def test_latents_are_those_of_each_window_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vae: FakeVae, stride: int
) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [40, 3], "b": [35]})
    report = encode(path, stride=stride)
    store = fwdata.open(path)
    cache = store.latents()
    assert cache.stride == stride and cache.window == Window() and cache.shape == (3, 2, 4)
    starts = {0: range(0, 40, stride), 1: range(0, 3, stride), 2: range(0, 35, stride)}
    for episode in store.episodes:
        assert cache.starts(episode).tolist() == list(starts[episode.index])
        pictures = episode.stitched()
        first = cache.first(episode, np.arange(episode.num_frames))
        assert first.dtype == np.float16 and first.shape == (episode.num_frames, 3, 2, 4)
        future = cache.future(episode, cache.starts(episode))
        assert future.dtype == np.float16 and future.shape == (len(cache.starts(episode)), 3, 2, 2, 4)
        for frame in range(episode.num_frames):
            assert np.array_equal(first[frame], FakeVae().encode(pictures[[frame]])[:, 0])
        for row, start in enumerate(cache.starts(episode)):
            clip = pictures[np.minimum(start + np.arange(0, 33, 4), episode.num_frames - 1)]
            latents = FakeVae().encode(clip)
            assert np.array_equal(future[row], latents[:, 1:])
            assert np.array_equal(first[start], latents[:, 0])
    windows = sum(len(r) for r in starts.values())
    assert (report.first, report.windows, vae.calls) == (78, windows, 78)
    assert (cache.num_frames, cache.num_windows, cache.complete) == (78, windows, True)


def test_tiny_vae_latents_have_the_bits_of_direct_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fwdata.encode.vae.wan import load_vae

    path = toy_store(tmp_path, monkeypatch, {"a": [6]})
    encode_latents(EncodeRequest(path, "tiny", stride=4), lambda frames: None, lambda *values: None)
    store, tiny = fwdata.open(path), load_vae("tiny")
    (episode,), cache = store.episodes, store.latents()
    pictures = episode.stitched()
    first = cache.first(episode, [0, 3, 5])
    assert first.shape == (3, 48, 2, 4) and np.isfinite(first).all()
    assert all(np.array_equal(f, tiny.encode_first(pictures[t])[:, 0]) for f, t in zip(first, (0, 3, 5), strict=True))
    window = tiny.encode(pictures[[4, 5, 5, 5, 5, 5, 5, 5, 5]])
    assert np.array_equal(cache.future(episode, [4])[0], window[:, 1:])
    assert np.array_equal(cache.first(episode, [4])[0], window[:, 0])
    assert cache.vae == "tiny" and cache.identity["vae"]["weights"]


def test_rows_that_do_not_exist_are_refused(path: Path, vae: FakeVae) -> None:
    encode(path, stride=4)
    store = fwdata.open(path)
    cache, episode = store.latents(), store.episodes[1]
    for frame in (3, -1):
        with pytest.raises(IndexError, match=r"frames 0\.\.2"):
            cache.first(episode, [0, frame])
    for read in (cache.first, cache.future):
        with pytest.raises(IndexError, match=r"by whole numbers, found bool; give np\.flatnonzero\(mask\)"):
            read(episode, episode.valid())
    for start in (1, 4, -4):
        with pytest.raises(StoreError, match=rf"no future latents at frame {start}: .* 0, 4, \.\. below 3"):
            cache.future(episode, [0, start])
    assert cache.first(episode, []).shape == (0, 3, 2, 4) and cache.future(episode, []).shape == (0, 3, 2, 2, 4)


def test_rerun_writes_nothing(path: Path, vae: FakeVae) -> None:
    encode(path)
    before = stamps(path)
    report = encode(path)
    assert (report.first, report.windows) == (0, 0)
    assert stamps(path) == before and verify_store(path).damaged == []


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("fwdata.store.layout.LATENT_SHARD", 4)
    monkeypatch.setattr("fwdata.store.layout.LATENT_SHARD", 4)
    return 4


@pytest.mark.parametrize(("stride", "kill_at"), [(1, 0), (1, 4), (1, 11), (1, 16), (1, 25), (3, 13)])
def test_a_killed_run_continues_at_the_next_shard(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: Path,
    vae: FakeVae,
    small_shards: int,
    stride: int,
    kill_at: int,
) -> None:
    other = toy_store(tmp_path / "other", monkeypatch, TASKS)
    encode(other, stride=stride)
    vae.calls, vae.fail_after = 0, kill_at
    with pytest.raises(KeyboardInterrupt):
        encode(path, stride=stride)
    cache = fwdata.open(path).latents()
    assert not cache.complete
    if kill_at < 16:
        with pytest.raises(
            StoreError, match=r"lacks p00000 \(a\); complete it with `.* --name default --vae fake --stride \d+`"
        ):
            cache.first(fwdata.open(path).episodes[0], [0])
    # a run killed in the middle of a write leaves a folder and a temporary file where the shard would be
    torn = next(path.glob("latents/*/p0000*/first"), None)
    if torn is not None and kill_at == 11:
        shard = torn / "c" / "2" / "0" / "0"
        shard.mkdir(parents=True)
        (shard / ".0.tmp").write_bytes(b"torn")
    vae.calls, vae.fail_after = 0, None
    encode(path, stride=stride)
    assert vae.calls <= FRAMES - kill_at + small_shards * stride
    assert tree(path) == tree(other)
    assert verify_store(path).damaged == []


@pytest.mark.parametrize(
    ("make", "options", "difference"),
    [
        (lambda: FakeVae(width=16), {}, "vae.config.width is 8, asked for 16"),
        (lambda: FakeVae("other", width=8), {}, "vae.name is fake, asked for other"),
        (lambda: FakeVae(width=8), {"stride": 2}, "stride is 1, asked for 2"),
    ],
)
def test_another_identity_is_refused_with_the_difference(
    path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], FakeVae], options: dict[str, int], difference: str
) -> None:
    monkeypatch.setattr("fwdata.encode.latents.load_vae", lambda spec, device, dtype: FakeVae(width=8))
    encode(path)
    before = stamps(path)
    monkeypatch.setattr("fwdata.encode.latents.load_vae", lambda spec, device, dtype: make())
    with pytest.raises(StaleCache) as caught:
        encode(path, **options)
    assert difference in str(caught.value) and "--replace" in str(caught.value) and caught.value.exit_code == 4
    assert stamps(path) == before
    encode(path, name="second", **options)
    with pytest.raises(StoreError, match="no latent cache 'secnd'; did you mean 'second'"):
        fwdata.open(path).latents("secnd")
    assert fwdata.open(path).latents().name == "default" and fwdata.open(path).latents("second").complete
    encode(path, replace=True, **options)
    assert len(list((path / "latents").glob("default-*"))) == 1
    assert fwdata.open(path).latents().complete


def test_changed_stitching_and_window_are_named(path: Path, vae: FakeVae, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(path)
    monkeypatch.setattr("fwdata.images.stitch.STITCH_CODE_VERSION", 99)
    with pytest.raises(StaleCache, match=r"stitch\.code is 1, asked for 99"):
        encode(path)


def test_several_caches_need_a_name(path: Path, vae: FakeVae) -> None:
    encode(path, name="one")
    assert fwdata.open(path).latents().name == "one"
    encode(path, name="two", stride=2)
    with pytest.raises(StoreError, match=r"caches \['one', 'two'\]; name the one"):
        fwdata.open(path).latents()
    for name in ("../x", "a/b", "", ".hidden"):
        with pytest.raises(UsageError, match="--name"):
            encode(path, name=name)


def test_new_episodes_are_added_and_old_latents_kept(
    tmp_path: Path, path: Path, vae: FakeVae, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(path)
    before = {k: v for k, v in tree(path).items() if k.startswith("latents/")}
    write_toy(tmp_path / "raw", {"z": [5]})
    run_convert(tmp_path / "raw", path, toy_manifest(monkeypatch))
    assert not fwdata.open(path).latents().complete
    vae.calls = 0
    encode(path)
    assert vae.calls == 5 and before.items() <= tree(path).items()


def test_latents_of_changed_episodes_are_stale(path: Path, vae: FakeVae) -> None:
    from raw_metadata import read_attributes, write_attributes

    encode(path)
    attributes = read_attributes(path / "parts" / "p00000")
    attributes["episodes"][0]["task"] = "other"
    write_attributes(path / "parts" / "p00000", attributes)
    store = fwdata.open(path)
    assert not store.latents().complete
    with pytest.raises(StaleCache, match="other episodes"):
        store.latents().first(store.episodes[0], [0])
    vae.calls = 0
    encode(path)
    assert vae.calls == 16 and fwdata.open(path).latents().complete


def test_unfinished_and_absent_stores_are_refused(tmp_path: Path, path: Path, vae: FakeVae) -> None:
    (path / "parts" / "p00001" / "zarr.json").unlink()
    with pytest.raises(UsageError, match="not wholly converted yet"):
        encode(path)
    with pytest.raises(StoreError, match="there is no store"):
        encode(tmp_path / "none.zarr")
    with pytest.raises(UsageError, match="is a URL"):
        encode(Path("s3://bucket/x.zarr"))
    assert not (path / "latents").exists()


def test_an_unknown_dtype_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="--dtype must be auto, float32 or bfloat16, found 'float8'"):
        encode(path, dtype="float8")


def test_damaged_latents_are_noticed(path: Path, vae: FakeVae) -> None:
    encode(path)
    for shard in path.glob("latents/*/p00000/*/c/**/0"):
        if shard.is_file():
            data = bytearray(shard.read_bytes())
            data[5] ^= 4
            shard.write_bytes(data)
    store = fwdata.open(path)
    with pytest.raises(StoreDamaged, match="checksum"):
        store.latents().first(store.episodes[0], np.arange(13))
    with pytest.raises(StoreDamaged, match="checksum"):
        store.latents().future(store.episodes[0], np.arange(13))
    assert len(verify_store(path).damaged) == 3
    assert store.latents().first(store.episodes[2], [0]).shape == (1, 3, 2, 4)


def test_caches_pickle(path: Path, vae: FakeVae) -> None:
    encode(path)
    store = fwdata.open(path)
    copy = pickle.loads(pickle.dumps(store.latents()))  # noqa: S301 - made here
    assert np.array_equal(copy.first(store.episodes[1], [2]), store.latents().first(store.episodes[1], [2]))


def test_plan_counts_without_a_vae(path: Path) -> None:
    plan = plan_latents(EncodeRequest(path, "tiny", stride=4))
    assert (plan.frames, plan.windows) == (FRAMES, 4 + 1 + 3)
    assert plan.bytes == 48 * 2 * 4 * 2 * (FRAMES + 2 * 8)


def test_a_plugin_says_what_its_latents_come_to(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    means = (SUPPORT / "extension_plugin/vaes/means.py").read_text()
    (tmp_path / "vaes").mkdir()
    (tmp_path / "vaes/fine.py").write_text(means.replace("    def ", "    spatial_stride = 8\n\n    def ", 1))
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path))
    assert latent_format("fine") == LatentFormat(3, 8) and latent_format("tiny") == LatentFormat(48, 16)
    assert plan_latents(EncodeRequest(path, "fine", stride=4)).bytes == 3 * 4 * 8 * 2 * (FRAMES + 2 * 8)
    assert at_hand("fine") and not at_hand("fin")


@pytest.mark.slow
def test_workers_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = toy_store(tmp_path / "one", monkeypatch, {"a": [5], "b": [6]})
    two = toy_store(tmp_path / "two", monkeypatch, {"a": [5], "b": [6]})
    for path, workers in ((one, 1), (two, 2)):
        request = EncodeRequest(path, "tiny", stride=2, workers=workers)
        report = encode_latents(request, lambda frames: None, lambda *values: None)
        assert (report.first, report.windows) == (11, 6)
    assert tree(one) == tree(two)
