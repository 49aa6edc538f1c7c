"""Decoding of plain H.264 and AV1 files by decord (the extra `decord`), where option decoder asks for it.

Its frames are those of PyAV and ffmpeg, bit for bit, on these codecs in MP4 and MKV with closed groups; in transport
streams, behind a seek into an open group or to a keyframe that is none, and of a turned image it shows others without
an error (decord2 3.4), so these are refused. It stops on valid HEVC files, and a damaged file can end the process, so
conversions run it in a supervised worker. Some widths fail with an error. It is an independent second opinion, not a
faster way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.timelines import timeline
from converters.lerobot.video import BLOCK_BYTES, BLOCK_FRAMES, VideoPixels, indexed
from fwdata.api import BadEpisode
from fwdata.errors import needed_for
from fwdata.images.video_files import has_index

PLAIN = ("h264", "av1")
"""Codecs that it decodes exactly."""


def decord_blocks(source: VideoPixels) -> Iterator[NDArray[np.uint8]]:
    """The frames of `source` as blocks, uint8 [n, H, W, 3].

    MissingLibrary without the extra; BadEpisode for another codec or container, for open groups, another number of
    frames than the file's index says, and files that it does not read.
    """
    decord = _library()
    found = timeline(source.path, source.name, torn=True)
    if found.codec not in PLAIN:
        raise BadEpisode(f"{source.name} is {found.codec}; decoder=decord reads {' and '.join(PLAIN)} only")
    why = _shown_wrongly(source, len(found.keys))
    if why:
        raise BadEpisode(f"{source.name} {why}, of which decoder=decord shows other frames; use decoder=pyav")
    try:
        reader = decord.VideoReader(str(source.path.resolve()), ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(found.times):
            raise BadEpisode(f"{source.name}: decord finds {len(reader)} frames, the file's index {len(found.times)}")
        limit = max(1, min(BLOCK_FRAMES, BLOCK_BYTES // (found.height * found.width * 3)))
        for low in range(0, len(source.ranks), limit):
            block = np.asarray(reader.get_batch(source.ranks[low : low + limit].tolist()).asnumpy(), np.uint8)
            yield block[..., ::-1] if source.swapped else block
    except decord.DECORDError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BadEpisode(f"{source.name} cannot be decoded by decord: {reason}") from None


def _shown_wrongly(source: VideoPixels, keyframes: int) -> str:
    """What a file has that decord does not follow; empty: nothing. keyframes: that its container marks."""
    if not has_index(source.path):
        return "is neither MP4 nor MKV"
    try:
        index = indexed(source.path, source.name)
    except ValueError as error:
        return f"cannot be entered at its keyframes ({error})"
    if index.notes:
        return "asks to be shown otherwise than it is coded, or holds several videos"
    if keyframes > len(index.entries):
        return "marks keyframes that decoding cannot begin at"
    first_shown = np.minimum.reduceat(index.rank, index.entries)
    return "has open groups" if (first_shown < index.rank[index.entries]).any() else ""


def _library() -> Any:
    with needed_for("decoder=decord"):
        import decord
    return decord
