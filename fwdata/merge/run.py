"""Writing a merged store: metadata first, then folder after folder, each visible only when it is whole."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import StaleCache, StoreDamaged, UsageError, quoted
from fwdata.io import write_atomic
from fwdata.merge.plan import Copy, MergePlan, MergeRequest, plan_merge
from fwdata.merge.verdicts import write_verdicts
from fwdata.store.files import LocalFiles, ensure_groups, write_lock
from fwdata.store.metadata import has_record, holds_record, read_root, write_record
from fwdata.store.records import JsonObject, StoreRecord
from fwdata.store.view import VIEW, write_view


@dataclass(frozen=True)
class MergeReport:
    """What a merge did."""

    out: Path
    """The new store."""
    episodes: int
    """Episodes in it."""
    frames: int
    """Their rows."""
    files: int
    """Copied now, 0 when all was there."""
    seconds: float
    """Time of the whole call."""
    notes: tuple[str, ...]
    """Sentences of the plan, and what all stores together contradict."""


def merge(
    request: MergeRequest,
    on_plan: Callable[[MergePlan], None] = lambda _: None,
    on_file: Callable[[int], None] = lambda _: None,
) -> MergeReport:
    """Write the merged store; run again it continues, and writes nothing when all is there.

    Every file is checked against its recorded sha256 while it is copied (StoreDamaged) and written whole or not at all;
    one file, at most 35 MB, is in memory. Raises what `plan_merge` raises, UsageError and StaleCache for an output that
    is something else, StoreBusy when another process writes to it.
    """
    began = time.monotonic()
    plan = plan_merge(request)
    _check_out(request, plan)
    on_plan(plan)
    copied = 0
    with write_lock(request.out):
        _check_out(request, plan)  # again: another process may have written until now
        _write_metadata(request.out, plan)
        for copy in plan.copies:
            copied += _copy_folder(request.out, copy, on_file)
        warnings = [] if plan.verdicts is None else write_verdicts(request.out, plan.verdicts)
    notes = (*plan.notes, *warnings)
    return MergeReport(request.out, plan.episodes, plan.frames, copied, time.monotonic() - began, notes)


def _check_out(request: MergeRequest, plan: MergePlan) -> None:
    out = request.out
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"--out {out}: {path} is a file; name a folder that does not exist yet")
    if any(out.resolve() == Path(s).resolve() for s in request.stores):
        raise UsageError(f"--out {out} is one of the stores to merge; choose another folder")
    if not out.exists() or all(p.name == "plan" or p.name.endswith(".tmp") for p in out.iterdir()):
        return  # nothing, or what a merge leaves that ended before its metadata were written
    have = read_root(LocalFiles(out))
    if have is None:
        raise UsageError(f"--out {out} exists and is not an fwdata store; choose another folder")
    if not have.merged:
        raise UsageError(f"--out {out} is a store that was not made by merging; choose another folder")
    if _without_writer(have) != _without_writer(plan.root):
        raise StaleCache(
            f"{out} was merged from {origins_text(have)}, now asked for is {origins_text(plan.root)}; "
            "choose another --out"
        )


def _without_writer(root: StoreRecord) -> JsonObject:
    return {key: value for key, value in root.to_json().items() if key != "writer"}


def origins_text(root: StoreRecord) -> str:
    """`"a (fingerprint 12ab.., 3 episodes) + b (..)"`: what a merged store was made from."""
    return " + ".join(
        f"{item.store} (fingerprint {item.fingerprint}, {item.episodes} episodes)" for item in root.merged
    )


def _write_metadata(out: Path, plan: MergePlan) -> None:
    """The plan, then the root that makes the folder a store, then the groups of its caches."""
    files = LocalFiles(out)
    if not has_record(files, ""):  # else it is equal, see _check_out
        write_record(out / "plan", plan.plan)
        write_record(out, plan.root)
    if not has_record(files, VIEW):  # else it may have been changed since
        write_view(out, plan.view)
    for key, record in plan.groups.items():
        if not holds_record(files, key, record):
            write_record(out / key, record)
    for name in {"parts", *(key.partition("/")[0] for key in plan.groups)}:
        ensure_groups(out, out / name)


def _copy_folder(out: Path, copy: Copy, on_file: Callable[[int], None]) -> int:
    """Copy one folder unless it is there; its own metadata, which make it visible, come last. Returns files copied."""
    target = out / copy.target
    digests = copy.record.digests
    if holds_record(LocalFiles(out), copy.target, copy.record):
        on_file(len(digests))
        return 0
    if target.exists():
        shutil.rmtree(target)
    for name, digest in digests.items():
        data = copy.files.read(f"{copy.key}/{name}")
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            where = f"{copy.files.location}/{copy.key}/{name}"
            raise StoreDamaged(
                f"{where} is {'missing' if data is None else 'damaged'}; "
                f"run `fwdata verify {quoted(copy.files.location)}`"
            )
        write_atomic(target / name, data)
        on_file(1)
    write_record(target, copy.record)
    return len(digests)
