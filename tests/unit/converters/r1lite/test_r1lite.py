"""R1 Lite recordings: golden values, every container, alignment as a user sees it, options."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import r1lite_files as r1
import r1lite_reading as rd
from fixtures import (
    run_convert,
)
from paths import DATA

from converters.r1lite import Converter, series
from fwdata.api import EncodedCamera, EncodedFrame, UsageError
from fwdata.cli import app
from fwdata.console import run_app
from fwdata.encode.prompts import store_prompts
from fwdata.evidence import thumbnails
from fwdata.evidence.thumbnails import Collector, of_camera
from fwdata.images.jpeg import decode_rgb
from fwdata.images.small import small_grey
from fwdata.manifest import Manifest, load_manifest
from fwdata.report.inspect_store import describe
from fwdata.store.reader import open_store
from fwdata.store.writer import check_jpeg

DATA = DATA / "r1lite"
EXPECTED = json.loads((DATA / "expected.json").read_text())[r1.NAME]
CAMERA_KEYS = {"head_rgb": "head_left", "left_wrist_rgb": "left_wrist", "right_wrist_rgb": "right_wrist"}


@pytest.fixture(scope="module")
def golden():
    return rd.read_one(DATA)


def test_golden_rows(golden):
    stamps = np.array(EXPECTED["head_stamps_ns"])
    assert len(golden.state) == EXPECTED["n_head_frames"] == 44
    assert np.array_equal(golden.timestamp_ns, stamps - stamps[0])
    assert golden.metadata["start_ns"] == EXPECTED["start_ns_first_head_frame"]
    for row in EXPECTED["rows"].values():
        for found, wanted in ((golden.state, row["state"]), (golden.action, row["action"])):
            np.testing.assert_array_equal(found[row["frame"]], np.float32(wanted))
    np.testing.assert_allclose(golden.state.sum(0, dtype=np.float64), EXPECTED["state_sum_over_frames"], atol=1e-4)
    np.testing.assert_allclose(golden.action.sum(0, dtype=np.float64), EXPECTED["action_sum_over_frames"], atol=1e-4)
    assert golden.valid.all()


def test_golden_pictures(golden):
    """The strip in each picture tells which message it is; wrists are the nearest ones."""
    for name, key in CAMERA_KEYS.items():
        camera = golden.cameras[name]
        assert [camera.height, camera.width] == EXPECTED["image_hw"][key]
        cell = EXPECTED["marker_px"][key]
        shown = []
        for data in rd.buffers(golden, name):
            line = decode_rgb(data)[cell // 2, cell // 2 :: cell][:12].mean(1) > 127
            assert line[:2].tolist() == [True, False]
            shown.append(int("".join(map(str, line[2:].astype(int))), 2))
        assert shown == EXPECTED["nearest_wrist_index"].get(key, list(range(44)))
        if key != "head_left":
            skew = golden.metadata["camera_skew_ms"][name]["max"]
            assert skew == pytest.approx(EXPECTED["nearest_abs_dt_s_max"][key] * 1e3, abs=1e-6)


def test_golden_report(golden):
    about = golden.stored_metadata()
    assert [gap["after_frame"] for gap in about["gaps"]] == [16]
    assert about["gaps"][0]["missing_frames"] == EXPECTED["head_gaps"][0]["missing_frames"]
    assert about["gaps"][0]["seconds"] == pytest.approx(EXPECTED["head_gaps"][0]["dt_s"], abs=1e-6)
    assert about["fps_measured"] == EXPECTED["fps_median_rule"]
    counts = {topic: entry["messages"] for topic, entry in about["topics"].items()}
    assert len(counts) == 11
    assert counts == {topic: EXPECTED["message_counts"][topic] for topic in counts}
    wanted = EXPECTED["language"]
    assert [{k: segment[k] for k in wanted["segments"][0]} for segment in about["segments"]] == wanted["segments"]
    assert golden.task == wanted["coarse_task"]
    assert golden.instructions == (wanted["episode_instruction"],)
    assert about["gripper_range"] == [0, 100]
    assert rd.warned(golden, "1 head frame missing")


def test_golden_discovery():
    found = rd.converter().discover(DATA)
    (ref,) = found.episodes
    assert ref.id == r1.NAME
    assert ref.files == (f"{r1.NAME}/{r1.NAME}.mcap", "raw_data_meta.json", f"{r1.NAME}.json")
    (absent,) = found.skipped
    assert absent.source == "RB250101001_20250805213947902_RAW.mcap" and "not there" in absent.reason


def test_manifest_and_names(golden):
    manifest = rd.manifest()
    assert manifest.stitch.layout == "robotwin" and manifest.stitch.size == (384, 320)
    assert (manifest.fps.hz, manifest.window.num_frames, manifest.normalisation.mode) == (15, 33, "zscore")
    names = [f"{s}_{n}" for s in ("left", "right") for n in (*(f"joint_{i}" for i in range(1, 7)), "gripper")]
    assert list(golden.state_names) == list(golden.action_names) == names
    assert list(golden.cameras) == list(manifest.cameras) == list(CAMERA_KEYS)


@pytest.mark.slow
def test_converts_from_the_command_line(tmp_path, monkeypatch, capsys, quick_writes):
    out = tmp_path / "a.zarr"
    monkeypatch.setattr("sys.argv", ["fwdata", "convert", "r1lite", str(DATA), "--out", str(out), "--json"])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    printed = json.loads(capsys.readouterr().out)
    assert ended.value.code == 3  # the dataset json lists a recording that is not there
    assert printed["new_frames"] == 44 and "not there" in printed["quarantined"][0]["reason"]
    (episode,) = open_store(out).episodes
    assert episode.stitched([0]).shape == (1, 384, 320, 3)
    assert episode.metadata["segments"][1]["first_frame"] == 20
    assert np.array_equal(episode.timestamp_ns(), np.array(EXPECTED["head_stamps_ns"]) - EXPECTED["head_stamps_ns"][0])


CONTAINERS = {
    "zstd": lambda root, sent: r1.McapWriter("zstd").write(root / "x.mcap", sent),
    "small chunks": lambda root, sent: r1.McapWriter("zstd", 6_000).write(root / "x.mcap", sent),
    "lz4": lambda root, sent: r1.McapWriter("lz4").write(root / "x.mcap", sent),
    "uncompressed": lambda root, sent: r1.McapWriter("").write(root / "x.mcap", sent),
    "unchunked": lambda root, sent: r1.McapWriter(chunk_bytes=None).write(root / "x.mcap", sent),
    "no index": lambda root, sent: r1.McapWriter("zstd", index=False).write(root / "x.mcap", sent),
    "no index, unchunked": lambda root, sent: r1.McapWriter(chunk_bytes=None, index=False).write(root / "x.mcap", sent),
    "no checksums": lambda root, sent: r1.McapWriter("lz4", crc=False).write(root / "x.mcap", sent),
    "folder": lambda root, sent: r1.McapWriter().write(root / "x" / "x_0.mcap", sent),
    "db3": lambda root, sent: r1.write_db3(root / "x", sent),
    "db3, compressed messages": lambda root, sent: r1.write_db3(root / "x", sent, "message"),
    "bag": lambda root, sent: r1.write_bag(root / "x.bag", sent),
    "bag, bz2": lambda root, sent: r1.write_bag(root / "x.bag", sent, "bz2"),
    "bag, lz4": lambda root, sent: r1.write_bag(root / "x.bag", sent, "lz4"),
}


@pytest.fixture(scope="module")
def sent():
    return r1.recording()


@pytest.fixture(scope="module")
def reference(sent, tmp_path_factory):
    root = tmp_path_factory.mktemp("reference")
    r1.McapWriter().write(root / "x.mcap", sent)
    return rd.read_one(root, task="sort")


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_give_identical_episodes(tmp_path, sent, reference, container):
    """Failure 28 too: ROS 1 and ROS 2 give the same rows and the same pictures."""
    CONTAINERS[container](tmp_path, sent)
    episode = rd.read_one(tmp_path, task="sort")
    assert np.array_equal(episode.state, reference.state)
    assert np.array_equal(episode.action, reference.action)
    assert np.array_equal(episode.timestamp_ns, reference.timestamp_ns)
    for name in reference.cameras:
        assert rd.buffers(episode, name) == rd.buffers(reference, name)
    same = {"topics", "camera_skew_ms", "gaps", "segments"}
    assert {k: episode.stored_metadata()[k] for k in same} == {k: reference.stored_metadata()[k] for k in same}


def test_values_are_those_of_the_motion(reference):
    """Interpolated rows lie on the smooth motion that was recorded, pictures are the recorded buffers."""
    for row in (0, 17, 35):
        stamp = reference.metadata["start_ns"] + int(reference.timestamp_ns[row])
        for column, side in ((0, "left"), (7, "right")):
            np.testing.assert_allclose(reference.state[row, column : column + 6], r1.arm_pose(stamp, side), atol=1e-4)
            np.testing.assert_allclose(
                reference.action[row, column : column + 6], r1.arm_pose(stamp, side, -0.05), atol=2e-4
            )
            assert reference.state[row, column + 6] == pytest.approx(r1.grip(stamp, side), abs=0.05)
    assert rd.buffers(reference, "head_rgb") == [r1.jpeg(i, 0) for i in range(36)]
    for data in rd.buffers(reference, "left_wrist_rgb"):
        check_jpeg(EncodedFrame(data), 36, 64)


def test_cameras_stream_again_and_can_be_sent_to_a_worker(reference):
    camera = reference.cameras["left_wrist_rgb"]
    assert isinstance(camera, EncodedCamera)
    again = pickle.loads(pickle.dumps(camera))  # noqa: S301 - our own object
    assert [f.data for f in again.frames()] == [f.data for f in camera.frames()] == [f.data for f in camera.frames()]


def test_the_small_images_that_checking_makes_are_those_that_detectors_would_make(reference, monkeypatch):
    frames = list(reference.cameras["head_rgb"].frames())
    assert len(frames) == 36
    for frame in frames:
        np.testing.assert_array_equal(frame.small, small_grey(frame.data))
    taken = Collector()
    with monkeypatch.context() as patch:
        patch.setattr(thumbnails, "small_grey", None)  # nothing is decoded again
        for frame in frames:
            check_jpeg(frame, 36, 64, taken)
        np.testing.assert_array_equal(of_camera(reference.cameras["head_rgb"], 36), taken.take())
    light = Collector(light=True, every=2)
    check_jpeg(frames[0], 36, 64, light)
    assert light.count == 0  # as before: detectors of checked buffers see the shown recordings alone


def test_small_images_of_a_long_recording_are_kept_of_its_beginning(tmp_path, sent, monkeypatch):
    monkeypatch.setattr(series, "SMALL_BYTES", 1)
    episode = rd.read_sent(tmp_path, sent)
    frames = list(episode.cameras["head_rgb"].frames())
    assert [frame.small is None for frame in frames] == [False] + [True] * 35
    np.testing.assert_array_equal(
        of_camera(episode.cameras["head_rgb"], 36), [small_grey(frame.data) for frame in frames]
    )


@pytest.mark.parametrize("kind", ["mcap", "bag"])
def test_split_files_are_one_recording(tmp_path, sent, reference, kind):
    cut = [0, len(sent) // 3, 2 * len(sent) // 3, len(sent)]
    for part in range(3):
        piece = sent[cut[part] : cut[part + 1]]
        if kind == "mcap":
            r1.McapWriter().write(tmp_path / "x" / f"x_{part}.mcap", piece)
        else:
            r1.write_bag(tmp_path / f"x_{part}.bag", piece)
    (ref,) = rd.converter().discover(tmp_path).episodes
    assert ref.id == "x" and len(ref.files) == 3
    episode = rd.read_one(tmp_path, task="sort")
    assert np.array_equal(episode.state, reference.state) and np.array_equal(episode.action, reference.action)
    assert rd.buffers(episode, "head_rgb") == rd.buffers(reference, "head_rgb")
    assert len(rd.converter(split_files="separate").discover(tmp_path).episodes) == 3


def test_split_files_that_the_dataset_lists_one_by_one_stay_apart(tmp_path, sent):
    for part in range(2):
        r1.McapWriter().write(tmp_path / f"take_{part}.mcap", sent)
    r1.write_meta(tmp_path, [{"name": f"take_{part}.mcap"} for part in range(2)])
    assert [ref.id for ref in rd.converter().discover(tmp_path).episodes] == ["take_0", "take_1"]


def test_a_single_file_is_converted_with_what_lies_beside_it(tmp_path, sent):
    path = r1.write_recording(tmp_path, sent, [r1.annotation("左@Lift.", 0, 9)])
    for root in (path, path.parent, tmp_path):
        assert rd.read_one(root).instructions == ("Lift.", "sort colored blocks")


def test_mixed_bag_and_mcap_are_decided_per_file(tmp_path, sent):
    r1.McapWriter().write(tmp_path / "a.mcap", sent)
    r1.write_bag(tmp_path / "b.bag", sent)
    first, second = rd.read_all(tmp_path, task="sort")
    assert np.array_equal(first.state, second.state)


def test_action_sets(tmp_path):
    sent = r1.recording(torso=True)
    r1.McapWriter().write(tmp_path / "x.mcap", sent)
    episode = rd.read_one(tmp_path, task="sort", action_set="arms+torso+chassis")
    assert episode.state.shape[1] == 14 + 3 + 6 and episode.action.shape[1] == 14 + 4 + 3
    assert episode.state_names[14:17] == ("torso_joint_1", "torso_joint_2", "torso_joint_3")
    assert episode.action_names[14:18] == (
        "torso_linear_x",
        "torso_linear_z",
        "torso_angular_y",
        "torso_angular_z",
    )
    assert episode.action_names[18:] == ("chassis_linear_x", "chassis_linear_y", "chassis_angular_z")
    t = (episode.timestamp_ns + episode.metadata["start_ns"] - r1.START) / 1e9
    np.testing.assert_allclose(episode.state[:, 14:17], np.outer(t, [1, 2, 3]), atol=1e-5)
    np.testing.assert_allclose(episode.state[:, 17:20], np.outer(t, [4, 4, 4]), atol=1e-5)
    np.testing.assert_allclose(episode.state[:, 20:23], t[:, None] + [0, 1, 2], atol=1e-5)
    np.testing.assert_allclose(episode.action[:, 18:], np.stack([t, 0 * t + 0.5, -t], 1), atol=1e-5)
    command = np.where(t < 0.6, 0.1, 0.6)  # two messages: held, the first one also before it
    np.testing.assert_allclose(episode.action[:, 14:18], np.outer(command, [1, -1, 2, 3]), atol=1e-6)
    fewer = rd.read_one(tmp_path, task="sort", action_set="arms+torso")
    assert fewer.state.shape[1] == 17 and fewer.action.shape[1] == 18


def test_action_set_needs_its_topics(tmp_path, sent):
    r1.McapWriter().write(tmp_path / "x.mcap", sent)
    found = rd.reason(tmp_path, task="sort", action_set="arms+torso")
    assert "2 needed topics are absent or empty" in found
    assert "/hdas/feedback_torso" in found and "/motion_target/target_speed_torso" in found


@pytest.mark.parametrize(("scale", "unit", "expected"), [(1.0, False, [0, 100]), (0.01, False, [0, 1])])
def test_gripper_scale_is_decided_and_recorded(tmp_path, sent, scale, unit, expected):
    for topic in (*r1.GRIPPER.values(), *r1.GRIPPER_TARGET.values()):
        sent = r1.edit(sent, topic, lambda i, s: replace(s, value=r1.joints([s.value["position"][0] * scale])))
    r1.McapWriter().write(tmp_path / "x.mcap", sent)
    raw, mapped = rd.read_one(tmp_path, task="t"), rd.read_one(tmp_path, task="t", gripper_unit=True)
    assert raw.metadata["gripper_range"] == expected and mapped.metadata["gripper_range"] == [0, 1]
    np.testing.assert_allclose(mapped.state[:, 6], np.clip(raw.state[:, 6] / expected[1], 0, 1), atol=1e-6)
    assert mapped.state[:, 13].min() > 0.01 and mapped.action[:, 6].max() == 1.0
    assert np.array_equal(raw.state[:, :6], mapped.state[:, :6])
    assert rd.warned(raw, "scale 0 .. 1") == (expected == [0, 1])
    assert not rd.warned(mapped, "scale 0 .. 1")


def test_grippers_that_stay_closed_stay_closed(tmp_path, sent):
    """What a closed one reads, at most 1.5, would be an open one on the scale 0 .. 1."""
    for topics, value in ((r1.GRIPPER, 1.3), (r1.GRIPPER_TARGET, 0.0)):
        for topic in topics.values():
            sent = r1.edit(sent, topic, lambda i, s, value=value: replace(s, value=r1.joints([value])))
    r1.McapWriter().write(tmp_path / "x.mcap", sent)
    mapped = rd.read_one(tmp_path, task="t", gripper_unit=True)
    assert mapped.state[:, [6, 13]].max() < 0.02 and mapped.metadata["gripper_recorded_range"] == [0, 100]


def test_drop_unqualified_breaks_windows(tmp_path, sent):
    path = r1.write_recording(
        tmp_path,
        sent,
        [
            r1.annotation("举@Lift.", 0, 0.5),
            r1.annotation("举@Lift.", 0.5, 1.0, "unqualified"),
            r1.annotation("举@Lift.", 1.0, 9),
        ],
    )
    whole, kept = rd.read_one(tmp_path), rd.read_one(tmp_path, drop_unqualified=True)
    bad = whole.stored_metadata()["segments"][1]
    assert (
        whole.metadata["unqualified_frames"]
        == bad["last_frame"] - bad["first_frame"] + 1
        == len(whole.state) - len(kept.state)
    )
    assert np.flatnonzero(~kept.valid).tolist() == [bad["first_frame"]]
    assert [s["instruction"] for s in kept.stored_metadata()["segments"]] == ["Lift.", "Lift."]
    assert kept.instructions[0] == "Lift."
    rows = np.r_[0 : bad["first_frame"], bad["last_frame"] + 1 : len(whole.state)]
    assert np.array_equal(kept.state, whole.state[rows])
    assert rd.buffers(kept, "head_rgb") == [rd.buffers(whole, "head_rgb")[i] for i in rows]
    r1.write_meta(tmp_path, [{"name": path.name, "annotations": [r1.annotation("举@Lift.", 0, 9, "unqualified")]}])
    assert "leave none of 36 frames: 36 unqualified" in rd.reason(tmp_path, drop_unqualified=True)


def test_head_right_camera_can_be_chosen(tmp_path, sent):
    extra = [replace(s, topic=r1.HEAD_RIGHT) for s in sent if s.topic == r1.HEAD]
    r1.McapWriter().write(tmp_path / "x.mcap", sorted([*sent, *extra], key=lambda s: s.log))
    wanted = ("left_wrist_rgb", "head_right_rgb")  # the clock is the left head camera all the same
    made = Converter(rd.manifest().model_copy(update={"cameras": wanted, "options": {"task": "t"}}))
    episode = made.read(tmp_path, made.discover(tmp_path).episodes[0])
    assert list(episode.cameras) == list(wanted)
    assert rd.buffers(episode, "head_right_rgb") == [r1.jpeg(i, 0) for i in range(36)]


def test_wrong_options_and_cameras_are_named():
    with pytest.raises(UsageError, match="no option 'recovr'; did you mean 'recover'"):
        rd.converter(recovr=True)
    with pytest.raises(UsageError, match=r"options of manifest 'r1lite': gap: must be 'keep', 'split' or"):
        rd.converter(gap="no")
    with pytest.raises(UsageError, match="R1 Lite has no camera 'head_camera'; did you mean"):
        Converter(rd.manifest().model_copy(update={"cameras": ("head_camera",)}))


def test_another_frame_rate_needs_its_own_manifest(tmp_path):
    r1.McapWriter().write(tmp_path / "x.mcap", r1.recording(frames=40, hz=30))
    found = rd.reason(tmp_path, task="t")
    assert "runs at 30.1 frames/s, manifest 'r1lite' says 15" in found
    assert len(rd.read_one(tmp_path, task="t", check_rate=False).state) == 40
    data = load_manifest("r1lite").model_dump(mode="json")
    faster = Converter(Manifest.model_validate({**data, "fps": {"hz": 30}, "options": {"task": "t"}}))
    assert faster.read(tmp_path, faster.discover(tmp_path).episodes[0]).valid.all()


def test_inspect_tells_skew_and_dropped_frames(tmp_path: Path) -> None:
    run_convert(DATA, tmp_path / "s.zarr", load_manifest("r1lite"), workers=0)
    decided = describe(open_store(tmp_path / "s.zarr"))["decided_per_episode"]
    assert decided["gaps.length"] == {"min": 1, "median": 1, "max": 1}
    assert decided["camera_skew_ms.left_wrist_rgb.max"]["max"] == pytest.approx(58.667, abs=1e-3)
    assert decided["gripper_range"] == {"[0, 100]": 1} and decided["instruction_source"] == {"raw_data_meta.json": 1}
    assert set(decided) >= {f"invalid_frames.{reason}" for reason in ("feedback pauses", "picture damaged")}


@pytest.mark.slow
def test_windows_are_told_the_text_of_their_first_frame(tmp_path: Path) -> None:
    run_convert(DATA, tmp_path / "s.zarr", load_manifest("r1lite"), workers=0)
    store = open_store(tmp_path / "s.zarr")
    red, plate = (
        f"{what} with the left hand." for what in ("Pick up the red block", "Place the red block on the white plate")
    )
    episode = store.episodes[0]
    assert [episode.instruction_at(frame) for frame in (0, 19, 20, 43)] == [red, red, plate, plate]
    assert episode.window_instructions == (red, plate) and episode.instruction == "sort colored blocks"
    assert store_prompts(store, "canonical") == [store.manifest.render_prompt(text) for text in (red, plate)]
    coarse = load_manifest("r1lite").model_copy(update={"options": {"instruction": "coarse"}})
    run_convert(DATA, tmp_path / "c.zarr", coarse, workers=0)
    assert open_store(tmp_path / "c.zarr").episodes[0].window_instructions == ("sort colored blocks",)
