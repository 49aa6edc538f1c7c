"""Every file operation may fail: the command ends with one sentence and a documented code, and a rerun completes.

The short run tries a sample of operations; `pytest -m fault` every operation with every error.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fault.bench import COMMANDS, Bench, open_bench, run_again
from fault.child import Ended, Trap
from fwdata.errors import EXIT_DAMAGED, EXIT_OK, EXIT_UNEXPECTED, EXIT_USAGE

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
CODES = {EXIT_OK, EXIT_UNEXPECTED, EXIT_USAGE, EXIT_DAMAGED}
"""How a command may end; OK where what failed was not needed (a cleanup)."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("bench")) as opened:
        yield opened


def failed_and_rerun(on: Bench, command: str, out: Path, **how: object) -> Ended:
    on.before(command, out)
    ended = on.run(command, out, **how)  # type: ignore[arg-type]
    where = f"{command} with {how}: {ended.output}"
    assert ended.code in CODES, where
    assert "Traceback" not in ended.output, where
    if ended.code:
        assert sum(line.startswith("error: ") for line in ended.output.splitlines()) == 1, where
    run_again(on, command, out, where)
    return ended


def counted(on: Bench, command: str, out: Path, trap: Trap) -> int:
    on.before(command, out)
    ended = on.run(command, out, trap)
    assert ended.code == 0, ended.output
    return ended.operations


def points(count: int, most: int | None, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Operations from 1 on and the error of each: one drawn from every of `most` equal stretches; None: all of them."""
    if most is None:
        return [(n, error) for n in range(1, count + 1) for error in ERRORS]
    edges = np.linspace(1, count + 1, min(most, count) + 1).astype(int)
    drawn = [int(rng.integers(a, b)) for a, b in pairwise(edges.tolist())]
    return [(n, ERRORS[i % len(ERRORS)]) for i, n in enumerate(drawn)]


def try_all(on: Bench, command: str, out: Path, most: int | None) -> dict[str, int]:
    """Let operations fail, at most so many of a kind; counts tried and failed runs."""
    rng = np.random.default_rng(len(command))
    tried, failed = 0, 0
    for kind in ({"reads": True}, {"fsync": True}):
        for n, error in points(counted(on, command, out, Trap(**kind)), most, rng):
            tried += 1
            failed += failed_and_rerun(on, command, out, trap=Trap(n, error, **kind)).code != 0
    for size in (0, 1, 100, 500, 1000, 3000):
        if most is None or rng.random() < 0.3:
            tried += 1
            failed += failed_and_rerun(on, command, out, max_file_bytes=size).code != 0
    return {"tried": tried, "failed": failed}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_failing_operations(bench: Bench, command: str, tmp_path: Path) -> None:
    totals = try_all(bench, command, tmp_path / "toy.zarr", most=4)
    assert totals["failed"] > 0


@pytest.mark.fault
@pytest.mark.parametrize("command", COMMANDS)
def test_every_operation_fails_once(bench: Bench, command: str, tmp_path: Path) -> None:
    totals = try_all(bench, command, tmp_path / "toy.zarr", most=None)
    print(command, totals)
    assert totals["failed"] > totals["tried"] // 2
