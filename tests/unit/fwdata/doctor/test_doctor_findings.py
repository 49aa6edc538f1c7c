"""What `fwdata doctor` finds: every fault is planted beside clean episodes, which stay silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, two_arms, with_claims

from fwdata.doctor.checkup import in_order
from fwdata.doctor.conventions import convention_findings
from fwdata.doctor.examine import Examination, examine
from fwdata.doctor.findings import DoctorFinding
from fwdata.doctor.remedies import Patient, flags_of
from fwdata.doctor.rows import largest_shift, largest_spike
from fwdata.evidence.claims import RateClaim
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict
from fwdata.evidence.sentences import agreement
from fwdata.manifest import Manifest, Normalisation, load_manifest

type Change = Callable[[EpisodeInput], EpisodeInput]


def manifest(mode: str = "zscore") -> Manifest:
    """A manifest with windows of 33 frames."""
    return load_manifest("robotwin").model_copy(update={"normalisation": Normalisation(mode=mode)})


def found(
    episodes: Sequence[EpisodeInput], valid: Callable[[int], np.ndarray] | None = None, mode: str = "zscore"
) -> dict[str, DoctorFinding]:
    """Findings by detector, the first of each."""
    used = manifest(mode)
    patient = Patient("set.zarr", "robotwin", is_store=True, cameras=("head", "left", "right"))
    examination = Examination(patient, used, len(episodes))
    for number, episode in enumerate(episodes):
        rows = np.ones(len(episode.state), np.bool_) if valid is None else valid(number)
        examination.add(examine(episode, rows, used))
    findings, _ = examination.findings()
    return {finding.detector: finding for finding in reversed(findings)}


def planted(change: Change, which: Sequence[int] = (5,)) -> list[EpisodeInput]:
    """The clean set with some episodes changed."""
    return [change(episode) if number in which else episode for number, episode in enumerate(clean_set())]


def rows_of(change: Callable[[np.ndarray, np.ndarray], None]) -> Change:
    """A change of state and action, in place of copies."""

    def apply(episode: EpisodeInput) -> EpisodeInput:
        state, action = episode.state.copy(), episode.action.copy()
        change(state, action)
        return changed(episode, state=state, action=action)

    return apply


def still(state: np.ndarray, action: np.ndarray) -> None:
    """Nothing moves in the last 80 rows (4 s)."""
    state[40:], action[40:] = state[40], action[40]


def jumping(state: np.ndarray, action: np.ndarray) -> None:
    """One joint is read wrong in one row."""
    state[60, 1] += 40


def test_clean_episodes_are_silent() -> None:
    assert found(clean_set()) == {}
    assert found(clean_set(), mode="minmax") == found(clean_set(), mode="quantile") == {}


def test_an_idle_stretch_is_a_note_and_warns_where_much_is_idle() -> None:
    one = found(planted(rows_of(still)))["idle_stretch"]
    assert (one.severity, one.count, one.episodes, one.row) == ("note", 1, ("episode_5",), 41)
    assert "4.0 s in episode_5 from row 41" in one.sentence and "--exclude episode_5" in one.command
    many = found(planted(rows_of(still), range(6)))["idle_stretch"]
    assert many.severity == "warn" and many.count == 6 and many.value is not None and many.value > 0.2


def test_a_jump_is_found_with_column_and_row() -> None:
    jump = found(planted(rows_of(jumping)))["jump"]
    assert (jump.severity, jump.subject, jump.row, jump.episodes) == ("note", "left_joint_2", 60, ("episode_5",))
    assert "left_joint_2 by 40" in jump.sentence


@pytest.mark.parametrize("rows", [40, 80, 150])
def test_a_jump_that_stays_is_found_in_short_episodes(rows: int) -> None:
    """The step itself is among the usual ones there; a gripper that closes in one row is none."""
    time = np.arange(rows)[:, None]
    state = np.sin(time / np.array([5.0, 8.0, 11.0]) + np.arange(3))
    switch = np.where(time > rows // 2, 1.0, 0.0) + 0.001 * np.sin(time)
    state = np.hstack([state, switch])
    names = ("a", "b", "c", "mode")
    assert largest_shift(state, names) is None
    state[rows // 2 :, 1] += 1.2
    jump = largest_shift(state, names)
    assert jump is not None and (jump.column, jump.row) == ("b", rows // 2) and jump.ratio > 6


def test_a_gripper_that_opens_the_moment_it_is_closed_is_no_jump() -> None:
    gripper = np.ones(64)
    gripper[40:51] = np.abs(np.linspace(-1, 1, 11))
    assert largest_spike(gripper[:, None], ("gripper",)) is None
    gripper[20] = 0.4
    jump = largest_spike(gripper[:, None], ("gripper",))
    assert jump is not None and jump.row == 20


def test_an_outlying_length_is_found() -> None:
    long = found([*clean_set(), changed(two_arms(20, rows=900), thumbnails={})])["episode_length"]
    assert long.episodes == ("episode_20",) and "900 rows, the median is 120" in long.sentence
    assert "--exclude episode_20" in long.command


def test_a_copied_episode_is_found() -> None:
    twice = found([*clean_set(), changed(clean_set()[2], id="again")])["duplicate_episodes"]
    assert (twice.severity, twice.episodes, twice.count) == ("warn", ("again",), 1)
    assert "again repeats episode_2" in twice.sentence and "--exclude again" in twice.command


def test_an_instruction_with_a_typo_is_found() -> None:
    typo = found(planted(lambda e: changed(e, instruction="put the red blocck into the box")))["instruction_typos"]
    assert typo.severity == "warn" and typo.episodes == ("episode_5",) and "blocck" in typo.sentence


def inverted(episode: EpisodeInput) -> EpisodeInput:
    """The grippers were decided the other way round."""
    return with_claims(episode, grippers=tuple(replace(g, polarity=-1) for g in episode.claims.grippers))


def shown(episode: EpisodeInput, **images: np.ndarray) -> EpisodeInput:
    """The episode with other images of some cameras."""
    return changed(episode, thumbnails={**episode.thumbnails, **images})


STOPS: dict[str, Change] = {
    "gripper_polarity": inverted,
    "action_meaning": lambda e: with_claims(e, action="delta"),
    "row_rate": lambda e: with_claims(e, rate=RateClaim(30.0, label=20.0)),
    "camera_content": lambda e: shown(e, head=np.zeros_like(e.thumbnails["head"])),
    "wrists_exchanged": lambda e: shown(e, left=e.thumbnails["right"], right=e.thumbnails["left"]),
    "camera_delay": lambda e: shown(e, **{name: np.roll(t, 5, axis=0) for name, t in e.thumbnails.items()}),
}


@pytest.mark.parametrize("detector", STOPS)
def test_contradicted_conventions_stop(detector: str) -> None:
    finding = found(planted(STOPS[detector], range(8)))[detector]
    assert finding.severity == "stop" and finding.command.startswith("fwdata ")
    assert finding.count >= 7 and any(c.isdigit() for c in finding.sentence)  # of 8; e3 tells 7


def test_an_accepted_contradiction_is_a_note() -> None:
    used = manifest()
    examination = Examination(Patient("s", "robotwin", True), used, 8, {"action_meaning": "known to be deltas"})
    for episode in planted(lambda e: with_claims(e, action="delta"), range(8)):
        examination.add(examine(episode, np.ones(len(episode.state), np.bool_), used))
    [finding] = [f for f in examination.findings()[0] if f.detector == "action_meaning"]
    assert finding.severity == "note" and "accepted: known to be deltas" in finding.sentence


def constant(state: np.ndarray, action: np.ndarray) -> None:
    state[:, 2] = 0.5


def nearly_constant(state: np.ndarray, action: np.ndarray) -> None:
    state[:, 2] = 0.5 + 2e-5 * np.sin(np.arange(len(state)))


def rare_and_far(state: np.ndarray, action: np.ndarray) -> None:
    state[:, 2] = 0.01 * np.sin(np.arange(len(state)) / 7)
    state[-3:, 2] = 1.0


def one_outlier(state: np.ndarray, action: np.ndarray) -> None:
    state[:, 2] = 0.01 * np.sin(np.arange(len(state)) / 7)
    state[40, 2] = 90.0


@pytest.mark.slow
def test_columns_and_what_normalisation_does_to_them() -> None:
    every = range(8)
    note = found(planted(rows_of(constant), every))["constant_column"]
    assert note.severity == "note" and "1 of 8 state columns never changes (left_joint_3)" in note.sentence
    flat = found(planted(rows_of(nearly_constant), every))["near_constant_column"]
    assert (
        flat.severity == "warn"
        and flat.subject == "state left_joint_3"
        and flat.value == pytest.approx(1.4e-5, rel=0.1)
    )
    assert "multiplies it by 7.0" in flat.sentence and "0.001 is used" in flat.sentence
    assert flat.command == "fwdata view set.zarr --set normalisation.mode=minmax"
    low = found(planted(rows_of(nearly_constant), every), mode="minmax")["near_constant_column"]
    assert "shifted and not scaled" in low.sentence
    clipped = found(planted(rows_of(rare_and_far), every))["clipped_column"]
    assert clipped.severity == "warn" and clipped.value == pytest.approx(0.025, rel=0.1)
    assert clipped.command.endswith("normalisation.mode=quantile")
    squeezed = found(planted(rows_of(one_outlier), [3]), mode="minmax")
    assert "squeezed_column" not in squeezed  # the other episodes use the range
    squeezed = found(planted(rows_of(one_outlier), every), mode="minmax")
    assert squeezed["squeezed_column"].subject == "state left_joint_3"


def test_frames_that_no_window_reaches() -> None:
    def every_20th(number: int) -> np.ndarray:
        valid = np.ones(120, np.bool_)
        if number == 3:
            valid[40:101:20] = False
        return valid

    few = found(clean_set(), every_20th)["unreachable_windows"]  # the last rows end with the episode and are reached
    assert (few.severity, few.episodes, few.row, few.count) == ("note", ("episode_3",), 40, 1)
    assert "61 of 960 frames" in few.sentence and "4 frames marked not valid" in few.sentence
    assert few.command == "fwdata view set.zarr --set window.num_frames=17 --set window.action_horizon=16"
    one = found(clean_set(), lambda number: np.arange(120) != 60)["unreachable_windows"]
    assert "must not hold one of the 8 frames marked not valid" in one.sentence
    alone = found(clean_set(), lambda number: np.arange(120) != (20 if number == 3 else -1))["unreachable_windows"]
    assert "must not hold the frame marked not valid" in alone.sentence
    none = found(clean_set(), lambda number: np.zeros(120, np.bool_))["unreachable_windows"]
    assert none.severity == "warn" and "8 episodes have no window at all" in none.sentence
    one = found(clean_set(), lambda number: np.full(120, number != 3))["unreachable_windows"]
    assert one.command == "fwdata convert robotwin RAW --out NEW.zarr --exclude episode_3"


def test_an_episode_shorter_than_a_window_is_reached() -> None:
    assert "unreachable_windows" not in found([two_arms(seed, rows=20, images=False) for seed in range(4)])


def test_commands_leave_out_cameras_and_episodes_or_say_what_holds() -> None:
    black = found(planted(STOPS["camera_content"], range(8)))["camera_content"]
    assert black.command == ("fwdata view set.zarr --set stitch.layout=horizontal --set 'stitch.cameras=[left, right]'")
    few = found(planted(STOPS["camera_content"]))["camera_content"]
    assert few.severity == "warn" and few.command.endswith("--exclude episode_5")
    action = found(planted(STOPS["action_meaning"], range(8)))["action_meaning"]
    assert "NEW.zarr --accept action_meaning=WHY  # keeps it as it is; to correct it: name the" in action.command
    option = found(
        planted(lambda e: with_claims(inverted(e), options={"gripper_polarity": "--gripper closes"}), range(8))
    )
    assert option["gripper_polarity"].command == "fwdata convert robotwin RAW --out NEW.zarr --gripper closes"
    one = found(planted(lambda e: with_claims(inverted(e), options={"gripper_polarity": "--gripper closes"})))
    assert one["gripper_polarity"].command == "fwdata convert robotwin RAW --out NEW.zarr --exclude episode_5"


def test_a_camera_that_the_view_leaves_out_is_a_note_and_of_all_cameras_none_is_left_out() -> None:
    stop = DatasetVerdict("camera_delay", "contradicted", "head", against=8, action="stop", episodes=tuple("abcdefgh"))
    stored = Patient("s.zarr", "libero", True, ("wrist",), stored=("head", "wrist"))
    [one] = convention_findings([stop], stored, 8, {}, {})
    assert one.severity == "note" and one.sentence.endswith("; the view does not stitch head") and not one.command
    both = [stop, replace(stop, subject="wrist")]
    for finding in convention_findings(both, replace(stored, cameras=("head", "wrist")), 8, {}, {}):
        assert finding.severity == "stop" and "--accept camera_delay=WHY  # keeps it as it is; to" in finding.command


def test_what_only_accept_keeps_is_accepted_together() -> None:
    """One alone would be stopped by the other; what an option mends has a command of its own."""
    verdicts = [
        DatasetVerdict(name, "contradicted", against=8, action="stop", episodes=("a",))
        for name in ("state_delay", "camera_delay", "action_meaning", "row_rate")
    ]
    patient = Patient("raw", "lerobot", False, given=("--manifest", "lerobot-libero"))
    options = {"action_meaning": "--state state"}
    every = convention_findings(verdicts, patient, 8, options, {"row_rate": "the clock is known to be slow"})
    found = {finding.detector: finding.command for finding in every}
    both = "--manifest lerobot-libero --accept state_delay=WHY --accept camera_delay=WHY  # keeps it"
    assert both in found["state_delay"] and both in found["camera_delay"] and not found["row_rate"]
    assert found["action_meaning"] == "fwdata convert lerobot raw --out NEW.zarr --state state"
    assert agreement(verdicts[2], options) == "--state state without --manifest would agree"
    told = {finding.detector: finding.command for finding in in_order(every)}
    assert told["action_meaning"].endswith(
        "  # stopped by state_delay and camera_delay too: add the options of its fix"
    )
    assert told["state_delay"].endswith("; stopped by action_meaning too: add the options of its fix")
    [alone] = convention_findings(verdicts[:1], patient, 8, {}, {})
    assert alone.command.count("--accept") == 1


def test_commands_on_a_store_give_its_manifest_again() -> None:
    assert flags_of(load_manifest("robotwin")) == ()
    made = load_manifest("robotwin-sample").model_copy(update={"options": {"embodiment": "piper", "tasks": ["a"]}})
    given = flags_of(made)
    assert given == ("--manifest", "robotwin-sample", '--set=embodiment="piper"', '--set=tasks=["a"]')
    patient = Patient("s.zarr", "robotwin", is_store=True, given=given)
    assert patient.retry() == (
        "fwdata convert robotwin RAW --out s.zarr --manifest robotwin-sample '--set=embodiment=\"piper\"' "
        "'--set=tasks=[\"a\"]' --retry-quarantined"
    )
    assert patient.convert("--manifest CORRECTED.yaml").count("--manifest") == 1
    kept = replace(patient, accepted={"state_unit": "my robot"})
    assert "--accept state_unit='my robot' --exclude a" in kept.convert("--exclude a")
    few = replace(kept, picked=(("exclude", "b c"),))
    assert "--exclude 'b c' --accept state_unit='my robot' --exclude a" in few.convert("--exclude a")
    assert "--exclude" not in few.apart(["a"], 1, "") and few.retry() == patient.retry()
    assert kept.convert("--accept state_unit=WHY").count("state_unit") == 1 and kept.retry() == patient.retry()
    assert flags_of(made.model_copy(update={"name": "mine"})) == ()


@pytest.mark.slow
def test_every_command_has_options_that_exist() -> None:
    """The commands of all planted faults, checked against the command line itself."""
    from typer.main import get_command

    from fwdata.cli import app

    group: Any = get_command(app)
    commands = group.commands
    every = [rows_of(change) for change in (still, jumping, nearly_constant, rare_and_far)]
    several = [*every, *STOPS.values(), lambda e: changed(e, instruction="put the red blocck into the box")]
    seen = 0
    for number, change in enumerate(several):
        for which in ((5,), range(8))[number % 2 :]:
            for finding in found(planted(change, which)).values():
                words = finding.command.split()
                if words:
                    known = {text for option in commands[words[1]].params for text in option.opts}
                    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, finding.command
                    seen += 1
    assert seen > 10


@pytest.mark.slow
def test_memory_hardly_grows_with_the_episodes() -> None:
    """Bytes that one more clean episode keeps, once enough rows are compared."""
    import tracemalloc

    used = manifest()
    examination = Examination(Patient("s", "robotwin", True), used, 1_000_000)
    seen = examine(changed(two_arms(1), thumbnails={}), np.ones(120, np.bool_), used)
    sizes = []
    tracemalloc.start()
    for _ in range(3):
        for _ in range(93):  # whole batches of statistics
            examination.add(seen)
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert (sizes[2] - sizes[1]) / 93 < 2500
