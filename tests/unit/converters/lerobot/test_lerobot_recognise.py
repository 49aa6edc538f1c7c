"""Sets with the shapes, rate and robot name of a published layout that are not it; rates and scales that disagree."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures import run_convert
from lerobot_files import (
    LIBERO_CAMERAS,
    R1LITE_CAMERAS,
    ROBOTWIN_CAMERAS,
    Recipe,
    edit_info,
    edit_table,
    libero_values,
    write_dataset,
)
from lerobot_reading import converter, manifest, read_all, refusal

import fwdata
from converters.lerobot import Converter, choose_manifest
from converters.lerobot.column_names import contradiction, kind_of, side_of
from fwdata.errors import UsageError

type Change = Callable[[np.ndarray], np.ndarray]
STATE, ACTION = "observation.state", "action"
LENGTHS = (40, 30)
FEW = {"pictures": "png", "lengths": LENGTHS, "tasks": (0, 1)}
LIBERO = Recipe(
    fps=20,
    robot="panda",
    cameras=LIBERO_CAMERAS,
    vectors={STATE: 8, ACTION: 7},
    values=libero_values(LENGTHS),
    **FEW,
)


def changed(recipe: Recipe, state: Change | None = None, action: Change | None = None) -> Recipe:
    """The recipe with functions applied to its states and actions."""
    values = dict(recipe.values)
    for (key, episode), rows in recipe.values.items():
        change = state if key == STATE else action
        if change is not None:
            values[key, episode] = change(rows.copy())
    return replace(recipe, values=values)


def put(column: int | slice, values: object):
    def change(rows: np.ndarray) -> np.ndarray:
        rows[:, column] = values(rows) if callable(values) else values
        return rows

    return change


def quaternion(rows: np.ndarray) -> np.ndarray:
    """Position, quaternion of a hand that points down, gripper."""
    tilt = 0.02 * np.sin(np.arange(len(rows)))
    four = np.stack([np.cos(tilt), 0 * tilt, np.sin(tilt), 0 * tilt], axis=1)
    return np.hstack([rows[:, :3], four, 0 * tilt[:, None]])


def absolute(rows: np.ndarray) -> np.ndarray:
    """An action that is the position to go to, here that of the next row."""
    position = libero_values((len(rows),))[STATE, 0][:, :3] - [0, 0, 0.5]
    return np.hstack([np.vstack([position[1:], position[-1:]]), rows[:, 3:]])


@pytest.mark.parametrize(
    ("state", "action", "part"),
    [
        (quaternion, None, "are a quaternion: their length is 1 in every row"),
        (put(slice(6, 8), lambda rows: np.abs(rows[:, 6:8])), None, "fingers of LIBERO stay within 0.045 m"),
        (
            put(slice(0, 8), lambda rows: np.sin(np.arange(len(rows) * 8).reshape(-1, 8))),
            None,
            "columns for the fingers",
        ),
        (put(3, 7.0), None, "the axis-angle has a length of 7"),
        (None, put(6, lambda rows: np.linspace(0.02, 0.08, len(rows))), "the gripper command takes values between"),
        (None, put(1, lambda rows: 3 * rows[:, 1]), "controller steps stay within -1 .. 1"),
        (None, absolute, "the columns for steps follow the position"),
        (None, put(slice(0, 3), lambda rows: 0.02 * rows[:, :3]), "so steps are in other units, as of m"),
    ],
    ids=[
        "quaternion",
        "both fingers open",
        "joints",
        "long rotation",
        "gripper width",
        "large steps",
        "absolute",
        "steps in m",
    ],
)
@pytest.mark.parametrize("fps", [20, 10])
def test_a_franka_of_ones_own_is_not_libero(tmp_path, state, action, part, fps):
    """Its own rate and plain names; said in a warning; one who names the manifest is warned as well."""
    own = write_dataset(tmp_path / "own", replace(changed(LIBERO, state, action), fps=fps))
    chosen = choose_manifest([own], {})
    assert chosen.name == "lerobot-plain" and chosen.fps.hz == fps
    (told,) = Converter(chosen).discover(own).warnings
    assert "the features fit manifest lerobot-libero as well, which is not taken" in told and part in told
    named = [w for w in converter("lerobot-libero", gripper_action="recorded").discover(own).warnings if part in w]
    assert named and named[0].startswith("manifest lerobot-libero was named, but ")
    assert named[0].endswith("; leave --manifest out to convert them with the manifest that fits")


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_explains_that_evidence_stops_a_named_manifest_is_printed(tmp_path, run, dry):
    widths = put(6, lambda rows: np.linspace(0.02, 0.08, len(rows)))
    own, out = write_dataset(tmp_path / "own", changed(LIBERO, action=widths)), tmp_path / "o.zarr"
    ran = run("convert", "lerobot", own, "--out", out, "--manifest", "lerobot-libero", "--workers", 0, *dry)
    ran.refused(2, "gripper scale", "--accept gripper_scale=")
    first = ran.err.splitlines()[0]
    assert first.startswith("warning: manifest lerobot-libero was named, but ") and "leave --manifest out" in first


def exported(folder: Path, fps: float, label: int) -> None:
    """What `fwdata export lerobot` writes beside a store's rows."""
    (folder / "meta/fwdata.json").write_text(json.dumps({"fps": fps, "fps_label": label}))


def robotwin_like(folder: Path) -> Path:
    """A set of RoboTwin's features and rule of rows, at a rounded rate and with no name of it."""
    rows = {e: np.abs(np.sin(0.1 * np.arange(length + 1)[:, None] + np.arange(14))) for e, length in enumerate(LENGTHS)}
    values = {(STATE, e): found[:-1] for e, found in rows.items()} | {
        (ACTION, e): found[1:] for e, found in rows.items()
    }
    vectors = {STATE: 14, ACTION: 14}
    recipe = Recipe(fps=17, robot="aloha", cameras=ROBOTWIN_CAMERAS, vectors=vectors, values=values, **FEW)
    return write_dataset(folder, recipe)


def test_an_export_of_a_robotwin_store_is_robotwin_by_its_true_rate(tmp_path):
    root = robotwin_like(tmp_path / "set")
    assert choose_manifest([root], {}).name == "lerobot-plain"
    exported(root, 50 / 3, 17)
    assert choose_manifest([root], {}).name == "lerobot-robotwin"


@pytest.mark.parametrize(
    ("fps", "label", "expected"),
    [(19.6, 20, 19.6), (19.6, 30, 20), (25.0, 20, 20), (float("inf"), 20, 20), (20.0, 20, 20)],
    ids=["rounded", "info.json was changed", "another rate", "no number", "whole"],
)
def test_an_export_is_converted_at_its_true_rate(tmp_path, fps, label, expected):
    root = write_dataset(tmp_path / "set", changed(LIBERO, None, absolute))
    exported(root, fps, label)
    chosen = choose_manifest([root], {})
    assert chosen.name == "lerobot-plain" and chosen.fps.hz == expected
    made = Converter(chosen)
    read = [made.read(root, ref) for ref in made.discover(root).episodes]
    assert [int(episode.timestamp_ns[1]) for episode in read] == [round(1e9 / expected)] * 2
    assert choose_manifest([root], {"rate": 20.0}).fps.hz == 20


def test_libero_itself_is_recognised(tmp_path):
    root = write_dataset(tmp_path / "set", LIBERO)
    assert choose_manifest([root], {}).name == "lerobot-libero"
    assert not converter("lerobot-libero").discover(root).warnings
    ten = write_dataset(tmp_path / "ten", replace(LIBERO, fps=10))
    assert choose_manifest([ten], {}).name == "lerobot-libero"
    (told,) = converter("lerobot-libero").discover(ten).warnings
    assert told == "dataset: meta/info.json says 10 fps, the rows are stored at 20"


@pytest.mark.parametrize(
    ("state", "action", "chosen"),
    [
        (["x", "y", "z", "roll", "pitch", "yaw", "gripper", "gripper"], None, "lerobot-libero"),
        (["x", "y", "z", "qx", "qy", "qz", "qw", "gripper"], None, "lerobot-plain"),
        ([f"panda_joint{i}" for i in range(1, 8)] + ["gripper"], None, "lerobot-plain"),
        (None, [f"joint_{i}" for i in range(7)], "lerobot-plain"),
    ],
)
def test_names_contradict_positions(tmp_path, state, action, chosen):
    """The numbers alone would fit; what the columns are called decides."""
    root = write_dataset(tmp_path, replace(LIBERO, names={STATE: state, ACTION: action}))
    assert choose_manifest([root], {}).name == chosen
    if chosen == "lerobot-plain":
        assert "by its name, the mapping takes it for" in refusal(root, "lerobot-libero")


def dual_arm(fps: float, top: float = 1.0, robot: str = "agilex_piper", **changes: object) -> Recipe:
    values = {}
    for episode, length in enumerate(LENGTHS):
        rows = np.random.default_rng(episode).random((length + 1, 14)) * top
        values |= {(STATE, episode): rows[:-1], (ACTION, episode): rows[1:]}
    keys = {"cameras": ROBOTWIN_CAMERAS, "vectors": {STATE: 14, ACTION: 14}, "values": values}
    return Recipe(fps=fps, robot=robot, **{**FEW, **keys, **changes})


@pytest.mark.parametrize("top", [1.0, 0.07])
@pytest.mark.parametrize("fps", [15, 16, 17, 30, 50])
def test_a_dual_arm_whose_action_is_the_next_state_is_not_robotwin(tmp_path, fps, top):
    """Its label is its rate; RoboTwin's 16.67 only where the source says that it is RoboTwin."""
    root = write_dataset(tmp_path / "set", dual_arm(fps, top))
    chosen = choose_manifest([root], {})
    assert chosen.name == "lerobot-plain" and chosen.fps.hz == fps
    (told,) = Converter(chosen).discover(root).warnings
    assert "add --manifest lerobot-robotwin if these are its recordings" in told
    for place, recipe in (("robotwin_unified", dual_arm(fps, top)), ("x", dual_arm(fps, top, "RoboTwin-aloha"))):
        assert choose_manifest([write_dataset(tmp_path / place, recipe)], {}).name == "lerobot-robotwin"


def test_names_of_sides_decide_for_two_arms(tmp_path):
    """Right before left: RoboTwin's order is not the dataset's; R1 Lite's manifest finds columns by their names."""
    names = [f"{side}_{part}" for side in ("right", "left") for part in (*(f"joint_{i}" for i in range(6)), "gripper")]
    recipe = dual_arm(50, robot="robotwin", names={STATE: names, ACTION: names})
    root = write_dataset(tmp_path / "set", recipe)
    assert choose_manifest([root], {}).name == "lerobot-plain"
    assert "'right_joint_0' is of the right arm, the mapping takes it for left_joint_1" in refusal(
        root, "lerobot-robotwin"
    )
    shuffled = [names[i] for i in (3, 1, 0, 2, 5, 4, 6, 7, 9, 8, 10, 11, 12, 13)]
    r1 = replace(recipe, cameras=R1LITE_CAMERAS, robot="r1lite", fps=15, names={STATE: shuffled, ACTION: shuffled})
    own = write_dataset(tmp_path / "r1", r1)
    episode = read_all(own, choose_manifest([own], {}).name)[0]
    order = [7, 9, 8, 10, 11, 12, 13, 2, 1, 3, 0, 5, 4, 6]
    assert np.allclose(episode.state, r1.values[STATE, 0][:, order])


def test_shapes_and_rate_alone_do_not_make_an_r1_lite(tmp_path):
    keys = {"cameras": R1LITE_CAMERAS, "fps": 15}
    for robot, chosen in (("", "lerobot-plain"), ("unknown", "lerobot-plain"), ("r1lite", "lerobot-r1lite")):
        root = write_dataset(tmp_path / f"set{robot}", dual_arm(**{**keys, "robot": robot}))
        assert choose_manifest([root], {}).name == chosen


@pytest.mark.parametrize(
    ("name", "side", "kind"),
    [
        ("left_joint_1.pos", "left", "joint"),
        ("kRightShoulderPitch", "right", "joint"),
        ("/hdas/feedback_arm_left.position[0]", "left", "joint"),
        ("right_wrist_roll", "right", "joint"),
        ("left_gripper_open", "left", "gripper"),
        ("qw", None, "quaternion"),
        ("eef_x", None, "pose"),
        ("motor_3", None, None),
        ("l1", None, None),
    ],
)
def test_what_names_say(name, side, kind):
    assert (side_of(name), kind_of(name)) == (side, kind)
    assert contradiction("motor_3", "left_joint_1") is None


def edit_times(root: Path, fps: float, scale: float = 1.0) -> None:
    """Timestamps of another rate or unit."""
    for path in sorted(root.glob("data/*/*.parquet")):
        rows = pq.read_metadata(path).num_rows
        edit_table(path, "timestamp", pa.array(np.arange(rows) / fps * scale))


def test_a_label_that_contradicts_the_timestamps_is_asked_for(tmp_path):
    recipe = Recipe(fps=30, robot="x", cameras=("top",), vectors={STATE: 3, ACTION: 3}, **FEW)
    root = write_dataset(tmp_path, recipe)
    plain = choose_manifest([root], {})
    edit_times(root, 30, scale=1000)
    assert len(Converter(plain).discover(root).episodes) == 2  # milliseconds
    edit_times(root, 10)
    with pytest.raises(
        UsageError, match=r"says 30 fps, column timestamp steps by 0.1 s, 10 a second; say which"
    ) as caught:
        Converter(plain).discover(root)
    assert "--rate 30 or --rate 10" in str(caught.value)
    for rate in (10.0, 30.0):
        chosen = choose_manifest([root], {"rate": rate})
        assert chosen.fps.hz == rate
        own = chosen.model_copy(update={"options": {**chosen.options, "rate": rate}})
        episode = Converter(own).read(root, Converter(own).discover(root).episodes[0])
        assert episode.timestamp_ns[1] == round(1e9 / rate)
    own = write_dataset(tmp_path / "r1", Recipe())
    told = "option rate is 10, manifest 'lerobot-r1lite' has 15 rows per second; leave --rate out, or give a copy"
    assert refusal(own, rate=10.0).startswith(told)


def arms(scale: float, lengths: tuple[int, ...] = (20, 20)) -> dict[tuple[str, int], np.ndarray]:
    """One joint and one gripper that opens and closes."""
    values = {}
    for episode, length in enumerate(lengths):
        gripper = scale * (np.arange(length) % 10 < 5)
        joint = np.sin(np.arange(length) + episode)
        values |= {(key, episode): np.stack([joint, gripper], axis=1) for key in (STATE, ACTION)}
    return values


def gripper_set(folder: Path, values: dict[tuple[str, int], np.ndarray]) -> Path:
    names = {key: ["joint", "gripper"] for key in (STATE, ACTION)}
    recipe = Recipe(
        fps=30,
        robot="x",
        cameras=("top",),
        vectors={STATE: 2, ACTION: 2},
        names=names,
        values=values,
        lengths=(20, 20),
        pictures="png",
    )
    return write_dataset(folder, recipe)


def test_grippers_of_two_scales_do_not_share_a_store(tmp_path):
    gripper_set(tmp_path / "a", arms(1.0))
    gripper_set(tmp_path / "b", {key: rows + np.array([0.1, 0]) for key, rows in arms(1.0).items()})
    plain = choose_manifest([tmp_path], {})
    assert len(Converter(plain).discover(tmp_path).episodes) == 4
    gripper_set(tmp_path / "c", arms(100.0))
    with pytest.raises(UsageError, match=r"different scales, 0 .. 1 \(a, 2 datasets\), 0 .. 100 \(c, 1 dataset\)"):
        Converter(plain).discover(tmp_path)
    own = plain.model_copy(update={"options": {**plain.options, "gripper_unit": True, "gripper_scale": "auto"}})
    found = Converter(own).discover(tmp_path)
    grippers = [Converter(own).read(tmp_path, ref).action[:, 1].max() for ref in found.episodes]
    assert grippers == [1.0] * 6


def test_roots_of_two_scales_and_copies_are_refused_together(tmp_path):
    one, two = gripper_set(tmp_path / "a", arms(1.0)), gripper_set(tmp_path / "b", arms(0.07))
    with pytest.raises(UsageError, match="grippers are on different scales"):
        choose_manifest([one, two], {})
    three = gripper_set(tmp_path / "c", arms(1.0))
    with pytest.raises(UsageError, match="holds the same recordings as"):
        choose_manifest([one, three], {})
    assert choose_manifest([one, three], {"copies": "keep"}).name == "lerobot-plain"


def test_episodes_of_two_scales_in_one_dataset(tmp_path):
    values = {**arms(1.0), **{key: rows for key, rows in arms(100.0).items() if key[1] == 1}}
    root = gripper_set(tmp_path, values)
    with pytest.raises(
        UsageError, match=r"grippers of 1 of the first 2 episodes \(index 0\) are on the scale 0 .. 1, of the others"
    ):
        Converter(choose_manifest([root], {})).discover(root)
    quiet = arms(100.0)
    for key in (STATE, ACTION):
        quiet[key, 0][:, 1] = 0.4 + 0.01 * np.sin(np.arange(20))  # closed, with noise
    root = gripper_set(tmp_path / "quiet", quiet)
    assert len(Converter(choose_manifest([root], {})).discover(root).episodes) == 2


def test_what_is_left_out_by_name_is_no_reason_to_refuse(tmp_path, run):
    """Episodes and datasets on the other scale or at another rate; the store's own plan is followed, too."""
    values = {**arms(1.0), **{key: rows for key, rows in arms(100.0).items() if key[1] == 1}}
    gripper_set(tmp_path / "raw/a", values)
    gripper_set(tmp_path / "raw/b", {key: rows + np.array([0.2, 0]) for key, rows in arms(255.0).items()})
    own = ("--out", tmp_path / "s.zarr", "--workers", 0, "--no-evidence")
    command = ("convert", "lerobot", tmp_path / "raw", *own)
    alone = run("convert", "lerobot", tmp_path / "raw/a", *own)
    alone.refused(2, "grippers of 1 of the first 2 episodes", "--exclude, --only")
    run(*command, "--exclude", "a/episode_000001").refused(2, "grippers are on different scales")
    assert not (tmp_path / "s.zarr").exists()
    assert run(*command, "--exclude", "a/episode_000001", "--exclude", "b/*").code == 0
    assert run(*command).code == 0  # as its plan says
    assert [episode.id for episode in fwdata.open(tmp_path / "s.zarr").episodes] == ["a/episode_000000"]


@pytest.mark.parametrize("name", ["pick_old", "pick_backup", "a_copy", "pick_v2.1"])
def test_a_dataset_and_its_backup(tmp_path, name):
    """The backup is named and left out, whatever the order of the names; an option keeps both."""
    recipe = Recipe(lengths=(5, 7), tasks=(0, 1))
    write_dataset(tmp_path / "raw/pick", replace(recipe, version="v3.0"))
    write_dataset(tmp_path / "raw" / name, recipe)
    found = converter().discover(tmp_path / "raw")
    assert {ref.hints["dataset"] for ref in found.episodes} == {"pick"} and len(found.episodes) == 2
    assert [(s.source, s.damaged) for s in found.skipped] == [(name, False)]
    assert found.warnings == (found.skipped[0].reason,)
    assert f"{name} holds the same recordings as pick (2 episodes with equal rows)" in found.warnings[0]
    assert len(converter(copies="keep").discover(tmp_path / "raw").episodes) == 4


def test_of_two_snapshots_in_the_hubs_cache_that_of_the_main_branch_is_kept(tmp_path):
    cache = tmp_path / "datasets--me--pick"
    for commit in ("aaa", "bbb"):
        write_dataset(cache / "snapshots" / commit, Recipe(lengths=(5, 7), tasks=(0, 1)))
    (cache / "refs").mkdir()
    for commit in ("bbb", "aaa"):
        (cache / "refs/main").write_text(f"{commit}\n")
        found = converter().discover(tmp_path)
        assert {ref.hints["dataset"] for ref in found.episodes} == {f"datasets--me--pick/snapshots/{commit}"}
    (cache / "refs/main").write_text("ccc")  # not downloaded
    assert len(converter().discover(tmp_path).episodes) == 2


def test_what_a_backup_has_besides_is_kept(tmp_path):
    """Episodes that only one of the two has are converted; equal lengths alone are not equal recordings."""
    recipe = Recipe(lengths=(5, 7, 6), tasks=(0, 1, 0))
    write_dataset(tmp_path / "raw/set", Recipe(lengths=(5, 7), tasks=(0, 1)))
    write_dataset(tmp_path / "raw/set_old", recipe)
    found = converter().discover(tmp_path / "raw")
    assert [ref.id for ref in found.episodes] == ["set/episode_000000", "set/episode_000001", "set_old/episode_000002"]
    other = {key: Recipe().vectors[key] for key in Recipe().vectors}
    values = {(key, e): np.full((n, size), 2.0 + e) for key, size in other.items() for e, n in enumerate((5, 7))}
    write_dataset(tmp_path / "two/set", Recipe(lengths=(5, 7), tasks=(0, 1)))
    write_dataset(tmp_path / "two/other", Recipe(lengths=(5, 7), tasks=(0, 1), values=values))
    assert len(converter().discover(tmp_path / "two").episodes) == 4


def test_a_store_of_a_dataset_and_its_backup_holds_each_recording_once(tmp_path):
    write_dataset(tmp_path / "raw/pick", Recipe(version="v3.0"))
    write_dataset(tmp_path / "raw/pick_old", Recipe())
    report = run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest())
    assert report.episodes == 2 and [e.num_frames for e in fwdata.open(tmp_path / "s.zarr").episodes] == [5, 7]
    assert any("pick_old holds the same recordings" in text for text in report.warnings)


def test_libero_of_an_unnamed_robot(tmp_path):
    root = write_dataset(tmp_path, LIBERO)
    edit_info(root, robot_type=None)
    assert choose_manifest([root], {}).name == "lerobot-libero"
