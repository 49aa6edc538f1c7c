"""Line plots as inline SVG, coloured by the page's style sheet (light and dark)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fwdata.report.markup import SERIES_COLOURS, decimals, escape

type Values = tuple[ArrayLike, ArrayLike]
"""x and y of one line, equally long; a gap where one of them is not finite."""

MAX_POINTS = 1200
"""A longer line is thinned to the least and greatest value of every bucket."""


@dataclass(frozen=True)
class Band:
    """A stretch of x that is shaded, in the units of x."""

    low: float
    """Where it begins."""
    high: float
    """Where it ends."""


@dataclass(frozen=True)
class Panel:
    """One small plot of several with the same line names."""

    name: str
    """Title."""
    lines: Mapping[str, Values]
    """x and y by name of the line."""
    bands: Sequence[Band] = ()
    """Shaded stretches of x."""
    includes: Sequence[float] = ()
    """Values of y that the axis always shows. With any, changes of every size fill the plot; without, those below 0.01
    (of 1, or of the values where they are larger) are drawn flat."""


@dataclass(frozen=True)
class _Frame:
    """Size of a drawing and of the margins around its plot area, in SVG units.

    least: range of y that smaller changes are drawn in, per unit of values above 1 (so that noise looks like noise).
    """

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    font: int
    x_ticks: int
    y_ticks: int
    least: float


_LARGE = _Frame(760, 340, 92, 26, 12, 62, 14, 6, 6, 0.0)
_SMALL = _Frame(260, 122, 50, 10, 20, 20, 12, 4, 3, 0.01)


@dataclass(frozen=True)
class _Line:
    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Values low..high mapped to drawing units start..stop, linearly or by their logarithm."""

    low: float
    """Least value."""
    high: float
    """Greatest value."""
    start: float
    """Drawing unit of `low`."""
    stop: float
    """Drawing unit of `high`."""
    log: bool = False
    """Whether values are mapped by their logarithm; they must then be positive."""

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        share = ((np.log10(values) if self.log else values) - low) / (high - low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """About `count` round values in the range, with their labels."""
        if self.log:
            return _log_ticks(self.low, self.high, count)
        step = _round_step((self.high - self.low) / max(count, 1))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(i * step, _label(i * step, step)) for i in range(first, last + 1)]


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `step`."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= step * (1 - 1e-9))


def _label(value: float, step: float) -> str:
    if abs(value) >= 1e6 or (0 < step < 1e-4):
        return f"{value:.3g}"
    return f"{value:,.{decimals(step)}f}"


def _log_ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    stride = max(1, math.ceil(len(decades) / count))
    factors = (1, 2, 5) if high < 100 * low else (1,)
    values = [f * 10.0**d for d in decades if d % stride == 0 for f in factors]
    return [(v, f"{v:.4g}") for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]


def _line(name: str, values: Values, log: bool) -> _Line:
    """Checked x and y, not finite (nor positive, with log) values as gaps, thinned."""
    x, y = (np.asarray(v, np.float64).reshape(-1) for v in values)
    if x.shape != y.shape:
        raise ValueError(f"line {name!r} has {x.size} x and {y.size} y values")
    shown = np.isfinite(x) & np.isfinite(y)
    if log:
        shown &= y > 0
    return _thin(_Line(name, np.where(np.isfinite(x), x, 0.0), np.where(shown, y, np.nan)))


def _thin(line: _Line) -> _Line:
    if line.x.size <= MAX_POINTS:
        return line
    edges = np.linspace(0, line.x.size, MAX_POINTS // 2 + 1).astype(int)
    keep: set[int] = {0, line.x.size - 1}
    for low, high in pairwise(edges):
        bucket = line.y[low:high]
        if np.isnan(bucket).all():
            keep.add(int(low))
        else:
            keep.update((int(low + np.nanargmin(bucket)), int(low + np.nanargmax(bucket))))
    rows = np.array(sorted(keep))
    return _Line(line.name, line.x[rows], line.y[rows])


def value_range(values: NDArray[np.float64], log: bool, margin: float, least: float) -> tuple[float, float]:
    """Range of the finite values with a margin (a share of it); one below `least` is widened to it."""
    values = values[np.isfinite(values)]
    if not values.size:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if log:
        low, high = (low / 1.5, high * 1.5) if high < low * 1.02 else (low, high)
        extra = (high / low) ** margin
        return low / extra, high * extra
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    return low - margin * (high - low), high + margin * (high - low)


def _chart(
    frame: _Frame,
    lines: Sequence[_Line],
    bands: Sequence[Band],
    log: bool,
    labels: tuple[str, str],
    includes: Sequence[float] = (),
) -> str:
    """The SVG's inside: bands, grid, axis labels, lines."""
    shown = [line.x[np.isfinite(line.y)] for line in lines]
    x_values, y_values = np.concatenate([*shown, np.empty(0)]), np.concatenate([*(n.y for n in lines), includes])
    least = 0.0 if includes else frame.least
    size = float(np.nanmax(np.abs(y_values), initial=0.0))
    x_range = value_range(x_values, False, 0.0, least=1e-6)
    y_range = value_range(y_values, log, 0.05, least=max(least, least * size, 1e-9 * size, 1e-30))
    bottom = frame.height - frame.bottom
    x = Scale(*x_range, frame.left, frame.width - frame.right)
    y = Scale(*y_range, bottom, frame.top, log)
    parts = [_band(x, band, frame) for band in bands]
    parts += _grid(frame, x, y)
    parts += _axis_labels(frame, labels)
    for number, line in enumerate(lines):
        parts += _path(line, number, x, y, under=frame is _SMALL and number == 0 and len(lines) > 1)
    return "".join(parts)


def _band(x: Scale, band: Band, frame: _Frame) -> str:
    low, high = (float(v) for v in np.clip(x(np.array([band.low, band.high])), x.start, x.stop))
    return (
        f'<rect class="band" x="{low:.1f}" y="{frame.top}" width="{max(high - low, 1):.1f}" '
        f'height="{frame.height - frame.top - frame.bottom}"/>'
    )


def _grid(frame: _Frame, x: Scale, y: Scale) -> list[str]:
    parts = []
    for value, label in y.ticks(frame.y_ticks):
        at = float(y(np.array(value)))
        parts.append(f'<path class="axis" d="M{x.start:.1f} {at:.1f}H{x.stop:.1f}"/>')
        parts.append(
            f'<text x="{x.start - 6:.1f}" y="{at + frame.font * 0.35:.1f}" text-anchor="end" '
            f'font-size="{frame.font}">{escape(label)}</text>'
        )
    for value, label in x.ticks(frame.x_ticks):
        at = float(x(np.array(value)))
        parts.append(f'<path class="axis" d="M{at:.1f} {y.start:.1f}v4"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{y.start + 6:.1f}" text-anchor="middle" dominant-baseline="hanging" '
            f'font-size="{frame.font}">{escape(label)}</text>'
        )
    return parts


def _axis_labels(frame: _Frame, labels: tuple[str, str]) -> list[str]:
    x_label, y_label = labels
    parts = []
    if x_label:
        middle = (frame.left + frame.width - frame.right) / 2
        parts.append(
            f'<text x="{middle:.1f}" y="{frame.height - 6}" text-anchor="middle" '
            f'font-size="{frame.font}">{escape(x_label)}</text>'
        )
    if y_label:
        middle = (frame.top + frame.height - frame.bottom) / 2
        parts.append(
            f'<text class="ylabel" transform="translate(16 {middle:.1f}) rotate(-90)" text-anchor="middle" '
            f'font-size="{frame.font}">{escape(y_label)}</text>'
        )
    return parts


def _colour(number: int) -> str:
    return f"s{number % SERIES_COLOURS}" + (" dash" if number // SERIES_COLOURS % 2 else "")


def _path(line: _Line, number: int, x: Scale, y: Scale, under: bool) -> list[str]:
    """The line in pieces between gaps; a lone point as a dot."""
    finite = np.isfinite(line.y)
    starts = np.flatnonzero(finite & ~np.concatenate([[False], finite[:-1]]))
    stops = np.flatnonzero(finite & ~np.concatenate([finite[1:], [False]])) + 1
    moves, dots = [], []
    for start, stop in zip(starts, stops, strict=True):
        px, py = x(line.x[start:stop]), y(line.y[start:stop])
        if stop - start == 1:
            dots.append(f'<circle class="dot {_colour(number)}" cx="{px[0]:.1f}" cy="{py[0]:.1f}" r="2.5"/>')
        else:
            moves.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(px, py, strict=True)))
    title = f"<title>{escape(line.name)}</title>"
    style = f"line {_colour(number)}" + (" under" if under else "")
    path = [f'<path class="{style}" d="{"".join(moves)}">{title}</path>'] if moves else []
    return path + dots


def _svg(frame: _Frame, label: str, inside: str) -> str:
    kind = "chart large" if frame is _LARGE else "chart"
    return (
        f'<svg class="{kind}" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width} {frame.height}" '
        f'role="img" aria-label="{escape(label)}">{inside}</svg>'
    )


def _legend(names: Sequence[str], under: bool = False) -> str:
    items = []
    for number, name in enumerate(names):
        if not name:  # a lone line that its plot's title names
            continue
        style = f"line {_colour(number)}" + (" under" if under and number == 0 and len(names) > 1 else "")
        key = f'<svg viewBox="0 0 24 8" aria-hidden="true"><path class="{style}" d="M2 4H22"/></svg>'
        items.append(f"<li>{key}{escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>' if items else ""


def line_plot(title: str, lines: Mapping[str, Values], x_label: str, y_label: str, log: bool = False) -> str:
    """One plot with axes, ticks and a legend, as an HTML figure. log: logarithmic y, values <= 0 are gaps.

    Raises ValueError for a line with different numbers of x and y. A line of more than 1200 points is thinned to its
    extremes, so peaks stay visible.
    """
    checked = [_line(name, values, log) for name, values in lines.items()]
    of_y = f" ({escape(y_label)})" if y_label and y_label.lower() != title.lower() else ""
    head = f'<figcaption><span class="title">{escape(title)}</span>{of_y}</figcaption>{_legend(list(lines))}'
    if not any(np.isfinite(line.y).any() for line in checked):
        return f"<figure>{head}<p>no values</p></figure>"
    inside = _chart(_LARGE, checked, (), log, (x_label, y_label))
    return f"<figure>{head}{_svg(_LARGE, f'{title}: {y_label} over {x_label}', inside)}</figure>"


def small_multiples(title: str, panels: Sequence[Panel], x_label: str) -> str:
    """A grid of small plots, each with its own y range, as an HTML figure.

    The first line of a panel is drawn broad, the others thin on top of it, so that lines which agree stay visible.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    drawn = []
    for panel in panels:
        lines = [_line(name, values, False) for name, values in panel.lines.items()]
        name = f'<text class="name" x="{_SMALL.left}" y="13" font-size="{_SMALL.font}">{escape(panel.name)}</text>'
        drawn.append(
            _svg(_SMALL, panel.name, name + _chart(_SMALL, lines, panel.bands, False, ("", ""), panel.includes))
        )
    caption = f'<span class="title">{escape(title)}</span>' + (f" over {escape(x_label)}" if x_label else "")
    return (
        f"<figure><figcaption>{caption}</figcaption>{_legend(names, under=True)}"
        f'<div class="panels">{"".join(drawn)}</div></figure>'
    )
