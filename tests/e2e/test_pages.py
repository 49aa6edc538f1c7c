"""Report pages in a real browser at the width of a phone and of a desk: nothing overflows, all text can be read."""

from __future__ import annotations

from pathlib import Path

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
