"""Commands that write a store behind a URL: the same bytes as locally, continued after kills, raced, refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command, Ran
from fault.stores import quick
from fixtures import run_convert, toy_manifest, tree, write_toy
from s3_server import SECRET, Request, S3Server, first_try, wait_for
from warm import WarmPrograms

import fwdata
from fwdata.errors import FwdataError, StoreBusy, StoreDamaged, UsageError
from fwdata.pipeline import run as conversion
from fwdata.pipeline.units import Shard, Spread
from fwdata.store.attempts import UnitAttempt
from fwdata.store.caches.stats import compute_statistics, save_statistics
from fwdata.store.copying import copy_store
from fwdata.store.leases import hold_lease
from fwdata.store.mirror import MirrorFiles
from fwdata.store.opening import open_files, open_target
from fwdata.store.reader import open_store
from fwdata.store.remote import RemoteFiles
from fwdata.store.shown_jobs import ShownJobs
from fwdata.store.verify import verify_store
from fwdata.store.working_copy import working_copy


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Any]]:
    """Recordings, and the store of three parts that they make locally."""
    folder = tmp_path_factory.mktemp("made")
    with quick() as patch:
        manifest = toy_manifest(patch)
        raw = write_toy(folder / "raw", {"lift": [2, 3, 2, 2, 3]})
        run_convert(raw, folder / "toy.zarr", manifest)
        yield raw, folder / "toy.zarr", manifest


def objects(url: str) -> RemoteFiles:
    files = open_target(url)
    assert isinstance(files, RemoteFiles)
    return files


def converted(made: tuple[Path, Path, Any], url: str) -> None:
    with working_copy(url) as path:
        run_convert(made[0], path, made[2])


def same(url: str, store: Path, tmp_path: Path) -> bool:
    copy_store(url, str(tmp_path / "copy.zarr"))
    return tree(tmp_path / "copy.zarr") == tree(store)


def test_a_local_store_is_its_own_working_copy(tmp_path: Path) -> None:
    with working_copy(tmp_path / "x.zarr") as path:
        assert path == tmp_path / "x.zarr"


@pytest.mark.slow
def test_a_conversion_to_s3_has_the_bytes_of_a_local_one(
    made: tuple[Path, Path, Any], s3: S3Server, tmp_path: Path, scratch: Path
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    converted(made, url)
    assert same(url, made[1], tmp_path) and verify_store(url).damaged == []
    assert list((scratch / "stores").iterdir()) == []
    s3.seen.clear()
    converted(made, url)
    assert s3.counts()["PUT"] == 3 and s3.counts()["POST"] == 1  # the probe of conditional writes, alone


@pytest.mark.slow
def test_caches_are_added_and_replaced(
    made: tuple[Path, Path, Any], s3: S3Server, run: Command, tmp_path: Path
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    copy_store(str(made[1]), url)
    copy_store(str(made[1]), str(tmp_path / "local.zarr"))
    local = str(tmp_path / "local.zarr")
    for command in (
        ("stitch", None),
        ("encode-text", None, "--encoder", "tiny"),
        ("encode-latents", None, "--vae", "fake", "--stride", "2", "--workers", "1"),
        ("encode-latents", None, "--vae", "fake", "--stride", "1", "--workers", "1"),
        ("stats", None),
        ("view", None, "--set", "split.val=0.4"),
        ("stats", None),
        ("encode-text", None, "--encoder", "tiny", "--instructions", "all", "--replace"),
    ):
        for store in (url, local):
            done = run(*(store if word is None else word for word in command))
            assert done.code == 0, done.err
            assert "scratch" not in done.out + done.err
    assert same(url, tmp_path / "local.zarr", tmp_path) and verify_store(url).damaged == []


@pytest.mark.slow
def test_a_killed_upload_is_continued_at_any_request(
    made: tuple[Path, Path, Any], s3: S3Server, tmp_path: Path
) -> None:
    bucket = s3.bucket()
    converted(made, f"{bucket}/whole.zarr")
    total = s3.counts()["PUT"] + s3.counts()["POST"]
    for number, at in enumerate((total // 3, total - 2)):
        url = f"{bucket}/cut-{number}.zarr"
        seen: list[Request] = []

        def fault(request: Request, seen: list[Request] = seen, at: int = at) -> str | None:
            seen += [request] if request.method in ("PUT", "POST") else []
            return "refused" if len(seen) > at else None

        s3.fault = fault
        with pytest.raises(FwdataError):
            converted(made, url)
        s3.fault = lambda request: None
        with pytest.raises(FwdataError, match="is not an fwdata store"):
            fwdata.open(url)
        converted(made, url)
        assert same(url, made[1], tmp_path / str(number))


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
def test_objects_of_another_writer_are_not_replaced(made: tuple[Path, Path, Any], s3: S3Server) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    key = "parts/p00001/lowdim/state/c/0/0"
    objects(url).write(key, b"of another process")
    with pytest.raises(StoreBusy, match=rf"{key} is being written by another process with other bytes"):
        converted(made, url)
    assert objects(url).read(key) == b"of another process"


@pytest.mark.slow
def test_metadata_that_changed_meanwhile_are_not_replaced(
    made: tuple[Path, Path, Any], s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    copy_store(str(made[1]), url)
    with (
        pytest.raises(StoreBusy, match=r"s3://.*/stats/zarr.json was changed by another process"),
        working_copy(url) as path,
    ):
        store = open_store(path)
        save_statistics(store, compute_statistics(store))
        monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / "other"))
        assert run("view", url, "--set", "split.val=0.4").code == 0 and run("stats", url).code == 0


def test_one_command_of_a_machine_writes_at_a_time(s3: S3Server) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    with working_copy(url), pytest.raises(StoreBusy, match=r"is being written by"), working_copy(url):
        pass


def test_a_server_that_ignores_conditions_is_refused(
    made: tuple[Path, Path, Any], s3: S3Server, run: Command, scratch: Path
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    s3.fault = lambda request: "unconditional"
    with pytest.raises(UsageError, match=r"ignores conditional writes.*`fwdata copy` it there"):
        converted(made, url)
    assert objects(url).listing().sizes == {} and list((scratch / "stores").iterdir()) == []
    with pytest.raises(UsageError, match="can only be read"):
        converted(made, "https://host/toy.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["busy", "lost"])
def test_throttling_and_lost_answers_are_survived(
    made: tuple[Path, Path, Any], s3: S3Server, tmp_path: Path, kind: str
) -> None:
    """A lost answer of a conditional write: the second try finds the object there, and it is ours."""
    url = f"{s3.bucket()}/toy.zarr"
    s3.fault = first_try(kind, "PUT", "GET")
    converted(made, url)
    with working_copy(url) as path:
        store = open_store(path)
        save_statistics(store, compute_statistics(store))
    s3.fault = lambda request: None
    shutil.rmtree(made[1].parent / "expected.zarr", ignore_errors=True)
    shutil.copytree(made[1], made[1].parent / "expected.zarr")
    store = open_store(made[1].parent / "expected.zarr")
    save_statistics(store, compute_statistics(store))
    assert same(url, made[1].parent / "expected.zarr", tmp_path)


@pytest.mark.slow
def test_data_are_fetched_when_they_are_read_and_kept_within_the_bound(
    made: tuple[Path, Path, Any], s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    copy_store(str(made[1]), url)
    with working_copy(url) as path:
        files = open_files(path)
        assert isinstance(files, MirrorFiles) and not [key for key in files.keys() if "/c/" in key]  # noqa: SIM118
        here, there = fwdata.open(made[1]).episodes[3], open_store(path).episodes[3]
        assert (here.state() == there.state()).all() and (here.stitched([1]) == there.stitched([1])).all()
        assert files.read("parts/p00009/zarr.json") is None and files.read("latents/zarr.json") is None


def test_what_a_working_copy_fetches_is_compared_with_its_digest(made: tuple[Path, Path, Any]) -> None:
    url = "memory://fetched/toy.zarr"
    copy_store(str(made[1]), url)
    with pytest.raises(StoreDamaged, match=rf"{url}/parts/p00000/\S+/state/c/0/0 is damaged: .* expected"):  # noqa: SIM117
        with working_copy(url) as path:
            state = next(key for key in objects(url).listing().keys if "/state/c/" in key)
            objects(url).write(state, (objects(url).read(state) or b"")[:-1])
            (path / state).unlink()  # as of a store elsewhere, which is not fetched before it is read
            open_store(path).episodes[0].state()
    objects(url).delete(list(objects(url).listing().sizes))


@pytest.mark.slow
def test_commands_for_local_stores_name_the_url(
    made: tuple[Path, Path, Any], s3: S3Server, run: Command, call: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    url = f"{s3.bucket()}/toy.zarr"
    copy_store(str(made[1]), url)
    monkeypatch.chdir(tmp_path)
    for command in ("repair", "repair --dry-run", "clean", "bench read", "push", "stitch --engine ray"):
        name, *options = command.split(" --")
        more = ["me/x", "--license", "mit"] if name == "push" else f"--{options[0]}".split() if options else []
        run(*name.split(), url, *more).refused(2, f"{url} is a URL; ")
    code, _, said = call("run", made[1], "--recipe", "tiny", "--out", "s3://bucket/run")
    assert code == 2 and "s3://bucket/run is a URL; OUT takes a path of this machine" in said
    assert not list(tmp_path.glob("s3:*"))


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


@pytest.mark.slow
def test_a_refused_conversion_takes_back_what_was_sent(
    made: tuple[Path, Path, Any], s3: S3Server, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion may find out at its end that it has to be refused, and removes the store that it began."""
    monkeypatch.setattr("fwdata.store.working_copy.PUSH_EVERY", 0.05)
    url = f"{s3.bucket()}/toy.zarr"
    with pytest.raises(UsageError, match="refused"), working_copy(url) as path:
        run_convert(made[0], path, made[2])
        wait_for(lambda: objects(url).read("parts/p00002/zarr.json") is not None)
        shutil.rmtree(path)
        path.mkdir()
        raise UsageError("refused")
    assert objects(url).listing().sizes == {} and list((scratch / "stores").iterdir()) == []


@pytest.mark.slow
def test_dry_runs_write_nothing(made: tuple[Path, Path, Any], s3: S3Server, run: Command, scratch: Path) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    copy_store(str(made[1]), url)
    s3.seen.clear()
    for command in ("encode-latents --vae fake --dry-run", "view --set split.val=0.4 --dry-run"):
        name, *options = command.split()
        done = run(name, url, *options)
        assert done.code == 0, done.err
    run("convert", "toy", made[0], "--out", f"{url}.new", "--dry-run", "--workers", "0")
    assert set(s3.counts()) == {"GET"} and not scratch.exists()


@pytest.mark.slow
def test_stores_are_merged_to_and_from_urls(
    made: tuple[Path, Path, Any], s3: S3Server, run: Command, tmp_path: Path
) -> None:
    url, out = f"{s3.bucket()}/toy.zarr", tmp_path / "local.zarr"
    copy_store(str(made[1]), url)
    run_convert(write_toy(tmp_path / "raw", {"push": [4, 5]}, seed=40), tmp_path / "push.zarr", made[2])
    for target in (url.replace("toy", "merged"), out):
        done = run("merge", url, tmp_path / "push.zarr", "--out", target)
        assert done.code == 0 and done.out.startswith(f"{target}: 7 episodes"), done.err
    assert same(url.replace("toy", "merged"), out, tmp_path)


@pytest.mark.slow
def test_no_secret_is_written_or_shown(
    made: tuple[Path, Path, Any], s3: S3Server, run: Command, tmp_path: Path
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    converted(made, url)
    copy_store(url, str(tmp_path / "copy.zarr"))
    s3.refuse(403, "SignatureDoesNotMatch", "not you")
    shown = [run(command, url) for command in ("inspect", "verify", "stats", "stitch")]
    assert all(SECRET not in ran.out + ran.err for ran in shown)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()


KILLED = """
import os, sys
from pathlib import Path
from fault.stores import quick
from fixtures import run_convert, toy_manifest
from fwdata.store.working_copy import working_copy

Path(sys.argv[3]).write_text(str(os.getpid()))
with quick() as patch, working_copy(sys.argv[2]) as path:
    run_convert(Path(sys.argv[1]), path, toy_manifest(patch))
"""
"""The program that is killed: RECORDINGS URL FILE_FOR_ITS_NUMBER."""


@pytest.mark.slow
def test_a_killed_process_is_continued(
    made: tuple[Path, Path, Any], s3: S3Server, tmp_path: Path, warm: WarmPrograms
) -> None:
    """kill -9 while the k-th object is written, for some k."""
    bucket, program, number = s3.bucket(), tmp_path / "killed.py", tmp_path / "number"
    program.write_text(KILLED)
    tests = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tests), str(tests / "support")])}
    s3.on_kill = lambda: os.kill(int(number.read_text()), signal.SIGKILL)
    for at in (3, 9, 20, 33, 60):
        url = f"{bucket}/killed-{at}.zarr"
        writes: list[int] = []
        s3.fault = lambda request, writes=writes, at=at: (
            "kill" if request.method == "PUT" and (writes.append(1) or len(writes) == at) else None
        )
        child = subprocess.Popen([*warm(str(program)), str(made[0]), url, str(number)], env=environment)
        assert child.wait(120) == -signal.SIGKILL
        s3.fault = lambda request: None
        converted(made, url)
        assert same(url, made[1], tmp_path / str(at))
