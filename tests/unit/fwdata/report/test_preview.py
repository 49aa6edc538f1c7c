"""Pictures for people: the report builder, strips and animations, and `fwdata preview` on a converted store."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import Command
from PIL import Image

import fwdata
from fwdata.envs.sample import write_sample
from fwdata.errors import UsageError
from fwdata.manifest import load_manifest
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.run import convert
from fwdata.report import Band, Panel, Report, Tile, animate, contact_sheet, frames_strip
from fwdata.report.preview import choose_episodes, write_preview

HTML = "<script>alert('x')</script> & \"co\""
NAMESPACE = "{http://www.w3.org/2000/svg}"


def page(report: Report) -> ElementTree.Element:
    """The page as parsed XML: fails on any tag that is not closed and any text that is not escaped."""
    return ElementTree.fromstring(report.html())


def texts(root: ElementTree.Element) -> str:
    return "\n".join(root.itertext())


def noise(n: int, height: int = 24, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sample recordings of two tasks: one damaged, one with markup in its instructions."""
    folder = tmp_path_factory.mktemp("preview")
    raw, out = folder / "raw", folder / "sample.zarr"
    write_sample("robotwin", raw, 5, seed=1)
    recordings = sorted(raw.rglob("episode*.hdf5"))
    recordings[-1].write_bytes(recordings[-1].read_bytes()[:1000])
    instructions = next(raw.rglob("episode0.json"))
    found = json.loads(instructions.read_text())
    instructions.write_text(json.dumps({**found, "seen": [HTML, *found["seen"]]}))
    request = ConvertRequest("robotwin", (raw,), out, load_manifest("robotwin-sample"), 0)
    report = convert(request, lambda plan: None, lambda episodes, frames: None)
    assert (report.episodes, len(report.quarantined)) == (4, 1)
    return out


def test_preview_shows_episodes_of_every_task_with_decisions_and_quarantine(converted: Path, tmp_path: Path):
    store = fwdata.open(converted)
    path = write_preview(store, tmp_path / "look", 3)
    assert path == tmp_path / "look" / "index.html"
    root = ElementTree.fromstring(path.read_text())
    shown = texts(root)
    chosen = choose_episodes(store, 3)
    assert {e.task for e in chosen} == {e.task for e in store.episodes}
    for episode in chosen:
        assert episode.id in shown and episode.source in shown
        assert episode.instruction in shown
    assert HTML in shown and not list(root.iter("script"))
    quarantined = store.quarantined[0]
    assert quarantined["source"] in shown and quarantined["reason"] in shown
    assert "colour_check.verdict" in shown and "joint_order" in shown
    assert str(converted.parent) not in path.read_text()
    panels = [svg for svg in root.iter(f"{NAMESPACE}svg") if svg.get("class") == "chart"]
    assert len(panels) == 3 * len(store.state_names)
    assert len({p.get("aria-label") for p in panels}) == len(store.state_names)


def test_preview_pictures_hold_the_stitched_frames(converted: Path, tmp_path: Path):
    store = fwdata.open(converted)
    path = write_preview(store, tmp_path, 2)
    images = list(ElementTree.fromstring(path.read_text()).iter("img"))
    assert len(images) == 2
    for image, episode in zip(images, choose_episodes(store, 2), strict=True):
        sheet = decode((tmp_path / image.attrib["src"]).read_bytes())
        assert sheet.shape[:2] == (int(image.attrib["height"]), int(image.attrib["width"]))
        frame = episode.stitched([0])[0].repeat(4, axis=0).repeat(4, axis=1)
        cell = sheet[6 : 6 + frame.shape[0], 6 : 6 + frame.shape[1]]
        inner = np.s_[40:250, 8:248]  # within the head camera's tile, below its name
        np.testing.assert_array_equal(cell[inner], frame[inner])
        assert (cell[0] > frame[0] - 1).all() and cell[0].mean() > 200  # the tile's border


def test_preview_is_deterministic_and_takes_what_there_is(converted: Path, tmp_path: Path):
    store = fwdata.open(converted)
    written = []
    for name in ("a", "b"):
        write_preview(store, tmp_path / name, 99)
        written.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert len(written[0]) == 1 + len(store.episodes)


def test_preview_refuses_a_file_and_no_episodes(converted: Path, tmp_path: Path):
    store = fwdata.open(converted)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        write_preview(store, tmp_path / "file", 1)
    with pytest.raises(UsageError, match="at least 1"):
        write_preview(store, tmp_path / "new", 0)
    with pytest.raises(UsageError, match=r"has episodes 0 to 3, found 4"):
        write_preview(store, tmp_path / "new", (0, 4))
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_file_that_is_no_page_of_ours_is_not_replaced(converted: Path, tmp_path: Path, run: Command):
    own = tmp_path / "site" / "index.html"
    own.parent.mkdir()
    own.write_text("<html>my own page</html>")
    for line in (
        ("preview", converted, "--out", own.parent),
        ("report", converted, "--out", own),
        ("doctor", converted, "--html", own),
    ):
        run(*line).refused(2, f"{own} exists and is not a page that this toolkit wrote; name another place")
        assert own.read_text() == "<html>my own page</html>" and list(own.parent.iterdir()) == [own]
    own.unlink()
    spaced = converted.rename(tmp_path / "my store.zarr")
    assert f"statistics: not computed (fwdata stats '{spaced}')" in run("inspect", spaced).out
    assert run("report", spaced, "--out", own, "--json").json["page"] == str(own)
    converted = spaced.rename(converted)
    for _ in range(2):
        assert run("preview", converted, "--episodes", "1", "--out", own.parent).code == 0


@pytest.mark.slow
def test_preview_shows_the_episodes_that_are_named(converted: Path, tmp_path: Path, run: Command):
    ran = run("preview", converted, "--out", tmp_path / "look", "--episodes", "2,0", "--json")
    assert ran.json == {
        "page": str(tmp_path / "look" / "index.html"),
        "out": str(tmp_path / "look"),
        "episodes": [2, 0],
        "rerun": None,
    }
    assert {p.name for p in (tmp_path / "look").glob("*.png")} == {"episode-00000.png", "episode-00002.png"}
    ran = run("preview", converted, "--out", tmp_path / "one", "--episodes", "3,", "--json")
    assert ran.json["episodes"] == [3]
    assert run("preview", converted, "--out", tmp_path / "two", "--episodes", 2).out.strip().endswith("index.html")
    assert len(list((tmp_path / "two").glob("*.png"))) == 2
    ran = run("preview", converted, "--out", tmp_path / "range", "--episodes", "1-2,0", "--json")
    assert ran.json["episodes"] == [1, 2, 0]
    for wrong, words in (("0", "such as 0,2"), ("x", "such as 0,2"), ("1,,2", "like 0,3"), ("-1", "like 0,3")):
        run("preview", converted, "--out", tmp_path / "no", f"--episodes={wrong}").refused(2, words)
    assert not (tmp_path / "no").exists()


def test_every_text_of_a_report_is_escaped(tmp_path: Path):
    report = Report(HTML)
    report.heading(HTML)
    report.text(HTML + "\x00\ud800")
    report.code(HTML)
    report.facts({HTML: HTML, "nested": {HTML: [HTML]}})
    report.table([HTML], [[HTML]])
    report.images([(frames_strip(noise(1)), HTML)])
    report.plot(HTML, {HTML: ([0, 1], [1, 2])}, HTML, HTML)
    report.multiples(HTML, [Panel(HTML, {HTML: ([0, 1], [1, 2])})], HTML)
    with report.folded(HTML):
        report.text(HTML)
    report.write(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text.lower()
    root = ElementTree.fromstring(text)
    assert texts(root).count(HTML) >= 15
    assert next(root.iter("img")).get("alt") == HTML
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_report_is_self_contained():
    report = Report("title")
    strip = frames_strip(noise(2))
    report.images([(strip, "strip"), (animate(noise(3), 10, kind="gif"), "moves")])
    images = list(page(report).iter("img"))
    assert [i.attrib["src"].split(",")[0] for i in images] == ["data:image/png;base64", "data:image/gif;base64"]
    assert base64.b64decode(images[0].attrib["src"].split(",")[1]) == strip
    html = re.sub(r"data:[^\"]*|xmlns=\"[^\"]*\"", "", report.html())
    assert "http://" not in html and "https://" not in html and "url(" not in html and "@import" not in html
    assert "prefers-color-scheme: dark" in html


def test_tables_show_values_for_people():
    report = Report("title")
    report.facts({"count": 1234567, "rate": 16.66666, "done": True, "none": None, "names": ("a", "b"), "big": 123456.7})
    report.table(("name", "n"), [("a", np.int64(3)), ("b", np.float32(0.5))])
    root = page(report)
    assert [td.text for td in root.iter("td")][:6] == ["1,234,567", "16.67", "yes", "–", "a, b", "123,457"]
    assert [td.get("class") for td in root.iter("td")][-4:] == [None, "n", None, "n"]
    with pytest.raises(ValueError, match="2 columns got a row of 1"):
        report.table(("name", "n"), [("a",)])


def coordinates(report: Report) -> list[np.ndarray]:
    """Points of every line of the last plot, in drawing units."""
    paths = [p.attrib["d"] for p in page(report).iter(f"{NAMESPACE}path") if p.find(f"{NAMESPACE}title") is not None]
    pieces = [[piece.split("L") for piece in d.split("M")[1:]] for d in paths]
    return [np.array([[float(v) for v in point.split()] for point in piece]) for path in pieces for piece in path]


def test_plot_maps_values_to_places():
    report = Report("title")
    report.plot("loss", {"train": ([0, 1, 2, 3], [1, 2, 3, 4])}, "step", "loss")
    (points,) = coordinates(report)
    assert np.diff(points[:, 0]) == pytest.approx(np.diff(points[:, 0])[0], abs=0.11)
    assert np.diff(points[:, 1]) == pytest.approx(np.diff(points[:, 1])[0], abs=0.11)
    assert points[0, 1] > points[-1, 1]  # greater values lie higher
    labels = [t.text for t in page(report).iter(f"{NAMESPACE}text")]
    assert {"step", "loss", "1", "2", "3", "4", "0"} <= {(t or "").removesuffix(".0") for t in labels}


def test_log_plot_spaces_decades_evenly_and_leaves_gaps():
    report = Report("title")
    report.plot("loss", {"train": (range(7), [100, 10, 1, 0, 1, float("nan"), 10])}, "step", "loss", log=True)
    (before,) = coordinates(report)  # the values after the gaps are lone points: dots
    assert np.diff(before[:, 1]) == pytest.approx(np.diff(before[:, 1])[0], abs=0.11)
    assert len(list(page(report).iter(f"{NAMESPACE}circle"))) == 2
    labels = {t.text for t in page(report).iter(f"{NAMESPACE}text")}
    assert {"1", "10", "100"} <= labels


def test_plot_of_nothing_and_of_constants():
    report = Report("title")
    report.plot("empty", {"train": ([], [])}, "step", "loss", log=True)
    assert "no values" in texts(page(report))
    report.plot("constant", {"a": ([0, 1], [5e-5, 5e-5])}, "step", "loss")
    report.plot("constant", {"a": ([0, 1], [-1e9, -1e9])}, "step", "loss")
    report.multiples("joints", [Panel("j", {"a": ([0, 1], [0, 0])}, [Band(0.5, 9)])])
    assert len(coordinates(report)) == 3 and np.isfinite(np.concatenate(coordinates(report))).all()
    with pytest.raises(ValueError, match="2 x and 1 y"):
        report.plot("wrong", {"a": ([0, 1], [1])}, "step", "loss")


def test_long_lines_are_thinned_but_keep_their_peaks():
    values = np.zeros(100_000)
    values[54_321] = 7.0
    report = Report("title")
    report.plot("loss", {"train": (np.arange(100_000), values)}, "step", "loss")
    (points,) = coordinates(report)
    assert len(points) <= 1300
    assert points[:, 1].min() < points[0, 1] - 200  # the peak spans the plot


def test_pictures_beside_the_page(tmp_path: Path):
    report = Report("title")
    data = frames_strip(noise(1))
    report.images([(data, "one")], files=["one.png"])
    report.write(tmp_path / "page.html")
    assert (tmp_path / "one.png").read_bytes() == data
    for name in ("../one.png", "a/b.png", "a b.png", "a\x00.png"):
        with pytest.raises(ValueError, match="plain"):
            report.images([(data, "")], files=[name])
    with pytest.raises(ValueError, match="two images"):
        report.images([(frames_strip(noise(2)), "")], files=["one.png"])
    with pytest.raises(ValueError, match="not an image"):
        report.images([(b"nothing", "")])


def test_strip_holds_the_frames_pixel_by_pixel():
    frames = noise(3)
    strip = decode(frames_strip(frames))
    twice = decode(frames_strip(frames, scale=2, columns=2))
    for i in range(3):
        left = 6 + i * 22
        np.testing.assert_array_equal(strip[6:30, left : left + 16], frames[i])
    np.testing.assert_array_equal(twice[60:108:2, 6:38:2], frames[2])
    assert frames_strip(frames) == frames_strip(frames.copy())
    with pytest.raises(ValueError, match="uint8"):
        frames_strip(frames.astype(np.float32))


def test_contact_sheet_cuts_long_names_at_their_tile():
    frames = np.zeros((2, 32, 64, 3), np.uint8)
    tiles = [Tile("observation.images.left_wrist_camera_of_the_robot", 0, 0, 32, 32), Tile("b", 0, 32, 32, 32)]
    short = [Tile("", 0, 0, 32, 32), tiles[1]]
    long_name = decode(contact_sheet(frames, ["0 s", "1 s"], tiles))
    right_half = np.s_[6:198, 6 + 192 : 6 + 384]
    np.testing.assert_array_equal(
        long_name[right_half], decode(contact_sheet(frames, ["0 s", "1 s"], short))[right_half]
    )


@pytest.mark.parametrize("kind", ["apng", "gif", "webp"])
def test_animation_keeps_frames_rate_and_bytes(kind: str):
    frames = np.stack([np.full((8, 8, 3), v, np.uint8) for v in (0, 90, 180, 255)])
    data = animate(frames, fps=16, scale=2, kind=kind, hold=0.5)  # type: ignore[arg-type]
    assert data == animate(frames, fps=16, scale=2, kind=kind, hold=0.5)  # type: ignore[arg-type]
    image = Image.open(io.BytesIO(data))
    assert (image.n_frames, image.size) == (4, (16, 16))
    total = 0.0
    for i in range(4):
        image.seek(i)
        image.load()
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - frames[i, 0, 0]).max() <= 8
        total += image.info["duration"]
    assert total == pytest.approx(4 / 16 * 1000 + 500, abs=10)
    with pytest.raises(ValueError, match="fps"):
        animate(frames, 0)


def test_words_in_tables_are_not_broken_letter_by_letter(tmp_path: Path):
    """`overflow-wrap: anywhere` lets a narrow table shrink its columns to one letter, but for a least width."""
    report = Report("A report")
    report.table(("recording", "reason"), [("episode0.hdf5", "truncated")])
    page = report.write(tmp_path / "index.html").read_text(encoding="utf-8")
    rules = [rule for rule in page.split("}") if "overflow-wrap: anywhere" in rule]
    cells = [rule for rule in rules if {"td", "th"} & set(rule.split("{")[0].replace(",", " ").split())]
    assert rules and all("min-width" in rule for rule in cells)
    assert '<div class="wide" tabindex="0"><table>' in page and ".wide { overflow-x: auto" in page
