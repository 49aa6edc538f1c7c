"""Which settings of a recipe fit which GPU, how long they take, and the command for each GPU: `fwtrain plan`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from fwtrain.model import ModelConfig
from fwtrain.model.flops import forward_parts
from fwtrain.recipe import Recipe, load_recipe
from fwtrain.train.memory import GIB, KnownPeaks, Memory, MemoryPlan

CHECKPOINTING, EIGHT_BIT, FSDP = "gradient_checkpointing=true", "optim.moments=8bit", "parallel=fsdp"
FROZEN, LORA = "freeze=video", "lora.rank=16"
MFU = 0.2
"""Share of the bf16 peak that training is assumed to use: what published trainers of this size reach."""
LOADER_BYTES = 4 * GIB
"""Host memory of a process besides its weights: libraries, text embeddings, batches fetched ahead."""

type Trained = Literal["every weight", "the action expert", "LoRA"]


@dataclass(frozen=True)
class GpuModel:
    """A GPU that is sold with some memory."""

    name: str
    """What it is called."""
    gib: int
    """Memory in GiB."""
    flops: float
    """Dense bf16 FLOP/s with float32 accumulation, from the maker's data sheet."""


GPU_MODELS = (
    GpuModel("RTX 4090", 24, 165.2e12),
    GpuModel("RTX 5090", 32, 209.5e12),
    GpuModel("L40S", 48, 362e12),
    GpuModel("H100 SXM", 80, 989e12),
)


def gpu_model(gib: int) -> GpuModel:
    """The GPU whose speed stands for a memory size: the largest that has no more."""
    fitting = [gpu for gpu in GPU_MODELS if gpu.gib <= gib]
    return fitting[-1] if fitting else GPU_MODELS[0]


@dataclass(frozen=True)
class Setting:
    """A way to train."""

    trained: Trained
    """Which weights change."""
    overrides: tuple[str, ...]
    """`--set` values."""

    @property
    def name(self) -> str:
        """For people: "every weight, checkpointing, 8-bit moments, fsdp"."""
        words = {CHECKPOINTING: "checkpointing", EIGHT_BIT: "8-bit moments", FSDP: "fsdp"}
        return ", ".join([self.trained, *(words[o] for o in self.overrides if o in words)])

    @property
    def shared(self) -> bool:
        """Whether processes split the state."""
        return FSDP in self.overrides


@dataclass(frozen=True)
class SettingRow:
    """A setting with its memory at the recipe's batch size, and the largest windows per pass by GPU size in GiB."""

    setting: Setting
    """What is trained, and how it is kept in memory."""
    processes: int
    """How many share the state."""
    memory: Memory
    """Bytes on one process, by use."""
    batch: dict[int, int]
    """Windows per pass by GPU size in GiB; 0 where not even one fits."""
    flops: float
    """FLOPs of one window's share of a step."""
    checkpoint: int
    """Bytes of one checkpoint."""

    def to_json(self) -> dict[str, object]:
        """Plain JSON; bytes."""
        memory = {**vars(self.memory), "state": self.memory.state, "total": self.memory.total}
        return {
            "setting": self.setting.name,
            "set": list(self.setting.overrides),
            "processes": self.processes,
            "memory": memory,
            "largest_batch": {str(gpu): size for gpu, size in self.batch.items()},
            "tflop_per_window": round(self.flops / 1e12, 3),
            "checkpoint_bytes": self.checkpoint,
        }


@dataclass(frozen=True)
class Recommendation:
    """What to run on one machine."""

    gpu: GpuModel
    """GPU of the machine."""
    gib: int
    """Memory asked for, in GiB."""
    processes: int
    """GPUs of the machine."""
    setting: Setting | None
    """None where nothing fits."""
    batch: int
    """Windows per pass of a process."""
    accumulation: int
    """Passes per step, shared by the processes."""
    command: str
    """Command line to copy."""
    hours: float
    """Of the whole run, at `mfu` of the GPU's bf16 peak."""
    mfu: float
    """Share of the GPU's bf16 peak that is assumed, 0 .. 1."""
    disk: int
    """Bytes of the checkpoints kept at once."""
    host: int
    """Bytes of host memory while the weights are loaded, or while several processes save, whichever is more."""

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return {
            "gpu": self.gpu.name,
            "gpu_gib": self.gib,
            "processes": self.processes,
            "setting": self.setting.name if self.setting else None,
            "batch_size": self.batch,
            "accumulation": self.accumulation,
            "command": self.command,
            "hours": round(self.hours, 2),
            "assumed_mfu": self.mfu,
            "disk_bytes": self.disk,
            "host_bytes": self.host,
        }


def settings_of(recipe: Recipe, processes: int = 8) -> list[Setting]:
    """Every combination that a recipe can still choose; one that freezes or adapts keeps to that."""
    kinds: list[tuple[Trained, tuple[str, ...]]]
    if recipe.freeze is not None:
        kinds = [("the action expert", ())]
    elif recipe.lora is not None:
        kinds = [("LoRA", ())]
    else:
        kinds = [("every weight", ()), ("the action expert", (FROZEN,)), ("LoRA", (LORA,))]
    return [Setting(trained, (*base, *extra)) for trained, base in kinds for extra in _extras(trained, processes)]


def _extras(trained: Trained, processes: int) -> Iterator[tuple[str, ...]]:
    for sharing, moments, again in product((False, True), repeat=3):
        if (sharing and (trained != "every weight" or processes == 1)) or (moments and trained == "LoRA"):
            continue
        chosen = ((again, CHECKPOINTING), (moments, EIGHT_BIT), (sharing, FSDP))
        yield tuple(value for wanted, value in chosen if wanted)


def window_flops(config: ModelConfig, recipe: Recipe) -> float:
    """FLOPs of one window in a training step: a forward pass, gradients of activations and of weights as far as the
    recipe asks for them, and layers computed again. All windows are counted with future latents where they are used."""
    video, action = forward_parts(config, video=not recipe.video_frozen)
    again = 1 if recipe.gradient_checkpointing else 0
    if recipe.video_frozen:
        return video + (3 + again) * action
    return (2 + again if recipe.lora is not None else 3 + again) * (video + action)


def plan_rows(
    name: str,
    overrides: Sequence[str],
    config: ModelConfig,
    gpus: Sequence[int],
    *,
    processes: int = 8,
    done: Callable[[int], None] = lambda _: None,
) -> list[SettingRow]:
    """A row per setting. processes: how many share the state under fsdp. done: callback after every row.

    Raises ManifestError for a recipe that is wrong.
    """
    rows, known = [], KnownPeaks()
    for setting in settings_of(load_recipe(name, overrides), processes):
        recipe = load_recipe(name, [*overrides, *setting.overrides])
        plan = MemoryPlan(recipe, config, processes if setting.shared else 1, known)
        rows.append(
            SettingRow(
                setting=setting,
                processes=plan.processes,
                memory=plan.at(recipe.optim.batch_size),
                batch={gpu: plan.largest_batch(gpu) for gpu in gpus},
                flops=window_flops(config, recipe),
                checkpoint=plan.checkpoint_bytes(),
            )
        )
        done(1)
    return rows


def recommend(
    rows: Sequence[SettingRow], name: str, overrides: Sequence[str], gib: int, processes: int, mfu: float = MFU
) -> Recommendation:
    """What to run on `processes` GPUs of `gib` GiB: every weight before the action expert before LoRA, and among those
    that fit the fastest."""
    recipe, gpu = load_recipe(name, overrides), gpu_model(gib)
    total = recipe.optim.batch_size * recipe.optim.accumulation
    sizes = {id(row): pass_size(total, row.batch.get(gib, 0), processes) for row in rows}
    fitting = [row for row in rows if sizes[id(row)] and (processes > 1 or not row.setting.shared)]
    if not fitting:
        return Recommendation(gpu, gib, processes, None, 0, 0, "", 0.0, mfu, 0, 0)
    order = {trained: place for place, trained in enumerate(("every weight", "the action expert", "LoRA"))}
    row = min(fitting, key=lambda r: (order[r.setting.trained], r.flops, r.setting.shared, len(r.setting.overrides)))
    batch = sizes[id(row)]
    accumulation = total // batch
    steps = recipe.optim.steps or 0
    hours = steps * total * row.flops / (processes * gpu.flops * mfu) / 3600
    sets = [*overrides, *row.setting.overrides, f"optim.batch_size={batch}", f"optim.accumulation={accumulation}"]
    start = (
        ["fwtrain", "run"] if processes == 1 else ["torchrun", f"--nproc-per-node={processes}", "-m", "fwtrain", "run"]
    )
    words = [*start, "STORE", "--recipe", name, "--out", "RUN", *(w for value in sets for w in ("--set", value))]
    kept = (recipe.keep_last or 1) + 1  # the newest ones, and the best
    loading = processes * (row.memory.weights * row.processes + LOADER_BYTES)
    saving = processes * LOADER_BYTES + (row.checkpoint if processes > 1 else 0)  # a copy of all processes' rows
    host = max(loading, saving)
    return Recommendation(
        gpu,
        gib,
        processes,
        row.setting,
        batch,
        accumulation,
        shlex.join(words),
        hours,
        mfu,
        kept * row.checkpoint,
        host,
    )


def pass_size(total: int, limit: int, processes: int) -> int:
    """The most windows per pass, at most `limit`, that divide a step's `total` and can be shared by the processes; 0
    where there are none (see `fwtrain.train.passes`)."""
    sizes = (size for size in range(min(total, limit), 0, -1) if total % size == 0 and size % processes == 0)
    return next(sizes, 0)
