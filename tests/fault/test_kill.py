"""Every command that writes may be killed at any moment: nothing committed is lost, a rerun ends with the same bytes.

The short run is among the slow tests; `pytest -m fault` visits every operation and 200 random moments per command.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures import run_convert, tree, write_toy

import fwdata
from fault.child import Ended, Trap, run_command
from fault.stores import full_store, quick, said_by
from fwdata.cli import main
from fwdata.errors import StoreDamaged, StoreError
from fwdata.manifest import load_manifest

SIGKILL = -9
RANDOM_KILLS = 200


class Bench:
    """A finished store to compare with, and stages of it to start commands from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole = full_store(folder / "whole")
        self.raw = folder / "whole" / "raw"
        self.expected = tree(self.whole)
        self.other = folder / "other.zarr"
        run_convert(write_toy(folder / "more", {"pull": [4, 6, 2]}), self.other, load_manifest("toy"))
        stores = (self.whole, self.other)
        self.said = {episode: said_by(store, episode) for store in stores for episode in _ids(store)}
        self._merged: dict[str, str] = {}

    def arguments(self, command: str, out: Path) -> list[str | Path]:
        return {
            "convert": ["fwdata", "convert", "toy", self.raw, "--out", out, "--workers", "0"],
            "stitch": ["fwdata", "stitch", out],
            "stats": ["fwdata", "stats", out],
            "encode-latents": ["fwdata", "encode-latents", out, "--vae", "fake", "--stride", "2", "--workers", "1"],
            "encode-text": ["fwdata", "encode-text", out, "--encoder", "tiny"],
            "merge": ["fwdata", "merge", self.whole, self.other, "--out", out],
        }[command]

    def before(self, command: str, out: Path) -> Path:
        """The store as it is before a command runs: everything but what the command writes."""
        if out.exists():
            shutil.rmtree(out)
        if command in WRITES:
            shutil.copytree(self.whole, out)
            for pattern in WRITES[command]:
                for path in out.glob(pattern):
                    shutil.rmtree(path)
        return out

    def after(self, command: str) -> dict[str, str]:
        """What a finished command leaves, by the finished store's bytes."""
        if command == "merge":
            if not self._merged:
                plain = self.folder / "merged.zarr"
                assert run_command(main, self.arguments(command, plain)).code == 0
                self._merged = tree(plain)
            return self._merged
        if command in WRITES:
            return self.expected
        later = ("stats/", "latents/", "text/")
        return {k: v for k, v in self.expected.items() if not k.startswith(later) and k.split("/")[2:3] != ["frames"]}


WRITES = {"stitch": ["parts/*/frames"], "stats": ["stats"], "encode-latents": ["latents"], "encode-text": ["text"]}
COMMANDS = ["convert", "merge", *WRITES]


def _ids(store: Path) -> list[str]:
    return [episode.id for episode in fwdata.open(store).episodes]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with quick() as patch:
        patch.setenv("FWDATA_PLUGINS", str(Path(__file__).parent.parent / "toy_plugin"))
        yield Bench(tmp_path_factory.mktemp("kill"))


def visible(bench: Bench, out: Path) -> set[str]:
    """Ids of the episodes that a reader sees; each is whole and says what it should."""
    try:
        ids = _ids(out)
    except StoreDamaged:
        raise
    except StoreError:
        return set()  # not a store yet
    for episode in ids:
        assert said_by(out, episode) == bench.said[episode], f"{episode} is not whole"
    return set(ids)


def killed_and_rerun(bench: Bench, command: str, out: Path, **how: Any) -> Ended:
    """Kill a command, look at what is left, run it again: the end must be as without the kill."""
    bench.before(command, out)
    argv = bench.arguments(command, out)
    ended = run_command(main, argv, **how)
    assert ended.code in {0, SIGKILL}, ended.output
    seen = visible(bench, out)
    again = run_command(main, argv)
    assert again.code == 0, again.output
    assert visible(bench, out) >= seen, "a committed episode was lost"
    left, wanted = tree(out), bench.after(command)
    assert left == wanted, f"{command} killed {how}: {sorted(set(left.items()) ^ set(wanted.items()))[:4]}"
    return ended


def operations(bench: Bench, command: str, out: Path) -> int:
    bench.before(command, out)
    ended = run_command(main, bench.arguments(command, out), Trap())
    assert ended.code == 0, ended.output
    assert tree(out) == bench.after(command)
    return ended.operations


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_ends_the_same_when_run_again(bench: Bench, command: str, tmp_path: Path) -> None:
    out = tmp_path / "toy.zarr"
    count = operations(bench, command, out)
    rng = np.random.default_rng(len(command))
    for n in sorted({1, count, *rng.integers(1, count + 1, 6).tolist()}):
        assert killed_and_rerun(bench, command, out, trap=Trap(n)).code == SIGKILL


@pytest.mark.fault
@pytest.mark.parametrize("command", COMMANDS)
def test_every_operation_and_random_moments(bench: Bench, command: str, tmp_path: Path) -> None:
    out = tmp_path / "toy.zarr"
    count = operations(bench, command, out)
    for n in range(1, count + 1):
        assert killed_and_rerun(bench, command, out, trap=Trap(n)).code == SIGKILL
    rng, killed, tried, span = np.random.default_rng(7), 0, 0, 2.0
    while killed < RANDOM_KILLS:
        tried += 1
        moment = float(rng.uniform(0, span))
        if killed_and_rerun(bench, command, out, kill_after=moment).code == SIGKILL:
            killed += 1
        else:
            span = moment  # it was done before: look earlier
            assert tried < 3 * RANDOM_KILLS
    print(f"{command}: killed before each of {count} operations, and at {killed} random moments of {tried}")
