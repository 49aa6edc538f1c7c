"""Every command line in the documentation, run by a test or not, is one that the programs take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from doc_blocks import DocBlock, doc_blocks
from programs import APPS

from fwdata.console import usage_errors
from fwdata.errors import FwdataError

WRONG = (usage_errors()[1], FwdataError, LookupError)
"""What a line that cannot be typed raises."""


def command_lines(block: DocBlock) -> Iterator[list[str]]:
    """Words of each fwdata or fwtrain command of a shell block, from the program's name on."""
    if block.language == "python" or block.mark == "shown":
        return
    for line in re.sub(r"\\\n", " ", block.text).splitlines():
        lexer = shlex.shlex(line.replace("(", " ").replace(")", " "), posix=True, punctuation_chars=";|&>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        try:
            found = [*lexer, ";"]
        except ValueError as error:
            raise ValueError(f"{block.page}:{block.line}: {line}: {error}") from None
        for word in found:
            if word and set(word) <= set(";|&>"):
                yield from program_words(words)
                words = []
            else:
                words.append(word)


def program_words(words: list[str]) -> Iterator[list[str]]:
    """From the program on: behind variables, `python -m uv run`, `torchrun .. -m` and the like."""
    for number, word in enumerate(words):
        before = words[:number]
        runs = not before or before[-1] in ("-m", "run", "sudo") or all("=" in item for item in before)
        if word in APPS and runs:
            yield words[number:]
            return


def parse(words: list[str]) -> None:
    """Parse a command line without running it. typer's UsageError where an option or argument does not exist."""
    node, name, rest = APPS[words[0]], words[0], words[1:]
    while getattr(node, "commands", None):
        context = node.make_context(name, list(rest), resilient_parsing=True)
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not rest:
            return
        found = node.get_command(context, rest[0])
        if found is None:
            raise LookupError(f"no command {rest[0]!r}")
        node, name, rest = found, rest[0], rest[1:]
    if rest != ["--help"]:
        node.make_context(name, list(rest))


LINES = [(block, words) for block in doc_blocks() for words in command_lines(block)]


def test_the_documentation_is_full_of_commands():
    assert len(LINES) > 100 and {words[0] for _, words in LINES} == set(APPS)


@pytest.mark.parametrize("page", sorted({block.page for block, _ in LINES}))
def test_every_command_line_can_be_typed(page: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = []
    for block, words in LINES:
        if block.page != page:
            continue
        try:
            parse(words)
        except WRONG as error:
            wrong.append(f"{page}:{block.line}: {shlex.join(words)}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("line", ["fwdata verify", "fwdata nothing", "fwtrain run s --no-such-option", "fwdata sample"])
def test_a_wrong_line_is_found(line: str):
    with pytest.raises(WRONG):
        parse(shlex.split(line))
