"""Video topics kept as recorded: the messages that hold an episode's frames, in whole groups."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from converters.r1lite.images import BagPixels, is_key
from fwdata.api import BadEpisode, VideoCamera, VideoHeader, VideoPacket
from fwdata.images.colour import tags_of
from fwdata.images.video import parameter_sets


def keep(pixels: BagPixels, good: NDArray[np.int64], display: Sequence[int] | None = None) -> VideoCamera:
    """The camera of the frames that `pixels` decodes. good: messages that are whole and build on whole ones.

    Messages are Annex B buffers. display: messages in display order, for video with B-frames; None: in their own.
    BadEpisode when no frame can be decoded. Cost: one more pass over the topic, and one decoded frame.
    """
    usable = frozenset(good.tolist())
    numbers: list[int] = []
    keys: list[int] = []
    sets: dict[bytes, None] = {}
    bare = False
    for number, message in pixels.messages():
        data = bytes(message.data)
        own = parameter_sets(data, pixels.kind)
        if own:
            sets[own] = None
        if number in usable:
            if is_key(data, pixels.kind):
                keys.append(number)
                bare = bare or not own
            numbers.append(number)
    # some encoders send parameter sets once: decoding may start at later keyframes with them alone
    extradata = next(iter(sets)) if bare and len(sets) == 1 else b""
    needed = {bisect_right(keys, row) - 1 for row in pixels.rows}
    kept = [number for number in numbers if bisect_right(keys, number) - 1 in needed]
    _, first = next(pixels.decoded(), (0, None))
    if first is None:
        raise BadEpisode(f"{pixels.camera}: the {pixels.kind} video holds no frame")
    header = VideoHeader(pixels.kind, extradata, b"", first.format.name, *tags_of(first))
    chosen = frozenset(kept)
    shown = kept if display is None else [number for number in display if number in chosen]
    ranks = {number: rank for rank, number in enumerate(shown)}
    packets = partial(_packets, pixels, ranks, frozenset(keys))
    rows = np.array([ranks[number] for number in pixels.rows], np.int64)
    return VideoCamera(packets, pixels.video_frames, header, rows, first.height, first.width)


def _packets(pixels: BagPixels, ranks: Mapping[int, int], keys: frozenset[int]) -> Iterator[VideoPacket]:
    for number, message in pixels.messages():
        if number in ranks:
            yield VideoPacket(bytes(message.data), ranks[number], number in keys)
