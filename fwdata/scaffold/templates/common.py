"""Lines that every template shares."""

from __future__ import annotations

STEP = "        self.step_ns = round(1e9 / manifest.fps.hz)\n"
"""Where a recording holds no time: rows are as far apart as the manifest says."""

TIME_METHOD = """    def _times(self, table) -> np.ndarray:
        if TIME not in table:
            raise BadEpisode(f"the time {TIME!r} is missing")
        try:
            times = np.asarray(table[TIME], np.float64)
        except (TypeError, ValueError) as error:
            raise BadEpisode(f"the time {TIME!r} holds a value that is not a number: {error}") from None
        if not np.isfinite(times).all():
            raise BadEpisode(f"the time {TIME!r} holds a value that is not finite")
        return np.round((times - times[:1]) * TIME_NS).astype(np.int64)

"""

TIME = '''TIME, TIME_NS = "@TIME_KEY@", @TIME_NS@
"""Time of a row, and the nanoseconds of its unit."""
'''

MANIFEST = """# What fwdata stores (cameras, fps, units, options) and how it is used (stitch, window, split, prompt).
name: @NAME@
converter: @NAME@
description: Recordings of @NAME@
fps: @FPS@
cameras: [@CAMERA_LIST@]
stitch:
  layout: horizontal
  camera_size: [@HEIGHT@, @WIDTH@]     # every camera is resized to it; sides of the stitched image are multiples of 32
split: {val: 0.1, seed: 42}
units: {state: raw, action: raw}
options: {}
"""

TEST = '''"""The converter of @NAME@ keeps the contract on its fixture. Run: FWDATA_PLUGINS=. pytest test_@NAME@.py"""

from __future__ import annotations

from pathlib import Path

from fwdata.scaffold.check import check_converter

HERE = Path(__file__).parent


def test_the_converter_keeps_the_contract(monkeypatch):
    monkeypatch.setenv("FWDATA_PLUGINS", str(HERE))
    report = check_converter("@NAME@", HERE / "fixture")
    assert report.faults == ()
    assert report.episodes >= 1
'''
