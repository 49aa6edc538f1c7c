"""Which files are parts of one recording: their names say what may be, the times in their indexes what is.

Files numbered as recorders number split files are joined unless their times show separate takes; files numbered in
another way are only joined where one goes on where the other ends. What was decided is said once, with its option.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from converters.r1lite.bags import SUFFIXES, TAKE_PAUSE_NS
from converters.r1lite.spans import LogSpan, log_span
from fwdata.wording import counted, verb

type SplitFiles = Literal["merge", "separate"]

GOES_ON_NS = 10**8
"""Longest pause between two messages of a running recorder, 1.5 frames of the head camera: no operator is as quick."""

_DATE = r"(?:[0-9]{4}[_-][0-9]{2}[_-][0-9]{2}[-_T][0-9]{2}[_-][0-9]{2}[_-][0-9]{2}|[0-9]{8}[-_T][0-9]{6})"
_TIME = rf"(?:{_DATE}(?:[._-][0-9]{{3,9}})?Z?|[0-9]{{10}}|[0-9]{{13}}|[0-9]{{19}})"
"""A date, to parts of a second, or s, ms or ns since 1970."""
_SPLITS = (
    re.compile(rf"(?P<number>[0-9]{{1,4}})_(?P<stem>(?:.+?_)?)(?P<date>{_TIME})"),  # rosbag2 since 2026: 0_rec_DATE
    re.compile(rf"(?P<stem>(?:.+_)?)(?P<date>{_DATE}Z?)_(?P<number>[0-9]{{1,4}})"),  # rosbag record --split: rec_DATE_0
    re.compile(r"(?P<stem>.+)(?P<date>)_(?P<number>[0-9]{1,4})"),  # rosbag2 before: rec_0
)
_DATED = re.compile(rf"(?:.*[_-])?{_DATE}")
_NUMBERED = (
    re.compile(r"(?P<stem>.*?)(?<![0-9])(?P<number>[0-9]{1,4})\)?"),  # rec-0, part1, rec (1)
    re.compile(r"(?P<number>[0-9]{1,4})(?![0-9])(?P<stem>.+)"),  # 0-rec
)
_BETWEEN = " _-.("


@dataclass(frozen=True)
class _Split:
    """What the name of one file of a split recording tells."""

    stem: str
    """Name of the recording, without number and date."""
    number: int
    """Which file of it this is."""
    date: str
    """When the file was begun, as written; "" where the name has none."""


@dataclass(frozen=True)
class _Apart:
    """Two files that their numbers put one after the other, and that are taken as recordings of their own."""

    before: str
    """The one with the lower number."""
    after: str
    """The other one."""
    pause: int | None
    """Nanoseconds between their messages; None where nothing tells it."""

    def __str__(self) -> str:
        if self.pause is None:
            return f"{self.after} after {_name(self.before)}"
        side = "after" if self.pause >= 0 else "before"
        return f"{self.after} begins {abs(self.pause) / 1e9:.1f} s {side} {_name(self.before)} ends"


@dataclass
class Joining:
    """Files of one walk put together to recordings."""

    base: Path
    """The folder that paths are relative to."""
    split_files: SplitFiles
    """"separate": every file is a recording."""
    keep_pauses: bool
    """Whether files numbered by a recorder are joined whatever lies between them."""
    warnings: list[str]
    """What was decided is added here."""
    _spans: dict[str, LogSpan | None] = field(default_factory=dict)
    _apart: list[_Apart] = field(default_factory=list)

    def groups(self, paths: Collection[str], listed: Collection[str]) -> list[tuple[str, ...]]:
        """Files of every recording, in order. listed: names (without ending) that a JSON file lists one by one."""
        if self.split_files == "separate":
            return sorted((path,) for path in paths)
        takes = self._by_names(sorted(paths), listed)
        takes = [part for take in takes for part in self._at_pauses(take)]
        takes = self._by_times(takes, listed)
        self._say(takes)
        return sorted(takes)

    def _by_names(self, paths: Sequence[str], listed: Collection[str]) -> list[tuple[str, ...]]:
        """Files of one folder, name and kind whose numbers count up as a recorder's do."""
        parts: dict[tuple[str, str, str, bool], list[tuple[str, int, str]]] = defaultdict(list)
        takes: list[tuple[str, ...]] = []
        for path in paths:
            pure = PurePosixPath(path)
            split = _split_name(pure.stem)
            if split is None:
                takes.append((path,))
            else:
                key = (str(pure.parent), split.stem, pure.suffix, bool(split.date))
                parts[key].append((split.date, split.number, path))
        for (folder, stem, suffix, _), members in parts.items():
            if len(members) > 1 and all(stem_of(path) in listed for _, _, path in members):
                takes += [(path,) for _, _, path in members]
                continue
            first = 1 if str(PurePosixPath(folder) / f"{stem}{suffix}") in paths else 0
            for take in _takes(sorted(members)):
                numbers = [number for _, number, _ in take]
                if numbers != list(range(first, first + len(numbers))) and len(numbers) > 1:
                    self.warnings.append(
                        f"{folder}/{stem}: split files {numbers} do not count up from {first}; some may be absent"
                    )
                takes.append(tuple(path for _, _, path in take))
        return takes

    def _at_pauses(self, take: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
        """A take in the parts that its files' times show."""
        parts = [take[:1]]
        for before, after in pairwise(take):
            pause = None if self.keep_pauses else self._pause(before, after)
            if pause is None or -TAKE_PAUSE_NS <= pause <= TAKE_PAUSE_NS:
                parts[-1] += (after,)
            else:
                self._apart.append(_Apart(before, after, pause))
                parts.append((after,))
        return parts

    def _by_times(self, takes: Sequence[tuple[str, ...]], listed: Collection[str]) -> list[tuple[str, ...]]:
        """Takes of one folder whose names differ by a number (or have none) joined where one goes on after another."""
        families: dict[tuple[str, str, str], list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
        for take in takes:
            pure = PurePosixPath(take[0])
            stem, number = _numbered(pure.stem)
            families[str(pure.parent), stem, pure.suffix].append((number, take))
        joined = []
        for members in families.values():
            members.sort()
            joined.append(members[0][1])
            for (_, before), (_, after) in pairwise(members):
                files = before[-1], after[0]
                pause = self._pause(*files)
                known = files in ((each.before, each.after) for each in self._apart)
                if known or all(stem_of(path) in listed for path in files):
                    joined.append(after)
                elif pause is not None and -GOES_ON_NS <= pause <= GOES_ON_NS:
                    joined[-1] += after
                else:
                    self._apart.append(_Apart(*files, pause))
                    joined.append(after)
        return joined

    def _pause(self, before: str, after: str) -> int | None:
        """Nanoseconds between two files' messages; None where one of them does not tell its times."""
        spans = [self._span(path) for path in (before, after)]
        if spans[0] is None or spans[1] is None:
            return None
        return spans[1].first - spans[0].last

    def _span(self, path: str) -> LogSpan | None:
        if path not in self._spans:
            self._spans[path] = log_span(self.base / path)
        return self._spans[path]

    def _say(self, takes: Sequence[tuple[str, ...]]) -> None:
        joined = [take for take in takes if len(take) > 1]
        if joined:
            self.warnings.append(
                f"{counted(len(joined), 'recording')} {verb(len(joined), 'is', 'are')} joined from "
                f"{sum(map(len, joined))} split files, "
                "the first from "
                f"{' and '.join(_name(path) for path in joined[0][:2])}{', ..' if len(joined[0]) > 2 else ''}; option "
                "split_files = separate takes each file as a recording"
            )
        apart = [each for each in self._apart if each.pause is not None]
        if apart:
            go, own = ("does", "a recording of its") if len(apart) == 1 else ("do", "recordings of their")
            self.warnings.append(
                f"{counted(len(apart), 'numbered file')} {go} not go on where the one before ends and "
                f"{verb(len(apart), 'is', 'are')} taken as {own} own, the first: {apart[0]}; option gap = keep joins "
                "files named x_0, x_1, .. all the same"
            )
        unknown = [each for each in self._apart if each.pause is None]
        if unknown:
            go, own = ("it goes", "a recording of its") if len(unknown) == 1 else ("they go", "recordings of their")
            self.warnings.append(
                f"{counted(len(unknown), 'numbered file')} {verb(len(unknown), 'is', 'are')} taken as {own} own, as no "
                f"index tells whether {go} on where the one before ends, the first: {unknown[0]}; files of one folder "
                "named x_0, x_1, .. are joined"
            )
        for before, after in self._unnumbered(takes):
            self.warnings.append(
                f"{after} goes on where {before} ends: they may be one take in two files, and are taken as two "
                "recordings; files of one folder that are named x_0, x_1, .. are joined"
            )

    def _unnumbered(self, takes: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
        """Pairs of files (at most two) that go on where another one ends although no number says so: of one folder,
        or of folders whose names differ by a number."""
        groups: dict[tuple[str, str, str], list[tuple[str, ...]]] = defaultdict(list)
        for take in takes:
            pure = PurePosixPath(take[0])
            above, stem = str(pure.parent.parent), _numbered(pure.parent.name)[0]
            groups[above, stem, pure.suffix].append(take)
        found = []
        for members in groups.values():
            if len(members) == 1:
                continue
            timed = [(self._span(take[0]), self._span(take[-1]), take) for take in members]
            ordered = sorted((a.first, b.last, take) for a, b, take in timed if a is not None and b is not None)
            for (_, end, before), (begin, _, after) in pairwise(ordered):
                if -GOES_ON_NS <= begin - end <= GOES_ON_NS:
                    found.append((before[-1], after[0]))
        return found[:2]


def _takes(members: Sequence[tuple[str, int, str]]) -> list[list[tuple[str, int, str]]]:
    """Files (date, number, path) in order, parted where the number starts again: another take of the same name."""
    takes: list[list[tuple[str, int, str]]] = []
    for member in members:
        if not takes or (member[0] and member[1] <= takes[-1][-1][1]):
            takes.append([])
        takes[-1].append(member)
    return takes


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _split_name(name: str) -> _Split | None:
    """The parts of a file name without ending; None where it is not the name of a split file."""
    for form in _SPLITS[:2]:
        match = form.fullmatch(name)
        if match:
            return _Split(match["stem"].rstrip("_"), int(match["number"]), match["date"])
    match = None if _DATED.fullmatch(name) else _SPLITS[2].fullmatch(name)  # a date is not a split number
    return _Split(match["stem"], int(match["number"]), "") if match else None


def _numbered(name: str) -> tuple[str, int]:
    """(name without its number, the number) of a file or folder; -1 for one without, which may be the first."""
    if not _DATED.search(name):
        for form in _NUMBERED:
            match = form.fullmatch(name)
            if match:
                return match["stem"].strip(_BETWEEN), int(match["number"])
    return name, -1


def plain_stem(name: str) -> str:
    """A file's name without its split number."""
    split = _split_name(name)
    if split is None:
        return name
    return "_".join(part for part in (split.stem, split.date) if part)


def stem_of(path: str) -> str:
    """File name without folder and ending, of a POSIX or a Windows path."""
    name = PureWindowsPath(path).name
    return name.rpartition(".")[0] if name.endswith(SUFFIXES) else name


def shown_as(files: Sequence[str]) -> str:
    """What a recording of these files is called."""
    name = PurePosixPath(files[0]).stem
    if len(files) == 1:
        return name
    plain = plain_stem(name)
    return plain if plain != name else _numbered(name)[0] or name
