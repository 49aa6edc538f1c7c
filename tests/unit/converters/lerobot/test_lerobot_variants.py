"""Datasets that say things in other ways: names, scales, stale numbers of videos, tasks that disagree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import (
    V2_DATA,
    V2_VIDEO,
    V3_VIDEO,
    Recipe,
    edit_info,
    edit_table,
    frames,
    rows,
    write_dataset,
    write_video,
)
from lerobot_reading import pixels, read_all
from numpy.typing import NDArray

from converters.lerobot import Converter
from converters.lerobot.converter import choose_manifest
from converters.lerobot.info import read_info
from fwdata.api import BadEpisode, Episode, UsageError

TOP = "observation.images.top"
NAMES = ["pan.pos", "lift.pos", "gripper.pos"]
STATE, ACTION = "observation.state", "action"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
OWN = Recipe(
    version="v3.0",
    fps=30,
    robot="own",
    lengths=(12, 14, 13, 11),
    cameras=(TOP,),
    vectors={"observation.state": 3, "action": 3},
    names={"observation.state": NAMES, "action": NAMES},
    tasks=(0, 1, 0, 1),
)


def gripping(top: float) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Rows whose last column goes from end to end."""
    values = {}
    for episode, length in enumerate(OWN.lengths):
        rng = np.random.default_rng(episode)
        for key in OWN.vectors:
            rows = rng.normal(size=(length, 3))
            rows[:, 2] = np.where(np.arange(length) < length // 2, 0.0, top)
            values[key, episode] = rows
    return values


def read(root: Path, **options: object) -> list[Episode]:
    """Every episode, with the manifest that is chosen."""
    chosen = choose_manifest([root], options)
    made = Converter(chosen.model_copy(update={"options": {**chosen.options, **options}}))
    return [made.read(root, ref) for ref in made.discover(root).episodes]


def warned(root: Path) -> str:
    return "\n".join(Converter(choose_manifest([root], {})).discover(root).warnings)


@pytest.mark.parametrize(("top", "scale"), [(100, "0 .. 100"), (1.7, "an angle in rad"), (255, "0 .. 255")])
def test_grippers_that_lerobot_calls_pos_share_a_scale_or_no_store(tmp_path, top, scale):
    write_dataset(tmp_path / "a", replace(OWN, values=gripping(1)))
    write_dataset(tmp_path / "b", replace(OWN, values={k: v + 0.1 for k, v in gripping(top).items()}))
    with pytest.raises(UsageError, match=rf"different scales, 0 .. 1 \(a, 1 dataset\), {scale}"):
        read(tmp_path)
    if top == 100:
        stored = read(tmp_path, gripper_unit=True, gripper_scale="auto")
        assert {float(e.state[:, 2].max()) for e in stored} == {1.0}


def test_an_angle_is_not_taken_for_one_of_both_scales(tmp_path):
    root = write_dataset(tmp_path, replace(OWN, values=gripping(1.7)))
    with pytest.raises(UsageError, match=r"reach 1.7, which is neither the scale 0 .. 1 nor 0 .. 100"):
        read(root, gripper_unit=True, gripper_scale="auto")


@pytest.mark.parametrize("force", ["gripper_force", "gripper_velocity.left", "gripper_x"])
def test_other_columns_of_a_gripper_have_no_scale(tmp_path, force):
    names = {key: ["pan", "lift", force] for key in OWN.vectors}
    for name, top in (("a", 1), ("b", 100)):
        rows = {k: v + (0.1 if name == "b" else 0) for k, v in gripping(top).items()}
        write_dataset(tmp_path / name, replace(OWN, names=names, values=rows))
    assert len(read(tmp_path)) == 8


def test_names_in_lists_of_lists(tmp_path):
    names = {"observation.state": [["a"], ["b", "c"]], "action": {"motors": {"l": ["x", "y"], "r": ["gripper"]}}}
    write_dataset(tmp_path, replace(OWN, names=names))
    found = read_info(tmp_path).features
    assert found["observation.state"].names == ("a", "b", "c") and found["action"].names == ("x", "y", "gripper")


def test_splits_are_said_or_taken(tmp_path):
    root = write_dataset(tmp_path, OWN)
    edit_info(root, splits={"train": "0:3", "test": "3:4"})
    manifest = choose_manifest([root], {})
    found = Converter(manifest).discover(root)
    assert len(found.episodes) == 4
    assert any("splits that are not used, train (0:3), test (3:4): all" in text for text in found.warnings)
    options = {**manifest.options, "splits": ["test"]}
    taken = Converter(manifest.model_copy(update={"options": options})).discover(root)
    assert [ref.id for ref in taken.episodes] == ["episode_000003"]
    assert taken.decisions["datasets"]["dataset"]["left_out"] == {"outside of option splits": 3}
    assert not any("not used" in text for text in taken.warnings)
    wrong = Converter(manifest.model_copy(update={"options": {**options, "splits": ["tset"]}}))
    with pytest.raises(UsageError, match=r"no split 'tset'; did you mean 'test'\?.* it has train \(0:3\)"):
        wrong.discover(root)
    edit_info(root, splits={"train": "0:4"})
    assert not any("splits" in text for text in Converter(manifest).discover(root).warnings)


def test_features_that_are_not_converted_are_said(tmp_path):
    vectors = {**OWN.vectors, "observation.gripper": 1, "observation.effort": 3, "next.reward": 1}
    root = write_dataset(tmp_path, replace(OWN, vectors=vectors))
    assert "features that are not converted: observation.gripper (1), observation.effort (3);" in warned(root)
    manifest = choose_manifest([root], {"state": ["observation.state", "observation.gripper"]})
    options = {**manifest.options, "state": ["observation.state", "observation.gripper"]}
    taken = Converter(manifest.model_copy(update={"options": options}))
    assert taken.read(root, taken.discover(root).episodes[0]).state.shape == (12, 4)
    assert "observation.gripper" not in "".join(taken.discover(root).warnings)


def test_only_numbers_are_offered_to_be_joined(tmp_path):
    root = write_dataset(tmp_path, OWN)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    other = {"note": {"dtype": "string", "shape": [1]}, "points": {"dtype": "float32", "shape": [2048, 3]}}
    edit_info(root, features={**features, **other})
    assert "features that are not converted: note (string), points (2048x3)" in warned(root)
    assert "join" not in warned(root)
    edit_info(root, features={**features, **other, "pose": {"dtype": "float32", "shape": [4, 4]}})
    assert "points (2048x3), pose (4x4); options state and action join those that are numbers" in warned(root)


def test_numbers_in_several_lines_are_taken_one_line_after_the_other(tmp_path):
    """As two arms of three joints each may be recorded, in lists of lists."""
    vectors, names = {STATE: 6, ACTION: 6}, {STATE: [["a", "b", "c"], ["d", "e", "f"]]}
    recipe = replace(OWN, vectors=vectors, names=names)
    root = write_dataset(tmp_path, recipe)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    edit_info(root, features=features | {key: features[key] | {"shape": [2, 3]} for key in vectors})
    path = root / "data/chunk-000/file-000.parquet"
    for key in vectors:
        lines = [[row[:3], row[3:]] for row in pq.read_table(path)[key].to_pylist()]
        edit_table(path, key, pa.array(lines))
    for number, episode in enumerate(read(root)):
        assert np.array_equal(episode.state, rows(recipe, STATE, number).astype(np.float32))
        assert np.array_equal(episode.action, rows(recipe, ACTION, number).astype(np.float32))
    assert read_info(root).features[STATE].names == ("a", "b", "c", "d", "e", "f")
    for told, expected in (
        (["arm", "joint"], ()),
        ([["l", "r"], ["x", "y", "z"]], ("l_x", "l_y", "l_z", "r_x", "r_y", "r_z")),
    ):
        edit_info(root, features={STATE: features[STATE] | {"shape": [2, 3], "names": told}})
        assert read_info(root).features[STATE].names == expected


def test_cameras_whose_names_differ_in_a_sign_are_all_taken(tmp_path):
    keys = tuple(f"observation.images.{name}" for name in ("cam-1", "cam_1", "cam.1", "cam_1_2"))
    root = write_dataset(tmp_path, replace(OWN, cameras=keys))
    assert sorted(choose_manifest([root], {}).options["cameras"].values()) == sorted(keys)


def test_cameras_with_names_in_other_letters_are_taken(tmp_path):
    root = write_dataset(tmp_path, replace(OWN, cameras=("observation.images.头部", "observation.images.kamera_größe")))
    taken = {"camera": "observation.images.头部", "kamera_gr__e": "observation.images.kamera_größe"}
    assert choose_manifest([root], {}).options["cameras"] == taken


def test_rows_that_an_exported_store_marked_invalid_stay_so(tmp_path):
    root = write_dataset(tmp_path, OWN)
    listed = [{"episode_index": 1, "invalid_frames": [0, 5]}, {"episode_index": 2, "invalid_frames": [99]}]
    (root / "meta/fwdata_episodes.jsonl").write_text("\n".join(map(json.dumps, listed)))
    assert all(episode.valid.all() for episode in read(root))  # another writer's file
    (root / "meta/fwdata.json").write_text(json.dumps({"fps": 30.0, "fps_label": 30}))
    invalid = [np.flatnonzero(~episode.valid).tolist() for episode in read(root)]
    assert invalid == [[], [0, 5], [], []]  # episode 2 has not as many rows: it was changed since


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_episodes_that_are_marked_as_failed_are_said(tmp_path, version):
    root = write_dataset(tmp_path, replace(OWN, version=version))
    assert "marked" not in warned(root)
    edit_info(root, discarded_episode_indices=[3])
    assert "1 of 4 episodes is marked as failed" in warned(root)
    listed = root / "meta/episodes.jsonl"
    if version == "v2.1":
        lines = [json.loads(line) for line in listed.read_text().splitlines()]
        listed.write_text("\n".join(json.dumps({**x, "success": x["episode_index"] != 1}) for x in lines))
    else:
        rows = pq.read_table(root / EPISODES).to_pylist()
        lines = [{**row, "success": row["episode_index"] != 1} for row in rows]
        pq.write_table(pa.Table.from_pylist(lines), root / EPISODES)
    told = warned(root)
    assert (
        "2 of 4 episodes are marked as failed or not valid and are converted (episodes 1, 3; of episode 1 the" in told
    )
    assert "metadata say: success is False); leave one out with --exclude '*episode_000001'" in told


def test_numbers_that_pandas_made_fractions_of(tmp_path):
    root = write_dataset(tmp_path, OWN)
    for path, keys in ((root / EPISODES, ("length", "episode_index")), (root / "meta/tasks.parquet", ("task_index",))):
        for key in keys:
            edit_table(path, key, pa.array(pq.read_table(path)[key].to_pylist(), pa.float64()))
    assert [len(e.state) for e in read(root)] == list(OWN.lengths)


def test_names_by_index(tmp_path):
    """As simulated environments write them."""
    names = {"observation.state": {"a": 2, "b": 0, "c": 1}, "action": {"x": 0, "y": 1, "gripper": 2}}
    for number, wrapped in enumerate((names, {key: {"axes": by_index} for key, by_index in names.items()})):
        root = write_dataset(tmp_path / str(number), replace(OWN, names=wrapped))
        found = read_info(root).features
        assert found["observation.state"].names == ("b", "c", "a") and found["action"].names == ("x", "y", "gripper")


@pytest.mark.parametrize(
    "key", ["observation.images.DepthCam", "observation.images.frontdepth", "cam_z16", "cam.tof", "depth_aisle"]
)
def test_depth_of_other_names_is_left_out_and_said(tmp_path, key):
    root = write_dataset(tmp_path, replace(OWN, cameras=(TOP, key)))
    assert set(read(root)[0].cameras) == {"top"}
    assert f"{key}: distances by name or format, not colours; left out" in warned(root)


@pytest.mark.parametrize("key", ["observation.images.depthai_rgb", "cam_depth-ai_0", "observation.images.DepthAI"])
def test_a_make_of_colour_cameras_is_not_taken_for_depth(tmp_path, key):
    root = write_dataset(tmp_path, replace(OWN, cameras=(TOP, key)))
    assert len(read(root)[0].cameras) == 2


@pytest.mark.parametrize("lost", ["column", "values"])
def test_lengths_that_shared_tables_do_not_give_are_those_of_the_range_of_rows(tmp_path, lost):
    root = write_dataset(tmp_path, OWN)
    table = pq.read_table(root / EPISODES)
    at = table.schema.names.index("length")
    null = pa.nulls(len(table), pa.int64())
    pq.write_table(
        table.drop(["length"]) if lost == "column" else table.set_column(at, "length", null), root / EPISODES
    )
    assert [len(episode.state) for episode in read(root)] == list(OWN.lengths)
    edit_table(root / EPISODES, "dataset_to_index", None)
    with pytest.raises(UsageError, match="expected episode_index and length, found 0 and None; --recover takes it"):
        read(root)


def test_lengths_that_lines_do_not_give_are_those_of_the_tables(tmp_path):
    """Also where a table lies in another folder than the path pattern says."""
    root = write_dataset(tmp_path, replace(OWN, version="v2.1"))
    path = root / "meta/episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "length"}) + "\n" for line in lines))
    (root / "data/chunk-001").mkdir()
    (root / V2_DATA.format(episode_chunk=0, episode_index=2)).rename(
        root / V2_DATA.format(episode_chunk=1, episode_index=2)
    )
    for number, episode in enumerate(read(root)):
        assert len(episode.state) == OWN.lengths[number]
        assert np.array_equal(pixels(episode.cameras["top"]), frames(OWN, TOP, number))
    (root / V2_DATA.format(episode_chunk=0, episode_index=0)).unlink()
    (root / V2_DATA.format(episode_chunk=0, episode_index=1)).write_bytes(b"PAR1")
    told = [each.reason for each in Converter(choose_manifest([root], {})).discover(root).skipped]
    assert any("found 0 and None; data/chunk-000/episode_000000.parquet is missing" in each for each in told)
    assert any("episode_000001.parquet cannot be read as parquet" in each for each in told)


def test_a_path_pattern_may_begin_with_a_field(tmp_path):
    root = write_dataset(tmp_path, replace(OWN, version="v2.1"))
    for number in range(len(OWN.lengths)):
        place = root / TOP / f"{number}.mp4"
        place.parent.mkdir(exist_ok=True)
        (root / V2_VIDEO.format(video_key=TOP, episode_chunk=0, episode_index=number)).rename(place)
    edit_info(root, video_path="{video_key}/{episode_index}.mp4")
    for number, episode in enumerate(read(root)):
        assert np.array_equal(pixels(episode.cameras["top"]), frames(OWN, TOP, number))


def videos(root: Path, named: tuple[int, ...], start: tuple[int, ...]) -> None:
    """Two videos of two episodes each, and what the metadata say about them."""
    for number in (0, 1):
        shots = np.concatenate([frames(OWN, TOP, e) for e in (2 * number, 2 * number + 1)])
        write_video(root / V3_VIDEO.format(video_key=TOP, chunk_index=0, file_index=number), shots, 30)
    table = pq.read_table(root / EPISODES).to_pylist()
    for row, file, frame in zip(table, named, start, strict=True):
        row |= {f"videos/{TOP}/file_index": file, f"videos/{TOP}/from_timestamp": frame / 30}
    pq.write_table(pa.Table.from_pylist(table), root / EPISODES)


@pytest.mark.parametrize("named", [(0, 0, 7, 7), (0, 0, 0, 0), (3, 3, 4, 4)])
def test_videos_whose_numbers_are_stale_are_found_by_their_frames(tmp_path, named):
    root = write_dataset(tmp_path, OWN)
    videos(root, named, (0, 12, 0, 13))
    for number, episode in enumerate(read(root)):
        assert np.array_equal(pixels(episode.cameras["top"]), frames(OWN, TOP, number))
    assert "and were found by their numbers of frames" in warned(root)


def test_videos_of_other_lengths_are_not_taken_for_them(tmp_path):
    root = write_dataset(tmp_path, OWN)
    videos(root, (0, 0, 7, 7), (0, 12, 0, 13))
    write_video(root / V3_VIDEO.format(video_key=TOP, chunk_index=0, file_index=1), frames(OWN, TOP, 3), 30)
    made = Converter(choose_manifest([root], {}))
    assert [ref.hints["episode"] for ref in made.discover(root).episodes] == [0, 1]


def test_only_chinese_is_cut_off_before_an_at_sign(tmp_path):
    table = ("put the cup @ the corner", "放杯子@put the cup @ the corner")
    for episode in read_all(write_dataset(tmp_path, Recipe(table=table))):
        assert episode.instructions == ("put the cup @ the corner",)


def test_tasks_that_disagree_are_said(tmp_path):
    root = write_dataset(tmp_path, OWN)
    table = pq.read_table(root / EPISODES).to_pylist()
    pq.write_table(pa.Table.from_pylist([row | {"tasks": ["fold the towel"]} for row in table]), root / EPISODES)
    first = read(root)[0]
    assert first.instructions == ("pick up the cup",)
    assert any(
        "means 'pick up the cup', the metadata of the episode list 'fold the towel'" in w for w in first.warnings
    )
    assert not read(root, task="fold it")[0].warnings[:1] or "means" not in read(root, task="fold it")[0].warnings[0]


def test_an_unknown_task_can_be_given(tmp_path):
    root = write_dataset(tmp_path, OWN)
    edit_table(root / "data/chunk-000/file-000.parquet", "task_index", pa.array([9] * sum(OWN.lengths)))
    with pytest.raises(BadEpisode, match="or give the instruction with --task"):
        read(root)
    assert read(root, task="fold it")[0].instructions == ("fold it",)


def test_what_a_table_holds_instead_is_said(tmp_path):
    root = write_dataset(tmp_path, OWN)
    path = root / "data/chunk-000/file-000.parquet"
    numbers = np.repeat(np.arange(4), OWN.lengths) + 100
    edit_table(path, "episode_index", pa.array(numbers))
    with pytest.raises(BadEpisode, match="its column episode_index names episodes 100 to 103; download"):
        read(root)


def test_a_pointer_in_place_of_info_json_is_not_called_json(tmp_path):
    root = write_dataset(tmp_path, OWN)
    edit_info(root)
    (root / "meta/info.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    with pytest.raises(UsageError, match=r"set: meta/info.json is a Git LFS pointer|: meta/info.json is a Git LFS"):
        read(root)
    with pytest.raises(UsageError) as caught:
        read(root)
    assert "not valid JSON" not in str(caught.value)


def test_a_label_that_option_rate_overrules_is_known(tmp_path):
    """The command that a refusal prints must not be refused for the label that it overrules."""
    root = write_dataset(tmp_path, OWN)
    edit_table(root / "data/chunk-000/file-000.parquet", "timestamp", pa.array(np.arange(sum(OWN.lengths)) / 20))
    with pytest.raises(UsageError, match="say which rate the rows have with --rate 30 or --rate 20"):
        read(root)
    for rate in (20.0, 30.0):
        claim = read(root, rate=rate)[0].conventions.rate
        assert claim is not None and (claim.decided, claim.label) == (rate, 30) and 30 in claim.known_labels
        assert any("column timestamp" in text for text in read(root, rate=rate)[0].warnings) == (rate == 30)


def test_whole_numbers_that_became_fractions(tmp_path):
    root = write_dataset(tmp_path, OWN)
    for key, numbers in (("episode_index", np.repeat(np.arange(4.0), OWN.lengths)), ("task_index", np.ones(50))):
        edit_table(root / "data/chunk-000/file-000.parquet", key, pa.array(numbers))
    assert [len(e.state) for e in read(root)] == list(OWN.lengths)


@pytest.mark.parametrize(("version", "other"), [("v2.1", "v3"), ("v3.0", "v2")])
def test_the_version_of_other_files(tmp_path, version, other):
    root = write_dataset(tmp_path, replace(OWN, version="v3.0" if version == "v2.1" else "v2.1"))
    edit_info(root, codebase_version=version)
    with pytest.raises(UsageError, match=f"codebase_version begins with {version[:2]}, .* is a template of {other}"):
        read(root)


def test_cameras_that_not_every_dataset_has_are_said(tmp_path):
    write_dataset(tmp_path / "a", OWN)
    wrist = "observation.images.wrist"
    rows = {k: v + 1 for k, v in gripping(1).items()}
    write_dataset(tmp_path / "b", replace(OWN, cameras=(TOP, wrist), values=rows))
    told = warned(tmp_path)
    assert f"b: cameras {wrist} are left out: not every dataset of the store has them" in told and "a: cam" not in told
