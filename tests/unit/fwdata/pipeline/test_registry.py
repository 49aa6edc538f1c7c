"""Converters from outside the project: an installed package's entry point, a module or a folder of FWDATA_PLUGINS."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import pytest
from fixtures import PLUGINS, write_toy

from fwdata.errors import UsageError
from fwdata.pipeline.choose import manifest_for
from fwdata.pipeline.registry import converter_names, load_converter
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.run import convert


def package(folder: Path, name: str) -> Path:
    """The toy converter as a package of two modules, its manifest inside."""
    inner = folder / name
    inner.mkdir(parents=True)
    (inner / "reading.py").write_text((PLUGINS / "toy.py").read_text())
    (inner / "__init__.py").write_text("from .reading import Converter as Converter\n")
    manifest = (PLUGINS / "toy.yaml").read_text().replace("converter: toy", f"converter: {name}")
    (inner / f"{name}.yaml").write_text(manifest)
    return folder


def install(folder: Path, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution on the path whose entry point `name` is `value`."""
    info = folder / f"{name}_robot-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-robot\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[fwdata.converters]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(str(folder))


def converted(name: str, tmp_path: Path, workers: int) -> int:
    """Episodes that a converter makes of two toy recordings."""
    raw = write_toy(tmp_path / "raw", {"sort": [5, 6]})
    request = ConvertRequest(name, (raw,), tmp_path / "out.zarr", manifest_for(name, None, {}), workers, "fail")
    return convert(request, lambda plan: None, lambda episodes, frames: None).episodes


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_folder_of_plugins_is_a_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setenv("FWDATA_PLUGINS", str(package(tmp_path / "plugins", "boxed")))
    assert "boxed" in converter_names()
    assert converted("boxed", tmp_path, workers) == 2


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_installed_package_adds_a_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    package(tmp_path / "site", "fitted")
    install(tmp_path / "site", "fitted", "fitted", monkeypatch)
    assert "fitted" in converter_names()
    assert converted("fitted", tmp_path, workers) == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("absent_package", "group fwdata.converters: No module named"),
        ("json:loads", "must name a module, found function"),
    ],
)
def test_a_wrong_entry_point_is_named(tmp_path, monkeypatch, value: str, message: str) -> None:
    install(tmp_path, "broken", value, monkeypatch)
    with pytest.raises(UsageError, match=message):
        manifest_for("broken", None, {})


def test_a_built_in_converter_is_not_replaced_by_an_installed_one(tmp_path, monkeypatch) -> None:
    install(tmp_path, "robotwin", "json", monkeypatch)
    assert type(load_converter(manifest_for("robotwin", None, {}))).__name__ == "RobotwinConverter"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\n\nlimit = 1 / 0\n", r"broken.py, line 3: ZeroDivisionError: division by zero; fix the file"),
        ("class Converter:\n    def read(self:\n", r"broken.py, line 2: SyntaxError: "),
        ("import absent_package\n", r"broken.py, line 1: No module named 'absent_package'; fix the file or remove it"),
    ],
)
def test_a_file_that_does_not_load_is_named_with_its_line(tmp_path, monkeypatch, text: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    (tmp_path / "broken.yaml").write_text((PLUGINS / "toy.yaml").read_text().replace("toy", "broken"))
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path))
    with pytest.raises(UsageError, match=message):
        load_converter(manifest_for("broken", None, {}))


def test_a_package_that_raises_when_it_is_imported_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "raising.py").write_text("raise RuntimeError('no licence')\n")
    install(tmp_path, "raising", "raising", monkeypatch)
    with pytest.raises(UsageError, match="RuntimeError: no licence; fix or uninstall its package"):
        load_converter(manifest_for("raising", None, {}))


def test_packages_are_looked_for_again_only_when_one_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look = importlib.metadata.entry_points
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: looks.append(group) or look(group=group))
    install(tmp_path, "early", "json", monkeypatch)
    assert "early" in converter_names() and "early" in converter_names() and looks == ["fwdata.converters"]
    os.utime(tmp_path, ns=(1, 1))  # a package that comes within one tick of the clock would be missed
    entries = "[fwdata.converters]\nlate = json\n"
    (tmp_path / "late_robot-1.dist-info").mkdir()
    (tmp_path / "late_robot-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: late-robot\nVersion: 1\n")
    (tmp_path / "late_robot-1.dist-info/entry_points.txt").write_text(entries)
    assert {"early", "late"} <= set(converter_names()) and len(looks) == 2
