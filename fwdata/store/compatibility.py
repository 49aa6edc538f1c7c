"""What stores must share to be joined, merged on disk or read side by side in training; each difference in a sentence.

Joined stores describe one robot in one way: equal rate, state and action dimensions, cameras in order, stitching,
window, split, normalisation, prompt and units, and one embodiment. Image sizes of single cameras may differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fwdata.errors import UsageError
from fwdata.store.caches.identity import differing

MANIFEST_KEYS = ("cameras", "stitch", "window", "split", "normalisation", "prompt", "units")
"""Manifest keys that give rows, images and windows their meaning."""


class Described(Protocol):
    """What is asked of a store: names of the public reader."""

    @property
    def location(self) -> str: ...
    @property
    def fps(self) -> float: ...
    @property
    def state_names(self) -> tuple[str, ...]: ...
    @property
    def action_names(self) -> tuple[str, ...]: ...
    @property
    def embodiments(self) -> frozenset[str]: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


class Recorded(Protocol):
    """What is asked of an episode to know its recording."""

    @property
    def source(self) -> str: ...
    @property
    def files(self) -> Sequence[Mapping[str, Any]]: ...


def recording_key(episode: Recorded) -> str | None:
    """What two stores' episodes of one recording share: the digest of its own file, and the place in it. None where
    the store names no file."""
    if not episode.files:
        return None
    return f"{episode.files[0]['sha256']}#{episode.source.partition('#')[2]}"


def schema(store: Described) -> dict[str, object]:
    """The facts two stores must agree on."""
    manifest = store.metadata["manifest"]
    names = {"state_names": list(store.state_names), "action_names": list(store.action_names)}
    return {"fps": store.fps, **names, **{key: manifest.get(key) for key in MANIFEST_KEYS}}


def check_joinable(stores: Sequence[Described]) -> None:
    """UsageError naming every difference of a store from the first one, or the embodiments that would be mixed."""
    first = stores[0]
    problems = [
        difference(key, store.location, have, first.location, want)
        for store in stores[1:]
        for key, have, want in differing(schema(store), schema(first))
    ]
    if problems:
        raise UsageError(f"these stores cannot be joined: {'; '.join(problems)}")
    robots = {name: store.location for store in reversed(stores) for name in store.embodiments}
    if len(robots) > 1:
        listed = ", ".join(f"{name} ({robots[name]})" for name in sorted(robots))
        raise UsageError(f"these stores cannot be joined: embodiments must not share statistics, found {listed}")


def difference(key: str, store: str, have: object, other: str, want: object) -> str:
    """`"a has 7 action_names, b has 14"`, `"a has state_names[3] 'x', b has 'y'"` or `"a has fps 15.0, b has .."`."""
    if isinstance(have, list) and isinstance(want, list):
        if len(have) != len(want):
            return f"{store} has {len(have)} {key}, {other} has {len(want)}"
        place = next(i for i, pair in enumerate(zip(have, want, strict=True)) if pair[0] != pair[1])
        key, have, want = f"{key}[{place}]", have[place], want[place]
    return f"{store} has {key} {have!r}, {other} has {want!r}"
