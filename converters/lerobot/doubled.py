"""Episodes of v3.0 whose rows are in more than one table: left by an interrupted merge, a backup, or a table that grew.

The one that the metadata name counts where it is whole, else the only whole one. Where several are whole and none is
named, they must hold the same rows; else the episode is left out, as nothing tells which is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.lerobot import parquet
from converters.lerobot.entry import EpisodeMeta
from converters.lerobot.info import inside
from fwdata.errors import BadEpisode, UsageError
from fwdata.wording import counted

COMPARED = 8
"""Most episodes that are compared though the metadata name the table to take."""


class DoubledRows:
    """Decides which table of a dataset's folder an episode is read from, and remembers what to say about it."""

    def __init__(self, folder: Path, columns: parquet.TableColumns | None) -> None:
        self._folder, self._columns, self._compared = folder, columns, 0
        self._same: list[str] = []
        self._other: list[str] = []
        self.ambiguous: dict[int, str] = {}
        """Episodes that no table can be taken for -> why."""

    def table(self, entry: EpisodeMeta, rows: Mapping[str, int]) -> str:
        """The table to read an episode from. rows: table -> rows of the episode in it."""
        said, whole = entry.data_file, [name for name, count in rows.items() if count == entry.length]
        if len(rows) < 2:
            return said if said in rows or not rows else next(iter(rows))
        listed = " and ".join(f"{name} ({count})" for name, count in rows.items())
        if not whole:
            self.ambiguous[entry.index] = (
                f"rows of episode {entry.index} are in {listed}, the metadata say {entry.length} in {said}: none holds "
                "them all; remove the table that does not belong to the dataset, or download it again"
            )
            return said
        chosen = said if said in whole else whole[0]
        others = [name for name in whole if name != chosen]
        if not others:
            self._other.append(f"episode {entry.index}: {chosen}, of {listed}")
        elif said in whole and self._compared >= COMPARED:
            return chosen
        elif all(self._alike(entry, chosen, other) for other in others):
            self._same.append(f"episode {entry.index}: {' and '.join([chosen, *others])}")
        elif said in whole:
            self._other.append(f"episode {entry.index}: {said} as the metadata say, {others[0]} differs")
        else:
            self.ambiguous[entry.index] = (
                f"rows of episode {entry.index} are in {' and '.join(whole)}, which differ, and the metadata name "
                f"{said}, which has none: nothing tells which are right; remove the table that does not belong to the "
                "dataset"
            )
        return chosen

    def _alike(self, entry: EpisodeMeta, one: str, other: str) -> bool:
        self._compared += 1
        try:
            first, second = (self._span(entry, name) for name in (one, other))
            return parquet.alike(first, second)
        except (BadEpisode, UsageError):
            return False

    def _span(self, entry: EpisodeMeta, name: str) -> parquet.Span:
        path = inside(self._folder, name)
        return parquet.find_rows(path, name, entry.index, entry.length, True, self._columns)

    def warnings(self) -> list[str]:
        """One sentence for each kind."""
        found = []
        if self._same:
            found.append(
                f"rows of {counted(len(self._same), 'episode')} are in two tables and alike; one is read "
                f"({self._same[0]})"
            )
        if self._other:
            found.append(
                f"rows of {counted(len(self._other), 'episode')} are in two tables that differ; the whole "
                "one, or the one that "
                f"the metadata name, is read ({self._other[0]})"
            )
        return found
