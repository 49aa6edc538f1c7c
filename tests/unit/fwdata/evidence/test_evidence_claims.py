"""What the converters claim, measured on true recordings: nothing that was decided is contradicted."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from evidence_episodes import changed, with_claims
from paths import DATA

from fwdata.api import Episode
from fwdata.cli.converter_options import flags_of
from fwdata.doctor.conventions import convention_findings
from fwdata.doctor.remedies import Patient
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Verdict
from fwdata.evidence.registry import all_detectors, find_detector
from fwdata.evidence.sentences import (
    agreement,
    causes,
    count_not_verified,
    episode_line,
    line,
    not_verified,
    refusal,
    warnings,
)
from fwdata.manifest import Manifest, load_manifest
from fwdata.pipeline.evidence import EvidenceGate
from fwdata.pipeline.registry import load_converter, options_model, stored_conventions

SOURCES = ("libero", "robotwin", "r1lite", "lerobot_v21")


def episodes(name: str) -> list[tuple[str, Episode, float]]:
    """(id, episode, rate) of every recording of a fixture."""
    manifest = load_manifest("lerobot-r1lite" if name == "lerobot_v21" else name)
    converter, root = load_converter(manifest), Path(DATA / name)
    return [(ref.id, converter.read(root, ref), manifest.fps.hz) for ref in converter.discover(root).episodes]


def as_input(name: str, episode: Episode, hz: float) -> EpisodeInput:
    """The episode as detectors see it, without images."""
    return EpisodeInput(
        name,
        "",
        episode.state,
        episode.action,
        tuple(episode.state_names),
        tuple(episode.action_names),
        episode.timestamp_ns / 1e9,
        hz,
        episode.instructions[0],
        episode.conventions,
    )


@pytest.mark.parametrize("source", SOURCES)
def test_true_recordings_agree_with_what_their_converter_claims(source: str) -> None:
    confirmed, silent = set[str](), set[str]()
    for name, episode, hz in episodes(source):
        assert episode.conventions.layout in ("libero", "robotwin", "r1lite")
        for verdict in measure(as_input(name, episode, hz)).verdicts:
            assert verdict.verdict != "contradicted", verdict
            confirmed |= {verdict.detector} if verdict.verdict == "confirmed" else set()
            silent |= {verdict.detector} if verdict.verdict == "no evidence" else set()
    expected = {
        "libero": {"gripper_scale", "rotation_form", "wrapped_angles", "row_rate"},
        "robotwin": {"action_meaning", "gripper_scale", "colour_order"},
        "r1lite": {"gripper_polarity", "gripper_scale", "action_meaning", "row_rate"},
        "lerobot_v21": {"gripper_scale", "row_rate"},
    }
    assert expected[source] <= confirmed
    assert ("colour_order" in silent) == (source != "robotwin")  # whose recordings have a video beside them


def test_a_claim_names_the_columns_that_it_speaks_of() -> None:
    [(name, episode, hz), *_] = episodes("r1lite")
    action = episode.action.copy()
    action[:, [6, 13]] = 100 - action[:, [6, 13]]
    wrong = measure(changed(as_input(name, episode, hz), action=action.astype(np.float32)))
    assert [v.verdict for v in wrong.of("gripper_polarity")] == ["contradicted", "contradicted"]


@pytest.mark.parametrize(
    ("source", "columns", "factor", "unit"),
    [
        ("libero", slice(0, 3), 1000, "cm or mm, by their size"),
        ("libero", slice(0, 3), 100, "cm or mm, by their size"),
        ("libero", slice(3, 6), 180 / np.pi, "degrees, by their size"),
        ("robotwin", slice(0, 6), 180 / np.pi, "degrees, by their size"),
        ("r1lite", slice(7, 13), 180 / np.pi, "degrees, by their size"),
    ],
)
def test_a_state_in_another_unit_stops_a_named_layout(source: str, columns: slice, factor: float, unit: str) -> None:
    [(name, episode, hz), *_] = episodes(source)
    true = as_input(name, episode, hz)
    assert {v.verdict for v in measure(true).of("state_unit")} == {"confirmed"}
    state = episode.state.copy()
    state[:, columns] *= factor
    found = [v for v in measure(changed(true, state=state)).of("state_unit") if v.verdict == "contradicted"]
    assert [(v.measured, v.action) for v in found] == [(unit, "stop")]
    plain = with_claims(changed(true, state=state), layout=None)
    assert [v.action for v in measure(plain).of("state_unit") if v.verdict == "contradicted"] == ["warn"]


@pytest.mark.parametrize("source", SOURCES)
def test_what_would_agree_with_the_opposite_can_be_typed(source: str) -> None:
    manifest = load_manifest("lerobot-r1lite" if source == "lerobot_v21" else source)
    converter = "lerobot" if source == "lerobot_v21" else source
    model = options_model(converter)
    assert model is not None
    flags = flags_of(model)
    [(_, episode, _), *_] = episodes(source)
    names = tuple(episode.state_names), tuple(episode.action_names)
    again = stored_conventions(converter)
    assert again is not None
    stored = again(manifest, names, episode.stored_metadata()).options
    assert stored == episode.conventions.options
    assert stored
    for detector, option in stored.items():
        assert all(find_detector(name) for name in detector.partition(" ")[0].split("+"))
        if option.startswith("--set "):
            key, _, text = shlex.split(option)[1].partition("=")
            model.model_validate({**manifest.options, key: yaml.safe_load(text)})
        elif option.startswith("--"):
            name, _, value = option[2:].partition(" ")
            flag = flags[name.replace("-", "_")]
            chosen = flag.value(value) if value else True
            model.model_validate({**manifest.options, flag.name: chosen})
        else:
            key, _, text = option.partition(": ")
            changed_manifest(manifest, key, yaml.safe_load(text))


def changed_manifest(manifest: Manifest, dotted: str, value: object) -> Manifest:
    """The manifest with one key changed, checked as a file of the user's is."""
    data = manifest.model_dump(mode="json")
    *path, last = dotted.split(".")
    inner = data
    for name in path:
        inner = inner[name]
    assert last in inner
    inner[last] = value
    return Manifest.model_validate(data)


def test_a_contradiction_names_the_option_of_its_camera() -> None:
    [(_, episode, _), *_] = episodes("libero")
    options = episode.conventions.options
    verdict = Verdict("camera_up_down", "contradicted", "image")
    turned = {"rot180": "mirror", "none": "flip_vertical"}[str(episode.metadata["rotation"])]
    assert agreement(verdict, options) == f"--rotation image={turned} would agree"
    assert agreement(Verdict("gripper_polarity", "contradicted"), options) == "--gripper plus_opens would agree"
    key = {"row_rate": "fps.hz: 30"}
    assert agreement(Verdict("row_rate", "contradicted"), key) == "`fps.hz: 30` in a manifest (--manifest) would agree"
    assert "shift the state against the action" in agreement(Verdict("state_delay", "contradicted"), options)


def test_every_detector_that_stops_or_warns_says_what_to_set() -> None:
    for detector in all_detectors():
        assert detector.action == "note" or (detector.advice and detector.advice != Detector.advice), detector.name


def test_every_subject_that_was_not_verified_is_named():
    unknown = [
        DatasetVerdict("row_rate", "no evidence", abstained=2, decided="20 Hz", detail="nominal"),
        *(DatasetVerdict("camera_frozen", "no evidence", f"cam{n}", abstained=2, decided="moves") for n in range(3)),
    ]
    told = DatasetVerdict("action_meaning", "confirmed", episodes_for=2, decided="changes")
    assert not_verified([*unknown, told]) == (
        "rate (2 of 2 episodes): nominal",
        "camera keeps recording cam0, cam1, cam2 (2 of 2 episodes)",
    )
    other = replace(unknown[2], detail="no frames")
    assert not_verified([*unknown[1:3], other, replace(other, subject="x")]) == (
        "camera keeps recording cam0, cam1 (2 of 2 episodes); cam1, x (2 of 2 episodes): no frames",
    )
    assert count_not_verified([*unknown, told]) == "not verified: 4 of 5 conventions"
    assert count_not_verified(unknown[:1]) == "not verified: 1 of 1 convention" and count_not_verified([told]) == ""
    assert line(unknown[0]) == "rate: 20 Hz - no evidence (nominal)"


def test_a_verdict_without_numbers_has_no_empty_brackets() -> None:
    rate = Verdict("row_rate", "contradicted", decided="20 Hz", measured="the simulator's clock 58.095 Hz")
    assert episode_line(rate).endswith("""measured "the simulator's clock 58.095 Hz" - contradicted""")
    gate = EvidenceGate(confirmed=frozenset({("row_rate", "")}))
    reason = gate.reason(EpisodeMeasurement("e", "", (replace(rate, action="stop"),)))
    assert reason is not None and "()" not in reason


def test_what_follows_from_another_fault_is_not_said_beside_it() -> None:
    held = DatasetVerdict("held_rows", "contradicted", against=2, action="warn", decided="a", episodes=("e1", "e2"))
    moves = replace(held, detector="camera_motion", subject="head", against=1, episodes=("e1",))
    assert causes([moves, held]) == [held] and len(warnings([moves, held], {})) == 1
    apart = replace(moves, episodes=("e1", "e5"))
    assert causes([apart, held]) == [apart, held]
    assert causes([moves, replace(held, action="note")]) == [moves, replace(held, action="note")]
    unit = replace(held, detector="state_unit", subject="state left arm", action="stop")
    start = replace(held, detector="start_pose", action="stop")
    told = refusal([start, unit], (), {})
    assert told is not None and told.startswith("unit of the state") and "start_pose" not in told
    [finding] = convention_findings([start, unit], Patient("raw", "robotwin", False), 8, {}, {})
    assert finding.detector == "state_unit"
