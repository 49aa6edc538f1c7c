"""Videos kept as recorded: the packets that hold an episode's frames."""

from __future__ import annotations

from functools import partial

from converters.lerobot import video
from converters.lerobot.timelines import Timeline
from fwdata.api import VideoCamera

MOST_LEAD = 1000
"""Frames before an episode, from the last keyframe on, that are kept with it whatever its length."""

LEAD_SHARE = 20
"""The same by its length: coding its frames again takes about as many bytes as so many recorded ones for each."""


def keep(pixels: video.VideoPixels, found: Timeline) -> VideoCamera:
    """The camera of the frames that `pixels` decodes; BadEpisode when the file cannot be read.

    Cost: one pass over the file's packets, once per process and file.
    """
    size, decode = (found.height, found.width), partial(video.decode, pixels)
    try:
        if pixels.untimed:
            raise ValueError("the file tells no display times")
        camera = VideoCamera.of_packets(
            video.indexed(pixels.path, pixels.name), pixels.ranks, size, decode, pixels.swapped
        )
        lead = int(camera.rows[0]) if len(camera.rows) else 0
        if lead > max(MOST_LEAD, LEAD_SHARE * len(camera.rows)):
            raise ValueError(f"decoding begins {lead} frames before the episode, at the last keyframe")
        return camera
    except ValueError as error:
        notes = video.notes(pixels.path, pixels.name)
        return VideoCamera.of_frames(str(error), len(pixels.ranks), size, decode, pixels.swapped, notes)
