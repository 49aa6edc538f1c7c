"""Many processes on one store, as on many machines: some are killed, the end has the bytes of one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fixtures import PLUGINS, tree, write_toy
from paths import ROOT
from warm import WarmPrograms

from fwdata.pipeline.status import store_status
from fwdata.store.leases import seen_leases
from fwdata.store.verify import verify_store

RAW = {"lift": [3, 4], "push": [5], "pull": [4, 2], "turn": [6], "fold": [3]}
"""Five tasks, a part each."""

HELD = """
import os, sys, time
from pathlib import Path

mark, wanted = Path(sys.argv[1]), int(sys.argv[2])
real, count = os.fsync, 0

def fsync(descriptor):  # the n-th write of a unit lasts until the process is killed
    global count
    count += 1
    if count == wanted:
        mark.touch()
        time.sleep(600)
    real(descriptor)

os.fsync = fsync
from fwdata.cli import main
sys.argv = ["fwdata", *sys.argv[3:]]
main()
"""


HOLDING = """
import sys, time
from pathlib import Path
sys.path.insert(0, {plugins!r})
from toy import *
from toy import Converter as Toy

class Converter(Toy):
    \"\"\"The toy format; recordings of units of one store are read when a file is there.\"\"\"

    def read(self, root, ref):
        while list(Path({store!r}).glob(".jobs/*/*.lease")) and not Path({go!r}).exists():
            time.sleep(0.02)
        return super().read(root, ref)
"""


def environment(plugins: Path = PLUGINS) -> dict[str, str]:
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "tests" / "support"))
    return {**os.environ, "FWDATA_PLUGINS": str(plugins), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def start(
    *command: object, program: tuple[str, ...] = (sys.executable, "-m", "fwdata"), plugins: Path = PLUGINS
) -> subprocess.Popen[str]:
    """program: how `fwdata` is started."""
    arguments, pipe = [*program, *map(str, command)], subprocess.PIPE
    return subprocess.Popen(arguments, env=environment(plugins), stdout=pipe, stderr=pipe, text=True, cwd=ROOT)


def done(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return out


def run(*command: object, **how: Any) -> str:
    return done(start(*command, **how))


@contextmanager
def held(folder: Path, write: int, *command: object) -> Iterator[subprocess.Popen[str]]:
    """A process that stops at its n-th write, and is killed in the end."""
    (folder / "held.py").write_text(HELD)
    arguments = [sys.executable, folder / "held.py", folder / "held", write, *command]
    process = subprocess.Popen(list(map(str, arguments)), env=environment(), text=True, cwd=ROOT)
    try:
        wait_for(lambda: (folder / "held").exists() or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(ready: Callable[[], object], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.05)


def parent_of(pid: int) -> int:
    """The parent of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def below(pid: int) -> list[int]:
    """Every process below another."""
    parents = {int(path.name): parent_of(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for number in found:
        found += [child for child, parent in parents.items() if parent == number]
    return found[1:]


def busy(store: Path, raylets: Iterable[int], found: list[int]) -> bool:
    """Whether a unit is under way below one of the processes `raylets`, which is added to `found`."""
    for seen in seen_leases(store):
        pid = seen.lease.pid
        while pid > 1 and pid not in raylets:
            pid = parent_of(pid)
        if pid in raylets:
            found.append(pid)
    return bool(found)


def more(store: Path) -> list[list[object]]:
    return [["stitch", store], ["encode-text", store, "--encoder", "tiny"]]


def commands(raw: Path, store: Path, source: str = "toy") -> list[list[object]]:
    return [
        ["convert", source, raw, "--out", store, "--workers", 1],
        ["encode-latents", store, "--vae", "tiny", "--stride", 2, "--workers", 1],
    ]


@pytest.mark.slow
def test_four_shards_at_once_one_killed_and_run_again(tmp_path: Path, warm: WarmPrograms) -> None:
    warmed = warm("fwdata")
    raw, one, many = write_toy(tmp_path / "raw", RAW), tmp_path / "one.zarr", tmp_path / "many.zarr"
    for number, (alone, spread) in enumerate(zip(commands(raw, one), commands(raw, many), strict=True)):
        run(*alone, program=warmed)
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [*spread, "--workers", 0] if number == 0 else spread
        with held(folder, 14, *command, "--shard", "1/4") as killed:
            others = [start(*spread, "--shard", f"{index}/4", program=warmed) for index in (0, 2, 3)]
            for process in others:
                done(process)
            said = store_status(many)[0]
            assert (said.left, said.done) == (1, 4), said
            assert [seen.lease.pid for seen in said.running] == [killed.pid]
            assert list(many.glob("**/.attempt-*"))
        lost = store_status(many)[0]
        assert not lost.running and [seen.lease.pid for seen in lost.lost] == [killed.pid]
        run(*spread, "--shard", "1/4", program=warmed)
        assert tree(many) == tree(one)
        assert not list(many.glob("**/.*"))
    assert not verify_store(many).findings


@pytest.mark.slow
def test_two_nodes_of_a_ray_cluster_one_killed_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    raw, one, many = write_toy(tmp_path / "raw", RAW), tmp_path / "one.zarr", tmp_path / "many.zarr"
    plugins, go = tmp_path / "plugins", tmp_path / "go"
    plugins.mkdir()
    (plugins / "held.py").write_text(HOLDING.format(plugins=str(PLUGINS), store=str(many), go=str(go)))
    (plugins / "held.yaml").write_text((PLUGINS / "toy.yaml").read_text().replace("toy", "held"))
    for name, value in environment(plugins).items():
        monkeypatch.setenv(name, value)
    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
        working: list[int] = []
        pairs = zip(*([*commands(raw, store, "held"), *more(store)] for store in (one, many)), strict=True)
        for number, (alone, spread) in enumerate(pairs):
            run(*alone, plugins=plugins)
            driver = start(*spread, "--json", "--engine", "ray", "--address", cluster.address, plugins=plugins)
            if number == 0:
                wait_for(lambda ran=driver: busy(many, raylets, working) or ran.poll() is not None)
                assert driver.poll() is None, driver.communicate()
                workers = below(working[0])  # of a node that is lost, nothing lives on
                cluster.remove_node(raylets[working[0]], allow_graceful=False)
                for pid in workers:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                go.touch()  # no unit was complete before
            report = json.loads(done(driver))  # nothing but one document on stdout
            assert report["shard"]["left"] == 0 and not report["shard"]["failed"]
            assert tree(many) == tree(one)
            assert not list(many.glob("**/.*"))
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_ray_starts_below_uv_run_in_a_folder_under_a_foreign_project(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "foreign"\nversion = "0"\n')
    store = work / "store.zarr"
    run(*commands(write_toy(work / "raw", {"lift": [3]}), store)[0])
    (work / "run").write_text(f"{sys.executable} -m fwdata encode-text {store} --encoder tiny --engine ray\n")
    # a process that Ray takes for `uv run`: named uv, with `run` as its first word
    found = subprocess.run(
        ["uv", "run"],
        executable=shutil.which("bash"),
        cwd=work,
        env=environment(),
        text=True,
        capture_output=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
