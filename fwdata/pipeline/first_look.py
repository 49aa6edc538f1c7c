"""Measuring the first recordings of a conversion, in worker processes or in this one, before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from fwdata.errors import Contradicted
from fwdata.evidence.detectors.column_units import ColumnUnits
from fwdata.evidence.measure import pool as pool_verdicts
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement
from fwdata.evidence.sentences import beside_refusal, refusal
from fwdata.pipeline.evidence import REFUSED, dry_recordings, first_recordings, gate_of
from fwdata.pipeline.measuring import Chosen, measure_recordings
from fwdata.pipeline.part import RecordingOutcome
from fwdata.pipeline.plan import ConversionPlan
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import RootedRecording
from fwdata.pipeline.stored_episode import episode_input
from fwdata.pipeline.workers import RetryThenLeaveOut, Task, WorkerPool
from fwdata.store.evidence import EVIDENCE, read_evidence
from fwdata.store.files import LocalFiles
from fwdata.store.metadata import has_record
from fwdata.store.reader import open_store
from fwdata.store.sources import SOURCES
from fwdata.store.view import VIEW
from fwdata.wording import verb

COMPARED = 10
"""Episodes of a store that recordings which it is to take in are compared with."""

MAX_OUTLIERS = 0.1
"""Share of the recordings that may contradict what the others confirm; more stop a conversion."""


@dataclass(frozen=True)
class FirstLook:
    """What the first episodes, evenly spread over the recordings, show."""

    episodes: int
    """Episodes that were measured."""
    images: int
    """Of those, with their images."""
    verdicts: tuple[DatasetVerdict, ...]
    """The verdicts of the data set so far."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Detector -> the converter option that would agree with the opposite."""
    outcomes: tuple[RecordingOutcome, ...] = ()
    """Every recording that was looked at, with why it cannot be read, or what is unusual in it."""


def look_first(
    request: ConvertRequest,
    chosen: Chosen,
    pool: WorkerPool,
    parts: int,
    beside: Sequence[EpisodeMeasurement] = (),
    first: Sequence[RootedRecording] = (),
    warned: Sequence[str] = (),
) -> FirstLook:
    """Measure the first recordings; those that cannot be read are left to the conversion.

    parts: those that all recordings will come to: a small set is read by one process, as converting it takes no more.
    beside: traces of episodes that are stored already, which the recordings are compared with. first: those of them by
    which the conversion is to judge whether it leaves others out, one by one; () for all. Contradicted, with nothing
    written and with `warned`, what discovery warns about, when the data contradict a decision that is not accepted.
    """
    losses = RetryThenLeaveOut(
        lambda task: f"measuring {task[1][0][0].source}",
        "convert without --no-evidence again",
        "reading this recording",
    )
    tasks: list[Task] = [(request, some, {}) for some in _shared_out(chosen, min(parts, pool.workers))]
    order = {recording.source: number for number, (recording, _) in enumerate(chosen)}
    done = pool.run(measure_recordings, tasks, _ignore, losses, most=parts, keeps=_names)
    outcomes = [outcome for some in done for outcome in some]
    outcomes.sort(key=lambda outcome: order[outcome.source])
    measured = [outcome.measurement for outcome in outcomes if outcome.measurement]
    options = {name: option for m in measured for name, option in m.options.items()}
    images = {recording.id for recording, shown in chosen if shown}
    seen = sum(measurement.episode in images for measurement in measured)
    kept = _without_outliers(request, measured, first)
    look = FirstLook(len(measured), seen, pool_verdicts([*beside, *kept]), options, tuple(outcomes))
    why = refusal(look.verdicts, request.accept, options)
    if why is not None:
        raise Contradicted(f"{request.where()}: {why}", (*warned, *beside_refusal(look.verdicts, request.accept)))
    return look


def _shared_out(chosen: Chosen, workers: int) -> list[Chosen]:
    """What a worker measures at once: one recording with its images, or its share of those without."""
    rows, count = [each for each in chosen if not each[1]], max(1, workers)
    cuts = [len(rows) * place // count for place in range(count + 1)]
    shares = [rows[low:high] for low, high in pairwise(cuts)]  # neighbours are in one part, and read once
    return [*([each] for each in chosen if each[1]), *(share for share in shares if share)]


def _without_outliers(
    request: ConvertRequest, measured: Sequence[EpisodeMeasurement], first: Sequence[RootedRecording]
) -> Sequence[EpisodeMeasurement]:
    """What the conversion keeps of the episodes: those that it leaves out as exceptions are not pooled with the others;
    all where these stop it. Without `first`, exceptions are those that are left out whatever others show."""
    begun = {recording.id for recording in first}
    some = [m for m in measured if m.episode in begun]
    gate = gate_of(pool_verdicts(some) if some else (), request.accept, first)
    kept = [measurement for measurement in measured if gate.reason(measurement) is None]
    few = bool(kept) and len(measured) - len(kept) <= max(1.0, MAX_OUTLIERS * len(measured))
    return kept if few else measured


def look_at_more(
    request: ConvertRequest, plan: ConversionPlan, pool: WorkerPool, dry: bool = False
) -> FirstLook | None:
    """Measure the first of the recordings that a finished store is to take in, their images too; None without any.

    dry: those that a dry run looks at. Contradicted as of `look_first`, before the store is touched. A store that is
    not finished was looked at before.
    """
    record = read_evidence(LocalFiles(request.out)) if request.evidence and not request.spread.shared else None
    pending = [recording for part in plan.pending for recording in part.recordings]
    if record is None or not record.parts or not pending:
        return None
    accepted = {**record.accepted(), **request.accept}
    chosen = dry_recordings(pending) if dry else first_recordings(pending, thorough=True)
    sizes, warned = _stored_sizes(request.out), plan.found.warnings
    return look_first(replace(request, accept=accepted), chosen, pool, len(plan.pending), sizes, warned=warned)


def _stored_sizes(out: Path) -> list[EpisodeMeasurement]:
    """What units are compared by, of some episodes of a store; their other verdicts are known. Reads their rows."""
    store = open_store(out)
    some = np.unique(np.linspace(0, len(store.episodes) - 1, COMPARED).round().astype(int)).tolist()
    inputs = (episode_input(store, store.episodes[index], images=False) for index in some if store.episodes)
    return [EpisodeMeasurement(e.id, e.group, (), ColumnUnits().trace(e)) for e in inputs]


def _names(task: Task) -> Iterable[str]:
    return (recording.id for recording, _ in task[1])


def _ignore(*_: object) -> None:
    return None


def looks(request: ConvertRequest) -> bool:
    """Whether the first recordings are measured: those of a new store."""
    begun = request.out.is_dir() and has_record(LocalFiles(request.out), "")
    return request.evidence and not begun


def refuse_late(
    request: ConvertRequest,
    accepted: Mapping[str, str],
    options: Mapping[str, str],
    drop: bool,
    warned: Sequence[str],
) -> None:
    """Contradicted when all episodes together contradict a decision that the first ones could not. Lock held.

    options: as of `FirstLook`. drop: remove the store, which this run began and whose images were not looked at before.
    warned: what discovery warns about.
    """
    record = read_evidence(LocalFiles(request.out))
    verdicts = record.verdicts() if record else ()
    why = refusal(verdicts, accepted, options)
    if why is None:
        return
    warned = (*warned, *beside_refusal(verdicts, accepted))
    if not drop:
        raise Contradicted(
            f"{request.where()}: {why}; {request.out} holds what was converted: settle this before training on it",
            warned,
        )
    _drop(request.out)
    raise Contradicted(f"{request.where()}: {why}; nothing was kept of this conversion", warned)


DROPPED = ".dropped.tmp"
"""Folder that a store's groups are moved to before they are removed."""


def _drop(out: Path) -> None:
    """Remove a store; killed at any point, it leaves no part that looks whole and is not."""
    (out / "zarr.json").unlink()  # first: what is half removed must not look like a store
    (out / DROPPED).mkdir(exist_ok=True)
    for name in ("parts", SOURCES, EVIDENCE, "plan", VIEW):
        if (out / name).is_dir():
            (out / name).rename(out / DROPPED / name)
    forget_dropped(out)


def forget_dropped(out: Path) -> None:
    """Remove what a killed `refuse_late` has left. Lock held."""
    if (out / DROPPED).is_dir():
        shutil.rmtree(out / DROPPED)


class Outliers:
    """Counts recordings that evidence left out; too many of them stop the conversion."""

    def __init__(self, recordings: int, warned: Sequence[str] = ()) -> None:
        self._warned = warned
        self._most = max(1.0, MAX_OUTLIERS * recordings)
        self._recordings = recordings
        self._reasons: list[str] = []

    def add(self, outcomes: tuple[RecordingOutcome, ...]) -> None:
        """Count a finished part. Contradicted when more than a tenth, and at least two, are left out."""
        self._reasons += [f"{o.source}: {o.reason}" for o in outcomes if o.reason.startswith(REFUSED)]
        if len(self._reasons) > self._most:
            raise Contradicted(
                f"{len(self._reasons)} of {self._recordings} recordings "
                f"{verb(len(self._reasons), 'is', 'are')} left out because "
                f"{self._reasons[0]}; what is written is safe: convert the others to a store of their own, or accept "
                "the contradiction and run again with --retry-quarantined",
                self._warned,
            )
