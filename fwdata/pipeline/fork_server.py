"""The process that worker processes are forked from: it has imported what they need, so that one starts in 10 ms.

Importing it again in every worker takes 0.3 s of CPU and more. The server runs nothing but imports of fwdata, keeps one
thread, and forks only as long as it has no other, so that a worker begins in a state that is as clean as a fresh
process's. Every worker gets the environment, the folder, `sys.path` and the standard error of the moment it was asked
for. The other end is `fwdata.pipeline.worker_process`, which starts workers without a server where there cannot be one.

A request is its length in 4 bytes, with three descriptors (the worker's pipe, a pipe for its exit status, standard
error), and JSON; the answer is the worker's number, with a descriptor of the process. Linux only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import socket
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from fwdata.pipeline.worker import end_with_parent, serve
from fwdata.pipeline.worker_process import WorkerRequest

PRELOADED = ("fwdata.pipeline.part", "fwdata.pipeline.discover")
"""What converting needs whatever the source is; no module among them may start a thread."""

REFUSED = 0
"""Answered in place of a process number where the server cannot fork."""


@dataclass
class _Server:
    """The server's end. workers: by the descriptor of each process: its number, and where its exit status is sent."""

    control: socket.socket
    parent: int
    workers: dict[int, tuple[int, int]] = field(default_factory=dict)

    def run(self) -> NoReturn:
        """Fork workers and report how they end, until the other end is closed or its process is gone."""
        poll = select.poll()
        for descriptor in (self.control.fileno(), self.parent):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor in self.workers:
                    poll.unregister(descriptor)
                    self._ended(descriptor)
                elif descriptor == self.parent or not self._answered(poll):
                    os._exit(0)  # workers that are left end with this process

    def _ended(self, descriptor: int) -> None:
        number, status = self.workers.pop(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        try:
            os.write(status, code.to_bytes(4, "little", signed=True))
        except OSError:
            pass  # nobody asks any more
        finally:
            os.close(status)
            os.close(descriptor)

    def _answered(self, poll: select.poll) -> bool:
        """Answer one request; False at the end of them, and where nobody waits for the answer any more."""
        try:
            return self._answer(poll)
        except (BrokenPipeError, ConnectionResetError):  # interrupted, as by Ctrl-C
            return False

    def _answer(self, poll: select.poll) -> bool:
        head, descriptors, _, _ = socket.recv_fds(self.control, 4, 3)
        if not head:
            return False
        data = self._exactly(int.from_bytes(head, "little"))
        connection, status, errors = descriptors
        number = self._fork()
        if number == 0:
            self._be_worker(json.loads(data), connection, status, errors)
        if number is None:
            self.control.sendall(REFUSED.to_bytes(4, "little"))
            os.close(status)
        else:
            process = os.pidfd_open(number)
            self.workers[process] = number, status
            poll.register(process, select.POLLIN)
            socket.send_fds(self.control, [number.to_bytes(4, "little")], [process])
        os.close(connection)
        os.close(errors)
        return True

    @staticmethod
    def _fork() -> int | None:
        """As `os.fork`; None where the system has no room for a process, or a library has started a thread here."""
        if _threads() > 1:
            return None
        try:
            return os.fork()
        except OSError:
            return None

    def _exactly(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self.control.recv(length - len(parts))
            if not part:
                os._exit(1)
            parts += part
        return bytes(parts)

    def _be_worker(self, request: WorkerRequest, connection: int, status: int, errors: int) -> NoReturn:
        """What the fork does; never returns to the server's loop."""
        code = 1
        try:
            end_with_parent(request["server"])
            os.dup2(errors, 1)  # what a library prints must not mix with results
            os.dup2(errors, 2)
            for descriptor in (self.control.fileno(), self.parent, status, errors):
                os.close(descriptor)
            for process, (_, other) in self.workers.items():
                os.close(process)
                os.close(other)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            sys.path[:] = request["path"]
            importlib.invalidate_caches()
            serve(Connection(connection), request["memory"])
            code = 0
        except BaseException:  # noqa: BLE001 - printed as an uncaught error is; nothing of it may reach the server's loop
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more: no reason to go on from here
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def main() -> None:
    """Entry point: `_ SYS_PATH DESCRIPTOR PARENT` (see `worker_process.ForkServer`)."""
    descriptor, number = map(int, sys.argv[2:4])
    _import_all()
    gc.freeze()
    _serve(socket.socket(fileno=descriptor), number)


def fork_command(control: socket.socket, other: socket.socket) -> int | None:
    """A server forked from this process, where this is the command `fwdata` itself, which has imported the same.

    control, other: the server's end and this process's. Returns the number of its process; None where anything but
    the command may have run here, a library has started a thread, or torch, whose state on a GPU survives no fork, is
    loaded.
    """
    started = getattr(sys.modules["__main__"], "__file__", None) or ""
    if Path(started).name != "fwdata" and Path(started).parts[-2:] != ("fwdata", "__main__.py"):
        return None
    _import_all()
    if "torch" in sys.modules or _threads() > 1:
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    gc.freeze()  # what is here already is not looked through, here and in workers, and so not copied there
    number = os.fork()
    if number:
        return number
    try:
        other.close()  # else the server would never see it closed
        with open(os.devnull) as nothing:  # noqa: PTH123 - a device
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        _serve(control, parent)
    finally:
        os._exit(1)


def _import_all() -> None:
    for name in PRELOADED:
        importlib.import_module(name)


def _serve(control: socket.socket, number: int) -> NoReturn:
    """Be the server of a parent process."""
    parent = os.pidfd_open(number)
    if os.getppid() != number:  # it has ended already
        os._exit(1)
    gc.enable()  # the command imports without it
    _Server(control, parent).run()


def _threads() -> int:
    """Threads of this process, those of libraries included."""
    return len(list(Path("/proc/self/task").iterdir()))
