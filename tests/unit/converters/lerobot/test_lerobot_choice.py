"""Which manifest a LeRobot dataset gets when none is named, and datasets that are fetched from the hub."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from fixtures import run_convert
from lerobot_files import (
    LIBERO_CAMERAS,
    R1LITE,
    R1LITE_CAMERAS,
    ROBOTWIN_CAMERAS,
    Recipe,
    edit_info,
    libero_values,
    write_dataset,
)
from typer.testing import CliRunner

import fwdata
from converters.lerobot import choose_manifest
from fwdata.cli import app, main
from fwdata.errors import UsageError
from fwdata.manifest import built_in_path
from fwdata.pipeline.choose import manifest_for
from fwdata.pipeline.estimate import dry_run
from fwdata.pipeline.request import ConvertRequest

STATE, ACTION = "observation.state", "action"
ROBOTWIN_KEYS = {"cameras": ROBOTWIN_CAMERAS, "vectors": {STATE: 14, ACTION: 14}}
LIBERO_KEYS = {"cameras": LIBERO_CAMERAS, "vectors": {STATE: 8, ACTION: 7}, "values": libero_values((4, 3))}
ROBOCOIN_KEYS = {
    "cameras": tuple(f"observation.images.cam_{n}_rgb" for n in ("high", "left_wrist", "right_wrist")),
    "vectors": {STATE: 14, ACTION: 14},
}
LEROBOT = {"pictures": "png", "lengths": (4, 3)}


def next_rows(lengths: tuple[int, ...] = (4, 3), size: int = 14) -> dict[tuple[str, int], np.ndarray]:
    """States in 0 .. 1 whose action is the next state, as RoboTwin's converters write them."""
    values = {}
    for episode, length in enumerate(lengths):
        recorded = np.random.default_rng(episode).random((length + 1, size), np.float32)
        values |= {(STATE, episode): recorded[:-1], (ACTION, episode): recorded[1:]}
    return values


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe(fps=20, robot="panda", **LIBERO_KEYS, **LEROBOT), "lerobot-libero"),
        (Recipe(fps=10, robot="Franka Emika", **LIBERO_KEYS, **LEROBOT), "lerobot-libero"),
        (Recipe(fps=50, robot="robotwin_aloha", values=next_rows(), **ROBOTWIN_KEYS, **LEROBOT), "lerobot-robotwin"),
        (Recipe(fps=17, robot="aloha", values=next_rows(), **ROBOTWIN_KEYS, **LEROBOT), "lerobot-plain"),
        (Recipe(fps=50, robot="aloha", values=next_rows(), **ROBOTWIN_KEYS, **LEROBOT), "lerobot-plain"),
        (Recipe(fps=30, robot="unknown", values=next_rows(), **ROBOTWIN_KEYS, **LEROBOT), "lerobot-plain"),
        (Recipe(version="v3.0", **LEROBOT), "lerobot-r1lite"),
        (Recipe(fps=15, robot="R1_LITE", **LEROBOT), "lerobot-r1lite"),
        (Recipe(fps=30, robot="r1_lite_v2", **ROBOCOIN_KEYS, **LEROBOT), "lerobot-robocoin"),
        (Recipe(fps=25, robot="aloha", values=next_rows(), **ROBOTWIN_KEYS, **LEROBOT), "lerobot-plain"),
        (Recipe(fps=50, robot="aloha", **ROBOTWIN_KEYS, **LEROBOT), "lerobot-plain"),
        (Recipe(fps=30, robot="agilex_cobot", **ROBOCOIN_KEYS, **LEROBOT), "lerobot-plain"),
        (Recipe(fps=20, robot="so100", **LIBERO_KEYS, **LEROBOT), "lerobot-plain"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.robot}-{value.fps}",
)
def test_the_manifest_that_fits_is_chosen(tmp_path, recipe, name):
    """Rate and robot belong to the fit; a real ALOHA robot has RoboTwin's features, and may have its kind of rows."""
    assert choose_manifest([write_dataset(tmp_path, recipe)], {}).name == name


def test_grippers_outside_robotwins_range_are_another_robot(tmp_path):
    values = {key: rows * np.float32(2) for key, rows in next_rows().items()}
    write_dataset(tmp_path, Recipe(fps=50, robot="aloha", values=values, **ROBOTWIN_KEYS, **LEROBOT))
    assert choose_manifest([tmp_path], {}).name == "lerobot-plain"


def test_without_a_manifest_from_the_command_line(tmp_path, monkeypatch, capsys):
    """The choice is printed, and in the metadata with its reason; the store's manifest is the resolved one."""
    root = write_dataset(tmp_path / "set", Recipe(lengths=(4, 3)))
    run(monkeypatch, root, tmp_path / "out")
    assert "manifest lerobot-r1lite: Galaxea R1 Lite" in capsys.readouterr().err
    store = fwdata.open(tmp_path / "out")
    assert store.manifest == manifest_for("lerobot", "lerobot-r1lite", {})
    reason = "lerobot-r1lite: the only one that fits the features, rate and robot"
    assert store.metadata["decisions"]["manifest"] == reason
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "out").rglob("*"))
    run(monkeypatch, root, tmp_path / "out", "--manifest", "lerobot-r1lite")  # the same choice by name: nothing to do
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "out").rglob("*")) == before


def test_a_named_manifest_is_told_apart(tmp_path, monkeypatch):
    root = write_dataset(tmp_path / "set", Recipe(fps=50, robot="aloha", **ROBOTWIN_KEYS, **LEROBOT))
    run(monkeypatch, root, tmp_path / "out", "--manifest", "lerobot-robotwin")
    store = fwdata.open(tmp_path / "out")
    assert store.metadata["decisions"]["manifest"] == "lerobot-robotwin: named by the user"


def test_a_camera_that_is_not_stitched_is_named_with_a_command_that_works(tmp_path, monkeypatch, capsys):
    cameras = tuple(f"observation.images.{name}" for name in ("front", "left", "right", "wrist"))
    recipe = Recipe(fps=30, robot="mobile", cameras=cameras, vectors={STATE: 2, ACTION: 2}, **LEROBOT)
    run(monkeypatch, write_dataset(tmp_path / "set", recipe), tmp_path / "out")
    told = capsys.readouterr().err
    assert "not stitched: wrist: stored, but not in the image that a policy sees" in told
    done = CliRunner().invoke(app, shlex.split(re.search("fwdata (view .*)", told)[1]))
    assert done.exit_code == 0, done.output
    stitch = fwdata.open(tmp_path / "out").manifest.stitch
    assert stitch.cameras == ("front", "left", "right", "wrist") and stitch.size == (224, 896)


def test_plain_features_need_no_manifest(tmp_path, monkeypatch, capsys):
    """Any arm with one state and one action: its cameras side by side, its own rate and names."""
    names = {STATE: ["pan", "lift"], ACTION: ["pan", "lift"]}
    cameras = ("observation.images.up", "observation.images.side")
    recipe = Recipe(fps=30, robot="so100", cameras=cameras, vectors={STATE: 2, ACTION: 2}, names=names, **LEROBOT)
    run(monkeypatch, write_dataset(tmp_path / "set", recipe), tmp_path / "out")
    assert (
        "manifest lerobot-plain: LeRobot dataset as meta/info.json describes it, 2 cameras" in capsys.readouterr().err
    )
    store = fwdata.open(tmp_path / "out")
    assert store.cameras == ("up", "side") and store.manifest.fps.hz == 30
    assert store.manifest.stitch.size == (224, 448) and store.state_names == ("pan", "lift")
    assert store.metadata["decisions"]["manifest"].startswith("lerobot-plain: made from meta/info.json")
    run(monkeypatch, tmp_path / "set", tmp_path / "out")
    assert [e.num_frames for e in fwdata.open(tmp_path / "out").episodes] == [4, 3]


@pytest.mark.parametrize(
    ("cameras", "stitched"),
    [
        (("top", "left_wrist", "right_wrist", "low"), ("top", "left_wrist", "right_wrist")),
        (("cam_right_wrist", "cam_left_wrist", "cam_high"), ("cam_high", "cam_left_wrist", "cam_right_wrist")),
        (("left", "right"), None),
        (("top", "head", "left", "right"), None),
    ],
)
def test_head_and_two_wrists_are_stitched_as_robotwins(tmp_path, cameras, stitched):
    keys = tuple(f"observation.images.{name}" for name in cameras)
    recipe = Recipe(fps=50, robot="yam", cameras=keys, vectors={STATE: 3, ACTION: 3}, **LEROBOT)
    chosen = choose_manifest([write_dataset(tmp_path, recipe)], {})
    assert chosen.cameras == cameras
    assert chosen.stitch.cameras == (stitched or cameras)
    assert chosen.stitch.layout == ("robotwin" if stitched else "horizontal")


def test_options_fill_in_a_plain_mapping(tmp_path, monkeypatch):
    recipe = Recipe(fps=30, cameras=("top", "wrist"), vectors={"qpos": 3, "target": 2}, **LEROBOT)
    root = write_dataset(tmp_path / "set", recipe)
    told = refusal(root)
    assert "fits no published mapping, and it has no feature 'observation.state' of 1 to 4096 numbers; copy" in told
    assert "or give --state and --action here (cameras top, wrist; numbers qpos (3), target (2)" in told
    run(
        monkeypatch,
        root,
        tmp_path / "out",
        "--set",
        "state=qpos",
        "--set",
        "action=target",
        "--set",
        "cameras={a: top}",
    )
    store = fwdata.open(tmp_path / "out")
    assert store.cameras == ("a",) and store.state_names == ("qpos_0", "qpos_1", "qpos_2")
    assert "option cameras must map our names to feature keys" in refusal(
        root, cameras=3, state="qpos", action="target"
    )


def test_no_or_several_fitting_manifests_are_one_sentence(tmp_path, monkeypatch):
    blind = write_dataset(tmp_path / "blind", Recipe(fps=30, cameras=(), vectors={STATE: 2, ACTION: 2}, **LEROBOT))
    assert f"and it has no images; copy {built_in_path('lerobot')}, fill in" in refusal(blind)
    vectors, depth = {STATE: 2, ACTION: 2}, "observation.images.depth"
    deep = write_dataset(tmp_path / "deep", Recipe(fps=30, cameras=(depth,), vectors=vectors, **LEROBOT))
    assert f"and it has no images of colours, only distances ({depth}); copy" in refusal(deep)
    both = tmp_path / "both"
    write_dataset(both / "a", Recipe(fps=30, robot="x", cameras=("c",), vectors={STATE: 2, ACTION: 2}, **LEROBOT))
    write_dataset(both / "b", Recipe(fps=25, robot="x", cameras=("c",), vectors={STATE: 2, ACTION: 2}, **LEROBOT))
    told = refusal(both)
    assert (
        "two rates: a has 30 rows per second by meta/info.json, b has 25 rows per second by meta/info.json; a" in told
    )
    edit_info(both / "b", fps=30, features=json.loads((blind / "meta/info.json").read_text())["features"])
    told = refusal(both)
    assert "one of its datasets has no camera 'c'" in told and "with --cameras" in told and "copy" not in told
    (tmp_path / "plugins").mkdir()
    own = manifest_for("lerobot", "lerobot-r1lite", {}).model_copy(update={"name": "mine"})
    (tmp_path / "plugins/mine.yaml").write_text(own.model_dump_json())
    (tmp_path / "plugins/broken.yaml").write_text("name: [")
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "plugins"))
    root = write_dataset(tmp_path / "set", Recipe(**LEROBOT))
    assert "fits the manifests lerobot-r1lite and mine: add --manifest with one of them" in refusal(root)


def test_why_a_backup_is_left_out_is_said_once(tmp_path, monkeypatch, capsys):
    """By a dry run, the conversion and `inspect`; what was neither decided nor measured is no line either."""
    write_dataset(tmp_path / "raw/pick", Recipe(version="v3.0"))
    write_dataset(tmp_path / "raw/pick_old", Recipe())
    raw, out = str(tmp_path / "raw"), str(tmp_path / "s.zarr")
    convert = ["convert", "lerobot", raw, "--out", out, "--workers", "0"]
    for command in ([*convert, "--dry-run"], convert, ["inspect", out]):
        monkeypatch.setattr("sys.argv", ["fwdata", *command])
        with pytest.raises(SystemExit):
            main()
        told = "".join(capsys.readouterr())
        assert told.count("holds the same recordings as pick") == 1 and "pick_old: pick_old" not in told
    assert "evidence" in told and "measured nothing" not in told and "decided warnings" not in told


def test_datasets_of_two_kinds_are_named_with_what_each_fits(tmp_path):
    """Each converts alone: neither the first one's features nor a mapping of one's own is the answer."""
    for first, second in ("ab", "ba"):
        root = tmp_path / first
        write_dataset(root / first, Recipe(**LEROBOT))
        plain = Recipe(fps=30, robot="x", cameras=("c",), vectors={STATE: 2, ACTION: 2}, **LEROBOT)
        write_dataset(root / second, plain)
        fits = {first: "lerobot-r1lite", second: "no published mapping"}
        told = refusal(root)
        assert f"{root / 'a'} fits {fits['a']}, {root / 'b'} fits {fits['b']}; a store holds datasets of one" in told
        assert "copy" not in told


def test_unreadable_datasets(tmp_path):
    root = write_dataset(tmp_path / "set", Recipe(**LEROBOT))
    (root / "meta/info.json").write_text("{")
    assert "meta/info.json is not valid JSON" in refusal(root)
    shutil.copytree(root, tmp_path / "two/a")
    shutil.copytree(root, tmp_path / "two/b")
    assert "and 1 more dataset cannot be read" in refusal(tmp_path / "two")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Callable[[Path], list[str]]:
    """A hub with one dataset, laid out in the cache as huggingface_hub does: links to numbered files."""
    cache = tmp_path / "cache/datasets--someone--set"

    def serve(source: Path) -> list[str]:
        asked: list[str] = []

        def download(name: str, *, repo_type: str, revision: str | None, allow_patterns: list[str]) -> str:
            assert (name, repo_type) == ("someone/set", "dataset") and revision in {"v1", COMMIT}
            snapshot = cache / "snapshots" / COMMIT
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                relative = path.relative_to(source).as_posix()
                target = snapshot / relative
                if target.exists() or not any(fnmatch.fnmatch(relative, pattern) for pattern in allow_patterns):
                    continue
                asked.append(relative)
                blob = cache / "blobs" / f"{len(asked):040x}"
                for folder in (blob.parent, target.parent):
                    folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, blob)
                target.symlink_to(blob)
            return str(snapshot)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        return asked

    return serve


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_dataset_of_the_hub(tmp_path, monkeypatch, hub, version):
    """Only what is used is downloaded; the commit is in the metadata; a repeated run downloads and writes nothing."""
    recipe = Recipe(version=version, cameras=(*R1LITE_CAMERAS, "observation.images.head_right_rgb"), vectors=R1LITE)
    source = write_dataset(tmp_path / "source", replace(recipe, lengths=(4, 3), tasks=(0, 1)))
    (source / "README.md").write_text("not needed")
    asked = hub(source)
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "someone/set", tmp_path / "out", "--set", "revision=v1")
    assert not [name for name in asked if "head_right_rgb" in name or name == "README.md"]
    assert {name.split("/")[0] for name in asked} == {"meta", "data", "videos"}
    store = fwdata.open(tmp_path / "out")
    assert [e.num_frames for e in store.episodes] == [4, 3]
    (told,) = store.metadata["decisions"]["datasets"].values()
    assert told["hub_dataset"] == "someone/set" and told["hub_revision"] == COMMIT
    assert store.episodes[0].metadata["hub_revision"] == COMMIT
    count = len(asked)
    run(monkeypatch, "someone/set", tmp_path / "out", "--set", "revision=v1")
    assert len(asked) == count


@pytest.mark.slow
def test_the_first_episodes_of_a_large_dataset_of_the_hub(tmp_path, monkeypatch, hub):
    asked = hub(write_dataset(tmp_path / "source", Recipe(lengths=(4, 3, 5), tasks=(0, 0, 0))))
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "someone/set", tmp_path / "out", "--set", "revision=v1", "--set", "max_episodes=2")
    assert [e.num_frames for e in fwdata.open(tmp_path / "out").episodes] == [4, 3]
    assert len([name for name in asked if name.endswith(".parquet")]) == 2
    assert not [name for name in asked if "000002" in name]


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("no route\nto host"), OSError("disk"), ValueError("bad"), FileNotFoundError()]
)
def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch, error):
    def fails(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    monkeypatch.chdir(tmp_path)
    from fwdata.pipeline.registry import located

    with pytest.raises(UsageError) as caught:
        located("lerobot", Path("someone/set"), None, {"revision": "v1"})
    assert "there is no folder someone/set, and the dataset of that name at revision 'v1' cannot be fetched" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"there is no folder someone/set/deep; give a LeRobot dataset"):
        located("lerobot", Path("someone/set/deep"), None, {})
    assert located("robotwin", Path("someone/set"), None, {}) == Path("someone/set")


def refusal(root: Path, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        choose_manifest([root], options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run(monkeypatch: pytest.MonkeyPatch, root: object, out: Path, *more: str) -> None:
    """`fwdata convert lerobot`, which must end well."""
    monkeypatch.setattr(
        "sys.argv", ["fwdata", "convert", "lerobot", str(root), "--out", str(out), "--workers", "0", *more]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


def test_datasets_of_several_robots_are_not_mixed(tmp_path):
    for name, robot in (("a", "r1lite"), ("b", "R1_LITE"), ("c", "")):
        write_dataset(tmp_path / "raw" / name, Recipe(robot=robot, lengths=(3,), tasks=(0,)))
    with pytest.raises(UsageError, match=r"several embodiments, R1_LITE \(1\), r1lite \(1\), .*named by --embodiment"):
        run_convert(
            tmp_path / "raw", tmp_path / "s.zarr", manifest_for("lerobot", "lerobot-r1lite", {"embodiment": None})
        )
    named = manifest_for("lerobot", "lerobot-r1lite", {"embodiment": "r1lite"})
    assert run_convert(tmp_path / "raw", tmp_path / "s.zarr", named).episodes == 3
    free, unsaid = manifest_for("lerobot", "lerobot-r1lite", {"embodiment": None}), "1 of 2 recordings does not name"
    for roots, said in ((("a", "c"), True), (("a",), False), (("c",), False)):
        request = ConvertRequest("lerobot", tuple(tmp_path / "raw" / n for n in roots), tmp_path / "o.zarr", free, 0)
        assert any(unsaid in text for _, text in dry_run(request).warnings) == said
