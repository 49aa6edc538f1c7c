"""Command lines in messages: the command and each of its options exist, and it names what it needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from paths import ROOT
from programs import APPS
from syntax import nodes

LOOSE = ("convert", "slurm")
"""Commands that take options of a source, or of the command behind them."""
SOURCES = [path for top in ("fwdata", "fwtrain", "converters") for path in sorted((ROOT / top).rglob("*.py"))]
LINE = re.compile(r"\b(fwdata|fwtrain) ([a-z][a-z-]*(?: [a-z][a-z-]*)?)([^`;,)\n]*)")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Strings of a module that are no docstrings, what is filled in as X."""
    bare = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in nodes(path) if isinstance(node, ast.JoinedStr) for part in node.values}
    left_out = bare | inside
    for node in nodes(path):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.lineno, node.value


def faults(text: str) -> Iterator[str]:
    """What is wrong with the command lines of a text."""
    for program, words, rest in LINE.findall(text):
        node, names = APPS[program], words.split()
        while names and names[0] in (getattr(node, "commands", None) or {}):
            node = node.commands[names.pop(0)]
        if getattr(node, "commands", None):
            continue  # a program or a group by name, as in "fwdata export"
        known = {option for item in node.params for option in (*item.opts, *item.secondary_opts)} | {"--help"}
        given = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest))
        if given - known and node.name not in LOOSE:
            yield f"{program} {words}: unknown {', '.join(sorted(given - known))}"
        needs = [item.name for item in node.params if item.param_type_name == "argument" and item.required]
        flags = {option for item in node.params if getattr(item, "is_flag", False) for option in item.opts}
        typed = rest.split()
        free = [w for before, w in pairwise(["", *typed]) if w[0] != "-" and (before[:2] != "--" or before in flags)]
        if needs and not names and typed and typed[0] in known and not free:
            yield f"{program} {words}: lacks {needs[0]}"


def test_commands_in_messages_exist():
    found = [
        f"{path.relative_to(ROOT)}:{n}: {fault}" for path in SOURCES for n, t in texts(path) for fault in faults(t)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["run `fwdata stats X --nonsense`", "fwtrain export model X --push", "fwdata encode-text --name X"]
)
def test_a_wrong_option_is_found(text: str):
    assert list(faults(text))
