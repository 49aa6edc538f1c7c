"""A finer stride encodes what is missing, and gives the bytes of encoding at that stride at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures import FakeVae, run_convert, stamps, toy_manifest, toy_store, tree, write_toy

import fwdata
from fwdata.encode.latents import EncodeReport, EncodeRequest, encode_latents, plan_latents
from fwdata.errors import StaleCache, StoreDamaged
from fwdata.pipeline.status import store_status
from fwdata.store.caches import latents as store_latents
from fwdata.store.verify import verify_store

TASKS = {"a": [37, 3], "b": [21]}
FRAMES = 61


def encode(path: Path, stride: int | None, **options: object) -> EncodeReport:
    request = EncodeRequest(path, "fake", stride=stride, **options)  # type: ignore[arg-type]
    return encode_latents(request, lambda frames: None, lambda first, windows, seconds: None)


@pytest.fixture
def vae(monkeypatch: pytest.MonkeyPatch) -> FakeVae:
    found = FakeVae()
    monkeypatch.setattr("fwdata.encode.latents.load_vae", lambda spec, device, dtype: found)
    return found


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return toy_store(tmp_path, monkeypatch, TASKS)


def encoded_at_once(path: Path, stride: int) -> dict[str, bytes]:
    other = path.with_name("other.zarr")
    shutil.copytree(path, other)
    shutil.rmtree(other / "latents", ignore_errors=True)
    encode(other, stride)
    found = tree(other)
    shutil.rmtree(other)
    return found


def test_each_stride_encodes_only_what_is_missing(path: Path, vae: FakeVae) -> None:
    before = 0
    for stride in (16, 4, 1):
        vae.calls = 0
        report = encode(path, stride)
        windows = sum(-(-length // stride) for length in (37, 3, 21))
        assert vae.calls == (FRAMES if stride == 16 else windows - before)
        assert report.windows == windows - before
        before = windows
        assert tree(path) == encoded_at_once(path, stride)
        cache = fwdata.open(path).latents()
        assert (cache.stride, cache.num_windows, cache.complete) == (stride, windows, True)
    assert len(list((path / "latents").iterdir())) == 2  # one cache, and the group's metadata
    assert verify_store(path).damaged == []


def test_without_a_stride_the_caches_own_is_kept(path: Path, vae: FakeVae) -> None:
    encode(path, 4)
    before = stamps(path)
    assert encode(path, None).first == 0
    assert stamps(path) == before and fwdata.open(path).latents().stride == 4


@pytest.mark.parametrize("stride", [3, 6, 8])
def test_a_stride_that_does_not_divide_the_caches_is_refused(path: Path, vae: FakeVae, stride: int) -> None:
    encode(path, 4)
    before = stamps(path)
    with pytest.raises(StaleCache, match=f"stride is 4, asked for {stride}"):
        encode(path, stride)
    assert stamps(path) == before


def test_nothing_else_may_differ(path: Path, vae: FakeVae, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(path, 4)
    monkeypatch.setattr("fwdata.encode.latents.load_vae", lambda spec, device, dtype: FakeVae("other"))
    with pytest.raises(StaleCache, match=r"stride is 4, asked for 2; vae\.name is fake, asked for other"):
        encode(path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [0, 3, 9, 20, 40])
def test_a_killed_refinement_leaves_the_coarse_cache_and_continues(
    path: Path, vae: FakeVae, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    monkeypatch.setattr("fwdata.store.layout.LATENT_SHARD", 4)
    encode(path, 16)
    expected = encoded_at_once(path, 1)
    vae.calls, vae.fail_after = 0, kill_at
    with pytest.raises(KeyboardInterrupt):
        encode(path, 1)
    cache = fwdata.open(path).latents()
    assert cache.complete and cache.stride == 16
    assert cache.future(fwdata.open(path).episodes[0], [16]).shape[0] == 1
    vae.calls, vae.fail_after = 0, None
    encode(path, 1)
    assert vae.calls <= FRAMES - kill_at + 4
    assert tree(path) == expected and verify_store(path).damaged == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["published", "unlinked", "half removed"])
def test_killed_while_the_caches_change_places(
    path: Path, vae: FakeVae, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    encode(path, 16)
    coarse = next(p for p in (path / "latents").iterdir() if p.is_dir())
    expected = encoded_at_once(path, 4)
    removed = shutil.rmtree

    def killed(folder: Path) -> None:
        assert Path(folder) == coarse
        if moment == "half removed":
            removed(coarse / "p00000")
        raise KeyboardInterrupt

    def unlinked(self: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_latents.shutil, "rmtree", killed)
        if moment == "published":
            patch.setattr(Path, "unlink", unlinked)
        with pytest.raises(KeyboardInterrupt):
            encode(path, 4)
    cache = fwdata.open(path).latents()
    assert cache.stride == 4 and cache.complete
    vae.calls = 0
    encode(path, 4)
    assert vae.calls == 0 and tree(path) == expected


@pytest.mark.slow
def test_parts_that_the_coarse_cache_lacks_are_encoded(
    tmp_path: Path, path: Path, vae: FakeVae, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(path, 4)
    write_toy(tmp_path / "raw", {"z": [5]})
    run_convert(tmp_path / "raw", path, toy_manifest(monkeypatch))
    vae.calls = 0
    encode(path, 2)
    assert vae.calls == (19 - 10) + (2 - 1) + (11 - 6) + 5
    assert tree(path) == encoded_at_once(path, 2)


def test_damaged_latents_are_not_taken_over(path: Path, vae: FakeVae) -> None:
    encode(path, 4)
    shard = next(f for f in path.glob("latents/*/p00000/first/c/**/0") if f.is_file())
    data = bytearray(shard.read_bytes())
    data[5] ^= 4
    shard.write_bytes(data)
    with pytest.raises(StoreDamaged, match="checksum does not hold"):
        encode(path, 2)
    assert fwdata.open(path).latents().stride == 4


@pytest.mark.slow
def test_refined_tiny_latents_have_the_bits_of_encoding_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [9]})
    for stride in (4, 2):
        encode_latents(EncodeRequest(path, "tiny", stride=stride), lambda frames: None, lambda *values: None)
    refined = tree(path)
    encode_latents(EncodeRequest(path, "tiny", stride=2, replace=True), lambda frames: None, lambda *values: None)
    assert tree(path) == refined
    assert np.isfinite(fwdata.open(path).latents().future(fwdata.open(path).episodes[0], [2])).all()


def interrupted(path: Path, vae: FakeVae, stride: int, after: int) -> None:
    vae.calls, vae.fail_after = 0, after
    with pytest.raises(KeyboardInterrupt):
        encode(path, stride)
    vae.calls, vae.fail_after = 0, None


def test_an_unfinished_refinement_serves_a_coarser_one_and_stays(path: Path, vae: FakeVae) -> None:
    encode(path, 4)
    interrupted(path, vae, 1, 35)  # the first part lacks 40 - 11 latents, so it is whole
    report = encode(path, 2)
    assert vae.calls == 11 - 6  # those of the second part; the first is read from the unfinished one
    assert [(item.record.stride, item.parts) for item in report.kept] == [(1, 1)]
    status = {item.name: (item.done, item.total) for item in store_status(path)}
    assert status["encode-latents-default"] == (2, 2) and status["encode-latents-default-stride-1"] == (1, 2)
    assert [finding.key[-7:] for finding in verify_store(path).findings] == ["/p00001"]  # is not finished
    vae.calls = 0
    assert encode(path, 1).kept == ()
    assert vae.calls == 21 - 11 and tree(path) == encoded_at_once(path, 1)


@pytest.mark.slow
def test_an_unfinished_refinement_serves_a_finer_one_and_goes(path: Path, vae: FakeVae) -> None:
    encode(path, 16)
    interrupted(path, vae, 4, 8)  # the first part lacks 11 - 4 windows
    assert encode(path, 1).kept == () and vae.calls == 61 - 6 - 7
    assert tree(path) == encoded_at_once(path, 1)


@pytest.mark.slow
def test_an_unfinished_refinement_that_no_longer_fits_stays(path: Path, vae: FakeVae) -> None:
    encode(path, 12)
    interrupted(path, vae, 4, 8)  # the first part lacks 11 - 5 windows
    assert [item.record.stride for item in encode(path, 6).kept] == [4]
    vae.calls = 0
    assert encode(path, 2).kept == ()
    assert vae.calls == (19 - 13) + (2 - 1) + (11 - 4)  # starts that neither 4 nor 6 divides; of the second part, 6
    assert tree(path) == encoded_at_once(path, 2)


@pytest.mark.slow
def test_replace_removes_unfinished_refinements(path: Path, vae: FakeVae) -> None:
    encode(path, 4)
    interrupted(path, vae, 1, 35)
    assert encode(path, 1, replace=True).kept == () and vae.calls == FRAMES
    assert tree(path) == encoded_at_once(path, 1)


def test_a_dry_run_counts_at_the_caches_own_stride(path: Path, vae: FakeVae) -> None:
    encode(path, 4)
    assert plan_latents(EncodeRequest(path, "tiny")).windows == 10 + 1 + 6
    assert plan_latents(EncodeRequest(path, "tiny", replace=True)).windows == FRAMES
