"""Progress on a terminal and without one, and what a failing file system comes to."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from paths import ROOT

from fwdata import console
from fwdata.cli.inspect_verify import plain_decision
from fwdata.console import Bar, _system_error, _thread_failed, print_table, progress_line, say_list
from fwdata.errors import INTERRUPTED


@pytest.fixture(autouse=True)
def first_line_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the other tests no line comes without a terminal."""
    monkeypatch.setattr(console, "FIRST_SECONDS", 2.0)


DETAILS = ("loss 0.1234", "1.6 steps/s", "data wait 0.4%", "video 0.2000", "action 0.1000", "52 samples/s")


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40])
def test_step_total_bar_and_time_left_fit_every_width(width: int):
    line = progress_line(width, "training", 12345, 20000, "1:23:45", DETAILS)
    assert len(line) <= width and " 12345/20000 1:23:45" in line
    bar = line[line.index("[") + 1 : line.index("]")]
    assert console.SHORTEST_BAR <= len(bar) <= console.LONGEST_BAR
    assert bar.count("=") == len(bar) * 12345 // 20000
    kept = [detail for detail in DETAILS if detail in line]
    assert kept == list(DETAILS[: len(kept)])  # dropped from the end
    assert len(kept) == {200: 6, 120: 5, 80: 2, 60: 1, 40: 0}[width]


def test_a_very_narrow_terminal_keeps_the_numbers():
    assert progress_line(10, "training", 1, 2, "0:00:09", DETAILS) == "[] 1/2 0:00:09"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_of_80_columns_the_bar_shows_count_and_time_left(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    for name, value in {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    bar = Bar("training", "steps")
    bar.start(20000, done=100)
    bar.show(200)
    bar.show(300, DETAILS)
    bar.note("step 300: validation [0]")
    bar.stop()
    text = screen.getvalue()
    assert "step 300: validation [0]" in text
    last = text[text.rindex("training [") :].splitlines()[0]
    assert " 300/20000 0:" in last and "loss 0.1234" in last and len(last.split("\x1b")[0]) <= 80


def test_without_a_terminal_a_plain_line_comes_every_interval(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    bar = Bar("encoding latents", "frames")
    bar.start(1000)
    for _ in range(10):
        clock[0] += 10
        bar.advance(20)
    bar.stop()
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.splitlines() == [
        "encoding latents: 20/1000 frames",
        "encoding latents: 80/1000 frames, 2 frames/s, 0:07:40 left",
        "encoding latents: 140/1000 frames, 2 frames/s, 0:07:10 left",
        "encoding latents: 200/1000 frames, 2 frames/s, 0:06:40 left",
    ]


def test_a_dumb_terminal_gets_plain_lines_and_a_command_of_seconds_one(monkeypatch):
    screen, clock = Screen(), [0.0]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    monkeypatch.setenv("TERM", "dumb")
    bar = Bar("copying", "files")
    bar.start(9)
    for _ in range(3):
        clock[0] += 1.5
        bar.advance(2)
    bar.stop()
    assert screen.getvalue() == "copying: 4/9 files, 1.3 files/s, 0:00:04 left\n"


@pytest.mark.parametrize("program", ["fwdata", "fwtrain"])
def test_ctrl_c_while_modules_are_imported_is_one_sentence(program: str):
    code = (
        "import builtins, sys\nreal = builtins.__import__\n"
        "def stop(name, *rest):\n    if name == 'typer': raise KeyboardInterrupt\n    return real(name, *rest)\n"
        f"builtins.__import__ = stop\nfrom {program}.__main__ import main\nsys.argv = [{program!r}, '--help']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"error: {INTERRUPTED}\n")


def test_a_long_start_does_not_count_as_slow_work(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    bar = Bar("encoding latents", "frames")
    bar.start(1000)
    for seconds in (60, 30, 30):  # a minute to load the weights, then 2 frames a second
        clock[0] += seconds
        bar.advance(1 if seconds == 60 else 60)
    assert capsys.readouterr().err.splitlines() == [
        "encoding latents: 1/1000 frames",
        "encoding latents: 61/1000 frames, 2 frames/s, 0:07:50 left",
        "encoding latents: 121/1000 frames, 2 frames/s, 0:07:20 left",
    ]


def test_quick_work_prints_nothing_without_a_terminal(capsys):
    bar = Bar("verifying", "files")
    bar.start(0)
    bar.start(3)
    bar.advance(3)
    bar.stop()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EROFS, "the file system is read-only while using /x/y; choose a place that can be written"),
        (
            errno.EFBIG,
            "a file is larger than allowed while using /x/y; raise the limit (ulimit -f) or choose another file system",
        ),
        (errno.ENOENT, "No such file or directory while using /x/y; check that place, or choose another; "),
        (errno.EACCES, "permission denied while using /x/y; change its permissions or choose another place"),
        (errno.ENOSPC, "the disk is full while using /x/y; free some space and run the same command again, "),
        (errno.EIO, "Input/output error while using /x/y; what is written is safe, run the same command again"),
    ],
)
def test_a_failing_file_system_is_one_sentence(number: int, sentence: str):
    error: Any = OSError(number, os.strerror(number), "/x/y")
    assert _system_error(error).startswith(sentence)


def test_a_librarys_thread_that_cannot_write_is_a_warning(capsys: pytest.CaptureFixture[str]):
    def fail(error: Exception) -> threading.ExceptHookArgs:
        return threading.ExceptHookArgs((type(error), error, None, threading.current_thread()))

    _thread_failed(fail(OSError(errno.ENOSPC, "No space left on device")))
    assert capsys.readouterr().err.startswith("warning: writing in the background failed: No space left on device; ")
    _thread_failed(fail(ValueError("a fault of ours")))
    assert "ValueError: a fault of ours" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["fwdata", "fwtrain"])
def test_the_shell_can_complete_commands(program: str):
    variable = f"_{program.upper()}_COMPLETE"
    code = f"import sys; from {program}.cli import main; sys.argv[0] = {program!r}; main()"
    environment = {**os.environ, variable: "complete_bash", "COMP_WORDS": f"{program} ", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {"fwdata": "encode-latents", "fwtrain": "check-mask"}[program] in done.stdout.split()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (16.666666666666668, "16.667"),
        ({"hz": 16.666666666666668, "nominal": 15, "measured": True}, "hz 16.667, nominal 15, measured yes"),
        ({"left": {"open": 1, "closed": 0}, "arms": ["a", "b"]}, "left (open 1, closed 0), arms (a, b)"),
        ([{"a": None}, 2], "(a none), 2"),
        ({}, "none"),
        ("PNG, exact", "PNG, exact"),
    ],
)
def test_inspect_shows_decisions_as_text_and_not_as_python(value: Any, text: str):
    assert plain_decision(value) == text


def test_a_table_on_a_narrow_terminal_is_folded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    rows = [("prompt", "A video recorded from a robot's point of view executing the instruction: {task}", "default")]
    monkeypatch.setenv("COLUMNS", "60")
    print_table("", ("key", "value", "from"), rows)
    assert len(capsys.readouterr().out.splitlines()) == 2  # no terminal: a row is a line
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table("", ("key", "value", "from"), rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines).split()).replace(" default", "", 1).endswith("executing the instruction: {task}")


LOST = """
import time, typer
from fwdata.console import run_app
app = typer.Typer()
class Dropped:
    def __del__(self):
        raise KeyboardInterrupt  # as Ctrl-C in a finaliser
@app.command()
def work():
    Dropped()
    time.sleep(600)
run_app(app)
"""


@pytest.mark.parametrize("columns", [1, 40, 80])
def test_a_list_is_folded_with_each_item_below_the_headline(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    say_list("not verified: 2 of 9 conventions", ["rate: " + "the stamps are nominal and " * 5, "red/blue order: none"])
    say_list("nothing", [])
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) < max(25, columns) and "nothing" not in lines
    assert " ".join(" ".join(lines).split()).startswith("not verified: 2 of 9 conventions rate: the stamps are")
    heads = [line for line in lines if line.startswith("  ") and line[2] != " "]
    assert heads[-2].startswith("  rate: ") and heads[-1].startswith("  red/blue order:")


def test_a_list_in_a_log_has_each_item_on_one_line(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    say_list("2 kinds", ["rate: " + "nominal " * 20, "red/blue order: none"])
    assert [line[:8] for line in capsys.readouterr().err.splitlines()] == ["2 kinds", "  rate: ", "  red/bl"]


BUSY = """
import threading
start = threading.Thread.start
def slowly(thread):  # as on a busy machine, where the new thread runs first
    start(thread)
    time.sleep(0.2)
threading.Thread.start = slowly
"""


@pytest.mark.parametrize("machine", ["", BUSY])
def test_ctrl_c_in_a_finaliser_is_not_lost(machine):
    done = subprocess.run(
        [sys.executable, "-c", LOST.replace("run_app(app)", f"{machine}run_app(app)")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (130, f"error: {INTERRUPTED}\n")
