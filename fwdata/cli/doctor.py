"""`fwdata doctor`: what ruins training, found before it starts."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.cli.converter_options import (
    SourceOptionsCommand,
    as_flags,
    chosen_options,
    parse_options,
    with_flags,
)
from fwdata.console import default_workers, emit_json, progress_bar, say, say_list
from fwdata.errors import StoreError, UsageError, quoted
from fwdata.wording import counted, named

if TYPE_CHECKING:
    from fwdata.doctor.album import Album
    from fwdata.doctor.findings import Checkup, FailOn, FindingGroup
    from fwdata.pipeline.request import ConvertRequest
    from fwdata.pipeline.roots import CombinedDiscovery, RootedRecording


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="doctor", cls=SourceOptionsCommand)(doctor)


def doctor(
    context: typer.Context,
    where: Annotated[str, typer.Argument(metavar="STORE|RAW", help="The store, or a folder of recordings (--source).")],
    source: Annotated[
        str | None, typer.Option(help="Format of recordings that are not converted yet: robotwin, libero, ..")
    ] = None,
    manifest: Annotated[str | None, typer.Option(help="With --source: manifest name or path, as for convert.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="With --source: converter option key=value; repeatable.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="With --source: reader processes; default: all cores, at most 8.")
    ] = None,
    fail_on: Annotated[
        str, typer.Option(help="stop: exit code 2 for findings that stop; warn: also 1 for warnings.")
    ] = "stop",
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with plots and film strips: NAME.html or a folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find what ruins training: wrong conventions, dead cameras, duplicates, unreachable windows, stale caches.

    Every finding has a severity (stop, warn, note), the measured number, the episodes, and the command that fixes it.
    Nothing is changed. Exit code 0; 2 for a finding that stops; with --fail-on warn 1 for a warning.

    Example: fwdata doctor data/robotwin.zarr --fail-on warn
    """
    if fail_on not in ("warn", "stop"):
        raise UsageError(f"--fail-on must be warn or stop, found {fail_on!r}")
    least: FailOn = "warn" if fail_on == "warn" else "stop"
    if html is not None:
        from fwdata.doctor.page import PAGE
        from fwdata.report.place import page_place

        page_place(html, PAGE, "--html")  # before minutes of work
    if source is None:
        if manifest or options or workers is not None:
            raise UsageError("--manifest, --set and --workers are for recordings; name their format with --source")
        found, album = _check_store(where)
    else:
        chosen = chosen_options(context)
        flags = [*(f"--set={option}" for option in options or []), *as_flags(chosen)]
        given = [*(["--manifest", manifest] if manifest else []), *flags]
        with _advising_doctor():
            request = _request(source, where, manifest, parse_options(options or []) | chosen, workers)
            found, album = _check_recordings(request, given)
    if html is not None:
        from fwdata.doctor.page import write_page

        say(str(write_page(found, album, html)))
    if as_json:
        from fwdata.cli.answers import DoctorJson

        emit_json(DoctorJson(**found.to_json(), exit_code=found.exit_code(least)))
    else:
        _print(found)
    raise typer.Exit(found.exit_code(least))


_CONVERT = re.compile(r"fwdata convert (\S+) (.+) --out STORE\b")


@contextlib.contextmanager
def _advising_doctor() -> Iterator[None]:
    """Have the errors of a look at recordings, which a conversion takes too, advise the doctor's command."""
    try:
        yield
    except UsageError as error:
        text = _CONVERT.sub(r"fwdata doctor \2 --source \1", str(error))
        if text == str(error):
            raise
        raise type(error)(text) from None


def _check_store(where: str) -> tuple[Checkup, Album]:
    from fwdata import open as open_store
    from fwdata.doctor.album import StoredAlbum
    from fwdata.doctor.checkup import check_store

    try:
        store = open_store(where)
    except StoreError as error:
        if type(error) is not StoreError or not Path(where).exists():
            raise
        from fwdata.pipeline.other_source import source_of

        source = source_of(Path(where))
        command = f"fwdata doctor {quoted(where)} --source {source or 'NAME'}"
        if source is None:
            raise StoreError(f"{error}; for recordings, name their format: {command}") from None
        raise StoreError(f"{where} holds recordings of source {source}, not a store; examine them: {command}") from None
    with progress_bar("examining", "episodes") as bar:
        bar.start(len(store.episodes))
        return check_store(store, bar.advance), StoredAlbum(store)


def _request(
    source: str, where: str, manifest: str | None, given: Mapping[str, object], workers: int | None
) -> ConvertRequest:
    """A conversion that is not done."""
    from fwdata.pipeline.choose import manifest_for
    from fwdata.pipeline.registry import located
    from fwdata.pipeline.request import WORKER_MEMORY, ConvertRequest
    from fwdata.pipeline.workers import WorkerPool

    roots = (located(source, Path(where), manifest, given),)
    count = default_workers() if workers is None else workers
    with WorkerPool(min(1, count), WORKER_MEMORY) as pool:
        chosen = manifest_for(source, manifest, given, roots, pool)
    return ConvertRequest(source, roots, Path(os.devnull), chosen, count)


def _check_recordings(request: ConvertRequest, given: list[str]) -> tuple[Checkup, Album]:
    from fwdata.doctor.album import RecordingAlbum
    from fwdata.doctor.recordings import check_recordings

    recordings: list[RootedRecording] = []
    with progress_bar("examining", "recordings") as bar:

        def on_found(found: CombinedDiscovery) -> None:
            recordings.extend(found.recordings)
            bar.start(len(recordings))

        checked = check_recordings(request, given, on_found, bar.advance)
    return checked, RecordingAlbum(request, recordings)


def _print(found: Checkup) -> None:
    from fwdata.evidence.sentences import count_not_verified
    from fwdata.evidence.sentences import line as verdict_line

    counts = found.counts()
    for group in found.groups():
        _print_group(group)
    say_list(count_not_verified(found.verdicts), found.not_verified)
    for verdict in found.verdicts:
        if verdict.tells:
            print(f"  evidence {verdict_line(verdict)}")
    images = ", ".join(f"{name} of {count}" for name, count in found.looked_at.items())
    last = list(found.looked_at.values())[-1:]
    print(
        f"{found.where}: {counted(found.episodes, 'episode')}, {counted(found.frames, 'frame')} examined"
        f"{f', images of {images} {named(last[0], "episode")}' if last else ''}: "
        f"{counts['stop']} stop, {counts['warn']} warn, {counts['note']} note"
    )


def _print_group(group: FindingGroup) -> None:
    from fwdata.doctor.findings import EXAMPLES

    episodes = f", {counted(group.count, 'episode')}" if group.count else ""
    number = f"{len(group.findings)} findings" if len(group.findings) > 1 else "1 finding"
    print(f"{group.severity} {group.detector}: {number}{episodes}")
    for finding in group.findings[:EXAMPLES]:
        print(f"  {with_flags(finding.sentence)}")
        if finding.episodes:
            more = f", .. ({finding.count} in all)" if finding.count > EXAMPLES else ""
            print(f"    episodes: {', '.join(finding.episodes[:EXAMPLES])}{more}")
        if finding.command:
            print(f"    fix: {finding.command}")
        elif finding.severity != "note":
            print("    fix: no option of fwdata; mend the recordings, or leave them out")
    if len(group.findings) > EXAMPLES:
        print(f"  and {len(group.findings) - EXAMPLES} more (--json lists them)")
