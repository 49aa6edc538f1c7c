"""Many recordings that are left out are listed by kind, so that a frequent reason does not hide another."""

from __future__ import annotations

import pytest

from fwdata.cli import convert


def test_many_are_listed_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    many = [(f"a/episode_{n}.hdf5", f"action is not finite at frame {n}") for n in range(30)]
    convert._list("quarantined", [*many, ("b.hdf5", "the wrist camera is missing")])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "quarantined: b.hdf5: the wrist camera is missing" in lines
    assert any(
        line.startswith("quarantined: 30 recordings: action is not finite at frame 0, and the like (") for line in lines
    )


def test_few_are_listed_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    convert._list("quarantined", [("a", "is empty"), ("b", "is empty"), ("c", "")])
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["quarantined: a: is empty", "quarantined: b: is empty", "quarantined: c"]
