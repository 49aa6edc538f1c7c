"""Hostile and broken recordings: no crash, no hang, bounded memory; converted identically or quarantined with a reason.

The short run is among the slow tests; `pytest -m fault` changes 1,000 files per source format. A change that a format
has no checksum for (a bit of an uncompressed HDF5 array, or a JPEG's coded data that still decodes) cannot be noticed
by anyone; such recordings are counted as "changed", those converted with a warning or with frames marked as "told".
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import re
import shutil
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

import converters
import fwdata
import fwdata.cli
import fwdata.pipeline
import fwdata.store
from fault.child import run_command
from fault.mutate import PLACES, Mutation, mutations_for, place
from fault.mutate_messages import take
from fwdata.cli import main
from fwdata.errors import StoreError

FULL, SHORT = 1000, 12
SECONDS, MEGABYTES = 60.0, 1500
"""Bounds of one conversion of one or two recordings; its usual figures are 0.2 s and 250 MB."""

A_REASON = re.compile(r"(?![A-Z]\w*(Error|Exception): )[^\n]*\w[^\n]*")
"""One line, and not the bare exception that stands for an error nobody foresaw."""

NOT_NOTICEABLE = re.compile(
    r" (bits flipped|zeros|bytes (moved|inserted)|a huge number|JSON value|HDF5: reversed in time"
    r"|parquet: (column shifted by a row|a value repeated|reversed)"
    r"|message: (message lost|one message left|array short))$"
)
"""Kinds of change that can leave a sound recording of something else: a format without checksums holds other values,
or the values stand in another order."""


@dataclass(frozen=True)
class Source:
    """write: makes recordings below a folder. arguments: of `fwdata convert` besides the paths."""

    write: Callable[[Path], object]
    arguments: tuple[str, ...]


def _mcap(root: Path) -> None:
    for number in (1, 2):
        notes = [r1lite_files.annotation("左@Lift the block.", 0, 9)]
        folder = root / f"take{number}"
        r1lite_files.write_recording(folder, take(folder), notes)


def _bags(root: Path) -> None:
    for path in (root / "take1.bag", root / "take2.bag"):
        r1lite_files.write_bag(path, take(path))


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
    "r1lite-bag": Source(_bags, ("r1lite",)),
    **{
        name: Source(
            lambda root, version=version: lerobot_files.write_dataset(root / "set", lerobot_files.Recipe(version)),
            ("lerobot", "--manifest", "lerobot-r1lite"),
        )
        for name, version in {"lerobot": "v2.1", "lerobot-v3": "v3.0"}.items()
    },
}


class Fuzz:
    """One source's recordings, what they convert to, and changed copies of them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.source, self.folder = SOURCES[name], folder
        self.name, self.supervised, self.peak = name, 0, 0
        self.clean = folder / "clean" / "raw"  # a folder's name may tell the task
        self.source.write(self.clean)
        ended = self.convert(self.clean, folder / "clean.zarr")
        assert ended == 0
        self.expected, self.warnings = said(folder / "clean.zarr"), self.output
        self.files = sorted(p for p in self.clean.rglob("*") if p.is_file() and p.stat().st_size)

    def convert(self, raw: Path, out: Path) -> int:
        """Exit code of the conversion; what it printed is kept.

        Recordings are read in this process's fork, which is fast. The HDF5 library never comes back from some damage
        or crashes; users' recordings are read in supervised workers, so then it is they that have to end well.
        """
        code = self._convert(raw, out, SECONDS, "--workers", "0")
        if code < 0:
            shutil.rmtree(out, ignore_errors=True)
            code = self._convert(raw, out, 3 * SECONDS, "--workers", "1", "--episode-seconds", "15")
            self.supervised += 1
        assert code in {0, 2, 3}, f"exit code {code}: {self.output[-2000:]}"
        assert "Traceback" not in self.output, self.output[-3000:]
        return code

    def _convert(self, raw: Path, out: Path, seconds: float, *flags: str) -> int:
        argv = ["fwdata", "convert", *self.source.arguments[:1], raw, "--out", out, *self.source.arguments[1:], *flags]
        ended = run_command(main, argv, kill_after=seconds)
        self.output, self.peak = ended.output, max(self.peak, ended.megabytes)
        return ended.code

    def once(self, rng: np.random.Generator) -> tuple[str, str]:
        """Change one file and convert; returns the kind of change and what came of it."""
        done = []

        def some(path: Path, rng: np.random.Generator) -> str:
            options = mutations_for(path)
            change = options[int(rng.integers(len(options)))](path, rng)
            done.append(f"{path.suffix} {change.split(' (')[0]}")
            return change

        outcome = self.change(some, rng)
        return done[0], outcome

    def change(self, mutation: Mutation, rng: np.random.Generator, file: Path | None = None) -> str:
        """Change one file (of `files`; drawn where not given) of a copy of the recordings and convert it; what came."""
        raw, out = self.folder / "changed" / "raw", self.folder / "out.zarr"
        for path in (raw.parent, out):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.clean, raw)
        victim = raw / (file or self.files[int(rng.integers(len(self.files)))]).relative_to(self.clean)
        what = f"{victim.relative_to(raw)}: {mutation(victim, rng)}"
        return self.judge(out, self.convert(raw, out), what)

    def judge(self, out: Path, code: int, what: str) -> str:
        if code == 2:
            assert sum(line.startswith("error: ") for line in self.output.splitlines()) == 1, (what, self.output)
            return "refused"
        found, store = said(out), fwdata.open(out)
        assert len(found) + len(store.quarantined) > 0, what
        assert (code == 3) == bool(store.quarantined), (what, self.output)
        assert all(A_REASON.fullmatch(item["reason"]) for item in store.quarantined), (what, store.quarantined)
        if any(self.expected.get(key) != value for key, value in found.items()):
            return "told" if self._told(store) else "changed"
        if len(found) == len(self.expected):
            return "identical"
        return "quarantined" if store.quarantined else "told" if self._told(store) else "missing"

    def _told(self, store: fwdata.Store) -> bool:
        """Whether a user hears of what is different: a warning that the clean recordings lack, or frames marked."""
        lines = [line for line in self.output.splitlines() if line.startswith("warning: ")]
        return any(line not in self.warnings for line in lines) or not all(e.valid().all() for e in store.episodes)


def said(store: Path) -> dict[str, str]:
    """Everything that a store says of each episode, by source; reading it all must work."""
    import hashlib

    found = {}
    for episode in fwdata.open(store).episodes:
        text = json.dumps([episode.task, episode.instructions], ensure_ascii=True)
        parts = [text.encode(), episode.state().tobytes(), episode.action().tobytes(), episode.timestamp_ns().tobytes()]
        parts += [episode.frames(camera).tobytes() for camera in fwdata.open(store).cameras]
        found[episode.source] = hashlib.sha256(b"".join(parts)).hexdigest()
    return found


def load_everything() -> None:
    """Import what a conversion needs once, so that the forks need not."""
    for package in (converters, fwdata.cli, fwdata.pipeline, fwdata.store):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    gc.freeze()


@pytest.fixture(scope="module", params=SOURCES)
def fuzz(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzz]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        load_everything()
        yield Fuzz(request.param, tmp_path_factory.mktemp(request.param))


def run(fuzz: Fuzz, count: int, seed: int) -> Counter[tuple[str, str]]:
    """How often each (kind of change, outcome) came; AssertionError lists what went wrong, by seed and number."""
    totals: Counter[tuple[str, str]] = Counter()
    wrong = []
    for number in range(count):
        try:
            totals[fuzz.once(np.random.default_rng([seed, number]))] += 1
        except (AssertionError, StoreError) as error:
            wrong.append(f"seed {seed}, number {number}: {error}")
    assert not wrong, "\n".join(wrong)
    assert fuzz.peak < MEGABYTES, f"a conversion took {fuzz.peak} MB"
    return totals


def by_outcome(totals: Counter[tuple[str, str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (_, outcome), times in totals.items():
        found[outcome] += times
    return found


@pytest.mark.slow
def test_changed_recordings(fuzz: Fuzz) -> None:
    found = by_outcome(run(fuzz, SHORT, seed=1))
    assert found.total() == SHORT and found["refused"] + found["quarantined"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLACES)
def test_files_that_are_links_pipes_or_folders(fuzz: Fuzz, kind: str) -> None:
    """A file's place is damaged in every way; what is left out is reported, unless nothing of it is left to be seen."""
    every = kind in {"pipe", "link to a device"}  # where a reader that does not look first waits for ever
    for number, file in enumerate(fuzz.files if every else [None] * 2):
        found = fuzz.change(lambda path, rng: place(path, kind), np.random.default_rng(number), file)
        assert found in {"identical", "refused", "quarantined", "told"} or kind in {"folder", "lost"}, (kind, found)


@pytest.mark.fault
def test_a_thousand_changed_recordings(fuzz: Fuzz) -> None:
    count = int(os.environ.get("FWDATA_FUZZ", FULL))
    totals = run(fuzz, count, seed=2)
    found = by_outcome(totals)
    print(fuzz.name, dict(found), f"read in workers: {fuzz.supervised}")
    for (kind, outcome), times in sorted(totals.items()):
        print(f"  {kind}: {outcome} {times}")
    noticeable = [kind for kind, outcome in totals if outcome == "changed" and not NOT_NOTICEABLE.search(kind)]
    missing = {kind.partition(" ")[2] for kind, outcome in totals if outcome == "missing"}
    assert found.total() == count and not noticeable and missing <= {"place: lost", "place: folder"}
