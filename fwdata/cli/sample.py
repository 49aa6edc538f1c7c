"""`fwdata sample` and `fwdata quickstart`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fwdata.console import emit_json, human_bytes, progress_bar, say, warn
from fwdata.errors import EXIT_QUARANTINED, UsageError
from fwdata.wording import counted


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(name="sample")(sample)
    app.command(name="quickstart")(quickstart)


def sample(
    kind: Annotated[str, typer.Argument(help="Source format to record in: robotwin, libero, r1lite or lerobot.")],
    episodes: Annotated[int, typer.Option(min=1, help="Recordings to write; of every task with --simulator.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the scenes and the expert.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for the recordings.")] = Path("sample"),
    simulator: Annotated[
        bool, typer.Option("--simulator", help="Record scripted experts in LIBERO's simulator (extra libero-sim).")
    ] = False,
    suite: Annotated[
        str | None, typer.Option(help="With --simulator: libero_spatial, libero_object or libero_goal.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="With --simulator: tasks, numbers or names; default: all the experts solve.")
    ] = None,
    first_state: Annotated[int, typer.Option(min=0, help="With --simulator: initial state to begin with.")] = 0,
    pushes: Annotated[
        int, typer.Option(min=0, help="With --simulator: pushes off its way that each recording recovers from.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, help="With --simulator: processes, 2.2 GB of memory each.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write recordings of the small sample world, or of LIBERO's simulator, in a source's genuine on-disk format.

    Running it again continues. Exit code 3: some tasks have fewer recordings than asked for.

    Example: fwdata sample robotwin --episodes 40 --seed 0 --out sample
    """
    if simulator:
        _in_simulator(kind, suite, tasks, episodes, seed, first_state, pushes, workers, out, as_json)
        return
    given = {"--suite": suite, "--tasks": tasks, "--first-state": first_state, "--pushes": pushes}
    given["--workers"] = workers - 1
    if needless := [name for name, value in given.items() if value]:
        raise UsageError(f"{' and '.join(needless)} need --simulator")
    from fwdata.envs.sample import write_sample

    report = write_sample(kind, out, episodes=episodes, seed=seed)
    if as_json:
        from fwdata.cli.answers import SampleJson

        emit_json(SampleJson(episodes=report.episodes, frames=report.frames, bytes=report.bytes, out=str(out)))
    else:
        print(
            f"{out}: {counted(report.episodes, 'episode')}, {counted(report.frames, 'frame')}, "
            f"{human_bytes(report.bytes)}"
        )
        manifest = {"robotwin": "robotwin-sample", "lerobot": "lerobot-robotwin"}.get(kind, kind)
        command = ["fwdata", "convert", kind, str(out), "--out", f"{out.resolve().name}.zarr", "--manifest", manifest]
        print(f"  convert them with: {shlex.join(command)}")


def _in_simulator(
    kind: str,
    suite: str | None,
    tasks: str | None,
    episodes: int,
    seed: int,
    first_state: int,
    pushes: int,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    from fwdata.envs.libero_record import KNOWN, RecordRequest, record_suite, tasks_to_record

    if kind != "libero":
        raise UsageError(f"--simulator records libero, found {kind!r}")
    if suite is None:
        raise UsageError(f"--simulator needs --suite: {', '.join(KNOWN)}")
    full = suite if suite.startswith("libero_") else f"libero_{suite}"
    request = RecordRequest(out, full, episodes, seed, first_state, pushes=pushes)
    chosen = tasks_to_record(full, tasks)
    with progress_bar("recording", "episodes") as bar:
        bar.start(episodes * len(chosen))
        report = record_suite(request, chosen, workers, bar.advance)
    for name, attempt, state in report.failed:
        say(f"failed: {name}, attempt {attempt} from initial state {state}")
    for name in report.short:
        warn(f"{name} has fewer than {episodes} recordings: its expert failed too often")
    if as_json:
        from fwdata.cli.answers import SimulatedJson

        failed = len(report.failed)
        emit_json(SimulatedJson(episodes=report.demos, frames=report.frames, failed=failed, out=str(out)))
    else:
        print(
            f"{report.folder}: {counted(report.demos, 'episode')}, {counted(report.frames, 'frame')}, "
            f"{counted(len(report.failed), 'attempt')} failed"
        )
    if report.short:
        raise typer.Exit(EXIT_QUARANTINED)


def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything it makes.")] = Path("quickstart"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """The whole path on embedded samples, offline, in a few minutes: record, convert, encode, train, evaluate, report.

    Example: fwdata quickstart --out quickstart
    """
    from fwdata.quickstart.run import run_quickstart

    run_quickstart(out, as_json)
