"""Pages in a real headless Chromium at a chosen width: whether they overflow, and how small their text is drawn."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

HARNESS = """<!DOCTYPE html><html><body style="margin:0">
<iframe id="page" src="PAGE" style="border:0;width:WIDTHpx;height:900px"></iframe><pre id="found"></pre>
<script>
const frame = document.getElementById("page");
function visible(element) { const box = element.getBoundingClientRect(); return box.width > 0 && box.height > 0; }
function scaled(element) {
  const size = parseFloat(getComputedStyle(element).fontSize), svg = element.closest("svg");
  return svg ? size * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : size;
}
function parsed(colour) {
  const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
  return [r, g, b, a];
}
function over(top, below) { return [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1); }
function behind(element) {
  if (!element) return [255, 255, 255, 1];
  const own = parsed(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own : over(own, behind(element.parentElement));
}
function luminance(colour) {
  const [r, g, b] = colour.map(x => x / 255).map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(element) {
  const style = getComputedStyle(element), ground = behind(element);
  const ink = over(parsed(element.closest("svg") ? style.fill : style.color), ground);
  const [low, high] = [luminance(ink), luminance(ground)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
function reached(element) {
  element.focus({preventScroll: true});
  const style = getComputedStyle(element), page = element.ownerDocument;
  return page.activeElement === element && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
}
function measure() {
  const page = frame.contentDocument, root = page.documentElement;
  const width = root.clientWidth, wide = [], faint = [], unreached = [];
  page.querySelectorAll("details").forEach(element => element.open = true);
  for (const element of page.body.querySelectorAll("*")) {
    if (element.closest(".wide, pre, svg") && !element.matches(".wide, pre")) continue;
    const right = element.getBoundingClientRect().right;
    if (visible(element) && right > width + 1) wide.push(element.outerHTML.slice(0, 120));
  }
  let smallest = 1e9, where = "";
  const walk = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !visible(element) || element.closest("title")) continue;
    const size = scaled(element), told = walk.currentNode.textContent.trim().slice(0, 60);
    if (size < smallest) { smallest = size; where = told; }
    if (contrast(element) < 4.5) faint.push(`${told}: ${contrast(element).toFixed(2)}`);
  }
  const narrow = [];
  for (const cell of page.querySelectorAll("td, th")) {
    const text = cell.textContent.trim(), box = cell.getBoundingClientRect();
    const longest = Math.max(0, ...text.split(/\\s+/).map(word => Math.min(word.length, 12)));
    if (visible(cell) && box.width < longest * 5) narrow.push(text.slice(0, 60));
  }
  for (const element of page.querySelectorAll("a, summary, pre, div")) {
    const scrolls = element.scrollWidth > element.clientWidth + 1 && element.matches("pre, .wide");
    if (!scrolls && !element.matches("a, summary, [tabindex]")) continue;
    if (!visible(element) || (element.tabIndex >= 0 && reached(element))) continue;
    unreached.push(element.outerHTML.slice(0, 120));
  }
  const broken = [...page.images].filter(image => !image.complete || !image.naturalWidth).length;
  document.getElementById("found").textContent = JSON.stringify({
    scroll: root.scrollWidth, client: width, wide, smallest, where, faint, narrow, unreached, broken,
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor });
}
frame.onload = () => setTimeout(measure, 100);
</script></body></html>"""


@dataclass(frozen=True)
class Drawn:
    """A page as a browser lays it out, sizes in CSS pixels.

    scroll, client: width of its content and of its window. wide: elements that reach beyond it. smallest: least font
    size of a text, where: that text. faint: texts whose contrast with their background is below 4.5, with it. narrow:
    table cells that break words. unreached: links, summaries and what scrolls without a visible focus by keyboard.
    broken: images that do not load. background: the colour of the page. What is folded is opened first.
    """

    scroll: int
    client: int
    wide: list[str]
    smallest: float
    where: str
    faint: list[str]
    narrow: list[str]
    unreached: list[str]
    broken: int
    background: str


def browser() -> str | None:
    """A Chromium on this machine, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def draw(page: Path, width: int, *, dark: bool = False, screenshot: Path | None = None, height: int = 900) -> Drawn:
    """Open a page in a window of `width` pixels and measure it; screenshot: also write a PNG of its first `height`."""
    program = browser()
    assert program is not None, "no Chromium on this machine"
    with _served(page.parent, page.name, width, height) as address:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += ["--disable-background-networking", f"--window-size={max(width, 500)},{height}"]
        command += ["--blink-settings=preferredColorScheme=0"] if dark else []
        if screenshot is not None:
            subprocess.run(
                [*command, f"--screenshot={screenshot}", address], check=True, capture_output=True, timeout=120
            )
        measured = [*command, "--virtual-time-budget=8000", "--dump-dom", address]
        text = subprocess.run(measured, check=True, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'<pre id="found">(\{.*?\})</pre>', text, re.DOTALL)
    assert found is not None, text[-2000:]
    return Drawn(**json.loads(unescape(found[1])))


@contextmanager
def _served(folder: Path, name: str, width: int, height: int) -> Iterator[str]:
    """The folder over loopback, with a page `/-` that frames the one to measure: its own scripts are forbidden."""
    harness = HARNESS.replace("PAGE", f"/{name}").replace("WIDTH", str(width)).replace("height:900", f"height:{height}")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/-":
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(harness.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/-"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
