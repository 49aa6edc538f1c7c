"""The command a message gives for a missing library: it installs from where the package came."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fwdata import install

ORIGINS = [
    ({}, "'fwdata[rerun]'"),
    ({"url": "file:///gone/away", "dir_info": {}}, "'fwdata[rerun]'"),
    ({"url": "https://host/f.git", "vcs_info": {"vcs": "git"}}, "'fwdata[rerun] @ git+https://host/f.git'"),
    ({"url": "https://host/f.whl", "archive_info": {}}, "'fwdata[rerun] @ https://host/f.whl'"),
]


@pytest.mark.parametrize(("origin", "requirement"), ORIGINS)
def test_the_requirement_is_what_pip_takes(origin, requirement: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(install, "_origin", lambda: origin)
    assert install.install_command("rerun").endswith(f" {requirement}")


@pytest.mark.parametrize("editable", [True, False])
def test_a_folder_is_installed_from_itself(editable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "my robots"
    folder.mkdir()
    origin = {"url": folder.as_uri(), "dir_info": {"editable": True} if editable else {}}
    monkeypatch.setattr(install, "_origin", lambda: origin)
    words = shlex.split(install.install_command("rerun"))
    assert words[-1] == f"{folder}[rerun]" and ("-e" in words) is editable


NEWEST = [
    ({}, "--upgrade fwdata"),
    ({"url": "file:///gone/away", "dir_info": {}}, "--upgrade fwdata"),
    ({"url": "https://host/f.git", "vcs_info": {"vcs": "git"}}, "--upgrade 'fwdata @ git+https://host/f.git'"),
    ({"url": "https://host/f-1.0.whl", "archive_info": {}}, "--upgrade fwdata"),
]


@pytest.mark.parametrize(("origin", "ending"), NEWEST)
def test_a_later_version_comes_from_where_this_one_came_from(origin, ending: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(install, "_origin", lambda: origin)
    assert install.upgrade_command().endswith(f" {ending}")


@pytest.mark.parametrize("editable", [True, False])
def test_a_clone_is_pulled_before_it_is_installed_again(
    editable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "my robots"
    (folder / ".git").mkdir(parents=True)
    origin = {"url": folder.as_uri(), "dir_info": {"editable": True} if editable else {}}
    monkeypatch.setattr(install, "_origin", lambda: origin)
    pull, again = map(shlex.split, install.upgrade_command().split(" && "))
    assert pull == ["git", "-C", str(folder), "pull"]
    assert again[-1] == str(folder) and ("-e" in again) is editable


def test_an_environment_without_pip_is_given_to_uv(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    assert install.library_command("boto3") == f"python -m uv pip install --python {sys.executable} boto3"
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: object())
    assert install.library_command("boto3") == f"{sys.executable} -m pip install boto3"


@pytest.mark.slow
def test_the_command_works_where_uv_made_the_environment():
    """Nothing is installed: uv says what it would do."""
    if shutil.which("uv") is None and subprocess.run([sys.executable, "-m", "uv"], check=False).returncode > 2:
        pytest.skip("needs uv")
    words = shlex.split(install.library_command("numpy"))
    if words[:2] == ["python", "-m"]:
        words[0] = sys.executable
    done = subprocess.run([*words, "--dry-run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
