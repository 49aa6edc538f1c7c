"""Running a command in a forked process that dies, or whose system calls fail, at a chosen moment.

Every file operation that changes something (opening for writing, making, renaming and removing) announces itself as an
audit event before it happens. A trap counts these events and acts at the n-th: it kills the process with SIGKILL, or
makes the operation fail with an error of the system's. Killing before every operation visits every state that the
directory tree goes through; what lies between, a file half written, is met by kills at random times.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
MODULES = (".py", ".pyc", ".so")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Trap:
    """What happens at the n-th operation (1-based). error: errno that the operation fails with; None kills.

    reads: opening for reading counts too, but for modules: how many of them are still to be read depends on what the
    process did before. fsync: the n-th fsync fails instead. n = 0 only counts.
    """

    n: int = 0
    error: int | None = None
    reads: bool = False
    fsync: bool = False


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (negative: the signal that killed it), operations counted, what it printed, and the
    memory in MB that it or a process of its own took above this one's."""

    code: int
    operations: int
    output: str
    megabytes: int = 0


def run_command(
    main: Callable[[], Any],
    argv: Sequence[str | Path],
    trap: Trap | None = None,
    *,
    kill_after: float | None = None,
    max_file_bytes: int | None = None,
) -> Ended:
    """Run a command line in a fork of this process and wait for its end.

    kill_after: seconds after which it is killed from outside. max_file_bytes: a write that would make a file larger
    is cut short and then fails (EFBIG).
    """
    said, say = os.pipe()
    ours, theirs = os.pipe()
    before = _resident()
    child = os.fork()
    if child == 0:
        os.close(ours)
        os.close(said)
        _be_child(main, argv, trap, say, theirs, max_file_bytes)
    os.close(theirs)
    os.close(say)
    with ThreadPoolExecutor(2) as pool:
        output, counts = pool.submit(_all_of, said), pool.submit(_all_of, ours)
        if kill_after is not None:
            _kill_later(child, kill_after)
        _, status, usage = os.wait4(child, 0)
        text, counted = output.result().decode(errors="replace"), counts.result()
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Ended(code, len(counted), text, max(0, usage.ru_maxrss // 1024 - before))


def _resident() -> int:
    """MB of memory that this process holds now; a fork begins with them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def _all_of(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read()


def _kill_later(child: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.001)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def _be_child(
    main: Callable[[], Any],
    argv: Sequence[str | Path],
    trap: Trap | None,
    output: int,
    counts: int,
    max_file_bytes: int | None,
) -> None:
    """Never returns."""
    code = 99
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        sys.argv = [str(a) for a in argv]
        sys.dont_write_bytecode = True
        if max_file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))
        if trap is not None:
            _set(trap, counts)
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    except BaseException:  # noqa: BLE001 - a traceback is what a test must see
        import traceback

        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _set(trap: Trap, counts: int) -> None:
    passed = 0

    def step(what: str) -> None:
        nonlocal passed
        passed += 1
        os.write(counts, b".")
        if passed == trap.n:
            if trap.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(trap.error, os.strerror(trap.error), what)

    if trap.fsync:
        os.fsync = lambda descriptor: step("fsync")
        return

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in CHANGES:
            step(str(args[0]))
        elif event == "open" and isinstance(args[2], int):
            writing = bool(args[2] & WRITING)
            named = isinstance(args[0], str | bytes | os.PathLike)
            other = not named or str(args[0]).startswith("/proc") or str(args[0]).endswith(MODULES)
            if not other and (writing or trap.reads):
                step(str(args[0]))

    sys.addaudithook(hook)
