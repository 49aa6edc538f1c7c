"""What differs between two recipes, and which of it a run that is continued may change."""

from __future__ import annotations

from fwtrain.recipe import DeployRecipe, Recipe
from fwtrain.weights.released import OLDER_ACTION_SHIFT

FREE_TO_CHANGE = frozenset(
    {
        "description",
        "save_every",
        "eval_every",
        "log_every",
        "keep_last",
        "tensorboard",
        "trackers",
        "data.workers",
        "validation.pictures",
        "gradient_checkpointing",
        "parallel",
    }
    | {f"deploy.{name}" for name in DeployRecipe.model_fields}
)
"""Keys that a resumed run may change: they do not alter a single weight."""


def flatten(recipe: Recipe) -> dict[str, object]:
    """`{"optim.lr": 1e-4, ..}`: every leaf by its dotted key."""

    def walk(node: dict[str, object], prefix: str) -> dict[str, object]:
        flat: dict[str, object] = {}
        for key, value in node.items():
            if isinstance(value, dict):
                flat |= walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value
        return flat

    return walk(recipe.model_dump(mode="json"), "")


def differences(old: Recipe, new: Recipe) -> list[str]:
    """`["optim.lr: 0.0001 -> 0.001"]` for every key that changes the training; empty when a run may be continued.

    What `new` leaves open is what `old` has.
    """
    old = old.settled(OLDER_ACTION_SHIFT)
    before, after = flatten(old), flatten(new.settled(old.model.action_shift or OLDER_ACTION_SHIFT))
    keys = [key for key in {**before, **after} if key not in FREE_TO_CHANGE]
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]
