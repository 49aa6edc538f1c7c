"""Worlds that policies are judged in side by side: teacher and students of a distillation, runs of a comparison."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from fwdata.io import plain_json
from fwtrain.infer.about import about_policy, checkpoint_weights, weights_digest
from fwtrain.infer.evaluate import EvalResult, check_request, evaluate_sample
from fwtrain.infer.policy import Policy
from fwtrain.infer.trials.loop import Unfinished
from fwtrain.infer.trials.plan import EvalPlan, check_fit
from fwtrain.infer.trials.records import EvalFolder
from fwtrain.infer.trials.run import evaluate_benchmark, usual_rows
from fwtrain.train.checkpoint import Checkpoint
from fwtrain.train.folder import RunInfo


class LoopWorld(Protocol):
    """A world that policies act in, all from the same scenes and noise."""

    def check(self, info: RunInfo) -> None:
        """UsageError when a run does not fit, before anything is trained."""

    def play(self, policy: Policy, checkpoint: Checkpoint, name: str, steps: int) -> EvalResult | None:
        """Successes of a policy that is sampled with `steps`; None where no trial could be finished.

        checkpoint: its weights. name: what its folder is called by.
        """


@dataclass(frozen=True)
class SampleLoopWorld:
    """Episodes of the sample world."""

    episodes: int = 20
    """Of every policy."""
    execute: int = 24
    """Actions of a chunk carried out before looking again."""

    def check(self, info: RunInfo) -> None:
        """See LoopWorld."""
        check_request(info, self.episodes, self.execute)

    def play(self, policy: Policy, checkpoint: Checkpoint, name: str, steps: int) -> EvalResult:
        """See LoopWorld."""
        return evaluate_sample(policy, self.episodes, 0, execute=self.execute, steps=steps)


@dataclass(frozen=True)
class BenchmarkLoopWorld:
    """Trials of a benchmark; finished ones are kept and never run again."""

    plan: EvalPlan
    """What is run; its denoising steps are replaced by each policy's own."""
    out: Path
    """Folder that gets a folder of trials per policy, apart for every protocol and every checkpoint."""
    workers: int = 1
    """Environments side by side."""
    start: Callable[[int], None] = lambda _: None
    """Callback, trials of a policy that are still to run."""
    done: Callable[[int], None] = lambda _: None
    """Callback, trials ended."""
    unfinished: list[Unfinished] = field(default_factory=list)
    """Trials whose environment was lost, of all policies that have played."""
    warnings: list[str] = field(default_factory=list)
    """What may make the success rates mean something else, each sentence once."""

    def check(self, info: RunInfo) -> None:
        """See LoopWorld."""
        check_fit(info, self.plan)

    def play(self, policy: Policy, checkpoint: Checkpoint, name: str, steps: int) -> EvalResult | None:
        """See LoopWorld."""
        protocol = replace(self.plan.protocol, denoising_steps=steps)
        changed = tuple(dict.fromkeys((*self.plan.changed, "denoising_steps")))
        if steps == self.plan.protocol.denoising_steps:
            changed = self.plan.changed
        out = self.folder(checkpoint, name, steps)
        found = evaluate_benchmark(
            replace(self.plan, protocol=protocol, changed=changed),
            policy,
            about_policy(policy, policy.sampling, checkpoint_weights(checkpoint)),
            out,
            workers=self.workers,
            rows=usual_rows(policy),
            start=self.start,
            done=self.done,
        )
        self.unfinished.extend(found.unfinished)
        self.warnings.extend(said for said in found.warnings if said not in self.warnings)
        total = found.summary.all
        if not total.trials:
            return None
        tasks = {f"{suite}/{task}": (t.successes, t.trials) for (suite, task), t in found.summary.tasks.items()}
        return EvalResult(total.successes, total.trials, total.steps, tasks, self._outcomes(EvalFolder(out)))

    def _outcomes(self, folder: EvalFolder) -> tuple[bool, ...]:
        asked = [(task.suite, task.task.name, trial) for task in self.plan.tasks for trial in self.plan.trials]
        records = [record for key in asked if (record := folder.trial(*key)) is not None]
        return tuple(record.success for record in records) if len(records) == len(asked) else ()

    def folder(self, checkpoint: Checkpoint, name: str, steps: int) -> Path:
        """Where the trials of a policy are kept. Another protocol is another folder, so that policies are compared
        again without being trained again."""
        settings = json.dumps({**self.plan.conditions(), "policy": {}}, sort_keys=True, default=plain_json)
        protocol = f"{self.plan.protocol.name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
        return self.out / protocol / f"{name}-{steps}-{weights_digest(checkpoint)[:8]}"
