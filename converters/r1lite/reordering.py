"""Video topics with B-frames: which message's frame is displayed at which place.

An encoder with B-frames writes a frame before those that are displayed ahead of it. Where stamps grow from message to
message, the n-th stamp is that of the n-th frame in display order; where they are those of the frames themselves, they
come in display order once they are sorted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.r1lite.bags import Bags
from fwdata.errors import BadEpisode


def display_order(bags: Bags, camera: str, topic: str, kind: str, first: int) -> tuple[int, ...] | None:
    """Messages from number `first` on in the order in which their frames are displayed; None where that is their own.

    kind: codec of the topic. BadEpisode where the video cannot be decoded, or some messages of a reordered one give no
    frame. Cost: one decoded frame; of a video with B-frames, all of them (0.5 to 1.6 ms each at 640x480).
    """
    import av
    from av.video.codeccontext import VideoCodecContext

    decoder = av.CodecContext.create(kind, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    order: list[int] = []
    fed = 0
    try:
        for number, message in enumerate(bags.messages({topic})):
            if number < first:
                continue
            packet = av.Packet(bytes(message.value.data))
            packet.pts = number
            fed += 1
            order += [frame.pts for frame in decoder.decode(packet) if frame.pts is not None]
            if order and not decoder.has_b_frames:
                return None
        order += [frame.pts for frame in decoder.decode(None) if frame.pts is not None]
    except av.FFmpegError as error:
        raise BadEpisode(f"{camera}: the {kind} video cannot be decoded: {error.strerror}") from None
    if order == sorted(order):
        return None
    if len(order) != fed:
        raise BadEpisode(
            f"{camera}: the {kind} video has B-frames and {fed - len(order)} of its {fed} messages give no frame, so "
            "that its images cannot be brought into display order"
        )
    return tuple(order)


def frames_of_stamps(topic: str, index: NDArray[np.int64], order: tuple[int, ...], first: int) -> NDArray[np.int64]:
    """int64 [messages]: for each message the one whose frame belongs to its stamp.

    index: messages in the order of their stamps. order: of `display_order`, from message `first` on. BadEpisode where
    stamps fit neither rule.
    """
    own = np.arange(len(index))
    if (index == own).all():
        own[first:] = order
        return own
    if first == 0 and index.tolist() == list(order):
        return own
    raise BadEpisode(
        f"{topic} holds video with B-frames whose stamps are out of order: they are neither those of the "
        "messages nor those of the displayed frames"
    )
