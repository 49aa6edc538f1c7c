"""What a conversion would do: the converter, the recordings found, and the parts they will be stored in.

The plan is a function of the recordings and the manifest alone, is written before the first episode, and is followed
by every later run; so a store's bytes do not depend on workers or interruptions.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from fwdata.api import ChooseManifest, Converter, Fetch
from fwdata.errors import StaleCache, UsageError, did_you_mean
from fwdata.manifest import Manifest, load_manifest, plugin_dir, validate_model
from fwdata.pipeline.roots import Found, Recording
from fwdata.store.files import LocalFiles, plan_digest, read_attributes, write_group
from fwdata.store.identity import differences
from fwdata.store.layout import PART_BYTES, PART_EPISODES, part_name

EPISODE_SECONDS = 300.0
SECONDS_PER_MB = 20.0
"""How long one recording may take by default: so many seconds, and so many more per MB of its source."""

WORKER_MEMORY = 4 << 30
"""Bytes a worker may allocate by default; conversions stream, and stay below 700 MB."""


@dataclass(frozen=True)
class ConvertRequest:
    """One `fwdata convert` call.

    source: converter name. roots: folders (or files) of recordings. out: the store. manifest: with options applied.
    workers: processes that read recordings, each supervised; 0 reads in this process, where a decoder that crashes ends
    the run. on_error: "skip" quarantines bad recordings and goes on, "fail" stops at the first. episode_seconds: time
    one recording may take, besides SECONDS_PER_MB of its size; memory: bytes a worker may allocate (Linux), None for
    no bound. A recording that costs two workers their life is quarantined. part_episodes: most recordings of a part,
    the unit that one worker does; None for PART_EPISODES. retry: try recordings that an earlier run left out again.
    """

    source: str
    roots: tuple[Path, ...]
    out: Path
    manifest: Manifest
    workers: int = 1
    on_error: str = "skip"
    episode_seconds: float = EPISODE_SECONDS
    memory: int | None = WORKER_MEMORY
    part_episodes: int | None = None
    retry: bool = False

    def where(self) -> str:
        """The roots, for messages."""
        return str(self.roots[0]) + (f" and {len(self.roots) - 1} more" if len(self.roots) > 1 else "")


@dataclass(frozen=True)
class PlannedPart:
    """Recordings that share one part. missing: planned recordings that are no longer in the roots."""

    name: str
    group: str
    recordings: tuple[Recording, ...]
    missing: tuple[str, ...]
    digest: str

    def entry(self) -> dict[str, Any]:
        """The part as it is written to the plan, for a part planned now."""
        episodes = [{"id": r.id, "source": r.source, "bytes": r.ref.num_bytes} for r in self.recordings]
        return {"name": self.name, "group": self.group, "episodes": episodes}


@dataclass(frozen=True)
class Plan:
    """All parts of a store, and those that are not written yet."""

    found: Found
    parts: tuple[PlannedPart, ...]
    pending: tuple[PlannedPart, ...]


def converter_names() -> list[str]:
    """Names that `fwdata convert` takes: built-in converters and those of FWDATA_PLUGINS."""
    import converters

    names = {m.name for m in pkgutil.iter_modules(converters.__path__) if not m.name.startswith("_")}
    plugins = plugin_dir()
    if plugins is not None and plugins.is_dir():
        names |= {p.stem for p in plugins.glob("*.py") if not p.name.startswith("_")}
    return sorted(names)


def load_converter(manifest: Manifest) -> Converter:
    """The converter a manifest names. UsageError with the closest match when there is none."""
    module = _converter_module(manifest.converter)
    if not hasattr(module, "Converter"):
        raise UsageError(f"{module.__file__} has no class Converter; see fwdata.api for what a converter must offer")
    converter: Converter = module.Converter(manifest)
    return converter


def options_model(source: str) -> type[BaseModel] | None:
    """The `Options` of a converter's module: the pydantic model of its manifest options, or None."""
    found = getattr(_converter_module(source), "Options", None)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _converter_module(name: str) -> ModuleType:
    if name not in converter_names():
        raise UsageError(f"no converter {name!r}{did_you_mean(name, converter_names())}")
    plugins = plugin_dir()
    if plugins is None or not (plugins / f"{name}.py").is_file():
        return importlib.import_module(f"converters.{name}")
    spec = importlib.util.spec_from_file_location(f"fwdata_plugin_{name}", plugins / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look it up
    spec.loader.exec_module(module)
    return module


def located(source: str, raw: Path, manifest: str | None, options: Mapping[str, Any]) -> Path:
    """`raw`, or the folder that its converter fetches it to (function `fetch`), where there is no such path.

    raw may name a dataset on the hub. UsageError when it cannot be fetched.
    """
    if raw.exists():
        return raw
    fetch: Fetch | None = getattr(_converter_module(source), "fetch", None)
    return raw if fetch is None else fetch(raw.as_posix(), manifest, options)


def chooser(source: str) -> ChooseManifest | None:
    """The function `choose_manifest` of a converter's module, or None."""
    return getattr(_converter_module(source), "choose_manifest", None)


def manifest_for(
    source: str, manifest: str | None, options: Mapping[str, Any], roots: Sequence[Path] = (), workers: int = 0
) -> Manifest:
    """The manifest of a conversion: by name or path, else the one that the converter chooses for these roots (function
    `choose_manifest`), else the one called like the source; options override its own.

    workers: above 0, the converter looks at the roots in a supervised process. UsageError when the manifest belongs to
    another converter.
    """
    chooses = chooser(source) is not None
    if manifest is None and roots and chooses:
        from fwdata.pipeline.find import choose_manifest

        found = choose_manifest(source, roots, options, workers)
    else:
        found = load_manifest(manifest or source)
    if found.converter != source:
        raise UsageError(f"manifest {found.name!r} is for converter {found.converter!r}, not {source!r}")
    if not options:
        return found
    data = found.model_dump(mode="json")
    data["options"] = {**data["options"], **options}
    return validate_model(Manifest, data, f"manifest {found.name}")


def _cut(recordings: Iterable[Recording], most: int) -> Iterator[list[Recording]]:
    """Recordings in order, cut where the group changes or a part is full."""
    part: list[Recording] = []
    size = 0
    for recording in recordings:
        full = len(part) >= most or size + recording.ref.num_bytes > PART_BYTES
        if part and (recording.group != part[0].group or full):
            yield part
            part, size = [], 0
        part.append(recording)
        size += recording.ref.num_bytes
    if part:
        yield part


def check_output(request: ConvertRequest) -> bool:
    """Whether `out` holds this conversion already (whole or in part).

    UsageError when it is something else, StaleCache with the differences named when it was made with another manifest.
    """
    out = request.out
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"--out {out}: {path} is a file; name a folder that does not exist yet")
    if not out.exists() or all(p.name in {"plan", "parts"} or p.name.endswith(".tmp") for p in out.iterdir()):
        return False  # nothing, or what a conversion leaves that ended before its first episode
    attributes = read_attributes(LocalFiles(out), "")
    if attributes is None and read_attributes(LocalFiles(out), "plan") is not None:
        return False  # a store that lost its own metadata: they are written anew
    if attributes is None:
        raise UsageError(f"--out {out} exists and is no fwdata store; choose another folder")
    if "merged" in attributes:
        raise UsageError(f"--out {out} was made by `fwdata merge`; convert to a store of its own and merge again")
    before, now = attributes["source"], request.manifest.converter
    if before != now:
        raise StaleCache(f"{out} was converted from {before} recordings, these are to be {now}; choose another --out")
    changed = differences(attributes["manifest"], request.manifest.model_dump(mode="json"))
    if changed:
        raise StaleCache(f"{out} was converted with other choices: {'; '.join(changed)}; choose another --out")
    return True


def make_plan(request: ConvertRequest, found: Found) -> Plan:
    """Decide the parts of the recordings found.

    A store's existing plan is followed; recordings that are new in a root, and with `retry` those left out by earlier
    runs, become further parts. UsageError when the store was made from other roots or other recordings altogether.
    """
    _check_roots(request.out, found)
    by_id = {recording.id: recording for recording in found.recordings}
    old: list[dict[str, Any]] = _read_plan(request.out).get("parts", [])
    planned = {episode["id"] for part in old for episode in part["episodes"]}
    if planned and planned.isdisjoint(by_id):
        raise UsageError(
            f"{request.out} was converted from other recordings: it has none of the {len(by_id)} found below "
            f"{request.where()}; choose another --out"
        )
    parts = [_planned(entry, by_id) for entry in old]
    done = planned - _left_out(request.out, old) if request.retry else planned
    new = (r for r in found.recordings if r.id not in done)
    for members in _cut(new, request.part_episodes or PART_EPISODES):
        digest = plan_digest({r.id: r.ref.num_bytes for r in members})
        parts.append(PlannedPart(part_name(len(parts)), members[0].group, tuple(members), (), digest))
    return Plan(found, tuple(parts), tuple(p for p in parts if not _is_written(request.out, p)))


def _left_out(out: Path, planned: Sequence[Mapping[str, Any]]) -> set[str]:
    """Ids of recordings that the store lists as left out, and that no part still to write has planned again."""
    from fwdata.store.reader import open_store

    if not planned:
        return set()
    store = open_store(out)
    written = {part.name for part in store.parts}
    waiting = {e["id"] for part in planned if part["name"] not in written for e in part["episodes"]}
    return {item["id"] for part in store.parts for item in store.left_out(part)} - waiting


def _check_roots(out: Path, found: Found) -> None:
    """UsageError when a store of several roots is continued with others; one root may have moved."""
    attributes = read_attributes(LocalFiles(out), "") if out.is_dir() else None
    before = list((attributes or {}).get("roots", []))
    now = [root.name for root in found.roots]
    if not before or (len(before) == len(now) == 1) or before == now:
        return
    absent = [f"without {name}" for name in before if name not in now]
    more = [f"with {name}" for name in now if name not in before]
    raise UsageError(
        f"{out} was converted from {', '.join(before)}, now asked for {' and '.join([*absent, *more])}; give the same "
        "folders, or choose another --out and `fwdata merge` the stores"
    )


def _planned(entry: Mapping[str, Any], by_id: Mapping[str, Recording]) -> PlannedPart:
    episodes = entry["episodes"]
    return PlannedPart(
        name=entry["name"],
        group=entry["group"],
        recordings=tuple(by_id[e["id"]] for e in episodes if e["id"] in by_id),
        missing=tuple(e["source"] for e in episodes if e["id"] not in by_id),
        digest=plan_digest({e["id"]: e["bytes"] for e in episodes}),
    )


def _is_written(out: Path, part: PlannedPart) -> bool:
    if not out.is_dir():
        return False
    attributes = read_attributes(LocalFiles(out), f"parts/{part.name}")
    if attributes is None or attributes.get("state") != "complete":
        return False
    if attributes["plan"] != part.digest:
        raise StaleCache(f"{out}/parts/{part.name} does not belong to the store's plan; convert to another --out")
    return True


def _read_plan(out: Path) -> dict[str, Any]:
    """The plan that a store follows; empty before its root metadata are written."""
    if not out.is_dir() or read_attributes(LocalFiles(out), "") is None:
        return {}
    return read_attributes(LocalFiles(out), "plan") or {}


def write_plan(out: Path, plan: Plan) -> None:
    """Write the store's plan when it says anything new; recordings planned earlier stay as they were planned."""
    previous = _read_plan(out)
    old = {part["name"]: part for part in previous.get("parts", [])}
    parts = [old.get(part.name) or part.entry() for part in plan.parts]
    skipped = [{"source": s.source, "reason": s.reason} for s in plan.found.skipped]
    content = {"parts": parts, "skipped": skipped, "warnings": list(plan.found.warnings)}
    if content != previous:
        write_group(out / "plan", content)
