"""The wheel works outside the repository: manifests and assets are found, commands run from any folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import DATA, ROOT

REPOSITORY = ROOT
RECORDINGS = DATA / "robotwin"


def _run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_environment(tmp_path: Path) -> None:
    uv = [sys.executable, "-m", "uv"]
    clean = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    _run(*uv, "build", "--wheel", "--out-dir", tmp_path / "dist", cwd=REPOSITORY, env=clean)
    wheel = next((tmp_path / "dist").glob("*.whl"))
    pins = tmp_path / "requirements.txt"
    chosen = ("--extra", "convert", "--extra", "train")
    _run(*uv, "export", "--locked", "--no-dev", "--no-emit-project", *chosen, "-o", pins, cwd=REPOSITORY, env=clean)
    _run(*uv, "venv", "--python", sys.executable, tmp_path / "env", cwd=tmp_path, env=clean)
    python = tmp_path / "env" / "bin" / "python"
    _run(*uv, "pip", "install", "--python", python, "--no-deps", "-r", pins, wheel, cwd=tmp_path, env=clean)

    fwdata, fwtrain = tmp_path / "env" / "bin" / "fwdata", tmp_path / "env" / "bin" / "fwtrain"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "convert" in _run(fwdata, "--help", cwd=elsewhere, env=clean)
    report = json.loads(
        _run(fwdata, "convert", "robotwin", RECORDINGS, "--out", "rt.zarr", "--json", cwd=elsewhere, env=clean)
    )
    assert (report["episodes"], report["frames"]) == (2, 102)
    where = _run(python, "-c", "import fwdata; print(fwdata.__file__)", cwd=elsewhere, env=clean)
    assert str(tmp_path / "env") in where
    recipes = json.loads(_run(fwtrain, "recipes", "--json", cwd=elsewhere, env=clean))
    assert {"tiny", "robotwin"} <= {recipe["name"] for recipe in recipes["recipes"]}
    script = "from fwdata.encode.vae.wan import load_vae; print(load_vae('tiny').channels)"
    loaded = _run(python, "-c", script, cwd=elsewhere, env=clean)
    assert loaded.strip() == "48"
