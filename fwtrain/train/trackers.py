"""Optional trackers: a run's log in Weights & Biases or Trackio, beside log.jsonl. Both speak the same calls.

They get the recipe, the logged numbers and images. Code, git state, console output and environment variables stay
here; wandb adds its own facts of the machine and the list of installed packages.
Another tracker is one file: `trackers/NAME.py` in FWDATA_PLUGINS, or an entry point of `fwtrain.trackers`, with a
function `open_sink(folder: Path, config: dict[str, object], identity: str)` that returns a `fwtrain.train.logs.Sink`;
identity is the run's id, the same when the run is continued (see `fwdata.plugins`). Recipes then take its name.
Offline: `WANDB_MODE=offline` keeps the log in RUN/wandb for `wandb sync`; Trackio is local by itself.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwdata import plugins
from fwdata.errors import FwdataError, UsageError, install_command
from fwdata.io import write_json
from fwtrain.recipe import TRACKER_MODULES, Recipe
from fwtrain.recipe_changes import flatten
from fwtrain.train.logs import TRACKERS, Picture, Sink

if TYPE_CHECKING:
    from fwtrain.train.folder import RunFolder

PROJECT = "fwtrain"


class TrackerLog:
    """A sink around a module with wandb's `log`, `Image` and `finish`."""

    def __init__(self, name: str, module: Any) -> None:
        self._name, self._module = name, module

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One point per value, named `kind/name`."""
        self._log(step, {f"{kind}/{name}": value for name, value in values.items()})

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """Log each image under the name `val/name`."""
        if pictures:
            self._log(step, {f"val/{p.name}": self._module.Image(p.pixels(), caption=p.caption) for p in pictures})

    def _log(self, step: int, values: Mapping[str, object]) -> None:
        """wandb takes the step as a value, since it drops points whose own step is not ahead of the last one's."""
        if self._name == "wandb":
            self._module.log({"step": step, **values})
        else:
            self._module.log(values, step=step)

    def close(self) -> None:
        """Hand over what is left and end."""
        with redirect_stdout(sys.stderr):  # trackio prints; stdout is the command's result
            self._module.finish()


def check_installed(recipe: Recipe) -> None:
    """UsageError when a tracker of the recipe is not installed."""
    for name in recipe.trackers:
        if name in TRACKER_MODULES:
            _module(name)
        else:
            plugins.TRACKERS.load(name)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(
            f"trackers: {name} is not installed; install the extra with `{install_command('track')}`, "
            "or leave it out with --set trackers=[]"
        ) from None


def open_tracker(name: str, folder: RunFolder, recipe: Recipe) -> Sink:
    """Start or continue the run's log at a tracker; the project is $WANDB_PROJECT or "fwtrain".

    Raises UsageError when the tracker is not installed, FwdataError when it does not start (no login, no network).
    """
    identity = _identity(folder.path, name)
    if name not in TRACKER_MODULES:
        sink: Sink = plugins.TRACKERS.load(name)(folder.path, flatten(recipe), identity)
        lacking = [method for method in ("write", "pictures", "close") if not callable(getattr(sink, method, None))]
        if lacking:
            raise UsageError(f"tracker {name!r}: what open_sink returns lacks {' and '.join(lacking)}")
        return sink
    module = _module(name)
    options: dict[str, object] = {"name": identity}
    if name == "wandb":
        settings = {"disable_git": True, "disable_code": True, "console": "off", "silent": True}
        options = {"name": folder.path.resolve().name, "id": identity, "dir": str(folder.path), "settings": settings}
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    try:
        with redirect_stdout(sys.stderr):
            module.init(project=project, config=flatten(recipe), resume="allow", **options)
            if name == "wandb":
                module.define_metric("*", step_metric="step")
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FwdataError(
            f"tracker {name} did not start ({reason}); log in, set WANDB_MODE=offline, or leave it out with "
            "--set trackers=[]"
        ) from error
    return TrackerLog(name, module)


def _identity(folder: Path, tracker: str) -> str:
    """The run's id at a tracker, made once and kept in the run folder, so that a resumed run goes on there."""
    path = folder / TRACKERS
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if tracker not in known:
        known[tracker] = f"{folder.resolve().name}-{secrets.token_hex(4)}"
        write_json(path, known)
    return known[tracker]
