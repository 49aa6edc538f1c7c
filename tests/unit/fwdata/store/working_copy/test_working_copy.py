"""Commands that write a store behind a URL: the same bytes as locally, continued after kills, raced, refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from fixtures import run_convert, write_toy
from s3_server import SECRET, Request, S3Server, first_try, wait_for
from warm import WarmPrograms
from working_copies import converted, objects, same

import fwdata
from fwdata.errors import FwdataError, StoreBusy, StoreDamaged, UsageError
from fwdata.store.caches.stats import compute_statistics, save_statistics
from fwdata.store.copying import copy_store
from fwdata.store.mirror import MirrorFiles
from fwdata.store.opening import open_files
from fwdata.store.reader import open_store
from fwdata.store.verify import verify_store
from fwdata.store.working_copy import working_copy


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
