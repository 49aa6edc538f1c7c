"""What a conversion would do: the converter, the recordings found, and the parts they will be stored in.

The plan is a function of the recordings and the manifest alone, is written before the first episode, and is followed
by every later run; so a store's bytes do not depend on workers or interruptions.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fwdata.api import ChooseManifest, Converter, Discovery, EpisodeRef, Fetch
from fwdata.errors import StaleCache, UsageError, did_you_mean
from fwdata.manifest import Manifest, load_manifest, plugin_dir, validate_model
from fwdata.store.files import LocalFiles, plan_digest, read_attributes, write_group
from fwdata.store.identity import differences
from fwdata.store.layout import PART_BYTES, PART_EPISODES, part_name


@dataclass(frozen=True)
class ConvertRequest:
    """One `fwdata convert` call.

    source: converter name. raw: folder (or file) of recordings. out: the store. manifest: with options applied.
    on_error: "skip" quarantines bad recordings and goes on, "fail" stops at the first.
    """

    source: str
    raw: Path
    out: Path
    manifest: Manifest
    workers: int = 1
    on_error: str = "skip"


@dataclass(frozen=True)
class PlannedPart:
    """Recordings that share one part. missing: planned recordings that are no longer in the root."""

    name: str
    group: str
    refs: tuple[EpisodeRef, ...]
    missing: tuple[str, ...]
    digest: str

    def entry(self) -> dict[str, Any]:
        """The part as it is written to the plan, for a part planned now."""
        episodes = [{"id": ref.id, "source": ref.source, "bytes": ref.num_bytes} for ref in self.refs]
        return {"name": self.name, "group": self.group, "episodes": episodes}


@dataclass(frozen=True)
class Plan:
    """All parts of a store, and those that are not written yet."""

    discovery: Discovery
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


def manifest_for(source: str, manifest: str | None, options: Mapping[str, Any], roots: Sequence[Path] = ()) -> Manifest:
    """The manifest of a conversion: by name or path, else the one that the converter chooses for these roots (function
    `choose_manifest`), else the one called like the source; options override its own.

    UsageError when the manifest belongs to another converter.
    """
    choose: ChooseManifest | None = getattr(_converter_module(source), "choose_manifest", None)
    if manifest is None and roots and choose is not None:
        found = choose(roots, options)
    else:
        found = load_manifest(manifest or source)
    if found.converter != source:
        raise UsageError(f"manifest {found.name!r} is for converter {found.converter!r}, not {source!r}")
    if not options:
        return found
    data = found.model_dump(mode="json")
    data["options"] = {**data["options"], **options}
    return validate_model(Manifest, data, f"manifest {found.name}")


def _cut(refs: tuple[EpisodeRef, ...]) -> Iterator[list[EpisodeRef]]:
    """Recordings in order, cut where the group changes or a part is full."""
    part: list[EpisodeRef] = []
    size = 0
    for ref in refs:
        full = len(part) >= PART_EPISODES or size + ref.num_bytes > PART_BYTES
        if part and (ref.group != part[0].group or full):
            yield part
            part, size = [], 0
        part.append(ref)
        size += ref.num_bytes
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
    if attributes is None:
        raise UsageError(f"--out {out} exists and is no fwdata store; choose another folder")
    if "merged" in attributes:
        raise UsageError(f"--out {out} was made by `fwdata merge`; convert to a store of its own and merge again")
    changed = differences(attributes["manifest"], request.manifest.model_dump(mode="json"))
    if changed:
        raise StaleCache(f"{out} was converted with other choices: {'; '.join(changed)}; choose another --out")
    return True


def find_recordings(request: ConvertRequest, converter: Converter) -> Discovery:
    """What the root holds; reads directories only. UsageError when it is absent, or when the converter says so."""
    if not request.raw.exists():
        raise UsageError(f"there is no folder {request.raw} to convert")
    discovery = converter.discover(request.raw)
    ids = Counter(ref.id for ref in discovery.episodes)
    double = [name for name, count in ids.items() if count > 1]
    if double:
        raise UsageError(f"converter {request.source!r} gave two recordings the id {double[0]!r}; ids must be unique")
    return discovery


def make_plan(request: ConvertRequest, discovery: Discovery) -> Plan:
    """Decide the parts of the recordings found.

    A store's existing plan is followed; recordings that are new in the root become further parts. UsageError when the
    store was made from other recordings altogether.
    """
    by_id = {ref.id: ref for ref in discovery.episodes}
    old: list[dict[str, Any]] = _read_plan(request.out).get("parts", [])
    planned = {episode["id"] for part in old for episode in part["episodes"]}
    if planned and planned.isdisjoint(by_id):
        raise UsageError(
            f"{request.out} was converted from other recordings: it has none of the {len(by_id)} found below "
            f"{request.raw}; choose another --out"
        )
    new = tuple(ref for ref in discovery.episodes if ref.id not in planned)
    parts = [_planned(entry, by_id) for entry in old]
    for refs in _cut(new):
        digest = plan_digest({ref.id: ref.num_bytes for ref in refs})
        parts.append(PlannedPart(part_name(len(parts)), refs[0].group, tuple(refs), (), digest))
    return Plan(discovery, tuple(parts), tuple(p for p in parts if not _is_written(request.out, p)))


def _planned(entry: Mapping[str, Any], by_id: Mapping[str, EpisodeRef]) -> PlannedPart:
    episodes = entry["episodes"]
    return PlannedPart(
        name=entry["name"],
        group=entry["group"],
        refs=tuple(by_id[e["id"]] for e in episodes if e["id"] in by_id),
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
    skipped = [{"source": s.source, "reason": s.reason} for s in plan.discovery.skipped]
    content = {"parts": parts, "skipped": skipped, "warnings": list(plan.discovery.warnings)}
    if content != previous:
        write_group(out / "plan", content)
