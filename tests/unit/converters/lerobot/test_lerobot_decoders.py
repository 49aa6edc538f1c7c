"""The second decoder, and three decoders' frames compared on every codec that each can read."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from fixtures import run_convert
from lerobot_files import Recipe, write_dataset
from lerobot_reading import manifest
from numpy.typing import NDArray

import fwdata
from converters.lerobot.converter import LerobotConverter
from converters.lerobot.second_decoder import decord_blocks
from converters.lerobot.video import VideoPixels
from fwdata.errors import BadEpisode, UsageError
from fwdata.manifest import Manifest

SIZE = (64, 128)
"""decord2 3.4 fails on rows that FFmpeg pads, as those of 96 pixels."""

CLIPS = {
    "h264": ("libx264", 12),
    "h264-709": ("libx264", 12),
    "av1": ("libsvtav1", 2),
    "hevc": ("libx265", 8),
}


def choose(**options: object) -> Manifest:
    base = manifest()
    return base.model_copy(update={"options": {**base.options, **options}})


def dataset(folder: Path, codec: str = "libx264") -> Path:
    """One episode whose videos are of a codec."""
    raw = write_dataset(folder, Recipe(lengths=(20,), tasks=(0,), size=SIZE))
    for number, path in enumerate(sorted(raw.rglob("*.mp4"))):
        write_clip(path, moving(20, SIZE, number), codec, gop=6, fps=15)
    return raw


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_decord_gives_the_same_store(codec: str, tmp_path: Path) -> None:
    pytest.importorskip("decord")
    raw = dataset(tmp_path / "set", codec)
    shown = []
    for decoder in ("pyav", "decord"):
        report = run_convert(
            raw, tmp_path / f"{decoder}.zarr", choose(video="pixels", decoder=decoder), workers=1, evidence=False
        )
        assert report.quarantined == []
        episode = fwdata.open(tmp_path / f"{decoder}.zarr").episodes[0]
        shown.append(np.stack([episode.frames(name) for name in manifest().cameras]))
    assert np.array_equal(*shown)


@pytest.mark.slow
def test_decord_is_refused_where_it_does_not_serve(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    raw = dataset(tmp_path / "set", "libx265")
    report = run_convert(raw, tmp_path / "s.zarr", choose(video="pixels", decoder="decord"), workers=1, evidence=False)
    [(_, reason)] = report.quarantined
    assert "is hevc; decoder=decord reads h264 and av1 only" in reason
    with pytest.raises(UsageError, match="decoder=decord decodes frames: add --video pixels"):
        LerobotConverter(choose(decoder="decord"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "form", "why"),
    [
        ("bframes=2", "mpegts", "is neither MP4 nor MKV"),
        ("open-gop=1:bframes=3:b-adapt=0:scenecut=0:keyint=6", "mp4", "has open groups"),
        ("intra-refresh=1:bframes=0:keyint=6", "mp4", "marks keyframes that decoding cannot begin at"),
    ],
)
def test_decord_is_refused_where_it_would_show_other_frames(params: str, form: str, why: str, tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = tmp_path / f"clip.{'ts' if form == 'mpegts' else form}"
    write_clip(path, moving(20, SIZE), gop=6, fps=15, form=form, options={"x264-params": params})
    with pytest.raises(BadEpisode, match=f"{why}, of which decoder=decord shows other frames; use decoder=pyav"):
        list(decord_blocks(VideoPixels(path, path.name, np.arange(9, 20))))


@pytest.mark.slow
def test_decord_is_refused_where_it_would_turn_the_image(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    write_clip(tmp_path / "clip.mp4", moving(20, SIZE), gop=6, fps=15)
    data = bytearray((tmp_path / "clip.mp4").read_bytes())
    start = data.index(b"tkhd") + 44  # the matrix of ISO 14496-12 8.3.2, behind its time, number, length and layer
    data[start : start + 4] = (-(1 << 16)).to_bytes(4, signed=True)
    (tmp_path / "clip.mp4").write_bytes(data)
    with pytest.raises(BadEpisode, match="asks to be shown otherwise than it is coded"):
        list(decord_blocks(VideoPixels(tmp_path / "clip.mp4", "clip.mp4", np.arange(20))))


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(
        UsageError, match=r"decoder=decord needs decord, which is not installed; run: .*pip install .*\[decord\]'"
    ):
        run_convert(
            dataset(tmp_path / "set"), tmp_path / "s.zarr", choose(video="pixels", decoder="decord"), evidence=False
        )


def by_decord(path: Path) -> NDArray[np.uint8]:
    decord = pytest.importorskip("decord")
    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    return np.asarray(reader.get_batch(list(range(len(reader)))).asnumpy(), np.uint8)


def by_torchcodec(path: Path) -> NDArray[np.uint8]:
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:  # its FFmpeg libraries are not installed
        pytest.skip(f"torchcodec does not load: {str(error).splitlines()[0]}")
    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    return np.asarray(decoder[:].numpy(), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(CLIPS))
@pytest.mark.parametrize("reader", [by_decord, by_torchcodec], ids=["decord", "torchcodec"])
def test_other_decoders_show_the_same_frames(kind: str, reader: object, tmp_path: Path) -> None:
    if kind == "hevc" and reader is by_decord:
        pytest.skip("decord2 3.4 stops on valid HEVC files")
    codec, gop = CLIPS[kind]
    path = tmp_path / "c.mp4"
    write_clip(path, moving(24, SIZE), codec, gop=gop, matrix=1 if kind.endswith("709") else 2)
    assert callable(reader) and np.array_equal(reader(path), ffmpeg_rgb(path))
