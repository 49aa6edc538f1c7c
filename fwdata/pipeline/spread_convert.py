"""Converting the parts of a plan as units of a job, beside other processes and machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from fwdata.pipeline.first_look import Outliers
from fwdata.pipeline.jobs import Job, UnitRecord
from fwdata.pipeline.part import RecordingOutcome, convert_part
from fwdata.pipeline.plan import ConversionPlan, unwritten
from fwdata.pipeline.registry import converter_version
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.units import Shard, Units, UnitsReport, unit_pool
from fwdata.pipeline.workers import RetryThenLeaveOut, Task, WorkerPool
from fwdata.store.files import json_digest, shared_write, write_lock


@contextmanager
def writing(request: ConvertRequest) -> Iterator[None]:
    """Hold the store of a request: alone, or beside others that convert other parts of it."""
    with shared_write(request.out) if request.spread.shared else write_lock(request.out):
        yield


def refuse_shared(request: ConvertRequest) -> None:
    """UsageError for options that do not go with a spread conversion."""
    request.spread.check()
    request.spread.refuse("--update", request.update)
    request.spread.refuse("--retry-quarantined", request.retry)


def own_share(request: ConvertRequest, plan: ConversionPlan) -> ConversionPlan:
    """The plan with what is to be written here alone as pending."""
    shard = request.spread.shard or Shard()
    mine = {part.name for part in plan.parts[shard.index :: shard.count]}
    return replace(plan, pending=tuple(part for part in plan.pending if part.name in mine))


def seal(request: ConvertRequest, plan: ConversionPlan) -> Job:
    """The job of a conversion; StaleCache when others convert with other settings or find other recordings."""
    identity = {
        "source": json_digest(request.manifest.source().model_dump(mode="json")),
        "converter": converter_version(request.source),
        "roots": [root.name for root in plan.found.roots],
        "on_error": request.on_error,
        "evidence": request.evidence,
        "accept": dict(request.accept),
        "exclude": list(request.exclude),
        "only": list(request.only),
        "plan": json_digest({part.name: part.digest for part in plan.parts}),
    }
    units = [UnitRecord(name=p.name, weight=sum(r.ref.num_bytes for r in p.recordings)) for p in plan.parts]
    return Job.join(request.out, "convert", "convert", "parts/{unit}", identity, units)


def convert_units(
    request: ConvertRequest,
    plan: ConversionPlan,
    job: Job,
    losses: Callable[[], RetryThenLeaveOut],
    on_report: Callable[..., None],
) -> tuple[dict[str, RecordingOutcome], UnitsReport]:
    """Write the parts of this process's share; outcomes by source, and what is left. losses: a partial, picklable."""
    parts = {part.name: part for part in (*plan.parts, *plan.pending)}  # what is pending, as it is to be written

    def task(name: str) -> Task:
        return request, parts[name], {}

    units = Units(job, convert_part, task, lambda: unwritten(request.out, plan.parts))
    inner = partial(WorkerPool, 1, request.memory) if request.workers else None
    local = WorkerPool(request.workers, request.memory)
    with unit_pool(request.spread, local, supervised=inner, retry=losses) as pool:
        results, report = units.run(request.spread, pool, on_report, losses())
    count, new = sum(len(part.recordings) for part in plan.parts), dict[str, RecordingOutcome]()
    outliers = Outliers(count, plan.found.warnings)
    for outcomes in results:
        outliers.add(outcomes)
        new |= {outcome.source: outcome for outcome in outcomes}
    return new, report
