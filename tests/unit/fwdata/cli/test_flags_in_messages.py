"""What converters say of their options, as the command line takes it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from commands import Command
from lerobot_files import Recipe, write_dataset
from pydantic import BaseModel

from fwdata.cli.converter_options import parse_options, with_flags
from fwdata.errors import UsageError
from fwdata.pipeline import registry


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("by that; option clock = shift corrects every topic", "by that; --clock shift corrects every topic"),
        ("set option clock to shift to correct such topics", "give --clock shift to correct such topics"),
        ("from a folder name; option task sets another", "from a folder name; --task sets another"),
        ("nothing tells the task; set option task (--task TEXT)", "nothing tells the task; give --task"),
        ("b (6); options state and action join several", "b (6); --state and --action join several"),
        ("(option include_failed takes them): demo_1", "(--include-failed takes them): demo_1"),
    ],
)
def test_options_are_shown_as_flags(said: str, shown: str) -> None:
    assert with_flags(said) == shown


@pytest.mark.parametrize(
    "said", ["that the options tasks, settings and embodiment do not name", "an option that takes"]
)
def test_words_that_are_no_option_of_a_source_stay(said: str) -> None:
    assert with_flags(said) == said


def test_an_option_of_the_source_in_use_loads_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "converters"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("converters.robotwin")
    assert with_flags("option embodiment names it") == "--embodiment names it"
    assert not {f"converters.{name}" for name in ("lerobot", "libero", "r1lite")} & sys.modules.keys()


def test_a_source_whose_extra_is_not_installed_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.options_model

    def options_model(source: str) -> type[BaseModel] | None:
        if source == "r1lite":
            raise ModuleNotFoundError("No module named 'lz4'", name="lz4")
        return real(source)

    monkeypatch.setattr(registry, "options_model", options_model)
    assert with_flags("option clock = shift") == "option clock = shift"
    assert with_flags("option embodiment names it") == "--embodiment names it"


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_options_in_errors_are_shown_as_flags(tmp_path: Path, run: Command, dry: list[str]) -> None:
    own = write_dataset(tmp_path / "own", Recipe(fps=40))
    ran = run("convert", "lerobot", own, "--out", tmp_path / "o.zarr", "--manifest", "lerobot-r1lite", *dry)
    ran.refused(2, "meta/info.json says 40 fps", "where the label is wrong, add it to --fps-labels")


def test_a_text_that_is_no_yaml_is_answered_with_its_quotes() -> None:
    with pytest.raises(UsageError, match="put quotes around a text with a colon or braces"):
        parse_options(["prompt=Task: {task}."])
    assert parse_options(['prompt="Task: {task}."']) == {"prompt": "Task: {task}."}
