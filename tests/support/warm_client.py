"""One program of the server of `warm.py`, as a shell sees it: `warm_client.py SOCKET MODULE_OR_FILE ARGUMENTS`.

Its descriptors, folder and variables are those of the program; a signal it gets is passed on, and it ends as the
program does. Imports next to nothing, for it is there to be started quickly.
"""

import json
import os
import signal
import socket
import sys


def main() -> None:
    control = socket.socket(socket.AF_UNIX)
    control.connect(sys.argv[1])
    request = {
        "program": sys.argv[2],
        "arguments": sys.argv[3:],
        "folder": os.getcwd(),  # noqa: PTH109 - without importing pathlib
        "environment": dict(os.environ),
    }
    data = json.dumps(request).encode(errors="surrogateescape")
    socket.send_fds(control, [len(data).to_bytes(4, "little")], [0, 1, 2])
    control.sendall(data)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: control.send(bytes([number])))
    code = int.from_bytes(control.recv(4), "little", signed=True)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
