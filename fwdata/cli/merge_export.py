"""Commands that join stores or hand them on: `merge`, `copy`, `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import emit_json, progress_bar, say
from fwdata.errors import UsageError
from fwdata.store.locations import parse_location
from fwdata.wording import counted

if TYPE_CHECKING:
    from fwdata.merge import MergeRequest

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(name="merge")(merge)
    app.command(name="copy")(copy)
    group = typer.Typer(
        help="Export a store in another format.",
        epilog="Example: fwdata export lerobot data/robotwin.zarr exports/robotwin",
        no_args_is_help=True,
    )
    group.command(name="lerobot")(export_lerobot)
    group.command(name="fastwam-text")(export_fastwam_text)
    app.add_typer(group, name="export")


def copy(
    source: Annotated[str, typer.Argument(help="The store: a path or a URL (s3://, gs://, hf://, https://).")],
    target: Annotated[str, typer.Argument(help="Where to: a path or a URL.")],
    as_json: AsJson = False,
) -> None:
    """Copy a store byte for byte between paths and URLs, every file checked. Running it again continues.

    Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ..), never from the URL.

    Example: fwdata copy data/robotwin.zarr s3://bucket/robotwin.zarr
    """
    from fwdata.store.copying import copy_store

    with progress_bar("copying", "files") as bar:
        report = copy_store(source, target, bar.start, bar.advance)
    if as_json:
        from fwdata.cli.answers import CopyJson

        emit_json(CopyJson(files=report.files, copied=report.copied, bytes=report.bytes))
    else:
        print(f"{target}: {counted(report.files, 'file')}, {report.copied} copied now ({report.bytes:,} bytes)")


def merge(
    stores: Annotated[list[str], typer.Argument(metavar="STORE..", help="Stores to join, two or more.")],
    out: Annotated[str, typer.Option("--out", help="The store to write: a path or a URL.")],
    allow_option: Annotated[
        list[str] | None,
        typer.Option(help="Converter option that may differ (it only chooses recordings); repeatable."),
    ] = None,
    allow_duplicates: Annotated[
        bool, typer.Option("--allow-duplicates", help="Keep recordings that two stores both hold.")
    ] = False,
    dry_run: DryRunFlag = False,
    as_json: AsJson = False,
) -> None:
    """Join stores of one robot into one, byte for byte: no frame is decoded. Running it again continues.

    Latents, text and stitched frames come along where every store has them made in the same way.

    Example: fwdata merge spatial.zarr object.zarr --out libero.zarr
    """
    from fwdata.merge import MergeRequest

    place = parse_location(out)
    if dry_run:
        path = place if isinstance(place, Path) else Path(out)
        _merge_dry_run(MergeRequest(tuple(stores), path, tuple(allow_option or ()), allow_duplicates), as_json)
        return
    from fwdata.merge import merge as run
    from fwdata.store.working_copy import working_copy

    with progress_bar("merging", "files") as bar, working_copy(out) as folder:
        request = MergeRequest(tuple(stores), folder, tuple(allow_option or ()), allow_duplicates)
        report = run(request, lambda plan: bar.start(plan.files), bar.advance)
    for note in report.notes:
        say(note)
    if as_json:
        from fwdata.cli.answers import MergeJson

        emit_json(
            MergeJson(
                out=str(place),
                episodes=report.episodes,
                frames=report.frames,
                files=report.files,
                seconds=round(report.seconds, 3),
                notes=list(report.notes),
            )
        )
        return
    done = (
        f"{counted(report.files, 'file')} copied in {report.seconds:.1f} s" if report.files else "nothing left to copy"
    )
    print(f"{place}: {counted(report.episodes, 'episode')}, {counted(report.frames, 'frame')}; {done}")


def _merge_dry_run(request: MergeRequest, as_json: bool) -> None:
    from fwdata.merge import plan_merge

    plan = plan_merge(request)
    caches = sorted(plan.groups)
    if as_json:
        from fwdata.cli.answers import MergeDryRunJson

        emit_json(
            MergeDryRunJson(
                episodes=plan.episodes,
                frames=plan.frames,
                files=plan.files,
                caches=caches,
                notes=list(plan.notes),
                merged=list(plan.root.merged),
            )
        )
        return
    for note in plan.notes:
        say(note)
    along = f", with {', '.join(caches)}" if caches else ""
    print(f"{counted(plan.episodes, 'episode')}, {counted(plan.frames, 'frame')}, {counted(plan.files, 'file')}{along}")


def export_lerobot(
    store: Annotated[str, typer.Argument(help="The store: a path or a URL.")],
    out: Annotated[Path, typer.Argument(help="Folder of the dataset; must not exist yet.")],
    episodes: Annotated[str | None, typer.Option(help="Only these, e.g. 0,3,7-12; default: all.")] = None,
    video: Annotated[
        bool, typer.Option("--video/--image", help="Lossy video as lerobot encodes it, or exact PNG.")
    ] = True,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Also upload it to the hub.")] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", help="With --push: licence of the recordings.")
    ] = None,
    dry_run: DryRunFlag = False,
    as_json: AsJson = False,
) -> None:
    """Write a LeRobot v3.0 dataset through lerobot's own writer.

    Example: fwdata export lerobot data/robotwin.zarr lerobot/robotwin --image
    """
    from fwdata import open as open_store
    from fwdata.export import lerobot

    if push is not None:
        _may_push(push, license_name, dry_run)
    chosen = None if episodes is None else parse_numbers(episodes)
    request = lerobot.ExportRequest(open_store(store), out, chosen, "video" if video else "image")
    if dry_run:
        plan, seconds = lerobot.plan_export(request), None
    else:
        with progress_bar("exporting", "frames") as bar:
            report = lerobot.export_lerobot(request, lambda plan: bar.start(plan.frames), bar.advance)
        plan, seconds = report.plan, report.seconds
        if push is not None and license_name is not None:
            from fwdata.share.lerobot import push_exported

            with progress_bar("pushing", "files") as bar:
                push_exported(out, push, license_name, bar.start, bar.advance)
    if as_json:
        from fwdata.cli.answers import ExportLerobotJson

        found = ExportLerobotJson(
            out=str(out),
            episodes=len(plan.episodes),
            frames=plan.frames,
            fps=plan.fps,
            cameras=plan.sizes,
            decisions=list(plan.decisions),
            repository=push,
        )
        emit_json(found if seconds is None else {**found, "seconds": round(seconds, 3)})
        return
    for decision in plan.decisions:
        print(f"  decided {decision}")
    took_text = "" if seconds is None else f" in {seconds:.1f} s"
    print(
        f"{out}: {counted(len(plan.episodes), 'episode')}, {counted(plan.frames, 'frame')}, "
        f"{counted(len(plan.sizes), 'camera')}{took_text}"
    )
    if push is not None and not dry_run:
        print(f"pushed to {push}")


def _may_push(repo: str, license_name: str | None, dry_run: bool) -> None:
    """UsageError before anything is exported where it cannot be uploaded."""
    from fwdata.share.hub import check_repository, need_login

    if license_name is None:
        raise UsageError("--push needs the licence of the recordings: --license apache-2.0, cc-by-4.0, ..")
    check_repository(repo)
    if not dry_run:
        need_login(repo)


def export_fastwam_text(
    store: Annotated[str, typer.Argument(help="The store: a path or a URL.")],
    out: Annotated[Path, typer.Argument(help="Folder of the files; those that are there are kept.")],
    name: Annotated[str | None, typer.Option(help="Text cache (default: the only one, or default).")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the text cache as upstream Fast-WAM's files, one per prompt, for its use_text_embed_cache.

    Example: fwdata export fastwam-text data/libero.zarr text_embeds
    """
    from fwdata import open as open_store
    from fwdata.export.official_text import export_official_text

    report = export_official_text(open_store(store), out, name)
    if as_json:
        from fwdata.cli.answers import ExportTextJson

        emit_json(ExportTextJson(out=str(out), prompts=report.prompts, written=report.written))
        return
    print(f"{out}: {counted(report.prompts, 'prompt')}, {counted(report.written, 'file')} written")


def parse_numbers(text: str) -> tuple[int, ...]:
    """`"0,3,7-9"` to (0, 3, 7, 8, 9). UsageError for anything else."""
    numbers: list[int] = []
    for piece in text.split(","):
        low, dash, high = piece.strip().partition("-")
        if not low.isdecimal() or (dash and not (high.isdecimal() and int(high) >= int(low))):
            raise UsageError(f"--episodes takes numbers and ranges like 0,3,7-12, found {piece.strip()!r}")
        numbers += range(int(low), int(high or low) + 1)
    return tuple(numbers)
