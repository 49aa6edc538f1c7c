"""What commands print with `--json` is held to the schema of their command, in every test that runs one here."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fwdata.report.json_documents import command_schema


def programs() -> dict[str, dict[str, tuple[str, ...]]]:
    """Program -> its documents by command."""
    from fwdata.cli.documents import DOCUMENTS as data
    from fwtrain.cli.documents import DOCUMENTS as train

    return {"fwdata": data, "fwtrain": train}


def strict(node: Any) -> Any:
    """The schema without room for keys that it does not list."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: strict(value) for key, value in node.items()}
    return {**found, "additionalProperties": False} if found.get("properties") else found


@functools.cache
def validator(program: str, command: str) -> Draft202012Validator:
    return Draft202012Validator(strict(command_schema(program, programs()[program], command)))


def faults(program: str, command: str, document: object) -> list[str]:
    """What a command's document has that its schema does not let pass; () where it fits."""
    found = []
    for error in validator(program, command).iter_errors(document):
        best = min(error.context or [error], key=lambda e: (-len(e.absolute_path), e.message))
        found.append(f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]} ({best.message[:300]})")
    return found


def running() -> tuple[str, str]:
    """(program, command) of the command line that is running, as its documents call it."""
    from typer._click.globals import get_current_context

    context = get_current_context()
    names: list[str] = []
    program = context.command.callback.__module__.partition(".")[0]  # type: ignore[union-attr]
    while context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    known = programs()[program]
    return program, next(c for n in (2, 1) if (c := " ".join(names[:n])) in known)


@pytest.fixture(autouse=True)
def checked_documents(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Documents are checked when they are printed; yields "PROGRAM COMMAND" of those that were."""
    from fwdata import console

    printed, seen = console.print_document, set[str]()

    def check(value: object) -> None:
        program, command = running()
        found = faults(program, command, value)
        assert not found, f"{program} {command} --json does not fit its schema: {found}"
        seen.add(f"{program} {command}")
        printed(value)

    monkeypatch.setattr(console, "print_document", check)
    yield seen
