"""Commands that read a store: `inspect` and `verify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fwdata.cli.converter_options import with_flags
from fwdata.console import emit_json, human_bytes, progress_bar, say
from fwdata.errors import EXIT_DAMAGED, UsageError, quoted
from fwdata.warning_kinds import group_warnings, with_source
from fwdata.wording import counted

if TYPE_CHECKING:
    from fwdata.report.inspect_store import LatentsDescription, StoreDescription, TextDescription

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
StoreArgument = Annotated[str, typer.Argument(help="The store: a path or a URL.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(name="inspect")(inspect)
    app.command(name="verify")(verify)


def inspect(
    store: StoreArgument,
    episode: Annotated[
        str | None, typer.Option(help="Show one episode, by id or index: its warnings, verdicts and decisions.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a store holds and every convention that was decided, or what it holds of one episode.

    Example: fwdata inspect data/robotwin.zarr --json
    """
    from fwdata import open as open_store
    from fwdata.report.inspect_store import describe

    if episode is not None:
        _inspect_episode(store, episode, as_json)
        return
    found = describe(open_store(store))
    if as_json:
        emit_json(found)
    else:
        _print_description(store, found)


def _inspect_episode(store: str, episode: str, as_json: bool) -> None:
    from fwdata import open as open_store
    from fwdata.report.inspect_episode import describe_episode

    found = describe_episode(open_store(store), episode)
    if as_json:
        emit_json(found.to_json())
        return
    for text in found.lines():
        print(text)
    for key, value in found.decisions.items():
        print(f"  decided {key}: {plain_decision(value)}")


def _print_description(store: str, found: StoreDescription) -> None:
    from fwdata.evidence.records import DatasetVerdict
    from fwdata.evidence.sentences import line

    stitched = found["stitched"]
    size = "size unknown" if found["bytes"] is None else human_bytes(found["bytes"])
    print(f"{store}: {found['source']} store, layout {found['layout_version']}, {size}")
    print(f"  episodes {found['episodes']}, frames {found['frames']}, {found['fps']:.4g} Hz")
    if not found["complete"]:
        print("  not finished: the same `fwdata convert` converts the recordings that are missing")
    if found["converter"]["outdated"]:
        made = ", ".join(str(version) for version in found["converter"]["versions"])
        print(
            f"  made by version {made} of its converter, installed is version {found['converter']['installed']}: the "
            "same `fwdata convert` with --update renews it"
        )
    for task, count in found["tasks"].items():
        print(f"  task {task}: {count} {'episode' if count == 1 else 'episodes'}")
    for name, camera in found["cameras"].items():
        if camera["encoding"] is None:
            continue  # no episode yet
        several = len(found["decided_per_episode"][f"camera_sizes.{name}"]) > 1
        more = " and other sizes" if several else ""
        print(f"  camera {name}: {camera['height']}x{camera['width']}{more}, {camera['encoding']}")
    how = "materialised" if stitched["materialised"] else "stitched on the fly"
    print(f"  stitched {found['stitch_layout']}: {stitched['height']}x{stitched['width']}, {how}")
    print(f"  state  {len(found['state_names'])}: {', '.join(found['state_names'])}")
    print(f"  action {len(found['action_names'])}: {', '.join(found['action_names'])}")
    for cache in found["latents"]:
        whole = "complete" if cache["complete"] else "incomplete"
        print(
            f"  latents {cache['name']}: {cache['vae']}, {counted(cache['frames'], 'frame')}, "
            f"{counted(cache['windows'], 'window')}, "
            f"stride {cache['stride']}, {whole}, fingerprint {cache['fingerprint']}{_other_view(cache)}"
        )
    for texts in found["text"]:
        print(f"  text {texts['name']}: {texts['encoder']}, {counted(texts['prompts'], 'prompt')}{_other_view(texts)}")
    print(f"  statistics: {'yes' if found['stats'] else f'not computed (fwdata stats {quoted(store)})'}")
    for origin in found["merged"]:
        print(f"  merged from {origin.store}: {counted(origin.episodes, 'episode')}, fingerprint {origin.fingerprint}")
    for key, value in found["decisions"].items():
        if key not in ("per_episode", "warnings"):
            print(f"  decided {key}: {plain_decision(value)}")
    for key, counts in found["decided_per_episode"].items():
        if counts.keys() == {"min", "median", "max"}:
            text = f"{counts['min']:g} to {counts['max']:g}, median {counts['median']:g}"
        else:
            plain = {"True": "yes", "False": "no", "None": "none"}
            text = "; ".join(f"{plain.get(value, value)} ({count})" for value, count in counts.items())
        if counts:
            print(f"  per episode, {key}: {text}")
    for verdict in map(DatasetVerdict.from_json, found["evidence"]):
        reason = found["accepted"].get(verdict.detector)
        accepted = f"; accepted: {reason}" if reason and verdict.verdict in ("contradicted", "mixed") else ""
        if verdict.tells:
            print(f"  evidence {line(verdict)}{accepted}")
    if not found["evidence"]:
        print("  evidence: no convention was measured (fwdata convert measures them)")
    _print_warnings(found)


def _print_warnings(found: StoreDescription) -> None:
    """What the conversion warned about, and what it left out."""
    reasons = {item["reason"] for item in found["quarantined"]}
    told = cast(list[str], found["decisions"].get("warnings", []))
    lines = [
        (kind.gravity, f"  warning: {with_flags(kind.text)}")
        for kind in group_warnings(("", text) for text in told if text not in reasons)
    ]
    for kind in found["warning_kinds"]:
        shown = ", ".join(kind["examples"]) + (", .." if kind["count"] > len(kind["examples"]) else "")
        line = f"  warning in {counted(kind['count'], 'episode')}: {with_flags(kind['text'])} ({shown})"
        lines.append((kind["gravity"], line))
    for _, line in sorted(lines, key=lambda item: item[0]):
        print(line)
    for left in found["left_out"]:
        shown = f" ({', '.join(left.examples)})" if left.examples else ""
        print(f"  left out, {left.count}: {with_flags(left.reason)}{shown}")
    for item in found["quarantined"]:
        print(f"  quarantined {with_flags(with_source(item['source'], item['reason']))}")


def plain_decision(value: Any) -> str:
    """A decision for people: numbers rounded, mappings as `key value`, lists with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Mapping):
        inner = (
            f"({plain_decision(v)})" if isinstance(v, Mapping | list) else plain_decision(v) for v in value.values()
        )
        return ", ".join(f"{key} {text}" for key, text in zip(value, inner, strict=True)) or "none"
    if isinstance(value, list | tuple):
        return (
            ", ".join(f"({plain_decision(v)})" if isinstance(v, Mapping | list) else plain_decision(v) for v in value)
            or "none"
        )
    return "none" if value is None else str(value)


def _other_view(cache: LatentsDescription | TextDescription) -> str:
    return f"; made under another view: {'; '.join(cache['differs_from_view'])}" if cache["differs_from_view"] else ""


def verify(
    store: StoreArgument,
    sample: Annotated[str, typer.Option(help="Share of the data files to read, e.g. 10%.")] = "100%",
    as_json: AsJson = False,
) -> None:
    """Check every stored byte against its sha256. Exit code 4 when something is damaged.

    With --sample, all metadata and a random share of the data files; a missing or unknown file is always found.

    Example: fwdata verify data/robotwin.zarr --sample 10%
    """
    from fwdata.store.verify import verify_store

    share = _share(sample)
    with progress_bar("verifying", "files") as bar:
        report = verify_store(store, bar.start, bar.advance, sample=share)
    damaged = report.damaged
    if as_json:
        from fwdata.cli.answers import VerifyJson

        emit_json(
            VerifyJson(
                files=report.files, total_files=report.total_files, bytes=report.bytes, sample=share, damaged=damaged
            )
        )
    else:
        for line in damaged:
            say(f"damaged: {line}")
        of = f" of {report.total_files}" if share < 1 else ""
        print(f"{store}: {report.files}{of} files, {human_bytes(report.bytes)}, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(EXIT_DAMAGED)


def _share(text: str) -> float:
    """A share from "10%" or "0.1"; UsageError outside 0 .. 1."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1
    if not 0 < share <= 1:
        raise UsageError(f"--sample takes a share such as 10% or 0.1, found {text!r}")
    return share
