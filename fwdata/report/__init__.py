"""HTML reports: one self-contained page with tables, line plots (inline SVG) and images, without scripts.

    report = Report("Quickstart")
    report.facts({"episodes": 60, "frames": 2000})
    report.plot("Loss", {"train": (steps, losses)}, "step", "loss", log=True)
    report.pictures([(frames_strip(frames), "one episode"), (animate(rollout, fps=16.7), "closed loop")])
    report.write(Path("report.html"))

Same calls, same bytes.
"""

from __future__ import annotations

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
