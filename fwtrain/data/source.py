"""Everything a run takes from a store, resolved and checked once at the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fwdata.errors import StoreError, UsageError
from fwdata.manifest import Manifest, Model, validate_model
from fwdata.normalise import Normaliser
from fwdata.window import Window, WindowIndex, build_index
from fwtrain.data.batches import TextTable, WindowReader
from fwtrain.data.contract import CacheLike, StoreLike, TextLike
from fwtrain.data.order import BatchPlan, DataOrder, Shares
from fwtrain.data.stores import members_of, store_name
from fwtrain.recipe import Recipe
from fwtrain.variants import VARIANTS


class StoreInfo(Model):
    """A store of a run."""

    name: str
    """Name of its folder."""
    fingerprint: str
    """Identity of its episodes."""
    train: int
    """Training episodes."""
    weight: float
    """How often an epoch draws its windows (`data.weights`)."""


@dataclass(frozen=True)
class StoreSource:
    """A store's caches, statistics and episodes for one recipe.

    train, val: episodes by split. latent_shape: (C, h, w); text_shape: (L, Dt). stores: the one store, or those that
    were joined, in the order of the episodes.
    """

    store: StoreLike
    """The store, or the joined view of several."""
    manifest: Manifest
    """The store's manifest."""
    cache: CacheLike[Any]
    """Latent cache that is read."""
    text: TextLike
    """Text cache that is read."""
    state: Normaliser
    """Normalisation of the state."""
    action: Normaliser
    """Normalisation of the action."""
    train: Sequence[Any]
    """Training episodes."""
    val: Sequence[Any]
    """Validation episodes; empty where the split has none."""
    latent_shape: tuple[int, int, int]
    """(C, h, w) of one latent frame."""
    text_shape: tuple[int, int]
    """(L, Dt): text tokens, width of an embedding."""
    stores: tuple[StoreInfo, ...]
    """The one store, or those that were joined, in the order of the episodes."""

    @property
    def window(self) -> Window:
        """Shape of one training window."""
        return self.cache.window


def open_source(store: StoreLike, recipe: Recipe) -> StoreSource:
    """Resolve what `recipe` needs from `store`.

    Raises StoreError for an absent cache, text or statistics, and for statistics that are not finite; UsageError where
    the store's dimensions differ from those the recipe was written for, or nothing is left to train on.
    """
    _check_width("state", recipe.data.state_dim, store.state_names, recipe.name)
    _check_width("action", recipe.data.action_dim, store.action_names, recipe.name)
    manifest = validate_model(Manifest, store.metadata["manifest"], "the store's manifest")
    cache, text, statistics = store.latents(recipe.data.latents), store.text(recipe.data.text), store.stats()
    mode, guard = manifest.normalisation.mode, recipe.data.guard_constant
    where = store.location if len(members_of(store)) == 1 else ""
    train = [episode for episode in store.episodes if episode.split == "train"]
    val = [episode for episode in store.episodes if episode.split == "val"]
    if not train:
        raise UsageError("the store has no training episodes; check the split of its manifest")
    return StoreSource(
        store=store,
        manifest=manifest,
        cache=cache,
        text=text,
        state=Normaliser.from_statistics(statistics.state, mode, store.state_names, "state", guard=guard, where=where),
        action=Normaliser.from_statistics(
            statistics.action, mode, store.action_names, "action", guard=guard, where=where
        ),
        train=train,
        val=val,
        latent_shape=cache.shape,
        text_shape=(text.max_tokens, text.dim),
        stores=_stores(store, recipe),
    )


def _stores(store: StoreLike, recipe: Recipe) -> tuple[StoreInfo, ...]:
    members = members_of(store)
    weights = recipe.data.weights or (1.0,) * len(members)
    if len(weights) != len(members):
        raise UsageError(
            f"data.weights has {len(weights)} numbers for {len(members)} store{'s' if len(members) > 1 else ''}; "
            "give one for each"
        )
    return tuple(
        StoreInfo(
            name=store_name(member),
            fingerprint=member.fingerprint,
            train=sum(episode.split == "train" for episode in member.episodes),
            weight=weight,
        )
        for member, weight in zip(members, weights, strict=True)
    )


def _check_width(what: str, expected: int | None, names: Sequence[str], recipe: str) -> None:
    if expected is not None and expected != len(names):
        raise UsageError(
            f"recipe {recipe} is for {expected} {what} dimensions, the store has {len(names)} ({', '.join(names)}); "
            f"use another recipe or --set data.{what}_dim=null"
        )


def trains_video(recipe: Recipe) -> bool:
    """Whether the recipe has a video loss."""
    return VARIANTS[recipe.model.variant].video_loss and recipe.model.lambda_video > 0 and not recipe.video_frozen


def training_reader(source: StoreSource, recipe: Recipe) -> WindowReader:
    """Reader over the training episodes."""
    return _reader(source, source.train, recipe, sample=recipe.data.instruction == "sample")


def training_order(index: WindowIndex, recipe: Recipe, stores: Sequence[StoreInfo] = ()) -> DataOrder:
    """Order of the training windows of one store, or of `StoreSource.stores` by their weights.

    Raises UsageError when no window can train the recipe's variant.
    """
    variant = recipe.model.variant
    rules = VARIANTS[variant]
    order = DataOrder(
        index,
        batch_size=recipe.optim.batch_size,
        accumulation=recipe.optim.accumulation,
        seed=recipe.seed,
        video_fraction=recipe.data.video_fraction,
        shares=_shares(index, stores),
        needs_video=rules.needs_future,
        never_video=not (trains_video(recipe) or rules.needs_future),
    )
    if order.num_windows == 0:
        why = f"variant {variant} needs future latents" if len(index) else "every window reaches an invalid frame"
        raise UsageError(f"no window of the store can be trained on: {why}; encode latents with a smaller --stride")
    return order


def _shares(index: WindowIndex, stores: Sequence[StoreInfo]) -> Shares | None:
    """None where every window is drawn once."""
    if all(store.weight == 1 for store in stores):
        return None
    ends = np.cumsum([store.train for store in stores])  # episodes come store after store
    return Shares(np.searchsorted(ends, index.episode, side="right"), tuple(store.weight for store in stores))


def validation_plans(source: StoreSource, recipe: Recipe) -> tuple[WindowReader, list[BatchPlan]] | None:
    """Fixed, evenly spread windows of the validation episodes, the same for every variant; None when there are none.

    Taken from the windows with future latents where there are any, so that errors of one store compare; future latents
    are read only by variants that use them.
    """
    if not source.val or recipe.validation.windows == 0:
        return None
    reader = _reader(source, source.val, recipe, sample=False)
    usable = np.flatnonzero(reader.index.video) if reader.index.video.any() else np.arange(len(reader.index))
    rules = VARIANTS[recipe.model.variant]
    video = bool(reader.index.video.any()) and (rules.needs_future or trains_video(recipe))
    if rules.needs_future and not video:
        return None
    count = min(recipe.validation.windows, len(usable))
    chosen = usable[np.linspace(0, len(usable) - 1, count).round().astype(np.int64)]
    size = recipe.optim.batch_size
    cuts = [chosen[i : i + size] for i in range(0, count, size)]
    return reader, [BatchPlan(windows, video, 0, number) for number, windows in enumerate(cuts)]


def _reader(source: StoreSource, episodes: Sequence[Any], recipe: Recipe, *, sample: bool) -> WindowReader:
    index = build_index(episodes, source.cache, source.window)
    if recipe.data.windows == "future":
        index = index.with_future()
    if len(index) == 0:
        raise StoreError(f"none of {len(episodes)} episodes has a usable training window: all reach invalid frames")
    source.manifest.normalisation.check_actions(len(source.action.scale), "the view")
    return WindowReader(
        episodes,
        index,
        source.cache,
        TextTable(source.text),
        source.manifest,
        source.state,
        source.action,
        seed=recipe.seed,
        sample_instructions=sample,
    )
