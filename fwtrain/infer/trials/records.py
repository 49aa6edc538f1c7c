"""The folder of an evaluation: what it was made with, and one file per finished trial.

OUT/settings.json                        everything that decides a trial's outcome; a rerun must agree
OUT/trials/<suite>/<task>/<trial>.json   TrialRecord, written whole when the trial ends and never again
OUT/films/                               films, see `films`
OUT/result.json, OUT/report.html         the summary of the trials that are there
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import UsageError
from fwdata.io import plain_json, write_json
from fwdata.manifest import Model
from fwtrain.infer.trials.plan import EvalSettings

SETTINGS, TRIALS, RESULT, REPORT, FILMS = "settings.json", "trials", "result.json", "report.html", "films"


class TrialRecord(Model):
    """One finished trial."""

    suite: str
    """The benchmark's suite."""
    task: str
    """Name of the task."""
    trial: int
    """Number of the trial: of its initial state and of its draw of the fixtures."""
    success: bool
    """Whether the task was solved within the limit."""
    steps: int
    """Steps of the policy."""
    chunks: int
    """Observations that the policy was asked about."""
    instruction: str
    """What it was asked to do."""
    initial_states: str
    """sha256 of the task's initial states."""
    env_cpu_seconds: float
    """CPU seconds of the environment, without its start."""
    actions: str
    """The actions that were carried out, float32 [steps, Da] in the environment's units, little-endian, base64."""

    def commands(self) -> NDArray[np.float32]:
        """float32 [steps, Da]: the actions as arrays."""
        flat = np.frombuffer(base64.b64decode(self.actions), "<f4")
        return flat.reshape(self.steps, -1) if self.steps else flat.reshape(0, 0)


def encode_actions(actions: NDArray[np.floating]) -> str:
    """What `TrialRecord.actions` holds."""
    return base64.b64encode(np.ascontiguousarray(actions, "<f4").tobytes()).decode()


@dataclass(frozen=True)
class EvalFolder:
    """An evaluation on disk."""

    path: Path
    """The folder."""

    def trial_file(self, suite: str, task: str, trial: int) -> Path:
        """Where a trial is kept."""
        return self.path / TRIALS / suite / task / f"{trial}.json"

    def refuse_foreign(self) -> None:
        """UsageError for a file, or a folder of something else: a store, a run, whose page would be overwritten."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file; name a folder")
        if not self.path.is_dir() or (self.path / SETTINGS).exists():
            return
        other = sorted(p.name for p in self.path.iterdir() if not p.name.startswith(".") and p.name != TRIALS)
        if other:
            raise UsageError(f"{self.path} holds {other[0]}, which is not of an evaluation; name another --out")

    def settle(self, settings: EvalSettings) -> None:
        """Record the settings of a new folder. UsageError naming what differs in one that was begun otherwise."""
        path = self.path / SETTINGS
        now = json.loads(json.dumps(settings, default=plain_json))
        if not path.exists():
            if (self.path / TRIALS).exists():
                raise UsageError(f"{self.path} holds trials but no {SETTINGS}; use another --out")
            write_json(path, now)
            return
        before, now = _deciding(_read_object(path)), _deciding(now)
        acted, acting = before.get("policy"), now.get("policy")
        if isinstance(acted, dict) and isinstance(acting, dict) and "arithmetic" not in acted:
            acting.pop("arithmetic", None)  # older folders do not name it
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                raise UsageError(
                    f"{self.path} was begun with {_difference(key, before.get(key), now.get(key))}; "
                    "use another --out, or the same settings to continue"
                )

    def trial(self, suite: str, task: str, trial: int) -> TrialRecord | None:
        """A finished trial; None when it is not finished. UsageError for a damaged file."""
        path = self.trial_file(suite, task, trial)
        if not path.exists():
            return None
        try:
            record = TrialRecord.model_validate_json(path.read_bytes())
        except ValueError:
            raise UsageError(f"{path} is damaged; delete it to run its trial again") from None
        if (record.suite, record.task, record.trial) != (suite, task, trial):
            raise UsageError(f"{path} holds trial {record.trial} of {record.task}; delete it to run its trial again")
        return record

    def keep(self, record: TrialRecord) -> None:
        """Write a finished trial, whole or not at all."""
        write_json(self.trial_file(record.suite, record.task, record.trial), record.model_dump(mode="json"))

    def finished(self) -> Iterator[TrialRecord]:
        """All finished trials, by suite, task and number."""
        for path in sorted((self.path / TRIALS).glob("*/*/*.json"), key=lambda p: (p.parts[-3:-1], _number(p))):
            record = self.trial(path.parts[-3], path.parts[-2], _number(path))
            if record is not None:
                yield record


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdigit() else -1


def _read_object(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is damaged; use another --out")
    return found


def _deciding(settings: dict[str, object]) -> dict[str, object]:
    """Without the protocol's texts, which a newer version may word otherwise, and the versions it compares with."""
    protocol = settings.get("protocol")
    if not isinstance(protocol, dict):
        return settings
    return {**settings, "protocol": {k: v for k, v in protocol.items() if k not in {"source", "notes", "versions"}}}


def _difference(key: str, before: Any, now: Any) -> str:
    """`protocol.limits.libero_goal 400, now it is 300`: the first leaf that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        inner = next(k for k in sorted({*before, *now}) if before.get(k) != now.get(k))
        return _difference(f"{key}.{inner}", before.get(inner), now.get(inner))
    return f"{key} {before}, now it is {now}"
