"""Starting a worker process: forked from a server that has imported what it needs, or else as a fresh Python.

    with fork_server() as server: start_worker(connection, memory, environment)

The server lives as long as somebody is inside a `fork_server()` of this process, and is started for the first worker.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol, TypedDict

_WORKER = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from fwdata.pipeline import worker; worker.main()"
_SERVER = _WORKER.replace("worker", "fork_server")

AT_START = ("GLIBC_", "GOTO_", "LD_", "MALLOC_", "MKL_", "NPY_", "OMP_", "OPENBLAS_", "PYDANTIC_", "PYTHON")
"""Beginnings of variables that are read when a process starts or imports a library: where a worker's differ from those
of the server, it is started as a fresh process."""

ANSWER_SECONDS = 120.0
"""How long a worker is waited for: importing from a slow disk takes a part of it. A server that does not answer is
ended, and with it the workers that it has; their tasks are done again by fresh processes."""


class WorkerRequest(TypedDict):
    """The JSON by which a server is asked to fork a worker."""

    server: int
    """Number of the server's process."""
    path: list[str]
    """`sys.path` of the worker."""
    environment: dict[str, str]
    """All its variables."""
    folder: str
    """Its working directory."""
    memory: int
    """Bytes that it may allocate; 0: any number."""


type Forker = Callable[[socket.socket, socket.socket], int | None]
"""Forks a server, given its end of a socket and this process's; the number of its process, None where it cannot."""


class WorkerProcess(Protocol):
    """A process as whoever started it sees it; `subprocess.Popen` is one."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self, timeout: float | None = None) -> int:
        """Exit status, or minus the signal that ended it. subprocess.TimeoutExpired after `timeout` seconds."""


@dataclass
class ForkedWorker:
    """A worker that a server has forked."""

    process: int
    """Descriptor of the process."""
    status: int
    """Descriptor of a pipe that the server writes its exit status to."""
    _code: int | None = None

    def kill(self) -> None:
        """See WorkerProcess."""
        if self._code is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.process, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """See WorkerProcess. A server that is gone has taken its workers along: they count as killed."""
        if self._code is None:
            poll = select.poll()
            poll.register(self.status, select.POLLIN)
            if not poll.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
            code = os.read(self.status, 4)
            self._code = int.from_bytes(code, "little", signed=True) if code else -signal.SIGKILL
            os.close(self.status)
            os.close(self.process)
        return self._code


@dataclass
class ForkedServer:
    """A server that is a fork of this process."""

    pid: int
    """Number of the process."""
    returncode: int | None = None
    """Its exit status once it has been waited for."""

    def kill(self) -> None:
        """See WorkerProcess."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """See WorkerProcess."""
        if self.returncode is None:
            process = os.pidfd_open(self.pid)
            try:
                if not select.select([process], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("server", timeout or 0.0)
            finally:
                os.close(process)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


class ForkServer:
    """The server, from the side of the process that started it; see `fwdata.pipeline.fork_server`."""

    def __init__(self, forker: Forker | None = None) -> None:
        self.environment = worker_environment({})
        """Variables it was started with."""
        self.usable = True
        """Whether more workers can be asked for; those that are there need it in any case."""
        self._asked = False
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = self._forked(forker, theirs) or self._fresh(theirs)

    def _fresh(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
        return start_python(_SERVER, arguments, theirs.fileno(), self.environment)

    def _forked(self, forker: Forker | None, theirs: socket.socket) -> ForkedServer | None:
        with _no_interrupts():
            number = None if forker is None else forker(theirs, self._control)
        return None if number is None else ForkedServer(number)

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether a process forked from it is like one that is started with these variables."""
        return self.usable and _at_start(environment) == _at_start(self.environment)

    def fork(self, connection: int, memory: int, environment: Mapping[str, str]) -> ForkedWorker | None:
        """A worker that reads tasks from a pipe; None where there can be none from this server, now or later.

        OSError where the server is gone, or does not answer for ANSWER_SECONDS and is ended.
        """
        self._asked, self.usable = True, False  # until the answer is here, which nobody else may wait for
        request = WorkerRequest(
            server=self._process.pid,
            path=sys.path,
            environment=dict(environment),
            folder=str(Path.cwd()),
            memory=memory,
        )
        data = json.dumps(request).encode()
        status, theirs = os.pipe()
        try:
            self._control.settimeout(ANSWER_SECONDS)
            socket.send_fds(self._control, [len(data).to_bytes(4, "little")], [connection, theirs, 2])
            self._control.sendall(data)
            _, descriptors, _, _ = socket.recv_fds(self._control, 4, 1)
        except BaseException as error:
            os.close(status)
            if isinstance(error, TimeoutError):
                self._process.kill()  # else it might still fork a worker, which would share a pipe with its replacement
            raise
        finally:
            os.close(theirs)
        if not descriptors:
            os.close(status)
            return None
        self.usable = True
        return ForkedWorker(descriptors[0], status)

    def end(self) -> None:
        """End it, and with it the workers that are left."""
        if not (self._asked and self.usable):  # it may be importing still, or have an answer that nobody waits for
            self._process.kill()
        self._control.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Leave it to the process that this one was forked from."""
        self._control.close()
        self._process.returncode = 0  # not a child of this process


@dataclass
class _Shared:
    """The server of this process. users: how many are inside `fork_server()`."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    users: int = 0
    server: ForkServer | None = None
    possible: bool = sys.platform == "linux" and hasattr(os, "pidfd_open")

    def prepare(self, forker: Forker | None = None) -> ForkServer | None:
        """The server, started where it is not there yet; None where there is none."""
        with self.lock:
            if self.possible and self.users and self.server is None:
                try:
                    os.close(os.pidfd_open(os.getpid()))
                    self.server = ForkServer(forker)
                except OSError:  # refused by the system, as in some containers
                    self.possible = False
            return self.server

    def end(self) -> None:
        """End the server."""
        with self.lock:
            server, self.server = self.server, None
            if server is not None:
                server.end()


_shared = _Shared()


def _after_fork() -> None:
    """A fork of this process starts a server of its own."""
    global _shared
    before, _shared = _shared, _Shared()
    if before.server is not None:
        before.server.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def fork_server(forker: Forker | None = None, *, now: bool = False) -> Iterator[None]:
    """Keep a server for workers started inside. now: start it at once, by forking this process where that can be done.

    forker: `fork_server.fork_command`; None, or where it forks nothing: a fresh process imports beside this one.
    """
    shared = _shared
    with shared.lock:
        shared.users += 1
    try:
        if now:
            shared.prepare(forker)
        yield
    finally:
        with shared.lock:
            shared.users -= 1
            if not shared.users:
                shared.end()


def start_worker(connection: Connection, memory: int | None, environment: Mapping[str, str]) -> WorkerProcess:
    """A process that does the tasks of a pipe, see `fwdata.pipeline.worker`; Ctrl-C in a terminal does not reach it.

    environment: variables besides those of this process. Cost: 10 ms with a server that has started, else 0.4 s of CPU.
    """
    variables = worker_environment(environment)
    shared = _shared
    with shared.lock:
        server = shared.prepare()
        if server is not None and server.suits(variables):
            with suppress(OSError):  # the server is gone, or the folder of this process
                forked = server.fork(connection.fileno(), memory or 0, variables)
                if forked is not None:
                    return forked
    arguments = [json.dumps(sys.path), str(connection.fileno()), str(os.getpid()), str(memory or 0)]
    return start_python(_WORKER, arguments, connection.fileno(), variables)


def worker_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Variables of a worker: those of this process and `more`, and one thread per library where they do not say."""
    variables = {**os.environ, **more}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        variables.setdefault(name, "1")
    return variables


def start_python(
    program: str, arguments: list[str], descriptor: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """A fresh Python that inherits a descriptor. Ctrl-C in a terminal reaches its parent only."""
    with _no_interrupts():
        return subprocess.Popen(
            [sys.executable, "-P", "-c", program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a library prints must not mix with results
            pass_fds=[descriptor],
            env=dict(environment),
        )


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ctrl-C is held back, and does not reach processes started inside, which inherit the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_START)}
