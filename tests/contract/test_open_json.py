"""Documents and records are typed; `dict[str, Any]`, in which every key and value passes, stands where JSON is open."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from paths import ROOT

OPEN = {
    "fwdata/store/records/base.py": "JsonObject, what a user or a converter declares: stored, compared, shown",
    "fwdata/report/model_reference.py": "a JSON schema",
}
"""File -> what is open there."""


def untyped(root: Path) -> set[str]:
    files = (path for package in ("converters", "fwdata", "fwtrain") for path in (root / package).rglob("*.py"))
    found = (path for path in files if re.search(r"\b[dD]ict\[str, (typing\.)?Any\]", path.read_text()))
    return {path.relative_to(root).as_posix() for path in found}


def test_only_open_json_is_untyped() -> None:
    """Use a dataclass, a pydantic model or a TypedDict; `dict[str, object]` for JSON that is only passed on."""
    assert sorted(untyped(ROOT) - set(OPEN)) == []
    assert sorted(set(OPEN) - untyped(ROOT)) == [], "typed by now: take it off the list"


@pytest.mark.parametrize("text", ["def f() -> dict[str, Any]: ...", "x: dict[str, dict[str, Any]]"])
def test_an_untyped_mapping_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "fwdata").mkdir()
    (tmp_path / "fwdata" / "module.py").write_text(text)
    assert untyped(tmp_path) == {"fwdata/module.py"}
