"""Values with their intervals, one row each, as SVG: on a page, or as a file of its own that follows light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fwdata.report.markup import STYLE, escape
from fwdata.report.plots import Scale, value_range

WIDTH, GAP, TOP, ROW, BOTTOM, FONT = 296, 28, 34, 30, 44, 13
NARROWEST = 800
"""A plot scrolls rather than being drawn narrower, in CSS pixels."""


@dataclass(frozen=True)
class Range:
    """A value with its interval."""

    value: float
    """The estimate."""
    low: float
    """Lower bound; not finite where nothing is known of it."""
    high: float
    """Upper bound; not finite where nothing is known of it."""
    points: Sequence[float] = ()
    """Single values it is made of; empty: none are drawn."""


@dataclass(frozen=True)
class RangePanel:
    """One quantity."""

    title: str
    """Heading."""
    label: str
    """Text below the axis, with the unit."""
    rows: dict[str, Range | None]
    """Range by row name; None where a row has no value."""
    limits: tuple[float, float] | None = None
    """Fixed range of the axis; None: as the values need."""


def range_plot(panels: Sequence[RangePanel]) -> str:
    """Panels side by side that share their row names, as one SVG element; intervals beyond the axis are cut there.

    Raises ValueError for panels with different rows.
    """
    names = list(panels[0].rows)
    if any(list(panel.rows) != names for panel in panels):
        raise ValueError("panels of one plot need the same rows")
    height = TOP + ROW * len(names) + BOTTOM
    left = 28 + 8 * max(map(len, names))
    width = left + len(panels) * (WIDTH + GAP)
    parts = [
        f'<text class="name" x="{left - 12}" y="{TOP + ROW * (i + 0.5) + FONT * 0.35:.1f}" text-anchor="end" '
        f'font-size="{FONT}">{escape(name)}</text>'
        for i, name in enumerate(names)
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, left + number * (WIDTH + GAP), TOP + ROW * len(names))
    label = "; ".join(panel.title for panel in panels)
    return (
        f'<svg class="chart ranges" style="max-width:{width}px;min-width:{min(width, NARROWEST)}px" '
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def standalone(svg: str) -> str:
    """The same SVG as a file: with the style sheet of the pages and a background."""
    head, rest = svg.split(">", 1)
    return f'{head}><style>{STYLE}</style><rect width="100%" height="100%" fill="var(--page)"/>{rest}\n'


def _axis(panel: RangePanel, left: float) -> Scale:
    if panel.limits is not None:
        return Scale(*panel.limits, left, left + WIDTH)
    found = [
        value
        for item in panel.rows.values()
        if item is not None
        for value in (item.value, item.low, item.high, *item.points)
    ]
    low, high = value_range(np.asarray(found, np.float64), False, 0.06, least=1e-9)
    return Scale(low, high, left, left + WIDTH)


def _panel(panel: RangePanel, left: float, bottom: float) -> list[str]:
    x = _axis(panel, left)
    parts = [f'<text class="name" x="{left}" y="{FONT + 3}" font-size="{FONT}">{escape(panel.title)}</text>']
    for value, label in x.ticks(5):
        at = float(x(np.array(value)))
        parts.append(f'<path class="axis" d="M{at:.1f} {TOP}V{bottom + 4:.1f}"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{bottom + 6 + FONT:.1f}" text-anchor="middle" font-size="{FONT - 1}">'
            f"{escape(label)}</text>"
        )
    parts.append(
        f'<text x="{left + WIDTH / 2:.1f}" y="{bottom + 38:.1f}" text-anchor="middle" font-size="{FONT}">'
        f"{escape(panel.label)}</text>"
    )
    for row, item in enumerate(panel.rows.values()):
        y = TOP + ROW * (row + 0.5)
        if item is None:
            parts.append(f'<text x="{left + 6}" y="{y + FONT * 0.35:.1f}" font-size="{FONT - 1}">none</text>')
        else:
            parts += _mark(item, x, y)
    return parts


def _mark(item: Range, x: Scale, y: float) -> list[str]:
    """The interval as a line, the single values as small dots below it, the value as a large one."""
    parts = []
    if np.isfinite([item.low, item.high]).all():
        low, high = (float(v) for v in np.clip(x(np.array([item.low, item.high])), x.start, x.stop))
        ends = "".join(f"M{at:.1f} {y - 4:.1f}v8" for at in (low, high))
        parts.append(f'<path class="line s0" d="M{low:.1f} {y:.1f}H{high:.1f}{ends}"/>')
    if len(item.points) > 1:
        places = np.clip(x(np.asarray(item.points, np.float64)), x.start, x.stop)
        parts += [f'<circle class="dot s1" cx="{place:.1f}" cy="{y + 9:.1f}" r="2"/>' for place in places]
    at = float(np.clip(x(np.array(item.value)), x.start, x.stop))
    parts.append(f'<circle class="dot s0" cx="{at:.1f}" cy="{y:.1f}" r="4.5"/>')
    return parts
