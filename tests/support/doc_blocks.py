"""Fenced blocks of the documentation, and the comment above each that says whether a test runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from paths import ROOT

SHELL = ("", "sh", "bash", "shell", "console", "python")
"""Languages of blocks that a reader would run; the others are shown only."""
MARK = re.compile(r"<!-- (run|run-small|run-in-repository|run-with-hub|run-with-bucket|shown|needs: [a-z0-9, ]+) -->")
GENERATED = ("manifest-reference.md", "recipe-reference.md", "fwdata-json.md", "fwtrain-json.md")


@dataclass(frozen=True)
class DocBlock:
    """One fenced block."""

    page: str
    """Path of its page from the repository's root."""
    line: int
    """Line of its fence, from 1 on."""
    language: str
    """What stands behind the fence."""
    mark: str | None
    """What the comment directly above it says; None without one."""
    text: str
    """Its lines."""

    @property
    def needs(self) -> bool:
        """Whether it is marked with what a test machine lacks."""
        return self.mark is not None and self.mark.startswith("needs: ")


def doc_blocks() -> list[DocBlock]:
    """Blocks that a reader would run, of the README and every page of the documentation."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [block for page in pages if page.name not in GENERATED for block in _blocks(page)]


def _blocks(page: Path) -> list[DocBlock]:
    lines, found, start = page.read_text(encoding="utf-8").splitlines(), list[DocBlock](), None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        mark = MARK.fullmatch(lines[start - 1]) if start else None
        text = "\n".join(lines[start + 1 : number]) + "\n"
        name = page.relative_to(ROOT).as_posix()
        found.append(DocBlock(name, start + 1, lines[start][3:].strip(), mark[1] if mark else None, text))
        start = None
    return [block for block in found if block.language in SHELL]
