"""A run as a folder that lerobot's FastWAMPolicy loads.

    config.json                          FastWAMConfig
    model.safetensors                    the same bytes as the checkpoint's, under lerobot's names
    policy_preprocessor.json, .._step_*  state normalised with the run's statistics
    policy_postprocessor.json, .._step_* actions in robot units, then the recipe's gripper sign rule

VAE and text encoder are not in it: lerobot loads those of Wan2.2 itself. With the seed `SEED`, which the configuration
holds, its actions are those of `Policy.act(.., seed=SEED)` for equal latents and text. Source: policies/fastwam of
lerobot 0.6.1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fwdata.encode.tensor_files import copy_renamed
from fwdata.errors import UsageError
from fwtrain.export.files import Exported, Trained, whole
from fwtrain.model.sampling import USUAL
from fwtrain.train.folder import RunInfo, Scaling
from fwtrain.variants import VARIANTS
from fwtrain.weights.names import lerobot_from_ours

SEED = 42
"""Seed of the noise of every chunk, as in the official evaluation."""

STITCHED = "observation.images.stitched"
STATE, ACTION = "observation.state", "action"
STD_EPS = 1e-8
"""lerobot's normaliser divides by std + 1e-8, and multiplies with std on the way back."""


def export_lerobot(run: Path, out: Path, which: str = "last", *, any_encoder: bool = False) -> Exported:
    """Write the folder `out`. which: "last", "best" or a step.

    any_encoder: also export a run on other latents or text than Wan2.2's, for a lerobot that brings its own encoders.
    Raises UsageError for a variant or sizes lerobot does not have, foreign encoders, or a target that exists;
    CheckpointError for a checkpoint that is not there. Memory stays flat: weights are copied as bytes.
    """
    trained = Trained.open(run, which)
    _check(trained, any_encoder)
    with whole(out) as temporary:
        config = _configuration(trained)
        notes = _notes(trained, config)
        temporary.mkdir()
        with trained.weights() as weights:
            copy_renamed(weights, temporary / "model.safetensors", lerobot_from_ours)
        _write_config(config, temporary)
        _write_processors(config, trained.info, temporary)
        about = {"run": run.name, "step": trained.checkpoint.step, "recipe": trained.recipe.name, "notes": notes}
        (temporary / "fwtrain_export.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Exported(out, run, trained.checkpoint.step, notes)


def _check(trained: Trained, any_encoder: bool) -> None:
    info, config = trained.info, trained.config
    if not any(mode.sampler == "first-frame" for mode in config.rules.modes):
        fit = [name for name, rules in VARIANTS.items() if any(m.sampler == "first-frame" for m in rules.modes)]
        raise UsageError(
            f"{trained.path} is of variant {config.variant!r}, which lerobot's fastwam policy does not have; "
            f"only {' and '.join(fit)} can be exported"
        )
    video = config.video_expert
    if video.head_dim * video.num_heads != video.hidden_dim:
        raise UsageError(
            f"lerobot's video expert needs heads x head_dim = hidden width, this run has {video.num_heads} x "
            f"{video.head_dim} and {video.hidden_dim}"
        )
    if any_encoder:
        return
    made = _encoders(info)
    for kind, have, want in (("latents", made[0], "wan2.2"), ("text", made[1], "umt5-xxl")):
        if have != want:
            raise UsageError(
                f"{trained.path} was trained on {kind} of {have!r}, lerobot will load {want!r}: its actions would be "
                "wrong; pass --any-encoder if your lerobot brings the run's own encoders"
            )


def _encoders(info: RunInfo) -> tuple[str, str]:
    """Names of the VAE and the text encoder behind the run's caches."""
    names = []
    for cache, key in ((info.latents, "vae"), (info.text, "encoder")):
        made_with = cache.identity.get(key)
        names.append(str(made_with.get("name", cache.spec) if isinstance(made_with, dict) else cache.spec))
    return names[0], names[1]


def _cameras(info: RunInfo) -> dict[str, tuple[int, int]]:
    """(height, width) by feature name. lerobot joins cameras from left to right in the order of their names; any other
    image has to be stitched before it."""
    spec = info.manifest.stitch
    if spec.layout == "horizontal" and list(spec.cameras) == sorted(spec.cameras):
        return {f"observation.images.{name}": spec.camera_size for name in spec.cameras}
    return {STITCHED: spec.size}


def _configuration(trained: Trained) -> Any:
    """The FastWAMConfig. UsageError with lerobot's own words for sizes it refuses."""
    from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.policies.fastwam.configuration_fastwam import FastWAMConfig

    info, config, deploy = trained.info, trained.config, trained.recipe.deploy
    window, schedule = info.manifest.window, config.schedule
    inputs = {name: PolicyFeature(FeatureType.VISUAL, (3, *size)) for name, size in _cameras(info).items()}
    if config.proprio_dim is not None:
        inputs[STATE] = PolicyFeature(FeatureType.STATE, (config.proprio_dim,))
    actions = config.action_expert.action_dim
    shifts = {
        f"{name}_scheduler": {"train_shift": shift, "infer_shift": shift, "num_train_timesteps": steps}
        for name, shift in (("video", schedule.video_shift), ("action", schedule.action_shift))
        for steps in (schedule.num_train_timesteps,)
    }
    try:
        return FastWAMConfig(
            device="cuda" if torch.cuda.is_available() else "cpu",
            action_dim=actions,
            proprio_dim=config.proprio_dim,
            action_horizon=config.action_horizon,
            n_action_steps=deploy.execute or config.action_horizon,
            num_video_frames=window.num_frames,
            action_video_freq_ratio=window.video_stride,
            image_size=info.manifest.stitch.size,
            context_len=config.context_len,
            tokenizer_max_len=config.context_len,
            base_model_id=None,
            torch_dtype=str(_dtype(trained)).removeprefix("torch."),
            prompt_template=info.manifest.prompt.replace("{", "{{").replace("}", "}}").replace("{{task}}", "{task}"),
            inference_seed=SEED,
            num_inference_steps=info.student_steps or USUAL.steps,
            toggle_action_dimensions=list(deploy.gripper_sign),
            loss={"lambda_video": config.lambda_video, "lambda_action": config.lambda_action},
            video_dit_config=_video(config.video_expert, actions),
            action_dit_config=_common(config.action_expert) | {"action_dim": actions},
            normalization_mapping={
                "VISUAL": NormalizationMode.IDENTITY,
                "STATE": NormalizationMode.MEAN_STD,
                "ACTION": NormalizationMode.MEAN_STD,
            },
            input_features=inputs,
            output_features={ACTION: PolicyFeature(FeatureType.ACTION, (actions,))},
            **shifts,
        )
    except ValueError as error:
        raise UsageError(f"lerobot cannot hold {trained.path}: {error}") from None


def _dtype(trained: Trained) -> torch.dtype:
    return torch.bfloat16 if trained.recipe.precision == "bf16" else torch.float32


def _common(expert: Any) -> dict[str, object]:
    return {
        "hidden_dim": expert.hidden_dim,
        "ffn_dim": expert.ffn_dim,
        "num_heads": expert.num_heads,
        "attn_head_dim": expert.head_dim,
        "num_layers": expert.num_layers,
        "text_dim": expert.text_dim,
        "freq_dim": expert.freq_dim,
        "eps": expert.eps,
    }


def _video(expert: Any, actions: int) -> dict[str, object]:
    return _common(expert) | {
        "patch_size": list(expert.patch_size),
        "in_dim": expert.in_channels,
        "out_dim": expert.out_channels,
        "seperated_timestep": True,  # lerobot's spelling
        "video_attention_mask_mode": "first_frame_causal",
        "action_conditioned": False,
        "action_dim": actions,
    }


def _statistics(scaling: Scaling, *, inverse: bool) -> dict[str, torch.Tensor]:
    """Mean and std that make lerobot's MEAN_STD the run's affine map x * scale + offset, whatever mode it came from."""
    scale, offset = np.asarray(scaling.scale, np.float64), np.asarray(scaling.offset, np.float64)
    std = 1 / scale - (0 if inverse else STD_EPS)
    return {name: torch.from_numpy(v.astype(np.float32)) for name, v in (("mean", -offset / scale), ("std", std))}


def _write_config(config: Any, folder: Path) -> None:
    config._save_pretrained(folder)


def _write_processors(config: Any, info: RunInfo, folder: Path) -> None:
    from lerobot.policies.fastwam.processor_fastwam import make_fastwam_pre_post_processors

    statistics = {STATE: _statistics(info.state, inverse=False), ACTION: _statistics(info.action, inverse=True)}
    for processor in make_fastwam_pre_post_processors(config, statistics):
        processor.save_pretrained(folder)


def _notes(trained: Trained, config: Any) -> tuple[str, ...]:
    """How the folder's policy differs from ours."""
    spec, deploy = trained.info.manifest.stitch, trained.recipe.deploy
    notes = ["lerobot does not clip normalised states to -5 .. 5"]
    if STITCHED in config.input_features:
        notes.append(
            f"lerobot joins cameras side by side only: give it the {spec.layout} image of fwdata.images.stitch, "
            f"{spec.size[0]} x {spec.size[1]}, as {STITCHED}"
        )
    else:
        notes.append(f"cameras of another size than {spec.camera_size} are resized without rounding to 8 bits")
    modes = trained.config.rules.modes
    if len(modes) > 1:
        names = " and ".join(mode.name for mode in modes if mode.sampler != "first-frame")
        notes.append(f"lerobot samples in mode first-frame; mode {names} of {trained.config.variant} is not in it")
    if trained.info.source == "libero" and not deploy.gripper_sign:
        notes.append(
            "the recipe has no deploy.gripper_sign: actions hold the gripper as 1 open .. 0 closed, LIBERO's simulator "
            "takes -1 open, +1 closed, and lerobot sends them as they are"
        )
    if deploy.gripper_clip:
        notes.append(f"lerobot does not clip dimensions {list(deploy.gripper_clip)} to 0 .. 1: the robot has to")
    return tuple(notes)
