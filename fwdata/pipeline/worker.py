"""The process at the other end of `fwdata.pipeline.workers`: takes tasks from its parent until there are no more."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from fwdata.errors import FwdataError, MissingLibrary
from fwdata.pipeline.memory import be_worker
from fwdata.pipeline.workers import EXIT_MEMORY

_PR_SET_PDEATHSIG = 1

COLLECT_AFTER = 5_000
"""Objects after which garbage is looked for: verdicts are thousands, and hold no cycles. Python's own
700 take 1 to 8 ms of CPU of a part of a few dozen recordings."""


@dataclass(frozen=True)
class PipeLink:
    """See `fwdata.pipeline.workers.Link`; an error here means that the parent is gone, and ends the process."""

    connection: Connection
    """Pipe to the parent."""

    def report(self, *values: Any) -> None:
        """See Link."""
        self._send("report", values)

    def announce(self, key: str | None, seconds: float | None = None) -> None:
        """See Link."""
        self._send("announce", (key, seconds))

    def _send(self, kind: str, value: Any) -> None:
        try:
            self.connection.send((kind, value))
        except OSError:
            os._exit(1)


def main() -> None:
    """Entry point: `_ SYS_PATH DESCRIPTOR PARENT MEMORY` (see `worker_process.start_worker`)."""
    descriptor, parent, memory = map(int, sys.argv[2:5])
    end_with_parent(parent)
    serve(Connection(descriptor), memory)


def serve(connection: Connection, memory: int) -> None:
    """Do the tasks that come through a pipe until it is closed. memory: bytes that may be allocated, 0: any number."""
    be_worker()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if memory and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has closed it, or is gone
        while True:
            function, task = connection.recv()
            kind, value = _do(function, task, PipeLink(connection), memory)
            connection.send((kind, value))


def end_with_parent(parent: int) -> None:
    """Be killed when the parent ends, however it ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _do(function: Any, task: tuple[Any, ...], link: PipeLink, memory: int) -> tuple[str, Any]:
    try:
        return "done", function(*task, link=link)
    except MemoryError as error:
        if memory:
            os._exit(EXIT_MEMORY)  # libraries that were refused memory halfway are not to be used again
        return "error", error
    except (FwdataError, OSError) as error:
        return "error", error
    except ModuleNotFoundError as error:
        return "error", MissingLibrary.of(error)
    except Exception as error:  # noqa: BLE001 - sent to the parent, with its traceback
        found = RuntimeError(f"{type(error).__name__}: {error}")  # a foreign class may not survive the way
        found.add_note(traceback.format_exc())
        return "error", found
