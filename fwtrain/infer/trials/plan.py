"""What is asked of an evaluation, checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict

from fwdata.envs.benchmarks.contract import (
    Benchmark,
    BenchmarkTask,
    EvalProtocol,
    InitialStates,
    RobotSpec,
    TrialRules,
)
from fwdata.errors import UsageError, did_you_mean
from fwdata.normalise import Float32
from fwtrain.infer.closed_loop import Actor
from fwtrain.infer.trials.initial_states import states_from
from fwtrain.model import Denoising
from fwtrain.train.folder import RunInfo


class Deployed(Actor, Protocol):
    """A policy with the rules by which its actions are sent to a robot: a loaded or a served one."""

    @property
    def gripper_sign(self) -> tuple[int, ...]:
        """Dimensions that `commands` sends as -1 open / +1 closed."""

    @property
    def weights(self) -> str | None:
        """Digest of its weights; None where nobody knows."""

    @property
    def arithmetic(self) -> str | None:
        """Kind of number and of device that it computes with; None where nobody knows."""

    def commands(self, chunk: Float32) -> Float32:
        """float32 [.., a] as the robot takes it, from what `act_batch` answers."""


class ActingWeights(TypedDict):
    """Which weights act."""

    checkpoint: str
    """The checkpoint, for people: `step 2000`, `the server's`, or that the weights are untrained."""
    weights: NotRequired[str | None]
    """Digest of the weights, 16 hex digits; null where a server does not say, absent of untrained ones."""


class PolicyAbout(ActingWeights):
    """What a policy is, as far as it decides actions."""

    variant: str
    """Variant of the model."""
    sampling: Denoising
    """How actions are sampled."""
    gripper_sign: list[int]
    """Dimensions that are sent as -1 open / +1 closed."""
    scaling: str
    """16 hex digits of how states and actions are normalised."""
    arithmetic: NotRequired[str]
    """Kind of number and of device that it computes with, as `float32 on cpu`; absent of a server's."""
    batch: NotRequired[int]
    """Observations per batch; absent where it is 1."""


class TrialConditions(TypedDict):
    """What decides a trial's outcome besides the policy."""

    env: str
    """The benchmark."""
    protocol: TrialRules
    """How its trials are run, changes of the command line included."""
    simulator: dict[str, str]
    """Versions of its libraries."""


class EvalSettings(TrialConditions):
    """Everything that decides a trial's outcome: settings.json of an evaluation."""

    policy: PolicyAbout
    """What acted."""


@dataclass(frozen=True)
class ProtocolChanges:
    """Numbers of a protocol that are asked for; None keeps the protocol's own."""

    execute: int | None = None
    """Actions of a chunk that are carried out before the next observation."""
    denoising_steps: int | None = None
    """Denoising steps of a chunk."""
    noise_seed: int | None = None
    """Seed of the policy's starting noise."""
    limit: int | None = None
    """Steps of a trial, in every suite."""
    wait_steps: int | None = None
    """Steps of waiting before the first observation."""
    resolution: int | None = None
    """Pixels that cameras are rendered with."""
    env_seed: int | None = None
    """Seed of the environment."""


OPTIONS = {
    "execute": "--execute", "denoising_steps": "--steps", "noise_seed": "--seed", "limit": "--limit",
    "wait_steps": "--wait-steps", "resolution": "--resolution", "env_seed": "--env-seed",
}  # fmt: skip
"""What the fields of `ProtocolChanges` are called on the command line."""
MOST = {**dict.fromkeys(OPTIONS, 1 << 31), "noise_seed": 1 << 63, "resolution": 4097}
"""Values that are refused, and all above them: of seeds and sizes that no generator or renderer takes."""


@dataclass(frozen=True)
class TaskPlan:
    """One task of a suite with its initial states."""

    suite: str
    """The suite."""
    task: BenchmarkTask
    """The task."""
    states: InitialStates
    """Its initial states."""


@dataclass(frozen=True)
class EvalPlan:
    """A checked request."""

    env: str
    """Name of the benchmark, as `load_benchmark` takes it."""
    protocol: EvalProtocol
    """How it is run, overrides included."""
    changed: tuple[str, ...]
    """Names of the protocol's values that were given on the command line."""
    tasks: tuple[TaskPlan, ...]
    """The tasks."""
    trials: tuple[int, ...]
    """Numbers of the trials of every task."""
    robot: RobotSpec
    """What the environment's observations and actions are."""
    facts: Mapping[str, str]
    """Versions of the simulator."""

    def conditions(self) -> TrialConditions:
        """What decides a trial's outcome besides the policy."""
        return {"env": self.env, "protocol": self.protocol.rules(), "simulator": dict(self.facts)}


def plan_evaluation(
    env: str,
    benchmark: Benchmark,
    suites: Sequence[str],
    *,
    protocol: str | None = None,
    tasks: str | None = None,
    trials: str | None = None,
    changes: ProtocolChanges = ProtocolChanges(),
    states: Path | None = None,
) -> EvalPlan:
    """Check a request. suites: full names or without the benchmark's prefix; tasks: numbers or names, comma-separated.

    trials: a count, or a range A-B. changes: to the protocol's numbers.
    Raises UsageError for whatever is unknown, and what `Benchmark.prepare` says when the simulator is absent.
    """
    names = list(benchmark.protocols)
    chosen = names[0] if protocol is None else protocol
    if chosen not in benchmark.protocols:
        raise UsageError(f"--protocol {chosen!r} is unknown{did_you_mean(chosen, names)}")
    suites = [_suite(benchmark, suite) for suite in suites]
    if not suites:
        raise UsageError(f"--env {env} needs --suite: {', '.join(benchmark.suites)}")
    found, changed = _overridden(benchmark.protocols[chosen], changes)
    numbers = _numbers(trials, found.trials)
    facts = benchmark.prepare()
    planned: list[TaskPlan] = []
    for suite in dict.fromkeys(suites):
        for task in _tasks(suite, benchmark.tasks(suite), tasks):
            held = benchmark.initial_states(suite, task) if states is None else states_from(states, suite, task.name)
            if numbers[-1] >= len(held.states):
                raise UsageError(
                    f"task {task.name} of {suite} has {len(held.states)} initial states, trial {numbers[-1]} has none; "
                    f"--trials can be at most {len(held.states)}"
                )
            planned.append(TaskPlan(suite, task, held))
    return EvalPlan(env, found, changed, tuple(planned), tuple(numbers), benchmark.robot, facts)


def _suite(benchmark: Benchmark, name: str) -> str:
    full = name if name in benchmark.suites else f"{benchmark.name}_{name}"
    if full not in benchmark.suites:
        raise UsageError(f"--suite {name!r} is unknown{did_you_mean(name, benchmark.suites)}")
    return full


def _overridden(protocol: EvalProtocol, changes: ProtocolChanges) -> tuple[EvalProtocol, tuple[str, ...]]:
    """The protocol with the changes, and names of what they change in it."""
    given: dict[str, int] = {name: value for name, value in asdict(changes).items() if value is not None}
    for name, value in given.items():
        least = 0 if name in {"wait_steps", "env_seed", "noise_seed"} else 1
        if value < least:
            raise UsageError(f"{OPTIONS[name]} must be at least {least}, found {value}")
        if value >= MOST[name]:
            raise UsageError(f"{OPTIONS[name]} must be below {MOST[name]}, found {value}")
    limit = changes.limit
    found = replace(
        protocol,
        limits=protocol.limits if limit is None else dict.fromkeys(protocol.limits, limit),
        execute=given.get("execute", protocol.execute),
        denoising_steps=given.get("denoising_steps", protocol.denoising_steps),
        noise_seed=given.get("noise_seed", protocol.noise_seed),
        wait_steps=given.get("wait_steps", protocol.wait_steps),
        resolution=given.get("resolution", protocol.resolution),
        env_seed=given.get("env_seed", protocol.env_seed),
    )
    names = [name for name in given if name != "limit"] + ["limits"] * (limit is not None)
    return found, tuple(name for name in names if getattr(found, name) != getattr(protocol, name))


def _numbers(trials: str | None, usual: int) -> range:
    """Not a tuple yet: whether there are so many initial states is known later."""
    first, dash, last = ("0", "-", str(usual - 1)) if trials is None else trials.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise UsageError(f"--trials takes a count or a range like 10-19, found {trials!r}")
    numbers = range(int(first), int(last) + 1) if dash else range(int(first))
    if not numbers:
        raise UsageError(f"--trials {trials} names no trial")
    return numbers


def _tasks(suite: str, known: Sequence[BenchmarkTask], asked: str | None) -> list[BenchmarkTask]:
    if asked is None:
        return list(known)
    found = []
    for word in filter(None, (part.strip() for part in asked.split(","))):
        match = [task for task in known if word in {str(task.number), task.name}]
        if not match:
            names = [task.name for task in known]
            hint = f", tasks are 0 to {len(known) - 1}" if word.isdigit() else did_you_mean(word, names)
            raise UsageError(f"{suite} has no task {word!r}{hint}")
        found += [task for task in match if task not in found]
    if not found:
        raise UsageError("--tasks names no task")
    return found


def doubts(info: RunInfo, plan: EvalPlan, sampling: Denoising) -> list[str]:
    """Sentences about what may make the score mean something else, where nothing refuses it.

    sampling: what acts; a shift that it leaves open is the trained one.
    """
    unfit = info.student_warning(sampling.steps)
    found = [] if unfit is None else [unfit]
    for stream in ("video", "action"):
        trained = getattr(info.model.schedule, f"{stream}_shift")
        shift = getattr(sampling, f"{stream}_shift")
        if shift is not None and shift != trained:
            found.append(f"the {stream} stream is sampled at shift {shift:g}, the run was trained with {trained:g}")
    for what, names in (("state", info.state.names), ("action", info.action.names)):
        odd = [name for name in names if any(word in name.lower() for word in plan.robot.foreign)]
        if odd:
            found.append(
                f"the run's {what} has a dimension {odd[0]!r}, which the environment {plan.env} has not: "
                "the widths fit, but it was trained on other quantities"
            )
    if plan.robot.fps is not None and info.fps != plan.robot.fps:
        found.append(
            f"the run's recordings have {info.fps:g} actions per second, the environment {plan.env} carries out "
            f"{plan.robot.fps:g}: unless their rate is recorded wrong, the robot moves at another speed"
        )
    found += _other_sizes(info, plan)
    for package, version in plan.protocol.versions.items():
        if plan.facts.get(package, version) != version:
            found.append(
                f"{package} is {plan.facts[package]}, the published scores of protocol {plan.protocol.name} were made "
                f"with {version}: another version changes success rates"
            )
    return found


MUCH_LARGER = 1.7
"""Times the run's own images, for a rendered image that runs without a recorded size are warned of."""


def _other_sizes(info: RunInfo, plan: EvalPlan) -> list[str]:
    """A sentence where the environment renders images of another size than those that the run was trained on."""
    rendered = plan.protocol.resolution
    what = f"protocol {plan.protocol.name} renders {rendered}x{rendered}"
    if info.recorded_sizes:
        if (rendered, rendered) in info.recorded_sizes:
            return []
        sizes = ", ".join(f"{height}x{width}" for height, width in info.recorded_sizes)
        (height, width), *others = info.recorded_sizes
        advice = f"; pass --resolution {height} to render as recorded" if height == width and not others else ""
        return [f"the run was trained on recordings of {sizes} pixels, {what}: it sees other images{advice}"]
    height, width = info.manifest.stitch.camera_size
    if rendered <= MUCH_LARGER * max(height, width):
        return []
    advice = f"; if the recordings had {height} pixels, pass --resolution {height}" if height == width else ""
    return [f"the run was trained on images of {height}x{width} pixels, {what}: it sees them made smaller{advice}"]


def check_fit(info: RunInfo, plan: EvalPlan) -> None:
    """UsageError when a run's cameras, state or actions are not those of the environment."""
    robot = plan.robot
    for name in info.manifest.stitch.cameras:
        if name not in robot.cameras:
            raise UsageError(
                f"the run looks through camera {name!r}, the environment {plan.env} has {', '.join(robot.cameras)}: "
                "the run was trained on another robot"
            )
    for what, have, need in (
        ("state", len(info.state.names), robot.state),
        ("action", len(info.action.names), robot.action),
    ):
        if have != need:
            raise UsageError(
                f"the run has {have} {what} dimensions, the environment {plan.env} has {need}: "
                "the run was trained on another robot"
            )
    horizon = info.model.action_horizon
    if plan.protocol.execute > horizon:
        who = "--execute asks for" if "execute" in plan.changed else f"protocol {plan.protocol.name} carries out"
        raise UsageError(
            f"{who} {plan.protocol.execute} actions of a chunk, the run predicts {horizon}; "
            f"pass --execute {horizon}, or fewer"
        )
