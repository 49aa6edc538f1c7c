"""The audit of the doctor: every finding has a planted case, a clean case that stays silent, and a look at it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from doctor_cases import CASES
from evidence_episodes import (
    changed,
    clean_set,
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
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure, pool
from fwdata.evidence.records import DatasetVerdict
from fwdata.evidence.registry import all_detectors
from fwdata.manifest import Normalisation, load_manifest
from fwdata.pipeline.request import ConvertRequest
from fwdata.report import Report

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
    lost = {finding.detector: finding for finding in check_store(fwdata.open(tmp_path / "r.zarr")).findings}
    assert lost["quarantined"].severity == "warn" and "left_out" not in lost
    for layout in ("archive", "classic"):  # one episode in two layouts
        write_task(tmp_path / "twice", layout, "click_bell", [0], num_frames=6)
    run_convert(tmp_path / "twice", tmp_path / "t.zarr", load_manifest("robotwin-sample"), evidence=False)
    left = {finding.detector: finding for finding in check_store(fwdata.open(tmp_path / "t.zarr")).findings}["left_out"]
    assert left.severity == "note" and "1 of 2 recordings is left out" in left.sentence and left.episodes


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
    torn = patient.option_in("no footer; download it again, or add --recover, which reads the complete episodes")
    assert torn.endswith("--out NEW.zarr --recover")
    assert patient.option_in("left out, 3: episodes; --recover reads them: a, b").endswith("--out NEW.zarr --recover")


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
