"""LeRobot sets of v3.0 whose first camera is one video of any container, and damage to it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
from clips import moving, write_clip
from lerobot_files import V3_VIDEO, Recipe, edit_info, write_dataset

FORMS = {
    "faststart": (".mp4", "mp4", {"movflags": "faststart"}),
    "fragments": (".mp4", "mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "bare fragments": (".mp4", "mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer"}),
    "mkv": (".mkv", "matroska", {}),
    "live": (".mkv", "matroska", {"live": "1"}),
    "ts": (".ts", "mpegts", {}),
    "m2ts": (".ts", "mpegts", {"mpegts_m2ts_mode": "1"}),
    "avi": (".avi", "avi", {}),
}
CODECS = {
    "h264": ("libx264", {"x264-params": "bframes=2:b-adapt=0:mbtree=0"}),
    "hevc": ("libx265", {"x265-params": "log-level=none:pools=1:frame-threads=1"}),
    "av1": ("libaom-av1", {}),
    "mpeg4": ("mpeg4", {}),
    "raw": ("rawvideo", {}),
}


def write_set(
    folder: Path,
    lengths: Sequence[int],
    form: str,
    codec: str,
    frames: int | None = None,
    gop: int = 5,
    change: Callable[[bytes], bytes] = bytes,
) -> tuple[Path, Path]:
    """A set of episodes of these lengths in one file, and that file. frames: of the file, where not as many as rows.
    change: of every packet."""
    recipe = Recipe(version="v3.0", lengths=tuple(lengths), tasks=(0,) * len(lengths), size=(64, 96))
    raw = write_dataset(folder / "set", recipe)
    suffix, container, options = FORMS[form]
    edit_info(raw, video_path=V3_VIDEO.replace(".mp4", suffix))
    whole, encoder = io.BytesIO(), CODECS[codec]
    pictures = moving(frames or sum(lengths))
    noise = np.random.default_rng(3).integers(-20, 20, pictures.shape)  # so that packets are not tiny
    pictures = np.clip(pictures + noise, 0, 255).astype(np.uint8)
    kind = {"pix_fmt": "bgr24"} if codec == "raw" else {}
    pictures[2:4] = 0 if codec == "raw" else pictures[2:4]
    write_clip(whole, pictures, encoder[0], gop=gop, fps=15, form=container, options=encoder[1], **kind)
    written = []
    for old in sorted(raw.rglob("*.mp4")):
        old.unlink()
        path = old.with_suffix(suffix)
        with (
            av.open(io.BytesIO(whole.getvalue())) as source,
            av.open(str(path), "w", format=container, options=options) as out,
        ):
            stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
            for packet in [packet for packet in source.demux(video=0) if packet.size]:
                made = av.Packet(change(bytes(packet)))
                made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
                made.time_base, made.is_keyframe, made.stream = packet.time_base, packet.is_keyframe, stream
                out.mux(made)
        written.append(path)
    return raw, written[0]


def packet_places(path: Path) -> list[tuple[int, int]]:
    """(first byte, bytes) of every packet of a video, in the file's order."""
    with av.open(str(path)) as container:
        return [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]


def overwrite(path: Path, place: int, data: bytes) -> None:
    """Put bytes in the place of others."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)
