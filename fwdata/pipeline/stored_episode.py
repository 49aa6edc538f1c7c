"""The episodes of a store as detectors see them."""

from __future__ import annotations

from collections.abc import Iterator

from fwdata.errors import UsageError
from fwdata.evidence.claims import Conventions
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.thumbnails import Collector
from fwdata.pipeline.registry import stored_conventions
from fwdata.store.episode import StoredEpisode
from fwdata.store.reader import Store

BLOCK = 32
"""Frames that are decoded together."""


def episode_input(store: Store, episode: StoredEpisode, images: bool) -> EpisodeInput:
    """One stored episode. images: decode its cameras for the detectors that look at them."""
    cameras = [name for name in store.cameras if name in episode.part.record.cameras] if images else []
    claims = claims_of(store, episode)
    taken = {name: looked_through(episode, name, claims.simulated) for name in cameras}
    return EpisodeInput(
        id=episode.id,
        group=episode.part.record.group,
        state=episode.state(),
        action=episode.action(),
        state_names=store.state_names,
        action_names=store.action_names,
        timestamp_s=episode.timestamps(),
        hz=store.fps,
        instruction=episode.instruction,
        claims=claims,
        thumbnails={name: each.take() for name, each in taken.items()},
        looks={name: look for name, each in taken.items() if (look := each.look()) is not None},
    )


def claims_of(store: Store, episode: StoredEpisode) -> Conventions:
    """What the converter decided about an episode, as far as the store tells; nothing where it is not installed."""
    try:
        claim = stored_conventions(store.source)
    except (UsageError, ImportError):
        return Conventions()
    if claim is None:
        return Conventions()
    return claim(store.manifest, (store.state_names, store.action_names), episode.metadata)


def looked_through(episode: StoredEpisode, camera: str, rendered: bool = False) -> Collector:
    """What is taken of one camera's frames; blocks of them are decoded and dropped. rendered: see `Collector`."""
    taken = Collector(rendered=rendered)
    jpeg = episode.part.record.cameras[camera].encoding == "jpeg"
    swapped = episode.swapped(camera) if jpeg else None
    for rows in _blocks(episode.num_frames):
        if swapped is not None:
            for row, data in zip(rows, episode.encoded(camera, rows), strict=True):
                taken.add_jpeg(data, swapped=bool(swapped[row]))
        else:
            taken.add_rgb(episode.frames(camera, rows))
    return taken


def _blocks(rows: int) -> Iterator[range]:
    return (range(low, min(low + BLOCK, rows)) for low in range(0, rows, BLOCK))
