"""R1 Lite video topics kept as recorded: the messages' bytes, and the frames that decoding them gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import r1lite_files as r1
import r1lite_reading as rd
from clips import ffmpeg_rgb
from fixtures import run_convert
from r1lite_video import as_video, video, with_parameter_sets_once

import fwdata
from fwdata.api import VideoCamera
from fwdata.export.remux import plan_videos, write_video

ALL = {"head_rgb": r1.HEAD, "left_wrist_rgb": r1.WRISTS["left"], "right_wrist_rgb": r1.WRISTS["right"]}


def recorded(folder: Path, codec: str, lost: int | None = None) -> Path:
    """A recording whose three cameras are video; of the left wrist one message may be lost."""
    messages = r1.recording()
    for topic in ALL.values():
        messages = as_video(messages, topic, video(36, codec), text=codec)
    if lost is not None:
        messages = r1.edit(messages, r1.WRISTS["left"], lambda i, s: None if i == lost else s)
    rd.write_sent(folder, messages)
    return folder


@pytest.mark.parametrize(("codec", "lost"), [("h264", None), ("h265", None), ("h264", 10), ("h265", 10)])
def test_kept_and_decoded_topics_show_the_same_images(tmp_path: Path, codec: str, lost: int | None) -> None:
    raw = recorded(tmp_path / "raw", codec, lost)
    kept, plain = (
        run_convert(
            raw, tmp_path / f"{how}.zarr", rd.manifest().model_copy(update={"options": {"video": how, "task": "t"}})
        )
        for how in ("keep", "pixels")
    )
    assert kept.quarantined == plain.quarantined == []
    one, two = (fwdata.open(tmp_path / f"{how}.zarr") for how in ("keep", "pixels"))
    assert (one.layout_version, two.layout_version) == (2, 3)
    for name in one.cameras:
        assert np.array_equal(one.episodes[0].frames(name), two.episodes[0].frames(name))


def test_groups_without_rows_and_messages_behind_a_hole_are_left_out(tmp_path: Path) -> None:
    raw = recorded(tmp_path / "raw", "h264", lost=10)
    camera = rd.read_one(raw, task="t").cameras["left_wrist_rgb"]
    assert isinstance(camera, VideoCamera)
    sent = video(36, "h264")
    assert [packet.data for packet in camera.packets()] == [*sent[:10], *sent[16:]]
    assert [n for n, packet in enumerate(camera.packets()) if packet.is_entry] == [0, 8, 10, 18, 26]


@pytest.mark.parametrize("how", ["keep", "pixels"])
def test_a_message_that_gives_no_image_is_named(tmp_path: Path, how: str) -> None:
    """HEVC goes on from it with other pixels and no error, also where the message itself belongs to no row."""
    packets, messages = list(video(36, "h265")), r1.recording()
    for topic in ALL.values():
        messages = as_video(messages, topic, packets, text="h265")
    rd.write_sent(tmp_path / "raw/good", messages)
    packets[12] = packets[12][: len(packets[12]) // 3]
    rd.write_sent(tmp_path / "raw/bad", as_video(r1.recording(), r1.HEAD, packets, text="h265"))
    options = {"video": how, "task": "t"}
    report = run_convert(tmp_path / "raw", tmp_path / "s.zarr", rd.manifest().model_copy(update={"options": options}))
    [(name, reason)] = report.quarantined
    assert name.startswith("bad/") and "message 12 of the video gives no image: it is damaged" in reason


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("once", [False, True])
def test_any_frame_is_read_and_exported_wherever_parameter_sets_are_sent(
    tmp_path: Path, codec: str, once: bool
) -> None:
    """Encoders send them with every keyframe, or with the first one alone."""
    packets, messages = video(36, codec), r1.recording()
    for topic in ALL.values():
        messages = as_video(messages, topic, with_parameter_sets_once(packets, codec) if once else packets, text=codec)
    rd.write_sent(tmp_path / "raw", messages)
    report = run_convert(
        tmp_path / "raw", tmp_path / "s.zarr", rd.manifest().model_copy(update={"options": {"task": "t"}})
    )
    assert report.quarantined == [] and not any("cannot be kept" in text for text in report.warnings)
    store = fwdata.open(tmp_path / "s.zarr")
    late = store.episodes[0].frames("head_rgb", [30])[0]
    shown = store.episodes[0].frames("head_rgb")
    assert np.array_equal(late, shown[30]) and abs(int(late.mean()) - (40 + 3 * 30)) < 4
    found = plan_videos(store.episodes, "head_rgb")
    assert found is not None
    write_video(tmp_path / "v.mp4", found.files[0], "head_rgb", 15, lambda rows: None)
    first = found.places[0].first
    assert np.array_equal(ffmpeg_rgb(tmp_path / "v.mp4")[first : first + len(shown)], shown)
