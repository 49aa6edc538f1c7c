"""`fwtrain bench`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import emit_json, print_table, progress_bar, say
from fwdata.wording import counted
from fwtrain.cli._common import Compiled, Device, Json, RunArgument, Threads, answer

if TYPE_CHECKING:
    from fwtrain.bench.train import Ratio
    from fwtrain.serve.load import LoadResult

SizeName = Annotated[str, typer.Option("--size", help="tiny (1 M parameters) or 50m.")]
Repeats = Annotated[int, typer.Option(help="Runs of every way, taking turns.", min=1)]

TrainSize = Annotated[
    str | None, typer.Option("--size", help="tiny (1 M parameters, the default) or 50m; with --peers full or tiny.")
]
WithVae = Annotated[bool, typer.Option("--vae", help="Also encode one window online, at real width (minutes).")]
StoreOption = Annotated[str | None, typer.Option(help="Store whose latents are trained on for the data wait.")]
Computed = Annotated[
    bool, typer.Option("--computed", help="Only the full-size table for GPUs, from counts; measures nothing.")
]
Peers = Annotated[
    bool,
    typer.Option(
        "--peers", help="One whole step as other trainers publish theirs: 6 B model, 16 windows per GPU, LIBERO."
    ),
]
TimedSteps = Annotated[int, typer.Option(help="With --peers: steps that are timed.", min=1)]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(
        help="Measure speed beside the same work done another way.",
        epilog="Example: fwtrain bench latency --size tiny",
        no_args_is_help=True,
    )
    group.command("train", epilog="Example: fwtrain bench train --size 50m --vae")(train)
    group.command("latency", epilog="Example: fwtrain bench latency --size 50m --variant all")(latency)
    group.command("serve", epilog="Example: fwtrain bench serve runs/libero --clients 8 --seconds 300")(serve)
    app.add_typer(group, name="bench")


def train(
    size: TrainSize = None,
    repeats: Repeats = 5,
    vae: WithVae = False,
    store: StoreOption = None,
    computed: Computed = False,
    peers: Peers = False,
    steps: TimedSteps = 20,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """CPU time of our step and action loop on one thread, against lerobot's core and the same without our savings.

    Forward and backward passes in float32 on equal weights, LIBERO's shapes, repetitions interleaved.

    --peers measures a GPU and compares with what EasyWAM and LoongForge publish; on several GPUs:
    torchrun --nproc-per-node 8 -m fwtrain bench train --peers
    """
    if peers:
        _peers(size, steps, device, as_json)
        return
    size = size or "tiny"
    if computed:
        _computed(as_json)
        return
    import torch

    import fwdata
    from fwtrain.bench.cases import find_size
    from fwtrain.bench.train import Bench, bench_data_wait, bench_steps, bench_vae

    torch.set_num_threads(1)
    wanted, windows = find_size(size), None if store is None else fwdata.open(store)
    bench = Bench(wanted)
    with progress_bar("bench", "runs") as bar:
        bar.start(10 * (repeats + 1))
        ratios = bench_steps(bench, repeats, bar.advance)
    data: dict[str, object] = {
        "size": size, "parameters": bench.parameters, "batch": wanted.batch, "threads": 1, "dtype": "float32",
        "ratios": [{**asdict(r), "ratio_best": r.best, "ratio_median": r.median} for r in ratios],
    }  # fmt: skip
    extra: list[str] = []
    if vae:
        cost = bench_vae(ratios[0].ours, wanted)
        data["vae"] = {**asdict(cost), "online": cost.online}
        extra.append(
            f"encoding one window online (real-width VAE, once): {cost.encode:.1f} s of CPU; our step from latents "
            f"takes {cost.window:.3f} s per window, so a step that encodes takes {cost.online:.1f} times as long"
        )
    if windows is not None:
        data["data_wait"] = bench_data_wait(windows, wanted)
        extra.append(f"waiting for data in the training loop: {data['data_wait']:.2%} of the time")
    if as_json:
        emit_json(data)
        return
    _print_ratios(f"{size}: {bench.parameters:,} parameters, batch {wanted.batch}, one thread", ratios)
    for line in extra:
        print(line)


def _peers(size: str | None, steps: int, device: str, as_json: bool) -> None:
    from fwdata.errors import UsageError
    from fwtrain.bench.peers import PUBLISHED, bench_peers
    from fwtrain.train.parallel import join
    from fwtrain.train.run import choose_device

    where = choose_device(device)
    if size not in (None, "full", "tiny"):
        raise UsageError(f"--peers --size takes full or tiny, found {size!r}")
    if size != "tiny" and where.type == "cpu":
        raise UsageError("--peers trains 6 B parameters on a GPU, and none is here; --size tiny tries it on a CPU")
    with join("fsdp", where) as team, progress_bar("bench", "steps") as bar:
        bar.start(steps)
        found = bench_peers(team, full=size != "tiny", steps=steps, done=bar.advance)
    if not team.first:
        return
    ratios = {peer.name: None if size == "tiny" else found.ratio(peer) for peer in PUBLISHED}
    if as_json:
        rates = {"samples_per_second_per_gpu": found.samples, "samples_per_second_per_gpu_with_vae": found.online}
        emit_json({**asdict(found), **rates, "published": [asdict(p) for p in PUBLISHED], "ratios": ratios})
        return
    used = "MFU not known" if found.mfu is None else f"{found.mfu:.0%} of the bf16 peak"
    rows: list[tuple[str, ...]] = [
        (found.card, "from cached latents", f"{1e3 * found.seconds:.0f}", f"{found.samples:.1f}", "", used),
        (
            found.card, "with the VAE in the step", f"{1e3 * found.online_seconds:.0f}", f"{found.online:.1f}", "",
            f"the VAE is {found.vae / found.online_seconds:.0%} of it",
        ),
    ]  # fmt: skip
    for peer in PUBLISHED:
        ratio = ratios[peer.name]
        note = "published; another card" if ratio is None else "published"
        rows.append(
            (
                peer.card, peer.name, f"{1e3 * found.windows / peer.samples:.0f}", f"{peer.samples:.1f}",
                "-" if ratio is None else f"{ratio:.2f}", note,
            )
        )  # fmt: skip
    title = (
        f"{found.parameters:,} parameters, {counted(found.processes, 'GPU')}, {counted(found.windows, 'window')} "
        f"each, {found.setting}, {found.peak_bytes / 2**30:.1f} GiB"
    )
    print_table(title, ("card", "trainer", "ms a step", "samples/s per GPU", "ours / theirs", ""), rows)


def latency(
    size: SizeName = "tiny",
    variant: Annotated[str, typer.Option(help="A variant, or all.")] = "all",
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 10,
    batch: Annotated[int, typer.Option(help="Observations per call, with instructions of their own.", min=1)] = 1,
    repeats: Repeats = 5,
    vae: Annotated[bool, typer.Option("--vae", help="Also the VAE on one frame, at real width.")] = False,
    compiled: Compiled = False,
    device: Device = "auto",
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Where the time of one action chunk goes: VAE, text, prefill, each denoising step. Random weights.

    CPU time in float32 on a CPU, wall time in bfloat16 on a GPU.
    """
    from fwdata.errors import UsageError, did_you_mean
    from fwtrain.bench.cases import find_size
    from fwtrain.bench.latency import bench_first_frame, bench_latency
    from fwtrain.model import VARIANTS
    from fwtrain.train.run import choose_device, set_threads

    if variant != "all" and variant not in VARIANTS:
        raise UsageError(
            f"--variant {variant!r} is unknown{did_you_mean(variant, VARIANTS)}; known: all or one of them"
        )
    set_threads(threads)
    where = choose_device(device)
    wanted = tuple(VARIANTS) if variant == "all" else (variant,)
    stages = [bench_first_frame(where)] if vae else []
    stages += bench_latency(
        find_size(size), wanted, steps=steps, batch=batch, repeats=repeats, device=where, compiled=compiled
    )
    if as_json:
        emit_json(
            {"size": size, "device": str(where), "batch": batch, "steps": steps, "stages": [asdict(s) for s in stages]}
        )
        return
    rows: list[tuple[str, ...]] = [(s.variant, s.stage, f"{1e3 * s.seconds:.2f}", str(s.times)) for s in stages]
    print_table(f"{size} on {where}, batch {batch}, {steps} steps", ("variant", "stage", "ms", "per chunk"), rows)


def serve(
    run: RunArgument,
    clients: Annotated[int, typer.Option(help="Clients that ask again as soon as they are answered.")] = 8,
    seconds: Annotated[float, typer.Option(help="How long.")] = 20.0,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Serve a run in a process of its own and measure rate, latency, memory and open files under load."""
    from fwtrain.serve.load import bench_serve

    with progress_bar("load", "s") as bar:
        bar.start(int(seconds))
        result = bench_serve(run, clients=clients, seconds=seconds, device=device, threads=threads, done=bar.advance)
    answer(result.to_json(), as_json, lambda: _load_text(result))


def _load_text(result: LoadResult) -> str:
    lines = [
        f"{counted(result.clients, 'client')} for {result.seconds:.0f} s: "
        f"{counted(result.requests, 'request')}, {result.failed} failed, "
        f"{result.per_second:.1f} per second"
    ]
    if result.p50_ms is not None:
        lines.append(f"latency {result.p50_ms:.1f} ms median, {result.p95_ms:.1f} ms p95, {result.p99_ms:.1f} ms p99")
    if result.rss_mb is not None and result.handles is not None:
        (first, settled, last), slope = result.rss_mb, result.rss_mb_per_minute
        lines.append(
            f"server memory {first:.0f} MB, {settled:.0f} MB settled, {last:.0f} MB at the end"
            + ("" if slope is None else f" ({slope:+.2f} MB per minute)")
            + f"; open files {result.handles[0]}, then {result.handles[1]}"
        )
    return "\n".join(lines)


def _print_ratios(title: str, ratios: list[Ratio]) -> None:
    rows: list[tuple[str, ...]] = [
        (
            r.name, f"{r.ours.best:.3f}", f"{r.other.best:.3f}", f"{r.best:.2f}", f"{r.median:.2f}",
            "-" if r.difference is None else f"{r.difference:.0e}",
        )
        for r in ratios
    ]  # fmt: skip
    print_table(title, ("what", "ours s", "other s", "x (fastest)", "x (median)", "difference"), rows)


def _computed(as_json: bool) -> None:
    from fwtrain.bench.computed import BYTE_USE, FLOP_USE, GPUS, computed

    rows = computed()
    assumptions = {
        "measured": False, "flop_utilisation": FLOP_USE, "bandwidth_utilisation": BYTE_USE,
        "gpus": [asdict(gpu) for gpu in GPUS],
    }  # fmt: skip
    if as_json:
        emit_json({**assumptions, "rows": [asdict(row) for row in rows]})
        return
    cells: list[tuple[str, ...]] = [
        (
            r.gpu, r.variant, f"{r.step_tflop:.0f}", f"{r.step_seconds:.2f}", f"{r.samples_per_second:.0f}",
            f"{r.chunk_tflop:.2f}", f"{1e3 * r.chunk_seconds:.0f}",
        )
        for r in rows
    ]  # fmt: skip
    title = f"COMPUTED, not measured: 6 B parameters, bf16, batch {rows[0].batch}, LIBERO's shapes"
    heads = ("GPU", "variant", "step TFLOP", "step s", "samples/s", "10-step chunk TFLOP", "chunk ms")
    print_table(title, heads, cells)
    say(
        f"assumed: {FLOP_USE:.0%} of the bf16 peak, {BYTE_USE:.0%} of the memory bandwidth; kernel launches, "
        "communication and memory for activations are not counted"
    )
