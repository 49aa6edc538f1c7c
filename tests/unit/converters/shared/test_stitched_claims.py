"""A view that stitches two cameras the other way round: what is then claimed of them, and what would agree."""

from __future__ import annotations

import pytest

from converters.libero import stored as libero
from converters.robotwin import conventions as robotwin
from fwdata.manifest import Manifest, load_manifest

JOINTS = [f"{side}_joint_{number}" for side in ("left", "right") for number in range(1, 7)]
NAMES = ((*JOINTS[:6], "left_gripper", *JOINTS[6:], "right_gripper"),) * 2


def stitching(name: str, *cameras: str) -> Manifest:
    """A built-in manifest with another order of its cameras."""
    manifest = load_manifest(name)
    return manifest.model_copy(update={"stitch": manifest.stitch.model_copy(update={"cameras": cameras})})


@pytest.mark.parametrize(
    ("cameras", "taken"),
    [
        (("head_camera", "left_camera", "right_camera"), ["left_camera", "right_camera"]),
        (("head_camera", "right_camera", "left_camera"), ["right_camera", "left_camera"]),
        (("right_camera", "head_camera", "left_camera"), ["left_camera", "right_camera"]),
        (("right_camera", "left_camera"), ["left_camera", "right_camera"]),
    ],
)
def test_only_an_exchange_of_both_wrists_is_taken_as_one(cameras: tuple[str, ...], taken: list[str]) -> None:
    manifest = stitching("robotwin", *cameras)
    found = robotwin.stored_conventions(manifest, NAMES, {})
    assert [arm.camera for arm in found.arms] == taken
    other = {"left_camera": "right_camera", "right_camera": "left_camera"}
    back = ", ".join(other.get(name, name) for name in cameras)
    assert found.options["wrists_exchanged"] == f"stitch.cameras: [{back}]"


def test_libero_with_its_cameras_the_other_way_round() -> None:
    names = (tuple("abcdefgh"), tuple("abcdefg"))
    assert not libero.stored_conventions(load_manifest("libero"), names, {}).reordered
    assert libero.stored_conventions(stitching("libero", "wrist_image", "image"), names, {}).reordered
    assert not libero.stored_conventions(stitching("libero", "image"), names, {}).reordered
