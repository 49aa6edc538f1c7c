"""Videos kept as recorded: the packets that hold an episode's frames."""

from __future__ import annotations

from functools import partial

from converters.lerobot import video
from fwdata.api import VideoCamera


def keep(pixels: video.VideoPixels, found: video.Timeline) -> VideoCamera:
    """The camera of the frames that `pixels` decodes; BadEpisode when the file cannot be read.

    Cost: one pass over the file's packets, once per process and file.
    """
    size, decode = (found.height, found.width), partial(video.decode, pixels)
    try:
        if pixels.untimed:
            raise ValueError("the file tells no display times")
        return VideoCamera.of_packets(
            video.indexed(pixels.path, pixels.name), pixels.ranks, size, decode, pixels.swapped
        )
    except ValueError as error:
        notes = video.notes(pixels.path, pixels.name)
        return VideoCamera.of_frames(str(error), len(pixels.ranks), size, decode, pixels.swapped, notes)
