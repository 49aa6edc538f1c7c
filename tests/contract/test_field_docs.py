"""Every public field has a line of its own that says what it is, its unit and what its default means."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

UNDOCUMENTED = 223
"""Public fields without a docstring. May only go down."""

COMPLETE = (
    "fwdata/api.py",
    "fwdata/store/array_record.py",
    "fwdata/store/layout.py",
    "fwdata/store/records.py",
    "fwdata/store/sources.py",
    "fwdata/store/view.py",
    "fwdata/window.py",
    "converters/lerobot/options.py",
)
"""Files in which every public field has one."""


def models(path: Path) -> Iterator[ast.ClassDef]:
    """Public dataclasses and pydantic models of a file, told by decorator, base or a model's own base in that file."""
    bases = {"BaseModel", "Model", "Record"}
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ClassDef):
            continue
        found = {ast.unparse(base).split("[")[0] for base in node.bases}
        is_model = bool(found & bases) or any(ast.unparse(d).startswith("dataclass") for d in node.decorator_list)
        if is_model:
            bases.add(node.name)
            if not node.name.startswith("_"):
                yield node


def undocumented(path: Path) -> list[str]:
    """`Class.field` of every public field that no docstring follows."""
    found = []
    for node in models(path):
        for item, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not said and not item.target.id.startswith("_") and "ClassVar" not in ast.unparse(item.annotation):
                found.append(f"{node.name}.{item.target.id}")
    return found


def sources() -> list[Path]:
    return sorted(p for folder in ("fwdata", "fwtrain", "converters") for p in (ROOT / folder).rglob("*.py"))


def test_the_number_of_fields_without_a_docstring_only_goes_down() -> None:
    missing = [f"{path.relative_to(ROOT)}: {name}" for path in sources() for name in undocumented(path)]
    assert len(missing) <= UNDOCUMENTED, "\n".join(missing)


@pytest.mark.parametrize("name", COMPLETE)
def test_the_contract_and_the_records_are_documented_throughout(name: str) -> None:
    assert undocumented(ROOT / name) == []


def test_every_option_of_a_converter_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from fwdata.cli.converter_options import flags_of
    from fwdata.pipeline.registry import options_model

    for source in ("libero", "lerobot", "r1lite", "robotwin"):
        model = options_model(source)
        assert model is not None
        assert [name for name, flag in flags_of(model).items() if not flag.about] == [], source
