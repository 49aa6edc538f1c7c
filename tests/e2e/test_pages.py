"""Report pages in a real browser at the width of a phone and of a desk: nothing overflows, all text can be read."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import fake_benchmark
import numpy as np
import pytest
from browser import browser, draw
from fake_store import FakeStore
from fixtures import QUICKSTART_VALUES as VALUES
from fixtures import robotwin_store, run_convert, save, toy_arrays, toy_manifest, write_toy
from serving import small_policy
from training import recipe, run
from warm import WarmPrograms

import fwdata
from fwdata.doctor.album import StoredAlbum
from fwdata.doctor.checkup import check_store
from fwdata.doctor.page import write_page
from fwdata.overview.page import write_overview
from fwdata.overview.rows import measure
from fwdata.quickstart.report import write_report
from fwdata.quickstart.results import Results
from fwdata.quickstart.run import steps
from fwdata.report.preview import write_preview
from fwtrain.compare import CellResult, ComparisonPlan, make_plan
from fwtrain.compare.page import write_comparison
from fwtrain.infer.evaluate import EvalResult
from fwtrain.infer.trials.plan import EvalPlan, PolicyAbout, plan_evaluation
from fwtrain.infer.trials.run import FilmRequest, evaluate_benchmark
from fwtrain.model import Denoising
from fwtrain.train.folder import RunFolder
from fwtrain.train.report import write_run_report

WIDTHS = (390, 1280)
SMALLEST = 11.0
"""Least font size of a text, in CSS pixels."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="no Chromium on this machine (apt-get install chromium)"),
]

NAMES = ("run", "preview", "store", "doctor", "recordings", "trials", "compared", "quickstart")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, warm: WarmPrograms) -> dict[str, Path]:
    """One page of every kind, of small data."""
    folder = tmp_path_factory.mktemp("pages")
    run(folder / "run", "optim.steps=24", store=FakeStore(instructions=("Press the red button",)))
    for name, solved in (("eval", 1), ("eval-untrained", 0)):
        (folder / "run" / name).mkdir()
        result = {"env": "sample", "untrained": not solved, "successes": solved, "episodes": 1, "interval": [0.0, 1.0]}
        (folder / "run" / name / "result.json").write_text(json.dumps(result))
        frames = np.zeros((4, 96, 96, 3), np.uint8)
        film = folder / "run" / name / "episode_0.npz"
        np.savez_compressed(film, frames=frames, instruction="Press the red button", success=bool(solved))
    write_run_report(RunFolder(folder / "run"))
    store = fwdata.open(robotwin_store(folder, frames=40))
    return {
        "run": folder / "run" / "report.html",
        "preview": write_preview(store, folder / "preview", 2, films=True),
        "store": write_overview(store, check_store(store), measure(store), folder / "store.html"),
        "doctor": doctor_page(folder),
        "trials": trials_page(folder / "trials"),
        "compared": compared_page(folder / "compared"),
        **sample_pages(folder / "sample", folder / "run", warm),
    }


def sample_pages(out: Path, trained: Path, warm: WarmPrograms) -> dict[str, Path]:
    """The doctor's of recordings, and the quickstart's of two of them, with the log and the films of another run."""
    store = out / "sample.zarr"
    for line in (
        ("sample", "robotwin", "--episodes", 2, "--out", out / "raw"),
        (
            "doctor",
            out / "raw",
            "--source",
            "robotwin",
            "--manifest",
            "robotwin-sample",
            "--html",
            out / "recordings.html",
        ),
        ("convert", "robotwin", out / "raw", "--out", store, "--manifest", "robotwin-sample", "--workers", 0),
        ("encode-latents", store, "--vae", "tiny", "--stride", 8, "--workers", 1),
    ):
        command = [*warm("fwdata"), *map(str, line)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in {0, 2}, done.stderr
    shutil.copytree(trained, out / "run")
    chunk = np.linspace(0, 1, 32)[:, None] * np.ones(14)
    values = {**VALUES, "predict": {"action": chunk, "recorded": chunk**2, "names": fwdata.open(store).action_names}}
    results = Results(values, dict.fromkeys(VALUES, 1.0), 700_000_000, 90.0)
    return {"recordings": out / "recordings.html", "quickstart": write_report(out, steps(out), results)}


def doctor_page(folder: Path) -> Path:
    """Of a store with a black camera."""
    raw = write_toy(folder / "raw", {"a": [60, 61, 62]})
    for number in range(3):
        arrays = toy_arrays(60 + number, number)
        save(raw / "a" / f"take{number}.npz", {**arrays, "wrist": np.zeros_like(arrays["wrist"])})
    with pytest.MonkeyPatch.context() as patch:
        run_convert(raw, folder / "o.zarr", toy_manifest(patch), evidence=False)
    store = fwdata.open(folder / "o.zarr")
    found = check_store(store)
    assert found.counts()["stop"]
    return write_page(found, StoredAlbum(store), folder / "doctor.html")


def asked(trials: str) -> EvalPlan:
    return plan_evaluation("fake_benchmark:BENCHMARK", fake_benchmark.BENCHMARK, ("one", "two"), trials=trials)


def trials_page(out: Path) -> Path:
    """Of two suites, with films."""
    sampling = Denoising(mode="first-frame", video_shift=5.0, action_shift=1.0)
    about: PolicyAbout = {
        "checkpoint": "step 2",
        "variant": "fastwam",
        "sampling": sampling,
        "gripper_sign": [],
        "scaling": "0" * 16,
    }
    evaluate_benchmark(asked("2"), small_policy(), about, out, films=FilmRequest((0,)))
    return out / "report.html"


def compared_page(out: Path) -> Path:
    """Of three arms with two seeds each, one of them without a closed loop."""
    names = ("fastwam", "no-video")
    made: ComparisonPlan = make_plan(recipe("optim.steps=2"), out, benchmark=asked("6"), variants=names, lambdas=(0.5,))
    tasks = {f"libero_goal/put_the_wine_bottle_on_top_of_the_cabinet_{n}": (n, 6) for n in range(4)}
    numbers = {"score": 0.61278, "loss": 1.25, "action_mae": 0.0123, "video.1": 0.5, "video.2": 0.75}
    closed = EvalResult(6, 24, 81.25, tasks, (True, *(False,) * 23))
    results = [CellResult(cell, numbers, None if cell.seed else closed, 2) for cell in made.cells]
    return write_comparison(made, results)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_its_window_and_can_be_read(pages: dict[str, Path], name: str, width: int, dark: bool):
    drawn = draw(pages[name], width, dark=dark)
    assert drawn.scroll <= drawn.client == width
    assert not drawn.wide and not drawn.narrow and not drawn.broken
    assert drawn.smallest >= SMALLEST, drawn.where
    assert not drawn.faint and not drawn.unreached
    assert drawn.background == ("rgb(22, 22, 26)" if dark else "rgb(255, 255, 255)")


FAULTY = """<!DOCTYPE html><html><body style="background:#fff"><p style="color:#999">faint</p>
<p style="color:#767676">read</p><a href="#" style="outline:none">unseen</a><a href="#" tabindex="-1">unreached</a>
<pre style="overflow:auto" tabindex="-1">wide PAD</pre><table><tr><td style="font-size:6px">small</td></tr></table>
</body></html>"""


def test_faults_of_a_page_are_found(tmp_path: Path):
    page = tmp_path / "faulty.html"
    page.write_text(FAULTY.replace("PAD", "-" * 200))
    drawn = draw(page, 390)
    assert len(drawn.faint) == 1 and "faint" in drawn.faint[0] and drawn.smallest == 6
    assert [any(word in found for found in drawn.unreached) for word in ("unseen", "unreached", "<pre")] == [True] * 3
