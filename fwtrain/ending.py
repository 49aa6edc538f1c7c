"""The end of a process that has left a save of a checkpoint behind, which waits for its disk or for other processes."""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

SAVING = "save"
"""Name of the threads that write checkpoints."""


def left_behind() -> bool:
    """Whether a save is still being written."""
    return any(thread.name == SAVING for thread in threading.enumerate())


def end_at_once(code: int) -> NoReturn:
    """End this process without waiting: torch's own threads would keep it as long as the save takes, or abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
