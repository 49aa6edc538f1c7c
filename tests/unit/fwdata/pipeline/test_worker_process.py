"""Workers forked from a server are like fresh processes, and are fresh ones where there can be no server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT, SUPPORT
from worker_tasks import double, end_parent_once, surroundings

from fwdata.pipeline import worker_process
from fwdata.pipeline.fork_server import fork_command
from fwdata.pipeline.worker_process import _Shared, fork_server
from fwdata.pipeline.workers import WorkerPool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a server on Linux only")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Shared]:
    """A server for this test alone, which ends with the pool that needs it."""
    shared = _Shared()
    monkeypatch.setattr(worker_process, "_shared", shared)
    yield shared
    assert shared.server is None and shared.users == 0


def found(pool: WorkerPool, task: Any = surroundings, *arguments: object) -> Any:
    """The result of one task."""
    (result,) = pool.run(task, [arguments], lambda *_: None)
    return result


def test_a_forked_worker_gets_what_a_fresh_process_would(
    tmp_path: Path, own: _Shared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with WorkerPool(1) as before:
        assert found(before, double, 2) == 4  # the server is there, with other surroundings
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path / "modules"))
        monkeypatch.setenv("FWDATA_PLUGINS", "/anywhere\udc80")
        monkeypatch.delenv("HOME")
        seen = []
        for possible in (True, False):
            with monkeypatch.context() as patch:
                if not possible:
                    patch.setattr(worker_process, "_shared", _Shared(possible=False))
                with WorkerPool(1, places=[{"CUDA_VISIBLE_DEVICES": "7"}]) as pool:
                    capfd.readouterr()
                    seen.append(found(pool))
            assert capfd.readouterr() == ("", "printed\ncomplained\n")
        forked, fresh = seen
    assert fresh["parent"] == os.getpid() != forked["parent"]
    assert fresh["environment"]["CUDA_VISIBLE_DEVICES"] == "7" and "HOME" not in fresh["environment"]
    assert fresh["folder"] == str(tmp_path) and fresh["blocked"]
    for one in seen:
        del one["parent"], one["main"][one["main"].index("worker" if one is fresh else "fork_server")]
    assert forked == fresh


@pytest.mark.parametrize("variable", ["PYTHONHASHSEED", "OPENBLAS_NUM_THREADS"])
def test_variables_that_are_read_at_the_start_need_a_fresh_process(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WorkerPool(1) as pool:
        found(pool, double, 2)
    monkeypatch.setenv(variable, "3")
    with WorkerPool(1) as pool:
        result = found(pool)
    assert result["parent"] == os.getpid() and result["environment"][variable] == "3"


@pytest.mark.slow
def test_the_server_ends_with_the_last_pool(own: _Shared) -> None:
    with WorkerPool(1) as outer:
        assert own.server is None  # nothing is started before it is needed
        with WorkerPool(1) as inner:
            server = found(inner)["parent"]
        assert found(outer)["parent"] == server
    with pytest.raises(ChildProcessError):
        os.waitpid(server, os.WNOHANG)  # it has been waited for
    with WorkerPool(1) as again:
        assert found(again)["parent"] not in {server, os.getpid()}


def test_a_server_that_was_not_used_ends_at_once(own: _Shared) -> None:
    with WorkerPool(2, soon=fork_command):
        assert own.server is not None
    assert own.server is None


COMMAND = """
import gc, sys, threading, types
from worker_tasks import surroundings
from fwdata.pipeline import worker_process
from fwdata.pipeline.fork_server import fork_command
from fwdata.pipeline.workers import WorkerPool
sys.modules["__main__"].__file__ = sys.argv[1]
{before}
gc.disable()  # as the command does while it imports
print("once", end="")
with WorkerPool(1, soon=fork_command) as pool:
    (found,) = pool.run(surroundings, [()], lambda *_: None)
    fresh = open(f"/proc/{found['parent']}/cmdline").read() != open("/proc/self/cmdline").read()
    server = worker_process._shared.server._process
assert server.returncode == 0  # it ended by itself, and did not wait to be killed
assert found["threads"] == 1 and found["blocked"] and found["collects"]
print("", fresh)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "before", "fresh"),
    [
        ("/usr/bin/fwdata", "", False),
        ("/x/fwdata/__main__.py", "", False),
        ("/x/analysis.py", "", True),
        ("/usr/bin/fwdata", "threading.Thread(target=threading.Event().wait, daemon=True).start()", True),
        ("/usr/bin/fwdata", "sys.modules['torch'] = types.ModuleType('torch')", True),
    ],
    ids=["script", "module", "another program", "a thread", "torch"],
)
def test_the_command_forks_its_server_while_nothing_else_ran_in_it(program: str, before: str, fresh: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.replace("{before}", before), program],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SUPPORT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"once {fresh}\n", "printed\ncomplained\n")


def test_a_server_with_a_second_thread_forks_nothing(
    tmp_path: Path, own: _Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WorkerPool(1) as pool:
        result = found(pool)
    assert result["parent"] == os.getpid() and result["threads"] == 2


@pytest.mark.slow
def test_a_server_that_is_killed_costs_one_attempt(tmp_path: Path, own: _Shared) -> None:
    with WorkerPool(1) as pool:
        assert found(pool, end_parent_once, str(tmp_path / "mark")) == os.getpid()


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_said(
    own: _Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "ANSWER_SECONDS", 0.2)
    with WorkerPool(1) as pool:
        server = own.prepare()
        assert server is not None
        os.kill(server._process.pid, signal.SIGSTOP)
        assert found(pool, double, 2) == 4
        assert server._process.wait(timeout=300) == -signal.SIGKILL


def test_a_fork_of_this_process_has_a_server_of_its_own(tmp_path: Path) -> None:
    with fork_server(), WorkerPool(1) as pool:
        ours = found(pool)["parent"]
        child = os.fork()
        if child == 0:
            try:
                with WorkerPool(1) as other:
                    (tmp_path / "theirs").write_text(str(found(other)["parent"]))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert found(pool, double, 4) == 8  # ours is untouched
        assert int((tmp_path / "theirs").read_text()) not in {ours, child, os.getpid()}


def test_an_interrupt_before_the_first_answer_ends_the_server_at_once(
    own: _Shared, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), WorkerPool(1) as pool:
        server = own.prepare()
        monkeypatch.setattr("socket.recv_fds", interrupted)
        found(pool, double, 2)
    assert server is not None and server._process.returncode == -signal.SIGKILL
    assert capfd.readouterr() == ("", "")


def test_a_server_says_nothing_when_the_process_it_answers_is_gone() -> None:
    code = (
        "import os, socket\nfrom fwdata.pipeline.workers import WorkerPool\nwith WorkerPool(2) as pool:\n"
        "    list(pool.run('done'.format, [()], print))\n"
        "    socket.recv_fds = lambda *_: os.kill(os.getpid(), 9)\n"
        "    list(pool.run('done'.format, [(), ()], print))"
    )
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=300)  # to the server's end
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, b"")
