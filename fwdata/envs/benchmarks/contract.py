"""What a benchmark offers to closed-loop evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.base import Environment
from fwdata.errors import UsageError


@dataclass(frozen=True)
class TrialRules:
    """How one trial is run: everything that can change its outcome without changing the policy."""

    name: str
    """What `--protocol` calls it."""
    source: str
    """Where the numbers come from: files of whoever published scores with them."""
    limits: Mapping[str, int]
    """Suite -> steps of the policy after which a trial has failed."""
    wait_steps: int
    """Steps of the resting action before the policy's first observation; success during them does not count."""
    execute: int
    """Actions of a chunk that are carried out before the next observation."""
    denoising_steps: int
    """Denoising steps of a chunk."""
    resolution: int
    """Height and width in pixels that both cameras are rendered with."""
    env_seed: int
    """Seed of the environment, which places the fixtures."""
    env_seeding: Literal["task", "trial"]
    """task: seeded once per task, trial k sees draw k; trial: seeded with env_seed + k before trial k."""
    noise_seed: int
    """Seed of the policy's starting noise."""
    noise: Literal["same", "running"]
    """same: every chunk starts from the same noise; running: noise is a function of (seed, task, trial, chunk)."""
    notes: tuple[str, ...] = ()
    """What the source does besides and this evaluation does not."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version that the published scores were made with; another one is a warning."""


@dataclass(frozen=True)
class EvalProtocol(TrialRules):
    """How a benchmark is run: the rules of its trials, and how many there are."""

    trials: int = 50
    """Trials per task; trial k begins with initial state k."""

    def rules(self) -> TrialRules:
        """The rules alone: what decides a trial's outcome."""
        return TrialRules(**{rule.name: getattr(self, rule.name) for rule in fields(TrialRules)})


@dataclass(frozen=True)
class BenchmarkTask:
    """One task of a suite."""

    number: int
    """Its place in the suite, from 0."""
    name: str
    """What its files are called."""
    instruction: str
    """What the policy is asked to do."""


@dataclass(frozen=True)
class InitialStates:
    """The initial states of a task."""

    states: NDArray[np.float64]
    """float64 [n, S]."""
    sha256: str
    """Of the array's bytes, little-endian float64 in C order."""


@dataclass(frozen=True)
class RobotSpec:
    """What a policy's observations and actions must be to act here."""

    cameras: Sequence[str]
    """Names of the cameras that an observation has."""
    state: int
    """Dimensions of the state."""
    action: int
    """Dimensions of an action."""
    gripper: int
    """Dimension of an action that is 1 open / 0 closed in a store and -1 open / +1 closed in the environment."""
    foreign: tuple[str, ...] = ()
    """Words in names of dimensions that this robot has not: a run with one is of other quantities."""
    fps: float | None = None
    """Actions that are carried out per second; None where it is not known."""


class Benchmark(Protocol):
    """A set of suites of tasks with an environment for each."""

    @property
    def name(self) -> str:
        """What `--env` calls it."""

    @property
    def suites(self) -> tuple[str, ...]:
        """Names of the suites, in the order of the published table."""

    @property
    def protocols(self) -> Mapping[str, EvalProtocol]:
        """Protocols by name; the first is the default."""

    @property
    def robot(self) -> RobotSpec:
        """What fits."""

    def prepare(self) -> dict[str, str]:
        """Versions of the simulator and its renderer. UsageError or FwdataError saying what to install if it fails."""

    def tasks(self, suite: str) -> tuple[BenchmarkTask, ...]:
        """The tasks of a suite in the benchmark's order. Raises UsageError for an unknown suite."""

    def initial_states(self, suite: str, task: BenchmarkTask) -> InitialStates:
        """The initial states of a task. Raises UsageError when they are absent."""

    def open(self, suite: str, task: BenchmarkTask, protocol: EvalProtocol, states: NDArray[np.float64]) -> Environment:
        """The environment of a task; called once in a process of its own.

        `reset(seed, k)` starts trial k from states[k], the same whatever trials were run before; its observation is the
        first one that a policy sees.
        """


def checked_states(states: NDArray[np.generic], where: str) -> InitialStates:
    """Initial states with their digest. UsageError naming `where` when they are not a table of finite numbers."""
    if states.dtype.kind != "f" or states.itemsize < 4 or states.ndim != 2 or not states.size:
        raise UsageError(
            f"{where} holds no initial states: expected floats of 4 or 8 bytes [n, S], "
            f"found {states.dtype} {list(states.shape)}"
        )
    finite = np.isfinite(states).all(1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise UsageError(f"{where} holds no initial states: row {row} of {len(states)} has values that are not finite")
    table = np.ascontiguousarray(states, "<f8")
    return InitialStates(table, hashlib.sha256(table.tobytes()).hexdigest())
