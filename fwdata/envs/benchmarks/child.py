"""The process at the other end of `fwdata.envs.benchmarks.process`: one environment, one message at a time."""

from __future__ import annotations

import contextlib
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.base import Environment
from fwdata.envs.benchmarks import load_benchmark
from fwdata.envs.benchmarks.contract import BenchmarkTask, EvalProtocol
from fwdata.envs.play import play_actions, play_reset
from fwdata.errors import FwdataError
from fwdata.pipeline.worker import end_with_parent


@dataclass(frozen=True)
class EnvOrder:
    """Which environment a process is to open."""

    benchmark: str
    """What `load_benchmark` takes."""
    suite: str
    """Its suite."""
    task: BenchmarkTask
    """Its task."""
    protocol: EvalProtocol
    """How it is run."""
    states: NDArray[np.float64]
    """float64 [n, S], the initial states."""


def main() -> None:
    """Entry point: `_ SYS_PATH DESCRIPTOR PARENT` (see `process.EnvProcess`)."""
    descriptor, parent = map(int, sys.argv[2:4])
    end_with_parent(parent)
    connection = Connection(descriptor)
    env: Environment | None = None
    with contextlib.suppress(EOFError):
        while True:
            kind, *values = connection.recv()
            try:
                if kind == "open":
                    env = _open(values[0])
                    connection.send(("opened", None))
                else:
                    assert env is not None
                    play = play_reset if kind == "reset" else play_actions
                    connection.send(("played", play(env, *values)))
            except FwdataError as error:
                connection.send(("error", error))
            except Exception as error:  # noqa: BLE001 - sent to the parent, which counts it as a crash
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
                connection.send(("crashed", f"{type(error).__name__} in {where}: {error}"))


def _open(order: EnvOrder) -> Environment:
    return load_benchmark(order.benchmark).open(order.suite, order.task, order.protocol, order.states)
