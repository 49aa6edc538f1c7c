"""Language of R1 Lite recordings: annotations, quality labels, the coarse task, and the text that is trained on."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converters.shared.content import not_content
from fwdata.api import EpisodeSegment, Json
from fwdata.errors import UsageError
from fwdata.wording import counted, verb

META_NAMES = ("raw_data_meta.json", "training_data_set_meta.json")
NO_TEXT = "null"
MAX_JSON = 256 << 20

_NO_TEXTS = frozenset({"", "null", "none"})
_LATIN = re.compile("[A-Za-z]")
_EAST_ASIAN = {
    "Japanese": re.compile("[\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d]"),
    "Korean": re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]"),
    "Chinese": re.compile(
        "[\u2e80-\u2fff\u3005-\u3007\u3100-\u312f\u31a0-\u31ef\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    ),
}
"""Letters that show a language, the first that fits: Japanese texts have Chinese characters too. Punctuation shows
none, as annotators type it in English texts as well."""

type Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Annotation:
    """A span of a recording and what happens in it."""

    text: str
    """What happens, as annotated."""
    qualified: bool
    """Whether its quality label is not that of a bad span."""
    start_ns: int
    """First header stamp of the head camera, nanoseconds."""
    end_ns: int
    """Last header stamp of the head camera, nanoseconds."""


@dataclass(frozen=True)
class GalaxeaEntry:
    """One recording of a dataset's json file."""

    name: str
    """The recording's name."""
    path: str
    """Its path as the json file gives it."""
    robot: str
    """The robot it names."""
    annotations: tuple[Annotation, ...]
    """Spans with their texts, in time order."""
    task: str
    """Coarse task of the dataset."""
    problems: tuple[str, ...]
    """What of the entry was left out, and why."""

    def digest(self) -> str:
        """sha256 of all this, hex: the same while the json file says the same of the recording."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Segment:
    """Consecutive rows of one annotation."""

    text: str
    """The annotation as recorded."""
    english: str | None
    """Its English half; None where there is none."""
    instruction: str
    """Its training text."""
    first: int
    """First row."""
    last: int
    """Last row, included."""
    qualified: bool
    """Whether its quality label is not that of a bad span."""

    def of_episode(self) -> EpisodeSegment:
        """As the episode holds it."""
        quality = "qualified" if self.qualified else "unqualified"
        details: dict[str, Json] = {"text": self.text, "text_en": self.english, "quality": quality}
        return EpisodeSegment(self.first, self.last, self.instruction, details)


def coarse_task(dataset: str) -> str:
    """`Sort_Colored_Blocks_20250805_001` -> `sort colored blocks`; empty when nothing but digits is left."""
    return " ".join(part for part in dataset.split("_") if part and not part.isdigit()).strip().lower()


def read_meta(path: Path) -> tuple[GalaxeaEntry, ...]:
    """The recordings that a dataset's json file lists. Read again only when the file has changed.

    Raises UsageError when it is no JSON of the expected form: annotations must not vanish silently.
    """
    status = path.stat()
    return _read_meta(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_meta(path: Path, mtime_ns: int, size: int) -> tuple[GalaxeaEntry, ...]:
    if size > MAX_JSON:
        raise UsageError(f"{path} holds {size >> 20} MiB, at most {MAX_JSON >> 20} are read")
    other = not_content(path, path.name)
    if other is not None:
        raise UsageError(f"{path.parent}: {other}; or move it away to use folder names")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is not valid JSON ({error}); repair it, or move it away to use folder names"
        ) from None
    entries = data.get("rawDataList") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise UsageError(f"{path} has no list rawDataList; repair it, or move it away to use folder names")
    task = coarse_task(str(data.get("rawDataSetName") or ""))
    return tuple(_entry(entry, task) for entry in entries if isinstance(entry, dict))


def _entry(entry: dict[str, object], task: str) -> GalaxeaEntry:
    found, problems = entry.get("annotations") or [], []
    annotations = []
    for number, item in enumerate(found if isinstance(found, list) else []):
        annotation = _annotation(item)
        if annotation is None:
            problems.append(f"annotation {number} has no usable times and is left out")
        else:
            annotations.append(annotation)
    name, path, robot = (str(entry.get(key) or "") for key in ("name", "path", "robotType"))
    return GalaxeaEntry(name, path, robot, tuple(annotations), task, tuple(problems))


def _annotation(item: Any) -> Annotation | None:
    if not isinstance(item, dict):
        return None
    times = [item.get(f"{end}{unit}") for end in ("start", "end") for unit in ("Second", "NanoSecond")]
    if not all(isinstance(t, int) and not isinstance(t, bool) and 0 <= t < 2**33 for t in times):
        return None
    start, start_ns, end, end_ns = (int(t) for t in times if t is not None)
    text, label = item.get("text"), item.get("actionQualityLabel")
    return Annotation(
        text.strip() if isinstance(text, str) and text.strip() else NO_TEXT,
        str(label).strip().lower()
        != "unqualified",  # anything else counts as qualified: some labels are texts in the wrong place
        start * 10**9 + start_ns,
        end * 10**9 + end_ns,
    )


def is_r1_lite(robot: str) -> bool:
    """Whether a `robotType` names this robot in any of its spellings; an empty one says nothing."""
    return robot.replace("_", "").replace(" ", "").replace("-", "").lower() in {"", "r1lite", "galaxear1lite"}


def frame_annotations(annotations: Sequence[Annotation], stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every stamp the number of the first annotation with start < stamp < end, -1 where there is none.

    The first annotation reaches back to the beginning, as in the vendor's converter: recording starts before it.
    """
    found = np.full(len(stamps), -1, np.int64)
    for number in reversed(range(len(annotations))):
        start = annotations[number].start_ns if number else 0
        found[(stamps > start) & (stamps < annotations[number].end_ns)] = number
    return found


def foreign_only(text: str) -> str:
    """The language, or script, of a text without an English half; "" where it has one, or is of Latin letters."""
    return "" if _english_half(text) is not None else _foreign(text)


def _foreign(text: str) -> str:
    """What a text shows not to be English: Chinese, Japanese or Korean characters, or letters of which none is Latin;
    "" for others."""
    found = next((name for name, signs in _EAST_ASIAN.items() if signs.search(text)), "")
    letters = [sign for sign in text if sign.isalpha()]
    if found or not letters or any("LATIN" in unicodedata.name(sign, "") for sign in letters):
        return found
    return unicodedata.name(letters[0], "other").split()[0].title()


def warn_foreign(parts: Sequence[Segment], strict: bool) -> list[str]:
    """A sentence for each language in which alone rows have their text."""
    counts: dict[str, int] = {}
    for part in parts:
        if language := foreign_only(part.text):
            counts[language] = counts.get(language, 0) + part.last - part.first + 1
    used = "the coarse task is used" if strict else "option strict_lang uses the coarse task"
    return [
        f"{counted(count, 'frame')} {verb(count, 'has', 'have')} {language} text only; {used}"
        for language, count in counts.items()
    ]


def _halves(text: str) -> tuple[str, str]:
    """(Chinese half, English half) of `Chinese@English`, in either order; (text, "") where "@" belongs to a text of
    Latin letters."""
    first, at, second = text.partition("@")
    if at and (_foreign(first) or first.strip().lower() in _NO_TEXTS or not _LATIN.search(first)):
        return first.strip(), second.strip()
    if at and _foreign(second):
        return second.strip(), first.strip()
    return text.strip(), ""


def _english_half(text: str) -> str | None:
    half = _halves(text)[1]
    return half if half.lower() not in _NO_TEXTS else None


def english(text: str) -> str | None:
    """The English half, or the whole text where it is of no other language; None without either."""
    if text.lower() in _NO_TEXTS:
        return None
    return _english_half(text) or (None if _foreign(text) else text.strip("@ "))


def training_text(text: str, coarse: str, language: Language, strict: bool) -> str:
    """The instruction of an annotated text.

    en: English half, else the whole text, else the coarse task (strict: also for text of another language alone). zh:
    the part before `@`, else as for en.
    """
    if text.lower() in _NO_TEXTS:
        return coarse
    first = _halves(text)[0]
    if language == "zh":
        return first or _english_half(text) or coarse
    if strict and foreign_only(text):
        return coarse
    return _english_half(text) or first or coarse


def segments(
    annotations: Sequence[Annotation], numbers: NDArray[np.int64], coarse: str, language: Language, strict: bool
) -> tuple[Segment, ...]:
    """Runs of rows of the same annotation; rows without one have the text `null` and count as qualified."""
    if not len(numbers):
        return ()
    starts = np.flatnonzero(np.append(True, np.diff(numbers) != 0))
    ends = np.append(starts[1:], len(numbers)) - 1
    found = []
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        number = int(numbers[first])
        text, qualified = (annotations[number].text, annotations[number].qualified) if number >= 0 else (NO_TEXT, True)
        instruction = training_text(text, coarse, language, strict)
        found.append(Segment(text, english(text), instruction, first, last, qualified))
    return tuple(found)


def changes(parts: Sequence[Segment]) -> bool:
    """Whether the training text changes on the way, so that every row has its segment's."""
    return len({segment.instruction for segment in parts}) > 1


def instructions_of(parts: Sequence[Segment], coarse: str, fine: bool) -> tuple[str, ...]:
    """Texts that hold for the whole episode, canonical first.

    With `fine` that is the episode's only annotated text, if there is just one; where the text changes on the way only
    the coarse task holds for all rows, and each segment carries its own instruction.
    """
    texts = {segment.instruction for segment in parts if segment.text.lower() not in _NO_TEXTS}
    if fine and len(texts) == 1:
        return tuple(dict.fromkeys((*texts, coarse)))
    return (coarse,)


@dataclass(frozen=True)
class Sidecar:
    """The json file beside a recording."""

    task: str
    """task_info.task_name."""
    fail: str
    """label.fail, non-empty for a failed episode."""


def read_sidecar(path: Path) -> tuple[Sidecar, str | None]:
    """The sidecar, and a warning when it cannot be used."""
    other = not_content(path, path.name)
    if other is not None:
        return Sidecar("", ""), f"{other}; whether it marks the recording as failed is not known"
    try:
        if path.stat().st_size > 1 << 20:
            raise ValueError("more than 1 MiB")
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(data, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        return Sidecar("", ""), f"{path.name} is not used: {error}"
    info, label = data.get("task_info"), data.get("label")
    task = info.get("task_name") if isinstance(info, dict) else None
    told = label if isinstance(label, dict) else {"fail": label} if label in _FAILED else {}
    fail = next((found for held in (told, data) if (found := _fail_text(held))), "")
    return Sidecar(task.strip() if isinstance(task, str) else "", fail), None


_NO = (None, False, 0, "", "0", "false", "no", "none", "null")
_FAILED = ("fail", "failed", "failure")


def _fail_text(label: Mapping[str, object]) -> str:
    """What `fail` or `success` says of a failed recording; "" for one that is not."""
    fail, success = label.get("fail"), label.get("success", True)
    if not (_is_no(fail) or fail in ([], {})):
        return fail if isinstance(fail, str) else json.dumps(fail, ensure_ascii=False)
    return "success is false" if success is not None and success != "" and _is_no(success) else ""


def _is_no(value: object) -> bool:
    return (value.strip().lower() if isinstance(value, str) else value) in _NO
