"""Set-up of all tests: one thread per process, so that timings stay sane and results equal; no waiting for the disk."""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from commands import call as call
from commands import commands_made_once as commands_made_once
from commands import memory_store as memory_store
from commands import run as run
from hub_server import hub as hub
from hypothesis import HealthCheck, settings
from json_checks import checked_documents as checked_documents
from s3_server import s3 as s3
from s3_server import s3_running as s3_running
from warm import warm as warm

from fwdata.console import set_environment
from fwdata.pipeline.worker_process import fork_server

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a slow machine is no failure
settings.register_profile("same", UNTIMED, derandomize=True)  # the same examples in every run
settings.register_profile("new", UNTIMED, derandomize=False, print_blob=True)  # other ones: see CONTRIBUTING.md
settings.load_profile("same")

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before anything loads numpy
    os.environ[_name] = "1"
set_environment()  # as both programs do; a process that differs in it is not forked from the server of the others
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job in the background: programs would ignore it, too
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "test_quickstart.py", "test_libero_offline.py", "test_a_compiled_run", "test_train_stop.py", "docs/deploy.md",
    "test_a_killed_evaluation", "test_gated_rendering", "test_two_nodes_of_a_ray_cluster", "docs/sources.md",
    "docs/share.md", "test_a_demonstration_solves", "docs/first-hour.md", "test_examples.py", "the_whole_comparison",
)  # fmt: skip
"""Tests of 20 to 150 seconds, longest first: one that starts last keeps one process busy while the other waits."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests at the start of each of two equal halves, which is what two processes begin with."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    place_of = {id(item): min((rank[n] for n in LONGEST if n in item.nodeid), default=None) for item in items}
    late = [item for item in items if place_of[id(item)] is None]
    first = sorted((item for item in items if place_of[id(item)] is not None), key=lambda item: place_of[id(item)] or 0)
    half = (len(items) + 1) // 2 - len(first[0::2])
    items[:] = [*first[0::2], *late[: max(half, 0)], *first[1::2], *late[max(half, 0) :]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests on a GPU have measured."""
    measured = sys.modules.get("gpu_figures")
    if measured is not None and measured.FIGURES:
        terminalreporter.write_line(f"\n{measured.table()}")


def pytest_collection_finish() -> None:
    """What importing left is not looked through again and again by the garbage collector: a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def quick_writes() -> Iterator[None]:
    """No waiting for the disk: a test outlives no power failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_lines_of_progress() -> Iterator[None]:
    """What a command of this process prints does not depend on how long it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fwdata.console.FIRST_SECONDS", math.inf)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_fork_server() -> Iterator[None]:
    """Workers of all tests are forked from one server, which imports what they need once."""
    with fork_server():
        yield


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """torch computes with one thread, where a module has imported it."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
