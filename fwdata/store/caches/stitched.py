"""Materialising stitched frames: optional, for stores that are encoded or looked at more than once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fwdata.images.stitch import stitch_hash
from fwdata.store.array import ArrayWriter
from fwdata.store.attempts import UnitAttempt, whole_digests
from fwdata.store.episode import Part
from fwdata.store.files import write_lock
from fwdata.store.layout import frame_array
from fwdata.store.metadata import COMPLETE, write_record
from fwdata.store.reader import Store, open_store
from fwdata.store.records import StitchedRecord

FRAME_BLOCK = 32
"""Frames that are stitched together."""


def pending_stitches(store: Store) -> list[Part]:
    """Parts with episodes whose stitched frames are not materialised with the store's stitching."""
    return [p for p in store.parts if p.record.episodes and store.stitched_part(p.name) is None]


def materialise(
    path: Path, on_plan: Callable[[int], None] = lambda _: None, on_frames: Callable[[int], None] = lambda _: None
) -> int:
    """Write the stitched frames that a store lacks; returns how many. A killed run redoes the part in flight."""
    store = open_store(path)
    written = 0
    with write_lock(path):
        parts = pending_stitches(store)
        on_plan(sum(p.record.frames for p in parts))
        for part in parts:
            written += stitch_part(path, store, part, on_frames)
    return written


def stitch_part(path: Path, store: Store, part: Part, on_frames: Callable[[int], None]) -> int:
    """Write the stitched frames of one part; returns how many."""
    made = stitch_hash(store.manifest.stitch)
    made_from = {"source": part.digest, "stitch_hash": made}
    attempt = UnitAttempt.begin(path / "parts" / part.name / "frames", path / "parts", made_from)
    spec = frame_array(*store.manifest.stitch.size, store.layout_version)
    named = store.record.named_dimensions
    writer = ArrayWriter(attempt.folder / "stitched", spec, named=named)
    for episode in store.episodes.of(part):
        for low in range(0, episode.num_frames, FRAME_BLOCK):
            block = episode.stitched(np.arange(low, min(low + FRAME_BLOCK, episode.num_frames)))
            writer.append(block)
            on_frames(len(block))
    writer.finish()
    digests = whole_digests(attempt.folder)
    record = StitchedRecord(state=COMPLETE, source=part.digest, stitch_hash=made, digests=digests)
    write_record(attempt.folder, record)
    attempt.commit()
    return writer.rows
