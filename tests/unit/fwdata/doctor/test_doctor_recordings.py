"""`fwdata doctor RAW --source`: recordings that are not converted yet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from fixtures import PLUGINS, save, stamps, toy_arrays, toy_manifest, write_toy
from paths import DATA

from converters.lerobot import choose_manifest
from fwdata.cli import app
from fwdata.cli.converter_options import as_flags
from fwdata.console import run_app
from fwdata.doctor.findings import Checkup, DoctorFinding
from fwdata.doctor.recordings import check_recordings
from fwdata.envs.sample import write_sample
from fwdata.manifest import Manifest, load_manifest
from fwdata.pipeline.request import ConvertRequest


def check(raw: Path, manifest: Manifest, workers: int = 0) -> Checkup:
    """A checkup of recordings, in this process."""
    return check_recordings(ConvertRequest(manifest.converter, (raw,), Path("unused"), manifest, workers))


def by_detector(found: Checkup) -> dict[str, DoctorFinding]:
    """Findings by detector."""
    return {finding.detector: finding for finding in found.findings}


def main(arguments: list[str]) -> int:
    """Exit code of `fwdata ARGUMENTS`, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["fwdata", *arguments])
        run_app(app)
    return int(ended.value.code or 0)


@pytest.mark.parametrize("source", ["robotwin", "libero", "r1lite", "lerobot"])
def test_clean_recordings_have_notes_at_most(source: str) -> None:
    folder = "lerobot_v21" if source == "lerobot" else source
    manifest = load_manifest("lerobot-r1lite" if source == "lerobot" else source)
    found = check(DATA / folder, manifest)
    assert found.kind == "recordings" and found.frames and found.looked_at
    serious = {f.detector for f in found.findings if f.severity != "note"}
    assert serious == ({"unreadable"} if source == "r1lite" else set())  # its list names a recording that is not there


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), [("robotwin", 1), ("robotwin", 2), ("robotwin", 9), ("lerobot", 2)])
def test_clean_recordings_of_the_sample_world_are_silent(kind: str, seed: int, tmp_path: Path) -> None:
    write_sample(kind, tmp_path / "raw", 20, seed)
    manifest = load_manifest(kind) if kind == "robotwin" else choose_manifest([tmp_path / "raw"], {})
    found = check(tmp_path / "raw", manifest)
    assert set(found.looked_at.values()) == {20}
    assert not [f.sentence for f in found.findings if f.severity != "note"]


def test_planted_faults_are_found_before_anything_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [40, 41, 42, 43]})
    shutil.copy(raw / "a" / "take1.npz", raw / "a" / "take4.npz")
    (raw / "a" / "take5.npz").write_bytes(b"broken")
    for number in range(4):
        arrays = toy_arrays(40 + number, number)
        save(raw / "a" / f"take{number}.npz", {**arrays, "wrist": np.zeros_like(arrays["wrist"])})
    before = stamps(raw)
    found = by_detector(check(raw, toy_manifest(monkeypatch)))
    black = found["camera_content"]
    assert black.severity == "stop" and black.subject == "wrist" and black.count == 4
    assert black.command == (
        f"fwdata convert toy {raw} --out NEW.zarr --accept camera_content='the view makes it good' && "
        "fwdata view NEW.zarr --set stitch.layout=horizontal --set 'stitch.cameras=[overhead]'"
    )
    twice = found["duplicate_episodes"]
    assert twice.episodes == ("a/take4",)
    assert twice.command == (
        f"fwdata convert toy {raw} --out NEW.zarr --exclude a/take4  # stopped by camera_content too: add the options "
        "of its fix"
    )
    assert found["unreadable"].severity == "warn" and "1 of 6 recordings" in found["unreadable"].sentence
    assert stamps(raw) == before


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    raw = write_toy(tmp_path / "raw", {"a": [40, 41, 42]})
    for number in range(3):
        arrays = toy_arrays(40 + number, number)
        save(raw / "a" / f"take{number}.npz", {**arrays, "overhead": np.zeros_like(arrays["overhead"])})
    command = ["doctor", str(raw), "--source", "toy", "--workers", "0", "--json"]
    assert main(command) == 2
    data = json.loads(capsys.readouterr().out)
    assert data["exit_code"] == 2 and data["kind"] == "recordings" and data["findings"][0]["severity"] == "stop"
    assert main(["doctor", str(raw)]) == 2
    assert f"fwdata doctor {raw} --source NAME" in capsys.readouterr().err
    assert main(["doctor", str(raw), "--workers", "0"]) == 2
    assert main([*command[:2], "--source", "toi"]) == 2
    assert "did you mean 'toy'" in capsys.readouterr().err


def test_options_of_the_source_are_flags_as_of_a_conversion(tmp_path: Path, run: Command) -> None:
    command = ("doctor", DATA / "robotwin", "--workers", 0, "--source", "robotwin")
    few = run(*command, "--manifest", "robotwin-sample", "--max-episodes-per-task", 1, "--json")
    assert (
        few.code == 0
        and few.json["episodes"] < run(*command, "--manifest", "robotwin-sample", "--json").json["episodes"]
    )
    run(*command, "--gripper").refused(2, "fwdata doctor RAW --source robotwin has no option --gripper")
    shown = run("doctor", "--source=robotwin", "--help")
    assert "--max-episodes-per-task" in shown.out and "Example: fwdata convert" not in shown.out
    assert as_flags({"gripper_scale": "auto", "recover": False, "tasks": ["a", "b"], "rate": 15}) == [
        "--gripper-scale=auto",
        "--no-recover",
        "--tasks=a,b",
        "--rate=15",
    ]


def test_recordings_of_another_source_are_answered_with_the_doctors_command(run: Command) -> None:
    wrong = run("doctor", DATA / "robotwin", "--source", "libero", "--workers", 0)
    wrong.refused(2, f"source robotwin reads it: fwdata doctor {DATA / 'robotwin'} --source robotwin")
    assert "fwdata convert" not in wrong.err


@pytest.mark.slow
def test_workers_do_not_change_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [40, 41, 42, 43, 44]})
    shutil.copy(raw / "a" / "take1.npz", raw / "a" / "take5.npz")
    manifest = toy_manifest(monkeypatch)
    assert check(raw, manifest).to_json() == check(raw, manifest, workers=2).to_json()
