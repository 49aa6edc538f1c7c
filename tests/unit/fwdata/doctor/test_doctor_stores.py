"""`fwdata doctor` on whole stores: of this version, of earlier ones, and with caches of another view."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import r1lite_files as r1
from fixtures import run_convert, stamps, toy_manifest, write_toy
from lerobot_files import Recipe, write_dataset
from old_stores import unpack
from paths import DATA

import fwdata
from converters.lerobot import choose_manifest
from fwdata.cli import app
from fwdata.console import run_app
from fwdata.doctor.checkup import check_store
from fwdata.doctor.findings import Checkup, DoctorFinding
from fwdata.doctor.recordings import check_recordings
from fwdata.errors import StaleCache
from fwdata.manifest import load_manifest
from fwdata.pipeline.request import ConvertRequest
from fwdata.store.change_view import change_view
from fwdata.store.evidence import read_evidence

ODD = {
    "v1-jpeg": {"camera_content"},
    "v1-raw": {"instruction_ending"},
    "v2-video": {"camera_content", "duplicate_episodes"},
}
"""What is odd about the fixture stores: one gradient for all cameras, texts that end in a number, copied episodes."""


UNTOLD = r"no quaternion|no layout or camera pose"
"""What a store alone does not tell."""


def check(path: Path) -> Checkup:
    """A checkup of the store at a path."""
    return check_store(fwdata.open(path))


def by_detector(found: Checkup) -> dict[str, DoctorFinding]:
    """Findings by detector."""
    return {finding.detector: finding for finding in found.findings}


def main(arguments: list[str]) -> int:
    """Exit code of `fwdata ARGUMENTS`, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["fwdata", *arguments])
        run_app(app)
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", ODD)
def test_stores_of_earlier_versions_are_examined_and_left_as_they_are(name: str, tmp_path: Path) -> None:
    path = unpack(name, tmp_path)
    before = stamps(path)
    found = check(path)
    assert found.episodes == len(fwdata.open(path).episodes) and found.looked_at
    warned = {f.detector for f in found.findings if f.severity != "note"}
    assert warned == ODD[name]
    assert stamps(path) == before


@pytest.mark.parametrize(("source", "folder"), [("robotwin", "robotwin"), ("libero", "libero")])
def test_clean_recordings_are_silent(source: str, folder: str, tmp_path: Path) -> None:
    run_convert(DATA / folder, tmp_path / "o.zarr", load_manifest(source))
    assert check(tmp_path / "o.zarr").findings == ()


@pytest.mark.parametrize("lost", ["p00001", "p0000*"])
def test_a_conversion_that_was_stopped_is_said(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the checkup and by `inspect`, which says nothing of what no episode tells yet; the command continues it."""
    raw, path = write_toy(tmp_path / "raw", {"a": [40, 41], "b": [42]}), tmp_path / "o.zarr"
    run_convert(raw, path, toy_manifest(monkeypatch))
    assert "unfinished" not in by_detector(check(path)) and main(["inspect", str(path)]) == 0
    assert "not finished" not in capsys.readouterr().out
    for part in (path / "parts").glob(lost):
        shutil.rmtree(part)
    found = by_detector(check(path))["unfinished"]
    assert found.severity == "warn" and found.count == (1 if lost == "p00001" else 3)
    assert found.command == f"fwdata convert toy RAW --out {path}"
    assert main(["inspect", str(path)]) == 0
    told = capsys.readouterr().out
    assert "not finished: the same `fwdata convert`" in told
    assert "None" not in told and "made by version" not in told and "materialised" not in told
    if lost != "p00001":
        assert not check(path).verdicts and not check(path).not_verified


def test_what_only_the_recordings_tell_is_taken_from_the_conversion(tmp_path: Path) -> None:
    """A store keeps no quaternion and no camera pose, by which the conversion verified what was decided."""
    for source, detectors in (("libero", {"rotation_form"}), ("robotwin", {"camera_quarter_turn", "camera_up_down"})):
        run_convert(DATA / source, tmp_path / source, load_manifest(source))
        store = fwdata.open(tmp_path / source)
        recorded = read_evidence(store.files)
        assert recorded is not None
        told = {(v.detector, v.subject): v.verdict for v in recorded.verdicts()}
        found = check_store(store)
        assert {(v.detector, v.subject): v.verdict for v in found.verdicts} == told
        again = [verdict for verdict in found.verdicts if "when they were converted" in verdict.detail]
        assert detectors <= {verdict.detector for verdict in again if verdict.verdict == "confirmed"}
        assert not re.findall(UNTOLD, " ".join(found.not_verified))
    run_convert(DATA / "libero", tmp_path / "unmeasured", load_manifest("libero"), evidence=False)
    assert re.findall(UNTOLD, " ".join(check(tmp_path / "unmeasured").not_verified)) == ["no quaternion"]


@pytest.mark.parametrize(("skew", "severities"), [(0.19, ["warn"]), (0.0, [])])
def test_what_a_conversion_warned_about_and_nothing_settled_is_found(
    skew: float, severities: list[str], tmp_path: Path
) -> None:
    sent = r1.recording()
    for topic in (r1.ARM["left"], r1.ARM_TARGET["left"]):
        sent = r1.edit(sent, topic, lambda _, s: replace(s, stamp=s.stamp - round(skew * r1.SECOND)))
    (tmp_path / "pick_cube").mkdir()
    r1.McapWriter().write(tmp_path / "pick_cube/rec.mcap", sent)
    run_convert(tmp_path / "pick_cube", tmp_path / "o.zarr", load_manifest("r1lite"))
    found = [finding for finding in check(tmp_path / "o.zarr").findings if finding.detector == "conversion"]
    assert [finding.severity for finding in found] == severities
    assert all(f.command.endswith("--set clock=shift") and f.episodes == ("rec",) for f in found)
    manifest = load_manifest("r1lite")
    shift = manifest.model_copy(update={"options": {**manifest.options, "clock": "shift"}})
    run_convert(tmp_path / "pick_cube", tmp_path / "shifted.zarr", shift)
    assert "conversion" not in by_detector(check(tmp_path / "shifted.zarr")), "it is settled then"


def test_recordings_are_answered_with_the_command_that_examines_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(DATA / "robotwin")]) == 2
    said = f"error: {DATA / 'robotwin'} holds recordings of source robotwin, not a store; examine them: fwdata doctor "
    assert capsys.readouterr().err == f"{said}{DATA / 'robotwin'} --source robotwin\n"


def test_conventions_of_a_store_are_measured_again_from_its_names(tmp_path: Path) -> None:
    run_convert(DATA / "robotwin", tmp_path / "o.zarr", load_manifest("robotwin"), evidence=False)
    from fwdata.pipeline.stored_episode import claims_of

    store = fwdata.open(tmp_path / "o.zarr")
    claims = claims_of(store, store.episodes[0])
    assert claims.layout == "robotwin" and claims.action == "next_state" and len(claims.grippers) == 2
    assert claims.colour is not None and [arm.camera for arm in claims.arms] == ["left_camera", "right_camera"]


def test_caches_that_do_not_fit_the_view(tmp_path: Path) -> None:
    path = unpack("v1-jpeg", tmp_path)
    latents, text = fwdata.open(path).latents(), fwdata.open(path).text()
    change_view(path, {"stitch.size": [192, 128], "prompt": "do: {task}", "split.seed": 7})
    found = by_detector(check(path))
    for detector, command in (
        ("latents_fit", "encode-latents"),
        ("text_fit", "encode-text"),
        ("statistics_fit", "stats"),
    ):
        assert found[detector].severity == "warn" and f"fwdata {command} {path}" in found[detector].command
        alike, other = found[detector].shares
        assert other.count == found[detector].value and alike.count + other.count == alike.total
        assert found[detector].count == len(fwdata.open(path).episodes) and found[detector].episodes
    assert "do: {task}" in found["text_fit"].sentence
    assert found["latents_fit"].command.endswith(f"--name NEW --vae {latents.vae} --stride {latents.stride}")
    assert found["text_fit"].command.endswith(f"--name NEW --encoder {text.encoder}")


def test_a_refused_cache_names_the_commands_that_make_it_again(tmp_path: Path) -> None:
    """Copied from any folder, with the encoder and stride that it had; the path needs quotes."""
    (folder := tmp_path / "it's a set").mkdir()
    path = unpack("v1-jpeg", folder)
    change_view(path, {"stitch.size": [192, 128], "prompt": "do: {task}"})
    for kind in ("text", "latents"):
        with pytest.raises(StaleCache) as refused:
            getattr(fwdata.open(path), kind)()
        again, beside = re.findall(r"`(fwdata [^`]*)`", str(refused.value))
        found = by_detector(check(path))[f"{kind}_fit"]
        assert shlex.split(again)[2] == str(path) and again.endswith(" --replace") and "--name default" in again
        assert beside == found.command and "--name NEW" in beside
        assert main(shlex.split(again)[1:]) == 0
        getattr(fwdata.open(path), kind)()


def test_statistics_of_other_episodes_show_how_many_they_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, path = write_toy(tmp_path / "raw", {"a": [40, 41], "b": [42]}), tmp_path / "o.zarr"
    run_convert(raw, path, toy_manifest(monkeypatch))
    assert main(["stats", str(path)]) == 0
    write_toy(raw, {"c": [40, 41, 42]})
    run_convert(raw, path, toy_manifest(monkeypatch))
    finding = by_detector(check(path))["statistics_fit"]
    assert "made from other episodes" in finding.sentence and finding.count == 6
    train = sum(episode.split == "train" for episode in fwdata.open(path).episodes)
    assert [share.count for share in finding.shares] == [3, train]


def test_incomplete_caches(tmp_path: Path) -> None:
    import shutil

    path = unpack("v1-jpeg", tmp_path)
    latents, text = next((path / "latents").glob("default-*")), next((path / "text").glob("default-*"))
    shutil.rmtree(latents / "p00000")
    shutil.rmtree(next(p for p in text.iterdir() if p.is_dir()))
    found = by_detector(check(path))
    assert found["latents_incomplete"].severity == "warn" and "hold 0 of" in found["latents_incomplete"].sentence
    assert "--name default" in found["latents_incomplete"].command
    assert all(share.count < share.total for share in found["latents_incomplete"].shares)
    assert found["latents_incomplete"].shares and found["text_incomplete"].shares
    assert found["latents_incomplete"].count == found["text_incomplete"].count == len(fwdata.open(path).episodes)
    assert found["text_incomplete"].severity == "warn" and found["text_incomplete"].episodes


def test_quarantined_recordings_are_counted_by_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [40, 41, 42]})
    (raw / "a" / "take1.npz").write_bytes(b"broken")
    run_convert(raw, tmp_path / "o.zarr", toy_manifest(monkeypatch))
    finding = by_detector(check(tmp_path / "o.zarr"))["quarantined"]
    assert finding.severity == "warn" and "1 of 3 recordings is left out" in finding.sentence
    assert finding.command.endswith("--retry-quarantined  # once they can be read")


def test_an_incomplete_download_warns_as_it_does_of_the_recordings(tmp_path: Path) -> None:
    raw = write_dataset(tmp_path / "raw", Recipe(lengths=(5, 6, 7, 8), tasks=(0, 1, 0, 1)))
    for episode in (1, 2):
        next(raw.glob(f"data/*/episode_{episode:06d}.parquet")).unlink()
    manifest = choose_manifest([raw], {})
    run_convert(raw, tmp_path / "o.zarr", manifest, evidence=False)
    stored = by_detector(check(tmp_path / "o.zarr"))["quarantined"]
    request = ConvertRequest("lerobot", (raw,), Path("unused"), manifest, 0)
    recorded = by_detector(check_recordings(request))["unreadable"]
    assert stored.severity == recorded.severity == "warn" and stored.sentence == recorded.sentence
    assert "incomplete download: 2 of " in stored.sentence
    assert stored.command.startswith("hf download ") and stored.command.endswith("--retry-quarantined")


@pytest.mark.slow
def test_exit_codes_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "o.zarr"
    run_convert(DATA / "robotwin", path, load_manifest("robotwin"))
    assert main(["stats", str(path)]) == 0
    assert main(["doctor", str(path)]) == main(["doctor", str(path), "--fail-on", "warn"]) == 0
    change_view(path, {"split.seed": 7})
    capsys.readouterr()
    assert main(["doctor", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "warn statistics_fit: 1 finding" in printed and f"fix: fwdata stats {path}" in printed
    assert printed.splitlines()[-1].endswith("0 stop, 1 warn, 0 note")
    assert "  evidence action: exactly the next row's state - confirmed by 2 of 2 episodes" in printed
    assert main(["doctor", str(path), "--fail-on", "warn", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    pooled = {verdict["detector"]: verdict["verdict"] for verdict in data["verdicts"]}
    assert pooled["action_meaning"] == pooled["state_unit"] == "confirmed"
    assert data["exit_code"] == 1 and data["counts"] == {"stop": 0, "warn": 1, "note": 0}
    assert data["findings"][0]["detector"] == "statistics_fit" and data["findings"][0]["command"]
    assert main(["doctor", str(path), "--fail-on", "note"]) == 2
    assert main(["doctor", str(tmp_path / "nothing")]) == 2


def test_a_stop_ends_with_2(tmp_path: Path) -> None:
    found = Checkup("s", "store", 1, 1, (DoctorFinding("stop", "action_meaning", "wrong"),))
    assert found.exit_code("stop") == found.exit_code("warn") == 2
    warned = Checkup("s", "store", 1, 1, (DoctorFinding("warn", "duplicate_episodes", "twice"),))
    assert (warned.exit_code("stop"), warned.exit_code("warn")) == (0, 1)
    noted = Checkup("s", "store", 1, 1, (DoctorFinding("note", "jump", "far"),))
    assert (noted.exit_code("stop"), noted.exit_code("warn")) == (0, 0)


def test_groups_come_with_the_gravest_first() -> None:
    findings = [
        DoctorFinding("note", "jump", "a", count=9),
        DoctorFinding("warn", "clipped_column", "b"),
        DoctorFinding("stop", "action_meaning", "c", count=2),
        DoctorFinding("warn", "duplicate_episodes", "d", count=3),
        DoctorFinding("warn", "clipped_column", "e"),
    ]
    groups = Checkup("s", "store", 9, 9, tuple(findings)).groups()
    assert [(g.severity, g.detector, len(g.findings)) for g in groups] == [
        ("stop", "action_meaning", 1),
        ("warn", "duplicate_episodes", 1),
        ("warn", "clipped_column", 2),
        ("note", "jump", 1),
    ]
