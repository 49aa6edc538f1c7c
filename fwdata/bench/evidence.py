"""What measuring conventions costs: the whole `fwdata convert` with and without it, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from fwdata.bench.whole import command_seconds, nothing_stops


class EvidenceRunJson(TypedDict):
    """Runs of one way."""

    cpu_seconds: list[float]
    """CPU seconds of all processes of each run, in order."""
    wall: list[float]
    """Seconds on the clock of each run, start of the program included."""


class BenchEvidenceJson(TypedDict):
    """The document of `fwdata bench evidence --json`."""

    source: str
    """Source format."""
    without: EvidenceRunJson
    """Runs with `--no-evidence`."""
    measured: EvidenceRunJson
    """Runs that measure conventions."""
    adds_lowest: float
    """CPU that measuring adds, as a share of that without: of the lowest of each."""
    adds_median: float
    """The same of the medians."""
    adds_pairs: float
    """The same of two runs made one after the other, the median of all such pairs."""


@dataclass(frozen=True)
class EvidenceBench:
    """Whole conversions with and without measuring conventions: (seconds on the clock, CPU seconds) of every run."""

    source: str
    """The converter."""
    without: tuple[tuple[float, float], ...]
    """Runs with `--no-evidence`."""
    measured: tuple[tuple[float, float], ...]
    """Runs that measure conventions."""

    def adds(self, among: Callable[[list[float]], float], value: int = 1) -> float:
        """Share of the seconds without that measuring adds, of the one `among` each. value: 0 the clock, 1 the CPU."""
        plain, measured = (among([run[value] for run in runs]) for runs in (self.without, self.measured))
        return measured / plain - 1

    def adds_pairs(self, value: int = 1) -> float:
        """The same of two runs made one after the other, the median of these pairs: what makes the machine slower for
        a while does so to both."""
        pairs = zip(self.without, self.measured, strict=True)
        return statistics.median(measured[value] / plain[value] - 1 for plain, measured in pairs)

    def to_json(self) -> BenchEvidenceJson:
        """As `BenchEvidenceJson`."""
        return BenchEvidenceJson(
            source=self.source,
            without=_listed(self.without),
            measured=_listed(self.measured),
            adds_lowest=round(self.adds(min), 4),
            adds_median=round(self.adds(statistics.median), 4),
            adds_pairs=round(self.adds_pairs(), 4),
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Lines of the table."""
        found: list[tuple[str, ...]] = []
        for value, name in ((1, "CPU"), (0, "clock")):
            for among, word in ((min, "lowest"), (statistics.median, "median")):
                plain, measured = (among([run[value] for run in runs]) for runs in (self.without, self.measured))
                found.append((f"{name}, {word}", f"{plain:.2f}", f"{measured:.2f}", f"{self.adds(among, value):+.0%}"))
            found.append((f"{name}, median of pairs", "", "", f"{self.adds_pairs(value):+.0%}"))
        return found


def bench_evidence(source: str, raw: Path, runs: int, options: Sequence[str] = ()) -> EvidenceBench:
    """The command with and without evidence so many times, in turns that begin with either, after one of each.

    options: more of `fwdata convert`. What contradicts a convention is accepted, and recordings that cannot be read are
    left out both ways. FwdataError where a conversion fails.
    """
    arguments = [source, str(raw), *options]
    ways = ([*arguments, "--no-evidence"], [*arguments, *nothing_stops()])
    for way in ways:
        command_seconds(way, some_left_out=True)  # brings files and code into memory
    found: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for turn in range(runs):
        for place in (0, 1) if turn % 2 else (1, 0):
            found[place].append(command_seconds(ways[place], some_left_out=True))
    return EvidenceBench(source, tuple(found[0]), tuple(found[1]))


def _listed(runs: Sequence[tuple[float, float]]) -> EvidenceRunJson:
    return EvidenceRunJson(cpu_seconds=[round(cpu, 4) for _, cpu in runs], wall=[round(wall, 4) for wall, _ in runs])
