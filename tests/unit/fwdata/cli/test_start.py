"""What starting a command imports: its own module, and nothing that only other commands or sources need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from fwdata.cli import MODULES, _app_of, app
from fwdata.pipeline.registry import has_converter
from fwdata.plugins import CONVERTERS


def names(made: typer.Typer) -> list[str]:
    """Commands and groups of a command line, in the order of its help."""
    return [c.name for c in typer.main.get_group(made).commands.values() if c.name]


def test_every_command_is_found_in_its_module() -> None:
    assert sorted(names(app)) == sorted(name for commands in MODULES.values() for name in commands)
    for commands in MODULES.values():
        assert sorted(names(_app_of([commands[0], "--help"]))) == sorted(commands)
    assert names(_app_of(["convrt"])) == names(_app_of([])) == names(app)


@pytest.mark.slow
def test_a_dry_run_imports_nothing_of_pages_other_commands_or_the_network(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom fwdata.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "convert", "robotwin", str(tmp_path), "--out", "x.zarr", "--dry-run"]
    loaded = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False).stderr.split()
    assert "fwdata.pipeline.run" in loaded and "converters.robotwin.converter" in loaded
    unwanted = {"fwdata.cli.doctor", "fwdata.report.page", "PIL", "http.client", "urllib.request", "fwdata.envs.sample"}
    assert not unwanted & set(loaded)


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_workers_share_is_imported_before_they_are_forked(tmp_path: Path, dry_run: bool) -> None:
    code = (
        "import sys\nfrom fwdata.cli import main\nfrom fwdata.pipeline import workers\n"
        "def pool(*_, **__):\n    sys.exit(' '.join(sys.modules))\n"
        "workers.WorkerPool = pool\nmain()"
    )
    command = [sys.executable, "-c", code, "convert", "robotwin", str(tmp_path), "--out", "x.zarr"]
    command += ["--dry-run"] * dry_run
    loaded = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False).stderr.split()
    assert "fwdata.evidence.detectors.delay" in loaded
    assert ("numcodecs.zstd" in loaded) is not dry_run  # a dry run compresses nothing


def test_installed_packages_are_only_searched_for_names_that_are_not_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(kind: object) -> dict[str, object]:
        raise AssertionError(kind)

    monkeypatch.setattr(type(CONVERTERS), "installed", searched)
    assert has_converter("lerobot")
    with pytest.raises(AssertionError):
        has_converter("mybot")
