"""Instructions of LeRobot episodes: the texts of the rows' tasks, the coarse task, quality labels, segments.

Texts in the form `Chinese@English` and segments follow the rules of R1 Lite recordings, whose vendor writes both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.info import inside
from converters.shared.galaxea_text import (
    META_NAMES,
    NO_TEXT,
    Annotation,
    Language,
    Segment,
    changes,
    instructions_of,
    read_meta,
    segments,
    training_text,
    warn_foreign,
)
from fwdata.api import Json
from fwdata.errors import BadEpisode, UsageError

UNQUALIFIED = "unqualified"
_LABELS = frozenset({"qualified", UNQUALIFIED})

type Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """Task table indices of every row, int64 [T]; None where the dataset has no such column."""

    task: Rows | None
    """`task_index`, the text each row is trained on."""
    coarse: Rows | None
    """`coarse_task_index`, the text of the whole episode."""
    quality: Rows | None
    """`quality_index`, whose texts are "qualified" or "unqualified"."""


@dataclass(frozen=True)
class EpisodeLanguage:
    """Language of one episode."""

    instructions: tuple[str, ...]
    """Texts of the episode without duplicates, the canonical one first."""
    coarse: str
    """The task that holds for all rows."""
    source: str
    """Where `coarse` is from, as decisions call it."""
    segments: tuple[Segment, ...]
    """Runs of rows with one text."""
    per_frame: bool
    """Whether every row trains on its own segment's text."""
    unqualified: NDArray[np.bool_]
    """bool [T], True for rows that are labelled unqualified."""
    warnings: tuple[str, ...]
    """Sentences about texts that had to be replaced."""

    def metadata(self) -> dict[str, Json]:
        """For the episode's metadata."""
        return {
            "coarse_task": self.coarse,
            "instruction_source": self.source,
            "unqualified_frames": int(self.unqualified.sum()),
        }


@dataclass(frozen=True)
class LanguageOptions:
    """Options that concern language; see `converters.lerobot.options.LerobotOptions`."""

    fine: bool
    """Whether windows train on the text of their first row (option instruction)."""
    language: Language
    """Which half of a text `Chinese@English` is used (option lang)."""
    strict: bool
    """Whether the coarse task replaces text that has no English half (option strict_lang)."""
    task: str | None
    """Coarse task of all episodes; None takes the dataset's own (option task)."""


def tell(
    labels: Labels, rows: int, registered: Sequence[str], table: Mapping[int, str], folder: Path, rules: LanguageOptions
) -> EpisodeLanguage:
    """Texts of an episode of `rows` rows. registered: texts that the episode's metadata list.

    BadEpisode when a row names a task that the table has not, or when no text is left.
    """
    warnings: list[str] = []
    fine = _texts_of_rows(labels, rows, registered, table, rules, warnings)
    quality = _lookup(labels.quality, table, "quality_index") if labels.quality is not None else [""] * rows
    pairs = list(zip(fine, (label != UNQUALIFIED for label in quality), strict=True))
    kinds = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    annotations = [Annotation(text, good, 0, 0) for text, good in kinds]
    numbers = np.array([kinds[pair] for pair in pairs], np.int64)
    coarse, source = _coarse(labels, table, folder, rules, warnings)
    if not coarse:
        coarse, source = _from_fine(fine, rules), "task_index"
    if not coarse:
        raise BadEpisode("no row has an instruction text; set option task (--task TEXT)")
    parts = segments(annotations, numbers, coarse, rules.language, rules.strict)
    if rules.language == "en":
        warnings += warn_foreign(parts, rules.strict)
    return EpisodeLanguage(
        instructions_of(parts, coarse, rules.fine),
        coarse,
        source,
        parts,
        rules.fine and changes(parts),
        np.array([not good for _, good in pairs], np.bool_),
        tuple(warnings),
    )


def _texts_of_rows(
    labels: Labels,
    rows: int,
    registered: Sequence[str],
    table: Mapping[int, str],
    rules: LanguageOptions,
    warnings: list[str],
) -> list[str]:
    """The text of every row; the episode's own where rows name none, option task's where their tasks are unknown."""
    if labels.task is None:
        return _only(registered, rows)
    if rules.task and not set(labels.task.tolist()) <= table.keys():
        return [NO_TEXT] * rows
    found = _lookup(labels.task, table, "task_index")
    known = {" ".join(text.split()) for text in registered} - _LABELS - {"", NO_TEXT}
    others = [text for text in dict.fromkeys(found) if text not in known | {NO_TEXT}]
    if known and others and not rules.task:
        warnings.append(
            f"task_index of the rows means {others[0]!r}, the metadata of the episode list {min(known)!r}: one of them "
            "was renumbered; the rows' text is used, option task gives another"
        )
    return found


def _lookup(indices: Rows, table: Mapping[int, str], column: str) -> list[str]:
    texts: dict[int, str] = {}
    for index in dict.fromkeys(indices.tolist()):
        if index not in table:
            row = int(np.flatnonzero(indices == index)[0])
            lacks = "which the dataset's task table does not have" if table else "but the dataset's task table is empty"
            raise BadEpisode(
                f"{column} is {index} at frame {row}, {lacks}; fetch meta/tasks again, or give the instruction with "
                "--task"
            )
        text = " ".join(table[index].split())
        texts[index] = NO_TEXT if not text or (text in _LABELS and column == "task_index") else text
    return [texts[index] for index in indices.tolist()]


def _only(registered: Sequence[str], rows: int) -> list[str]:
    """Without a column, the episode's single text; several have no order that could be trusted."""
    texts = {" ".join(t.split()) for t in registered} - _LABELS - {"", NO_TEXT}
    return [texts.pop() if len(texts) == 1 else NO_TEXT] * rows


def _coarse(
    labels: Labels, table: Mapping[int, str], folder: Path, rules: LanguageOptions, warnings: list[str]
) -> tuple[str, str]:
    """(text that holds for the whole episode, where it is from); empty when only the rows' tasks can tell."""
    if rules.task:
        return rules.task, "option task"
    if labels.coarse is not None:
        values, counts = np.unique(labels.coarse, return_counts=True)
        text = _lookup(values[[counts.argmax()]], table, "coarse_task_index")[0]
        if len(values) > 1:
            warnings.append(f"coarse_task_index changes within the episode; {text!r} holds for most frames")
        found = training_text(text, "", rules.language, False)
        if found:
            return found, "coarse_task_index"
    for name in META_NAMES:
        if (folder / name).is_file():
            try:
                entries = read_meta(inside(folder, name))
            except UsageError as error:
                warnings.append(f"{error}; not used")
                continue
            if entries and entries[0].task:
                return entries[0].task, name
    return "", ""


def _from_fine(fine: Sequence[str], rules: LanguageOptions) -> str:
    """One text for the whole episode from those of its rows: the only one, or all of them in order."""
    texts = dict.fromkeys(training_text(text, "", rules.language, False) for text in dict.fromkeys(fine))
    return "; then ".join(text for text in texts if text)
