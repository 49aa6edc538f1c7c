"""Text of a report: escaping, how values are shown, and the style sheet."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence, Set
from numbers import Integral, Real

import numpy as np

BLANK = "\N{NO-BREAK SPACE}"
"""Keeps counts on one line on a phone."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that neither HTML nor UTF-8 can carry."""


def escape(text: str) -> str:
    """Text as HTML: markup characters escaped, characters that no page can carry replaced."""
    return html.escape(_CONTROL.sub("�", text))


def show(value: object) -> str:
    """A value as plain text for people: thousands separated, at most 4 significant digits, nothing as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        number = float(value)
        return f"{number:,.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.4g}"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "; ".join(f"{show(key)}: {show(item)}" for key, item in value.items()) or "–"
    if isinstance(value, Sequence | Set | np.ndarray):
        return ", ".join(show(item) for item in value) or "–"
    return str(value)


def is_number(value: object) -> bool:
    """Whether a value is shown as a number (aligned to the right)."""
    return isinstance(value, Real) and not isinstance(value, bool)


def decimals(step: float) -> int:
    """Decimals that tell two numbers `step` apart."""
    return max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0


SERIES_COLOURS = 8
"""Distinct line colours; further series repeat them dashed."""

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c1c21; --soft: #5d5d68; --line: #dcdce2; --fill: #f4f4f7;
  --c0: #0b62c4; --c1: #d1480f; --c2: #0f8a5f; --c3: #8a3ffc; --c4: #b28600; --c5: #c2255c;
  --c6: #0c8599; --c7: #5c5f66; }
@media (prefers-color-scheme: dark) { :root { --page: #16161a; --ink: #e6e6ea; --soft: #a0a0ad; --line: #34343d;
  --fill: #202027; --c0: #6cb0ff; --c1: #ff9466; --c2: #4fd1a1; --c3: #c4a1ff; --c4: #f0c64a; --c5: #ff85ad;
  --c6: #5fd3e6; --c7: #b5b8c0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 2.75rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
h1, h2, h3, figcaption, p { overflow-wrap: anywhere; }
td, th { overflow-wrap: break-word; }
p { max-width: 46rem; margin: .5rem 0; white-space: pre-line; }
a { color: var(--c0); }
code, pre { font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--fill); border-radius: 6px; padding: .75rem 1rem; overflow-x: auto; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .94rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.25rem .3rem 0; border-bottom: 1px solid var(--line); }
thead th, th[scope=row] { font-weight: 500; color: var(--soft); }
th[scope=row] { white-space: nowrap; }
th[scope=row] + td { overflow-wrap: anywhere; min-width: 10rem; }
th.n, td.n { text-align: right; }
figure { margin: 1rem 0; }
figcaption { color: var(--soft); font-size: .9rem; margin-bottom: .35rem; }
.grid { display: flex; flex-wrap: wrap; gap: 1rem 1.25rem; align-items: flex-start; }
.grid figure { margin: 0; min-width: 12rem; max-width: 100%; }
.grid .wide { margin: 0; }
.grid figcaption { margin: .35rem 0 0; width: 0; min-width: 100%; }
img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
img.pixels { image-rendering: pixelated; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .25rem 1rem; }
.title { font-weight: 600; color: var(--ink); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; color: var(--soft); font-size: .85rem; margin: 0 0 .35rem;
  padding: 0; list-style: none; }
.legend svg { width: 1.6em; height: .6em; margin-right: .4em; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--soft); }
svg.chart { display: block; width: 100%; height: auto; max-width: 56rem; }
svg text { fill: var(--soft); font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
svg text.name { fill: var(--ink); }
@media (max-width: 40rem) {
  body { padding: 1.25rem .9rem 3rem; }
  h1 { font-size: 1.55rem; }
  svg.large text { font-size: 25px; }
  img.strip { max-width: none; width: 52rem; height: auto; }
  svg.large .ylabel { display: none; }
  th[scope=row] { white-space: normal; min-width: 7rem; }
  th, td { padding-right: .9rem; }
}
:is(a, summary, pre, .wide):focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
.axis { stroke: var(--line); stroke-width: 1; fill: none; }
.band { fill: var(--c1); opacity: .16; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.under { stroke-width: 3.2; opacity: .45; }
.dot { stroke: none; }
.dash { stroke-dasharray: 5 4; }
""" + "".join(f".s{i} {{ stroke: var(--c{i}); }} .dot.s{i} {{ fill: var(--c{i}); }}\n" for i in range(SERIES_COLOURS))
