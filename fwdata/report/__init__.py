"""HTML reports: one self-contained page with tables, line plots (inline SVG) and images, without scripts.

    report = Report("Quickstart")
    report.facts({"episodes": 60, "frames": 2000})
    report.plot("Loss", {"train": (steps, losses)}, "step", "loss", log=True)
    report.pictures([(frames_strip(frames), "one episode"), (animate(rollout, fps=16.7), "closed loop")])
    report.write(Path("report.html"))

Same calls, same bytes. Names are imported when they are asked for: commands that print a document draw nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fwdata.report.images import Tile, animate, contact_sheet, frames_strip
    from fwdata.report.page import Report
    from fwdata.report.plots import Band, Panel, Values
    from fwdata.report.ranges import Range, RangePanel, range_plot, standalone

__all__ = [
    "Band",
    "Panel",
    "Range",
    "RangePanel",
    "Report",
    "Tile",
    "Values",
    "animate",
    "contact_sheet",
    "frames_strip",
    "range_plot",
    "standalone",
]

_HOMES = {
    **dict.fromkeys(("Tile", "animate", "contact_sheet", "frames_strip"), "images"),
    **dict.fromkeys(("Report",), "page"),
    **dict.fromkeys(("Band", "Panel", "Values"), "plots"),
    **dict.fromkeys(("Range", "RangePanel", "range_plot", "standalone"), "ranges"),
}
"""Public name -> module of this package that holds it."""


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"fwdata.report.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fwdata.report' has no attribute {name!r}")
