"""Closed loops on a run's page: which evaluations are found, in what order, and which films are shown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from training import run

from fwdata.report import Report, frames_strip
from fwdata.report.films import FRAMES, rollout_film
from fwdata.report.images import light_copy
from fwtrain.infer.trials.films import encode_mp4
from fwtrain.train.folder import RunFolder
from fwtrain.train.report import write_run_report
from fwtrain.train.report_loops import SHOWN, find_loops

SAMPLE = {"env": "sample", "successes": 3, "episodes": 4, "interval": [0.3, 0.95], "checkpoint": "step 6"}
UNTRAINED = {"checkpoint": "untrained, seed 0"}
BENCHMARK = {"env": "libero", "successes": 0, "trials": 2, "interval": [0.0, 0.66], "policy": UNTRAINED}


def evaluation(folder: Path, result: dict[str, object]) -> Path:
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def episode(folder: Path, number: int, solved: bool) -> None:
    frames = np.full((3, 32, 48, 3), number, np.uint8)
    np.savez_compressed(folder / f"episode_{number}.npz", frames=frames, instruction="press <b>", success=solved)


@pytest.mark.slow
def test_the_page_shows_success_first_and_films_before_and_after(tmp_path: Path):
    run(tmp_path / "run")
    after = evaluation(tmp_path / "run" / "eval", SAMPLE)
    before = evaluation(tmp_path / "run" / "eval-untrained", BENCHMARK)
    for number in range(6):
        episode(after, number, solved=number > 0)
    (before / "films").mkdir()
    film = np.zeros((4, 32, 64, 3), np.uint8)
    (before / "films" / "libero_goal-open-0-failure.mp4").write_bytes(encode_mp4(film))
    page = write_run_report(RunFolder(tmp_path / "run")).read_text()
    text = "\n".join(ElementTree.fromstring(page).itertext())
    first = text.index("3 of 4 solved (95 % interval 30% to 95%)")
    assert first < text.index("newest checkpoint")
    assert text.index("Before training") < text.index("After training") < text.index("Losses")
    assert page.count("data:image/webp") == SHOWN + 1
    assert text.count("press <b>: solved") == 3 and text.count("press <b>: not solved") == 1
    assert "libero_goal-open-0-failure: not solved" in text


def test_folders_that_are_no_evaluations_are_left_out(tmp_path: Path):
    evaluation(tmp_path / "a", {**SAMPLE, "interval": [0.1]})
    evaluation(tmp_path / "b", {"successes": 3})
    evaluation(tmp_path / "c", SAMPLE)
    (evaluation(tmp_path / "d", SAMPLE) / "result.json").write_text("[1, 2")
    (evaluation(tmp_path / "e", SAMPLE) / "result.json").write_text("[1, 2]")
    evaluation(tmp_path / "f", BENCHMARK)
    assert [loop.folder.name for loop in find_loops(tmp_path)] == ["f", "c"]
    assert find_loops(tmp_path)[0].untrained and find_loops(tmp_path)[1].checkpoint == "step 6"


def test_films_and_stills_of_a_page_are_light(tmp_path: Path):
    scene = np.asarray(Image.effect_noise((64, 96), 20).convert("RGB"))
    frames = np.stack([np.roll(scene, step, axis=1) for step in range(97)])
    film = rollout_film(frames, fps=20.0)
    with Image.open(io.BytesIO(film)) as image:
        assert image.n_frames == FRAMES and image.size == (64, 96)  # type: ignore[attr-defined]
        lengths = []
        for number in range(FRAMES):
            image.seek(number)
            image.load()
            lengths.append(image.info["duration"])
    assert 4700 < sum(lengths) - 1000 < 5000  # 97 frames at 20 Hz, the last one held for a second more
    noise = np.random.default_rng(0).integers(0, 24, frames[:9].shape, np.uint8)
    still = frames_strip(frames[:9] // 2 + noise, 2)
    assert len(light_copy(still)) < len(still) / 3
    assert light_copy(film) is film and light_copy(small := frames_strip(frames[:1] // 255)) is small
    report = Report("films")
    report.images([(film, "film")], at_least=192)
    assert 'width="192" height="288"' in report.html() and "pixels" in report.html()


def test_a_film_is_coded_without_what_makes_its_bytes_differ() -> None:
    """x264 writes its settings into the film: with the macroblock tree, bytes depend on what memory held before."""
    coded = encode_mp4(np.zeros((4, 32, 48, 3), np.uint8))
    assert b"mbtree=0" in coded and b"threads=1 " in coded
