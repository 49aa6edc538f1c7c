"""What the commands of both programs share: one-sentence errors, exit codes, progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fwdata.errors import (
    EXIT_INTERRUPTED,
    EXIT_UNEXPECTED,
    EXIT_USAGE,
    EXTRAS,
    INTERRUPTED,
    FwdataError,
    MissingLibrary,
    UsageError,
)
from fwdata.io import naming, plain_json, refuse_url

if TYPE_CHECKING:
    import typer


def set_environment() -> None:
    """Defaults of the variables that libraries read when they are imported, here and in processes of the command.

    OMP_WAIT_POLICY: idle OpenMP threads must not spin; on cores shared with other work, two spinning threads made a
    training step 11 to 18 times slower (42 s against 3.7 s for ten steps beside two busy processes).
    PYDANTIC_DISABLE_PLUGINS: none is of use here, and looking for them reads the metadata of every installed package.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


WRITTEN = ("out", "html", "record", "rerun")
"""Parameters of commands that name what is written; none of it belongs into a store."""
POSIX = ("fcntl", "resource")
"""Modules of Python that Windows lacks."""


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command line: a user's mistake is one sentence on stderr, never a traceback."""
    import typer

    wrong_usage, click_error = usage_errors()
    threading.excepthook, sys.unraisablehook = _thread_failed, _lost_in_a_callback
    try:
        code = app(standalone_mode=False)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click_error as error:
        context = getattr(error, "ctx", None) if isinstance(error, wrong_usage) else None
        message = getattr(error, "format_message", error.__str__)().rstrip(".")
        if not message or message.startswith("Usage: "):  # no command at all: the help
            print(message, file=sys.stderr)
            sys.exit(EXIT_USAGE)
        fail(f"{message} (see `{context.command_path} --help`)" if context is not None else message, EXIT_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except FwdataError as error:
        fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in POSIX:
            fail(
                f"writing stores needs Linux or macOS; reading works on this system, which has no {library}", EXIT_USAGE
            )
        if library not in EXTRAS:
            raise
        fail(str(MissingLibrary.of(error)), EXIT_USAGE)
    except OSError as error:
        fail(_system_error(error), EXIT_UNEXPECTED)
    if code == EXIT_INTERRUPTED:  # typer turns Ctrl-C into this code
        fail(INTERRUPTED, EXIT_INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """A library's thread that cannot write, as TensorBoard's on a full disk, is a warning too, and no traceback."""
    if isinstance(failed.exc_value, OSError):
        reason = failed.exc_value.strerror or failed.exc_value
        warn(f"writing in the background failed: {reason}; what TensorBoard shows of this run may be incomplete")
    else:
        threading.__excepthook__(failed)


def _lost_in_a_callback(lost: sys.UnraisableHookArgs) -> None:
    """Ctrl-C that Python drops since it came in a finaliser or a weak reference's callback comes again after it.

    Not before this function is left, however long starting a thread takes: it would be dropped again.
    """
    left = False

    def again() -> None:
        while not left:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)  # ends a wait of the main thread, too

    main = threading.main_thread().ident or 0
    if isinstance(lost.exc_value, KeyboardInterrupt) and hasattr(signal, "pthread_kill"):
        threading.Thread(target=again, daemon=True).start()  # absent on Windows
        left = True  # between this and the end Python looks for no signal
    else:
        sys.__unraisablehook__(lost)


def add_version(app: typer.Typer, name: str) -> None:
    """Give a command line the option --version."""
    import typer

    def show(asked: bool) -> None:
        if asked:
            from fwdata import __version__

            print(f"{name} {__version__}")
            raise typer.Exit

    option = typer.Option(False, "--version", callback=show, is_eager=True, help="Show the version and exit.")

    def callback(version: bool = option) -> None:
        pass

    app.callback()(callback)


def local_paths_only(app: typer.Typer) -> None:
    """Have every command of a command line refuse URLs for its paths, but for STORE, and results inside a store.

    Without it `--out s3://bucket/x` would make a folder `s3:` here.
    """
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _with_local_paths(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            local_paths_only(group.typer_instance)


def _with_local_paths(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        in_memory = False
        for name, value in options.items():
            for path in value if isinstance(value, list) else [value]:
                in_memory |= isinstance(path, str | Path) and str(path).startswith("memory:/")
                if (isinstance(path, Path) and path == Path()) or (path == "" and name in (*WRITTEN, "target")):
                    _refuse_empty(name)
                if isinstance(path, Path) and name != "store":
                    refuse_url(path, f"{name.upper().replace('_', '-')} takes a path of this machine")
                    if name in WRITTEN:
                        from fwdata.store.files import refuse_nested

                        refuse_nested(path)
        with _naming_place(options):
            done = function(*arguments, **options)
        if in_memory:
            say("note: memory:// is the memory of this process; nothing in it remains when the process ends")
        return done

    return checked


@contextlib.contextmanager
def _naming_place(options: Mapping[str, Any]) -> Iterator[None]:
    """Have an error of a full disk that names no file, as a library's, name what the command writes."""
    place = next((value for name in (*WRITTEN, "target", "store") if (value := options.get(name))), None)
    with naming(str(place)) if place is not None else contextlib.nullcontext():
        yield


def _refuse_empty(name: str) -> None:
    """UsageError where an empty text was typed for a path, which would mean the current folder."""
    if any(typed == "" or (typed.startswith("--") and typed.endswith("=")) for typed in sys.argv[1:]):
        raise UsageError(
            f"{name.upper().replace('_', '-')} is an empty path, as of a shell variable that is not set; give `.` for "
            "the current folder"
        )


def usage_errors() -> tuple[type[Exception], type[Exception]]:
    """(UsageError, ClickException) of the click that typer ships: the bases of a public name."""
    import typer

    usage, base = typer.BadParameter.__mro__[1:3]
    return usage, base


def _system_error(error: OSError) -> str:
    where = f" while using {error.filename}" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk is full{where}; free some space and run the same command again, it continues where it stopped"
    if error.errno == errno.EROFS:
        return f"the file system is read-only{where}; choose a place that can be written"
    if error.errno == errno.EFBIG:
        return f"a file is larger than allowed{where}; raise the limit (ulimit -f) or choose another file system"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"permission denied{where}; change its permissions or choose another place"
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
        return f"{error.strerror}{where}; check that place, or choose another; what is written is safe"
    return f"{error.strerror or error}{where}; what is written is safe, run the same command again to continue"


def fail(message: str, code: int) -> NoReturn:
    """End with one sentence on stderr and an exit code."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def say(message: str) -> None:
    """A message for people, on stderr."""
    print(message, file=sys.stderr)


def say_list(headline: str, items: Sequence[str]) -> None:
    """A headline for people and its items below it, on stderr; nothing where there are no items. A terminal has them
    folded to its width; a log has each on one line, where it can be searched for."""
    columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else sys.maxsize
    width = max(NARROWEST_COLUMN, columns - 1)
    fold = partial(textwrap.wrap, width=width, break_long_words=False, break_on_hyphens=False)
    if items:
        say("\n".join(fold(headline, subsequent_indent="  ")))
    for item in items:
        say("\n".join(fold(item, initial_indent="  ", subsequent_indent="    ")))


def warn(message: str) -> None:
    """A warning, on stderr."""
    print(f"warning: {message}", file=sys.stderr)


def emit_json(value: Any) -> None:
    """The one JSON document of a command, on stdout."""
    print_document(json.loads(json.dumps(value, ensure_ascii=False, default=plain_json)))


def print_document(value: object) -> None:
    """Print plain JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


FIRST_SECONDS, PLAIN_SECONDS = 2.0, 30.0
"""Without a terminal, a line of progress is printed after the first and then as often as the second says."""
SHORTEST_BAR, LONGEST_BAR = 10, 40
"""Characters between the brackets of a bar."""


class Bar:
    """Progress on stderr: a bar on a terminal, plain lines where stderr is piped or a dumb terminal."""

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit = label, unit
        self._done = self._total = self._first = 0
        self._details: tuple[str, ...] | None = None
        self._began = self._printed = 0.0
        self._moving = self._lines = False
        self._progress: Any = None

    def start(self, total: int, done: int = 0) -> None:
        """Begin with what is to be done, of which `done` is; a total of 0 shows nothing."""
        self._total, self._done, self._first = total, done, done
        self._began = self._printed = time.monotonic()
        self._moving = self._lines = False
        if total and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._progress = _live(self._line)
            self._progress.start()

    def advance(self, amount: int) -> None:
        """Count what was done."""
        self.show(self._done + amount)

    def show(self, done: int, details: tuple[str, ...] | None = None) -> None:
        """Say what is done by now. details: what else to show, the most important first, in place of the rate."""
        now = time.monotonic()
        if not self._moving:  # what came before the first unit (imports, loading weights) says nothing of the rate
            self._moving, self._began, self._first = True, now, done
        self._done, self._details = done, details
        wait = PLAIN_SECONDS if self._lines else FIRST_SECONDS
        if self._total and self._progress is None and now - self._printed >= wait:
            self._printed, self._lines = now, True
            about = "".join(f", {detail}" for detail in self._more())
            left = f", {self._left()} left" if self._rate() else ""
            say(f"{self._label}: {done}/{self._total} {self._unit}{about}{left}")

    def note(self, message: str) -> None:
        """A message that stays, above the bar."""
        if self._progress is not None:
            self._progress.console.print(message, markup=False, highlight=False)
        else:
            say(message)

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()

    def _rate(self) -> float:
        """Units per second since the first one; 0 before the second."""
        return (self._done - self._first) / max(time.monotonic() - self._began, 1e-9)

    def _left(self) -> str:
        rate = self._rate()
        return "-:--:--" if not rate else str(timedelta(seconds=round(max(self._total - self._done, 0) / rate)))

    def _more(self) -> tuple[str, ...]:
        if self._details is not None:
            return self._details
        rate = self._rate()
        return (f"{rate:,.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2g} {self._unit}/s",) if rate else ()

    def _line(self, width: int) -> str:
        return progress_line(width, self._label, self._done, self._total, self._left(), self._more())


def progress_line(width: int, label: str, done: int, total: int, left: str, details: Sequence[str]) -> str:
    """One line of at most `width` characters: bar, count and time left always, then the label and as many of the
    details as fit, the first first; the bar takes what is left."""
    fixed = f" {done}/{total} {left}"
    room = width - len(fixed) - SHORTEST_BAR - 2
    start = f"{label} " if len(label) < room else ""
    room -= len(start)
    more = ""
    for detail in details:
        if len(more) + len(detail) + 2 > room:
            break
        more += f"  {detail}"
    length = max(min(LONGEST_BAR, SHORTEST_BAR + room - len(more)), 0)
    filled = min(length * done // max(total, 1), length)
    return f"{start}[{'=' * filled}{' ' * (length - filled)}]{fixed}{more}"


def _live(line: Callable[[int], str]) -> Any:
    """rich's live display of one line, which is asked for a width again and again; other messages go above it."""
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, Task
    from rich.text import Text

    console = Console(stderr=True)

    class Line(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(line(console.width - 1), no_wrap=True)

    progress = Progress(Line(), console=console)
    progress.add_task("", total=None)
    return progress


@contextlib.contextmanager
def progress_bar(label: str, unit: str) -> Iterator[Bar]:
    """A bar that ends with its block, whatever happens."""
    bar = Bar(label, unit)
    try:
        yield bar
    finally:
        bar.stop()


def default_workers() -> int:
    """Worker processes when none are asked for: the usable cores, at most 8."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(8, count))


def human_bytes(count: float) -> str:
    """`1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_time(seconds: float) -> str:
    """`42 s`, `3.5 min`, `2.1 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


NARROWEST_COLUMN = 24
"""A column of a table on a terminal is not folded to fewer characters."""

type Rows = list[tuple[str, ...]]


def print_table(title: str, header: tuple[str, ...], rows: Rows, write: Callable[[str], None] = print) -> None:
    """A plain aligned table on stdout; numbers keep their own format.

    On a terminal that is narrower the widest column is folded; without one every row is one line.
    """
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    widest = widths.index(max(widths, default=0)) if widths else 0
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - sum(width + 2 for width in widths)
        widths[widest] = max(NARROWEST_COLUMN, widths[widest] + min(0, room))
    if title:
        write(title)
    for row in [header, *rows]:
        folded = textwrap.wrap(str(row[widest]), widths[widest], subsequent_indent="  ") or [""]
        for number, part in enumerate(folded if len(str(row[widest])) > widths[widest] else [str(row[widest])]):
            cells = [str(cell) if number == 0 else "" for cell in row]
            cells[widest] = part
            write("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
