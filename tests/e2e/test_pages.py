"""Report pages in a real browser at the width of a phone and of a desk: nothing overflows, all text can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from browser import browser, draw
from fake_store import FakeStore
from fixtures import robotwin_store
from training import run

import fwdata
from fwdata.doctor.checkup import check_store
from fwdata.overview.page import write_overview
from fwdata.overview.rows import measure
from fwdata.report.preview import write_preview
from fwtrain.train.folder import RunFolder
from fwtrain.train.report import write_run_report

WIDTHS = (390, 1280)
SMALLEST = 11.0
"""Least font size of a text, in CSS pixels."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="no Chromium on this machine (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
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
    }


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "preview", "store"])
def test_a_page_fits_its_window(pages: dict[str, Path], name: str, width: int):
    drawn = draw(pages[name], width)
    assert drawn.scroll <= drawn.client == width
    assert not drawn.wide and not drawn.narrow and not drawn.broken
    assert drawn.smallest >= SMALLEST, drawn.where


def test_a_dark_screen_gets_a_dark_page(pages: dict[str, Path]):
    assert draw(pages["run"], 390, dark=True).background == "rgb(22, 22, 26)"
    assert draw(pages["run"], 390).background == "rgb(255, 255, 255)"
