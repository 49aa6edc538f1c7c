"""A folder for RoboTwin's `policy/` (or XPolicyLab's) that carries out what `fwtrain serve` answers.

    __init__.py, deploy_policy.py   copies of `fwtrain.export.robotwin_policy`
    deploy_policy.yml               for RoboTwin's script/eval_policy.py
    model.py, deploy.yml            for XPolicyLab's policy server
    fwtrain_export.json             which run and checkpoint, and how to serve them

No weights are in it: RoboTwin's Python is older than this toolkit's, so the run is served from a process of its own.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from fwdata.errors import UsageError
from fwtrain.export.files import Exported, Trained, whole
from fwtrain.export.robotwin_policy.deploy_policy import CAMERAS, JOINTS, RoboTwinSettings

TEMPLATE = Path(__file__).parent / "robotwin_policy"
FILES = ("__init__.py", "deploy_policy.py", "model.py")
EXPLAINED = ("server", "token_file", "execute", "whole_chunk", "noise_seed", "timeout_seconds", "reconnect_seconds")
"""Settings that both YAML files list with their defaults."""


def export_robotwin(run: Path, out: Path, which: str = "last") -> Exported:
    """Write the folder `out`, whose name is the policy's. which: "last", "best" or a step, for the serve command.

    Raises UsageError for a run with other cameras or joints than RoboTwin's two arms, a name that Python cannot import,
    or a target that exists; CheckpointError for a checkpoint that is not there.
    """
    if not out.name.isidentifier():
        raise UsageError(
            f"RoboTwin imports the folder {out.name!r} as a Python package: choose a name of letters, digits and _"
        )
    trained = Trained.open(run, which)
    _check(trained)
    notes = _notes(trained)
    about = {"run": run.name, "step": trained.checkpoint.step, "recipe": trained.recipe.name, "notes": notes}
    with whole(out) as temporary:
        temporary.mkdir()
        for name in FILES:
            shutil.copyfile(TEMPLATE / name, temporary / name)
        (temporary / "deploy_policy.yml").write_text(_classic_yaml(out.name), encoding="utf-8")
        (temporary / "deploy.yml").write_text(_xpolicylab_yaml(out.name), encoding="utf-8")
        (temporary / "fwtrain_export.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Exported(out, run, trained.checkpoint.step, notes)


def _check(trained: Trained) -> None:
    info = trained.info
    cameras = list(info.manifest.stitch.cameras)
    if set(cameras) != set(CAMERAS):
        raise UsageError(f"{trained.path} has cameras {cameras}, RoboTwin gives {list(CAMERAS)}")
    for what, names in (("state", info.state.names), ("action", info.action.names)):
        if len(names) != JOINTS:
            raise UsageError(f"{trained.path} has {len(names)} {what} values, RoboTwin's two arms have {JOINTS}")


def _notes(trained: Trained) -> tuple[str, ...]:
    deploy, horizon = trained.recipe.deploy, trained.config.action_horizon
    words = ["fwtrain", "serve", str(trained.path), "--checkpoint", str(trained.checkpoint.step)]
    steps = trained.info.student_steps
    serve = shlex.join(words if steps is None else [*words, "--steps", str(steps)])
    notes = [f"start the policy with: {serve}"]
    if deploy.execute is None:
        notes.append(
            f"the recipe does not set deploy.execute: all {horizon} actions of a chunk are carried out, the published "
            "evaluation carries out 24"
        )
    if not deploy.gripper_clip:
        notes.append(
            "the recipe clips no gripper to 0 .. 1 (deploy.gripper_clip), neither does the official evaluation"
        )
    return tuple(notes)


def _classic_yaml(name: str) -> str:
    theirs = {
        "policy_name": name,
        "task_name": None,
        "task_config": None,
        "ckpt_setting": None,
        "seed": 0,
        "instruction_type": "unseen",
    }
    return (
        "# For RoboTwin's script/eval_policy.py; --overrides change keys.\n"
        "# seed chooses the scenes: the published Fast-WAM numbers used 42.\n" + _dump(theirs) + _ours()
    )


def _xpolicylab_yaml(name: str) -> str:
    theirs = {"policy_name": name, "action_type": "joint", "eval_batch": False}
    return "# For XPolicyLab's policy server, which listens on its own --host and --port.\n" + _dump(theirs) + _ours()


def _ours() -> str:
    defaults = RoboTwinSettings()
    return (
        "# Read by deploy_policy.py, which explains them; record, run, checkpoint and device may be added.\n"
        + _dump({key: getattr(defaults, key) for key in EXPLAINED})
    )


def _dump(values: Mapping[str, object]) -> str:
    return str(yaml.safe_dump(values, sort_keys=False))
