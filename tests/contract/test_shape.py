"""The shape of the code: functions that fit a screen, files that are read in one sitting."""

from __future__ import annotations

import ast

from paths import ROOT
from syntax import nodes

FUNCTION_LINES, FILE_LINES = 60, 420
LONGER = {"fwtrain/export/robotwin_policy/deploy_policy.py"}
"""Runs in RoboTwin's environment, which has no other file of this project."""


def test_functions_and_files_stay_short() -> None:
    long = []
    for package in ("converters", "fwdata", "fwtrain"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for node in nodes(path):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    long += [f"{name}: {node.name} has {lines} lines"] if lines > FUNCTION_LINES else []
            lines = len(path.read_text(encoding="utf-8").splitlines())
            long += [f"{name} has {lines} lines"] if lines > FILE_LINES and name not in LONGER else []
    assert long == [], f"split what is over {FUNCTION_LINES} lines (a function) or {FILE_LINES} (a file)"
