"""An environment in a process of its own: a crash or a hang costs one trial and is said in one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.benchmarks.child import EnvOrder
from fwdata.envs.play import EnvLost, Played
from fwdata.errors import one_line

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from fwdata.envs.benchmarks import child; child.main()"
)
OPEN_SECONDS = 600.0
"""An environment that is not open or reset after so long hangs."""
STEP_SECONDS = 60.0
"""A step that takes longer hangs: 200 times what it takes on a slow machine."""


class EnvProcess:
    """A `Player` in a process of its own. Ask (`reset`, `run`), then `receive`; one question at a time.

    seconds: how long one question may take, None for the module's own limits.
    """

    def __init__(self, order: EnvOrder, seconds: float | None = None) -> None:
        self.order = order
        self._seconds = seconds
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        here, there = Pipe()
        environment = dict(os.environ)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment.setdefault(name, "1")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C reaches the parent only
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(there.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[there.fileno()],
                env=environment,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        self.connection: Connection = here
        self.deadline = 0.0
        self._opened, self._asked = False, 0.0
        self._send(("open", order), OPEN_SECONDS)

    def reset(self, seed: int, trial: int) -> None:
        """Start a trial; answered by what the policy sees first."""
        self._ask(("reset", seed, trial), OPEN_SECONDS)

    def run(self, actions: NDArray[np.floating], film: bool = False) -> None:
        """Carry out actions [n, a] until they or the trial are over."""
        self._ask(("run", actions, film), OPEN_SECONDS / 10 + STEP_SECONDS * len(actions))

    def _ask(self, message: tuple[Any, ...], seconds: float) -> None:
        """Send a question, even to an environment that is not open yet: it goes on by itself while nobody listens."""
        self._asked = seconds
        self._send(message, seconds if self._opened else OPEN_SECONDS)

    def _send(self, message: tuple[Any, ...], seconds: float) -> None:
        self._allow(seconds)
        try:
            self.connection.send(message)
        except OSError:
            return  # its end is noticed when the answer is read

    def _allow(self, seconds: float) -> None:
        self._limit = self._seconds or seconds
        self.deadline = time.monotonic() + self._limit

    def receive(self) -> Played | None:
        """The answer, when there is one; None when it is too early (the environment has just opened).

        Raises EnvLost when the process ended, crashed or hangs, and what the environment itself refused.
        """
        if not self.connection.poll():
            if time.monotonic() < self.deadline:
                return None
            self.close()
            raise EnvLost(f"did not answer for {self._limit:,.0f} s and was ended")
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            raise EnvLost(self._ending()) from None
        if kind == "error":
            self.close()
            raise value
        if kind == "crashed":
            self.close()
            raise EnvLost(f"crashed: {one_line(value)}")
        if kind == "opened":
            self._opened = True
            self._allow(self._asked or OPEN_SECONDS)
            return None
        found: Played = value
        return found

    def answer(self) -> Played:
        """Wait for the answer; see `receive`."""
        while True:
            wait([self.connection], max(0.0, self.deadline - time.monotonic()))
            found = self.receive()
            if found is not None:
                return found

    def close(self) -> None:
        """End the process at once: renderers that are closed in order print errors."""
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._log.close()

    def _ending(self) -> str:
        try:
            code = self._process.wait(timeout=10)  # it closed its end of the connection: it is on its way out
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._log.seek(0)
        said = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        self.close()
        how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with status {code}"
        return f"{how}: {one_line(said[-1])}" if said else how
