"""The examples of the documentation run as they are: the notebook's cells in order, then the script on its store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

EXAMPLES = ROOT / "docs" / "examples"


@pytest.mark.slow
def test_the_notebook_and_the_script_run(tmp_path: Path):
    cells = json.loads((EXAMPLES / "python_api.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in ([sys.executable, "-c", code], [sys.executable, EXAMPLES / "inspect_windows.py", "sample.zarr"]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert "Exception ignored" not in done.stderr, done.stderr[-2000:]
        assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    assert "with video loss" in done.stdout


def test_the_notebook_holds_no_output():
    for path in EXAMPLES.glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") for cell in cells), f"{path.name} holds outputs"
