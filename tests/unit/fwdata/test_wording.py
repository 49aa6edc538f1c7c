"""Numbers in messages."""

from __future__ import annotations

import pytest

from fwdata.wording import counted, named, verb


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "episode", "1 episode"),
        (2, "episode", "2 episodes"),
        (0, "recording", "0 recordings"),
        (3, "copy", "3 copies"),
        (1, "copy", "1 copy"),
        (2, "key", "2 keys"),
        (2, "switch", "2 switches"),
        (2, "axis pass", "2 axis passes"),
    ],
)
def test_a_noun_goes_with_its_number(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text and named(count, noun) == text.partition(" ")[2]


def test_a_verb_goes_with_its_number() -> None:
    assert [verb(n, "is", "are") for n in (0, 1, 2)] == ["are", "is", "are"]
