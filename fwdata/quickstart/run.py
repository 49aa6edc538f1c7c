"""The whole path on recordings of the sample world: the real commands, one after another, and a report.

Every step is a `fwdata` or `fwtrain` command run as its own process, exactly as a user would type it; running the
quickstart again continues like those commands do.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from fwdata.console import emit_json, print_table, say
from fwdata.errors import EXIT_INTERRUPTED, FwdataError, MissingLibrary, UsageError, install_command
from fwdata.quickstart.results import AFTER, BEFORE, Results, Step, result_line, summary, summary_rows

EPISODES = 64
STRIDE = 4
EVAL_EPISODES = 20
NEEDED = ("h5py", "av", "torch")
"""Libraries of the extras that its commands need."""
ONE = ("--threads", "1")
"""One thread trains a model this small faster than two (7.2 against 5.2 steps/s on two cores)."""


def steps(out: Path) -> list[Step]:
    """The commands, in order."""
    raw, store, run = str(out / "raw"), str(out / "sample.zarr"), str(out / "run")
    evaluate = ("fwtrain", "eval", run, "--env", "sample", "--episodes", str(EVAL_EPISODES), "--execute", "12", *ONE)
    return [
        Step(
            "sample",
            ("fwdata", "sample", "robotwin", "--episodes", str(EPISODES), "--seed", "0", "--out", raw),
            "record demonstrations of the sample world as RoboTwin 2.0 files",
        ),
        Step(
            "convert",
            ("fwdata", "convert", "robotwin", raw, "--out", store, "--manifest", "robotwin-sample"),
            "turn the recordings into one Zarr store",
        ),
        Step("stats", ("fwdata", "stats", store), "normalisation statistics of the training episodes"),
        Step("text", ("fwdata", "encode-text", store, "--encoder", "tiny"), "encode the instructions once"),
        Step(
            "latents",
            ("fwdata", "encode-latents", store, "--vae", "tiny", "--stride", str(STRIDE)),
            "encode first-frame and future-video latents once",
        ),
        Step("inspect", ("fwdata", "inspect", store), "look at what the store holds now"),
        Step(
            "train",
            ("fwtrain", "run", store, "--recipe", "tiny", "--out", run, *ONE),
            "train a tiny Fast-WAM from the cached latents",
        ),
        Step(
            "predict",
            ("fwtrain", "predict", run, "--store", store, "--episode", "0", "--frame", "10"),
            "predict an action chunk in the robot's units",
        ),
        Step("trained", (*evaluate, "--record", f"{run}/{AFTER}"), "act in closed loop with the trained policy"),
        Step(
            "untrained",
            (*evaluate, "--untrained", "--record", f"{run}/{BEFORE}"),
            "the same with untrained weights, for comparison",
        ),
    ]


def run_quickstart(out: Path, as_json: bool) -> None:
    """Run every command, print a table, write `report.html`. FwdataError when a command fails; its message is shown."""
    import resource  # absent on Windows

    if out.is_file():
        raise UsageError(f"--out {out} is a file; name a folder")
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingLibrary(f"quickstart needs {', '.join(absent)}; run: {install_command('convert,train')}")
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    results = Results()
    plan = steps(out)
    for number, step in enumerate(plan, 1):
        say(f"[{number}/{len(plan)}] {step.why}\n  $ {' '.join(step.command)}")
        _run(step, results)
        results.with_earlier(out)  # an interrupted quickstart keeps what its steps measured
        if shown := result_line(step.name, results.values[step.name]):
            say(f"  {shown}")
    results.total_seconds = time.monotonic() - began
    results.peak_rss = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    from fwdata.quickstart.report import write_report

    now, results = results, results.with_earlier(out)
    report = write_report(out, plan, results)
    if as_json:
        from fwdata.cli.answers import QuickstartJson

        emit_json(QuickstartJson(**summary(results), report=str(report), steps=dict(now.values)))
        return
    print_table("", ("what", "value"), [(name, text) for name, text in summary_rows(results)])
    print(f"report: {report}")


def _run(step: Step, results: Results) -> None:
    began = time.monotonic()
    program, *arguments = step.command
    command = [sys.executable, "-m", program, *arguments, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as child, _forwarding(child):
        printed, _ = child.communicate()
    if child.returncode == EXIT_INTERRUPTED:
        raise SystemExit(EXIT_INTERRUPTED)  # it said so
    if child.returncode != 0:
        raise FwdataError(f"`{' '.join(step.command)}` ended with exit code {child.returncode}; see its message above")
    results.values[step.name] = json.loads(printed)
    results.seconds[step.name] = time.monotonic() - began


@contextlib.contextmanager
def _forwarding(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hand signals on to a command of another process group, once each, and leave it the time to save what it has."""

    def forward(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, forward)) for number in signals]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
