"""Video topics of R1 Lite recordings: Annex B packets made by PyAV's encoders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import r1lite_files as r1


def video(frames: int, codec: str, size: tuple[int, int] = (48, 64), gop: int = 8, b_frames: int = 0) -> list[bytes]:
    """Annex B packets of a video whose pictures get brighter, one per frame."""
    encoder = av.CodecContext.create({"h264": "libx264", "h265": "libx265"}[codec], "w")
    encoder.height, encoder.width, encoder.pix_fmt = *size, "yuv420p"
    encoder.framerate, encoder.gop_size, encoder.thread_count = 15, gop, 1
    encoder.time_base = Fraction(1, 15)
    tuning = {"preset": "ultrafast", "tune": "zerolatency"}
    quiet = {"x265-params": "log-level=none:pools=1:frame-threads=1:bframes=0:keyint=8:repeat-headers=1"}
    encoder.options = tuning | ({} if codec == "h264" else quiet)
    if b_frames:
        quiet = {"x265-params": "log-level=none:pools=1:frame-threads=1:bframes=2:b-adapt=0:keyint=8:repeat-headers=1"}
        encoder.options = {"preset": "medium"} | ({"b-adapt": "0", "mbtree": "0"} if codec == "h264" else quiet)
        encoder.max_b_frames = b_frames
    packets = []
    for i in range(frames):
        frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 40 + 3 * i, np.uint8), format="rgb24")
        frame.pts = i
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    assert len(packets) == frames
    return [bytes(p) for p in packets]


def reordered_video(frames: int, codec: str, b_frames: int) -> tuple[list[bytes], list[int]]:
    """(packets in written order, their numbers in display order)."""
    packets = video(frames, codec, b_frames=b_frames)
    decoder, shown = av.CodecContext.create({"h264": "h264", "h265": "hevc"}[codec], "r"), list[int]()
    for number, data in enumerate(packets):
        packet = av.Packet(data)
        packet.pts = number
        shown += [frame.pts for frame in decoder.decode(packet)]
    return packets, shown + [frame.pts for frame in decoder.decode(None)]


def as_video(
    messages: Sequence[r1.Sent], topic: str, packets: Sequence[bytes], kind: str = "CompressedVideo", text: str = "h264"
) -> list[r1.Sent]:
    """The messages with those of a topic replaced by packets."""
    return r1.edit(messages, topic, lambda i, s: replace(s, kind=kind, value=r1.compressed(packets[i], text)))


def with_parameter_sets_once(packets: Sequence[bytes], codec: str) -> list[bytes]:
    """The packets, parameter sets only in the first one."""
    kinds = {"h264": (7, 8), "h265": (32, 33, 34)}[codec]

    def stripped(data: bytes) -> bytes:
        units = [unit for unit in re.split(rb"\x00*\x00\x00\x01", data) if unit]
        kept = [u for u in units if (u[0] & 31 if codec == "h264" else (u[0] >> 1) & 63) not in kinds]
        return b"".join(b"\0\0\0\1" + unit for unit in kept)

    return [packets[0], *map(stripped, packets[1:])]
