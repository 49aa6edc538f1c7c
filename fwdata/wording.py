"""Numbers in messages: "1 episode", "2 episodes"."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number and what is counted, `noun` in the singular: `1 episode`, `2 episodes`, `0 copies` of "copy"."""
    return f"{count:d} {named(count, noun)}"


def named(count: int, noun: str) -> str:
    """What is counted, without the number: `episode` of one, else `episodes`."""
    if count == 1:
        return noun
    vowel = noun[-2:-1] in "aeiou"
    if noun.endswith("y") and not vowel:
        return f"{noun[:-1]}ies"
    return f"{noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def verb(count: int, one: str, several: str) -> str:
    """The verb that goes with a number: `is` with one, else `are`."""
    return one if count == 1 else several
