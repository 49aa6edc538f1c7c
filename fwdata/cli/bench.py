"""`fwdata bench`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from fwdata.console import emit_json, print_table, say
from fwdata.wording import counted

if TYPE_CHECKING:
    from fwdata.bench import ConvertBench, Timing

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(
        help="Measure speed against a limit found in the same run.",
        epilog="Example: fwdata bench read data/robotwin.zarr",
        no_args_is_help=True,
    )
    group.command(name="convert")(convert)
    group.command(name="evidence")(evidence)
    group.command(name="read")(read)
    group.command(name="storage")(storage)
    group.command(name="video")(video)
    group.command(name="encode")(encode)
    app.add_typer(group, name="bench")


class _Asked(TypedDict):
    """What the options say, by the names of `bench_convert`."""

    repeats: int
    peer: bool
    evidence: bool
    codecs: bool


def convert(
    source: Annotated[str | None, typer.Argument(help="Source format; default: all four.")] = None,
    raw: Annotated[Path | None, typer.Argument(help="Folder of recordings; default: made for the purpose.")] = None,
    manifest: Annotated[str | None, typer.Option(help="Manifest name or path.")] = None,
    episodes: Annotated[
        int | None, typer.Option(min=2, help="Recordings to make; default: some seconds of conversion.")
    ] = None,
    rows: Annotated[int, typer.Option(min=16, help="Frames of each.")] = 120,
    peer: Annotated[bool, typer.Option("--peer/--no-peer", help="Also time lerobot's own writer.")] = True,
    workers: Annotated[bool, typer.Option("--workers/--no-workers", help="Also time two workers.")] = True,
    evidence: Annotated[bool, typer.Option("--evidence/--no-evidence", help="Measure conventions, too.")] = True,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of decoding and converting; the fastest counts.")] = 3,
    codecs: Annotated[bool, typer.Option("--codecs", help="Also convert by other codecs of pixels (libero).")] = False,
    as_json: AsJson = False,
) -> None:
    """Frames per CPU second of a conversion, against only reading and decoding the same frames, and lerobot's writer.

    Example: fwdata bench convert robotwin RAW_DIR
    """
    from fwdata.bench import SOURCES, bench_convert, write_recordings
    from fwdata.bench.convert import BenchConvertJson
    from fwdata.bench.recordings import EPISODES
    from fwdata.errors import UsageError
    from fwdata.pipeline.choose import manifest_for

    if codecs and source is None:
        raise UsageError("--codecs needs a source of pixels, as in `fwdata bench convert libero --codecs`")
    found = []
    for name in [source] if source is not None else SOURCES:
        with tempfile.TemporaryDirectory(prefix="fwdata-bench-") as folder:
            say(f"{name}: {'measuring' if raw else 'recording, then measuring'}")
            place = raw or write_recordings(name, Path(folder) / "raw", episodes or EPISODES.get(name, 2), rows)
            short = None if raw else write_recordings(name, Path(folder) / "short", 2, 16)
            chosen = manifest_for(name, manifest, {}, [place])
            counts = (1, 2) if workers else ()
            asked: _Asked = {"repeats": repeats, "peer": peer, "evidence": evidence, "codecs": codecs}
            found.append(bench_convert(name, place, chosen, workers=counts, short=short, **asked))
    if as_json:
        emit_json(BenchConvertJson(unit="camera frames", rows=[item.to_json() for item in found]))
        return
    print_table(
        "camera frames per CPU second; start: the command on two short recordings; whole conversions on the clock",
        _HEADER,
        [_row(item) for item in found],
    )
    for row in (item.to_json() for item in found if item.codecs):
        print_table(
            f"{row['source']}: whole conversions by codec, conventions not measured",
            ("codec of pixels", "of the floor", "bytes"),
            [(one["codec"], f"{one['floor_share']:.2f}", f"{one['bytes_ratio']:.2f}") for one in row["codecs"]],
        )


_HEADER = (
    "source",
    "pictures",
    "frames",
    "decode",
    "convert",
    "of it",
    "bytes",
    "lerobot",
    "times",
    "start",
    "1 worker",
    "2 workers",
    "ratio",
    "peak",
    "load",
)


def _row(item: ConvertBench) -> tuple[str, ...]:
    peer = ("-", "-") if item.peer is None else (f"{item.peer.rate:,.0f}", f"{item.of_peer:,.1f}x")
    wall = [f"{w.wall:.2f} s" for w in item.whole] or ["-", "-"]
    start = "-" if item.startup is None else f"{item.startup[0]:.2f} s, {item.startup[1]:.2f} CPU"
    ratio = "-" if item.two_worker_ratio is None else f"{item.two_worker_ratio:.2f} of {item.two_worker_limit:.2f}"
    peak = "-" if item.peak_memory is None else f"{item.peak_memory / 1e6:,.0f} MB"
    own = (f"{item.conversion.units:,}", f"{item.floor.rate:,.0f}", f"{item.conversion.rate:,.0f}")
    return (
        item.source,
        item.pictures,
        *own,
        f"{item.of_floor:.2f}",
        f"{item.bytes_ratio:.2f}",
        *peer,
        start,
        *wall,
        ratio,
        peak,
        f"{item.load:.1f}",
    )


def evidence(
    source: Annotated[str, typer.Argument(help="Source format.")],
    raw: Annotated[Path | None, typer.Argument(help="Folder of recordings; default: made for the purpose.")] = None,
    manifest: Annotated[str | None, typer.Option(help="Manifest name or path.")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="Recordings to make.")] = 20,
    rows: Annotated[int, typer.Option(min=16, help="Frames of each.")] = 120,
    runs: Annotated[int, typer.Option(min=1, help="Conversions with, and as many without.")] = 5,
    workers: Annotated[int | None, typer.Option(min=0, help="As of `fwdata convert`.")] = None,
    as_json: AsJson = False,
) -> None:
    """What measuring conventions adds to a conversion: the whole command with and without it, in turns.

    Example: fwdata bench evidence libero RAW_DIR --runs 10
    """
    from fwdata.bench import write_recordings
    from fwdata.bench.evidence import bench_evidence

    with tempfile.TemporaryDirectory(prefix="fwdata-bench-") as folder:
        say(f"{source}: {'measuring' if raw else 'recording, then measuring'}")
        place = raw or write_recordings(source, Path(folder) / "raw", episodes, rows)
        chosen = {"manifest": manifest, "workers": workers}
        options = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
        found = bench_evidence(source, place, runs, options)
    if as_json:
        emit_json(found.to_json())
        return
    title = f"seconds of {runs} conversions each, start to end, all processes"
    print_table(title, (source, "without", "measured", "adds"), found.rows())


def video(
    side: Annotated[int, typer.Option(min=64, help="Height of the images; the width is 4/3 of it.")] = 480,
    frames: Annotated[int, typer.Option(min=16, help="Frames of each clip.")] = 300,
    as_json: AsJson = False,
) -> None:
    """Reading of kept video by group length, against stored pixels: all frames in order, and frames at random.

    Example: fwdata bench video --side 240
    """
    from fwdata.bench import bench_video
    from fwdata.bench.video import BenchVideoJson

    found = bench_video(side, frames)
    if as_json:
        emit_json(BenchVideoJson(unit="frames", rows=[item.to_json() for item in found]))
        return
    title = f"images of {side * 2 // 3 * 2}x{side}; frames per CPU second, and CPU milliseconds of one frame at random"
    header = ("video", "bytes", "times less", "keep", "in order", "as pixels", "random", "p99", "as pixels")
    print_table(title, header, [item.row() for item in found])


def read(store: Annotated[Path, typer.Argument(help="Store with latents.")], as_json: AsJson = False) -> None:
    """Random training windows per CPU second, against numpy.memmap and zarr-python.

    Example: fwdata bench read data/robotwin.zarr
    """
    from fwdata import open as open_store
    from fwdata.bench import bench_read
    from fwdata.io import refuse_url

    refuse_url(store, "`fwdata bench read` reads local stores only; `fwdata bench storage` measures URLs")
    _print("windows", bench_read(open_store(store)), as_json)


def storage(
    store: Annotated[str, typer.Argument(help="Store with latents behind a URL.")],
    rows: Annotated[int, typer.Option(min=1, help="Random latent rows to read.")] = 512,
    as_json: AsJson = False,
) -> None:
    """Whole shards and random rows of a store behind a URL, against the bare client in the same run.

    Example: fwdata bench storage s3://bucket/robotwin.zarr
    """
    from fwdata import open as open_store
    from fwdata.bench.storage import BenchStorageJson, bench_storage
    from fwdata.store.remote import IN_FLIGHT

    found = bench_storage(open_store(store), rows)
    if as_json:
        emit_json(BenchStorageJson(store=store, in_flight=IN_FLIGHT, rows=[item.to_json() for item in found]))
        return
    shown: list[tuple[str, ...]] = [
        (
            t.name,
            f"{t.rate:,.1f}",
            f"{t.num_bytes / t.seconds / 1e6:,.1f}",
            f"{1e6 * t.cpu / t.units:,.0f}",
            f"{t.rate / base.rate:.2f}",
        )
        for base, t in zip((found[0], found[0], found[2], found[2]), found, strict=True)
    ]
    print_table(
        f"{store}, {IN_FLIGHT} requests at once", ("way", "per s", "MB/s", "CPU us each", "of the client"), shown
    )


def encode(
    store: Annotated[Path, typer.Argument(help="The store; it is only read.")],
    vae: Annotated[str, typer.Option(help="As of encode-latents.")] = "wan2.2",
    stride: Annotated[int, typer.Option(min=1, help="As of encode-latents.")] = 4,
    rows: Annotated[int, typer.Option(min=1, help="Frames to encode, from the first on.")] = 128,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="As of encode-latents.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Clips per forward.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode and stitch ahead.")] = 1,
    peer: Annotated[bool, typer.Option("--peer/--no-peer", help="Also time diffusers' own class.")] = True,
    as_json: AsJson = False,
) -> None:
    """Windows per second of encoding, against the VAE alone and against diffusers one clip at a time.

    Example: fwdata bench encode data/robotwin.zarr --vae wan2.2
    """
    from fwdata import open as open_store
    from fwdata.bench.encode import bench_encode

    found = bench_encode(
        open_store(store), vae, stride=stride, rows=rows, device=device, dtype=dtype, batch=batch,
        decoders=workers, peer=peer,
    )  # fmt: skip
    timings = [item for item in (found.vae, found.ours, found.diffusers) if item is not None]
    if as_json:
        from fwdata.cli.answers import BenchEncodeJson, EncodeWayJson

        ways = [
            EncodeWayJson(
                name=t.name,
                windows=t.windows,
                frames=t.frames,
                seconds=t.seconds,
                vae_seconds=t.vae_seconds,
                cpu_seconds=t.cpu_seconds,
                windows_per_second=round(t.rate, 3),
            )
            for t in timings
        ]
        share = round(found.of_vae(found.ours), 4)
        emit_json(BenchEncodeJson(device=found.device, dtype=found.dtype, of_vae=share, ways=ways))
        return
    shown: list[tuple[str, ...]] = [
        (t.name, f"{t.rate:,.2f}", f"{t.vae_seconds / t.seconds:.0%}", f"{found.of_vae(t):.2f}") for t in timings
    ]
    title = (
        f"{counted(found.vae.windows, 'window')} and {counted(found.vae.frames, 'frame')} between them, "
        f"{found.dtype} on {found.device}"
    )
    print_table(title, ("way", "windows/s", "inside the VAE", "of the VAE alone"), shown)


def _print(unit: str, timings: list[Timing], as_json: bool) -> None:
    base = timings[0].rate
    if as_json:
        from fwdata.cli.answers import BenchReadJson, RateJson

        rows = [RateJson(name=t.name, per_cpu_second=round(t.rate, 2), ratio=round(t.rate / base, 4)) for t in timings]
        emit_json(BenchReadJson(unit=unit, rows=rows))
        return
    shown: list[tuple[str, ...]] = [
        (t.name, f"{t.rate:,.0f}", f"{1e6 / t.rate:,.1f}", f"{t.rate / base:.2f}") for t in timings
    ]
    print_table(f"{unit} per CPU second, one core", ("way", "rate", "us each", "ratio"), shown)
