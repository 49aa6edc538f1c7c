"""What a LIBERO task file's name says: its scene, the published task it is made from, and how that was perturbed.

Benchmarks built on LIBERO append the perturbation to the task's name: `_table_14`, `_tb_3`, `_light_1`, `_add_20`,
`_noise_38`, `_level1_sample2`, `_view_0_0_100_2_352_initstate_0`, `_language_5` (names of LIBERO-plus). None of them is
part of the instruction, and no published instruction holds a digit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converters.libero.published import TEXTS, is_published

_SCENE = re.compile(r"(?P<scene>(?:KITCHEN|LIVING_ROOM|STUDY)_SCENE[0-9]{1,3})_(?P<rest>.+)", re.IGNORECASE)
_OTHER_SCENE = re.compile(r"(?P<scene>[A-Z][A-Z_]*_SCENE[0-9]{1,3})_(?P<rest>.+)")
_WORDS = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
_LANGUAGE = re.compile(r"(?P<rest>.*)_language_?[0-9]+")
_PLUS = r"table|tb|light|add|noise|initstate|sample|level"
_COPY = (
    r"(?:robot_)?init|init_state|background|bg|texture|camera|cam|seed|episode|ep|traj|trajectory|trial|run|variation"
    r"|variant|var|version|v|pose|distractors?|config|copy"
)
_VIEW = r"view(?:_-?[0-9]+(?:\.[0-9]+)?)+"
_PERTURBATION = re.compile(rf"(?P<rest>.*?)_(?:(?:{_PLUS})_?[0-9]+|{_VIEW})")
"""Names of LIBERO-plus, which no text ends in."""
_MARK = re.compile(rf"(?P<rest>.*?)_(?:(?:{_PLUS}|{_COPY})_?[0-9]+|{_VIEW})")
"""The same, and those that others give to copies of one task's file."""
_NUMBERS = re.compile(r"(?P<rest>.*[a-z])(?:_[0-9]+)+")
_RENAMED_SUITE = re.compile(
    r"libero[_-](?:spatial|object|goal|10|90)[_-]"
    r"(?:lan|lang|language|(?:para|re)phras\w*|rewritten|reworded|semantic|task|swap|object|env|temp|with_.+|.+_ood)(?:[_-].*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class TaskName:
    """The parts of one task file's name."""

    scene: str | None
    """Scene prefix, e.g. `KITCHEN_SCENE10`; None where the name has none."""
    words: str | None
    """The instruction that the name spells, without scene and perturbation; None where it spells none."""
    dropped: str
    """What was left out at its end, e.g. `_table_14` or `_3`; "" for nothing."""
    rewritten: bool
    """Whether the perturbation replaced the instruction (`_language_N`): `words` are then not what was said."""
    published: bool
    """Whether it is one of LIBERO's 130 tasks, perturbed or not."""
    led: str = ""
    """What was left out before a published task, e.g. `3_`; "" for nothing."""

    @property
    def spelt(self) -> str | None:
        """The words with what was left out, as a text: what careless code takes for the instruction."""
        return None if self.words is None else f"{self.led}{self.words}{self.dropped}".replace("_", " ")


def split_task(task: str) -> tuple[str | None, str]:
    """(scene prefix or None, the rest): `KITCHEN_SCENE10_close_it` gives `KITCHEN_SCENE10` and `close_it`.

    A published scene is known in small letters, too, and comes back in capitals.
    """
    match = _SCENE.fullmatch(task)
    return (match["scene"].upper(), match["rest"]) if match else (None, task)


def parse_task(task: str) -> TaskName:
    """The parts of a task, which is its file's name without `_demo` and ending."""
    found = _parsed(task)
    tokens = task.split("_")
    for start in range(1, len(tokens)):
        if found.published or found.scene or not _is_count(tokens[:start]):
            continue
        inner = _parsed("_".join(tokens[start:]))
        if inner.published:
            return replace(inner, led="_".join(tokens[:start]) + "_")
    return found


def _is_count(tokens: Sequence[str]) -> bool:
    """Whether what lies before a published text numbers its file, e.g. `3`, `task_07`, `libero_goal_2`."""
    words = [token for token in tokens if not token.isdigit()]
    return tokens[-1][-1:].isdigit() and len(words) <= UNKNOWN_WORDS


def _parsed(task: str) -> TaskName:
    scene, rest = split_task(task)
    if scene is None and (match := _OTHER_SCENE.fullmatch(task)):
        scene, rest = match["scene"], match["rest"]
    base, rewritten = rest, False
    while not _is_published(scene, base):
        language = _LANGUAGE.fullmatch(base)
        shorter = language or _MARK.fullmatch(base)
        if shorter is None or shorter["rest"].rpartition("_")[2] in _UNFINISHED:  # put_the_can_on_table_2
            break
        base, rewritten = shorter["rest"], rewritten or language is not None
    base = _published_start(scene, base) or base
    if not _is_published(scene, base) and (numbers := _NUMBERS.fullmatch(base)):
        base = numbers["rest"]
    words = base.replace("_", " ") if _WORDS.fullmatch(base) else None
    return TaskName(scene, words, rest[len(base) :], rewritten, _is_published(scene, base))


UNKNOWN_WORDS = 3
"""Most words of a perturbation that is not known, besides its numbers."""


def _published_start(scene: str | None, base: str) -> str | None:
    """The longest published task that a name begins with, where a few words with a number follow (`_texture_2`)."""
    tokens = base.split("_")
    for length in range(len(tokens) - 1, 0, -1):
        extra = tokens[length:]
        words = [token for token in extra if not token.isdigit()]
        if _is_published(scene, "_".join(tokens[:length])):
            numbered = any(token[-1:].isdigit() for token in extra)
            return "_".join(tokens[:length]) if numbered and len(words) <= UNKNOWN_WORDS else None
    return None


_GOES_ON = frozenset(
    [
        "after",
        "and",
        "at",
        "before",
        "behind",
        "by",
        "for",
        "from",
        "in",
        "inside",
        "into",
        "next",
        "of",
        "on",
        "onto",
        "then",
        "to",
        "under",
        "using",
        "while",
        "with",
    ]
)
"""Words with which a sentence goes on after another task's text; others are taken for a mark (`_copy`, `_failed`)."""


def mark_after_published(name: TaskName) -> str | None:
    """What follows a published task at the end of a name and does not read like more of its sentence, e.g. `_copy`."""
    if name.words is None or name.published:
        return None
    tokens = name.words.split()
    for length in range(len(tokens) - 1, 0, -1):
        if _is_published(name.scene, "_".join(tokens[:length])):
            return None if tokens[length] in _GOES_ON else f"_{'_'.join(tokens[length:])}"
    return None


def mark_of_odd_name(name: str, text: str) -> str | None:
    """What a text has behind that of a published task, where it only spells the file's name, which has capitals or
    signs that names of tasks have not, e.g. ` texture A`."""
    spelt, stem = (" ".join(re.findall(r"[a-z0-9]+", each.lower())) for each in (text, name.removesuffix(".hdf5")))
    if spelt != stem.removesuffix(" demo"):
        return None
    ends = [place for place in range(len(text), 0, -1) if text[:place].lower() in TEXTS]
    rest = text[ends[0] :] if ends else ""
    first = re.findall(r"[a-z0-9]+", rest.lower())[:1]
    return rest if first and first[0] not in _GOES_ON and not rest[0].isalnum() else None


def glued_number(text: str) -> str | None:
    """The last word of a text where it ends in a number (`mark7`), which may be one of its objects or a mark, or the
    first (`01`, `task4`), which may count objects or files."""
    words = text.split()
    if words and re.fullmatch(r"[a-z]+[0-9]+", words[-1]):
        return words[-1]
    return words[0] if words and re.fullmatch(r"[a-z]*[0-9]+", words[0]) else None


_COPIES = frozenset("copy failed success successful backup old new tmp temp final retry demo test".split())  # noqa: SIM905
"""Words that mark a file by themselves, behind a published text."""

_VARIED = frozenset(
    """table tb light add noise initstate sample level view language variation variant perturbed perturbation texture
    camera robot init""".split()  # noqa: SIM905
)
"""Words that mark a file where a number is with them; else they may belong to a sentence (`the stove light`)."""

_UNFINISHED = frozenset(
    """a an and at behind beside between by for from in into near of off on onto out over the to toward towards under up
    with""".split()  # noqa: SIM905
)
"""Words that no sentence ends in: what follows them belongs to it."""


def unmarked(text: str) -> str | None:
    """A text from inside a file without the scene and the marks of a file's name that it was made from.

    None where the mark says that the text was rewritten (`_language_5`): what is before it was then not said. A text
    of one's own that goes on after a published one stays whole.
    """
    spelt = "_".join(text.split())
    match = _SCENE.fullmatch(spelt) or _OTHER_SCENE.fullmatch(spelt)
    words = (match["rest"] if match else spelt).split("_")
    plain = [word.lower().strip(".,!()[]") for word in words]
    for length in range(len(plain), 0, -1):
        rest = plain[length:]
        if " ".join(plain[:length]) in TEXTS:
            if not _is_mark(rest):
                return _as_was(text, words)
            return None if "language" in rest else " ".join(words[:length])
    for start in range(1, len(plain)):
        if " ".join(plain[start:]) in TEXTS and _is_count(plain[:start]):
            return " ".join(words[start:])
    base, rewritten = "_".join(plain), False
    while shorter := (language := _LANGUAGE.fullmatch(base)) or _PERTURBATION.fullmatch(base):
        before = shorter["rest"]
        if "_" not in before or before.rpartition("_")[2] in _UNFINISHED:
            break
        base, rewritten = before, rewritten or language is not None
    kept = " ".join(words[: len(base.split("_"))])
    return None if rewritten else _as_was(text, kept.split())


def _is_mark(words: Sequence[str]) -> bool:
    """Whether what follows a published text marks the file it was made from."""
    numbered = [any(letter.isdigit() for letter in word) for word in words]
    known = all(has or word in _COPIES | _VARIED for word, has in zip(words, numbered, strict=True))
    return known and bool(words) and (any(numbered) or not _VARIED.intersection(words))


def _as_was(text: str, words: Sequence[str]) -> str:
    """The text itself where nothing of it is left out."""
    return text if len(words) == len(text.split()) else " ".join(words)


def _is_published(scene: str | None, base: str) -> bool:
    return is_published(base if scene is None else f"{scene}_{base}")


def parse_file(name: str) -> TaskName:
    """The parts of a file name `<task>_demo.hdf5`; one that does not end in `_demo` spells no instruction.

    Scene prefix dropped, `_` becomes a space: the text that every evaluation feeds to the policy
    (LIBERO libero/libero/benchmark/__init__.py).
    """
    stem = Path(name).stem
    found = parse_task(stem.removesuffix("_demo"))
    return found if stem.endswith("_demo") else TaskName(found.scene, None, found.dropped, found.rewritten, False)


def renames_tasks(folder: str) -> bool:
    """Whether a suite's folder is called like one whose tasks keep their file names but not always their texts
    (`libero_goal_lan`, `libero_spatial_semantic_ood`, ..; names of LIBERO-PRO)."""
    return _RENAMED_SUITE.fullmatch(folder) is not None
