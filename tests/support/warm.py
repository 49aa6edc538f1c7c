"""Programs that start in 30 ms of CPU: forked from a process that has imported torch, rather than 1 to 4 s each.

For tests of what several commands do one after another. That a fresh Python starts, and with which imports, is what
`test_start.py`, `test_wheel.py` and `test_cli.py` show.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import SUPPORT

type WarmProgram = tuple[str, ...]
"""The beginning of a command line."""


LAUNCHER = """#!/bin/sh
shift
exec {client} "$@"
"""
BEGUN = "import runpy, sys; sys.executable, *sys.argv = sys.argv[1:]; runpy.{how}(sys.argv[0], run_name='__main__')"

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""What the server starts with: a process of several threads must not be forked."""


class WarmPrograms:
    """The server's address. `warm("fwdata")` is used in place of `[sys.executable, "-m", "fwdata"]`."""

    def __init__(self, address: Path) -> None:
        self._address = address

    def __call__(self, program: str) -> WarmProgram:
        """How a module, or a file by a name that ends in .py, is started."""
        return *self._client, program

    def launching(self, program: str, folder: Path) -> WarmProgram:
        """A fresh Python that runs a module or a file; what it starts as `sys.executable -m MODULE` is warm."""
        launcher = folder / "python"
        launcher.write_text(LAUNCHER.format(client=shlex.join(self._client)))
        launcher.chmod(0o755)
        begun = BEGUN.format(how="run_path" if program.endswith(".py") else "run_module")
        return sys.executable, "-c", begun, str(launcher), program

    @property
    def _client(self) -> WarmProgram:
        return sys.executable, "-IS", str(SUPPORT / "warm_client.py"), str(self._address)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPrograms]:
    """Programs that are forked from one server of this session."""
    address = tmp_path_factory.mktemp("warm") / "socket"
    command = [sys.executable, "-P", str(SUPPORT / "warm_server.py"), str(address), str(os.getpid())]
    with subprocess.Popen(command, env=os.environ | ONE_THREAD) as server:
        while not address.exists():
            assert server.poll() is None
            time.sleep(0.05)
        yield WarmPrograms(address)
        server.kill()
