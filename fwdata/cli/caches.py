"""Commands that add to a store: `stitch`, `stats`, `encode-text`, `encode-latents`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fwdata.cli.spread_options import (
    AddressOption,
    EngineOption,
    GpusOption,
    ShardOption,
    finish,
    shard_json,
    spread_of,
)
from fwdata.console import default_workers, emit_json, print_table, progress_bar, warn
from fwdata.errors import UsageError, quoted
from fwdata.store.locations import StoreUrl, parse_location
from fwdata.wording import counted

if TYPE_CHECKING:
    from fwdata.encode.latents import EncodeReport

StorePath = Annotated[str, typer.Argument(help="The store: a path or a URL, e.g. data/robotwin.zarr.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
CacheName = Annotated[str, typer.Option(help="Name of the cache.")]
Replace = Annotated[bool, typer.Option("--replace", help="Remove the cache of that name first.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


_STRIDE = (
    "Frames between window starts that get future latents. Above 1, the video loss sees every stride-th window only; "
    "the action loss sees all. Default: that of the cache, 1 for a new one."
)

VaeName = Annotated[
    str,
    typer.Option(
        help="tiny-libero or tiny (embedded), wan2.2, a hub id, or a folder or file of either layout of Wan2.2."
    ),
]
Stride = Annotated[int | None, typer.Option(min=1, help=_STRIDE)]
EncodeDevice = Annotated[str, typer.Option(help="auto (every GPU, else the CPU), cpu, cuda or cuda:N.")]
GpuNumbers = Annotated[str | None, typer.Option(help="Numbers of the GPUs to use, e.g. 0,1.")]
ComputeType = Annotated[
    str, typer.Option(help="Compute type: float32, bfloat16, or auto: bfloat16 on a GPU, float32 on a CPU.")
]
Clips = Annotated[
    int,
    typer.Option(min=1, help="Clips per forward; each number makes its own bits and its own cache."),
]
EncodeWorkers = Annotated[
    int | None, typer.Option(min=1, help="Processes that encode on a CPU, or decode for GPUs; default: all cores.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(name="stitch")(stitch)
    app.command(name="stats")(stats)
    app.command(name="encode-text")(encode_text)
    app.command(name="encode-latents")(encode_latents)


def stitch(
    store: StorePath,
    shard: ShardOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    as_json: AsJson = False,
) -> None:
    """Materialise stitched frames (optional: encode-latents stitches on the fly otherwise).

    They are lossless pixels, about 0.3 of height x width x 3 bytes a frame: many times what kept video takes.

    Example: fwdata stitch data/robotwin.zarr
    """
    from fwdata.pipeline.stitch import stitch as run
    from fwdata.store.working_copy import working_copy

    shown = parse_location(store)
    with progress_bar("stitching", "frames") as bar, working_copy(store) as path:
        frames, units = run(path, spread_of(store, shard, engine, address), bar.start, bar.advance)
    if as_json:
        from fwdata.cli.answers import StitchJson

        emit_json(StitchJson(frames=frames, **shard_json(units)))
    elif frames or units is not None:
        print(f"{shown}: {counted(frames, 'frame')} stitched")
    else:
        print(f"{shown}: every frame is stitched already")
    finish(shown, units, as_json)


def stats(
    store: StorePath,
    export: Annotated[Path | None, typer.Option(help="Also write dataset_stats.json here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compute normalisation statistics of the training episodes and keep them in the store.

    --export writes them in the layout of the official trainer, too.

    Example: fwdata stats data/robotwin.zarr
    """
    from fwdata import open as open_store
    from fwdata.store.caches.stats import compute_statistics, save_statistics
    from fwdata.store.files import refuse_nested, write_lock
    from fwdata.store.working_copy import working_copy

    for path in () if export is None else (export, *export.parents):
        if path.exists() and path.is_dir() == (path == export):
            raise UsageError(f"--export {export}: {path} is a {'folder' if path.is_dir() else 'file'}; name a new file")
    if export is not None:
        refuse_nested(export)
        _refuse_replacing(export)
    with progress_bar("statistics", "episodes") as bar, working_copy(store) as folder:
        opened = open_store(folder)
        bar.start(len(opened.episodes))
        found = compute_statistics(opened, bar.advance)
        with write_lock(folder):
            save_statistics(opened, found)
    if export is not None:
        found.save_json(export)
    if as_json:
        emit_json(found.official())
        return
    for title, names, field in (
        ("state", opened.state_names, found.state),
        ("action", opened.action_names, found.action),
    ):
        columns = zip(names, field.min, field.max, field.mean, field.std, strict=True)
        rows = [(name, *(f"{value:.4f}" for value in values)) for name, *values in columns]
        print_table(title, ("dimension", "min", "max", "mean", "std"), rows)
    print(
        f"{counted(found.num_episodes, 'training episode')}, {counted(found.num_transitions, 'frame')}; kept "
        f"in {parse_location(store)}/stats"
    )


def _refuse_replacing(export: Path) -> None:
    """UsageError for a file that holds something else than exported statistics."""
    if not export.is_file():
        return
    try:
        held = json.loads(export.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError):
        held = None
    if not isinstance(held, dict) or not {"state", "action", "num_transition"} <= held.keys():
        raise UsageError(f"--export {export} exists and does not hold statistics; name a new file")


def encode_text(
    store: StorePath,
    encoder: Annotated[
        str, typer.Option(help="tiny, umt5-xxl, a local folder, a hub id, or fastwam-text:DIR (upstream's files).")
    ] = "umt5-xxl",
    name: CacheName = "default",
    instructions: Annotated[
        str, typer.Option(help="canonical: one wording per episode; all: every one.")
    ] = "canonical",
    device: Annotated[str, typer.Option(help="auto (a GPU, else the CPU), cpu, cuda or cuda:N.")] = "auto",
    short: Annotated[
        bool,
        typer.Option("--short", help="Pad prompts to 16, 32, 64 or 128 tokens, not to 128: faster, other bits."),
    ] = False,
    replace: Replace = False,
    shard: ShardOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    gpus: GpusOption = None,
    as_json: AsJson = False,
) -> None:
    """Encode the instructions, each distinct prompt once. Running it again continues.

    Example: fwdata encode-text data/robotwin.zarr --encoder umt5-xxl
    """
    from fwdata.encode import prompts
    from fwdata.store.working_copy import working_copy

    shown = parse_location(store)
    if instructions not in {"canonical", "all"}:
        raise UsageError(f"--instructions must be canonical or all, found {instructions!r}")
    which: Literal["canonical", "all"] = "all" if instructions == "all" else "canonical"
    spread = spread_of(store, shard, engine, address, gpus)
    spread.refuse("--replace", replace)
    with progress_bar("encoding text", "prompts") as bar, working_copy(store) as path:
        if spread.shared:
            from fwdata.encode.spread_prompts import TextRequest, encode_text_share

            request = TextRequest(path, encoder, name, which, device, short)
            report = encode_text_share(request, spread, bar.advance)
        else:
            report = prompts.encode_text(
                path,
                encoder,
                name=name,
                which=which,
                replace=replace,
                device=device,
                short=short,
                on_plan=bar.start,
                on_prompt=bar.advance,
            )
    if as_json:
        from fwdata.cli.answers import TextJson

        counts = TextJson(name=report.name, prompts=report.prompts, encoded=report.encoded)
        emit_json({**counts, **shard_json(report.units)})
    else:
        print(f"{shown}: {counted(report.prompts, 'prompt')}, {report.encoded} newly encoded in {report.seconds:.1f} s")
    finish(shown, report.units, as_json)


def encode_latents(
    store: StorePath,
    vae: VaeName = "wan2.2",
    stride: Stride = None,
    name: CacheName = "default",
    device: EncodeDevice = "auto",
    devices: GpuNumbers = None,
    dtype: ComputeType = "auto",
    batch: Clips = 1,
    workers: EncodeWorkers = None,
    replace: Replace = False,
    shard: ShardOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    gpus: GpusOption = None,
    dry_run: DryRunFlag = False,
    as_json: AsJson = False,
) -> None:
    """Encode first-frame latents of every frame and future latents of every window start. Running it again continues.

    A window start without future latents trains the action expert only. A smaller --stride later adds what is missing.

    Example: fwdata encode-latents data/robotwin.zarr --vae wan2.2
    """
    from fwdata.encode import latents
    from fwdata.store.working_copy import reading_copy, working_copy

    chosen = tuple(part.strip() for part in devices.split(",")) if devices is not None else ()
    place, spread = parse_location(store), spread_of(store, shard, engine, address, gpus)

    def request_on(path: Path) -> latents.EncodeRequest:
        options = (vae, name, stride, device, dtype, replace, workers or default_workers(), chosen, batch)
        return latents.EncodeRequest(path, *options, spread=spread)

    if dry_run:
        with reading_copy(store) as folder:
            plan = latents.plan_latents(request_on(folder))
        if as_json:
            from fwdata.cli.answers import LatentsDryRunJson

            emit_json(LatentsDryRunJson(frames=plan.frames, windows=plan.windows, bytes=plan.bytes))
        else:
            print(f"{plan.frames} first-frame latents, {counted(plan.windows, 'window')}, {plan.bytes:,} bytes in all")
        return
    with progress_bar("encoding latents", "frames") as bar, working_copy(store) as path:
        request = request_on(path)
        if spread.shared:
            from fwdata.encode.spread_latents import encode_share

            report = encode_share(request, lambda first, windows, seconds: bar.advance(first))
        else:
            report = latents.encode_latents(request, bar.start, lambda first, windows, seconds: bar.advance(first))
    _print_encoded(place, vae, report, as_json)
    for item in report.kept:
        warn(
            f"latent cache {name!r} also has an unfinished refinement to stride {item.record.stride}, of which "
            f"{item.parts} parts are encoded; it is kept: complete it with `fwdata encode-latents {quoted(place)} "
            f"--name {name} --vae {quoted(vae)} --stride {item.record.stride}`"
        )
    finish(place, report.units, as_json)


def _print_encoded(store: Path | StoreUrl, vae: str, report: EncodeReport, as_json: bool) -> None:
    """What an encoding did, with a warning where its latents show little of the images."""
    from fwdata.encode.fidelity import LOW_PSNR

    if report.psnr is not None and report.psnr < LOW_PSNR:
        warn(
            f"VAE {vae} shows this store's images at {report.psnr:.1f} dB PSNR (below {LOW_PSNR:g}): a policy cannot "
            "see what its latents do not hold; use a VAE that was trained on such images"
        )
    rate = report.first / report.seconds if report.seconds else 0.0
    share = report.vae_seconds / report.busy_seconds if report.busy_seconds else 0.0
    if as_json:
        from fwdata.cli.answers import LatentsJson

        emit_json(
            LatentsJson(
                name=report.name,
                fingerprint=report.fingerprint,
                first=report.first,
                windows=report.windows,
                seconds=round(report.seconds, 3),
                latents_per_second=round(rate, 2),
                vae_share=round(share, 4),
                psnr=None if report.psnr is None else round(report.psnr, 2),
                **shard_json(report.units),
            )
        )
    elif report.first or report.units is not None:
        shown = "" if report.psnr is None else f"; decoded again: {report.psnr:.1f} dB PSNR"
        print(
            f"{store}: {report.first} first-frame latents and {counted(report.windows, 'window')} in "
            f"{report.seconds:.1f} s "
            f"({rate:.1f} latents/s, {share:.0%} of the work inside the VAE); "
            f"cache {report.name}-{report.fingerprint}{shown}"
        )
    else:
        print(f"{store}: latent cache {report.name}-{report.fingerprint} is complete already")
