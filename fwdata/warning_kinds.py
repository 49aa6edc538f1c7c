"""Warnings grouped by kind, the gravest first: a thousand harmless ones must not hide the three that matter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

from fwdata.wording import counted

EXAMPLES = 2

_VARIABLE = re.compile(
    r"(?<![A-Za-z])'[^']*'|\"[^\"]*\"|[^\s/'\"]+\.(?:json|mp4|hdf5|h5|mcap|db3|bag|parquet|txt)\b|\b(?:demo|episode)_?\d+"
    r"|(?<![A-Za-z_])[+-]?\d[\d.,]*(?:e[+-]?\d+)?"
)
"""What differs between warnings of one kind: quoted texts, names of files and episodes, and numbers."""

_NUMBER = re.compile(r"\b(?:is|are|was|were|has|have|does|do)\b|(?<=[a-z])s\b")
"""What a number changes: "1 frame is", "2 frames are"."""

_GRAVE = re.compile(
    r"contradict|revers|differently|nothing tells|no switch|forced|clock|out of step|another robot|absolute|colours?\b"
    r"|gripper|failed|not finite|jump|damaged|truncated|greyscale|shifted|(?<!frames are )(?<!frame is "
    r")(?<!frames is )invalid|source_path says"
    r"|says '.*' ?, which is not used",
    re.IGNORECASE,
)
_TOPIC = re.compile(r"(?<!\S)/[\w/]+")
"""A name of the recording that says nothing of what is wrong with it."""
_HARMLESS = re.compile(
    r"fewer than a window|shorter than a training window|task files? found|other than \d+ demonstrations"
    r"|episodes found|is taken from a folder name|not one of|is none of",
    re.IGNORECASE,
)


class WarningKindJson(TypedDict):
    """A `WarningKind` as `--json` prints it."""

    text: str
    """The first of them, without its source."""
    count: int
    """Recordings (or roots) that have it."""
    examples: list[str]
    """The first two sources; empty where it is about the whole root."""
    gravity: int
    """0: data may be wrong; 1: worth a look; 2: harmless."""


@dataclass(frozen=True)
class WarningKind:
    """Warnings that differ in numbers and quoted texts alone."""

    text: str
    """The first of them, without its source."""
    count: int
    """How many recordings (or roots) have it."""
    examples: tuple[str, ...]
    """The first two sources; none where it is about the whole root."""
    same: bool
    """Whether all have the very text."""
    gravity: int
    """0: data may be wrong; 1: worth a look; 2: harmless."""
    sources: tuple[str, ...] = ()
    """All of them."""

    def sentence(self) -> str:
        """One line: a single warning as it is, several with their count and two sources."""
        if self.count == 1:
            return with_source(self.examples[0], self.text) if self.examples else self.text
        more = ", .." if self.count > len(self.examples) else ""
        like = "" if self.same else ", and the like"
        return f"{counted(self.count, 'recording')}: {self.text}{like} ({', '.join(self.examples)}{more})"

    def to_json(self) -> WarningKindJson:
        """Plain JSON."""
        return {"text": self.text, "count": self.count, "examples": list(self.examples), "gravity": self.gravity}


def with_source(source: str, text: str) -> str:
    """`source: text`, or one of them where the other is empty or the text begins with the source."""
    if not text or text.startswith(f"{source} "):
        return text or source
    return f"{source}: {text}"


def group_warnings(items: Iterable[tuple[str, str]]) -> list[WarningKind]:
    """Kinds of warnings, the gravest first, then the more frequent. items: (source, or "" for the root; text)."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for source, text in items:
        key = _NUMBER.sub("", _VARIABLE.sub("#", text)) if source else text
        kinds.setdefault(key, []).append((source, text))
    found = []
    for members in kinds.values():
        text = members[0][1]
        sources = list(dict.fromkeys(source for source, _ in members if source))
        same = all(other == text for _, other in members)
        count = len(sources) or len(members)
        found.append(WarningKind(text, count, tuple(sources[:EXAMPLES]), same, _gravity(text), tuple(sources)))
    return sorted(found, key=lambda kind: (kind.gravity, -kind.count))


def _gravity(text: str) -> int:
    if _HARMLESS.search(text):
        return 2
    return 0 if _GRAVE.search(_TOPIC.sub("", text)) else 1
