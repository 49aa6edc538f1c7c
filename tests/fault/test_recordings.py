"""Hostile and broken recordings: no crash, no hang, bounded memory; converted identically or quarantined with a reason.

The short run is among the slow tests; `pytest -m fault` changes 1,000 files per source format. A change that a format
has no checksum for (a bit of an uncompressed HDF5 array, or a JPEG's coded data that still decodes) cannot be noticed
by anyone; such recordings are counted as "changed", and the test bounds what may be changed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lerobot_files
import numpy as np
import pytest
import r1lite_files
from libero_files import write_file as write_libero
from robotwin_files import write_task

import fwdata
from fault.child import run_command
from fault.mutate import mutations_for
from fwdata.cli import main
from fwdata.errors import StoreError

FULL, SHORT = 1000, 12
SECONDS, MEGABYTES = 60.0, 1500
"""Bounds of one conversion of one or two recordings; its usual figures are 0.2 s and 250 MB."""


@dataclass(frozen=True)
class Source:
    """write: makes recordings below a folder. arguments: of `fwdata convert` besides the paths."""

    write: Callable[[Path], object]
    arguments: tuple[str, ...]


def _mcap(root: Path) -> None:
    for number in (1, 2):
        notes = [r1lite_files.annotation("左@Lift the block.", 0, 9)]
        r1lite_files.write_recording(root / f"take{number}", r1lite_files.recording(frames=10 + number), notes)


SOURCES: dict[str, Source] = {
    "libero": Source(
        lambda root: write_libero(root / "libero_goal" / "turn_on_the_stove_demo.hdf5", [0, 1]), ("libero",)
    ),
    "robotwin": Source(
        lambda root: write_task(root, "classic", "click_bell", [0, 1]), ("robotwin", "--manifest", "robotwin-sample")
    ),
    "robotwin-v1": Source(
        lambda root: write_task(root, "v1", "click_bell", [0, 1]), ("robotwin", "--manifest", "robotwin-sample")
    ),
    "r1lite": Source(_mcap, ("r1lite",)),
    "r1lite-bag": Source(
        lambda root: [r1lite_files.write_bag(root / f"t{n}.bag", r1lite_files.recording(frames=9 + n)) for n in (1, 2)],
        ("r1lite",),
    ),
    "lerobot": Source(
        lambda root: lerobot_files.write_dataset(root / "set", lerobot_files.Recipe()),
        ("lerobot", "--manifest", "lerobot-r1lite"),
    ),
}


class Fuzz:
    """One source's recordings, what they convert to, and changed copies of them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.source, self.folder = SOURCES[name], folder
        self.clean = folder / "clean" / "raw"  # a folder's name may tell the task
        self.source.write(self.clean)
        ended = self.convert(self.clean, folder / "clean.zarr")
        assert ended == 0
        self.expected = said(folder / "clean.zarr")
        self.files = sorted(p for p in self.clean.rglob("*") if p.is_file() and p.stat().st_size)

    def convert(self, raw: Path, out: Path) -> int:
        argv = ["fwdata", "convert", *self.source.arguments[:1], raw, "--out", out, *self.source.arguments[1:]]
        began = time.monotonic()
        ended = run_command(main, [*argv, "--workers", "0"], kill_after=SECONDS)
        assert ended.code != -signal.SIGKILL or time.monotonic() - began < SECONDS, "took too long"
        assert "Traceback" not in ended.output, ended.output[-3000:]
        assert ended.code in {0, 2, 3}, f"exit code {ended.code}: {ended.output[-2000:]}"
        self.output = ended.output
        return ended.code

    def once(self, rng: np.random.Generator) -> str:
        """Change one file and convert; returns what came of it."""
        raw, out = self.folder / "changed" / "raw", self.folder / "out.zarr"
        for path in (raw, out):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.clean, raw)
        victim = raw / self.files[int(rng.integers(len(self.files)))].relative_to(self.clean)
        options = mutations_for(victim)
        what = f"{victim.relative_to(raw)}: {options[int(rng.integers(len(options)))](victim, rng)}"
        code = self.convert(raw, out)
        return self.judge(out, code, what)

    def judge(self, out: Path, code: int, what: str) -> str:
        if code == 2:
            assert sum(line.startswith("error: ") for line in self.output.splitlines()) == 1, (what, self.output)
            return "refused"
        found, store = said(out), fwdata.open(out)
        assert len(found) + len(store.quarantined) > 0, what
        assert (code == 3) == bool(store.quarantined), (what, self.output)
        assert all(item["reason"].strip() and "\n" not in item["reason"] for item in store.quarantined), what
        if all(self.expected.get(key) == value for key, value in found.items()):
            return "quarantined" if store.quarantined else "identical"
        return "changed"


def said(store: Path) -> dict[str, str]:
    """Everything that a store says of each episode, by id; reading it all must work."""
    import hashlib

    found = {}
    for episode in fwdata.open(store).episodes:
        text = json.dumps([episode.task, episode.instructions], ensure_ascii=True)
        parts = [text.encode(), episode.state().tobytes(), episode.action().tobytes(), episode.timestamp_ns().tobytes()]
        parts += [episode.frames(camera).tobytes() for camera in fwdata.open(store).cameras]
        found[episode.id] = hashlib.sha256(b"".join(parts)).hexdigest()
    return found


@pytest.fixture(scope="module", params=SOURCES)
def fuzz(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzz]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield Fuzz(request.param, tmp_path_factory.mktemp(request.param))


def run(fuzz: Fuzz, count: int, seed: int) -> Counter[str]:
    totals: Counter[str] = Counter()
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        try:
            totals[fuzz.once(rng)] += 1
        except (AssertionError, StoreError) as error:
            raise AssertionError(f"seed {seed}, number {number}: {error}") from error
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    assert peak < MEGABYTES, f"a conversion took {peak} MB"
    return totals


@pytest.mark.slow
def test_changed_recordings(fuzz: Fuzz) -> None:
    totals = run(fuzz, SHORT, seed=1)
    assert sum(totals.values()) == SHORT and totals["refused"] + totals["quarantined"] > 0


@pytest.mark.fault
def test_a_thousand_changed_recordings(fuzz: Fuzz) -> None:
    count = int(os.environ.get("FWDATA_FUZZ", FULL))
    totals = run(fuzz, count, seed=2)
    print(fuzz.source.arguments[0], dict(totals))
    assert sum(totals.values()) == count
