"""A finished store, stages of it to start commands from, and what a rerun must end with."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from fixtures import run_convert, tree, write_toy
from lerobot_files import Recipe, write_dataset
from paths import SUPPORT
from training import SMALL, losses

import fwdata
from fault.child import Ended, Trap, run_command
from fault.stores import full_store, quick, said_by
from fwdata.cli import main
from fwdata.errors import StoreDamaged, StoreError
from fwdata.manifest import load_manifest
from fwtrain.cli import main as train_main


class Bench:
    """A finished store to compare with, and stages of it to start commands from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole = full_store(folder / "whole")
        self.raw = folder / "whole" / "raw"
        self.expected = tree(self.whole)
        self.other = folder / "other.zarr"
        run_convert(write_toy(folder / "more", {"pull": [4, 6, 2]}), self.other, load_manifest("toy"))
        self.videos = write_dataset(folder / "videos", Recipe(lengths=(9, 4, 7), tasks=(0, 1, 1)))
        self.kept = folder / "kept.zarr"
        run_convert(self.videos, self.kept, load_manifest("lerobot-r1lite"))
        stores = (self.whole, self.other, self.kept)
        self.said = {episode: said_by(store, episode) for store in stores for episode in _ids(store)}
        self._plain: dict[str, dict[str, str]] = {}

    def arguments(self, command: str, out: Path) -> list[str | Path]:
        return {
            "convert": ["fwdata", "convert", "toy", self.raw, "--out", out, "--workers", "0"],
            "convert-video": ["fwdata", "convert", "lerobot", self.videos, "--out", out, *VIDEO],
            "export-video": ["fwdata", "export", "lerobot", self.kept, out],
            "stitch": ["fwdata", "stitch", out],
            "stats": ["fwdata", "stats", out],
            "encode-latents": ["fwdata", "encode-latents", out, "--vae", "fake", "--stride", "2", "--workers", "1"],
            "encode-text": ["fwdata", "encode-text", out, "--encoder", "tiny"],
            "merge": ["fwdata", "merge", self.whole, self.other, "--out", out],
            "export": ["fwdata", "export", "lerobot", self.whole, out, "--image"],
            "train": ["fwtrain", "run", self.whole, "--recipe", "tiny", "--out", out, "--threads", "1", *TRAINING],
        }[command]

    def run(self, command: str, out: Path, trap: Trap | None = None, **how: Any) -> Ended:
        """The command in a forked process."""
        main_ = train_main if command == "train" else main
        return run_command(main_, self.arguments(command, out), trap, **how)

    def before(self, command: str, out: Path) -> Path:
        """The store as it is before a command runs: everything but what the command writes."""
        if out.exists():
            shutil.rmtree(out)
        shutil.rmtree(out.parent / f".{out.name}.export", ignore_errors=True)  # of an export that failed
        if command in WRITES:
            shutil.copytree(self.whole, out)
            for pattern in WRITES[command]:
                for path in out.glob(pattern):
                    shutil.rmtree(path)
        return out

    def after(self, command: str) -> dict[str, str]:
        """What a finished command leaves, by the finished store's bytes."""
        if command in {"merge", "export", "train", "convert-video", "export-video"}:
            if command not in self._plain:
                plain = self.folder / command
                ended = self.run(command, plain)
                assert ended.code == 0, ended.output
                self._plain[command] = made(command, plain)
            return self._plain[command]
        if command in WRITES:
            return self.expected
        later = ("stats/", "latents/", "text/")
        return {k: v for k, v in self.expected.items() if not k.startswith(later) and k.split("/")[2:3] != ["frames"]}


WRITES = {"stitch": ["parts/*/frames"], "stats": ["stats"], "encode-latents": ["latents"], "encode-text": ["text"]}
COMMANDS = ["convert", "convert-video", "merge", *WRITES, "export", "export-video", "train"]
VIDEO = ("--manifest", "lerobot-r1lite", "--workers", "0")
TRAINING = [
    part
    for change in (*SMALL, "data.workers=0", "optim.steps=3", "save_every=1", "eval_every=2", "validation.windows=2")
    for part in ("--set", change)
]


def made(command: str, out: Path) -> dict[str, str]:
    """What a command left, by name: digests of files, rows of tables; of a training run its checkpoints and losses."""
    if command == "train":
        return {**tree(out / "checkpoints"), "log": repr(losses(out))}
    tables = {p.relative_to(out).as_posix(): p for p in out.rglob("*.parquet")}  # have a random number in their schema
    return {**tree(out), **{name: repr(parquet.read_table(path).to_pylist()) for name, path in tables.items()}}


def _ids(store: Path) -> list[str]:
    return [episode.id for episode in fwdata.open(store).episodes]


@contextmanager
def open_bench(folder: Path) -> Iterator[Bench]:
    """A bench whose commands find the toy converter and wait for no disk."""
    with quick() as patch:
        patch.setenv("FWDATA_PLUGINS", str(SUPPORT / "toy_plugin"))
        importlib.import_module("lerobot.datasets.lerobot_dataset")  # once, not in every fork
        importlib.import_module("fwtrain.train.run")
        yield Bench(folder)


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


def run_again(bench: Bench, command: str, out: Path, where: str) -> None:
    """Look at what is left and run the command again: nothing committed may be lost, the end is the same."""
    seen = visible(bench, out)
    if command.startswith("export") and out.exists():  # it is whole, and an existing folder is never written to
        assert made(command, out) == bench.after(command), where
        return
    again = bench.run(command, out)
    assert again.code == 0, f"{where}; then {again.output}"
    assert visible(bench, out) >= seen, "a committed episode was lost"
    left, wanted = made(command, out), bench.after(command)
    assert left == wanted, f"{where}: {sorted(set(left.items()) ^ set(wanted.items()))[:4]}"
