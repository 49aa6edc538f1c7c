"""Programs that tests start from a warm server end, fail and are killed as fresh ones are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warm import WarmPrograms

PROGRAM = """
import os, sys, time
print(sys.argv[1:], os.getcwd(), os.environ.get("SAID"), sys.path[0], __name__, flush=True)
print("an error", file=sys.stderr)
if sys.argv[1] == "die":
    os.kill(os.getpid(), 9)
if sys.argv[1] == "wait":
    open(sys.argv[2], "w").write(str(os.getpid()))
    time.sleep(60)
sys.exit(7)
"""


@pytest.mark.slow
def test_a_warm_program_is_like_a_fresh_one(tmp_path: Path, warm: WarmPrograms) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    for arguments, code in (("end",), 7), (("die",), -signal.SIGKILL):
        pair = [
            subprocess.run([*command, *arguments], capture_output=True, cwd=tmp_path, env={**os.environ, "SAID": "a b"})
            for command in ((sys.executable, str(program)), warm(str(program)))
        ]
        assert [done.returncode for done in pair] == [code, code]
        assert pair[0].stdout == pair[1].stdout and pair[0].stderr == pair[1].stderr
    done = subprocess.run([*warm("fwdata"), "nope"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "No such command 'nope'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_a_warm_program(tmp_path: Path, warm: WarmPrograms, number: int) -> None:
    program, mark = tmp_path / "program.py", tmp_path / "mark"
    program.write_text(PROGRAM)
    command = [*warm(str(program)), "wait", str(mark)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.01)
        running.send_signal(number)
        assert running.wait(20) == -number
    until = time.monotonic() + 20
    while Path("/proc", mark.read_text()).exists():
        assert time.monotonic() < until
        time.sleep(0.01)
