"""Syntax trees of the project's files, parsed once for all tests of a process."""

from __future__ import annotations

import ast
import functools
from pathlib import Path


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file; not to be changed."""
    return ast.parse(path.read_bytes())


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """Every node of it."""
    return list(ast.walk(tree(path)))
