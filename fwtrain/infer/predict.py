"""An action chunk for one recorded frame, beside what was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from fwdata.errors import UsageError
from fwdata.normalise import Float32
from fwtrain.data.contract import StoreLike
from fwtrain.data.stores import store_name
from fwtrain.errors import RunMismatch
from fwtrain.infer.policy import LatentObserved, Policy
from fwtrain.model import Denoising
from fwtrain.model.sampling import USUAL


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
    cache, text = store.latents(info.latents.name), store.text(info.text.name)
    for kind, have, want in (
        ("latents", cache.fingerprint, info.latents.fingerprint),
        ("text", text.fingerprint, info.text.fingerprint),
    ):
        if have != want:
            raise RunMismatch(f"{run} was trained on {kind} {want}, this store has {have}; use the store of the run")
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
