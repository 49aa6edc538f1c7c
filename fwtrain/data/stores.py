"""Several stores read side by side as one, without copying: their episodes one after another, each with its own caches.

The stores must describe one robot in one way (`fwdata.store.compatibility`), with latents and text of equal identity.
Statistics are one set for all of them, as if they were merged: the official trainer normalises all its dataset folders
together. Every store keeps its own validation split. How often each store's windows are drawn is `data.weights` of the
recipe (`fwtrain.data.order`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata import Statistics, check_joinable, difference, differing, merge_statistics, recording_key
from fwdata.errors import StaleCache, StoreError, UsageError, quoted
from fwdata.window import Window
from fwdata.window_batches import RowsLike
from fwtrain.data.contract import CacheLike, EpisodeLike, StoreLike, TextLike


@dataclass(frozen=True)
class JointEpisode:
    """An episode of one of several stores; what is not below is as in its store."""

    member: int
    """Position of its store."""
    index: int
    """Its place among the episodes of all stores."""
    store: str
    """Name of its store."""
    episode: EpisodeLike
    """The episode of the store."""

    @property
    def id(self) -> str:
        """`store:id`."""
        return f"{self.store}:{self.episode.id}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.episode, name)


class JointLatents:
    """The latent caches of all stores. Identity, name, shape, stride and window are those of every one of them."""

    def __init__(self, caches: Sequence[CacheLike[Any]]) -> None:
        self._caches = caches
        first = caches[0]
        self.name, self.vae, self.fingerprint, self.identity = first.name, first.vae, first.fingerprint, first.identity
        self.shape: tuple[int, int, int] = first.shape
        self.stride: int = first.stride
        self.window: Window = first.window

    def starts(self, episode: JointEpisode) -> NDArray[np.int64]:
        """See `fwdata.store.caches.latents.LatentCache`, also for the others."""
        return self._caches[episode.member].starts(episode.episode)

    def first(self, episode: JointEpisode, indices: NDArray[np.int64]) -> NDArray[np.float16]:
        """float16 [n, C, h, w]."""
        return self._caches[episode.member].first(episode.episode, indices)

    def future(self, episode: JointEpisode, starts: NDArray[np.int64]) -> NDArray[np.float16]:
        """float16 [m, C, F-1, h, w]."""
        return self._caches[episode.member].future(episode.episode, starts)

    def windows(self, episodes: Sequence[JointEpisode], caches: Sequence[Any] | None = None) -> RowsLike:
        """Reads the windows of these episodes, whichever store they are in."""
        caches = [self._caches[episode.member] for episode in episodes]
        return self._caches[0].windows([episode.episode for episode in episodes], caches)


class JointTexts:
    """The text caches of all stores; a prompt is looked up in one after another."""

    def __init__(self, caches: Sequence[TextLike]) -> None:
        self._caches = caches
        first = caches[0]
        self.name, self.encoder, self.identity = first.name, first.encoder, first.identity
        self.fingerprint, self.max_tokens, self.dim = first.fingerprint, first.max_tokens, first.dim

    def embedding(self, prompt: str) -> NDArray[Any]:
        """[L, Dt]; StoreError when no store has the prompt."""
        for cache in self._caches[:-1]:
            try:
                return cache.embedding(prompt)
            except StoreError:
                continue
        return self._caches[-1].embedding(prompt)


class JointStores:
    """Several stores with the public reader's names; made by `join_stores`. members: the stores, in order."""

    def __init__(self, members: Sequence[StoreLike]) -> None:
        self.members = tuple(members)
        first = self.members[0]
        self.source, self.fps, self.metadata = first.source, first.fps, first.metadata
        self.state_names, self.action_names = first.state_names, first.action_names
        self.embodiments = frozenset[str]().union(*(store.embodiments for store in members))
        self.location = " + ".join(store.location for store in members)
        self.fingerprint = "+".join(store.fingerprint for store in members)

    @cached_property
    def episodes(self) -> Sequence[Any]:
        """Episodes of all stores, store after store."""
        owned = [(member, episode) for member, store in enumerate(self.members) for episode in store.episodes]
        names = [store_name(store) for store in self.members]
        return [JointEpisode(member, index, names[member], episode) for index, (member, episode) in enumerate(owned)]

    def latents(self, name: str | None = None) -> JointLatents:
        """All stores' latents; StaleCache naming what differs in how they were made."""
        caches = [store.latents(name) for store in self.members]
        self._check_equal("latents", caches, "fwdata encode-latents")
        return JointLatents(caches)

    def text(self, name: str | None = None) -> JointTexts:
        """All stores' text; StaleCache naming what differs in how it was made."""
        caches = [store.text(name) for store in self.members]
        self._check_equal("text", caches, "fwdata encode-text")
        return JointTexts(caches)

    def stats(self) -> Statistics:
        """One set of statistics over the training episodes of all stores."""
        return merge_statistics([store.stats() for store in self.members])

    def _check_equal(self, kind: str, caches: Sequence[CacheLike[Any] | TextLike], command: str) -> None:
        problems = [
            difference(f"{kind}.{key}", store.location, have, self.members[0].location, want)
            for store, cache in zip(self.members, caches, strict=True)
            for key, have, want in differing(cache.identity, caches[0].identity)
        ]
        if problems:
            raise StaleCache(
                f"the {kind} of these stores differ: {'; '.join(problems)}; make them alike with {command}"
            )


def join_stores(stores: Sequence[StoreLike]) -> StoreLike:
    """The stores as one; a single store is returned as it is.

    UsageError when they differ in what they must share (every difference is named), one is given twice, or a recording
    trains in one and validates in another.
    """
    if len(stores) == 1:
        return stores[0]
    check_joinable(stores)
    seen: dict[str, str] = {}
    for store in stores:
        if store.fingerprint in seen:
            raise UsageError(
                f"{store.location} holds the same episodes as {seen[store.fingerprint]}; to draw a store more often "
                "give it a larger weight"
            )
        seen[store.fingerprint] = store.location
    _check_splits(stores)
    return JointStores(stores)


def _check_splits(stores: Sequence[StoreLike]) -> None:
    """UsageError for a recording that several stores hold, and not in one split: validation would see what is trained.
    Looks at metadata alone; recordings that are in one split of all of them are drawn as often as they are held."""
    held: dict[str, tuple[str, str]] = {}
    for store in stores:
        for episode in store.episodes:
            key, where = recording_key(episode), f"{store.location}: {episode.id}"
            split, before = held.setdefault(key or where, (episode.split, where))
            if split != episode.split:
                raise UsageError(
                    f"{where} ({episode.split}) is the same recording as {before} ({split}): validation would see what "
                    "is trained; give each recording once, or convert all of them into one store"
                )


def members_of(store: StoreLike) -> tuple[StoreLike, ...]:
    """The stores that were joined, or the store itself."""
    return store.members if isinstance(store, JointStores) else (store,)


def command_word(store: StoreLike) -> str:
    """A store as a word of a command to copy; STORE where it stands for several."""
    return quoted(store.location) if len(members_of(store)) == 1 else "STORE"


def store_name(store: StoreLike) -> str:
    """Last part of the store's path, without .zarr."""
    return PurePosixPath(store.location).name.removesuffix(".zarr")
