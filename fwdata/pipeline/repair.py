"""Rebuilding what is damaged in a store, and nothing else.

Everything a store holds follows from its recordings and from settings that it records: parts from the recordings, and
stitched frames, latents, text and statistics from the parts. So what is damaged is put aside and the command that made
it continues, which ends with the bytes that were there before. What cannot be rebuilt like that is named, and a repair
that fails puts everything back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fwdata.errors import StoreDamaged, UsageError
from fwdata.io import check_free
from fwdata.manifest import Manifest, validate_model
from fwdata.pipeline.measure_again import measure_again
from fwdata.pipeline.plan import check_output
from fwdata.pipeline.rebuild import STAGING, Aside, Survey, kept_aside, lost_misfits, rebuild, survey
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.strangers import strangers
from fwdata.store.evidence import EVIDENCE
from fwdata.store.files import LocalFiles, write_group, write_lock
from fwdata.store.metadata import read_record
from fwdata.store.reader import Store, open_store
from fwdata.store.records import LatentCacheRecord, TextCacheRecord, ViewRecord
from fwdata.store.sources import SOURCES, read_sources, write_sources
from fwdata.store.verify import Finding, VerifyReport, verify_store
from fwdata.store.view import VIEW, write_view
from fwdata.wording import counted

type OnStep = Callable[[str], None]
"""Called with a sentence about what is rebuilt next."""


@dataclass(frozen=True)
class RepairRequest:
    """One `fwdata repair` call."""

    store: Path
    """The store to repair."""
    roots: tuple[Path, ...] = ()
    """The recordings the store was converted from; needed where parts are damaged."""
    workers: int = 1
    """Processes that read recordings."""
    device: str = "auto"
    """Where latents are encoded again, as they were the first time."""


@dataclass
class RebuildList:
    """What has to be rebuilt."""

    parts: set[str] = field(default_factory=set)
    """Names of parts that are converted again."""
    stitched: set[str] = field(default_factory=set)
    """Names of parts whose stitched frames are written again."""
    latents: dict[str, set[str]] = field(default_factory=dict)
    """Folder of a latent cache -> names of its damaged parts."""
    text: dict[str, set[str]] = field(default_factory=dict)
    """Folder of a text cache -> names of its damaged parts."""
    plan: bool = False
    """Whether the store's plan is written again."""
    stats: bool = False
    """Whether the statistics are computed again."""
    groups: set[str] = field(default_factory=set)
    """Folders whose plain group metadata are damaged."""
    records: set[str] = field(default_factory=set)
    """Parts whose record of what they were made from is damaged; it is written anew, its times are lost."""
    verdicts: set[str] = field(default_factory=set)
    """Parts whose verdicts on conventions are damaged."""
    pooled: bool = False
    """Whether the verdicts of the data set are."""
    view: bool = False
    """Whether the record of the view is; it is written as converted."""
    leftovers: set[str] = field(default_factory=set)
    """Temporary files of interrupted commands, which are removed."""
    beyond: list[Finding] = field(default_factory=list)
    """Findings that repairing does not touch."""

    def steps(self) -> list[str]:
        """What would be done, as sentences."""
        said = []
        if self.plan or self.parts:
            said.append(f"convert again: {', '.join(sorted(self.parts)) or 'the plan'}")
        if self.stitched:
            said.append(f"stitch again: {', '.join(sorted(self.stitched))}")
        for kind, found in (("latents", self.latents), ("text", self.text)):
            said += [f"encode {kind} again: {key} {', '.join(sorted(names))}" for key, names in sorted(found.items())]
        if self.stats:
            said.append("compute the statistics again")
        if self.groups:
            said.append(f"write the metadata of {counted(len(self.groups), 'group')} again")
        if self.records:
            said.append(f"write what parts were made from again: {', '.join(sorted(self.records))}")
        if self.verdicts or self.pooled:
            which = ", ".join(sorted(self.verdicts))
            lost = " (reasons given with --accept are lost)" if self.pooled else ""
            said.append(f"measure the conventions again: {which or 'the data set'}{lost}")
        if self.view:
            said.append("write the view as it was converted (what was set with `fwdata view` is lost)")
        if self.leftovers:
            said.append(f"remove {counted(len(self.leftovers), 'temporary file')}")
        return said


@dataclass(frozen=True)
class RepairReport:
    """What was damaged, and what still is."""

    damage: RebuildList
    """What was rebuilt."""
    found: VerifyReport
    """Findings before the repair."""
    left: VerifyReport
    """Findings after it; none, if all went well."""


def assess(report: VerifyReport) -> RebuildList:
    """Sort the findings of a verification by what has to be rebuilt."""
    damage = RebuildList()
    for finding in report.findings:
        _sort_in(finding, damage)
    for kind, caches in (("latents", damage.latents), ("text", damage.text)):
        for key in [key for key in caches if not (Path(report.location) / kind / key / "zarr.json").is_file()]:
            del caches[key]  # never finished, or its record is lost: nothing tells what made it
            damage.beyond += [found for found in report.findings if found.key.startswith(f"{kind}/{key}/")]
    return damage


def _sort_in(finding: Finding, damage: RebuildList) -> None:
    top, *rest = finding.key.split("/")
    name = rest[0] if rest else ""
    if top == STAGING:
        damage.leftovers.add(STAGING)
    elif rest and rest[-1].startswith(".") and rest[-1].endswith(".tmp"):
        damage.leftovers.add(finding.key)
    elif finding.problem.startswith("does not belong"):
        damage.beyond.append(finding)
    elif rest == ["zarr.json"] and top in {"parts", "latents", "text", SOURCES}:
        damage.groups.add(top)
    elif top == "plan":
        damage.plan = True
    elif top == VIEW:
        damage.view = True
    elif top == EVIDENCE:
        damage.pooled = damage.pooled or name == "zarr.json"
        damage.verdicts |= {name} - {"zarr.json"}
    elif top == SOURCES and name:
        damage.records.add(name)
    elif top == "stats":
        damage.stats = True
    elif top == "parts" and rest[1:2] == ["frames"]:
        damage.stitched.add(name)
    elif top == "parts" and name:
        damage.parts.add(name)
    elif top in {"latents", "text"} and len(rest) >= 2 and rest[1] != "zarr.json":
        getattr(damage, top).setdefault(name, set()).add(rest[1])
    else:
        damage.beyond.append(finding)


def repair(request: RepairRequest, on_step: OnStep = lambda _: None) -> RepairReport:
    """Verify a store, rebuild what is damaged and verify it again. Killed, it continues when it is run again.

    Raises, with every byte of the store as it was: UsageError when parts are damaged and no recordings are given, or
    for a merged store; StoreDamaged when the store's own metadata are damaged, or when the recordings are not those it
    was converted from; what the commands that make caches raise, such as UsageError for a missing VAE.
    """
    store = _opened(request.store)
    found = verify_store(request.store)
    damage = assess(found)
    recordings = _recordings(request, store, damage) if damage.parts or damage.plan or request.roots else None
    if recordings is not None and recordings.misfits:
        raise StoreDamaged(_refusal(request.store, recordings.misfits, damaged=bool(damage.steps())))
    if not damage.steps():
        return RepairReport(damage, found, found)
    with kept_aside(request.store) as aside:
        with write_lock(request.store):
            if damage.view:
                aside.take(request.store / VIEW)
                write_view(request.store, ViewRecord())
            if recordings is not None and (damage.parts or damage.plan):
                on_step(f"converting {', '.join(sorted(damage.parts)) or 'the plan'} again")
                rebuild(recordings, aside, plan_lost=damage.plan)
            _set_aside(request.store, damage, aside)
            _measure_again(request.store, damage, aside, on_step)
        _fill_caches(request, damage, on_step)
    return RepairReport(damage, found, verify_store(request.store))


def misfits(request: RepairRequest, damage: RebuildList) -> tuple[str, ...]:
    """Why the recordings given are not those of a store, a sentence each; writes nothing. Errors as of `repair`."""
    if not request.roots:
        return ()
    found = _recordings(request, _opened(request.store), damage)
    return found.misfits or tuple(lost_misfits(found))


def _refusal(store: Path, found: tuple[str, ...], *, damaged: bool) -> str:
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    advice = "give the recordings it was converted from with --from RAW" if damaged else "the store is not damaged"
    return (
        f"{store} was converted from other recordings than those given now: {found[0]}{more}; nothing was changed, "
        f"{advice}"
    )


def _measure_again(store: Path, damage: RebuildList, aside: Aside, on_step: OnStep) -> None:
    """Measure lost verdicts on conventions again. The lock is held."""
    if not damage.verdicts and not damage.pooled:
        return
    on_step("measuring the conventions again")
    aside.copy(store / EVIDENCE)
    measure_again(store, damage.verdicts, pooled_lost=damage.pooled)


def _opened(path: Path) -> Store:
    try:
        return open_store(path)
    except StoreDamaged as error:
        raise StoreDamaged(
            f"{error}; a store's own metadata cannot be read out of it: delete {path}/zarr.json and run the same "
            "`fwdata convert` again, which writes it anew and keeps every part"
        ) from None


def _recordings(request: RepairRequest, store: Store, damage: RebuildList) -> Survey:
    """The recordings given, compared with those that the damaged parts were made from; with all where none is."""
    if not request.roots:
        names = ", ".join(sorted(damage.parts)) or "the plan"
        raise UsageError(f"{names} of {request.store} is damaged; give the recordings it came from with --from RAW")
    manifest = validate_model(Manifest, store.record.manifest, f"the manifest in {request.store}")
    again = ConvertRequest(store.source, request.roots, request.store, manifest, request.workers)
    check_output(again)
    check_free(request.store)
    compared = damage.parts if damage.parts or damage.plan else {part.name for part in store.plan.parts}
    found = survey(again, compared, plan_lost=damage.plan)
    return replace(found, misfits=found.misfits or strangers(found))


def _set_aside(store: Path, damage: RebuildList, aside: Aside) -> None:
    """Take away what is damaged beside the parts, and write plain group metadata again. The lock is held."""
    if any(store.glob("parts/*/frames")):  # parts converted again have stitched frames where the others do
        damage.stitched |= {name for name in damage.parts if not (store / "parts" / name / "frames").is_dir()}
    for name in sorted(damage.stitched):
        aside.take(store / "parts" / name / "frames")
    for kind in ("latents", "text"):
        for key, parts in getattr(damage, kind).items():
            for part in sorted(parts):
                aside.take(store / kind / key / part)
    for key in sorted(damage.leftovers - {STAGING}):
        aside.take(store / key)
    for key in sorted(damage.groups):
        aside.copy(store / key / "zarr.json")
        write_group(store / key)
    for name in sorted(damage.records):
        aside.take(store / SOURCES / name)
        write_sources(store, read_sources(LocalFiles(store), name))
    if damage.stats:
        aside.copy(store / "stats")


def _fill_caches(request: RepairRequest, damage: RebuildList, on_step: OnStep) -> None:
    """Run the commands that made what was removed."""
    store = open_store(request.store)
    if damage.stitched:
        from fwdata.store.caches.stitched import materialise

        on_step(f"stitching {', '.join(sorted(damage.stitched))} again")
        materialise(request.store)
    for key, names in sorted(damage.latents.items()):
        on_step(f"encoding latents of {', '.join(sorted(names))} again ({key})")
        _encode_latents(request, store, key)
    for key, names in sorted(damage.text.items()):
        on_step(f"encoding text of {', '.join(sorted(names))} again ({key})")
        _encode_text(request.store, store, key)
    if damage.stats:
        from fwdata.store.caches.stats import compute_statistics, save_statistics

        on_step("computing the statistics again")
        with write_lock(request.store):
            save_statistics(store, compute_statistics(store))


def _encode_latents(request: RepairRequest, store: Store, key: str) -> None:
    from fwdata.encode.latents import EncodeRequest, encode_latents

    record = read_record(store.files, f"latents/{key}", LatentCacheRecord)
    if record is None:
        raise StoreDamaged(f"{request.store}/latents/{key}/zarr.json is missing; encode these latents again")
    again = EncodeRequest(
        store=request.store,
        vae=record.vae,
        name=record.name,
        stride=record.stride,
        device=request.device,
        dtype=record.compute_dtype,
        batch=record.count_setting("batch"),
    )
    encode_latents(again, lambda count: None, lambda *values: None)


def _encode_text(path: Path, store: Store, key: str) -> None:
    from fwdata.encode.prompts import encode_text, store_prompts

    record = read_record(store.files, f"text/{key}", TextCacheRecord)
    if record is None:
        raise StoreDamaged(f"{path}/text/{key}/zarr.json is missing; encode this text again")
    canonical = set(store_prompts(store, "canonical"))
    known = set(store.text(record.name).prompts)
    which: Literal["canonical", "all"] = "canonical" if known <= canonical else "all"
    encoder = record.identity.get("encoder")
    made = encoder if isinstance(encoder, dict) else {}
    device = "auto" if "device" in made else "cpu"
    encode_text(path, record.encoder, name=record.name, which=which, device=device, short="lengths" in made)
