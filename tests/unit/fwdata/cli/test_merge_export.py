"""`fwdata merge` and `fwdata export`: results, messages, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command
from fixtures import (
    run_convert,
    stamps,
    toy_manifest,
    write_toy,
)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    for seed, name in enumerate("ab"):
        run_convert(
            write_toy(tmp_path / f"raw_{name}", {"push": [4, 3]}, seed * 10),
            tmp_path / f"{name}.zarr",
            toy_manifest(monkeypatch),
        )
    return tmp_path / "a.zarr", tmp_path / "b.zarr"


@pytest.mark.slow
def test_merge(run: Command, stores: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "c.zarr"
    before = stamps(tmp_path)
    dry = run("merge", *stores, "--out", out, "--dry-run", "--json")
    assert (dry.code, dry.json["episodes"], dry.json["frames"]) == (0, 4, 14) and stamps(tmp_path) == before
    ran = run("merge", *stores, "--out", out, "--json")
    assert ran.code == 0 and ran.json["files"] == dry.json["files"] and "2 recordings of" in ran.err
    assert "nothing left to copy" in run("merge", *stores, "--out", out).out
    shown = run("inspect", out).out
    assert "merged from a: 2 episodes" in shown and "merged from b: 2 episodes" in shown
    assert run("verify", out).code == 0
    run("merge", stores[0], "--out", out).refused(2, "at least two stores")
    run("merge", stores[0], stores[0], "--out", tmp_path / "d.zarr").refused(2, "the same recording", "one source file")
    run("merge", stores[0], tmp_path / "no.zarr", "--out", out).refused(2, "there is no store at")


def test_export_says_what_it_would_do_and_refuses_mistakes(
    run: Command,
    stores: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    before, out = stamps(tmp_path), tmp_path / "lr"
    dry = run("export", "lerobot", stores[0], out, "--image", "--episodes", "1", "--dry-run", "--json")
    assert (dry.code, dry.json["episodes"], dry.json["frames"], dry.json["fps"]) == (0, 1, 3, 10)
    shown = run("export", "lerobot", stores[0], out, "--image", "--dry-run").out
    assert "decided images: PNG, exact" in shown and "2 episodes, 7 frames, 2 cameras" in shown
    run("export", "lerobot", stores[0], out, "--dry-run").refused(2, "at least 64 pixels a side", "--image")
    run("export", "lerobot", stores[0], out, "--episodes", "one").refused(2, "numbers and ranges", "'one'")
    run("export", "lerobot", stores[0], stores[1]).refused(2, "b.zarr exists")
    run("export", "lerobot", tmp_path / "no.zarr", out).refused(2, "there is no store at")
    assert stamps(tmp_path) == before
