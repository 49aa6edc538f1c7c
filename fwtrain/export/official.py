"""A run as an official Fast-WAM checkpoint: {"mot", "proprio_encoder", "step", "torch_dtype"} in one torch file.

One entry more, "fwtrain", records the variant, the shifts and the token rows of a prompt,
which official files lack.
"""

from __future__ import annotations

from pathlib import Path

from fwdata.encode.tensor_files import TensorFiles, save_torch
from fwdata.errors import UsageError
from fwtrain.export.files import Exported, Trained, whole
from fwtrain.model import ModelConfig
from fwtrain.train.folder import RunInfo
from fwtrain.weights.names import ABOUT, PROPRIO
from fwtrain.weights.released import ACTION_SHIFT

UPSTREAM_VIDEO_SHIFT = 5.0
"""configs/model/*.yaml, training and sampling."""


def export_official(run: Path, out: Path, which: str = "last") -> Exported:
    """Write `out` (a .pt file); weights keep their type. The statistics file its evaluation reads is the store's: see
    `fwdata stats`.

    Raises UsageError for a target that exists or no .pt name, CheckpointError for a checkpoint that is not there.
    """
    if out.suffix != ".pt":
        raise UsageError(f"{out} must end in .pt, as official checkpoints do")
    trained = Trained.open(run, which)
    with trained.weights() as weights:
        tensors = dict(TensorFiles.open(weights))
    proprio = {name.removeprefix(PROPRIO): value for name, value in tensors.items() if name.startswith(PROPRIO)}
    config = trained.config
    schedule = config.schedule
    data = {
        ABOUT: {
            "variant": config.variant,
            "video_shift": schedule.video_shift,
            "action_shift": schedule.action_shift,
            "tokens": config.context_len,
        },
        "mot": {name: value for name, value in tensors.items() if not name.startswith(PROPRIO)},
        "step": trained.checkpoint.step,
        "torch_dtype": str(next(iter(tensors.values())).dtype),
        **({"proprio_encoder": proprio} if proprio else {}),
    }
    with whole(out) as temporary:
        save_torch(temporary, data)
    return Exported(out, run, trained.checkpoint.step, (*_student(trained.info), *_notes(config)))


def _student(info: RunInfo) -> tuple[str, ...]:
    """What the file does not hold of a student."""
    steps = info.student_steps
    if steps is None:
        return ()
    return (f"the run is a student of {steps} denoising step{'s' * (steps > 1)}: sample it upstream with as many",)


def _notes(config: ModelConfig) -> tuple[str, ...]:
    """What has to be said to upstream, whose files hold neither variant nor shifts."""
    schedule, notes = config.schedule, []
    if schedule.action_shift != ACTION_SHIFT:
        notes.append(
            f"this run's action shift is {schedule.action_shift:g}; upstream samples actions at {ACTION_SHIFT:g} since "
            f"August 2026: give it model.action_scheduler.infer_shift={schedule.action_shift:g} "
            f"(and train_shift={schedule.action_shift:g} to train on)"
        )
    if schedule.video_shift != UPSTREAM_VIDEO_SHIFT:
        notes.append(
            f"this run's video shift is {schedule.video_shift:g}: give upstream "
            f"model.video_scheduler.infer_shift={schedule.video_shift:g}"
        )
    modes = config.rules.mode_names
    if len(modes) > 1:
        upstream = ", ".join(name.replace("-", "_") for name in modes)
        notes.append(
            f"the file fits every variant: upstream needs model=fastwam_optional_idm, and per evaluation "
            f"+EVALUATION.action_infer_mode ({upstream})"
        )
    return tuple(notes)
