"""Supervised workers: a crash, a hang, too much memory or a kill costs one recording at most, and never the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures import (
    PLUGINS,
    run_convert,
    toy_manifest,
    tree,
    write_toy,
)
from paths import SUPPORT
from worker_tasks import double, process_of

import fwdata
from fwdata.errors import FwdataError, UsageError
from fwdata.manifest import Manifest
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.run import convert
from fwdata.pipeline.workers import WorkerPool, _nearest

HARM = '''
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {plugins!r})
from toy import *
from toy import Converter as Toy
from toy import Options as Options

class Converter(Toy):
    """The toy format; a file called like a harm does that harm when it is read."""

    def read(self, root, ref):
        harm = Path(ref.source).stem.split("-")[-1]
        if harm == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if harm == "hang":
            time.sleep(600)
        if harm == "memory":
            np.ones(1 << 40, np.uint8)
        if harm == "once":  # as if killed from outside, the first time only
            mark = root / ".killed"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().read(root, ref)
'''


@pytest.fixture
def harmful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Manifest of a converter that does what a recording's name says."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "harm.py").write_text(HARM.format(plugins=str(PLUGINS)))
    monkeypatch.setenv("FWDATA_PLUGINS", str(plugins))
    monkeypatch.syspath_prepend(str(PLUGINS))
    return _manifest(plugins)


def _manifest(plugins: Path) -> Manifest:
    from fwdata.manifest import load_manifest

    (plugins / "harm.yaml").write_text((PLUGINS / "toy.yaml").read_text().replace("toy", "harm"))
    return load_manifest("harm")


def put(raw: Path, name: str, like: str) -> None:
    (raw / name).write_bytes((raw / like).read_bytes())


REASONS = {
    "crash": "crashed (SIGSEGV)",
    "hang": "took longer than 5 s",
    "memory": "needed more than 4096 MiB of memory",
}


@pytest.mark.parametrize(
    "harms", [("crash",), pytest.param(("hang", "memory", "crash"), marks=pytest.mark.slow)], ids=len
)
def test_harmful_recordings_are_left_out_with_a_reason(
    tmp_path: Path, harmful: Manifest, harms: tuple[str, ...]
) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [3, 4], "b": [5]})
    run_convert(raw, tmp_path / "clean.zarr", harmful)
    for number, harm in enumerate(harms):  # the first one is where the store's names are looked for
        put(raw, f"a/{number}-{harm}.npz", "a/take0.npz")
    seconds = 5.0 if "hang" in harms else 300.0  # a busy machine must not take it for a healthy recording
    report = run_convert(raw, tmp_path / "s.zarr", harmful, workers=2, episode_seconds=seconds)
    assert report.quarantined == [
        (f"a/{number}-{harm}.npz", f"the reader {REASONS[harm]} twice while reading this recording")
        for number, harm in enumerate(harms)
    ]
    assert (report.episodes, report.frames, report.new_episodes) == (3, 12, 3)
    clean = {name: digest for name, digest in tree(tmp_path / "clean.zarr").items() if "/p" in name}
    found = tree(tmp_path / "s.zarr")
    changed = {name for name, digest in clean.items() if found[name] != digest}
    assert changed == {"parts/p00000/zarr.json"}  # the list of what was left out


@pytest.mark.slow
def test_on_error_fail_names_the_recording_that_ended_the_readers(tmp_path: Path, harmful: Manifest) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [3]})
    put(raw, "a/t-crash.npz", "a/take0.npz")
    with pytest.raises(UsageError, match=r"a/t-crash\.npz: the reader crashed"):
        run_convert(raw, tmp_path / "t.zarr", harmful, workers=1, on_error="fail")


@pytest.mark.parametrize(
    "at",
    [
        pytest.param("a/0-once.npz", marks=pytest.mark.slow),  # where the store's names are looked for
        "a/take1-once.npz",  # in the middle of a part
        pytest.param("b/once.npz", marks=pytest.mark.slow),
    ],
)
def test_a_worker_killed_once_changes_no_byte(tmp_path: Path, harmful: Manifest, at: str) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [3, 4], "b": [5]})
    put(raw, at, "a/take0.npz")
    (raw / ".killed").touch()
    run_convert(raw, tmp_path / "clean.zarr", harmful)
    (raw / ".killed").unlink()
    seen: list[int] = []
    request = ConvertRequest("harm", (raw,), tmp_path / "s.zarr", harmful, workers=2)
    report = convert(request, lambda plan: None, lambda episodes, frames: seen.append(frames))
    assert (raw / ".killed").exists() and report.quarantined == []
    assert tree(tmp_path / "s.zarr") == tree(tmp_path / "clean.zarr")
    assert len(seen) == 4 and sum(seen) == report.frames == 15  # no recording is counted twice


def test_tasks_report_return_and_fail_alike_in_any_number_of_workers() -> None:
    for workers in (0, 2):
        reports: list[int] = []
        with WorkerPool(workers) as pool:
            assert sorted(pool.run(double, [(1,), (2,), (4,)], reports.append)) == [2, 4, 8]
            assert sorted(reports) == [1, 2, 4]
            with pytest.raises(FwdataError, match=r"^five$"):
                list(pool.run(double, [(5,)], reports.append))
            assert list(pool.run(double, [(6,)], reports.append)) == [12]  # the pool is still of use


def test_workers_share_a_file_only_when_no_other_is_left() -> None:
    files = {1: "a", 2: "a", 3: "a", 4: "b", 5: "b", 6: "c"}

    def taken(own: str | None, others: set[str], waiting: list[int]) -> int:
        return waiting[_nearest((files[task] for task in waiting), own, others)]

    assert taken(None, set(), [1, 2, 3, 4, 5, 6]) == 1
    assert taken(None, {"a"}, [2, 3, 4, 5, 6]) == 4
    assert taken("b", {"a"}, [2, 3, 5, 6]) == 5
    assert taken("b", {"a"}, [2, 3, 6]) == 6
    assert taken("b", {"a"}, [2, 3]) == 2
    with WorkerPool(2) as pool:
        tasks = [("a",), ("a",), ("a",), ("b",), ("b",), ("b",)]
        done = list(pool.run(process_of, tasks, lambda: None, near=lambda task: task[0]))
    assert min(len({number for file, number in done if file == name}) for name in "ab") == 1  # the slower is helped


def test_tasks_go_to_the_worker_that_keeps_what_they_read() -> None:
    """The second worker measured the first recordings: it gets the task that reads them, and the only one that does."""
    names = {"first": ["a", "b"], "second": ["c"], "other": ["d"]}
    with WorkerPool(2) as pool:
        kept = dict(pool.run(process_of, [("first",), ("second",)], lambda: None, keeps=lambda task: names[task[0]]))
        assert len(set(kept.values())) == 2
        for order in (["first", "second"], ["second", "first"], ["other", "second", "first"]):
            found = pool.run(process_of, [(name,) for name in order], lambda: None, takes=lambda task: names[task[0]])
            assert {name: number for name, number in found if name in kept} == kept
        for name in ("first", "second"):
            assert list(pool.run(process_of, [(name,)], lambda: None, takes=lambda task: names[task[0]])) == [
                (name, kept[name])
            ]


def test_a_task_that_always_ends_its_worker_is_an_error() -> None:
    with WorkerPool(1) as pool, pytest.raises(FwdataError, match=r"crashed \(SIGABRT\) twice"):
        list(pool.run(double, [(3,)], lambda value: None))


PARENT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job inherits as ignored
from worker_tasks import write_pid
from fwdata.pipeline.workers import WorkerPool
with WorkerPool(1) as pool:
    list(pool.run(write_pid, [(sys.argv[1],)], lambda: None))
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG and /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
def test_workers_end_with_their_parent(tmp_path: Path, number: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "pid")], env=environment, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 300
    while not (tmp_path / "pid").exists() and time.monotonic() < until:
        time.sleep(0.02)
    worker = int((tmp_path / "pid").read_text())
    server = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    assert running(worker) and running(server) and server != parent.pid
    parent.send_signal(number)
    parent.wait(timeout=300)
    while (running(worker) or running(server)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not running(worker) and not running(server)


def test_several_roots_in_any_order_are_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = toy_manifest(monkeypatch)
    one = write_toy(tmp_path / "lab" / "raw", {"a": [3, 4]})
    two = write_toy(tmp_path / "home" / "raw", {"a": [5]})
    (two / "a" / "take9.npz").write_bytes(b"")
    report = run_convert([one, two], tmp_path / "s.zarr", manifest)
    store = fwdata.open(tmp_path / "s.zarr")
    assert [e.id for e in store.episodes] == ["home/raw/a/take0", "lab/raw/a/take0", "lab/raw/a/take1"]
    assert [s for s, _ in report.quarantined] == ["home/raw/a/take9.npz"]
    assert store.metadata["roots"] == ["home/raw", "lab/raw"]
    assert store.parts[0].record.episodes[0].files[0].path == "home/raw/a/take0.npz"
    run_convert([two, one], tmp_path / "t.zarr", manifest)
    assert tree(tmp_path / "t.zarr") == tree(tmp_path / "s.zarr")
    assert run_convert([two, one], tmp_path / "s.zarr", manifest).new_episodes == 0
    more = write_toy(tmp_path / "more", {"a": [2]})
    with pytest.raises(UsageError, match=r"from home/raw, lab/raw, now asked for without home/raw and"):
        run_convert([one, more], tmp_path / "s.zarr", manifest)
    with pytest.raises(UsageError, match="is given twice"):
        run_convert([one, one], tmp_path / "u.zarr", manifest)
    with pytest.raises(UsageError, match=r"a lies in .*lab/raw, which is given too"):
        run_convert([one, one / "a"], tmp_path / "u.zarr", manifest)
    assert not (tmp_path / "u.zarr").exists()
