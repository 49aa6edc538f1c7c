"""Doing a regeneration: tasks in worker processes, every recording's progress kept, every task file whole or absent."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pydantic import TypeAdapter

from fwdata.envs.replay import Replayed, Replayer, ReplayTask
from fwdata.errors import UsageError
from fwdata.io import sync, write_atomic
from fwdata.pipeline.registry import converter_module
from fwdata.pipeline.workers import Link, WorkerPool
from fwdata.regenerate.answers import RegenerationJson
from fwdata.store.files import canonical_json, write_lock

RESOLUTIONS = (16, 2048)
WORKER_BYTES = 2_500_000_000
"""Memory that one worker's simulator takes: scenes with their textures."""
PROGRESS = ".regenerate"
SETTINGS = "settings.json"
REPORT = "regenerate.json"
THIS_RUN = {"folder", "new_steps", "seconds"}
"""Keys of the printed report that are not part of the one that is kept: a repeated run changes nothing."""

type OnDemo = Callable[[int, int], None]
"""Called with (recordings done, steps done) after every recording."""


@dataclass(frozen=True)
class RegenerateRequest:
    """What to replay."""

    source: str
    """Name of the converter whose recordings are replayed."""
    suite: str
    """Suite of tasks."""
    raw: Path
    """Folder or file of the recordings."""
    out: Path
    """Folder that the suite's folder is made in."""
    resolution: int = 512
    """Height and width of the rendered images, pixels."""
    tasks: tuple[str, ...] | None = None
    """Only these tasks; None: all."""
    max_demos: int | None = None
    """Only the first recordings of every task; None: all."""
    workers: int = 1
    """Processes that replay."""

    @property
    def folder(self) -> Path:
        """Where the suite's files are written, called like the published ones."""
        return self.out / f"{self.suite}_no_noops"


@dataclass
class RegenerateReport:
    """Result of a regeneration, earlier runs included."""

    folder: Path
    """Folder of the suite's files."""
    tasks: int = 0
    """Tasks whose file is finished."""
    demos: int = 0
    """Recordings that were replayed."""
    kept: int = 0
    """Recordings that solved the task and were written."""
    rows: int = 0
    """Steps of the recordings that were kept."""
    noops: int = 0
    """Steps of the kept recordings that were left out because they do nothing."""
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    """(task, recording, reason) of replays that did not solve the task."""
    damaged: list[tuple[str, str, str]] = field(default_factory=list)
    """(task, recording, reason) of recordings that cannot be used."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason) of files that cannot be read."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the simulator's packages."""
    new_steps: int = 0
    """Steps replayed by this run."""
    seconds: float = 0.0
    """Time of this run."""


class OutcomeRecord(TypedDict):
    """One replay's result as it is kept; see `Replayed`."""

    demo: str
    """Name of the recording."""
    reason: str | None
    """Why nothing was written; null after a success."""
    damaged: bool
    """Whether the recording itself cannot be used."""
    recorded: int
    """Steps as recorded."""
    rows: int
    """Steps that were kept."""
    initial_state: tuple[float, ...]
    """The simulator state it began with."""


class ProgressRecord(TypedDict):
    """One finished replay of a task that is under way."""

    outcome: OutcomeRecord
    """Its result."""
    random_state: list[Any]
    """What the next replay's scene is drawn from; the simulator's own JSON."""


class TaskRecord(TypedDict):
    """One finished task: what is read again of its `ReplayTask`, and its replays."""

    name: str
    """The task, as its benchmark calls it."""
    key: str
    """What the metainfo calls it."""
    num_bytes: int
    """Size of the source file in bytes."""
    outcomes: list[OutcomeRecord]
    """Its replays, in the order of the recordings."""


class MetainfoEntry(TypedDict):
    """One recording in the metainfo, in the published form."""

    success: bool
    """Whether the replay solved the task."""
    initial_state: list[float]
    """The simulator state it began with."""
    reason: NotRequired[str | None]
    """Why it was not kept; absent for a success."""


@dataclass(frozen=True)
class RegeneratePlan:
    """What a regeneration would do."""

    tasks: tuple[ReplayTask, ...]
    """Tasks found."""
    pending: tuple[ReplayTask, ...]
    """Tasks whose file is not finished."""
    skipped: tuple[tuple[str, str], ...]
    """(file, reason) of files that cannot be read."""
    bytes: int
    """Size of the images of all steps before compression."""


def load_replayer(source: str) -> Replayer:
    """The replayer of a source, by name. UsageError where a source has none."""
    module = converter_module(source)
    if not hasattr(module, "Replayer"):
        raise UsageError(f"recordings of {source!r} cannot be replayed; libero can")
    replayer: Replayer = module.Replayer()
    return replayer


def make_plan(request: RegenerateRequest) -> RegeneratePlan:
    """Find what is to be done; writes nothing and needs no simulator. Raises UsageError for a wrong request."""
    low, high = RESOLUTIONS
    if not low <= request.resolution <= high:
        raise UsageError(f"--resolution must be {low} to {high} pixels, found {request.resolution}")
    found = load_replayer(request.source).find(request.raw, request.suite, request.tasks, request.max_demos)
    tasks, skipped = found
    pending = tuple(task for task in tasks if not _is_finished(request, task))
    size = sum(task.rows for task in pending) * request.resolution**2 * 3 * 2
    return RegeneratePlan(tasks, pending, tuple((s.source, s.reason) for s in skipped), size)


def regenerate(
    request: RegenerateRequest, on_plan: Callable[[RegeneratePlan], None], on_demo: OnDemo
) -> RegenerateReport:
    """Replay every recording that is not yet regenerated.

    on_plan: called once, before the first replay. Running it again continues with the next recording; a finished task
    file is never made again. Raises UsageError for a wrong request or when OUT was begun with other settings, and
    FwdataError when the simulator cannot run; StoreBusy when another process writes there. Cost: 5 to 8
    steps per CPU second with software rendering (512 to 128 pixels), and 2 s for the scene of every recording; some
    2.2 GB of memory per worker, which is the simulator's.
    """
    began = time.monotonic()
    plan = make_plan(request)
    versions = load_replayer(request.source).prepare(request.suite, plan.tasks)
    report = RegenerateReport(request.folder, skipped=list(plan.skipped), versions=versions)
    with write_lock(request.folder):
        _check_settings(request, versions)
        plan = make_plan(request)  # again: another process may have written until now
        on_plan(plan)

        def count(demos: int, steps: int) -> None:
            report.new_steps += steps
            on_demo(demos, steps)

        for _ in _replay_all(request, plan.pending, count):
            _write_reports(request, plan.tasks, report)
        report.seconds = time.monotonic() - began
        _write_reports(request, plan.tasks, report)
    return report


def _check_settings(request: RegenerateRequest, versions: dict[str, str]) -> None:
    """Whatever decides the content must be the same for all files of a folder; kept from the first run."""
    path = request.folder / PROGRESS / SETTINGS
    decisive = {name: value for name, value in versions.items() if name != "renderer"}
    settings = {"resolution": request.resolution, "max_demos": request.max_demos, **decisive}
    before = _read_record(path, dict[str, int | str | None])
    for name, value in settings.items():
        if before is not None and before.get(name) != value:
            raise UsageError(
                f"{request.folder} was begun with {name} {before.get(name)}, now it is {value}; "
                "take another --out, or the same settings"
            )
    if before is None:
        if any(request.folder.glob("*.hdf5")):
            raise UsageError(f"{request.folder} holds files that were not made by this command; take another --out")
        write_atomic(path, canonical_json(settings))


def _replay_all(request: RegenerateRequest, tasks: Sequence[ReplayTask], on_demo: OnDemo) -> Iterator[ReplayTask]:
    """Replay tasks here or in worker processes; yields each when it is finished."""
    workers = request.workers if min(request.workers, len(tasks)) > 1 else 0
    with WorkerPool(workers) as pool:
        yield from pool.run(replay_task, [(request, task) for task in tasks], on_demo)


def replay_task(request: RegenerateRequest, task: ReplayTask, *, link: Link) -> ReplayTask:
    """Replay the recordings of one task in this process and put its file in place; see `regenerate`."""
    replayer = load_replayer(request.source)
    progress = request.folder / PROGRESS / task.name
    progress.mkdir(parents=True, exist_ok=True)
    outcomes: list[OutcomeRecord] = []
    random_state: list[Any] | None = None
    session = None
    try:
        for demo in task.demos:
            done = _read_record(progress / f"{demo}.json", ProgressRecord)
            if done is None:
                if session is None:
                    session = replayer.open(request.raw, request.suite, task, request.resolution)
                    if random_state is not None:
                        session.restore_random_state(random_state)
                outcome = session.replay(demo, progress / f"{demo}.hdf5")
                if outcome.success:
                    sync(progress / f"{demo}.hdf5")
                done = {"outcome": outcome_record(outcome), "random_state": session.random_state()}
                write_atomic(progress / f"{demo}.json", canonical_json(done))
                link.report(1, outcome.rows)
            else:
                link.report(1, 0)
            outcomes.append(done["outcome"])
            random_state = done["random_state"]
    finally:
        if session is not None:
            session.close()
    kept = [outcome["demo"] for outcome in outcomes if outcome["reason"] is None]
    temporary = progress / task.file
    replayer.assemble([(demo, progress / f"{demo}.hdf5") for demo in kept], temporary)
    sync(temporary)
    write_atomic(_record(request, task), canonical_json({**asdict(task), "outcomes": outcomes}))
    temporary.replace(request.folder / task.file)
    shutil.rmtree(progress)
    return task


def _record(request: RegenerateRequest, task: ReplayTask) -> Path:
    return request.folder / PROGRESS / f"{task.name}.json"


def _is_finished(request: RegenerateRequest, task: ReplayTask) -> bool:
    """Whether the task's file is there; UsageError when it was made from another source file."""
    record = _read_record(_record(request, task), TaskRecord)
    if record is None or not (request.folder / task.file).exists():
        return False
    if record["num_bytes"] != task.num_bytes:
        raise UsageError(
            f"{request.folder / task.file} was made from a file of {record['num_bytes']} bytes, but {task.source} has "
            f"{task.num_bytes}; take another --out, or delete it to replay it again"
        )
    return True


def _read_record[R](path: Path, kind: type[R]) -> R | None:
    """A record of this module; None where there is no file. UsageError for a file that holds something else."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise UsageError(f"{path} is damaged; delete it to replay again what it stands for") from None


def outcome_record(outcome: Replayed) -> OutcomeRecord:
    """A replay's result as it is kept."""
    return {
        "demo": outcome.demo,
        "reason": outcome.reason,
        "damaged": outcome.damaged,
        "recorded": outcome.recorded,
        "rows": outcome.rows,
        "initial_state": outcome.initial_state,
    }


def _write_reports(request: RegenerateRequest, tasks: Sequence[ReplayTask], report: RegenerateReport) -> None:
    """The metainfo and the report of all finished tasks, those of earlier runs with other --tasks included."""
    records = [
        record
        for path in sorted((request.folder / PROGRESS).glob("*.json"))
        if path.name != SETTINGS and (record := _read_record(path, TaskRecord)) is not None
    ]
    metainfo: dict[str, dict[str, MetainfoEntry]] = {}
    report.failed, report.damaged = [], []
    kept: list[Replayed] = []
    for record in records:
        outcomes = [Replayed(**outcome) for outcome in record["outcomes"]]
        kept += [outcome for outcome in outcomes if outcome.success]
        metainfo[record["key"]] = {outcome.demo: _metainfo(outcome) for outcome in outcomes}
        for outcome in outcomes:
            if outcome.reason is not None:
                listed = report.damaged if outcome.damaged else report.failed
                listed.append((record["name"], outcome.demo, outcome.reason))
    report.tasks, report.demos = len(records), sum(len(record["outcomes"]) for record in records)
    report.kept, report.rows = len(kept), sum(outcome.rows for outcome in kept)
    report.noops = sum(outcome.recorded - outcome.rows for outcome in kept)
    write_atomic(request.folder / f"{request.suite}_metainfo.json", canonical_json(metainfo))
    kept_report = {key: value for key, value in report_json(report).items() if key not in THIS_RUN}
    write_atomic(request.folder / REPORT, canonical_json({"suite": request.suite, **kept_report}))


def _metainfo(outcome: Replayed) -> MetainfoEntry:
    entry: MetainfoEntry = {"success": outcome.success, "initial_state": list(outcome.initial_state)}
    return entry if outcome.success else {**entry, "reason": outcome.reason}


def report_json(report: RegenerateReport) -> RegenerationJson:
    """The report as `--json` prints it."""
    return {
        "folder": str(report.folder),
        "tasks": report.tasks,
        "demos": report.demos,
        "kept": report.kept,
        "rows": report.rows,
        "noops": report.noops,
        "failed": [{"task": task, "demo": demo, "reason": reason} for task, demo, reason in report.failed],
        "damaged": [{"task": task, "demo": demo, "reason": reason} for task, demo, reason in report.damaged],
        "skipped": [{"source": source, "reason": reason} for source, reason in report.skipped],
        "versions": report.versions,
        "new_steps": report.new_steps,
        "seconds": round(report.seconds, 1),
    }
