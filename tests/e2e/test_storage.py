"""Training from a bucket: the numbers of training from disk, stopped and continued, and few requests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import Command
from s3_server import S3Server
from torch.utils.data import DataLoader
from training import losses, run, tensors

import fwdata
from fwdata.errors import StoreError
from fwdata.store.copying import copy_store

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A small store of the sample world with every cache."""
    command, out = Command(monkeypatch, capsys), tmp_path / "sample.zarr"
    for line in (
        f"sample robotwin --episodes 2 --seed 0 --out {tmp_path / 'raw'}",
        f"convert robotwin {tmp_path / 'raw'} --out {out} --manifest robotwin-sample --workers 1",
        f"stats {out}",
        f"encode-text {out} --encoder tiny",
        f"encode-latents {out} --vae tiny --stride 4 --workers 1",
    ):
        done = command(*line.split())
        assert done.code == 0, done.err
    return out


@pytest.mark.parametrize("size", ["1GB", "0"])
def test_training_from_a_bucket_is_training_from_disk(
    store: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / "scratch"))
    monkeypatch.setenv("FWDATA_CACHE_SIZE", size)
    url = f"{s3.bucket()}/sample.zarr"
    copy_store(str(store), url)
    run(tmp_path / "disk", store=fwdata.open(store))
    s3.seen.clear()
    stopped = run(tmp_path / "bucket", store=fwdata.open(url), stop_after=3)
    assert not stopped.finished and stopped.step == 3
    outcome = run(tmp_path / "bucket", store=fwdata.open(url))
    assert outcome.finished and losses(tmp_path / "bucket") == losses(tmp_path / "disk")
    ours, theirs = tensors(tmp_path / "bucket"), tensors(tmp_path / "disk")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert set(s3.counts()) == {"GET"}


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_data_loader_with_workers_reads_a_bucket(
    store: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / "scratch"))
    url = f"{s3.bucket()}/sample.zarr"
    copy_store(str(store), url)
    here, there = fwdata.WindowDataset(store), fwdata.WindowDataset(url)
    loader = DataLoader(there, batch_size=16, num_workers=1, multiprocessing_context=start)
    for ours, theirs in zip(loader, DataLoader(here, batch_size=16), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_forked_data_loader_is_refused_in_one_sentence(
    store: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3.bucket()}/sample.zarr"
    copy_store(str(store), url)
    loader = DataLoader(fwdata.WindowDataset(url), num_workers=1, multiprocessing_context="fork")
    with pytest.raises(StoreError, match="start workers with multiprocessing_context='forkserver'"):
        next(iter(loader))
