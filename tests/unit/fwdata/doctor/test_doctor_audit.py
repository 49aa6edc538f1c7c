"""The audit of the doctor: every finding has a planted case, a clean case that stays silent, and a look at it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from evidence_episodes import (
    backwards,
    begun,
    changed,
    clean_set,
    delayed,
    driven,
    euler_angles,
    fixed_camera,
    glued,
    grasping,
    libero_rows,
    looked_at,
    one_motion,
    rounded,
    scene,
    turning,
    twice,
    two_arms,
    with_claims,
)
from fixtures import run_convert, toy_manifest, write_toy
from numpy.typing import NDArray
from paths import DATA
from robotwin_files import write_task

import fwdata
from fwdata import doctor
from fwdata.api import Skipped
from fwdata.doctor.album import ShownEpisode
from fwdata.doctor.checkup import check_store, left_out_finding
from fwdata.doctor.examine import Examination, examine
from fwdata.doctor.exhibits import add_exhibit
from fwdata.doctor.findings import DoctorFinding
from fwdata.doctor.recordings import check_recordings
from fwdata.doctor.remedies import Patient, remedy
from fwdata.evidence.claims import CameraClaim, RateClaim, UnitClaim
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure, pool
from fwdata.evidence.records import DatasetVerdict, Severity
from fwdata.evidence.registry import all_detectors
from fwdata.manifest import Normalisation, load_manifest
from fwdata.pipeline.request import ConvertRequest
from fwdata.report import Report

JOINTS = [0, 1, 2, 4, 5, 6]


@dataclass(frozen=True)
class Case:
    """One detector: correct episodes that it has evidence on, and the same with its fault."""

    clean: Callable[[], Sequence[EpisodeInput]]
    """Correct episodes."""
    planted: Callable[[], Sequence[EpisodeInput]]
    """Episodes with the fault."""
    severity: Severity
    """Severity of the finding."""


def every(change: Callable[[EpisodeInput], EpisodeInput], first: int = 8) -> Callable[[], Sequence[EpisodeInput]]:
    """The clean set with the first episodes changed."""
    return lambda: [change(e) if number < first else e for number, e in enumerate(clean_set())]


def rows(change: Callable[[NDArray[np.float32], NDArray[np.float32]], None]) -> Callable[[EpisodeInput], EpisodeInput]:
    """A change of copies of state and action, in place."""

    def apply(episode: EpisodeInput) -> EpisodeInput:
        state, action = episode.state.copy(), episode.action.copy()
        change(state, action)
        return changed(episode, state=state, action=action)

    return apply


def scaled(*columns: int, factor: float, action: bool = True) -> Callable[[EpisodeInput], EpisodeInput]:
    """Columns in another unit."""

    def change(state: NDArray[np.float32], target: NDArray[np.float32]) -> None:
        state[:, columns] *= factor
        if action:
            target[:, columns] *= factor

    return rows(change)


def unwritten(state: NDArray[np.float32], action: NDArray[np.float32]) -> None:
    """The last ten rows were never filled."""
    state[-10:], action[-10:] = 0, 0


def in_degrees_later(state: NDArray[np.float32], action: NDArray[np.float32]) -> None:
    """Rows in degrees from the middle on."""
    state[60:, :3] *= 180 / np.pi
    action[60:, :3] *= 180 / np.pi


def in_rad(episode: EpisodeInput) -> EpisodeInput:
    """The left arm is claimed to be in rad."""
    return with_claims(episode, units=(UnitClaim("left arm", (0, 1, 2), "rad", 12.6),))


def inverted(episode: EpisodeInput) -> EpisodeInput:
    """The grippers were decided the other way round."""
    return with_claims(episode, grippers=tuple(replace(g, polarity=-1) for g in episode.claims.grippers))


def shown(episode: EpisodeInput, **images: NDArray[np.uint8]) -> EpisodeInput:
    """The episode with other images of some cameras."""
    return changed(episode, thumbnails={**episode.thumbnails, **images})


def late(episode: EpisodeInput) -> EpisodeInput:
    """All images five rows late."""
    return shown(episode, **{name: delayed(images, 5) for name, images in episode.thumbnails.items()})


def out_of_order(episode: EpisodeInput) -> EpisodeInput:
    """Some images of the head camera exchanged with the ones after them."""
    images = episode.thumbnails["head"].copy()
    for row in range(8, 112, 12):
        images[[row, row + 1]] = images[[row + 1, row]]
    return shown(episode, head=images)


def changing_places(episode: EpisodeInput) -> EpisodeInput:
    """Both wrist cameras exchanged from the middle on."""
    left, right = (episode.thumbnails[name] for name in ("left", "right"))
    halves = {"left": [left[:60], right[60:]], "right": [right[:60], left[60:]]}
    return shown(episode, **{name: np.concatenate(parts) for name, parts in halves.items()})


def commanded_late(state: NDArray[np.float32], action: NDArray[np.float32]) -> None:
    """The left gripper's command nine rows late."""
    action[:, 3] = delayed(action[:, 3], 9)


def in_reverse(episode: EpisodeInput) -> EpisodeInput:
    """The images of a real head camera in reverse order."""
    return with_claims(shown(episode, head=episode.thumbnails["head"][::-1]), simulated=False)


def held(episode: EpisodeInput) -> EpisodeInput:
    """Every second image of the head camera is shown twice."""
    return shown(episode, head=episode.thumbnails["head"][np.arange(120) // 2 * 2])


def frozen(episode: EpisodeInput) -> EpisodeInput:
    """The left wrist camera stops early."""
    images = episode.thumbnails["left"].copy()
    images[20:] = images[20]
    return shown(episode, left=images)


@cache
def mounted(exchanged: bool) -> tuple[EpisodeInput, ...]:
    """A fixed camera of whose image a part moves, beside the wrist cameras."""
    found = []
    for episode in clean_set():
        still = np.repeat(episode.thumbnails["head"][:1], 120, axis=0)
        still[:, 4:12, 4:12] = scene(episode.state[:, [0, 4]] * 12, 9, 8)
        left = episode.thumbnails["left"]
        images = {"head": left, "left": still, "right": still} if exchanged else {**episode.thumbnails, "head": still}
        found.append(changed(episode, thumbnails=images))
    return tuple(found)


def named(episodes: Sequence[EpisodeInput]) -> list[EpisodeInput]:
    """LIBERO's demonstration several times, each with an id and a place of its own."""
    return [changed(e, id=f"demo_{number}") for number, e in enumerate(episodes)]


def timed(late: int) -> EpisodeInput:
    """LIBERO's demonstration, its states from after the actions, which are so many rows late."""
    episode = libero_rows()
    return with_claims(changed(episode, action=delayed(episode.action, late)), effect_row=0)


def euler(episode: EpisodeInput) -> EpisodeInput:
    """Euler angles where an axis-angle was decided."""
    state, [claim] = episode.state.copy(), episode.claims.rotations
    assert claim.reference is not None
    state[:, 3:6] = euler_angles(claim.reference.astype(np.float64))
    return changed(episode, state=state)


def wrapped(episode: EpisodeInput) -> EpisodeInput:
    """Every second row is the same rotation the other way round."""
    state = episode.state.copy()
    angle = np.linalg.norm(state[:, 3:6], axis=1, keepdims=True)
    state[::2, 3:6] *= ((angle - 2 * np.pi) / angle)[::2]
    return changed(episode, state=state)


def seen(turn: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], wrist: bool = False) -> Sequence[EpisodeInput]:
    """Four episodes of a camera that shows the end effector move, its images turned."""
    claim = CameraClaim("image", "z+", "y-", mounted=wrist)
    episodes = (with_claims(fixed_camera(seed), cameras=(claim,)) for seed in range(4))
    return named([changed(e, thumbnails={"image": turn(e.thumbnails["image"])}) for e in episodes])


def rotating(length: float = 1.0, moved: int = 0) -> list[EpisodeInput]:
    """The clean set with a quaternion in its first columns, of that length, or with its numbers moved on, in one
    episode."""
    found = []
    for number, episode in enumerate(clean_set()):
        angle = 0.2 + 0.3 * np.tanh(np.cumsum(np.abs(np.diff(episode.state[:, 0], prepend=0.0))))
        state = episode.state.copy()
        state[:, :4] = np.stack([np.sin(angle), 0 * angle, 0 * angle, np.cos(angle)], axis=1)
        state[:, :4] = np.roll(state[:, :4] * length, moved, axis=1) if number == 3 else state[:, :4]
        free = with_claims(episode, layout=None, action=None, grippers=(), arms=(), pairs=())
        names = ("qx", "qy", "qz", "qw", *episode.state_names[4:])
        found.append(changed(free, state=state, state_names=names))
    return found


def stuck(episode: EpisodeInput) -> EpisodeInput:
    """The episode with a joint that was not read."""
    state = episode.state.copy()
    state[:, 1] = state[0, 1]
    return changed(episode, state=state)


def said(text: str) -> Callable[[EpisodeInput], EpisodeInput]:
    """The episode with another instruction."""
    return lambda e: changed(e, instruction=text)


def tasks(wrong: int = -1) -> list[EpisodeInput]:
    """Two tasks of eight episodes, one of which has the other's text."""
    texts = {"hammer": "beat the block with the hammer", "bell": "click the bell once"}
    return [
        changed(e, id=f"{task}_{i}", group=task, instruction=texts["bell" if i == wrong else task])
        for place, task in enumerate(texts)
        for i, e in enumerate(two_arms(8 * place + seed, images=False) for seed in range(8))
    ]


CLEAN = clean_set

CASES: dict[str, Case] = {
    "gripper_polarity": Case(CLEAN, every(inverted), "stop"),
    "gripper_scale": Case(CLEAN, every(scaled(3, factor=100)), "stop"),
    "state_unit": Case(every(in_rad), every(lambda e: in_rad(scaled(*JOINTS, factor=180 / np.pi)(e))), "stop"),
    "one_scale": Case(CLEAN, every(scaled(*JOINTS, factor=180 / np.pi), 3), "stop"),
    "column_units": Case(CLEAN, every(scaled(*JOINTS, factor=180 / np.pi), 3), "stop"),
    "gripper_answers": Case(CLEAN, every(rows(commanded_late)), "warn"),
    "unit_within": Case(CLEAN, every(rows(in_degrees_later), 1), "warn"),
    "action_meaning": Case(CLEAN, every(lambda e: with_claims(e, action="delta")), "stop"),
    "action_unit": Case(CLEAN, every(scaled(*JOINTS, factor=180 / np.pi, action=False)), "stop"),
    "state_delay": Case(CLEAN, lambda: [two_arms(seed, delay=14, images=False) for seed in range(8)], "stop"),
    "command_timing": Case(lambda: named([timed(0)]), lambda: named([timed(1)] * 3), "warn"),
    "column_names": Case(CLEAN, every(lambda e: changed(e, action=e.action[:, [4, 5, 6, 7, 0, 1, 2, 3]])), "stop"),
    "gripper_sense": Case(lambda: one_motion(), lambda: one_motion(reverse=(1, 4, 6)), "warn"),
    "gripper_open_end": Case(
        lambda: [grasping(seed) for seed in range(8)],
        lambda: [grasping(seed, turned=True) for seed in range(8)],
        "warn",
    ),
    "exchanged_columns": Case(
        lambda: [begun(seed, 0.02, home=True) for seed in range(9)],
        lambda: [begun(seed, 0.02, home=True, exchanged=seed == 4) for seed in range(9)],
        "warn",
    ),
    "quaternion_length": Case(rotating, lambda: rotating(0.5), "warn"),
    "quaternion_order": Case(rotating, lambda: rotating(moved=1), "warn"),
    "still_columns": Case(CLEAN, every(stuck, 1), "warn"),
    "step_size": Case(
        lambda: [driven(seed) for seed in range(9)],
        lambda: [driven(seed, 1 + (seed == 4)) for seed in range(9)],
        "warn",
    ),
    "held_rows": Case(CLEAN, every(lambda e: changed(e, state=e.state[np.arange(120) // 2 * 2]), 1), "warn"),
    "same_arms": Case(CLEAN, every(lambda e: changed(e, state=e.state[:, [*range(4), *range(4)]]), 1), "warn"),
    "row_rate": Case(CLEAN, every(lambda e: with_claims(e, rate=RateClaim(30.0, label=20.0))), "stop"),
    "camera_delay": Case(CLEAN, every(late), "stop"),
    "camera_frozen": Case(CLEAN, every(frozen), "stop"),
    "camera_content": Case(CLEAN, every(lambda e: shown(e, head=np.zeros_like(e.thumbnails["head"]))), "stop"),
    "scene_cut": Case(CLEAN, every(lambda e: glued(e, clean_set()[1]), 1), "warn"),
    "cameras_change_places": Case(CLEAN, every(changing_places, 1), "warn"),
    "image_order": Case(CLEAN, every(out_of_order), "warn"),
    "camera_motion": Case(CLEAN, every(in_reverse, 1), "warn"),
    "one_look": Case(looked_at, lambda: looked_at(turned=2), "warn"),
    "same_images": Case(looked_at, lambda: looked_at(images=3), "warn"),
    "coarse_values": Case(CLEAN, every(rounded, 1), "warn"),
    "repeated_rows": Case(CLEAN, every(twice), "warn"),
    "wrists_exchanged": Case(
        CLEAN, every(lambda e: shown(e, left=e.thumbnails["right"], right=e.thumbnails["left"])), "stop"
    ),
    "camera_rate": Case(CLEAN, every(held), "note"),
    "mounts_exchanged": Case(lambda: mounted(exchanged=False), lambda: mounted(exchanged=True), "stop"),
    "duplicate_episodes": Case(CLEAN, lambda: [*clean_set(), changed(clean_set()[2], id="again")], "warn"),
    "instruction_typos": Case(CLEAN, every(said("put the red blocck into the box"), 1), "warn"),
    "instruction_task": Case(tasks, lambda: tasks(wrong=3), "warn"),
    "instruction_placeholder": Case(CLEAN, every(said("TODO")), "warn"),
    "instruction_garbled": Case(CLEAN, every(said("put the r\u00c3\u00b6d block away")), "warn"),
    "instruction_ending": Case(CLEAN, every(said("put the red block into the box table 14")), "warn"),
    "unwritten_rows": Case(CLEAN, every(rows(unwritten)), "stop"),
    "start_pose": Case(
        lambda: [begun(seed) for seed in range(4)], lambda: [backwards(begun(seed)) for seed in range(4)], "stop"
    ),
    "rotation_form": Case(lambda: named([libero_rows()]), lambda: named([euler(libero_rows())] * 3), "stop"),
    "rotation_command": Case(
        lambda: named([turning(seed, "axis_angle") for seed in range(6)]),
        lambda: named([turning(seed, "euler") for seed in range(6)]),
        "warn",
    ),
    "wrapped_angles": Case(lambda: named([libero_rows()]), lambda: named([wrapped(libero_rows())] * 3), "stop"),
    "camera_up_down": Case(lambda: seen(lambda i: i), lambda: seen(lambda i: i[:, ::-1]), "stop"),
    "camera_left_right": Case(lambda: seen(lambda i: i), lambda: seen(lambda i: i[:, :, ::-1]), "stop"),
    "camera_quarter_turn": Case(lambda: seen(lambda i: i), lambda: seen(lambda i: np.rot90(i, 1, (1, 2))), "stop"),
    "wrist_left_right": Case(lambda: seen(lambda i: i, True), lambda: seen(lambda i: i[:, :, ::-1], True), "warn"),
}
"""Detector -> its case."""

NEVER_CONTRADICT = {
    "colour_order": "nothing in images tells red from blue: it is confirmed by a video or marker, or not at all",
    "row_quality": "the doctor has findings of its own for rows: idle_stretch, jump, episode_length, constant_column",
}
"""Detectors without a finding -> why."""

CHECKS: dict[str, tuple[str, str, str]] = {
    "idle_stretch": ("findings", "test_an_idle_stretch_is_a_note_and_warns_where_much_is_idle", "findings"),
    "jump": ("findings", "test_a_jump_is_found_with_column_and_row", "findings"),
    "episode_length": ("findings", "test_an_outlying_length_is_found", "findings"),
    "constant_column": ("findings", "test_columns_and_what_normalisation_does_to_them", "findings"),
    "near_constant_column": ("findings", "test_columns_and_what_normalisation_does_to_them", "findings"),
    "clipped_column": ("findings", "test_columns_and_what_normalisation_does_to_them", "findings"),
    "squeezed_column": ("findings", "test_columns_and_what_normalisation_does_to_them", "findings"),
    "unreachable_windows": ("findings", "test_frames_that_no_window_reaches", "findings"),
    "columns": ("audit", "test_other_columns_and_warnings_of_the_converter_are_found", "findings"),
    "conversion": ("audit", "test_other_columns_and_warnings_of_the_converter_are_found", "findings"),
    "latents_fit": ("stores", "test_caches_that_do_not_fit_the_view", "stores"),
    "text_fit": ("stores", "test_caches_that_do_not_fit_the_view", "stores"),
    "statistics_fit": ("stores", "test_caches_that_do_not_fit_the_view", "stores"),
    "stitched_fit": ("audit", "test_stitched_frames_of_another_view_are_found", "stores"),
    "latents_incomplete": ("stores", "test_incomplete_caches", "stores"),
    "text_incomplete": ("stores", "test_incomplete_caches", "stores"),
    "quarantined": ("stores", "test_quarantined_recordings_are_counted_by_reason", "stores"),
    "left_out": ("audit", "test_what_discovery_left_out_and_several_robots_are_found", "stores"),
    "unfinished": ("stores", "test_a_conversion_that_was_stopped_is_said", "stores"),
    "embodiments": ("audit", "test_what_discovery_left_out_and_several_robots_are_found", "stores"),
    "unreadable": ("recordings", "test_planted_faults_are_found_before_anything_is_converted", "recordings"),
    "discovery": ("audit", "test_what_discovery_says_is_found", "recordings"),
}
"""Check -> (module and test that plant it, module whose clean test stays silent)."""

SILENT = {
    "findings": "test_clean_episodes_are_silent",
    "stores": "test_clean_recordings_are_silent",
    "recordings": "test_clean_recordings_have_notes_at_most",
}
"""Module -> its test of clean data."""


def checkup(episodes: Sequence[EpisodeInput]) -> dict[str, DoctorFinding]:
    """Findings by detector, the first of each."""
    used = load_manifest("robotwin").model_copy(update={"normalisation": Normalisation(mode="zscore")})
    examination = Examination(Patient("set.zarr", "robotwin", True, ("head", "left", "right")), used, len(episodes))
    for episode in episodes:
        examination.add(examine(episode, np.ones(len(episode.state), np.bool_), used))
    return {finding.detector: finding for finding in reversed(examination.findings()[0])}


class InputAlbum:
    """Episodes that are in memory, for the page."""

    def __init__(self, episodes: Sequence[EpisodeInput]) -> None:
        self._episodes = {episode.id: episode for episode in episodes}

    def episode(self, name: str | None) -> ShownEpisode | None:
        """See `Album`."""
        e = self._episodes.get(name or next(iter(self._episodes)))
        if e is None:
            return None

        def frames(camera: str, wanted: Sequence[int]) -> NDArray[np.uint8]:
            return np.repeat(e.thumbnails[camera][list(wanted), :, :, None], 3, axis=3)

        valid, names = np.ones(len(e.state), np.bool_), (e.state_names, e.action_names)
        cameras = tuple(e.thumbnails)
        return ShownEpisode(e.id, e.state, e.action, names, e.timestamp_s, valid, e.instruction, cameras, frames)


@pytest.mark.slow
@pytest.mark.parametrize("detector", CASES)
def test_the_planted_fault_is_found_and_its_clean_twin_is_silent(detector: str) -> None:
    case = CASES[detector]
    clean, planted = case.clean(), case.planted()
    verdicts = pool([measure(episode) for episode in clean])
    assert "confirmed" in {v.verdict for v in verdicts if v.detector == detector}, "the clean twin must be decided"
    assert not [v for v in verdicts if v.detector == detector and v.against]
    finding = checkup(planted)[detector]
    assert finding.severity == case.severity
    assert any(letter.isdigit() for letter in finding.sentence), "a number"
    assert finding.episodes and finding.count, "the episodes"
    assert finding.command.startswith("fwdata ") or finding.severity == "note", "the command that fixes it"
    report, empty = Report("t"), Report("t").html()
    add_exhibit(report, finding, InputAlbum(planted))
    html = report.html()
    assert html != empty and ("<svg" in html or "data:image" in html or "<td>" in html), "something to look at"


def test_every_detector_and_check_is_audited() -> None:
    detectors = {detector.name for detector in all_detectors()}
    assert detectors == CASES.keys() | NEVER_CONTRADICT.keys()
    assert not CASES.keys() & NEVER_CONTRADICT.keys()
    assert checks() <= CHECKS.keys(), checks() - CHECKS.keys()
    here = Path(__file__).parent
    for name, (module, test, clean) in CHECKS.items():
        assert f"def {test}(" in (here / f"test_doctor_{module}.py").read_text(), name
        assert f'"{name}"' in (here / f"test_doctor_{module}.py").read_text(), name
        assert f"def {SILENT[clean]}(" in (here / f"test_doctor_{clean}.py").read_text(), name
    text = (Path(__file__).parents[4] / "docs" / "evidence.md").read_text()
    assert not [name for name in CHECKS if f"`{name}`" not in text]


def checks() -> set[str]:
    """Names of all findings that the doctor's own code makes, besides those of detectors."""
    found = {f"{kind}_fit" for kind in ("latents", "text", "stitched")}  # named by the kind of cache
    for path in Path(next(iter(doctor.__path__))).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                at = {"DoctorFinding": 1, "left_out_finding": 0}.get(node.func.id)
                name = node.args[at] if at is not None and len(node.args) > at else None
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    found.add(name.value)
    return found


def test_other_columns_and_warnings_of_the_converter_are_found() -> None:
    used = load_manifest("robotwin")
    examination = Examination(Patient("set.zarr", "robotwin", True), used, 8)
    for number, episode in enumerate(clean_set()):
        names = episode.state_names if number else ("other", *episode.state_names[1:])
        other = changed(episode, state_names=names if number == 5 else episode.state_names)
        other = changed(other, state_names=("other", *other.state_names[1:])) if number == 5 else other
        warned = ("12 rows are odd",) if number < 2 else ()
        warned += (f"clock skew of {number} ms; joints and images may be out of step",) if number > 5 else ()
        examination.add(examine(other, np.ones(120, np.bool_), used, warned))
    told = examination.findings()[0]
    clock, odd = (finding for finding in told if finding.detector == "conversion")
    assert (clock.severity, clock.episodes) == ("warn", ("episode_6", "episode_7"))
    assert "skew of 6 ms" in clock.sentence and "and the like (2 of 8 episodes)" in clock.sentence
    found = {finding.detector: finding for finding in told}
    assert (found["columns"].severity, found["columns"].episodes) == ("warn", ("episode_5",))
    assert found["columns"].command.endswith("--exclude episode_5")
    assert clock.command.endswith("--exclude episode_6 --exclude episode_7") and not odd.command
    assert odd.severity == "note" and "12 rows are odd (2 of 8 episodes)" in odd.sentence


def test_reasons_of_recordings_left_out_keep_their_words() -> None:
    items = [Skipped(f"{n}.mcap", f"/hdas/feedback_arm_left: {n} stamps of {n}.mcap are unset") for n in range(3)]
    found = left_out_finding("unreadable", "warn", items, 5, Patient("raw", "r1lite", False))
    wanted = (
        "3 of 8 recordings are left out (3 times: /hdas/feedback_arm_left: 0 stamps of 0.mcap are unset, and the like)"
    )
    assert found.sentence == wanted and found.count == 3


@pytest.mark.slow
def test_what_discovery_left_out_and_several_robots_are_found(tmp_path: Path) -> None:
    write_task(tmp_path / "rt", "archive", "click_bell", [0], embodiment="fr3", n_arm=7, num_frames=6)
    write_task(tmp_path / "rt", "classic", "click_bell", [1], n_arm=7, num_frames=6)  # known by its joints when read
    run_convert(tmp_path / "rt", tmp_path / "o.zarr", load_manifest("robotwin-sample"), evidence=False)
    store = fwdata.open(tmp_path / "o.zarr")
    found = {finding.detector: finding for finding in check_store(store).findings}
    robots = found.get("embodiments")
    assert robots is not None and robots.severity == "stop" and len(robots.episodes) == 2
    assert robots.command.count("--exclude") == 1 and "--set" not in robots.command
    run_convert(DATA / "r1lite", tmp_path / "r.zarr", load_manifest("r1lite"))  # its list names one that is not there
    left = {finding.detector: finding for finding in check_store(fwdata.open(tmp_path / "r.zarr")).findings}["left_out"]
    assert left.severity == "note" and "1 of " in left.sentence and left.episodes


def test_what_discovery_says_is_found(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "rt", "archive", "click_bell", range(3), num_frames=6).rename(
        tmp_path / "rt/click_bell/aloha-agilex_clean_3"
    )
    request = ConvertRequest("robotwin", (tmp_path / "rt",), Path("unused"), load_manifest("robotwin-sample"), 0)
    assert "discovery" not in {finding.detector for finding in check_recordings(request).findings}
    (folder / "data/episode1.hdf5").rename(folder / "data/episode9.hdf5")
    found = {finding.detector: finding for finding in check_recordings(request).findings}["discovery"]
    assert found.severity == "note" and "episode numbers are absent" in found.sentence


@pytest.mark.parametrize("detector", ["unwritten_rows", "start_pose"])
def test_rows_that_no_manifest_corrects_are_left_out_or_accepted(detector: str) -> None:
    found = DatasetVerdict(detector, "contradicted", against=1, action="stop", episodes=("e 1",))
    assert remedy(Patient("raw", "robotwin", False), found, 5).endswith("--exclude 'e 1'")
    kept = remedy(Patient("raw", "robotwin", False), found, 1)
    assert f"--accept {detector}=WHY  # keeps it as it is; to correct it: record" in kept


def test_an_option_that_a_warning_names_is_in_the_command() -> None:
    patient = Patient("raw", "r1lite", False)
    assert patient.option_in("skew; option clock = shift corrects it").endswith("--out NEW.zarr --set clock=shift")
    assert "--set task=VALUE  # VALUE: see" in patient.option_in("from a folder name; option task sets another")
    assert patient.option_in("an option that takes the others; 12 rows are odd") == ""


def test_stitched_frames_of_another_view_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fwdata.store.caches.stitched import materialise
    from fwdata.store.change_view import change_view

    raw, out = write_toy(tmp_path / "raw", {"a": [40, 41]}), tmp_path / "o.zarr"
    run_convert(raw, out, toy_manifest(monkeypatch))
    materialise(out)
    before = {finding.detector for finding in check_store(fwdata.open(out)).findings}
    change_view(out, {"stitch.size": [96, 64]})
    found = {finding.detector: finding for finding in check_store(fwdata.open(out)).findings}
    assert "stitched_fit" not in before and found["stitched_fit"].severity == "note"
    assert found["stitched_fit"].command.startswith("fwdata ")
