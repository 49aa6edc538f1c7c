"""Every command that writes may be killed at any moment: nothing committed is lost, a rerun ends with the same bytes.

The short run is among the slow tests; `pytest -m fault` visits every operation and 200 random moments per command.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fault.bench import COMMANDS, Bench, made, open_bench, run_again
from fault.child import Ended, Trap

SIGKILL = -9
RANDOM_KILLS = 200


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("bench")) as opened:
        yield opened


def killed_and_rerun(bench: Bench, command: str, out: Path, **how: Any) -> Ended:
    """Kill a command, look at what is left, run it again: the end must be as without the kill."""
    bench.before(command, out)
    ended = bench.run(command, out, **how)
    assert ended.code in {0, SIGKILL}, ended.output
    run_again(bench, command, out, f"{command} killed {how}")
    return ended


def operations(bench: Bench, command: str, out: Path) -> int:
    wanted = bench.after(command)  # first: what libraries write once, to caches of their own, is not counted
    bench.before(command, out)
    ended = bench.run(command, out, Trap())
    assert ended.code == 0, ended.output
    assert made(command, out) == wanted
    return ended.operations


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_ends_the_same_when_run_again(bench: Bench, command: str, tmp_path: Path) -> None:
    out = tmp_path / "toy.zarr"
    count = operations(bench, command, out)
    rng = np.random.default_rng(len(command))
    for n in sorted({1, count, *rng.integers(1, count + 1, 4).tolist()}):
        assert killed_and_rerun(bench, command, out, trap=Trap(n)).code == SIGKILL


@pytest.mark.fault
@pytest.mark.parametrize("command", COMMANDS)
def test_every_operation_and_random_moments(bench: Bench, command: str, tmp_path: Path) -> None:
    out = tmp_path / "toy.zarr"
    count = operations(bench, command, out)
    for n in range(1, count + 1):
        assert killed_and_rerun(bench, command, out, trap=Trap(n)).code == SIGKILL
    rng, killed, tried, span = np.random.default_rng(7), 0, 0, 2.0
    while killed < RANDOM_KILLS:
        tried += 1
        moment = float(rng.uniform(0, span))
        if killed_and_rerun(bench, command, out, kill_after=moment).code == SIGKILL:
            killed += 1
        else:
            span = moment  # it was done before: look earlier
            assert tried < 3 * RANDOM_KILLS
    print(f"{command}: killed before each of {count} operations, and at {killed} random moments of {tried}")
