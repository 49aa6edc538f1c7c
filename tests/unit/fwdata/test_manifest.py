"""Manifests: where they are found, and what is said about wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from fixtures import PLUGINS

from fwdata.errors import ManifestError, UsageError
from fwdata.manifest import (
    Manifest,
    StitchSpec,
    check_stitched_size,
    load_manifest,
    manifest_names,
    parse_model,
    shared_manifest,
    validate_model,
)

TOY = yaml.safe_load((PLUGINS / "toy.yaml").read_text())


def reason(**changes: object) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_model(Manifest, yaml.safe_dump({**TOY, **changes}), "manifest x")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("manifest x")
    return str(caught.value)


def test_built_in_manifests_load_and_keep_the_published_settings() -> None:
    assert {"robotwin", "robotwin-sample"} <= set(manifest_names())
    for name in manifest_names():
        assert load_manifest(name).name == name
    found = load_manifest("robotwin")
    assert found.fps.hz == 250 / 15 and found.fps.nominal == 15
    assert found.stitch.size == (384, 320) and found.stitch.camera_size == (240, 320)
    assert found.split.val == 0.01 and found.split.seed == 42
    assert found.window.num_video_frames == 9


def test_a_text_read_twice_gives_data_of_its_own_and_deep_nesting_is_one_sentence() -> None:
    first = load_manifest("robotwin")
    assert load_manifest("robotwin") == first and load_manifest("robotwin").cameras is not first.cameras
    assert "name" in reason(name=[[]]) and "cameras" not in reason(name=[[]])
    with pytest.raises(ManifestError, match="manifest x must be a mapping"):
        parse_model(Manifest, "[" * 3000 + "]" * 3000, "manifest x")


def test_manifests_are_found_by_plugin_name_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**TOY, "name": "mine"}))
    assert load_manifest(str(path)).name == "mine"
    with pytest.raises(UsageError, match="no manifest 'toy'"):
        load_manifest("toy")
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    assert load_manifest("toy").fps.hz == 10 and "toy" in manifest_names()
    with pytest.raises(UsageError, match="no manifest 'tyo'; did you mean 'toy'"):
        load_manifest("tyo")
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "none"))
    assert "toy" not in manifest_names()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"camras": []}, ["unknown key 'camras'", "did you mean 'cameras'"]),
        ({"stitch": {**TOY["stitch"], "layuot": 1}}, ["unknown key 'stitch.layuot'", "did you mean 'stitch.layout'"]),
        ({"split": {"vall": 0.1}}, ["unknown key 'split.vall'", "did you mean 'split.val'"]),
        ({"fps": {"hz": "fast"}}, ["fps.hz"]),
        ({"fps": {"hz": 0}}, ["fps.hz"]),
        ({"split": {"val": 1.0}}, ["split.val"]),
        ({"name": "a/b"}, ["'a/b' must be a plain name"]),
        ({"prompt": "no place"}, ["prompt must contain {task} exactly once"]),
        ({"cameras": ["overhead"]}, ["stitch.cameras names ['wrist']"]),
        ({"stitch": {**TOY["stitch"], "cameras": ["wrist", "wrist"]}}, ["must be distinct"]),
        ({"window": {"num_frames": 30}}, ["window", "multiple of video_stride"]),
        ({"window": {"video_stride": 0}}, ["window.video_stride"]),
    ],
)
def test_wrong_keys_and_values_are_named(changes: dict[str, object], words: list[str]) -> None:
    found = reason(**changes)
    assert all(word in found for word in words), found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cameras": "front"}, "cameras: must be a list, found 'front'"),
        ({"cameras": [1, "b"]}, "cameras.0: must be text, found 1"),
        ({"cameras": ["a", "a"]}, "cameras: cameras must be distinct, found ['a', 'a']"),
        ({"stitch": {"layout": "horizontl", "camera_size": [32, 32]}}, "did you mean 'horizontal'?"),
        (
            {"stitch": {"layout": "horizontal", "camera_size": [True, 32]}},
            "stitch.camera_size.0: must be a whole number",
        ),
        ({"stitch": {"layout": "horizontal", "camera_size": [32]}}, "stitch.camera_size: needs 2 values"),
        ({"fps": float("inf")}, "fps.hz: must be a finite number, found inf"),
    ],
)
def test_one_fault_is_one_sentence(changes: dict[str, object], said: str) -> None:
    """What only follows from it is not said: a size that cannot be computed, cameras that `stitch` took over."""
    stitch = {"layout": "horizontal", "camera_size": [32, 32]}
    with pytest.raises(ManifestError) as caught:
        validate_model(Manifest, {**TOY, "stitch": stitch, **changes}, "manifest x")
    assert said in str(caught.value) and ";" not in str(caught.value).replace("; did you mean", "")


def test_a_fault_of_yaml_says_its_place() -> None:
    with pytest.raises(ManifestError, match="not valid YAML: line 2, column 3: expected"):
        parse_model(Manifest, "a: [1\n b: 2", "manifest x")


def test_text_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    for text, word in (("[1, 2]", "mapping"), ("a: b: c", "not valid YAML"), ("", "mapping")):
        with pytest.raises(ManifestError, match=word) as caught:
            parse_model(Manifest, text, "manifest x")
        assert "\n" not in str(caught.value)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ManifestError, match="not UTF-8"):
        load_manifest(str(tmp_path / "latin.yaml"))


def test_digest_depends_on_every_choice() -> None:
    base = load_manifest("robotwin")
    changed = base.model_copy(update={"options": {"instructions": "unseen"}})
    assert base.digest() == load_manifest("robotwin").digest() != changed.digest()


def test_prompt_is_rendered_literally() -> None:
    found = load_manifest("robotwin").render_prompt("press {x} & {task}")
    assert found.endswith("following instruction: press {x} & {task}") and found.startswith("A video recorded")


def test_a_misspelt_key_is_named_before_the_one_it_leaves_missing() -> None:
    text = "name: x\nconverter: toy\nfpss: {hz: 10}\n"
    with pytest.raises(ManifestError, match="unknown key 'fpss'; did you mean 'fps'"):
        parse_model(Manifest, text, "manifest x")


def toy(**changes: object) -> Manifest:
    return parse_model(Manifest, yaml.safe_dump({**TOY, **changes}), "manifest x")


def test_what_repeats_itself_may_be_left_out() -> None:
    found = toy(fps=20, stitch={"layout": "horizontal", "camera_size": [32, 64]})
    assert found.fps.model_dump() == {"hz": 20.0, "nominal": None}
    assert found.stitch.cameras == ("overhead", "wrist") and found.stitch.size == (32, 128)
    assert toy(stitch={"layout": "vertical", "size": [64, 96]}).stitch.camera_size == (32, 96)
    assert "the width 33 of size cannot be divided among 2 cameras" in reason(
        stitch={"layout": "horizontal", "size": [32, 33]}
    )
    assert toy() == toy(stitch={"layout": "horizontal", "camera_size": [32, 32]})


def test_the_stitched_size_is_checked_when_the_manifest_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**TOY, "stitch": {"layout": "horizontal", "camera_size": [48, 24]}}))
    with pytest.raises(ManifestError, match=r"stitched image of 48x48 must be a multiple of 32 .* nearest"):
        load_manifest(str(path))


def test_all_faults_are_listed_in_plain_words() -> None:
    found = reason(
        fps="fast",
        cameras="wrist",
        stitch={"layout": "diagonal", "camera_size": [32]},
        split={"val": "x", "seed": 1.5},
        window=3,
        prompt=7,
        units={"state": 1},
    )
    for words in (
        "fps: must be a number of Hz, or a mapping of hz and nominal, found 'fast'",
        "cameras: must be a list, found 'wrist'",
        "stitch.layout: must be 'horizontal', 'vertical' or 'robotwin', found 'diagonal'",
        "stitch.camera_size: needs 2 values",
        "split.val: must be a number, found 'x'",
        "window: must be a mapping of keys to values, found 3",
    ):
        assert words in found, found
    assert "nput" not in found and "valid" not in found
    assert "split.seed: must be a whole number, found 1.5" in reason(split={"seed": 1.5})
    assert "prompt: must be text, found 7" in reason(prompt=7)
    assert "units.state: must be text, found 1" in reason(units={"state": 1})


def test_a_manifest_is_a_source_and_a_view() -> None:
    found = load_manifest("robotwin")
    both = {**found.source().model_dump(), **found.view.model_dump(), "name": "robotwin"}
    assert both.pop("version") == 1
    assert both == found.model_dump()


@pytest.mark.parametrize("layout", ["horizontal", "vertical", "robotwin"])
@pytest.mark.parametrize("size", [(48, 48), (50, 50), (1, 1), (96, 48), (100, 700), (224, 449)])
def test_a_suggested_size_is_accepted(layout: str, size: tuple[int, int]):
    cameras = ("a", "b", "c")
    with pytest.raises((ManifestError, ValueError)) as refused:
        check_stitched_size(_stitch(layout, cameras, size), "here")
    found = re.search(r"the nearest size .* is \[(\d+),(\d+)\]", str(refused.value))
    assert found is not None, refused.value
    check_stitched_size(_stitch(layout, cameras, (int(found[1]), int(found[2]))), "here")


@pytest.mark.parametrize(
    ("given", "change"),
    [
        ({"layout": "horizontal", "cameras": ["a"], "camera_size": [224, 224], "size": [224, 448]}, "size"),
        ({"layout": "vertical", "cameras": ["a", "b"], "camera_size": [50, 50], "size": [96, 64]}, "camera_size"),
        ({"layout": "horizontal", "cameras": ["a", "b"], "camera_size": [48, 64], "size": [96, 64]}, "camera_size"),
        ({"layout": "vertical", "cameras": ["a", "b"], "camera_size": [50, 50], "size": [97, 64]}, "camera_size"),
    ],
)
def test_advice_on_two_sizes_that_do_not_fit_is_not_what_was_given(given: dict[str, object], change: str) -> None:
    """As where a camera is left out of `cameras` alone: what is asked for must not be what is there."""
    with pytest.raises(ValueError, match="joined size") as refused:
        StitchSpec.model_validate(given)
    found = re.search(r"(?:is|as) \[(\d+),(\d+)\]", str(refused.value))
    assert found is not None, refused.value
    assert ("give it without camera_size" in str(refused.value)) == (change == "camera_size")
    kept = {key: value for key, value in given.items() if change == "size" or key != change}
    check_stitched_size(StitchSpec.model_validate({**kept, "size": [int(found[1]), int(found[2])]}), "here")


def _stitch(layout: str, cameras: tuple[str, ...], size: tuple[int, int]) -> StitchSpec:
    given = {"layout": layout, "cameras": cameras, "size": size}
    return StitchSpec.model_validate(given | ({"camera_size": (48, 64)} if layout == "robotwin" else {}))


def test_a_shared_manifest_is_read_again_when_its_text_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TOY))
    first = shared_manifest("mine")
    assert shared_manifest("mine") is first and first == load_manifest("mine") is not first
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**TOY, "prompt": "now {task}"}))
    assert shared_manifest("mine").prompt == "now {task}"
    (tmp_path / "mine.yaml").write_text("nonsense: 1")
    for _ in range(2):
        with pytest.raises(ManifestError, match="manifest mine"):
            shared_manifest("mine")
