"""The report builder: blocks in order, one HTML file out."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fwdata.io import write_atomic
from fwdata.report.images import image_size
from fwdata.report.markup import STYLE, escape, is_number, show
from fwdata.report.plots import Panel, Values, line_plot, small_multiples
from fwdata.report.ranges import RangePanel, range_plot

POLICY = (
    "script-src 'none'; object-src 'none'; connect-src 'none'; frame-src 'none'; base-uri 'none'; form-action 'none'"
)
"""What a browser may do with the page, should a text ever escape its escaping."""

STRIP = 2.5
"""An image that is so many times as wide as high scrolls in a narrow window, instead of being shown too small."""


class Report:
    """One HTML page, built block by block and written whole.

    Every text is escaped; the page holds no scripts and loads nothing from elsewhere. Images are embedded unless they
    are given file names. The same calls give the same bytes.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._blocks: list[str] = []
        self._files: dict[str, bytes] = {}

    def heading(self, text: str, level: int = 2) -> None:
        """A heading below the title: level 2 starts a section, 3 a part of it."""
        if level not in (2, 3):
            raise ValueError(f"headings have level 2 or 3, not {level}")
        self._blocks.append(f"<h{level}>{escape(text)}</h{level}>")

    def text(self, text: str) -> None:
        """A paragraph; line breaks are kept."""
        self._blocks.append(f"<p>{escape(text)}</p>")

    def code(self, text: str) -> None:
        """Lines as typed or printed, in a fixed-width font."""
        self._blocks.append(f'<pre tabindex="0">{escape(text)}</pre>')

    def facts(self, values: Mapping[str, object]) -> None:
        """A table of names and values. Values of any plain type are shown for people (see `markup.show`)."""
        rows = [f'<tr><th scope="row">{escape(key)}</th><td>{escape(show(v))}</td></tr>' for key, v in values.items()]
        self._table("", rows)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table with a header row; columns of numbers are aligned to the right. ValueError for a row that misfits."""
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"a table of {len(header)} columns got a row of {len(row)}: {list(row)}")
        right = [bool(rows) and all(is_number(row[i]) or row[i] is None for row in rows) for i in range(len(header))]
        style = [' class="n"' if numbers else "" for numbers in right]
        head = "".join(f'<th scope="col"{s}>{escape(t)}</th>' for t, s in zip(header, style, strict=True))
        body = [
            "<tr>" + "".join(f"<td{s}>{escape(show(v))}</td>" for v, s in zip(row, style, strict=True)) + "</tr>"
            for row in rows
        ]
        self._table(f"<thead><tr>{head}</tr></thead>", body)

    def _table(self, head: str, rows: Sequence[str]) -> None:
        self._blocks.append(f'<div class="wide" tabindex="0"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>')

    def images(self, images: Sequence[tuple[bytes, str]], files: Sequence[str] = (), at_least: int = 0) -> None:
        """Encoded images (PNG, WebP, GIF, JPEG) in a grid, each with its caption.

        files: plain names to write the images under, beside the page; embedded when there are none. at_least: width in
        pixels that narrower images are enlarged to by whole numbers. Raises ValueError for bytes that are not an
        image, and for names that are taken or not plain.
        """
        names = list(files) or [""] * len(images)
        figures = []
        for (data, caption), name in zip(images, names, strict=True):
            width, height, media = image_size(data)
            times = max(1, -(-at_least // width))
            source = self._beside(name, data) if name else f"data:{media};base64,{base64.b64encode(data).decode()}"
            kind = ' class="strip"' if width > STRIP * height else ""
            kind = ' class="pixels"' if times > 1 else kind
            size = f'width="{width * times}" height="{height * times}"'
            image = f'<img{kind} src="{source}" {size} alt="{escape(caption)}"/>'
            image = f'<a href="{source}">{image}</a>' if name else image
            image = f'<div class="wide" tabindex="0">{image}</div>' if "strip" in kind else image
            text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
            figures.append(f"<figure>{image}{text}</figure>")
        self._blocks.append(f'<div class="grid">{"".join(figures)}</div>')

    def _beside(self, name: str, data: bytes) -> str:
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or not name.isascii():
            raise ValueError(f"an image's file name must be plain letters, digits, '.', '-' and '_', found {name!r}")
        if self._files.setdefault(name, data) != data:
            raise ValueError(f"two images are to be written as {name}")
        return name

    def plot(self, title: str, lines: Mapping[str, Values], x_label: str, y_label: str, log: bool = False) -> None:
        """A line plot: name of each line -> (xs, ys). log: logarithmic y. See `plots.line_plot`."""
        self._blocks.append(line_plot(title, lines, x_label, y_label, log))

    def multiples(self, title: str, panels: Sequence[Panel], x_label: str = "") -> None:
        """A grid of small plots. See `plots.small_multiples`."""
        self._blocks.append(small_multiples(title, panels, x_label))

    def ranges(self, title: str, panels: Sequence[RangePanel]) -> None:
        """Values with their intervals, panels side by side. See `ranges.range_plot`."""
        head = f'<figcaption><span class="title">{escape(title)}</span></figcaption>'
        self._blocks.append(f'<figure>{head}<div class="wide" tabindex="0">{range_plot(panels)}</div></figure>')

    def links(self, targets: Mapping[str, str]) -> None:
        """A list of links: text -> relative path of a file beside or below the page. ValueError for any other path."""
        for path in targets.values():
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", path, re.ASCII) or ".." in path.split("/"):
                raise ValueError(f"a link must be a plain relative path, found {path!r}")
        items = "".join(f'<li><a href="{path}">{escape(text)}</a></li>' for text, path in targets.items())
        self._blocks.append(f"<ul>{items}</ul>")

    @contextmanager
    def folded(self, title: str) -> Iterator[None]:
        """What is added inside the block is shown when the reader opens it."""
        outer, self._blocks = self._blocks, []
        try:
            yield
        finally:
            inner, self._blocks = self._blocks, outer
            joined = "\n".join(inner)
            self._blocks.append(f"<details><summary>{escape(title)}</summary>\n{joined}\n</details>")

    def html(self) -> str:
        """The page. It is well-formed XML too."""
        body = "\n".join(self._blocks)
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>
<title>{escape(self.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(self.title)}</h1>
{body}
</body>
</html>
"""

    def write(self, path: Path) -> Path:
        """Write the images that have file names, then the page, each whole or not at all. Returns `path`."""
        for name, data in self._files.items():
            write_atomic(path.parent / name, data)
        write_atomic(path, self.html().encode())
        return path
