"""Units of a job done by several shards: the bytes of one process, failures kept, leftovers cleaned, scripts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault.stores import quick
from fixtures import run_convert, toy_manifest, tree, write_toy

import fwdata
from fwdata.encode.latents import EncodeRequest, encode_latents
from fwdata.encode.prompts import encode_text
from fwdata.encode.spread_latents import encode_share
from fwdata.encode.spread_prompts import TextRequest, encode_text_share
from fwdata.errors import FwdataError, StaleCache, StoreBusy, UsageError
from fwdata.manifest import Manifest
from fwdata.pipeline.clean import clean
from fwdata.pipeline.engines import ray_cluster
from fwdata.pipeline.jobs import Job, UnitRecord, read_jobs
from fwdata.pipeline.slurm import SlurmRequest, slurm_script
from fwdata.pipeline.status import store_status
from fwdata.pipeline.stitch import stitch
from fwdata.pipeline.units import Shard, Spread, parse_shard
from fwdata.store.attempts import UnitAttempt
from fwdata.store.files import write_lock
from fwdata.store.leases import JOBS, hold_lease

TASKS = {"lift": [5, 4, 6], "push": [3, 7]}


def nothing(*values: object) -> None:
    """No progress is shown."""


@pytest.fixture
def manifest() -> Iterator[Manifest]:
    with quick() as patch:
        patch.setattr("fwdata.store.caches.texts.TEXT_PART", 1)
        yield toy_manifest(patch)


def shards(count: int) -> list[Spread]:
    return [Spread(Shard(index, count)) for index in range(count)]


def store_of(folder: Path, manifest: Manifest, name: str = "toy.zarr") -> Path:
    raw = folder / "raw"
    if not raw.exists():
        write_toy(raw, TASKS)
    run_convert(raw, folder / name, manifest)
    return folder / name


def test_shards_convert_to_the_bytes_of_one_process(tmp_path: Path, manifest: Manifest) -> None:
    one, many = store_of(tmp_path, manifest), tmp_path / "many.zarr"
    lefts = []
    for spread in reversed(shards(3)):
        report = run_convert(tmp_path / "raw", many, manifest, spread=spread)
        assert report.units is not None and report.units.done == 1
        lefts.append(report.units.left)
        assert (many / JOBS).exists() == bool(report.units.left)
    assert lefts == [2, 1, 0]
    assert tree(many) == tree(one)
    assert (many / "evidence/zarr.json").read_bytes() == (one / "evidence/zarr.json").read_bytes()
    again = run_convert(tmp_path / "raw", many, manifest, spread=shards(2)[0])
    assert again.new_episodes == 0 and tree(many) == tree(one)


@pytest.mark.slow
def test_shards_fill_caches_with_the_bytes_of_one_process(tmp_path: Path, manifest: Manifest) -> None:
    one, many = store_of(tmp_path, manifest), store_of(tmp_path, manifest, "many.zarr")
    stitch(one, Spread())
    encode_latents(EncodeRequest(one, "fake", stride=2), nothing, nothing)
    encode_text(one, "tiny")
    for spread in shards(2):
        stitch(many, spread)
        encode_share(EncodeRequest(many, "fake", stride=2, spread=spread), nothing)
        encode_text_share(TextRequest(many, "tiny"), spread)
    assert tree(many) == tree(one)
    assert not list(many.glob("**/.*"))


def test_a_cache_is_refined_by_shards(tmp_path: Path, manifest: Manifest) -> None:
    one, many = store_of(tmp_path, manifest), store_of(tmp_path, manifest, "many.zarr")
    encode_latents(EncodeRequest(one, "fake", stride=1), nothing, nothing)
    encode_latents(EncodeRequest(many, "fake", stride=4), nothing, nothing)
    for spread in shards(2):
        encode_share(EncodeRequest(many, "fake", stride=1, spread=spread), nothing)
    assert tree(many) == tree(one)


def test_a_unit_that_fails_is_named_and_the_others_are_done(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, manifest)
    real = UnitAttempt.commit

    def full(attempt: UnitAttempt) -> bool:
        if attempt.final.parent.name == "p00001":
            raise OSError(28, "No space left on device")
        return real(attempt)

    monkeypatch.setattr(UnitAttempt, "commit", full)
    _, report = stitch(store, Spread(Shard()))
    assert report is not None and (report.done, report.left) == (2, 1)
    with pytest.raises(FwdataError, match=r"1 of 3 units failed: p00001: .*No space left"):
        report.raise_failed(store)
    status = next(item for item in store_status(store) if item.name == "stitch")
    assert status.failed[0][0] == "p00001" and status.done == 2 and status.hours_left is not None
    assert not list(store.glob("parts/.attempt-*"))
    monkeypatch.setattr(UnitAttempt, "commit", real)
    frames, report = stitch(store, Spread(Shard()))
    assert frames == 6 and report is not None and not report.left and not (store / JOBS).exists()


def test_work_that_is_asked_for_with_other_settings_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    store = store_of(tmp_path, manifest)
    encode_share(EncodeRequest(store, "fake", stride=2, spread=shards(2)[0]), nothing)
    before = tree(store)
    with pytest.raises(StaleCache, match=r"stride is 2, asked for 3"):
        encode_share(EncodeRequest(store, "fake", stride=3, spread=shards(2)[1]), nothing)
    with pytest.raises(UsageError, match="--replace needs the store for itself"):
        encode_share(EncodeRequest(store, "fake", stride=3, replace=True, spread=shards(2)[1]), nothing)
    with pytest.raises(UsageError, match="--update needs the store for itself"):
        run_convert(tmp_path / "raw", store, manifest, update=True, spread=shards(2)[1])
    assert tree(store) == before


def test_the_first_plan_is_everyones(tmp_path: Path) -> None:
    units = [UnitRecord(name="p00000", weight=2, prompts=("a", "b"))]
    first = Job.join(tmp_path, "encode-text-x", "encode-text", "text/x/{unit}", {}, units)
    second = Job.join(tmp_path, "encode-text-x", "encode-text", "text/x/{unit}", {}, [])
    assert second.record == first.record
    Job.join(tmp_path, "stitch", "stitch", "parts/{unit}/frames", {}, [UnitRecord(name="p00000", weight=2)])
    with pytest.raises(StaleCache, match=r"units.p00000 is 2, asked for 3"):
        Job.join(tmp_path, "stitch", "stitch", "parts/{unit}/frames", {}, [UnitRecord(name="p00000", weight=3)])
    assert [job.name for job in read_jobs(tmp_path)] == ["encode-text-x", "stitch"]


def test_one_process_refuses_while_shards_are_at_work_and_takes_over_when_they_are_gone(
    tmp_path: Path, manifest: Manifest
) -> None:
    store = store_of(tmp_path, manifest)
    job = Job.join(store, "stitch", "stitch", "parts/{unit}/frames", {}, [UnitRecord(name="p00000", weight=5)])
    with hold_lease(store, "stitch", "p00000", "1a2b3c4d"):
        with pytest.raises(StoreBusy, match=r"is being written by process \d+ on .* \(stitch, p00000\)"):
            stitch(store, Spread())
        running = store_status(store)[0].running
        assert [seen.lease.pid for seen in running] == [os.getpid()]
    stitch(store, Spread())
    assert not job.folder.exists()


def test_a_job_that_ends_removes_what_its_dead_processes_left_and_nothing_of_others(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, manifest)
    before = tree(store)
    job = Job.join(store, "stitch", "stitch", "parts/{unit}/frames", {}, [UnitRecord(name="p00000", weight=5)])
    for token in ("0000000a", "0000000b", "0000000c"):  # dead; alive; of a process of another kind
        (store / f"parts/.attempt-{token}-p00000.frames").mkdir()
        (store / f"parts/.zarr.json.{token}.tmp").touch()
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    with monkeypatch.context() as patch:
        patch.setattr("fwdata.store.leases.os.getpid", lambda: child)
        dead = hold_lease(store, "stitch", "p00000", "0000000a")
        dead.__enter__()
    with hold_lease(store, "stitch", "p00000", "0000000b"):
        job.end()
        left = {path.name for path in store.glob("parts/.*")}
        assert left == {
            f"{start}0000000{token}{end}"
            for token in "bc"
            for start, end in ((".attempt-", "-p00000.frames"), (".zarr.json.", ".tmp"))
        }
    clean(store, 0)
    assert tree(store) == before
    dead.__exit__(None, None, None)


def test_clean_removes_what_is_old_and_in_nobodys_hands(tmp_path: Path, manifest: Manifest) -> None:
    store = store_of(tmp_path, manifest)
    before = tree(store)
    Job.join(store, "stitch", "stitch", "parts/{unit}/frames", {}, [UnitRecord(name="p00000", weight=5)])
    for token in ("0000000a", "0000000b"):
        (store / f"parts/.attempt-{token}-p00000.frames").mkdir()
        (store / f"parts/.attempt-{token}-p00000.frames/x").write_bytes(b"12345")
    (store / "parts/.zarr.json.0000000c.tmp").touch()
    assert clean(store) == []  # nothing is a day old
    with hold_lease(store, "stitch", "p00000", "0000000b"):
        kept = tree(store)
        found = clean(store, 0, dry_run=True)
        assert tree(store) == kept
        assert {item.path for item in clean(store, 0)} == {item.path for item in found}
        assert sorted(p.name for p in store.glob("parts/.*")) == [".attempt-0000000b-p00000.frames"]
        assert (store / JOBS / "stitch/job.json").exists()
    clean(store, 0)
    assert tree(store) == before and not (store / JOBS).exists()
    with write_lock(store), pytest.raises(StoreBusy):
        clean(store, 0)


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("1/4", {}, Shard(1, 4)),
        (
            "slurm",
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_COUNT": "6"},
            Shard(3, 6),
        ),
        ("torchrun", {"RANK": "2", "WORLD_SIZE": "8"}, Shard(2, 8)),
    ],
)
def test_a_shard_is_given_or_found(
    text: str, environment: dict[str, str], shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["4/4", "1", "-1/4", "a/b", "slurm", "torchrun"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard"):
        parse_shard(text)


def test_a_slurm_script_runs_its_shard_and_submits_the_finishing_job(tmp_path: Path) -> None:
    request = SlurmRequest(("encode-latents", "my store.zarr", "--vae", "wan2.2"), 64, 16, 1, partition="gpu")
    script = tmp_path / "job.sh"
    script.write_text(slurm_script(request))
    head = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --array=0-63%16", "#SBATCH --gpus-per-task=1", "#SBATCH --partition=gpu"} <= set(head)
    for name in ("fwdata", "sbatch"):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/bash\nprintf "%s|" {name} "$@" >> {tmp_path}/said; echo >> {tmp_path}/said; echo 42\n')
        stub.chmod(0o755)
    clean_environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    task = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "64"}
    allocation = {"SLURM_JOB_ID": "8"}  # of salloc, from which a script may be submitted
    subprocess.run(["bash", script], env=clean_environment | allocation, check=True, capture_output=True)
    some = task | {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2"}  # sbatch --array=3,7
    for environment in (task, some):
        subprocess.run(["bash", script], env=clean_environment | environment, check=True, capture_output=True)
    assert (tmp_path / "said").read_text().splitlines() == [
        f"sbatch|--parsable|{script}|",
        f"sbatch|--dependency=afterany:42|--array=0-0|{script}|",
        "fwdata|encode-latents|my store.zarr|--vae|wan2.2|--shard|3/64|",
        "fwdata|encode-latents|my store.zarr|--vae|wan2.2|--shard|7/64|",
    ]
    with pytest.raises(UsageError, match="leave --shard out"):
        slurm_script(SlurmRequest(("stitch", "s", "--shard", "0/2"), 2))
    with pytest.raises(UsageError, match="expected one of convert"):
        slurm_script(SlurmRequest(("verify", "s"), 2))


@pytest.mark.parametrize(("time", "memory"), [("abc", "32G"), ("12h", "32G"), ("60", "32 GB"), ("60", "lots")])
def test_a_time_or_memory_that_slurm_does_not_read_is_refused(time: str, memory: str) -> None:
    with pytest.raises(UsageError, match=r"expected (minutes|a number)"):
        slurm_script(SlurmRequest(("stitch", "s"), 2, time=time, memory=memory))


@pytest.mark.parametrize("time", ["60", "12:00:00", "90:30", "2-12", "2-12:00:00", "UNLIMITED"])
def test_times_that_slurm_reads_are_written(time: str) -> None:
    assert f"#SBATCH --time={time}\n" in slurm_script(SlurmRequest(("stitch", "s"), 2, time=time, memory="500m"))


def test_status_says_hours_left_from_what_the_job_has_done(tmp_path: Path, manifest: Manifest) -> None:
    store = store_of(tmp_path, manifest)
    stitch(store, shards(3)[0])
    plan = store / JOBS / "stitch/job.json"
    record = json.loads(plan.read_bytes())
    record["since"] = time.time() - 3600
    plan.write_text(json.dumps(record))
    status = next(item for item in store_status(store) if item.name == "stitch")
    assert (status.done, status.left) == (1, 2)
    assert status.hours_left == pytest.approx((6 + 10) / 9, rel=0.01)  # frames left, of 9 in the first hour


def test_an_address_where_no_cluster_answers_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "localhost")
    with socket.create_server(("127.0.0.1", 0)) as answering:
        number = answering.getsockname()[1]
        ray_cluster._reach(f"127.0.0.1:{number}")
        ray_cluster._reach(f"ray://localhost:{number}")
    with socket.socket() as silent:  # it has the port, so that no other process answers there, and does not listen
        silent.bind(("127.0.0.1", 0))
        number = silent.getsockname()[1]
        for address in (f"127.0.0.1:{number}", f"ray://localhost:{number}"):
            with pytest.raises(UsageError, match=rf"there is no Ray cluster at {address}: .*refused; start one with"):
                ray_cluster.RayPool(address, None, False, None, None).__enter__()
    ray_cluster._reach("auto")


def test_shards_make_a_lost_part_anew_without_a_second_try_of_another(tmp_path: Path, manifest: Manifest) -> None:
    """What one process does: a mended recording that a later part holds stood in the store twice."""
    raw, out = write_toy(tmp_path / "raw", {"a": [3, 4], "b": [5], "c": [2, 2]}), tmp_path / "s.zarr"
    whole = (raw / "a" / "take1.npz").read_bytes()
    (raw / "a" / "take1.npz").write_bytes(b"")
    run_convert(raw, out, manifest)
    (raw / "a" / "take1.npz").write_bytes(whole)
    run_convert(raw, out, manifest, retry=True)
    names = [episode.id for episode in fwdata.open(out).episodes]
    for lost in (["p00000"], ["p00003"], ["p00000", "p00003"]):
        for order in (1, -1):
            for name in lost:
                shutil.rmtree(out / "parts" / name)
            for spread in shards(2)[::order]:
                run_convert(raw, out, manifest, spread=spread)
            assert [episode.id for episode in fwdata.open(out).episodes] == names, (lost, order)
