"""Machines that write one store behind a URL: they go on with each other's work, agree or are refused, are shown."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import Command, Ran
from fixtures import run_convert, write_toy
from s3_server import S3Server, wait_for
from warm import WarmPrograms
from working_copies import converted, objects, same

import fwdata
from fwdata.errors import FwdataError, StoreDamaged
from fwdata.pipeline import run as conversion
from fwdata.pipeline.units import Shard, Spread
from fwdata.store.attempts import UnitAttempt
from fwdata.store.copying import copy_store
from fwdata.store.leases import hold_lease
from fwdata.store.shown_jobs import ShownJobs
from fwdata.store.verify import verify_store
from fwdata.store.working_copy import working_copy


@pytest.mark.slow
def test_another_machine_goes_on_with_what_was_sent(
    made: tuple[Path, Path, Any], s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    s3.fault = lambda request: "refused" if request.method == "PUT" and "/plan/zarr.json" in request.path else None
    with pytest.raises(FwdataError, match="access denied"):
        converted(made, url)
    s3.fault = lambda request: None
    sent = [key for key in objects(url).listing().keys if key.startswith("parts/") and "/c/" in key]
    assert sent
    monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / "elsewhere"))
    s3.seen.clear()
    converted(made, url)
    assert not [request for request in s3.seen if request.method == "PUT" and "/c/" in request.path]
    assert same(url, made[1], tmp_path)


@pytest.mark.slow
def test_two_machines_that_write_the_same_agree(
    made: tuple[Path, Path, Any], s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    with working_copy(url) as first:
        run_convert(made[0], first, made[2])
        with monkeypatch.context() as patch:
            patch.setenv("FWDATA_CACHE", str(tmp_path / "other"))
            converted(made, url)
    assert same(url, made[1], tmp_path)


@pytest.mark.slow
def test_a_machine_that_makes_other_bytes_is_refused(
    made: tuple[Path, Path, Any], s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    copy_store(str(made[1]), url)
    objects(url).delete([key for key in objects(url).listing().keys if key.startswith("parts/p00001/")])
    run_convert(write_toy(tmp_path / "raw", {"lift": [2, 3, 2, 2, 3]}, seed=1), tmp_path / "other.zarr", made[2])
    words = r"two processes made different bytes for s3://.*/parts/p00001: the first is kept"
    with pytest.raises(StoreDamaged, match=words), working_copy(url) as path:
        with monkeypatch.context() as patch:
            patch.setenv("FWDATA_CACHE", str(tmp_path / "second"))
            converted(made, url)
        before = objects(url).entries()
        shutil.copytree(tmp_path / "other.zarr/parts/p00001", path / "parts/p00001")
    assert objects(url).entries() == before and verify_store(url).damaged == []


@pytest.mark.slow
def test_shards_on_two_machines_at_once_complete_a_store(
    made: tuple[Path, Path, Any], s3: S3Server, tmp_path: Path, run: Command, warm: WarmPrograms
) -> None:
    url, local = f"{s3.bucket()}/toy.zarr", tmp_path / "local.zarr"
    copy_store(str(made[1]), url)
    copy_store(str(made[1]), str(local))
    children = [
        subprocess.Popen(
            [*warm("fwdata"), "stitch", url, "--shard", f"{number}/2"],
            env={**os.environ, "FWDATA_CACHE": str(tmp_path / f"machine{number}")},
        )
        for number in range(2)
    ]
    assert [child.wait(120) for child in children] == [0, 0]
    assert run("stitch", local).code == 0 and run("stitch", url).out.endswith("every frame is stitched already\n")
    assert same(url, local, tmp_path) and verify_store(url).damaged == []


def test_what_is_shown_of_a_job_ends_with_it(tmp_path: Path) -> None:
    files, job = objects("memory://shown/toy.zarr"), tmp_path / ".jobs" / "stitch"
    job.mkdir(parents=True)
    (job / "job.json").write_text('{"folder": "parts/{unit}/stitched", "units": [{"name": "p00000"}]}')
    (job / "p00000.00000001.lease").write_bytes(b"{}")
    files.write(".jobs/stitch/p00000.00000002.lease", b"{}")  # of a machine that never comes back
    shown = ShownJobs(files, tmp_path, files.entries())
    shown.send()
    assert len(files.entries()) == 3
    shutil.rmtree(job)
    shown.send()
    assert sorted(files.entries()) == [".jobs/stitch/job.json", ".jobs/stitch/p00000.00000002.lease"]
    shown.end(lambda folder: False)
    assert len(files.entries()) == 2
    shown.end(lambda folder: folder == "parts/p00000/stitched")
    assert files.entries() == {}


@pytest.mark.slow
def test_status_of_a_url_says_who_works_on_what(
    made: tuple[Path, Path, Any], run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of machines that were killed or whose unit failed; nothing of it is left when all units are done."""
    url = "memory://watched/toy.zarr"
    copy_store(str(made[1]), url)
    monkeypatch.setattr("fwdata.store.working_copy.PUSH_EVERY", 0.01)

    def status() -> Any:
        return next(i for i in run("status", url, "--json").json["work"] if i["name"] == "stitch")

    def shard(number: int) -> Ran:
        monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / f"machine{number}"))
        return run("stitch", url, "--shard", f"{number}/3")

    def full(attempt: UnitAttempt) -> bool:
        raise OSError(28, "No space left on device", str(attempt.folder))

    assert shard(0).code == 0
    assert [status()[key] for key in ("units", "done", "left", "running", "failed")] == [3, 1, 2, [], []]
    with monkeypatch.context() as patch:
        patch.setattr(UnitAttempt, "commit", full)
        assert "No space left" in shard(1).err
    [failure] = status()["failed"]
    assert failure["unit"] == "p00001" and f"{url}/parts" in failure["reason"] and "machine1" not in failure["reason"]
    with (
        pytest.raises(KeyboardInterrupt),
        working_copy(url) as path,
        hold_lease(path, "stitch", "p00002", "0" * 8) as one,
    ):
        (path / ".jobs/stitch/p00002.00000001.lease").write_bytes(one.path(path).read_bytes())  # never removed here
        wait_for(lambda: len(status()["running"]) == 2)
        assert {(item["unit"], item["host"], item["pid"]) for item in status()["running"]} == {
            ("p00002", one.host, one.pid)
        }
        raise KeyboardInterrupt
    assert len(status()["running"]) == 1
    left = objects(url).read(".jobs/stitch/p00002.00000001.lease") or b""
    objects(url).write(".jobs/stitch/p00002.00000002.lease", left)  # of a machine that never comes back
    assert shard(1).code == shard(2).code == 0
    assert not [key for key in objects(url).entries() if key.startswith(".")] and verify_store(url).damaged == []
    assert status()["left"] == 0 and "nothing in it remains" in run("verify", url).err
    objects(url).delete(list(objects(url).listing().sizes))


def test_what_was_measured_elsewhere_reaches_the_machine_that_completes_a_store(
    made: tuple[Path, Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, pooled = "memory://measured/toy.zarr", list[set[str]]()
    real = conversion.pool_store

    def pool_store(store: Path, accepted: Any, measured: dict[str, Any]) -> None:
        pooled.append(set(measured))
        real(store, accepted, measured)

    monkeypatch.setattr(conversion, "pool_store", pool_store)
    monkeypatch.setattr("fwdata.pipeline.plan.PART_EPISODES", 2)
    for number in (1, 0, 2):
        monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / f"machine{number}"))
        with working_copy(url) as path:
            run_convert(made[0], path, made[2], spread=Spread(shard=Shard(number, 3)))
    assert pooled == [{episode.id for episode in fwdata.open(url).episodes}]
    assert not [key for key in objects(url).entries() if key.startswith(".")] and same(url, made[1], tmp_path)
    objects(url).delete(list(objects(url).listing().sizes))
