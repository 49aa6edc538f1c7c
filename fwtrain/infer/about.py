"""What a policy is, as far as it decides actions: part of an evaluation's settings."""

from __future__ import annotations

import hashlib

from fwtrain.infer.trials.plan import ActingWeights, Deployed, PolicyAbout
from fwtrain.model import Denoising
from fwtrain.train.checkpoint import MARKER, Checkpoint
from fwtrain.train.folder import RunInfo


def about_policy(policy: Deployed, sampling: Denoising, weights: ActingWeights) -> PolicyAbout:
    """Variant, sampling, gripper rule, statistics and weights."""
    found: PolicyAbout = {
        "variant": policy.info.model.variant,
        "sampling": sampling,
        "gripper_sign": list(policy.gripper_sign),
        "scaling": scaling_digest(policy.info),
        "checkpoint": weights["checkpoint"],
    }
    if "weights" in weights:
        found["weights"] = weights["weights"]
    if policy.arithmetic is not None:
        found["arithmetic"] = policy.arithmetic
    return found


def checkpoint_weights(found: Checkpoint) -> ActingWeights:
    """Which checkpoint acts, for people and as a digest of what its files hold."""
    return {"checkpoint": f"step {found.step}", "weights": weights_digest(found)}


def scaling_digest(info: RunInfo) -> str:
    """16 hex digits of how states and actions are normalised."""
    return _digest(info.state.model_dump_json() + info.action.model_dump_json())


def weights_digest(found: Checkpoint) -> str:
    """16 hex digits of a checkpoint's contents."""
    return _digest((found.path / MARKER).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
