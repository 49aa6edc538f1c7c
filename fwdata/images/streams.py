"""Which stream of a video file holds the recorded frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


def videos(container: InputContainer) -> list[VideoStream]:
    """The video streams without cover images, which players show in lists of files and containers list as videos."""
    from av.stream import Disposition

    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def recorded(container: InputContainer) -> VideoStream:
    """The first of them; the cover where there is nothing else. IndexError for a file without any video."""
    found = videos(container)
    return found[0] if found else container.streams.video[0]
