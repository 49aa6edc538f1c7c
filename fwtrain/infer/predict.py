"""An action chunk for one recorded frame, beside what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from fwdata.errors import UsageError
from fwdata.manifest import Manifest, validate_model
from fwdata.normalise import Float32
from fwtrain.data.contract import CacheLike, StoreLike, TextLike
from fwtrain.data.stores import store_name
from fwtrain.errors import RunMismatch
from fwtrain.infer.policy import LatentObserved, Policy
from fwtrain.model import Denoising
from fwtrain.model.sampling import USUAL
from fwtrain.train.folder import RunInfo
from fwtrain.train.imported import IMPORTED


class PredictionJson(TypedDict):
    """The document of `fwtrain predict --json`."""

    store: str
    """Name of the episode's store."""
    episode: str
    """Id of the episode."""
    frame: int
    """Row of the episode."""
    instruction: str
    """Text that was given to the policy."""
    names: list[str]
    """One name per action dimension."""
    action: list[list[float]]
    """[A][a], predicted, robot units."""
    recorded: list[list[float]]
    """[n][a], robot units; fewer than A where the episode ends."""
    mae: float
    """Mean absolute error over the recorded steps, robot units."""
    sampling: Denoising
    """Steps, mode and shifts that were used."""


@dataclass(frozen=True)
class Prediction:
    """An action chunk predicted at a recorded frame, and what was recorded there."""

    store: str
    """Name of the episode's store."""
    episode: str
    """Id of the episode."""
    frame: int
    """Row of the episode."""
    instruction: str
    """Text that was given to the policy."""
    names: tuple[str, ...]
    """One name per action dimension."""
    action: Float32
    """float32 [A, a], predicted, robot units."""
    recorded: Float32
    """float32 [n, a], robot units; n <= A, fewer where the episode ends."""
    sampling: Denoising
    """Steps, mode and shifts that were used."""

    @property
    def mae(self) -> float:
        """Mean absolute error over the recorded steps, robot units."""
        return float(np.abs(self.action[: len(self.recorded)] - self.recorded).mean())

    def to_json(self) -> PredictionJson:
        """Plain JSON."""
        return {
            "store": self.store,
            "episode": self.episode,
            "frame": self.frame,
            "instruction": self.instruction,
            "names": list(self.names),
            "action": self.action.tolist(),
            "recorded": self.recorded.tolist(),
            "mae": self.mae,
            "sampling": self.sampling,
        }


def predict(
    run: Path,
    store: StoreLike,
    episode: int,
    frame: int,
    *,
    seed: int = 0,
    checkpoint: str = "last",
    device: str = "auto",
    sampling: Denoising = USUAL,
) -> Prediction:
    """The chunk that the run's policy gives at a recorded frame, from the store's cached latents and text.

    checkpoint: "last", "best" by validation, or a step. sampling: steps, mode and shifts; None for the run's own.

    Raises UsageError for an episode or frame that is not there, RunMismatch when the store's caches are not those the
    run was trained on.
    """
    policy = Policy.load(run, checkpoint=checkpoint, device=device, sampling=sampling)
    info = policy.info
    if not 0 <= episode < len(store.episodes):
        raise UsageError(f"--episode {episode}: the store has episodes 0..{len(store.episodes) - 1}")
    item = store.episodes[episode]
    if not 0 <= frame < item.num_frames:
        raise UsageError(f"--frame {frame}: episode {item.id} has frames 0..{item.num_frames - 1}")
    cache, text = _caches(run, info, store)
    instruction = item.instruction_at(frame)
    seen = LatentObserved(
        cache.first(item, np.asarray([frame]))[0],
        text.embedding(info.manifest.render_prompt(instruction)),
        item.state()[frame],
    )
    action = policy.act_batch([seen], [seed])[0]
    recorded = item.action()[frame : frame + len(action)]
    return Prediction(
        store=store_name(store),
        episode=item.id,
        frame=frame,
        instruction=instruction,
        names=policy.action_names,
        action=action,
        recorded=recorded,
        sampling=policy.sampling,
    )


def _caches(run: Path, info: RunInfo, store: StoreLike) -> tuple[CacheLike[Any], TextLike]:
    """The store's latents and text that the run reads. RunMismatch where they, or the robot, are not the run's.

    An imported run names no caches and no dimensions: the store's default caches have to be of its encoders, images and
    window, and the widths its own.
    """
    imported = info.latents.fingerprint == IMPORTED
    for what, own, names in (
        ("state", info.state.names, tuple(store.state_names)),
        ("action", info.action.names, tuple(store.action_names)),
    ):
        if len(own) != len(names) or not (imported or own == names):
            raise RunMismatch(
                f"{run} has {len(own)} {what} dimensions ({', '.join(own)}), this store {len(names)} "
                f"({', '.join(names)}): it was recorded with another robot or layout; use a store like the run's"
            )
    cache = store.latents(None if imported else info.latents.name)
    text = store.text(None if imported else info.text.name)
    pairs = [
        ("latents", info.latents.fingerprint, cache.fingerprint),
        ("text", info.text.fingerprint, text.fingerprint),
    ]
    if imported:
        manifest = validate_model(Manifest, store.metadata["manifest"], "the store's manifest")
        pairs = [
            ("latents of VAE weights", _weights(info.latents.identity, "vae"), _weights(cache.identity, "vae")),
            ("text of encoder weights", _weights(info.text.identity, "encoder"), _weights(text.identity, "encoder")),
            ("token rows", str(info.text_shape[0]), str(text.max_tokens)),
            ("stitched images", str(info.manifest.stitch), str(manifest.stitch)),
            ("windows", str(info.manifest.window), str(cache.window)),
        ]
    for kind, want, have in pairs:
        if have != want:
            raise RunMismatch(f"{run} was trained on {kind} {want}, this store has {have}; use the store of the run")
    return cache, text


def _weights(identity: Mapping[str, Any], key: str) -> str:
    """Digest of an encoder's weights, from the identity of a cache."""
    made_with = identity.get(key)
    return str(made_with.get("weights", "none") if isinstance(made_with, Mapping) else "none")
