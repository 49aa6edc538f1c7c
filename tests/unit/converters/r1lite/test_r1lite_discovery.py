"""Finding R1 Lite recordings, the json files beside them, and the language of episodes."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import r1lite_files as r1
import r1lite_reading as rd

from converters.r1lite.discovery import folder_task
from converters.shared import galaxea_text as text
from fwdata.api import UsageError


@pytest.fixture(scope="module")
def sent():
    return r1.recording(frames=34)


def discover(root, **options):
    return rd.converter(**options).discover(root)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


# finding


def test_empty_folders_are_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"no \.mcap, \.db3, \.bag file below .* \(the folder holds no files\)"):
        discover(tmp_path)
    touch(tmp_path / "a.hdf5")
    with pytest.raises(UsageError, match=r"files found instead: 1 \.hdf5"):
        discover(tmp_path)
    with pytest.raises(UsageError, match=r"a\.hdf5 is not a recording: its name must end in \.mcap"):
        discover(tmp_path / "a.hdf5")
    touch(tmp_path / "b.bag.active")
    with pytest.raises(UsageError, match=r"b\.bag\.active: its recording was cut off; run `rosbag reindex"):
        discover(tmp_path)


def test_order_ids_and_sizes_do_not_depend_on_the_listing(tmp_path):
    for name in ("b/x_RAW/x_RAW.mcap", "a/x_RAW/x_RAW.mcap", "c.bag", "b/y.mcap", ".hidden/z.mcap"):
        touch(tmp_path / name)
    refs = discover(tmp_path).episodes
    assert [r.id for r in refs] == ["a/x_RAW/x_RAW@mcap", "b/x_RAW/x_RAW@mcap", "y", "c"]
    assert all(r.num_bytes == 1 for r in refs)


def test_links_out_of_the_root_are_not_followed(tmp_path):
    touch(tmp_path / "elsewhere" / "x.mcap")
    root = tmp_path / "root"
    touch(root / "y.mcap")
    (root / "z.mcap").symlink_to(tmp_path / "elsewhere" / "x.mcap")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    found = discover(root)
    assert [r.source for r in found.episodes] == ["y.mcap"]
    assert any("2 entries were not followed" in w for w in found.warnings)


def test_split_files_with_a_missing_part_are_warned_about(tmp_path):
    for number in (0, 2):
        touch(tmp_path / "x" / f"x_{number}.mcap")
    found = discover(tmp_path)
    assert found.episodes[0].files == ("x/x_0.mcap", "x/x_2.mcap")
    assert any("split files [0, 2] do not count up from 0" in w for w in found.warnings)


def test_vendor_names_end_in_a_time_not_in_a_part_number(tmp_path):
    for stamp in ("20250805213412311", "20250805213947902"):
        touch(tmp_path / f"RB250101001_{stamp}.mcap")
    assert len(discover(tmp_path).episodes) == 2


@pytest.mark.parametrize(
    "path", ["{n}/{n}.mcap", "/home/someone/data/{n}/{n}.mcap", "C:\\data\\{n}.mcap", "", "./{n}/{n}.mcap"]
)
def test_paths_of_other_machines_are_resolved_by_name(tmp_path, path):
    touch(tmp_path / r1.NAME / f"{r1.NAME}.mcap")
    r1.write_meta(tmp_path, [{"name": f"{r1.NAME}.mcap", "path": path.format(n=r1.NAME)}])
    found = discover(tmp_path)
    assert found.episodes[0].hints["entry"] == 0 and not found.skipped and not found.warnings


def test_listed_files_that_are_absent_are_named(tmp_path):
    touch(tmp_path / "a.mcap")
    touch(tmp_path / "b.mcap")
    r1.write_meta(tmp_path, [{"name": "a.mcap"}, {"name": "gone.mcap", "path": "x/gone.mcap"}])
    found = discover(tmp_path)
    assert [(s.source, "the file is not there" in s.reason) for s in found.skipped] == [("x/gone.mcap", True)]
    assert any("1 recording is in no dataset json, the first is b.mcap" in w for w in found.warnings)


def test_each_dataset_has_its_own_json(tmp_path, sent):
    for name in ("Open_Door_1", "Close_Door_2"):
        (tmp_path / name).mkdir()
        r1.McapWriter().write(tmp_path / name / "x.mcap", sent)
        r1.write_meta(tmp_path / name, [{"name": "x.mcap"}], name, "training_data_set_meta.json")
    assert {e.task for e in rd.read_all(tmp_path)} == {"open door", "close door"}
    assert [r.group for r in discover(tmp_path).episodes] == ["close door", "open door"]


@pytest.mark.parametrize(
    ("robot", "taken"), [("R1Lite", 1), ("R1_LITE", 1), ("galaxea_r1_lite", 1), ("", 1), ("R1Pro", 0), ("r1_pro", 0)]
)
def test_robot_types(tmp_path, robot, taken):
    touch(tmp_path / "a.mcap")
    touch(tmp_path / "b.mcap")
    r1.write_meta(tmp_path, [{"name": "a.mcap", "robotType": robot}, {"name": "b.mcap"}])
    found = discover(tmp_path)
    assert len(found.episodes) == 1 + taken
    assert all(f"robotType '{robot}', expected R1Lite" in s.reason for s in found.skipped)


def test_failed_recordings_are_left_out(tmp_path):
    touch(tmp_path / "a_RAW" / "a_RAW.mcap")
    touch(tmp_path / "fail" / "b.mcap")
    touch(tmp_path / "c.mcap")
    (tmp_path / "a_RAW.json").write_text(json.dumps({"label": {"fail": "dropped the block"}}))
    found = discover(tmp_path)
    assert [r.source for r in found.episodes] == ["c.mcap"]
    reasons = {s.source: s.reason for s in found.skipped}
    assert not any(skip.damaged for skip in found.skipped)
    assert "dropped the block" in reasons["a_RAW/a_RAW.mcap"] and "folder is named fail" in reasons["fail/b.mcap"]
    assert len(discover(tmp_path, include_failed=True).episodes) == 3
    (tmp_path / "c.mcap").unlink()
    with pytest.raises(UsageError, match="none of 2 recordings below"):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("sidecar", "failed"),
    [
        *(({"label": {"fail": value}}, False) for value in (0, False, "false", "No", "", [], None)),
        *(({"label": {"fail": value}}, True) for value in (1, True, "yes", "drops it")),
        *(({"label": {"success": value}}, value is False) for value in (False, True, None)),
        ({"label": "failed"}, True),
        ({"label": "good"}, False),
        ({"fail": True}, True),
    ],
)
def test_what_a_sidecar_says_of_failure(tmp_path, sidecar, failed):
    touch(tmp_path / "a.mcap")
    touch(tmp_path / "b.mcap")
    (tmp_path / "a.json").write_text(json.dumps(sidecar))
    found = discover(tmp_path)
    assert len(found.episodes) == 2 - failed
    assert [s.reason for s in found.skipped if "a.json marks it as failed" in s.reason] == [
        s.reason for s in found.skipped
    ]


def test_a_sidecar_that_is_a_pointer_and_an_entry_that_is_there_twice(tmp_path):
    touch(tmp_path / "a.mcap")
    (tmp_path / "a.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    r1.write_meta(tmp_path, [{"name": "a.mcap"}, {"name": "a.mcap", "annotations": []}, {"name": "lost.mcap"}])
    found = discover(tmp_path)
    assert any("a.json is a Git LFS pointer" in text for text in found.warnings)
    assert [s.reason.partition("; ")[0] for s in found.skipped] == [
        "listed in raw_data_meta.json more than once",
        "listed in raw_data_meta.json, but the file is not there",
    ]


@pytest.mark.parametrize("content", ["{", "[]", '{"rawDataList": 3}', "\xff"])
def test_a_broken_dataset_json_is_refused(tmp_path, content):
    touch(tmp_path / "a.mcap")
    (tmp_path / "raw_data_meta.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"raw_data_meta\.json (is not valid JSON|has no list rawDataList)"):
        discover(tmp_path)


def test_a_broken_sidecar_is_a_warning(tmp_path):
    touch(tmp_path / "a.mcap")
    (tmp_path / "a.json").write_text("{")
    found = discover(tmp_path)
    assert len(found.episodes) == 1 and any("a.json is not used" in w for w in found.warnings)


# the task


def test_where_the_task_comes_from(tmp_path, sent):
    folder = tmp_path / "Fold_Towel_007"
    r1.McapWriter().write(folder / r1.NAME / f"{r1.NAME}.mcap", sent)
    episode = rd.read_one(folder)
    assert episode.task == "fold towel" and rd.warned(episode, "taken from a folder name")
    (folder / f"{r1.NAME}.json").write_text(json.dumps({"task_info": {"task_name": "fold the towel"}}))
    episode = rd.read_one(folder)
    assert (episode.task, episode.metadata["instruction_source"]) == ("fold the towel", "sidecar")
    r1.write_meta(folder, [{"name": f"{r1.NAME}.mcap"}])
    assert rd.read_one(folder).task == "sort colored blocks"
    assert rd.read_one(folder, task="Do it.").instructions == ("Do it.",)


def test_without_any_task_the_recording_is_refused(tmp_path, sent):
    r1.McapWriter().write(tmp_path / "123" / "x.mcap", sent)
    assert "nothing tells the task" in rd.reason(tmp_path / "123")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("Sort_Colored_Blocks_20250805_001", "sort colored blocks"),
        ("Stack_2_Cups", "stack cups"),
        ("20250805", ""),
        ("plain", "plain"),
    ],
)
def test_coarse_task(name, task):
    assert text.coarse_task(name) == task


# annotations


def annotated(root, sent, annotations, **options):
    r1.write_recording(root, sent, annotations)
    return rd.read_one(root, **options)


@pytest.mark.parametrize("annotations", [[], None, "nonsense"])
def test_no_annotations(tmp_path, sent, annotations):
    episode = annotated(tmp_path, sent, annotations)
    assert episode.instructions == ("sort colored blocks",)
    assert rd.warned(episode, "no annotations") and not rd.warned(episode, "no frame lies inside")
    (segment,) = episode.stored_metadata()["segments"]
    assert (segment["text"], segment["text_en"], segment["quality"]) == ("null", None, "qualified")


@pytest.mark.parametrize(
    ("label", "quality"),
    [(None, "qualified"), ("None", "qualified"), ("Pick up", "qualified"), ("unqualified", "unqualified")],
)
def test_quality_labels(tmp_path, sent, label, quality):
    episode = annotated(tmp_path, sent, [r1.annotation("Lift.", 0, 9, label)])
    assert episode.stored_metadata()["segments"][0]["quality"] == quality
    assert episode.metadata["unqualified_frames"] == (34 if quality == "unqualified" else 0)


def test_frames_belong_to_the_first_annotation_around_them(tmp_path, sent):
    episode = annotated(
        tmp_path,
        sent,
        [r1.annotation("甲@One.", 0.5, 1.0), r1.annotation("乙@Two.", 0.9, 1.6), r1.annotation("丙@Three.", 1.9, 2.0)],
    )
    t = (episode.timestamp_ns + episode.metadata["start_ns"] - r1.START) / 1e9
    wanted = np.where(t < 1.0, "One.", np.where(t < 1.6, "Two.", np.where((t > 1.9) & (t < 2.0), "Three.", "")))
    found = [""] * len(t)
    for segment in episode.stored_metadata()["segments"]:
        for row in range(segment["first_frame"], segment["last_frame"] + 1):
            found[row] = segment["text_en"] or ""
    assert found == wanted.tolist()
    assert episode.instructions == ("sort colored blocks",)  # no fine text holds for all frames
    ends = [(s["first_frame"], s["last_frame"]) for s in episode.stored_metadata()["segments"]]
    assert ends[0][0] == 0 and ends[-1][1] == 33 and all(a[1] + 1 == b[0] for a, b in itertools.pairwise(ends))


def test_borders_are_strict():
    one = text.Annotation("x", True, 100, 200)
    two = text.Annotation("y", True, 300, 400)
    stamps = np.array([1, 200, 300, 301, 399, 400])
    assert text.frame_annotations([one, two], stamps).tolist() == [0, -1, -1, 1, 1, -1]


def test_annotations_without_times_are_left_out(tmp_path, sent):
    bad = [{"text": "x"}, {**r1.annotation("y", 0, 1), "endSecond": "soon"}, 7]
    episode = annotated(tmp_path, sent, [*bad, r1.annotation("Lift.", 0, 9)])
    assert episode.instructions[0] == "Lift."
    assert sum("has no usable times" in w for w in episode.warnings) == 3
    far = annotated(tmp_path, sent, [r1.annotation("Lift.", -99, -98)])
    assert rd.warned(far, "no frame lies inside an annotation")
    late = annotated(tmp_path, sent, [r1.annotation("Lift.", 28800, 28801), r1.annotation("Drop.", 28801, 28802)])
    assert set(late.instructions) == {"Lift.", "sort colored blocks"}
    assert rd.warned(late, "its first annotation begins 2879") and not rd.warned(far, "begins")


@pytest.mark.parametrize(
    ("written", "options", "instruction"),
    [
        ("抬起@Lift it.", {}, "Lift it."),
        ("抬起@Lift @ once.", {}, "Lift @ once."),
        ("抬起@Lift it.", {"lang": "zh"}, "抬起"),
        ("Lift it.", {"lang": "zh"}, "Lift it."),
        ("抬起@Lift it.", {"instruction": "coarse"}, "sort colored blocks"),
        ("Lift the “red” café block.", {"strict_lang": True}, "Lift the “red” café block."),
        ("抬起", {}, "抬起"),
        ("抬起", {"strict_lang": True}, "sort colored blocks"),
        ("抬起@null", {"strict_lang": True}, "sort colored blocks"),
        ("null", {}, "sort colored blocks"),
        ("None", {}, "sort colored blocks"),
        ("  ", {}, "sort colored blocks"),
        ("@", {}, "sort colored blocks"),
        ("@Lift it.", {}, "Lift it."),
        ("Lift it @ home.", {"lang": "zh"}, "Lift it @ home."),
        ("Lift the block。", {"strict_lang": True}, "Lift the block。"),
        ("Подними@Lift it.", {}, "Lift it."),
        ("Lift it.@抬起", {}, "Lift it."),
        ("Lift it.@抬起", {"lang": "zh"}, "抬起"),
    ],
)
def test_training_text(tmp_path, sent, written, options, instruction):
    episode = annotated(tmp_path, sent, [r1.annotation(written, 0, 9)], **options)
    assert episode.instructions[0] == instruction
    chinese = written.startswith("抬起") and "Lift" not in written and options.get("lang", "en") == "en"
    assert rd.warned(episode, "34 frames have Chinese text only") == chinese


@pytest.mark.parametrize(
    ("written", "language"),
    [
        ("ブロックを持ち上げる", "Japanese"),
        ("赤い箱に入れる", "Japanese"),
        ("블록을 들어 올리기", "Korean"),
        ("Подними блок", "Cyrillic"),
        ("抬起・放下", "Chinese"),
    ],
)
def test_a_text_of_another_language_is_called_by_it(tmp_path, sent, written, language):
    told = annotated(tmp_path, sent, [r1.annotation(written, 0, 9)])
    assert (
        rd.warned(told, f"34 frames have {language} text only; option strict_lang") and told.instructions[0] == written
    )
    strict = annotated(tmp_path, sent, [r1.annotation(written, 0, 9)], strict_lang=True)
    assert rd.warned(strict, f"34 frames have {language} text only; the coarse task")
    assert strict.instructions == ("sort colored blocks",)
    both = annotated(tmp_path, sent, [r1.annotation(f"{written}@Lift it.", 0, 9)])
    assert both.instructions[0] == "Lift it." and not rd.warned(both, "text only")


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_a_folder_whose_name_is_not_utf8_is_named(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102 (bytes)
    with open(folder + b"/take.mcap", "wb"):  # noqa: PTH123 (bytes)
        pass
    with pytest.raises(UsageError, match=r"not entered: caf\\udce9 \(its name is not UTF-8; rename it\)"):
        discover(tmp_path)


def test_archives_beside_recordings_are_named(tmp_path):
    (tmp_path / "take.mcap").write_bytes(b"x")
    (tmp_path / "take.zip").write_bytes(b"PK")
    (tmp_path / "more.tar").write_bytes(b"x")
    found = discover(tmp_path)
    [left] = found.left_out
    assert left.count == 2 and "find . -name '*.tar' -execdir tar xf {} \\;" in left.reason and not left.asked
    (tmp_path / "take.mcap").unlink()
    with pytest.raises(UsageError, match="unpack the archives first, in that folder: find"):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("folder", "task"),
    [
        ("pick_cube/rec", "pick cube"),
        ("fold_towel/rosbag2_2026_01_05-10_00_00", "fold towel"),
        ("day_1/wipe_table/2026_01_05", "wipe table"),
        ("open_door/rec/RB250101001_20250805213412311_RAW", "open door"),
        ("pick_cube/left", "left"),
        ("pick_cube/episode_000003", "pick cube"),
        ("pick_cube/part1", "pick cube"),
        ("pick_cube/session2/take_1", "pick cube"),
        ("pick_cube/2026-01-05/Run 4", "pick cube"),
        ("pick_cube/take_out_the_cup", "take out the cup"),
        ("rec", "lab"),
    ],
)
def test_a_folder_that_a_recorder_named_is_no_task(tmp_path: Path, folder: str, task: str) -> None:
    assert folder_task(tmp_path / "lab", folder) == task
    assert folder_task(tmp_path / "raw", "rec") == "rec", "nothing says more"
