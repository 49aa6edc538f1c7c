"""Commands that fix what detectors find, by how many episodes contradict."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fwdata.api import Skipped
from fwdata.doctor import checkup
from fwdata.doctor.checkup import left_out_finding
from fwdata.doctor.remedies import Patient, remedy
from fwdata.evidence.records import DatasetVerdict
from fwdata.install import library_command


def test_two_kinds_of_episodes_are_converted_apart() -> None:
    """No option suits both; where those that contradict are more than half, they are converted alone with it."""
    patient, option = Patient("raw", "libero", False), "--set gripper=open"
    found = DatasetVerdict(
        "gripper_polarity", "mixed", episodes_for=2, against=3, action="stop", episodes=("a", "b 1", "c")
    )
    alone = "fwdata convert libero raw --out NEW.zarr --only a --only 'b 1' --only c"
    assert remedy(patient, found, 5, option) == f"{alone} {option}  # the others without this, to another store"
    assert remedy(patient, found, 5) == f"{alone}  # the others without this, to another store"
    assert remedy(patient, found, 6, option).endswith("--exclude a --exclude 'b 1' --exclude c")
    many = replace(found, against=40, episodes=tuple(str(n) for n in range(12)))
    assert remedy(patient, many, 60, option).endswith("  # all 40 of them; the others without this, to another store")
    whole = replace(found, verdict="contradicted", episodes_for=0)
    assert remedy(patient, whole, 3, option) == f"fwdata convert libero raw --out NEW.zarr {option}"


def test_copies_are_left_out_however_many_they_are() -> None:
    """One of each stays."""
    patient = Patient("raw", "libero", False)
    found = DatasetVerdict(
        "duplicate_episodes", "contradicted", episodes_for=1, against=3, action="warn", episodes=("b", "c", "d")
    )
    assert remedy(patient, found, 4) == ("fwdata convert libero raw --out NEW.zarr --exclude b --exclude c --exclude d")
    many = replace(found, against=24, episodes=tuple(str(n) for n in range(12)))
    assert remedy(patient, many, 25).endswith("--exclude 11  # and 12 more: run the doctor again")


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("a.hdf5 is a Git LFS pointer of a file of 9 bytes, not its content; fetch the content: git lfs install && git "
         "lfs pull --include 'a.hdf5' in the cloned repository (all files: without --include), or download the dataset "
         "with `hf download`", "git -C raw lfs install && git -C raw lfs pull --include 'a.hdf5'"),
        ("incomplete download: 2 of 9 files are missing; fetch them: hf download OWNER/NAME --repo-type dataset "
         "--local-dir raw", "hf download OWNER/NAME --repo-type dataset --local-dir raw"),
        ("packed by HDF5 filter 32001 (blosc), which is not installed; pip install hdf5plugin, or set HDF5_PLUGIN_PATH",
         library_command("hdf5plugin")),
        ("action row 0 is no state; option actions = recorded keeps such targets as they are",
         "fwdata convert robotwin raw --out NEW.zarr --set actions=recorded"),
        ("a.mp4 contradicts the colours of head_camera; if it was rewritten, --colour rgb reads it as the video",
         "fwdata convert robotwin raw --out NEW.zarr --colour rgb"),
        ("a.hdf5 is empty (0 bytes)", "fwdata convert robotwin raw --out NEW.zarr --exclude a.hdf5"),
    ],
)  # fmt: skip
def test_recordings_that_cannot_be_read_come_with_a_command(reason: str, command: str) -> None:
    """From any folder; of a store the recording is tried again afterwards."""
    patient = Patient("raw", "robotwin", False)
    assert left_out_finding("unreadable", "warn", [Skipped("a.hdf5", reason)], 8, patient).command == command
    stored = Patient("s.zarr", "robotwin", True)
    again = left_out_finding("quarantined", "warn", [Skipped("a.hdf5", reason)], 8, stored).command
    assert "fwdata convert robotwin RAW --out s.zarr --retry-quarantined" in again
    assert ("git -C RAW lfs pull" in again) == ("lfs" in command)


@pytest.mark.parametrize(("size", "setting"), [((48, 64), " --set 'stitch.size=[32, 128]'"), ((64, 64), "")])
def test_cameras_that_are_left_are_stitched_in_a_size_that_can_be_encoded(size: tuple[int, int], setting: str) -> None:
    black = DatasetVerdict(
        "camera_content", "contradicted", "head", against=8, action="stop", episodes=tuple("abcdefgh")
    )
    stored = Patient("s.zarr", "robotwin", True, ("head", "left", "right"), camera_size=size)
    view = "fwdata view s.zarr --set stitch.layout=horizontal --set 'stitch.cameras=[left, right]'"
    assert remedy(stored, black, 8) == view + setting


def test_of_two_scales_in_as_many_episodes_each_is_converted_apart() -> None:
    patient = Patient("raw", "robotwin", False)
    found = DatasetVerdict(
        "one_scale", "contradicted", "state", episodes_for=2, against=2, action="stop", episodes=("a", "b")
    )
    alone = "fwdata convert robotwin raw --out NEW.zarr --only a --only b  # the others without this, to another store"
    assert remedy(patient, found, 8) == alone
    one = replace(found, episodes_for=3, against=1, episodes=("a",))
    assert remedy(patient, one, 8) == "fwdata convert robotwin raw --out NEW.zarr --exclude a"


def test_another_order_of_cameras_is_a_view() -> None:
    wrong = DatasetVerdict("wrists_exchanged", "contradicted", against=4, action="stop", episodes=("a", "b", "c", "d"))
    option = "stitch.cameras: [head, right, left]"
    view = "--set 'stitch.cameras=[head, right, left]'"
    assert remedy(Patient("s.zarr", "robotwin", True), wrong, 4, option) == f"fwdata view s.zarr {view}"
    assert remedy(Patient("raw", "robotwin", False), wrong, 4, option) == (
        "fwdata convert robotwin raw --out NEW.zarr --accept wrists_exchanged='the view makes it good' && "
        f"fwdata view NEW.zarr {view}"
    )


def test_what_a_conversion_recorded_is_not_repeated_where_it_follows_from_another_fault() -> None:
    held = DatasetVerdict("held_rows", "contradicted", against=1, action="warn", decided="a", episodes=("e1",))
    record = SimpleNamespace(verdicts=lambda: (held, replace(held, detector="camera_motion")), accepted=dict)
    found = checkup._recorded(record, [], Patient("s.zarr", "robotwin", True))
    assert [finding.detector for finding in found] == ["held_rows"]
