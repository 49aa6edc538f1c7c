"""The page of a checkup: what it shows for each kind of finding, from a store and from recordings."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from fixtures import PLUGINS, run_convert, save, toy_arrays, toy_manifest, write_toy
from paths import DATA

import fwdata
from fwdata.cli import app
from fwdata.console import run_app
from fwdata.doctor.album import RecordingAlbum, StoredAlbum
from fwdata.doctor.checkup import check_store
from fwdata.doctor.exhibits import add_exhibit
from fwdata.doctor.findings import CountedShare, DoctorFinding
from fwdata.manifest import load_manifest
from fwdata.pipeline.discover import find_recordings
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.workers import WorkerPool
from fwdata.report import Report


def main(arguments: list[str]) -> int:
    """Exit code of `fwdata ARGUMENTS`, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["fwdata", *arguments])
        run_app(app)
    return int(ended.value.code or 0)


def faulty(folder: Path) -> Path:
    """Toy recordings with a black camera, and one of them twice."""
    raw = write_toy(folder, {"a": [60, 61, 62]})
    for number in range(3):
        arrays = toy_arrays(60 + number, number)
        save(raw / "a" / f"take{number}.npz", {**arrays, "wrist": np.zeros_like(arrays["wrist"])})
    shutil.copy(raw / "a" / "take1.npz", raw / "a" / "take3.npz")
    return raw


def checked_page(path: Path) -> str:
    """The page, which must be well-formed, load nothing, and hold the findings that were planted."""
    text = path.read_text()
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    assert not re.search(r'(src|href)="(?!data:)', text) and "<script" not in text
    assert "Do not train on this yet: 1 finding of severity stop." in text.partition("<table>")[0]
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert text.index("stop: camera_content") < text.index("warn: duplicate_episodes")
    assert "stitch.cameras=[overhead]" in text and "--exclude a/take3" in text
    # One fault, one finding: a black camera is not reported as a frozen one as well. The texts end in numbers.
    assert "camera_frozen" not in text and text.count("data:image/webp") == 2
    assert "The same motion twice" in text
    return text


def test_a_page_of_recordings_and_of_their_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    raw, store = faulty(tmp_path / "raw"), tmp_path / "o.zarr"
    assert main(["doctor", str(raw), "--source", "toy", "--workers", "0", "--html", str(tmp_path / "raw.html")]) == 2
    checked_page(tmp_path / "raw.html")
    run_convert(raw, store, toy_manifest(monkeypatch), evidence=False)
    assert main(["doctor", str(store), "--html", str(tmp_path / "pages")]) == 2
    first = checked_page(tmp_path / "pages" / "doctor.html")
    assert main(["doctor", str(store), "--html", str(tmp_path / "again.html")]) == 2
    assert (tmp_path / "again.html").read_text() == first
    assert main(["doctor", str(store), "--html", str(store / "zarr.json")]) == 2


def test_a_clean_store_has_a_short_page(tmp_path: Path) -> None:
    run_convert(DATA / "robotwin", tmp_path / "o.zarr", load_manifest("robotwin"))
    assert main(["doctor", str(tmp_path / "o.zarr"), "--html", str(tmp_path / "p.html")]) == 0
    text = (tmp_path / "p.html").read_text()
    assert "Nothing was found." in text.partition("<table>")[0] and "<img" not in text
    assert text.index("Conventions, as measured") < text.index(">no evidence (") < text.index(">confirmed by 2 of 2")


SEEN = {
    "jump": ("jump", "left_joint_2", "State and action"),
    "idle": ("idle_stretch", "", "Motion"),
    "gripper": ("gripper_polarity", "left_gripper", "left_gripper"),
    "column": ("near_constant_column", "state right_joint_1", "right_joint_1"),
    "action": ("action_meaning", "", "State and action"),
    "camera": ("camera_delay", "head_camera", "data:image/webp"),
    "wrists": ("wrists_exchanged", "", "data:image/webp"),
    "length": ("episode_length", "", "data:image/webp"),
    "text": ("instruction_typos", "", "<td>"),
    "instruction": ("instruction_placeholder", "", "data:image/webp"),
    "windows": ("unreachable_windows", "", "Frames marked not valid"),
}


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> StoredAlbum:
    """The episodes of a RoboTwin store."""
    path = tmp_path_factory.mktemp("album") / "o.zarr"
    run_convert(DATA / "robotwin", path, load_manifest("robotwin"), evidence=False)
    return StoredAlbum(fwdata.open(path))


@pytest.mark.parametrize("kind", SEEN)
def test_every_kind_of_finding_can_be_seen(kind: str, album: StoredAlbum) -> None:
    detector, subject, expected = SEEN[kind]
    first = album.episode(None)
    assert first is not None
    report = Report("t")
    add_exhibit(report, DoctorFinding("note", detector, "s", subject, episodes=(first.id,), count=1, row=20), album)
    assert expected in report.html()


@pytest.mark.parametrize("name", ["quarantined", "latents_incomplete", "text_incomplete", "stitched_fit", "left_out"])
def test_what_no_episode_shows_is_counted_in_a_plot(name: str, album: StoredAlbum) -> None:
    shares = (
        CountedShare("p00000", 20, 50),
        CountedShare("a reason " * 9, 3, 50),
        CountedShare("a reason " * 9, 0, 50),
    )
    report = Report("t")
    add_exhibit(report, DoctorFinding("warn", name, "s", shares=shares), album)
    page = report.html()
    assert page.count("<svg") == 1 and "p00000" in page and "of 50" in page and "a reason a reason" in page


def test_left_out_recordings_of_a_store_have_a_plot(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "beat_block_hammer"
    shutil.copytree(DATA / "robotwin" / "beat_block_hammer", raw)
    damaged = next(raw.rglob("episode1.hdf5"))
    damaged.write_bytes(damaged.read_bytes()[:5000])
    run_convert(tmp_path / "raw", tmp_path / "o.zarr", load_manifest("robotwin"), evidence=False)
    found = check_store(fwdata.open(tmp_path / "o.zarr"))
    (finding,) = (f for f in found.findings if f.detector == "quarantined")
    (share,) = finding.shares
    assert (share.count, share.total) == (1, 2) and "cannot be read as HDF5" in share.name


def test_findings_without_a_look_add_nothing(album: StoredAlbum) -> None:
    for detector in ("latents_fit", "quarantined", "discovery", "text_incomplete"):
        report = Report("t")
        add_exhibit(report, DoctorFinding("warn", detector, "s"), album)
        assert report.html() == Report("t").html()
    report = Report("t")
    add_exhibit(report, DoctorFinding("warn", "jump", "s", episodes=("no such",)), album)
    assert report.html() == Report("t").html()


@pytest.mark.slow
@pytest.mark.parametrize("source", ["robotwin", "libero", "r1lite", "lerobot"])
def test_recordings_show_the_images_of_their_store(source: str, tmp_path: Path) -> None:
    folder = "lerobot_v21" if source == "lerobot" else source
    manifest = load_manifest("lerobot-r1lite" if source == "lerobot" else source)
    run_convert(DATA / folder, tmp_path / "o.zarr", manifest, evidence=False)
    request = ConvertRequest(source, (DATA / folder,), tmp_path / "no", manifest, 0)
    with WorkerPool(0) as pool:
        recordings = find_recordings(request, pool).recordings
    stored = StoredAlbum(fwdata.open(tmp_path / "o.zarr")).episode(None)
    raw = RecordingAlbum(request, recordings).episode(None)
    assert stored is not None and raw is not None and raw.id == stored.id
    assert np.array_equal(raw.state, stored.state) and raw.cameras == stored.cameras
    for camera in raw.cameras:
        assert np.array_equal(raw.frames(camera, [0, 3, 7]), stored.frames(camera, [0, 3, 7]))
