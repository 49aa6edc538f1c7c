"""Evidence in a conversion: what stops it, what leaves a recording out, what warns, and what is recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fixtures import run_convert, toy_manifest, tree, write_toy
from libero_files import paint
from moving_libero import COMMAND, ROWS, TASK, write_libero
from numpy.typing import NDArray

import fwdata
from fwdata.cli import app
from fwdata.console import run_app
from fwdata.errors import UsageError
from fwdata.evidence.records import EpisodeMeasurement, Verdict
from fwdata.manifest import Manifest, load_manifest
from fwdata.pipeline import evidence, first_look, run
from fwdata.pipeline.estimate import dry_run
from fwdata.pipeline.evidence import EvidenceGate
from fwdata.pipeline.first_look import FirstLook, Outliers, look_first
from fwdata.pipeline.part import RecordingOutcome
from fwdata.pipeline.request import ConvertRequest
from fwdata.report.inspect_store import describe
from fwdata.report.preview import write_preview
from fwdata.store.evidence import read_evidence
from fwdata.store.verify import verify_store

type Thumbnails = Mapping[str, NDArray[np.uint8]]


def invert(demo: h5py.Group) -> None:
    """Gripper commands the other way round."""
    demo["actions"][:, 6] = -demo["actions"][:, 6]


def main(arguments: list[str]) -> int:
    """Exit code of `fwdata ARGUMENTS`, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["fwdata", *arguments])
        run_app(app)
    return int(ended.value.code or 0)


def libero_manifest(**options: str) -> Manifest:
    """The published manifest with options."""
    manifest = load_manifest("libero")
    return manifest.model_copy(update={"options": {**manifest.options, **options}})


def blacken(demo: h5py.Group) -> None:
    """A camera that records nothing."""
    paint(demo["obs/agentview_rgb"], 0)


def libero(root: Path, out: Path, **request: object):
    """Convert in this process, with the gripper as published: measured otherwise, it would follow an inverted one."""
    return run_convert(root, out, libero_manifest(gripper="plus_closes"), **request)


def request_of(root: Path, out: Path) -> ConvertRequest:
    """What `libero` asks for."""
    return ConvertRequest("libero", (root,), out, libero_manifest(gripper="plus_closes"), 0)


def in_another_unit(demo: h5py.Group, position: float, rotation: float) -> None:
    """End effector in mm or degrees, without the simulator's own values to compare with."""
    for name, columns, factor in (("ee_pos", slice(3), position), ("ee_ori", slice(3), rotation)):
        demo[f"obs/{name}"][:, columns] = demo[f"obs/{name}"][:, columns] * factor
    demo["obs/ee_states"][...] = np.concatenate([demo["obs/ee_pos"], demo["obs/ee_ori"]], axis=1)
    del demo["robot_states"]


@pytest.mark.parametrize(("position", "rotation", "unit"), [(1000, 1, "cm or mm"), (1, 180 / np.pi, "degrees")])
def test_a_state_in_another_unit_stops_a_conversion_of_one_demonstration(
    tmp_path: Path, position: float, rotation: float, unit: str
) -> None:
    def change(number: int, demo: h5py.Group) -> None:
        in_another_unit(demo, position, rotation)

    raw, out = write_libero(tmp_path / "raw", 1, change), tmp_path / "o.zarr"
    with pytest.raises(UsageError, match=rf"unit of the state .*1 of 1 .* '{unit}, by their size'.*convert"):
        libero(raw, out)
    assert not out.exists()


@pytest.mark.slow
def test_a_contradiction_stops_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = write_libero(tmp_path / "raw", 4, lambda number, demo: invert(demo)), tmp_path / "o.zarr"
    with pytest.raises(UsageError, match="gripper gripper: decided 'larger command opens', but 4 of 4") as error:
        libero(raw, out)
    assert "larger command closes" in str(error.value) and '--accept gripper_polarity="why"' in str(error.value)
    assert not out.exists()
    for arguments in ([], ["--dry-run"]):
        assert main([*COMMAND, str(raw), "--out", str(out), *arguments]) == 2
        assert "--accept gripper_polarity" in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.slow
def test_an_accepted_contradiction_converts_and_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = write_libero(tmp_path / "raw", 3, lambda number, demo: invert(demo)), tmp_path / "o.zarr"
    command = [*COMMAND, str(raw), "--out", str(out)]
    assert main([*command, "--accept", "gripper_polarity"]) == 2
    assert main([*command, "--accept", "gripper=x"]) == 2
    assert "give a reason" in capsys.readouterr().err
    assert main([*command, "--accept", "a1=the fingers are mounted the other way"]) == 0
    assert "accepted: the fingers are mounted" in " ".join(capsys.readouterr().err.split())
    store = fwdata.open(out)
    record = read_evidence(store.files)
    assert record is not None
    [polarity] = [v for v in record.verdicts() if v.detector == "gripper_polarity"]
    assert (polarity.verdict, polarity.against) == ("contradicted", 3)
    assert record.accepted() == {"gripper_polarity": "the fingers are mounted the other way"}
    assert len(store.episodes) == 3
    assert main(command) == 0  # goes on with what was accepted
    capsys.readouterr()
    assert main(["inspect", str(out)]) == 0
    [shown] = [line for line in capsys.readouterr().out.splitlines() if "larger command opens" in line]
    assert "contradicted by 3" in shown and shown.endswith("; accepted: the fingers are mounted the other way")
    assert main(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accepted"] == record.accepted()


@pytest.mark.slow
def test_a_later_contradiction_leaves_its_recording_out(tmp_path: Path) -> None:
    raw = write_libero(tmp_path / "raw", 12, lambda number, demo: invert(demo) if number == 1 else None)
    report = libero(raw, tmp_path / "o.zarr")
    [(source, reason)] = report.quarantined
    assert source.endswith("#demo_1") and reason.startswith("the data contradict what was decided: gripper")
    assert report.episodes == 11
    assert {v.verdict for v in report.evidence if v.detector == "gripper_polarity"} == {"confirmed"}


def test_rows_that_were_never_written_are_named_and_do_not_stop_the_others(tmp_path: Path) -> None:
    def unwritten(number: int, demo: h5py.Group) -> None:
        for key in ("actions", *(f"obs/{name}" for name in demo["obs"] if not name.endswith("_rgb"))):
            if number == 0:
                demo[key][-12:] = 0  # what is stored of the gripper's command is 0.5 then

    report = libero(write_libero(tmp_path / "raw", 4, unwritten), tmp_path / "o.zarr")
    assert report.episodes == 3
    [(_, reason)] = report.quarantined
    assert "rows are recorded: expected 'recorded rows'" in reason and "(12 rows, up to" in reason


def test_too_many_later_contradictions_stop() -> None:
    counted = Outliers(30)
    reason = "the data contradict what was decided: gripper"
    counted.add(tuple(RecordingOutcome(f"r{n}", 0, reason) for n in range(3)))
    counted.add((RecordingOutcome("damaged", 0, "cannot be read"),))
    with pytest.raises(UsageError, match="4 of 30 recordings are left out because r0"):
        counted.add((RecordingOutcome("r4", 0, reason),))


def test_only_what_was_confirmed_or_is_a_rule_leaves_a_recording_out() -> None:
    wrong = Verdict("gripper_polarity", "contradicted", "gripper", -1.0, action="stop")
    measured = EpisodeMeasurement("e", "g", (wrong,))
    assert EvidenceGate().reason(measured) is None
    sure = frozenset({("gripper_polarity", "gripper")})
    assert EvidenceGate(confirmed=sure).reason(measured)
    assert EvidenceGate({"gripper_polarity": "known"}, sure).reason(measured) is None
    bound = EpisodeMeasurement("e", "g", (Verdict("gripper_scale", "contradicted", "finger", 1.0, action="stop"),))
    assert EvidenceGate().reason(bound)


def test_verdicts_are_recorded_beside_the_parts_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = write_libero(tmp_path / "raw", 4), tmp_path / "o.zarr"
    report = libero(raw, out, part_episodes=2)
    assert report.quarantined == []
    stored = json.loads((out / "evidence" / "p00001" / "zarr.json").read_text())["attributes"]["fwdata"]["episodes"]
    assert [len(episode["confirmed"]) > 5 for episode in stored] == [True, True]
    assert len(json.dumps(stored[0])) < 2200
    shown = {item["detector"]: item for item in describe(fwdata.open(out))["evidence"]}
    assert shown["rotation_form"]["verdict"] == shown["action_meaning"]["verdict"] == "confirmed"
    assert shown["camera_up_down"]["verdict"] == "confirmed" and shown["camera_up_down"]["episodes_for"] == 4
    assert main(["inspect", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "evidence gripper gripper: larger command opens - confirmed by 4 of 4 episodes" in printed
    assert main(["verify", str(out)]) == 0


def test_bytes_of_parts_and_caches_do_not_depend_on_evidence(tmp_path: Path) -> None:
    raw = write_libero(tmp_path / "raw", 3)
    libero(raw, tmp_path / "with.zarr")
    libero(raw, tmp_path / "without.zarr", evidence=False)
    with_evidence, without = tree(tmp_path / "with.zarr"), tree(tmp_path / "without.zarr")
    assert {key: value for key, value in with_evidence.items() if not key.startswith("evidence/")} == without
    assert describe(fwdata.open(tmp_path / "without.zarr"))["evidence"] == []


@pytest.mark.slow
def test_a_finished_store_is_not_measured_again_and_grows(tmp_path: Path) -> None:
    raw, more, out = write_libero(tmp_path / "raw", 3), write_libero(tmp_path / "more", 5), tmp_path / "o.zarr"
    libero(raw, out)
    before = tree(out)
    libero(raw, out)
    assert tree(out) == before
    shutil.copytree(more, raw, dirs_exist_ok=True)
    report = libero(raw, out)
    assert report.episodes == 5
    assert {v.episodes_for for v in report.evidence if v.detector == "action_meaning"} == {5}


@pytest.mark.slow
def test_a_store_that_grows_by_images_that_contradict_stays_as_it_was(tmp_path: Path) -> None:
    raw, out = write_libero(tmp_path / "raw", 4), tmp_path / "o.zarr"
    libero(raw, out)
    before = tree(out)
    [more] = write_libero(tmp_path / "more", 3, lambda number, demo: blacken(demo)).rglob("*.hdf5")
    more.rename(raw / "libero_object" / "pick_up_the_milk_and_place_it_in_the_basket_demo.hdf5")
    for command in (libero, lambda raw, out: dry_run(request_of(raw, out))):
        with pytest.raises(UsageError, match=r"camera content image: .* 3 of 3 episodes .* measure 'black'"):
            command(raw, out)
        assert tree(out) == before
    assert libero(raw, out, accept={"camera_content": "a test"}).new_episodes == 3


@pytest.mark.slow
def test_one_new_recording_that_contradicts_the_store_is_left_out(tmp_path: Path) -> None:
    raw, out = write_libero(tmp_path / "raw", 4), tmp_path / "o.zarr"
    libero(raw, out)
    [more] = write_libero(tmp_path / "more", 1, lambda number, demo: blacken(demo)).rglob("*.hdf5")
    more.rename(raw / "libero_object" / "pick_up_the_milk_and_place_it_in_the_basket_demo.hdf5")
    report = libero(raw, out)
    assert report.new_episodes == 0 and len(fwdata.open(out).episodes) == 4
    assert any("measured 'black'" in reason for _, reason in report.quarantined)


def test_a_store_begun_without_evidence_goes_on_without(tmp_path: Path) -> None:
    raw, out = write_libero(tmp_path / "raw", 2), tmp_path / "o.zarr"
    libero(raw, out, evidence=False)
    assert libero(raw, out).evidence == () and not (out / "evidence").exists()


@pytest.mark.slow
def test_workers_do_not_change_what_is_recorded(tmp_path: Path) -> None:
    raw = write_libero(tmp_path / "raw", 4)
    libero(raw, tmp_path / "0.zarr", workers=0, part_episodes=1)
    libero(raw, tmp_path / "2.zarr", workers=2, part_episodes=1)
    assert tree(tmp_path / "0.zarr") == tree(tmp_path / "2.zarr")


def test_plain_sources_claim_nothing_and_say_what_is_not_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [4, 30], "b": [2]})
    report = run_convert(raw, tmp_path / "o.zarr", toy_manifest(monkeypatch))
    assert report.quarantined == [] and not [v for v in report.evidence if v.action == "stop"]
    main(["convert", "toy", str(raw), "--out", str(tmp_path / "p.zarr"), "--workers", "0"])
    said = capsys.readouterr().err
    assert said.count("not verified:") == 1 and said.count("films of `fwdata report`") == 1


@pytest.mark.slow
def test_an_episode_shows_its_warnings_and_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_libero(tmp_path / "raw", 5, lambda number, demo: blacken(demo) if number == 3 else None)
    out = tmp_path / "o.zarr"
    libero(raw, out)
    name = f"libero_object/{TASK}/demo_3"
    for asked in (name, "3"):
        assert main(["inspect", str(out), "--episode", asked, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["index"], found["id"], found["frames"]) == (3, name, ROWS)
        black = [v for v in found["verdicts"] if v["verdict"] == "contradicted"]
        assert [(v["detector"], v["subject"], v["measured"]) for v in black] == [("camera_content", "image", "black")]
        assert found["warnings"] == fwdata.open(out).episodes[3].metadata["warnings"]
    assert main(["inspect", str(out), "--episode", "3"]) == 0
    printed = capsys.readouterr().out
    assert "evidence camera content image: decided 'an image of the scene', measured 'black'" in printed
    assert "evidence gripper gripper: confirmed (1)" in printed and "decided rotation: " in printed
    for wrong in ("9", "nothing"):
        assert main(["inspect", str(out), "--episode", wrong]) == 2
        assert "has no such episode; give an id, or an index of 0 .. 4" in " ".join(capsys.readouterr().err.split())
    page = write_preview(fwdata.open(out), tmp_path / "page", [3]).read_text()
    assert "Conventions measured on the data" in page and "Contradicted: camera content image" in page


def test_images_of_a_small_set_are_measured_as_they_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "read_thumbnails", None)  # a second pass over the frames
    report = libero(write_libero(tmp_path / "raw", 4), tmp_path / "o.zarr")
    seen = {v.detector: v for v in report.evidence if v.subject == "image"}
    assert seen["camera_content"].decided == "an image of the scene" and seen["camera_content"].episodes_for == 4
    assert (seen["camera_up_down"].episodes_for, seen["camera_delay"].abstained) == (4, 4)


@pytest.mark.slow
def test_a_black_camera_of_a_small_set_stops_and_nothing_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = write_libero(tmp_path / "raw", 4, lambda number, demo: blacken(demo)), tmp_path / "o.zarr"
    command = ["convert", "libero", str(raw), "--out", str(out), "--workers", "0"]
    for arguments in ([], ["--dry-run"]):
        assert main([*command, *arguments]) == 2
        assert "camera content image: expected 'an image of the scene', but 4 of 4" in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.slow
def test_a_store_that_was_begun_before_takes_in_no_images_that_contradict(tmp_path: Path) -> None:
    raw, more, out = write_libero(tmp_path / "raw", 1), tmp_path / "more", tmp_path / "o.zarr"
    libero(raw, out)
    shutil.copytree(
        write_libero(more, 5, lambda number, demo: blacken(demo) if number else None), raw, dirs_exist_ok=True
    )
    for _ in range(2):  # said again until it is settled
        with pytest.raises(UsageError, match=r"4 of 4 episodes with evidence measure 'black'"):
            libero(raw, out)
    assert len(fwdata.open(out).episodes) == 1
    assert libero(raw, out, accept={"camera_content": "lens cap"}).episodes == 5


@pytest.mark.slow
def test_a_store_that_another_process_began_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = write_libero(tmp_path / "raw", 4, lambda number, demo: blacken(demo)), tmp_path / "o.zarr"

    def slow(*arguments: Any, **named: Any) -> FirstLook:
        found = look_first(*arguments, **named)
        monkeypatch.setattr(run, "look_first", look_first)
        libero(raw, out, accept={"camera_content": "lens cap"})
        return found

    monkeypatch.setattr(run, "look_first", slow)
    libero(raw, out)
    assert len(fwdata.open(out).episodes) == 4


@pytest.mark.slow
def test_a_removal_that_is_killed_leaves_no_part_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = write_libero(tmp_path / "raw", 3, lambda number, demo: blacken(demo)), tmp_path / "o.zarr"

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise KeyboardInterrupt

    monkeypatch.setattr(first_look.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        libero(raw, out)
    monkeypatch.undo()
    assert not (out / "parts").exists() and not (out / "zarr.json").exists()
    assert libero(raw, out, accept={"camera_content": "lens cap"}).new_episodes == 3
    assert verify_store(out).damaged == []


@pytest.mark.slow
def test_exchanged_cameras_of_libero_are_found(tmp_path: Path) -> None:
    def ride(demo: h5py.Group, fixed: str, wrist: str) -> None:
        frames = np.asarray(demo["obs/agentview_rgb"])
        still = np.repeat(frames[:1], len(frames), axis=0)
        still[:, 8:14, 8:14] = frames[:, 8:14, 8:14]
        demo[f"obs/{fixed}"][:], demo[f"obs/{wrist}"][:] = still, frames

    names = "agentview_rgb", "eye_in_hand_rgb"
    raw = write_libero(tmp_path / "raw", 3, lambda number, demo: ride(demo, *names))
    [verdict] = [v for v in libero(raw, tmp_path / "o.zarr").evidence if v.detector == "mounts_exchanged"]
    assert verdict.verdict == "confirmed"
    wrong = write_libero(tmp_path / "wrong", 3, lambda number, demo: ride(demo, *reversed(names)))
    with pytest.raises(UsageError, match="fixed and wrist camera") as error:
        libero(wrong, tmp_path / "w.zarr")
    assert "`stitch.cameras: [wrist_image, image]` in a manifest" in str(error.value)


@pytest.mark.slow
def test_a_camera_that_dies_later_leaves_its_recording_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "IMAGE_SHARE", 2)
    monkeypatch.setattr(evidence, "MAX_SHOWN", 4)  # all detectors see four, the light ones all
    raw = write_libero(tmp_path / "raw", 12, lambda number, demo: blacken(demo) if number == 2 else None)
    report = libero(raw, tmp_path / "o.zarr")
    [(source, reason)] = report.quarantined
    assert source.endswith("#demo_2") and "camera content image: expected" in reason and "'black'" in reason
    assert report.episodes == 11
    counted = {v.detector: v.episodes_for for v in report.evidence if v.subject == "image"}
    assert (counted["camera_content"], counted["camera_frozen"], counted["camera_up_down"]) == (11, 11, 4)


@pytest.mark.slow
def test_one_dead_camera_of_a_small_set_warns(tmp_path: Path) -> None:
    raw = write_libero(tmp_path / "raw", 5, lambda number, demo: blacken(demo) if number == 3 else None)
    report = libero(raw, tmp_path / "o.zarr")
    [content] = [v for v in report.evidence if v.detector == "camera_content" and v.subject == "image"]
    assert (content.against, content.action) == (1, "warn")
    assert content.episodes == (f"libero_object/{TASK}/demo_3",)


def test_a_dry_run_leaves_out_one_by_one_what_the_conversion_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_degrees(number: int, demo: h5py.Group) -> None:
        if number in (7, 12):
            demo["obs/ee_states"][:, 3:] = demo["obs/ee_ori"][...] = np.degrees(demo["obs/ee_ori"])

    raw = write_libero(tmp_path / "raw", 20, in_degrees)
    command = [*COMMAND[:2], str(raw), "--out", str(tmp_path / "o.zarr"), *COMMAND[2:]]
    assert main([*command, "--dry-run"]) == 0
    told = "".join(capsys.readouterr())
    assert [f"demo_{n}: the data contradict" in told for n in (7, 12)] == [True, True] and "one scale" not in told
    assert main(command) == 3  # before, the dry run refused the whole set for its two scales
    assert "demo_12: the data contradict" in capsys.readouterr().err
