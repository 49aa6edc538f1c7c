"""The text of stored JSON is that of `json`, character for character."""

from __future__ import annotations

import json
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fwdata.store.files import canonical_json

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner) | some.tuples(inner, inner),
)


def by_json(value: object) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


@given(JSON)
def test_every_value_has_the_text_that_json_gives_it(value: object) -> None:
    try:
        expected = by_json(value)
    except UnicodeEncodeError:  # a lone surrogate
        with pytest.raises(UnicodeEncodeError):
            canonical_json(value)
    else:
        assert canonical_json(value) == expected


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        [[]],
        {"a": ()},
        {"a": Colour.RED},
        {2: 1, 10: [True]},
        {True: 0},
        -0.0,
        1e300,
        5e-324,
        2**70,
        '\u2028\x7f\0"\\',
    ],
)
def test_unusual_values_too(value: object) -> None:
    assert canonical_json(value) == by_json(value)


@pytest.mark.parametrize(
    "value", [float("nan"), [float("-inf")], {1: 0, "a": 0}, {"a": object()}, {("a",): 1}, {"a": b"x"}]
)
def test_what_json_refuses_is_refused_in_its_words(value: object) -> None:
    with pytest.raises((TypeError, ValueError)) as theirs:
        by_json(value)
    with pytest.raises(type(theirs.value)) as ours:
        canonical_json(value)
    assert str(ours.value) == str(theirs.value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(ValueError, match="Circular"):
        canonical_json(value)
