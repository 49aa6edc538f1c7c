"""How features of published LeRobot sets become cameras, state and action, and what becomes of their grippers."""

from __future__ import annotations

import numpy as np
import pytest
from lerobot_files import (
    LIBERO_CAMERAS,
    R1LITE,
    R1LITE_CAMERAS,
    ROBOTWIN_CAMERAS,
    Recipe,
    edit_info,
    frames,
    libero_values,
    rows,
    write_dataset,
)
from lerobot_reading import converter, joined, manifest, pixels, read_all, reason, refusal
from PIL import Image

from converters.lerobot import Converter, choose_manifest
from fwdata.api import UsageError
from fwdata.manifest import manifest_names

FEW = {"pictures": "png", "lengths": (4, 3)}
STATE, ACTION = "observation.state", "action"


def side_names(*parts: str) -> list[str]:
    """RoboCOIN-like names: `left_arm_joint_1_rad`, `left_gripper_open`."""
    kinds = {"arm": [f"arm_joint_{i + 1}_rad" for i in range(6)], "gripper": ["gripper_open"]}
    kinds["arm7"] = [*kinds["arm"], "arm_joint_7_rad"]
    return [f"{side}_{name}" for side, kind in (part.split("/") for part in parts) for name in kinds[kind]]


@pytest.mark.parametrize("name", [n for n in manifest_names() if n.startswith("lerobot")])
def test_every_built_in_manifest_is_sound(name):
    made = converter(name)
    assert made.manifest.name == name
    assert bool(made.variants) == (name != "lerobot")
    for vectors in made.variants:
        assert len(set(vectors.state_names)) == len(vectors.state_names)
        assert len(set(vectors.action_names)) == len(vectors.action_names)


@pytest.mark.parametrize(
    ("cameras", "vectors"),
    [
        (R1LITE_CAMERAS, {**R1LITE, "observation.state.left_arm": 7, "observation.state.right_arm": 7}),
        (("observation.images.head_left_rgb", *R1LITE_CAMERAS[1:]), R1LITE),
    ],
)
def test_generations_of_r1_lite_keys(tmp_path, cameras, vectors):
    """2025 exports hold arm and gripper in 7 numbers; the earliest toolkit called the head camera otherwise."""
    recipe = Recipe(cameras=cameras, vectors=vectors, **FEW)
    episodes = read_all(write_dataset(tmp_path, recipe))
    assert choose_manifest([tmp_path], {}).name == "lerobot-r1lite"
    for number, episode in enumerate(episodes):
        assert np.array_equal(episode.state, joined(recipe, number, STATE))
        assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(recipe, cameras[0], number))
        assert episode.metadata["camera_keys"]["head_rgb"] == cameras[0]


def test_targets_of_seven_joints_are_another_robot(tmp_path):
    write_dataset(tmp_path, Recipe(vectors={**R1LITE, "action.left_arm": 7, "action.right_arm": 7}, **FEW))
    assert "action.left_arm has 7 numbers, not 6" in refusal(tmp_path)


ROBOCOIN_CAMERAS = tuple(f"observation.images.cam_{n}_rgb" for n in ("high", "left_wrist", "right_wrist"))


def robocoin(names: object, size: int = 14, action: int = 14, **changes: object) -> Recipe:
    vectors = {STATE: size, ACTION: action}
    base = {"fps": 30, "cameras": ROBOCOIN_CAMERAS, "robot": "r1_lite", **FEW, **changes}
    return Recipe(vectors=vectors, names={STATE: names, ACTION: names}, **base)


def test_robocoin_by_position(tmp_path):
    recipe = robocoin(None)
    episode = read_all(write_dataset(tmp_path, recipe), "lerobot-robocoin")[0]
    assert choose_manifest([tmp_path], {}).name == "lerobot-robocoin"
    assert np.array_equal(episode.state, rows(recipe, STATE, 0).astype(np.float32))
    assert episode.metadata["columns_found_by"] == "position" and episode.metadata["variant"] == "one vector of 14"


@pytest.mark.parametrize("wrapped", [False, True])
def test_robocoin_by_names(tmp_path, wrapped):
    names = side_names("right/arm", "right/gripper", "left/gripper", "left/arm")
    recipe = robocoin({"motors": names} if wrapped else names)
    episode = read_all(write_dataset(tmp_path, recipe), "lerobot-robocoin")[0]
    order = [*range(8, 14), 7, *range(6), 6]
    assert np.array_equal(episode.state, rows(recipe, STATE, 0)[:, order].astype(np.float32))
    assert np.array_equal(episode.action, rows(recipe, ACTION, 0)[:, order].astype(np.float32))
    assert episode.metadata["columns_found_by"] == "feature names"
    assert episode.state_names[0] == "left_joint_1" and episode.state_names[13] == "right_gripper"


@pytest.mark.parametrize("named", [False, True])
def test_robocoin_of_the_second_version(tmp_path, named):
    names = side_names("left/arm7", "right/arm7", "left/gripper", "right/gripper")
    recipe = robocoin([*names, "a", "b", "c", "d"] if named else None, 16, 18)
    episode = read_all(write_dataset(tmp_path, recipe), "lerobot-robocoin")[0]
    order = [*range(6), 14, *range(7, 13), 15]
    assert np.array_equal(episode.state, rows(recipe, STATE, 0)[:, order].astype(np.float32))
    assert np.array_equal(episode.action, rows(recipe, ACTION, 0)[:, order].astype(np.float32))


def test_scale_of_grippers_is_decided_per_dataset(tmp_path):
    quiet, loud = np.full((4, 14), 0.9), np.full((3, 14), 90.0)
    units = robocoin(None, values={(k, e): quiet[: 4 - e] for k in (STATE, ACTION) for e in (0, 1)})
    write_dataset(tmp_path / "unit", units)
    assert read_all(tmp_path / "unit", "lerobot-robocoin")[0].metadata["gripper_range"] == [0, 1]
    mixed = robocoin(None, values={**units.values, (STATE, 1): loud, (ACTION, 1): loud})
    write_dataset(tmp_path / "mixed", mixed)
    one, two = read_all(tmp_path / "mixed", "lerobot-robocoin", gripper_unit=True)
    assert one.metadata["gripper_recorded_range"] == [0, 100] and one.metadata["gripper_range"] == [0, 1]
    assert np.allclose(one.state[:, [6, 13]], 0.009) and np.allclose(two.action[:, [6, 13]], 0.9)
    assert np.allclose(one.state[:, 0], 0.9)
    wild = robocoin(None, values={**units.values, (STATE, 0): np.full((4, 14), 300.0)})
    write_dataset(tmp_path / "wild", wild)
    assert "a gripper reaches 300" in reason(tmp_path / "wild", "lerobot-robocoin")
    kept = read_all(tmp_path / "wild", "lerobot-robocoin", gripper_scale="0-100")[0]
    assert any("gripper values reach 0.9 .. 300" in w or "300 .. 300" in w for w in kept.warnings)


def libero(gripper: float, other: float, cameras: tuple[str, ...] = LIBERO_CAMERAS, **changes: object) -> Recipe:
    keys = changes.pop("keys", (STATE, ACTION))
    values = libero_values((4,), keys)
    values[keys[1], 0][:, 6] = [gripper, gripper, other, other]
    return Recipe(
        fps=changes.pop("fps", 20),
        cameras=cameras,
        vectors={keys[0]: 8, keys[1]: 7},
        values=values,
        robot="panda",
        pictures="png",
        lengths=(4,),
        tasks=(0,),
        **changes,
    )


@pytest.mark.parametrize(
    ("gripper", "other", "stored"), [(-1, 1, [1, 1, 0, 0]), (1, 0, [1, 1, 0, 0]), (0, 1, [0, 0, 1, 1])]
)
def test_libero_gripper_is_one_when_open(tmp_path, gripper, other, stored):
    recipe = libero(gripper, other)
    root = write_dataset(tmp_path, recipe)
    assert choose_manifest([root], {}).name == "lerobot-libero"
    (episode,) = read_all(root, "lerobot-libero")
    assert episode.action[:, 6].tolist() == stored
    assert np.array_equal(episode.action[:, :6], rows(recipe, ACTION, 0)[:, :6].astype(np.float32))
    told = "-1 open, +1 closed" if gripper == -1 else "1 open, 0 closed"
    assert episode.metadata["gripper_action_recorded"] == told
    left = read_all(root, "lerobot-libero", gripper_action="recorded")[0]
    assert left.action[:, 6].tolist() == [gripper, gripper, other, other]


def test_libero_gripper_that_does_not_tell(tmp_path):
    root = write_dataset(tmp_path, libero(1, 1))
    assert "do not tell whether they are -1 open / +1 closed or 1 open / 0 closed" in refusal(root, "lerobot-libero")
    (episode,) = read_all(root, "lerobot-libero", gripper_action="signed")
    assert episode.action[:, 6].tolist() == [0, 0, 0, 0]
    write_dataset(tmp_path, libero(1, -1))
    assert "reaches -1 .. 1, expected 0 .. 1 as by --gripper-action" in reason(
        root, "lerobot-libero", gripper_action="unit"
    )
    (episode,) = read_all(root, "lerobot-libero", gripper_action="reversed")
    assert episode.action[:, 6].tolist() == [1, 1, 0, 0], "+1 opens"
    assert episode.metadata["gripper_action_recorded"] == "+1 open, -1 closed"
    assert episode.conventions.options["gripper_polarity"] == "--gripper-action signed"


def test_libero_under_other_keys_and_a_wrong_rate(tmp_path):
    recipe = libero(-1, 1, ("image", "wrist_image"), keys=("state", "actions"), fps=10)
    (episode,) = read_all(write_dataset(tmp_path, recipe), "lerobot-libero")
    assert np.array_equal(episode.timestamp_ns, np.arange(4) * 50_000_000) and episode.metadata["fps_label"] == 10
    assert episode.metadata["variant"] == "openpi" and not any("timestamp" in w for w in episode.warnings)


def robotwin(fps: float, size: int = 14) -> Recipe:
    return Recipe(fps=fps, cameras=ROBOTWIN_CAMERAS, vectors={STATE: size, ACTION: size}, robot="aloha", **FEW)


@pytest.mark.parametrize(("fps", "size"), [(50, 14), (30, 14), (15, 16)])
def test_robotwin_sets_carry_many_rates(tmp_path, fps, size):
    root = write_dataset(tmp_path, robotwin(fps, size))
    episode = read_all(root, "lerobot-robotwin")[0]
    assert episode.timestamp_ns.tolist() == [0, 60_000_000, 120_000_000, 180_000_000]
    assert len(episode.state_names) == size and list(episode.cameras) == ["head_camera", "left_camera", "right_camera"]
    assert refusal(write_dataset(tmp_path / "x", robotwin(25)), "lerobot-robotwin")


def test_exchanged_colours_of_a_plain_scene_are_noticed(tmp_path):
    root = write_dataset(tmp_path, robotwin(50))
    assert read_all(root, "lerobot-robotwin")[0].metadata["colour_check"]["verdict"] == "undecided"
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from lerobot_files import edit_table

    for verdict, colour in (("reddish", (250, 225, 215)), ("bluish", (215, 225, 250))):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 24), colour).save(buffer, format="png")
        (path, *_) = sorted(root.glob("data/*/*.parquet"))
        kind = pq.read_schema(path).field(ROBOTWIN_CAMERAS[0]).type
        edit_table(path, ROBOTWIN_CAMERAS[0], pa.array([{"bytes": buffer.getvalue(), "path": None}] * 4, kind))
        episode = read_all(root, "lerobot-robotwin")[0]
        assert episode.metadata["colour_check"]["verdict"] == verdict
        assert any("red and blue look exchanged" in w for w in episode.warnings) == (verdict == "bluish")
    assert read_all(root, "lerobot-robotwin", colour="swapped")[0].metadata["colour_check"]["verdict"] == "reddish"


OWN = {
    "cameras": {"head": "observation.images.top", "left_wrist": ["no", "l"], "right_wrist": "r"},
    "state": ["arm[1:3]", "hand", "arm[0:1]"],
    "action": "action",
}


def test_a_mapping_of_ones_own(tmp_path):
    recipe = Recipe(
        fps=30, cameras=("observation.images.top", "l", "r"), vectors={"arm": 4, "hand": 1, "action": 2}, **FEW
    )
    recipe = Recipe(**{**vars(recipe), "names": {"arm": ["a", "b", "c", "d"], "action": [["x", "x"]]}})
    root = write_dataset(tmp_path, recipe)
    episode = read_all(root, "lerobot", **OWN)[0]
    arm, hand = rows(recipe, "arm", 0), rows(recipe, "hand", 0)
    assert np.array_equal(episode.state, np.concatenate([arm[:, 1:3], hand, arm[:, :1]], 1).astype(np.float32))
    assert episode.state_names == ("b", "c", "hand_0", "a") and episode.action_names == ("action_0", "action_1")
    assert episode.metadata["state_columns"] == ["arm[1:3]", "hand[0:1]", "arm[0:1]"]
    named = read_all(root, "lerobot", **OWN, state_names=["p", "q", "grip", "r"], action_names=["u", "v"])[0]
    assert named.state_names == ("p", "q", "grip", "r")
    assert named.embodiment == "r1lite"
    for changes, part in (
        ({"state": "armm"}, "no feature 'armm'; did you mean 'arm'?"),
        ({"state": "arm[2:9]"}, "arm has 4 numbers, arm[2:9] needs 9"),
        ({"state_names": ["p"]}, "state_names lists 1 names, the features have 4 numbers"),
        ({"state": "l"}, "l is a feature of image of shape [24, 32, 3]"),
        ({"gripper_unit": True}, "option gripper_unit needs option gripper_scale"),
        ({"gripper_scale": "auto"}, "needs action columns called 'gripper', 'left_gripper', 'gripper.pos'"),
        ({"gripper_action": "unit"}, "needs a name such as 'gripper'"),
        ({"cameras": {**OWN["cameras"], "head": "tops"}}, "camera head needs the feature tops; its cameras are"),
    ):
        assert part in refusal(root, "lerobot", **{**OWN, **changes})


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"camera": {}}, "converter 'lerobot' has no option 'camera'; did you mean 'cameras'"),
        ({**OWN, "cameras": {"heat": "x"}}, "option cameras maps 'heat', which is none of the manifest's cameras; did"),
        ({**OWN, "cameras": {"head": "x", "left_wrist": "y"}}, "names no feature for camera 'right_wrist'"),
        ({**OWN, "state": "arm[3:3]"}, "'arm[3:3]' takes no column"),
        ({**OWN, "state": "arm[3"}, "'arm[3' is not a feature"),
        ({**OWN, "state": []}, "needs at least one key"),
        ({"colour": "red"}, "colour"),
        ({"vectors": [{"state": "x", "action": "y", "size": {}}]}, "unknown key 'vectors.0.size'"),
        ({"max_episodes": 0}, "max_episodes"),
    ],
)
def test_wrong_options(options, part):
    with pytest.raises(UsageError) as caught:
        Converter(manifest("lerobot").model_copy(update={"options": options}))
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_depth_maps_are_no_cameras(tmp_path):
    root = write_dataset(tmp_path, Recipe(**FEW))
    import json

    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[R1LITE_CAMERAS[0]]["info"] = {"video.is_depth_map": True}
    edit_info(root, features=features)
    assert "camera head_rgb needs the feature one of" in refusal(root)


def test_arms_of_a_plain_mapping_are_known_by_the_sides_in_names(tmp_path):
    """So a wrist camera is compared with its own arm; without sides nothing is claimed."""
    joints = [f"{side}_joint_{i}.pos" for side in ("left", "right") for i in range(3)]
    cameras = ("observation.images.top", "observation.images.left_wrist", "observation.images.right_wrist")
    for names, arms in ((joints, ("left_wrist", "right_wrist")), (None, ())):
        recipe = Recipe(
            robot="own", cameras=cameras, vectors={"observation.state": 6, "action": 6},
            names={"observation.state": names, "action": names}, lengths=(30,), tasks=(0,),
        )  # fmt: skip
        root = write_dataset(tmp_path / str(len(arms)), recipe)
        made = Converter(choose_manifest([root], {}))
        claims = made.read(root, made.discover(root).episodes[0]).conventions
        assert tuple(arm.camera for arm in claims.arms) == arms
        assert [arm.state for arm in claims.arms] == [(0, 1, 2), (3, 4, 5)][: len(arms)]
        assert bool(arms) == (
            "left_wrist: observation.images.right_wrist" in claims.options.get("wrists_exchanged", "")
        )
