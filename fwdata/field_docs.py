"""Docstrings of a model's fields, read from its source file only when a help text or a schema shows them.

pydantic's `use_attribute_docstrings` reads them when a class is made, which is a quarter of what importing fwdata's
models costs, in every process that reads or writes a store.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class DocumentedModel(BaseModel):
    """Base of models whose fields are explained by the docstring below each: their schema has it as `description`.

    Validators are built when the first value is validated.
    """

    model_config = ConfigDict(defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema that pydantic makes, with the docstrings of fields that have no description of their own."""
        made, docs = handler(core_schema), field_docs(cls)
        whole = handler.resolve_ref_schema(made)
        for node in (whole, *whole.get("anyOf", ())):  # a model that also takes a plain value is one of several
            properties = node.get("properties", {})
            for name in docs.keys() & properties.keys():
                properties[name] = dict(sorted({"description": docs[name], **properties[name]}.items()))
        return made


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Field -> docstring, of a model and its bases; without those whose source file is not there."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        file = getattr(sys.modules.get(base.__module__), "__file__", None)
        if issubclass(base, BaseModel) and base is not BaseModel and file and Path(file).is_file():
            found |= _docs(Path(file), Path(file).stat().st_mtime_ns).get(base.__qualname__, {})
    return found


@cache
def _docs(file: Path, mtime_ns: int) -> dict[str, dict[str, str]]:
    """Qualified name of every class of a file -> field -> docstring."""
    return dict(_classes(ast.parse(file.read_bytes()), ""))


def _classes(node: ast.AST, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield f"{prefix}{child.name}", dict(_fields(child))
            yield from _classes(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _classes(child, f"{prefix}{child.name}.<locals>.")
        else:
            yield from _classes(child, prefix)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for item, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(after, ast.Expr):
            text = after.value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield item.target.id, inspect.cleandoc(text.value)
