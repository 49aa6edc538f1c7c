"""Every public field has a line of its own that says what it is, its unit and what its default means."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT
from syntax import nodes

RECORDS = {"BaseModel", "Model", "Record", "NamedTuple", "TypedDict"}
"""Bases whose annotated attributes are fields."""


def models(path: Path) -> Iterator[ast.ClassDef]:
    """Public dataclasses, pydantic models and typed tuples of a file, by decorator, base, or base in that file."""
    bases = set(RECORDS)
    for node in nodes(path):
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


@pytest.mark.parametrize("package", ["converters", "fwdata", "fwtrain"])
def test_every_public_field_has_a_docstring(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    missing = [f"{path.relative_to(ROOT)}: {name}" for path in files for name in undocumented(path)]
    assert missing == [], "add a docstring below each: meaning, unit, what None or the default stands for"


def test_a_field_without_a_docstring_is_found(tmp_path: Path) -> None:
    """Every kind of record is looked at, a derived one too; private fields and class variables need none."""
    source = '''
class A(Model):
    told: int
    """Seconds."""
    untold: int
class B(A):
    more: int
@dataclass(frozen=True)
class C:
    x: int
    _own: int
    kind: ClassVar[str]
class D(NamedTuple):
    y: int
class _E(Model):
    z: int
'''
    (tmp_path / "records.py").write_text(source)
    assert undocumented(tmp_path / "records.py") == ["A.untold", "B.more", "C.x", "D.y"]


def test_every_option_of_a_converter_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from fwdata.cli.converter_options import flags_of
    from fwdata.pipeline.registry import options_model

    for source in ("libero", "lerobot", "r1lite", "robotwin"):
        model = options_model(source)
        assert model is not None
        assert [name for name, flag in flags_of(model).items() if not flag.about] == [], source
