"""Pages to look at a store: `preview` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import emit_json, human_bytes, progress_bar
from fwdata.errors import UsageError

if TYPE_CHECKING:
    from fwdata.doctor.findings import Checkup
    from fwdata.store.reader import Store

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
StoreArgument = Annotated[str, typer.Argument(help="The store: a path or a URL.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(name="preview")(preview)
    app.command(name="report")(report)


def preview(
    store: StoreArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for the images and the page.")] = Path("preview"),
    episodes: Annotated[
        str, typer.Option(help="How many episodes, or their indices: 0,2 or 3-5 (one alone: 7,).")
    ] = "4",
    worst: Annotated[
        int | None, typer.Option(min=1, help="Instead: the N episodes with the gravest findings of fwdata doctor.")
    ] = None,
    films: Annotated[
        bool, typer.Option("--films", help="With a film of every episode, a cursor in its state.")
    ] = False,
    reconstruct: Annotated[
        bool, typer.Option("--reconstruct", help="With frames decoded from the latents, and their PSNR; loads the VAE.")
    ] = False,
    rerun: Annotated[
        Path | None, typer.Option("--rerun", help="Also write these episodes for the rerun viewer: NAME.rrd.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write contact sheets of a few episodes and an HTML page to look at them.

    Example: fwdata preview data/robotwin.zarr --worst 8 --films --out preview
    """
    from fwdata import open as open_store
    from fwdata.report.preview import Extra, choose_episodes, write_preview

    wanted, opened = _episodes(episodes), open_store(store)
    if rerun is not None and rerun.suffix != ".rrd":
        raise UsageError(f"--rerun {rerun}: name a file ending in .rrd")
    extras: list[Extra] = []
    if worst is not None:
        from fwdata.overview.closer import finding_notes, worst_episodes

        checked = _checked(opened)
        wanted = tuple(worst_episodes(opened, checked, worst))
        extras.append(finding_notes(checked))
    if reconstruct:
        from fwdata.overview.closer import reconstructions

        extras.append(reconstructions(opened))
    page = write_preview(opened, out, wanted, extras, films=films)
    chosen = choose_episodes(opened, wanted)
    if rerun is not None:
        from fwdata.export.rerun import write_rerun

        write_rerun(opened, chosen, rerun)
    if as_json:
        from fwdata.cli.answers import PreviewJson

        shown = [episode.index for episode in chosen]
        made = None if rerun is None else str(rerun)
        emit_json(PreviewJson(page=str(page), out=str(out), episodes=shown, rerun=made))
    else:
        print(page)
        if worst is not None and not wanted:
            print("the doctor's findings name no episode")


def _episodes(text: str) -> int | tuple[int, ...]:
    """A count, or indices where there is a comma or a range; UsageError for anything else."""
    from fwdata.cli.merge_export import parse_numbers

    if text.strip().isdecimal() and int(text) > 0:
        return int(text)
    if not {",", "-"} & set(text):
        allowed = "a number from 1, or indices such as 0,2 or 3-5 (one alone: 7,)"
        raise UsageError(f"--episodes takes {allowed}; found {text!r}")
    return parse_numbers(text.strip().removesuffix(","))


def report(
    store: StoreArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The page: NAME.html, or a folder (default: STORE-report.html beside it)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page about a store: readiness, films, the doctor's findings, distributions, decisions, caches, bytes.

    Example: fwdata report data/robotwin.zarr --out robotwin.html
    """
    from fwdata import open as open_store
    from fwdata.overview.page import PAGE, page_beside, write_overview
    from fwdata.overview.rows import measure
    from fwdata.report.place import page_place

    opened = open_store(store)
    if not len(opened.episodes):
        raise UsageError(f"{store} holds no episode; nothing to report")
    place = page_place(out or page_beside(opened), PAGE, "--out")  # before minutes of work
    checked = _checked(opened)
    measured = measure(opened)
    page = write_overview(opened, checked, measured, place)
    size = page.stat().st_size
    if as_json:
        from fwdata.cli.answers import StorePageJson

        emit_json(
            StorePageJson(
                page=str(page),
                bytes=size,
                episodes=len(opened.episodes),
                frames=opened.num_frames,
                findings=dict[str, int](checked.counts().items()),
                odd_lengths=[name for name, _ in measured.odd_lengths],
                gaps=[name for name, _ in measured.gaps],
            )
        )
    else:
        print(f"{page} ({human_bytes(size)}; open it in a browser)")


def _checked(store: Store) -> Checkup:
    """The doctor's findings, with progress."""
    from fwdata.doctor.checkup import check_store

    with progress_bar("examining", "episodes") as bar:
        bar.start(len(store.episodes))
        return check_store(store, bar.advance)
