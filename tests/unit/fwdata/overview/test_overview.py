"""The page about a store, and what a preview adds to its worst episodes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fixtures import robotwin_store
from PIL import Image

import fwdata
from fwdata.cli import app
from fwdata.doctor.checkup import check_store
from fwdata.doctor.findings import Checkup, DoctorFinding
from fwdata.errors import StoreDamaged, UsageError
from fwdata.export.rerun import write_rerun
from fwdata.overview.closer import finding_notes, worst_episodes
from fwdata.overview.page import page_beside, write_overview
from fwdata.overview.rows import measure
from fwdata.report.films import FRAMES, STRIP, cursor_film, film_rows
from fwdata.report.preview import write_preview
from fwdata.store.episode import StoredEpisode
from fwdata.store.reader import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fwdata.open(robotwin_store(tmp_path_factory.mktemp("store"), frames=20))


@pytest.mark.slow
def test_the_page_answers_first_whether_one_can_train_and_how(store: Store, tmp_path: Path):
    page = write_overview(store, check_store(store), measure(store), tmp_path / "x.html").read_text()
    root = ElementTree.fromstring(page)
    text = "\n".join(root.itertext())
    first, rest = text.split("Doctor's findings", 1)
    assert "ready to train" in first and "after fwdata encode-latents and fwdata encode-text" in first
    for heading in ("Tasks", "Lengths", "State", "Action", "Timing", "Instructions", "Decisions", "Caches", "Storage"):
        assert heading in rest
    assert "beat_block_hammer" in rest and "left_joint_1" in rest and "gripper" in rest
    assert page.count("data:image/webp;base64,") >= 2 and "http://" not in page.replace("http://www.w3.org", "")
    assert page == write_overview(store, check_store(store), measure(store), tmp_path / "y.html").read_text()


def test_a_finding_that_stops_makes_the_store_not_ready(store: Store, tmp_path: Path):
    checked = Checkup("x", "store", 4, 80, (DoctorFinding("stop", "gripper_polarity", "inverted"),))
    text = write_overview(store, checked, measure(store), tmp_path / "x.html").read_text()
    assert "no: the doctor has 1 finding that make training useless" in text


class Row:
    """An episode with numbers of its own."""

    def __init__(self, name: str, state: np.ndarray, times: np.ndarray) -> None:
        self.id, self.num_frames, self._state, self._times = name, len(state), state, times

    def state(self) -> np.ndarray:
        return self._state

    def action(self) -> np.ndarray:
        return self._state

    def timestamps(self) -> np.ndarray:
        return self._times


def test_outliers_of_values_lengths_and_time_are_named():
    rng = np.random.default_rng(0)
    rows = [Row(f"e{i}", rng.normal(size=(50, 2)).astype(np.float32), np.arange(50) / 20) for i in range(30)]
    rows[7]._state[3, 1] = 80
    rows[9]._times[25:] += 1.5
    rows[11] = Row("e11", rng.normal(size=(400, 2)).astype(np.float32), np.arange(400) / 20)

    class Fake:
        episodes = rows
        state_names = action_names = ("a", "b")
        fps = 20.0

    found = measure(Fake())  # type: ignore[arg-type]
    assert [column.outlier for column in found.state] == ["", "e7"] and found.state[1].greatest == 80
    assert found.odd_lengths == (("e11", 400),)
    assert [name for name, _ in found.gaps] == ["e9"] and found.gaps[0][1] == pytest.approx(1.55)
    assert found.rate == pytest.approx(20)


def test_the_worst_episodes_are_those_that_findings_name_the_gravest_first(store: Store, tmp_path: Path):
    ids = [episode.id for episode in store.episodes]
    findings = (
        DoctorFinding("stop", "dead_camera", "the camera is black", episodes=(ids[2],), command="fwdata fix"),
        DoctorFinding("warn", "idle_stretch", "idle for 9 s", episodes=(ids[1], ids[2], "of another store")),
    )
    checked = Checkup("x", "store", 4, 80, findings)
    assert worst_episodes(store, checked, 5) == [2, 1] and worst_episodes(store, checked, 1) == [2]
    page = write_preview(store, tmp_path, (2, 0), [finding_notes(checked)]).read_text()
    assert page.count("the camera is black") == 1 and page.count("idle for 9 s") == 1 and "fwdata fix" in page


def test_a_film_has_a_cursor_that_moves_along_the_state():
    frames = np.zeros((3, 40, 64, 3), np.uint8)
    state = np.stack([np.linspace(0, 1, 11), np.zeros(11)], axis=1).astype(np.float32)
    film = Image.open(io.BytesIO(cursor_film(frames, np.array([0, 5, 10]), state, 10.0)))
    assert (film.width, film.height) == (192, 120 + STRIP)
    columns = []
    for number in range(3):
        film.seek(number)
        strip = np.asarray(film.convert("RGB"))[-STRIP:]
        columns.append(int(strip.min(axis=(0, 2)).argmax()))  # the only column that is bright from top to bottom
    assert columns == [0, 96, 191]
    assert len(film_rows(1000)) == FRAMES and film_rows(3).tolist() == [0, 1, 2]


def test_the_command_prints_one_document(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    app(["report", str(store.location), "--out", str(tmp_path), "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert Path(found["page"]) == tmp_path / "report.html" and found["findings"].keys() == {"stop", "warn", "note"}


def test_the_page_lies_beside_its_store_and_not_in_the_current_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    where = Path(store.location)
    page = where.with_name(f"{where.name.removesuffix('.zarr')}-report.html")
    app(["report", str(where)], standalone_mode=False)
    assert str(page) in capsys.readouterr().out and not list(tmp_path.iterdir())
    assert page.stat().st_size < 3e6
    page.unlink()
    monkeypatch.chdir(where)
    assert page_beside(fwdata.open(".")) == page


@pytest.mark.slow
def test_films_of_detailed_images_keep_a_page_small():
    """Noise over a moving gradient, as large and as long as a film gets: it was 10 MB as a lossless film."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 320).astype(np.int64)
    frames = np.stack([np.roll(np.tile(ramp, (384, 1)), 4 * i, axis=1) for i in range(FRAMES)])[..., None]
    frames = np.clip(frames + rng.integers(0, 24, (FRAMES, 384, 320, 3)), 0, 255).astype(np.uint8)
    state = rng.normal(size=(200, 14)).astype(np.float32)
    assert len(cursor_film(frames, film_rows(200), state, 10.0)) < 1.4e6


@pytest.mark.slow
def test_a_rerun_recording_holds_cameras_and_numbers(store: Store, tmp_path: Path):
    pytest.importorskip("rerun", reason="needs the extra rerun")
    path = write_rerun(store, [store.episodes[0]], tmp_path / "a.rrd")
    data = path.read_bytes()
    assert data[:4] in (b"RRF2", b"RRIO") and [p.name for p in tmp_path.iterdir()] == ["a.rrd"]
    for text in (b"episode-00000/camera/head_camera", b"episode-00000/state/left_joint_1", b"instruction"):
        assert text in data
    with pytest.raises(UsageError, match=r"ending in \.rrd"):
        write_rerun(store, [], tmp_path / "a.bin")


@pytest.mark.slow
def test_a_rerun_recording_that_fails_leaves_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("rerun", reason="needs the extra rerun")
    (tmp_path / "a.rrd").write_bytes(b"old")

    def damaged(*_: object) -> None:
        raise StoreDamaged("a shard is damaged")

    monkeypatch.setattr(StoredEpisode, "frames", damaged)
    with pytest.raises(StoreDamaged):
        write_rerun(store, [store.episodes[0]], tmp_path / "a.rrd")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.rrd", b"old")]
