"""Decoding of plain H.264 and AV1 files by decord (the extra `decord`), where option decoder asks for it.

Its frames are those of PyAV and ffmpeg, bit for bit, on these codecs; it stops on valid HEVC files, and a damaged file
can end the process, so conversions run it in a supervised worker. Some widths fail with an error (decord2 3.4). It is
an independent second opinion, not a faster way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.video import BLOCK_BYTES, BLOCK_FRAMES, VideoPixels, timeline
from fwdata.api import BadEpisode
from fwdata.errors import needed_for

PLAIN = ("h264", "av1")
"""Codecs that it decodes exactly."""


def decord_blocks(source: VideoPixels) -> Iterator[NDArray[np.uint8]]:
    """The frames of `source` as blocks, uint8 [n, H, W, 3].

    MissingLibrary without the extra; BadEpisode for another codec, another number of frames than the file's index says,
    and files that it does not read.
    """
    decord = _library()
    found = timeline(source.path, source.name)
    if found.codec not in PLAIN:
        raise BadEpisode(f"{source.name} is {found.codec}; decoder=decord reads {' and '.join(PLAIN)} only")
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


def _library() -> Any:
    with needed_for("decoder=decord"):
        import decord
    return decord
