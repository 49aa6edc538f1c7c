"""Optional trackers: a run's log in Weights & Biases or Trackio, beside log.jsonl. Both speak the same calls.

Nothing is sent but the recipe, the logged numbers and pictures: neither code, git state, console output nor environment
variables. Offline: `WANDB_MODE=offline` keeps the log in RUN/wandb for `wandb sync`; Trackio is local by itself.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwdata.errors import FwdataError, UsageError
from fwtrain.recipe import Recipe, Tracker, flatten
from fwtrain.train.checkpoint import write_json
from fwtrain.train.logs import Picture

if TYPE_CHECKING:
    from fwtrain.train.folder import RunFolder

PROJECT = "fwtrain"
IDS = "trackers.json"
"""In the run folder: the run's name at every tracker, so that a resumed run goes on there."""


class TrackerLog:
    """A sink around a module with wandb's `log`, `Image` and `finish`."""

    def __init__(self, name: Tracker, module: Any, run: Any) -> None:
        self._name, self._module, self._run = name, module, run

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One point per value, named `kind/name`, over the value `step`."""
        self._run.log({"step": step, **{f"{kind}/{name}": value for name, value in values.items()}})

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """One image per picture, named `val/name`."""
        if pictures:
            images = {f"val/{p.name}": self._module.Image(p.pixels(), caption=p.caption) for p in pictures}
            self._run.log({"step": step, **images})

    def close(self) -> None:
        """Hand over what is left and end."""
        self._run.finish()


def open_tracker(name: Tracker, folder: RunFolder, recipe: Recipe) -> TrackerLog:
    """Start or continue the run's log at a tracker; the project is $WANDB_PROJECT or "fwtrain".

    Raises UsageError when the tracker is not installed, FwdataError when it does not start (no login, no network).
    """
    try:
        module = importlib.import_module(name)
    except ImportError:
        raise UsageError(
            f"trackers: {name} is not installed; install the extra with `pip install 'fwdata[track]'`, "
            "or leave it out with --set trackers=[]"
        ) from None
    identity = _identity(folder.path, name)
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    try:
        if name == "wandb":
            run = module.init(
                project=project,
                name=folder.path.resolve().name,
                id=identity,
                resume="allow",
                dir=str(folder.path),
                config=flatten(recipe),
                settings={"disable_git": True, "disable_code": True, "console": "off", "silent": True},
            )
            run.define_metric("*", step_metric="step")
        else:
            run = module.init(project=project, name=identity, resume="allow", config=flatten(recipe))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FwdataError(
            f"tracker {name} did not start ({reason}); log in, set WANDB_MODE=offline, or leave it out with "
            "--set trackers=[]"
        ) from error
    return TrackerLog(name, module, run)


def _identity(folder: Path, tracker: str) -> str:
    """The run's id at a tracker, made once and kept in the run folder."""
    path = folder / IDS
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if tracker not in known:
        known[tracker] = f"{folder.resolve().name}-{secrets.token_hex(4)}"
        write_json(path, known)
    return known[tracker]
