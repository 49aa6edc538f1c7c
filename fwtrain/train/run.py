"""One training command: store, recipe and folder in, outcome out. Signals are turned into a clean stop."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

from fwdata.encode.devices import gpu_usable
from fwdata.errors import UsageError
from fwtrain.data import join_stores, open_source
from fwtrain.data.contract import StoreLike
from fwtrain.data.source import StoreSource, training_order, training_reader, validation_plans
from fwtrain.data.stores import command_word
from fwtrain.model import FastWAM
from fwtrain.recipe import Recipe
from fwtrain.train.build import model_config
from fwtrain.train.far_values import far_values
from fwtrain.train.folder import RunFolder, RunInfo
from fwtrain.train.horizon import horizon_warning
from fwtrain.train.logs import JsonLines, Sink, Sinks, TensorBoard, Terminal
from fwtrain.train.loop import Trainer, TrainingOutcome
from fwtrain.train.optim import learning_rate
from fwtrain.train.parallel import join, local_size
from fwtrain.train.passes import total_steps
from fwtrain.train.preflight import check_memory, explain_out_of_memory
from fwtrain.train.report import write_run_report
from fwtrain.train.saver import STOP_SECONDS
from fwtrain.train.trackers import check_installed, open_tracker
from fwtrain.weights.initialise import shift_warning

REPORT_SECONDS = 10.0
"""What must be left for the report of a run of several processes that was asked to stop: torchrun kills them soon."""


@dataclass
class Stop:
    """Whether a signal asked for the end. The second SIGINT interrupts at once."""

    seconds: float = STOP_SECONDS
    """How long after the signal everything has to be saved."""
    signal: int | None = field(default=None)
    """Number of the first signal; None: none came."""
    since: float = 0.0
    """When it came, of `time.monotonic()`."""

    def __call__(self) -> bool:
        return self.signal is not None

    def deadline(self) -> float | None:
        """Until when to be done, of `time.monotonic()`; None where no signal came."""
        return None if self.signal is None else self.since + self.seconds


@contextmanager
def stop_on_signals(seconds: float = STOP_SECONDS) -> Iterator[Stop]:
    """SIGINT and SIGTERM set the Stop's flag; the old handlers come back afterwards.

    seconds: see `Stop`. Does nothing outside the main thread.
    """
    stop = Stop(seconds)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if stop.signal is None:
            stop.since = time.monotonic()
        stop.signal = number

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def train(
    store: StoreLike | Sequence[StoreLike],
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    fresh: bool = False,
    device: str = "auto",
    should_stop: Callable[[], bool] = lambda: False,
    deadline: Callable[[], float | None] = lambda: None,
    note: Callable[[str], None] = lambda _: None,
    progress: bool = False,
) -> TrainingOutcome:
    """Train `recipe` on `store`, or on several side by side, in the run folder `out`; continues where an equal run
    stopped.

    should_stop, deadline: see `Trainer.run`. note: takes sentences for the user. progress: a bar on stderr when it is a
    terminal. device: "auto" takes a GPU when there is one. Raises UsageError and StoreError for input that does not
    fit, TrainingDiverged for a loss that is not finite.
    """
    folder = RunFolder(out)
    begins = fresh or not folder.exists
    finished = None if fresh else folder.lengthened(folder.settled(recipe, initial=False))
    with join(recipe.parallel, choose_device(device)) as team, ExitStack() as held:
        team.on_first(lambda: folder.prepare(recipe, resume=resume, fresh=fresh, held=held))
        warning = shift_warning(recipe.model) if begins else None
        source = open_source(join_stores(store) if isinstance(store, Sequence) else store, recipe)
        config = model_config(recipe, source)
        team.on_first(lambda: check_installed(recipe))
        team.on_first(lambda: check_memory(recipe, config, team.size, team.device))
        held.enter_context(explain_out_of_memory(recipe, config, team.size, team.device))
        trainer = Trainer.start(source, recipe, folder, team, fresh=fresh)
        say = note if team.first else _silent
        say(_summary(trainer, out))
        for text in far_values(source):
            say(f"warning: {text}")
        if warning is not None:
            say(warning)
        for text in notes_of(source, trainer, finished):
            say(text)
        with Sinks(*_sinks(folder, recipe, trainer, progress, finished)) as sinks:
            outcome = trainer.run(sinks, should_stop=should_stop, deadline=deadline, note=say)
        until = deadline() if team.size > 1 else None
        if team.first and (until is None or time.monotonic() + REPORT_SECONDS < until):
            write_run_report(folder)
    return outcome


@dataclass(frozen=True)
class Planned:
    """What `train` would do."""

    out: Path
    """Folder of the run."""
    step: int
    """Step it begins at; 0 for a new run."""
    total: int
    """Steps of the whole run."""
    episodes: int
    """Training episodes."""
    windows: int
    """Windows per epoch."""
    windows_per_step: int
    """Windows per optimizer step, of all processes."""
    video_share: float
    """Share of the windows that are trained with video, 0 .. 1."""
    validation_windows: int
    """Windows of one validation; 0 without."""
    parameters: int
    """Parameters of the model."""


def plan_run(
    store: StoreLike | Sequence[StoreLike], recipe: Recipe, out: Path, *, resume: bool = False, fresh: bool = False
) -> Planned:
    """Look at everything `train` looks at before its first step, but initial weights; writes nothing, makes no weights.

    Raises what `train` raises for input that does not fit.
    """
    folder = RunFolder(out)
    anew = fresh and folder.exists
    if not anew:
        folder.prepare(recipe, resume=resume, fresh=False)
    recipe = folder.settled(recipe, anew=anew, initial=False)
    source = open_source(join_stores(store) if isinstance(store, Sequence) else store, recipe)
    config = model_config(recipe, source)
    if not anew:
        folder.check(RunInfo.of(source, config))
    found, held_out = None if anew else folder.latest(), validation_plans(source, recipe)
    order = training_order(training_reader(source, recipe).index, recipe, source.stores)
    return Planned(
        out=out,
        step=found.step if found else 0,
        total=total_steps(order, recipe),
        episodes=len(source.train),
        windows=order.num_windows,
        windows_per_step=recipe.optim.batch_size * recipe.optim.accumulation,
        video_share=order.video_share,
        validation_windows=sum(len(plan.windows) for plan in held_out[1]) if held_out else 0,
        parameters=FastWAM(config, seed=None, device="meta").num_parameters(),
    )


def _silent(_: str) -> None:
    """The other processes of a run say nothing."""


def _summary(trainer: Trainer, out: Path) -> str:
    team, order, parameters = trainer.team, trainer.order, list(trainer.model.parameters())
    count, trained = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    share = "" if trained == count else f" ({trained:,} trained)"
    where = str(team.device) if team.size == 1 else f"{team.size} processes ({team.mode}, {team.device.type})"
    return (
        f"{out}: step {trainer.step} of {trainer.total}, {order.num_windows} windows of {len(trainer.source.train)} "
        f"episodes, {order.video_share:.0%} with video, {count:,} parameters{share} on {where}"
    )


def notes_of(source: StoreSource, trainer: Trainer, finished: int | None) -> list[str]:
    """What the user should know before the first step: a horizon unlike the published ones, a run made longer.

    finished: the step at which a finished run is continued.
    """
    notes = [text] if (text := horizon_warning(source.window, source.store.fps, command_word(source.store))) else []
    if finished is not None:
        optim, total = trainer.recipe.optim, trainer.total
        notes.append(
            f"the run was finished at step {finished}, at learning rate {optim.lr * optim.min_lr_ratio:.3g}; it "
            f"continues from that checkpoint to step {total} with the learning rates that a run of {total} steps has "
            f"from there on, the next one {learning_rate(finished, total, optim):.3g}"
        )
    return notes


def _sinks(
    folder: RunFolder, recipe: Recipe, trainer: Trainer, progress: bool, finished: int | None = None
) -> list[Sink]:
    if not trainer.team.first:
        return []
    left = trainer.step < trainer.total
    sinks: list[Sink] = [open_tracker(name, folder, recipe) for name in recipe.trackers if left]  # first: may refuse
    sinks.append(lines := JsonLines(folder.path, trainer.step))
    if finished is not None:
        lines.write("longer", finished, {"total": trainer.total})
    if recipe.tensorboard and left:
        sinks.append(TensorBoard(folder.path, trainer.step))
    if progress:
        sinks.append(Terminal(trainer.step, trainer.total))
    return sinks


def choose_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda", "cuda:1", ..; UsageError for a device that is not there, and with torch's own reason for
    a GPU that is there but that torch cannot use."""
    if name == "auto":
        return torch.device("cuda" if gpu_usable() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"--device {name!r}: expected auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        if not gpu_usable():
            raise UsageError("--device cuda: torch sees no GPU; use --device cpu")
        if device.index is not None:
            if device.index >= torch.cuda.device_count():
                raise UsageError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs, numbered from 0")
            torch.cuda.set_device(device)  # streams, graphs and generators that name no device are then this one's
    return device


def be_deterministic() -> None:
    """Let torch choose only kernels that give the same bits every time, and raise where an operation has none.

    Before the first use of a GPU: cuBLAS reads its workspace's size once. A CPU is deterministic without it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def set_threads(threads: int | None) -> int:
    """Use `threads` CPU threads, by default all physical cores this process may use, up to 8, shared with the other
    processes that torchrun started on the machine. Returns the number."""
    if threads is not None and threads < 1:
        raise UsageError(f"--threads must be at least 1, found {threads}")
    wanted = threads or max(min(physical_cores() // local_size(), 8), 1)
    torch.set_num_threads(wanted)
    return wanted


def physical_cores() -> int:
    """Physical cores among the CPUs this process may run on (sibling hyper-threads count once)."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = set()
    for cpu in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(path.read_text(encoding="utf-8").strip() if path.is_file() else str(cpu))
    return max(len(siblings), 1)
