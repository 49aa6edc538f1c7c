"""Conversions of many or long recordings: slow to make, flat in memory, nothing to do the second time."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import r1lite_files
import simplejpeg
from fixtures import (
    PLUGINS,
    run_convert,
    stamps,
    toy_manifest,
    write_toy,
)

from fwdata.manifest import load_manifest
from fwdata.pipeline.part import convert_part
from fwdata.pipeline.workers import WorkerPool

WORKER_BYTES = 700e6
RECORDINGS = 10_000

MANY = """
import numpy as np
from fwdata.api import Discovery, Episode, EpisodeRef, RawCamera

class Converter:  # recordings that no file holds: two frames of two pixels each
    def __init__(self, manifest):
        self.cameras = manifest.cameras

    def discover(self, root):
        names = [f"task{i // 50:04d}/take{i:05d}" for i in range(COUNT)]
        return Discovery(tuple(EpisodeRef(n, "all.txt#" + n, ("all.txt",), n[:8], 10) for n in names))

    def read(self, root, ref):
        rows = np.zeros((2, 2), np.float32)
        cameras = {name: RawCamera(lambda: iter([np.zeros((2, 1, 2, 3), np.uint8)]), 1, 2) for name in self.cameras}
        return Episode(cameras, rows, rows, np.arange(2), np.ones(2, np.bool_), "xy", "xy", "task", ["do it"])
"""


@pytest.mark.slow
def test_a_finished_conversion_of_ten_thousand_recordings_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("raw", "plugins"):
        (tmp_path / folder).mkdir()
    (tmp_path / "raw" / "all.txt").write_text("all of them")
    (tmp_path / "plugins" / "many.py").write_text(MANY.replace("COUNT", str(RECORDINGS)))
    (tmp_path / "plugins" / "many.yaml").write_text((PLUGINS / "toy.yaml").read_text().replace("toy", "many"))
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "plugins"))
    out, manifest = tmp_path / "s.zarr", load_manifest("many")
    assert run_convert(tmp_path / "raw", out, manifest).new_episodes == RECORDINGS
    before = stamps(out)
    again = run_convert(tmp_path / "raw", out, manifest, workers=2)
    assert (again.episodes, again.frames, again.new_episodes) == (RECORDINGS, 2 * RECORDINGS, 0)
    assert len(again.rows) == RECORDINGS and not again.quarantined
    assert stamps(out) == before


@functools.cache
def large(number: int, hue: int) -> bytes:
    """A 720p picture of 0.9 MB, nearly all of it in comments: read like others, decoded in a quarter of the time."""
    random = np.random.default_rng([number, hue])
    cells = random.integers(0, 256, (18, 32, 3), np.uint8)
    picture = simplejpeg.encode_jpeg(np.ascontiguousarray(cells.repeat(40, 0).repeat(40, 1)), quality=92)
    comments = b"".join(b"\xff\xfe\xff\xff" + random.bytes(0xFFFD) for _ in range(13))
    return picture[:2] + comments + picture[2:]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux")
def test_a_reader_stays_small_whatever_a_recordings_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(r1lite_files, "jpeg", lambda number, hue, size=None: large(number % 8, hue))
    notes = [r1lite_files.annotation("左@Lift the block.", 0, 9)]
    path = r1lite_files.write_recording(tmp_path / "raw" / "take", r1lite_files.recording(frames=360), notes)
    assert sum(f.stat().st_size for f in (tmp_path / "raw").rglob("*.mcap")) > 1.2 * WORKER_BYTES, path
    program = (
        "import resource, sys; from fwdata.cli import app; app(sys.argv[1:], standalone_mode=False);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    command = ["convert", "r1lite", tmp_path / "raw", "--out", tmp_path / "s.zarr", "--workers", "1", "--json"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True, check=True, env=os.environ
    )
    report, _, peak = ended.stdout.rstrip().rpartition("\n")
    assert json.loads(report)["frames"] > 300 and json.loads(report)["quarantined"] == []
    assert 50e6 < int(peak) < WORKER_BYTES, peak
    print(f"peak of the reader: {int(peak) / 1e6:.0f} MB")


def test_groups_that_parts_share_are_written_before_the_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two workers that finish at once write one temporary name, and one of them fails."""
    raw, out = write_toy(tmp_path / "raw", {"a": [3, 3, 3]}), tmp_path / "o.zarr"
    run, seen = WorkerPool.run, []

    def watched(pool: WorkerPool, function: Any, *rest: Any, **how: Any) -> Any:
        if function is convert_part:
            seen.extend((out / name / "zarr.json").is_file() for name in ("parts", "sources", "evidence"))
        return run(pool, function, *rest, **how)

    monkeypatch.setattr(WorkerPool, "run", watched)
    run_convert(raw, out, toy_manifest(monkeypatch), part_episodes=1)
    assert seen == [True, True, True]
