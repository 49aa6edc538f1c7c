"""Options of a converter on the command line of `fwdata convert`."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from commands import Command
from fixtures import write_toy
from paths import DATA

import fwdata
from fwdata.errors import UsageError
from fwdata.manifest import Model


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "raw", {"a": [3, 4], "b": [5]})


@pytest.mark.slow
def test_options_of_a_converter_are_flags(run: Command, raw: Path, tmp_path: Path) -> None:
    arguments = ("convert", "toy", raw, "--workers", 0, "--out")
    for flags in (("--prefix", "on "), ("--prefix=on ",), ("--set", "prefix='on '")):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        assert run(*arguments, out, *flags).code == 0
        assert fwdata.open(out).episodes[0].instruction.startswith("on move")  # text stays text: YAML's on is true
    run(*arguments, tmp_path / "x", "--prefx", "a").refused(2, "no option --prefx; did you mean '--prefix'")
    run(*arguments, tmp_path / "x", "--prefix").refused(2, "--prefix needs a value")
    libero = ("convert", "libero", raw, "--out", tmp_path / "x")
    run(*libero, "--rotation", "flip").refused(2, "rotation", "'flip'")
    run(*libero, "--filter-noops=maybe").refused(2, "--filter-noops must be true or false, found 'maybe'")
    run(*libero, "--max-episodes-per-task", "few").refused(2, "--max-episodes-per-task must be a number, found 'few'")
    run(*libero, "--no-rotation").refused(2, "no option --no-rotation")
    shown = " ".join(run("convert", "libero", "--help").out.split())
    assert "Options of libero" in shown and "--filter-noops / --no-filter-noops Drop rows whose action" in shown
    assert "[default: no]" in shown and "Example: fwdata convert libero RAW_DIR" in shown
    assert "Options of toy: --prefix TEXT Put before every instruction" in " ".join(
        run("convert", "toy", "--help").out.split()
    )
    assert "Options of" not in run("convert", "--help").out


def test_a_dry_run_shows_decisions_as_text(run: Command, tmp_path: Path) -> None:
    raw = DATA / "robotwin"
    ran = run("convert", "robotwin", raw, "--out", tmp_path / "s.zarr", "--workers", 0, "--dry-run")
    assert ran.code == 0 and "rate_hz: 16.667" in ran.out and "settings: clean 2" in ran.out
    assert "{'" not in ran.out


@pytest.mark.parametrize(
    ("source", "flags", "options"),
    [
        (
            "libero",
            "--filter-noops --rotation none --resize 256,128",
            {"filter_noops": True, "rotation": "none", "resize": [256, 128]},
        ),
        ("libero", "--no-filter-noops --tasks a,b --tasks c", {"filter_noops": False, "tasks": ["a", "b", "c"]}),
        ("robotwin", "--settings clean --max-episodes-per-task 5", {"settings": ["clean"], "max_episodes_per_task": 5}),
        (
            "r1lite",
            "--action-set arms+torso --recover --drop-unqualified --lang=zh --gap keep --no-check-rate",
            {
                "action_set": "arms+torso",
                "recover": True,
                "drop_unqualified": True,
                "lang": "zh",
                "gap": "keep",
                "check_rate": False,
            },
        ),
        ("libero", "--filter-noops=true --other-demos=false", {"filter_noops": True, "other_demos": False}),
        (
            "libero",
            "--set resize=[1,2] --tasks a --resize=3,4 --set mask=[b]",
            {"resize": [3, 4], "tasks": ["a"], "mask": ["b"]},
        ),
        ("libero", "", {}),
        (
            "lerobot",
            "--fps-labels 15,20 --cameras '{head: [a, b]}' --task null",
            {"fps_labels": [15, 20], "cameras": {"head": ["a", "b"]}, "task": "null"},
        ),
    ],
)
def test_every_kind_of_option_becomes_its_value(
    source: str, flags: str, options: dict[str, object], run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def manifest_for(source: str, manifest: object, given: object, roots: object, workers: int) -> object:
        asked.append(given)
        raise UsageError("seen")

    monkeypatch.setattr("fwdata.pipeline.choose.manifest_for", manifest_for)
    run("convert", source, tmp_path, "--out", tmp_path / "s.zarr", *shlex.split(flags)).refused(2, "seen")
    assert asked == [options]


def test_an_option_of_a_converter_never_replaces_one_of_the_command(
    run: Command, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reached with --set then; its parameter has another name than those of the command."""

    class Options(Model):
        """Options of a converter that calls two of them as the command does.

        Example: fwdata convert mine RAW_DIR --out data/mine.zarr --memory-of-past 3
        """

        workers: int = 3
        """Never asked for."""
        memory_of_past: int = 0
        """Rows that are remembered."""

    monkeypatch.setattr("fwdata.pipeline.registry.options_model", lambda source: Options)
    shown = " ".join(run("convert", "toy", "--help").out.split())
    assert "Never asked for" not in shown and "--memory-of-past NUMBER Rows that are remembered [default: 0]" in shown
    assert "Example: fwdata convert mine RAW_DIR --out data/mine.zarr --memory-of-past 3" in shown
    arguments = ("convert", "toy", raw, "--out", tmp_path / "s.zarr", "--workers", 0, "--memory-of-past")
    run(*arguments, 3).refused(2, "memory_of_past")  # the toy itself has no such option
    run(*arguments, "x").refused(2, "--memory-of-past must be a number, found 'x'")
