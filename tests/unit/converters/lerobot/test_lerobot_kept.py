"""LeRobot videos kept as recorded: the same images as decoded ones, at the size of the source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from fixtures import run_convert, tree
from lerobot_files import V3_VIDEO, Recipe, frames, write_dataset
from lerobot_reading import manifest
from raw_metadata import read_attributes, write_attributes

import fwdata
from fwdata.manifest import Manifest
from fwdata.report.inspect_store import folder_bytes
from fwdata.store.reader import Store

LENGTHS = (9, 1, 14)


def choose(**options: object) -> Manifest:
    """The R1 Lite manifest with further options."""
    base = manifest()
    return base.model_copy(update={"options": {**base.options, **options}})


def converted(raw: Path, out: Path, **options: object) -> Store:
    report = run_convert(raw, out, choose(**options))
    assert report.quarantined == []
    return fwdata.open(out)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("colour", ["recorded", "swapped"])
def test_kept_and_decoded_videos_show_the_same_images(tmp_path: Path, version: str, colour: str) -> None:
    recipe = Recipe(version=version, lengths=LENGTHS, tasks=(0, 1, 1))
    raw = write_dataset(tmp_path / "set", recipe)
    kept = converted(raw, tmp_path / "kept.zarr", colour=colour)
    plain = converted(raw, tmp_path / "plain.zarr", colour=colour, video="pixels")
    assert (kept.layout_version, plain.layout_version) == (2, 3)
    for number, (one, two) in enumerate(zip(kept.episodes, plain.episodes, strict=True)):
        for camera, key in zip(kept.cameras, recipe.cameras, strict=True):
            shots = frames(recipe, key, number)
            shots = shots[..., ::-1] if colour == "swapped" else shots
            assert np.array_equal(one.frames(camera), shots)
            assert np.array_equal(two.frames(camera, [0]), shots[:1])


def shared_video(raw: Path, recipe: Recipe, codec: str, gop: int, options: dict[str, str] | None = None) -> None:
    """Another codec in the place of the lossless videos of a v3.0 dataset."""
    for number, key in enumerate(recipe.cameras):
        path = raw / V3_VIDEO.format(video_key=key, chunk_index=0, file_index=0)
        write_clip(
            path, moving(sum(recipe.lengths), recipe.size, number), codec, gop=gop, fps=recipe.fps, options=options
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "gop", "hidden"),
    [("libsvtav1", 2, False), ("libx264", 6, False), ("libx265", 8, False), ("libx265", 8, True)],
)
@pytest.mark.parametrize("how", ["keep", "pixels"])
def test_episodes_of_a_shared_file_begin_inside_groups(
    tmp_path: Path, codec: str, gop: int, hidden: bool, how: str
) -> None:
    recipe = Recipe(version="v3.0", lengths=LENGTHS, tasks=(0, 1, 1), size=(64, 96))
    raw = write_dataset(tmp_path / "set", recipe)
    shared_video(raw, recipe, codec, gop)
    if hidden:  # the container marks every packet as a keyframe: decoding must not start at them
        for path in raw.rglob("*.mp4"):
            path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    store = converted(raw, tmp_path / "s.zarr", video=how)
    for camera, key in zip(store.cameras, recipe.cameras, strict=True):
        shown = ffmpeg_rgb(raw / V3_VIDEO.format(video_key=key, chunk_index=0, file_index=0))
        for start, episode in zip((0, 9, 10), store.episodes, strict=True):
            assert np.array_equal(episode.frames(camera), shown[start : start + episode.num_frames])


def test_a_kept_store_is_about_as_large_as_its_videos(tmp_path: Path) -> None:
    recipe = Recipe(lengths=(120,), tasks=(0,), size=(64, 96))
    raw = write_dataset(tmp_path / "set", recipe)
    store = converted(raw, tmp_path / "kept.zarr")
    videos = sum(path.stat().st_size for path in raw.rglob("*.mp4"))
    data = sum(folder_bytes(path) for path in (tmp_path / "kept.zarr").glob("parts/*/cameras"))
    assert data < 1.05 * videos
    assert store.episodes[0].frames(store.cameras[0], [100]).any()


def test_a_conversion_begun_before_video_was_kept_goes_on_with_pixels(tmp_path: Path) -> None:
    raw = write_dataset(tmp_path / "set", Recipe(lengths=LENGTHS, tasks=(0, 1, 1)))
    before = choose(video="pixels")
    run_convert(raw, tmp_path / "s.zarr", before)
    whole = tree(tmp_path / "s.zarr")
    for path in (tmp_path / "s.zarr/parts").glob("p*"):
        (path / "zarr.json").unlink()  # as a kill leaves it
    root = read_attributes(tmp_path / "s.zarr")
    write_attributes(tmp_path / "s.zarr", {**root, "manifest": choose().model_dump(mode="json")})
    run_convert(raw, tmp_path / "s.zarr", choose())
    cameras = {name: digest for name, digest in whole.items() if "/cameras/" in name and "/frames/" in name}
    assert cameras and cameras.items() <= tree(tmp_path / "s.zarr").items()
    assert fwdata.open(tmp_path / "s.zarr").layout_version == 3


def test_a_codec_that_is_not_kept_is_stored_losslessly(tmp_path: Path) -> None:
    recipe = Recipe(lengths=(6,), tasks=(0,), size=(64, 96))
    raw = write_dataset(tmp_path / "set", recipe)
    shown = {}
    for path in raw.rglob("*.mp4"):
        write_clip(path, moving(6, (64, 96)), "mjpeg", fps=15, pix_fmt="yuvj420p", color_range=2)
        shown[path.parent.name] = ffmpeg_rgb(path)
    report = run_convert(raw, tmp_path / "s.zarr", choose())
    assert report.quarantined == []
    assert sum("codec 'mjpeg' is not kept" in text for text in report.warnings) == len(recipe.cameras)
    store = fwdata.open(tmp_path / "s.zarr")
    for camera, key in zip(store.cameras, recipe.cameras, strict=True):
        assert np.array_equal(store.episodes[0].frames(camera), shown[key])


def test_a_damaged_video_loses_its_episode_alone(tmp_path: Path) -> None:
    recipe = Recipe(lengths=(8, 8), size=(64, 96))
    raw = write_dataset(tmp_path / "set", recipe)
    bad = sorted(raw.rglob("episode_000001.mp4"))[0]
    data = bad.read_bytes()
    start = data.index(b"mdat") + 300
    bad.write_bytes(data[:start] + bytes(1000) + data[start + 1000 :])
    report = run_convert(raw, tmp_path / "s.zarr", choose())
    [(source, reason)] = report.quarantined
    assert "episode_000001" in reason and "\n" not in reason and report.episodes == 1, (source, reason)
    bad.write_bytes(data[: len(data) // 2])  # the index at its end is lost
    [(source, reason)] = run_convert(raw, tmp_path / "t.zarr", choose()).quarantined
    assert "it ends before its index (moov)" in reason


@pytest.mark.parametrize(("how", "lost"), [("keep", 0), ("keep", 3), ("pixels", 3)])
def test_episodes_that_are_decoded_from_a_lost_frame_are_left_out(tmp_path: Path, how: str, lost: int) -> None:
    """HEVC goes on from a frame that it cannot decode, with other pixels and no error, up to the next keyframe."""
    recipe = Recipe(version="v3.0", lengths=(9, 8, 7), tasks=(0, 1, 1), size=(64, 96))
    raw = write_dataset(tmp_path / "set", recipe)
    shared_video(raw, recipe, "libx265", 17)
    path = raw / V3_VIDEO.format(video_key=recipe.cameras[0], chunk_index=0, file_index=0)
    shown, data = ffmpeg_rgb(path), bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [n for n, packet in enumerate(packets) if packet.is_keyframe] == [0, 17]
    place, size = packets[lost].pos, packets[lost].size
    data[place + 6 : place + size] = bytes(size - 6)
    path.write_bytes(data)
    report = run_convert(raw, tmp_path / "s.zarr", choose(video=how))
    [left] = fwdata.open(tmp_path / "s.zarr").episodes
    assert np.array_equal(left.frames("head_rgb"), shown[17:])
    reasons = [reason for _, reason in report.quarantined]
    assert len(reasons) == 2 and all("the video is damaged there or short" in reason for reason in reasons), reasons


@pytest.mark.slow
def test_a_conversion_does_not_load_pandas(tmp_path: Path) -> None:
    """Its import takes seconds; pyarrow does it behind `to_numpy` and `pa.array`."""
    raw = write_dataset(tmp_path / "set", Recipe(lengths=(3,), tasks=(0,)))
    read = (
        "import sys; from pathlib import Path; from fwdata.manifest import load_manifest\n"
        "from converters.lerobot import Converter\n"
        f"c, root = Converter(load_manifest('lerobot-r1lite')), Path({str(raw)!r})\n"
        "for ref in c.discover(root).episodes: c.read(root, ref)\n"
        "print([name for name in ('pandas', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", read], check=True, capture_output=True, text=True).stdout == "[]\n"
