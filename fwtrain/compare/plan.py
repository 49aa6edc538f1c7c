"""Which runs a comparison is made of.

Equal budgets: every run has the base recipe's sizes, optimizer, number of steps and batch; it trains on the windows
with future latents alone (`data.windows: future`), which all variants can use. Initial weights, batches and their order
are then the same for all runs of one seed; runs differ in the variant or in lambda_video, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from fwdata.envs.benchmarks.contract import TrialRules
from fwdata.errors import UsageError, did_you_mean
from fwdata.manifest import validate_model
from fwdata.report.place import refuse_no_folder
from fwtrain.infer.trials.plan import EvalPlan
from fwtrain.recipe import Recipe
from fwtrain.variants import MODE_SHARE, VARIANTS

ENVS = ("sample", "none")
"""Worlds that need no plan of trials."""


class ClosedLoopSettings(TypedDict):
    """How the closed loop of every run is run."""

    env: str
    """World: sample, a benchmark, or none for open loop only."""
    episodes: int
    """Episodes, whose scenes are the same for every run; trials of all tasks in a benchmark."""
    execute: int
    """Actions of a chunk that are carried out before the next observation."""
    protocol: NotRequired[TrialRules]
    """Benchmark: how its trials are run, changes of the command line included."""
    simulator: NotRequired[dict[str, str]]
    """Benchmark: versions of its libraries."""
    trials: NotRequired[list[int]]
    """Benchmark: numbers of the trials of every task."""
    initial_states_sha256: NotRequired[dict[str, str]]
    """Benchmark: SUITE/TASK -> sha256 of its initial states."""


@dataclass(frozen=True)
class ComparisonArm:
    """One thing that is compared: a variant with a weight of the video loss."""

    variant: str
    """Name of the variant."""
    lambda_video: float
    """Weight of the video loss."""
    name: str
    """What tables and folders call it."""


@dataclass(frozen=True)
class ComparedRun:
    """One run: an arm with a seed."""

    arm: ComparisonArm
    """What is trained."""
    seed: int
    """Seed of weights, order and noise."""

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.arm.name}-seed{self.seed}".replace(" ", "-")


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison.

    Its cells go seed by seed, so that a part of a comparison is balanced.
    """

    base: Recipe
    """Recipe that every run starts from."""
    arms: tuple[ComparisonArm, ...]
    """What is compared; the first one is the one others are compared with."""
    seeds: tuple[int, ...]
    """Seeds that every arm is trained with."""
    out: Path
    """Folder of the comparison."""
    env: str
    """World of the closed loop: "sample", the name of a benchmark, or "none" for the open loop only."""
    episodes: int
    """Episodes of the closed loop, whose scenes are the same for every run; trials of all tasks in a benchmark."""
    execute: int
    """Actions of a chunk that are carried out in the closed loop."""
    benchmark: EvalPlan | None = None
    """Trials that every run is judged by, as `fwtrain eval` plans them; None in the sample world or without a world."""
    workers: int = 1
    """Environments of a benchmark side by side; changes no result."""

    @property
    def cells(self) -> tuple[ComparedRun, ...]:
        """Every run, in order."""
        return tuple(ComparedRun(arm, seed) for seed in self.seeds for arm in self.arms)

    def folder(self, cell: ComparedRun) -> Path:
        """The run folder of a cell."""
        return self.out / "runs" / cell.name

    def recipe(self, cell: ComparedRun) -> Recipe:
        """The base recipe as a cell trains it."""
        data = self.base.model_dump(mode="json")
        data["model"] |= {"variant": cell.arm.variant, "lambda_video": cell.arm.lambda_video}
        if MODE_SHARE not in VARIANTS[cell.arm.variant].probabilities:
            data["model"][MODE_SHARE] = None
        data["data"]["windows"] = "future"
        data["seed"] = cell.seed
        return validate_model(Recipe, data, f"recipe {self.base.name}")

    def settings(self) -> ClosedLoopSettings:
        """How the closed loop is run; results with other settings are not used again."""
        common: ClosedLoopSettings = {"env": self.env, "episodes": self.episodes, "execute": self.execute}
        if self.benchmark is None:
            return common
        asked = self.benchmark
        conditions = asked.conditions()
        return {
            **common,
            "protocol": conditions["protocol"],
            "simulator": conditions["simulator"],
            "trials": list(asked.trials),
            "initial_states_sha256": {f"{task.suite}/{task.task.name}": task.states.sha256 for task in asked.tasks},
        }


def make_plan(
    base: Recipe,
    out: Path,
    *,
    variants: Sequence[str] | None = None,
    lambdas: Sequence[float] = (),
    seeds: Sequence[int] = (0, 1, 2),
    env: str = "sample",
    episodes: int = 20,
    execute: int = 12,
    benchmark: EvalPlan | None = None,
    workers: int = 1,
) -> ComparisonPlan:
    """Arms and runs; UsageError for names and numbers that do not fit, and where `out` cannot be a folder.

    variants: None for all there are. lambdas: further weights of the video loss for the first variant that has one;
    lambda 0 is the variant no-video and the base recipe's own weight is the variant itself: neither is trained twice.
    benchmark: trials that take the place of env, episodes and execute; workers: environments side by side.
    """
    refuse_no_folder(out, "--out")
    variants = tuple(VARIANTS) if variants is None else variants
    for variant in variants:
        if variant not in VARIANTS:
            raise UsageError(f"--variants: unknown variant {variant!r}{did_you_mean(variant, VARIANTS)}")
    if benchmark is not None:
        env, execute = benchmark.env, benchmark.protocol.execute
        episodes = len(benchmark.tasks) * len(benchmark.trials)
    elif env not in ENVS:
        raise UsageError(f"--env {env!r} is unknown; known: {', '.join(ENVS)}, or a benchmark with its trials")
    if episodes < 1:
        raise UsageError(f"--episodes must be at least 1, found {episodes}")
    if min([*seeds, *lambdas, 0]) < 0 or not seeds or not variants:
        raise UsageError("--seeds and --variants must name at least one, and seeds and lambdas must not be negative")
    own = base.model.lambda_video
    arms = [ComparisonArm(variant, own, variant) for variant in variants]
    graded = next((variant for variant in variants if VARIANTS[variant].video_loss), None)
    for weight in lambdas:
        if weight == own and graded is not None:
            continue
        if graded is None:
            raise UsageError("--lambdas needs a variant with a video loss among --variants")
        zero = weight == 0 and not VARIANTS[graded].needs_future
        arms.append(
            ComparisonArm("no-video", own, "no-video")
            if zero
            else ComparisonArm(graded, weight, f"{graded} lambda {weight:g}")
        )
    unique = tuple(dict.fromkeys(arms))
    return ComparisonPlan(base, unique, tuple(dict.fromkeys(seeds)), out, env, episodes, execute, benchmark, workers)
