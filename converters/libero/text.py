"""LIBERO instructions: file name, `problem_info` and BDDL, which do not always agree."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Literal

from converters.libero.task_name import (
    TaskName,
    glued_number,
    mark_after_published,
    mark_of_odd_name,
    parse_file,
    renames_tasks,
    unmarked,
)
from fwdata.errors import BadEpisode

type Preference = Literal["file_name", "problem_info", "file_name_always"]
type Source = Literal["file name", "problem_info", "bddl"]

_LANGUAGE = re.compile(r"\(\s*:language\s+([^()]+?)\s*\)")


@dataclass(frozen=True)
class TaskInstruction:
    """The canonical text, which place it is from, and what each place says."""

    text: str
    """The instruction that is stored."""
    source: Source
    """The place it is from."""
    file_name: str | None
    """What the file's name spells, without scene and perturbation; None: nothing."""
    problem_info: str | None
    """`language_instruction` of `problem_info`; None: nothing."""
    bddl: str | None
    """`(:language ..)` of the task's BDDL text; None: nothing."""
    dropped: str = ""
    """End of the file's name that is not part of the instruction, e.g. `_table_14`."""
    odd_mark: str | None = None
    """End of a text that spells a name of capitals or signs, behind a published task's text; None where it has none."""
    led: str = ""
    """Start of the file's name that is not part of the instruction, e.g. `3_`."""
    goes_on: str | None = None
    """What the file's name has after the text of a published task, e.g. `_camera_far`; None where it has none."""

    @property
    def differs(self) -> bool:
        """Whether file name and `problem_info` both speak and disagree."""
        if self.file_name is None or self.problem_info is None:
            return False
        spelt = f"{self.led}{self.file_name}{self.dropped}".replace("_", " ")
        return self.problem_info not in (self.file_name, spelt)

    @property
    def shortened(self) -> str | None:
        """The text in the file that was used, where an end of it, or a number before it, was left out which the file's
        name does not have."""
        inside = {"problem_info": self.problem_info, "bddl": self.bddl}.get(self.source)
        if inside is None or self.dropped or self.led:
            return None
        before = inside.replace("_", " ").removesuffix(self.text)
        whole = before != inside.replace("_", " ") and not any(word.isdigit() for word in before.split())
        return None if whole else inside

    @property
    def mark(self) -> str | None:
        """What may be a mark at an end of a text that only the file's name tells: a word with a number, or what
        follows a published task's text where the text in the file spells its name."""
        if self.odd_mark is not None:
            return self.odd_mark
        alone = self.problem_info in (None, self.file_name) and self.bddl in (None, self.file_name)
        if not alone or self.text != self.file_name:
            return None
        return glued_number(self.text) or (self.goes_on if self.source != "file name" else None)


def parse_json(text: str | None) -> dict[str, object]:
    """A JSON object from an attribute, or one as Python prints it; empty where it is none."""
    try:
        value = json.loads(text) if text else {}
        value = json.loads(value) if isinstance(value, str) else value  # written as JSON twice
    except (ValueError, RecursionError):
        value = _as_printed(text or "")
    return value if isinstance(value, dict) else {}


MAX_PRINTED = 20_000
"""Characters of an object as Python prints it that are read."""


def _as_printed(text: str) -> object:
    """The object of `str(dict)`, which some writers store in the place of JSON; None where it is none."""
    if not text.lstrip().startswith("{") or len(text) > MAX_PRINTED:
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def language_instruction(problem_info: str | None) -> str | None:
    """`language_instruction` of a `problem_info` attribute, or `language`; a list of characters or words is joined."""
    held = parse_json(problem_info)
    inner = held.get("problem_info")
    held = inner if isinstance(inner, dict) else held
    value = held.get("language_instruction") or held.get("language")
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ("" if all(len(part) == 1 for part in value) else " ").join(value)
    half = isinstance(value, str) and re.search("[\ud800-\udfff]", value)  # of a character, which is no text
    return _clean(value) if isinstance(value, str) and not half else None


def bddl_language(content: str | None) -> str | None:
    """The `(:language ..)` sentence of a BDDL text."""
    match = _LANGUAGE.search(content or "")
    return _clean(match[1]) if match else None


def _clean(text: str) -> str | None:
    return " ".join(text.replace('"', " ").split()) or None


def _is_doubtful(name: TaskName) -> bool:
    """Whether a number that was left out first may belong to the text, which holds another one."""
    return name.dropped[1:].partition("_")[0].isdigit() and any(letter.isdigit() for letter in name.words or "")


def _check_certain(name: str, found: TaskName, preference: Preference) -> None:
    """BadEpisode where the end of a file's name may or may not be part of its instruction."""
    if found.published:
        return
    if _is_doubtful(found):
        raise BadEpisode(
            f"{name} tells no instruction for certain: the number at its end may belong to the text, as the one in "
            f"{found.spelt!r} does, or count variations; add problem_info to the file's group data, or rename it"
        )
    mark = mark_after_published(found)
    if mark is not None and preference != "file_name_always":
        raise BadEpisode(
            f"{name} tells no instruction for certain: {mark} follows the text of a published task, and may be part of "
            "the text or a mark on the file; add problem_info to the file's group data, rename the file, or take the "
            "name as it is with option instruction=file_name_always"
        )


def _same(text: str | None, other: str | None) -> bool:
    """Whether two texts have the same words."""
    return text is not None and other is not None and re.findall(r"\w+", text.lower()) == other.split()


def choose(
    name: str, problem_info: str | None, bddl: str | None, preference: Preference, folder: str = ""
) -> TaskInstruction:
    """The canonical instruction of a task file.

    Of a published task the file name's text, since evaluations use it, perturbed or not; of other tasks, and in suites
    whose texts were changed (`folder`), `problem_info`, then BDDL, then the file name. `preference` "problem_info"
    prefers that everywhere, "file_name_always" the name. A perturbation's name never ends in the text, wherever that is
    from (`unmarked`). BadEpisode,
    naming the file, when no place tells.
    """
    found = parse_file(name)
    if found.dropped and problem_info == found.spelt and not _is_doubtful(found):
        problem_info = None if found.rewritten else found.words  # made from the file's name, perturbation and all
    spelt = None if found.rewritten else found.words
    inside: dict[Source, str | None] = {
        "problem_info": problem_info and unmarked(problem_info),
        "bddl": bddl and unmarked(bddl),
    }
    if found.rewritten and found.published and preference != "problem_info":  # the text from before is not the new one
        inside = {place: None if _same(text, found.words) else text for place, text in inside.items()}
    places: dict[Source, str | None] = {**inside, "file name": spelt}
    by_name = (
        found.published and not renames_tasks(folder) if preference == "file_name" else preference != "problem_info"
    )
    if by_name:
        places = {"file name": spelt, **places}
    if preference == "problem_info" and found.published:
        places = {"problem_info": inside["problem_info"], "file name": spelt, "bddl": inside["bddl"]}
    for source, text in places.items():
        if text and source == "file name":
            _check_certain(name, found, preference)
        if text:
            mark = mark_after_published(found)
            odd = mark_of_odd_name(name, text) if spelt is None else None
            return TaskInstruction(text, source, spelt, problem_info, bddl, found.dropped, odd, found.led, mark)
    if found.rewritten and found.words:
        kept = ", or take the one that it has (--instruction problem_info)" if problem_info else ""
        raise BadEpisode(
            f"{name} tells no instruction: {found.dropped} says that the text of {found.words!r} was rewritten, and "
            "the file has neither problem_info nor BDDL text with the new one that can be read; add problem_info to "
            f"its group data{kept}"
        )
    raise BadEpisode(
        f"{name} tells no instruction: its name is not <task>_demo.hdf5 in lower-case words, and it has neither "
        "problem_info nor BDDL text that can be read; rename the file after its task"
    )
