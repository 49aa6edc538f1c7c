"""The documents of `--json` that commands of `fwtrain` put together themselves; `fwtrain.cli.documents` lists all."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from fwtrain.compare.page import ComparisonJson
from fwtrain.infer.trials.run import TrialsResult
from fwtrain.model.sampling import Denoising
from fwtrain.recipe import DeployRecipe, Recipe


class ComparedJson(ComparisonJson):
    """The document of `fwtrain compare --json`."""

    report: str
    """The page."""


class CellJson(TypedDict):
    """One run of a comparison."""

    run: str
    """Its folder below that of the comparison."""
    variant: str
    """Name of the variant."""
    lambda_video: float
    """Weight of the video loss."""
    seed: int
    """Its seed."""
    step: int
    """Optimizer steps done."""
    total: int | None
    """Steps of the whole run; null: not begun."""
    done: bool
    """Whether it is trained and evaluated."""


class ComparePlanJson(TypedDict):
    """The document of `fwtrain compare --dry-run --json`."""

    out: str
    """Folder of the comparison."""
    runs: list[CellJson]
    """Its runs."""


class RunPageJson(TypedDict):
    """The document of `fwtrain report --json`."""

    report: str
    """The page."""


class DistilledJson(TypedDict):
    """One policy beside its teacher."""

    policy: str
    """teacher, teacher with fewer steps, or student."""
    steps: int
    """Euler steps that it is sampled with."""
    distance_to_teacher: float
    """Mean absolute distance of its chunks from the teacher's of all steps, normalised units."""
    error: float | None
    """Mean absolute error against recorded actions, robot units; null: no validation windows."""
    milliseconds: float
    """Median time of one chunk."""
    successes: NotRequired[int]
    """Solved episodes; this and the next three are absent without a closed loop."""
    episodes: NotRequired[int]
    """Episodes of the closed loop."""
    rate: NotRequired[float]
    """Success rate, 0 .. 1."""
    interval: NotRequired[list[float]]
    """Its 95 % Wilson interval, [low, high]."""


class DistilJson(TypedDict):
    """The document of `fwtrain distil --json`."""

    run: str
    """Run of the teacher."""
    out: str
    """Folder of the students."""
    rows: list[DistilledJson]
    """Teacher and students."""


class RecommendationJson(TypedDict):
    """What to run on one machine. Everything is computed."""

    gpu: str
    """GPU whose speed is counted with."""
    gpu_gib: int
    """Memory of each GPU, GiB."""
    processes: int
    """GPUs of the machine."""
    setting: str | None
    """What is trained and how it is kept in memory; null: nothing fits."""
    batch_size: int
    """Windows per pass of a process."""
    accumulation: int
    """Passes per step."""
    command: str
    """Command line to copy."""
    hours: float
    """Of the whole run; 0 where the recipe counts epochs of a store that was not given."""
    assumed_mfu: float
    """Share of the GPU's bf16 peak that is assumed, 0 .. 1."""
    disk_bytes: int
    """Checkpoints kept at once."""
    host_bytes: int
    """Memory of the host at its peak."""


class MemoryJson(TypedDict):
    """Bytes on one process at the peak of a step, or of validation."""

    weights: int
    """Parameters as they are held."""
    masters: int
    """float32 masters of bf16 parameters that are trained."""
    gradients: int
    """Gradients that are there during the whole step."""
    moments: int
    """AdamW's two moments."""
    activations: int
    """Peak of what a forward and backward pass makes besides."""
    gathered: int
    """Whole layers under fsdp."""
    update: int
    """What the optimizer's step needs while there are no activations."""
    validation: int
    """Weights under fsdp, which validation gathers, and its activations."""
    parameters: int
    """Parameters of the model, a number."""
    trained: int
    """How many of them are trained, a number."""
    state: int
    """Sum of what is held during the whole step."""
    total: int
    """Bytes at the peak, allowances included."""


class SettingJson(TypedDict):
    """One way to train, with its memory."""

    setting: str
    """What is trained and how it is kept in memory."""
    set: list[str]
    """Values of --set."""
    processes: int
    """Processes that share the state."""
    memory: MemoryJson
    """Bytes on one process, by use."""
    largest_batch: dict[str, int]
    """Memory of a GPU in GiB -> windows per pass; 0: not even one fits."""
    tflop_per_window: float
    """Work of one window in a step."""
    checkpoint_bytes: int
    """Size of one checkpoint."""


class TrainingPlanJson(TypedDict):
    """The document of `fwtrain plan --json`. Everything is computed, nothing measured."""

    recipe: str
    """Name of the recipe."""
    batch_size: int
    """Windows per pass that the memory below is for."""
    latents: list[int]
    """Frames, rows and columns of a window's latents."""
    gpus: list[int]
    """Memory sizes asked for, GiB."""
    recommended: list[RecommendationJson]
    """One per memory size and number of processes."""
    settings: list[SettingJson]
    """Every way to train."""


class TaskScoreJson(TypedDict):
    """Successes of one task."""

    successes: int
    """Episodes that were solved."""
    episodes: int
    """Episodes that were run."""


class SampleEvalJson(TypedDict):
    """The document of `fwtrain eval --env sample --json`."""

    run: str
    """Folder of the run."""
    env: str
    """sample."""
    untrained: bool
    """Whether the weights were those before training."""
    successes: int
    """Episodes that were solved."""
    episodes: int
    """Episodes that were run."""
    rate: float
    """Success rate, 0 .. 1."""
    interval: list[float]
    """Its 95 % Wilson interval, [low, high]."""
    mean_steps: float
    """Steps until an episode ended, by success or by the limit, on average."""
    sampling: Denoising
    """How actions were sampled."""
    by_task: dict[str, TaskScoreJson]
    """By task."""


class TrialsJson(TrialsResult):
    """The document of `fwtrain eval --json` in a benchmark's simulator, and of OUT/result.json (without `out`)."""

    out: str
    """Folder of the evaluation."""


class ExportRunJson(TypedDict):
    """The document of `fwtrain export FORMAT --json`."""

    format: str
    """lerobot, model, official or robotwin."""
    out: str
    """What was written."""
    run: str
    """Folder of the run."""
    step: int
    """Step of the checkpoint."""
    notes: list[str]
    """What the format cannot hold, one sentence each."""


class PushRunJson(TypedDict):
    """The document of `fwtrain push --json`."""

    repository: str
    """OWNER/NAME on the hub."""
    run: str
    """Folder of the run."""
    format: str
    """model or lerobot."""
    step: int
    """Step of the checkpoint."""
    moved: int
    """Files uploaded by this run."""


class ImportJson(TypedDict):
    """The document of `fwtrain import --json`."""

    out: str
    """Folder of the new run."""
    source: str
    """What was imported."""
    action_shift: float
    """Time shift of the actions' sampling grid."""
    deploy: DeployRecipe
    """Rules of deployment."""


class RecipesJson(TypedDict):
    """The document of `fwtrain recipes --json`."""

    recipes: list[Recipe]
    """The built-in recipes."""


class ReferenceRowJson(TypedDict):
    """One comparison with a recorded quantity."""

    run: str
    """Name of the recorded run."""
    quantity: str
    """What was compared."""
    error: float
    """Largest difference, relative where the tolerance is."""
    tolerance: float
    """Largest error that passes."""
    ok: bool
    """Whether it passes."""


class ReferenceJson(TypedDict):
    """The document of `fwtrain check-reference --json`."""

    ok: bool
    """Whether all pass."""
    rows: list[ReferenceRowJson]
    """The comparisons."""


class PairJson(TypedDict):
    """One pair of token groups."""

    phase: str
    """train or sample, followed by the mode where the variant has several."""
    query: str
    """Group whose output was differentiated."""
    key: str
    """Group that the gradient was taken for."""
    may_see: bool
    """Whether the rules let `query` see `key`."""
    largest: float
    """Largest absolute value of the gradient."""
    ok: bool
    """Whether both agree."""


class MaskJson(TypedDict):
    """The document of `fwtrain check-mask --json`."""

    ok: bool
    """Whether all pairs agree."""
    variant: str
    """Name of the variant."""
    layers: int
    """Layers of the model that was checked."""
    heads: int
    """Its heads."""
    frames: int
    """Its latent frames."""
    cells: list[PairJson]
    """The pairs."""


class ServedJson(TypedDict):
    """The document of `fwtrain serve --json`, printed when the server ends."""

    run: str
    """Folder of the run."""
    requests: int
    """Answered requests."""
    failed: int
    """Those among them that were answered by an error."""
    refused: int
    """Connections that were refused."""
    lost: int
    """Connections that broke off."""
    mean_batch: float | None
    """Observations per batch; null: none."""
    p50_ms: float | None
    """Median latency, from a message's arrival to its answer's departure."""
    p95_ms: float | None
    """Its 95th percentile."""
    p99_ms: float | None
    """Its 99th percentile."""
