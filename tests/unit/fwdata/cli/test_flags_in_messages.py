"""What converters say of their options, as the command line takes it."""

from __future__ import annotations

import pytest

from fwdata.cli.converter_options import with_flags


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("by that; option clock = shift corrects every topic", "by that; --clock shift corrects every topic"),
        ("set option clock to shift to correct such topics", "give --clock shift to correct such topics"),
        ("from a folder name; option task sets another", "from a folder name; --task sets another"),
        ("nothing tells the task; set option task (--task TEXT)", "nothing tells the task; give --task"),
        ("b (6); options state and action join several", "b (6); --state and --action join several"),
        ("(option include_failed takes them): demo_1", "(--include-failed takes them): demo_1"),
    ],
)
def test_options_are_shown_as_flags(said: str, shown: str) -> None:
    assert with_flags(said) == shown


@pytest.mark.parametrize(
    "said", ["that the options tasks, settings and embodiment do not name", "an option that takes"]
)
def test_words_that_are_no_option_of_a_source_stay(said: str) -> None:
    assert with_flags(said) == said
