"""The process that warm programs are forked from, see `warm.py`: `warm_server.py SOCKET PARENT`.

It has imported the large libraries, has one thread, and runs nothing. A fork gets the descriptors, the folder, the
variables and the `sys.path` that a fresh Python would have. When its program is over it does what a fresh one does
then, but does not take the libraries apart, which would copy all their memory: 0.3 s of CPU.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRELOADED = (
    *("numpy", "PIL.ImageDraw", "PIL.ImageFont", "pydantic.main", "typer", "yaml", "simplejpeg", "h5py", "av"),
    *("pandas", "numcodecs", "google_crc32c", "torch.distributed.fsdp", "torch.utils.tensorboard", "safetensors.torch"),
    *("fwdata.pipeline.part", "fwdata.pipeline.discover", "fwdata.store.caches.latents", "fwtrain.cli"),
)
"""What most commands import: nothing that starts a thread, as pyarrow does, or that reads variables of a user when it
is imported, as huggingface-hub does."""


@dataclass
class Server:
    """Forks programs. ended: where the exit code of each is sent, by the descriptor of its process."""

    listening: socket.socket
    parent: int
    ended: dict[int, tuple[int, socket.socket]] = field(default_factory=dict)
    selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def serve(self) -> dict[str, Any]:
        """Returns in every fork, with what was asked of it; the server itself ends with its parent."""
        self.selector.register(self.listening, selectors.EVENT_READ)
        self.selector.register(self.parent, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fd == self.parent:
                    os._exit(0)
                if key.fileobj is self.listening:
                    request = self._started()
                    if request is not None:
                        return request
                elif key.data is None:
                    self._end(key.fd)
                elif key.fileobj in (other for _, other in self.ended.values()):  # else it ended in this same round
                    self._pass_on(key.fileobj, key.data)

    def _started(self) -> dict[str, Any] | None:
        """The request in a fork; None in the server."""
        control, _ = self.listening.accept()
        head, descriptors, _, _ = socket.recv_fds(control, 4, 3)
        length, data = int.from_bytes(head, "little"), bytearray()
        while len(data) < length:
            data += control.recv(length - len(data))
        number = os.fork()
        if number == 0:
            for place, descriptor in enumerate(descriptors):
                os.dup2(descriptor, place)
            for descriptor in (*descriptors, control.fileno(), self.listening.fileno(), self.parent):
                os.close(descriptor)
            for process, (_, other) in self.ended.items():
                os.close(process)
                other.close()
            control.detach()
            self.listening.detach()
            self.selector.close()
            return json.loads(data)
        for descriptor in descriptors:
            os.close(descriptor)
        process = os.pidfd_open(number)
        self.ended[process] = number, control
        self.selector.register(process, selectors.EVENT_READ)
        self.selector.register(control, selectors.EVENT_READ, process)
        return None

    def _end(self, process: int) -> None:
        number, control = self.ended.pop(process)
        code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        self.selector.unregister(process)
        os.close(process)
        if control in self.selector.get_map():
            self.selector.unregister(control)
            with suppress(OSError):  # the client was killed
                control.sendall(code.to_bytes(4, "little", signed=True))
        control.close()

    def _pass_on(self, control: Any, process: int) -> None:
        """A signal of the client; its end is that of the program."""
        numbers = control.recv(16)
        if not numbers:
            self.selector.unregister(control)
        for number in numbers or [signal.SIGKILL]:
            with suppress(ProcessLookupError):  # it is ending
                signal.pidfd_send_signal(process, number)


def become(request: dict[str, Any], before: list[str]) -> None:
    """Run a program as `python -m MODULE` or `python FILE` would. before: `sys.path` without anything of a user's."""
    environment, program = request["environment"], request["program"]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(request["folder"])
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, _stream(name))
    file = program.endswith(".py")
    first = str(Path(program).parent) if file else request["folder"]
    sys.path[:] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *before]
    sys.argv[:] = [program, *request["arguments"]]
    importlib.invalidate_caches()
    random.seed()
    sys.modules["numpy"].random.seed()
    with warm_workers():
        if file:
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)


def _stream(name: str) -> io.TextIOWrapper:
    """A standard stream, buffered as in a fresh Python."""
    number = ("stdin", "stdout", "stderr").index(name)
    through = number == 2 or bool(os.environ.get("PYTHONUNBUFFERED"))
    errors = "backslashreplace" if number == 2 else "strict"
    raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
    buffered = io.BufferedReader(raw) if number == 0 else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffered, encoding="utf-8", errors=errors, line_buffering=number == 2, write_through=through
    )


def warm_workers() -> Any:
    """Worker processes of a command come from a fork of it, with the libraries that are loaded already."""
    from fwdata.pipeline import fork_server
    from fwdata.pipeline.worker_process import fork_server as inside

    def forked(control: socket.socket, other: socket.socket) -> int:
        parent = os.getpid()
        number = os.fork()
        if number == 0:
            other.close()
            with Path(os.devnull).open() as nothing:
                os.dup2(nothing.fileno(), 0)
            os.dup2(2, 1)
            with suppress(BaseException):  # the program has ended already, when it must not run here once more
                fork_server._serve(control, parent)
            os._exit(1)
        return number

    return inside(forked, now=True)


def leave(ended: SystemExit) -> None:
    """End this process as `sys.exit` would. Returns where a fresh Python has more to say: an error, a closed pipe."""
    if ended.code is not None and not isinstance(ended.code, int):
        return
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does before all else
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit((ended.code or 0) & 0xFF)


def main() -> None:
    address, parent = sys.argv[1], os.pidfd_open(int(sys.argv[2]))
    given = set(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    before = [place for place in sys.path if place not in given]
    for name in PRELOADED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.new")
        listening.listen(64)
        Path(f"{address}.new").rename(address)
        gc.collect()
        gc.freeze()
        request = Server(listening, parent).serve()
    try:
        become(request, before)
        sys.exit()
    except SystemExit as ended:
        leave(ended)
        raise


main()
