"""Tasks for test_workers, in a module of their own so that a worker that does them starts fast."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

from fwdata.errors import FwdataError
from fwdata.pipeline.workers import Link


def double(value: int, *, link: Link) -> int:
    """Twice the value; 3 ends the process, 5 is an error."""
    link.report(value)
    if value == 3:
        os.kill(os.getpid(), signal.SIGABRT)
    if value == 5:
        raise FwdataError("five")
    return 2 * value


def process_of(name: str, *, link: Link) -> tuple[str, int]:
    """The name, and the process that was given it; long enough for both workers to be at one."""
    time.sleep(0.03)
    return name, os.getpid()


def write_pid(path: str, *, link: Link) -> None:
    """Say which process this is, then do nothing for a long time."""
    temporary = Path(path + ".tmp")
    temporary.write_text(str(os.getpid()))
    temporary.rename(path)
    time.sleep(600)


def surroundings(*, link: Link) -> dict[str, object]:
    """What a worker got from whoever started it; writes to both outputs."""
    print("printed", flush=True)
    print("complained", file=sys.stderr, flush=True)
    return {
        "parent": os.getppid(),
        "folder": str(Path.cwd()),
        "path": list(sys.path),
        "environment": dict(os.environ),
        "collects": gc.isenabled(),
        "threads": threading.active_count(),
        "blocked": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "main": sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("__")),
    }


def end_parent_once(mark: str, *, link: Link) -> int:
    """End the process that started this one the first time, and return its number the next."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return os.getppid()
