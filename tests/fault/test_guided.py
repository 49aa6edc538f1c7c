"""The coverage-guided fuzzer finds what blind changes do not."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fault import guided
from fault.mutate import flip


def parse(folder: Path) -> None:
    """A planted bug behind four bits, each checked on a line of its own."""
    data = (folder / "x.bin").read_bytes()
    for place, bit in ((0, 1), (1, 2), (3, 4), (5, 8)):
        if not data[place] & bit:
            return
        reached[place]()
    raise ZeroDivisionError("planted")


reached = {
    0: lambda: None,
    1: lambda: None,
    3: lambda: None,
    5: lambda: None,
}


class Blind(guided.Explorer):
    """Keeps nothing."""

    def step(self, number: int) -> tuple[Path, str, str] | None:
        del self.kept[1:]
        return super().step(number)


@pytest.mark.slow
@pytest.mark.parametrize(("explorer", "found"), [(guided.Explorer, True), (Blind, False)])
def test_a_planted_bug_is_found_through_its_lines(tmp_path: Path, explorer: type[guided.Explorer], found: bool) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(8))
    tried = explorer(tmp_path, lambda folder: guided.traced(parse, folder, (__file__,)), 1, lambda path: (flip,))
    finds = [*itertools.islice(guided.finds(tried, lambda number: number == 800), 1)]
    assert bool(finds) == found
    if found:
        assert "ZeroDivisionError: planted" in finds[0][3]


@pytest.mark.slow
def test_a_find_is_written_with_its_seed_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(converter: object, folder: Path) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(guided, "read_all", broken)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    assert guided.main(["libero", "--minutes", "0.002", "--out", str(tmp_path), "--seed", "7"]) == 1
    assert "'planted'" in (tmp_path / "libero-7-0" / "find.json").read_text()
    assert "1 finds" in capsys.readouterr().out
