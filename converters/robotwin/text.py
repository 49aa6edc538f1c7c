"""RoboTwin 2.0 side files: instructions, seeds and scene descriptions.

They are optional: whatever is missing or broken becomes a warning and a fallback, never a lost episode.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from converters.shared.content import not_content
from fwdata.api import Json

MAX_FILE_BYTES = 64 << 20

TEXT_KEYS = (
    *("instruction", "instructions", "language_instruction", "prompt", "language", "task_description", "text"),
    "task",  # often its name only, where another key holds the text
)
"""Keys of a file of instructions that third parties write, those that hold a text first."""

_PLACEHOLDER = re.compile(r"\{\w{1,20}\}")
"""Place of an object or arm in RoboTwin's instruction templates, e.g. `{A}`, `{a}`."""


@dataclass(frozen=True)
class Instructions:
    """Instruction texts of one episode."""

    seen: tuple[str, ...]
    """Training texts without duplicates, canonical first, at least one."""
    unseen: tuple[str, ...]
    """Texts that are never used in training."""
    source: str
    """Where `seen` is from: "recording", the name of the file beside it, or "task name"."""
    fallback: bool
    """Whether the task's name stands in, since there was no text."""
    warnings: tuple[str, ...]
    """Sentences about texts that were missing, broken or contradictory."""


def choose_instructions(task: str, stored: Sequence[str] | None, sidecar: Path | None) -> Instructions:
    """Instructions of one episode: the list inside a v1.0 file, else the file beside it, else the task's name.

    stored: texts inside the HDF5 file (None: it has none). The unseen list only exists in the file beside it.
    """
    warnings: list[str] = []
    seen, unseen = _read_sidecar(sidecar, warnings) if sidecar else ([], [])
    inside = clean_texts(_from_hdf5(stored or (), warnings), warnings)
    beside = clean_texts(seen, warnings)
    if inside and beside and set(inside) != set(beside):
        warnings.append(f"the instructions in the recording differ from {_name(sidecar)}; the recording's are used")
    held_out = clean_texts(unseen, warnings)
    if inside:
        return Instructions(inside, held_out, "recording", False, tuple(warnings))
    if beside:
        return Instructions(beside, held_out, _name(sidecar), False, tuple(warnings))
    text = task.replace("_", " ").strip() or "unknown task"
    warnings.append(f"no instruction text; the task's name {text!r} is used")
    return Instructions((text,), held_out, "task name", True, tuple(warnings))


def canonical_first(texts: Sequence[str], episode_id: str, rule: str) -> tuple[str, ...]:
    """Move the canonical text to the front: the first one, or for rule "seeded" one picked by sha256 of the id."""
    picked = int(hashlib.sha256(episode_id.encode()).hexdigest(), 16) % len(texts) if rule == "seeded" else 0
    return (texts[picked], *texts[:picked], *texts[picked + 1 :])


def clean_texts(values: Iterable[object], warnings: list[str]) -> tuple[str, ...]:
    """Strip, drop empty ones and duplicates, keep the English part of "Chinese@English"; file order is kept.

    The official loader splits at `@` and accepts exactly one; text that has no single English part is dropped, and so
    is a template whose placeholders were never filled in.
    """
    kept: dict[str, None] = {}
    for value in values:
        if not isinstance(value, str):
            warnings.append(f"an instruction is {type(value).__name__}, not text; dropped")
            continue
        text = " ".join(value.split())
        if "@" in text:
            english = [part.strip() for part in text.split("@") if part.strip() and part.isascii()]
            if len(english) != 1:
                warnings.append(f"instruction {text[:60]!r} has no single English part around its '@'; dropped")
                continue
            text = english[0]
        if hole := _PLACEHOLDER.search(text):
            warnings.append(f"instruction {text[:60]!r} is a template, {hole[0]} is not filled in; dropped")
            continue
        if text:
            kept[text] = None
    return tuple(kept)


def _name(path: Path | None) -> str:
    return f"{path.parent.name}/{path.name}" if path else ""


def _from_hdf5(stored: Sequence[str], warnings: list[str]) -> list[object]:
    """Native files hold one JSON text of a list, converted ones an array of texts; an object, too, as beside them."""
    values: list[object] = []
    for text in stored:
        if text.lstrip().startswith(("[", "{")) and not _PLACEHOLDER.match(text.lstrip()):
            try:
                parsed = json.loads(text)
                json.dumps(parsed, ensure_ascii=False).encode()
            except (ValueError, RecursionError):
                warnings.append(f"instructions in the recording are not valid JSON: {text[:40]!r}; dropped")
                continue
            texts = _texts_of(parsed)
            seen = parsed if texts is None else texts.get("seen", [])
            values.extend(seen if isinstance(seen, list) else [seen])
        else:
            values.append(text)
    return values


def _read_sidecar(path: Path, warnings: list[str]) -> tuple[list[object], list[object]]:
    beside, problem = _read_json(path)
    data = _texts_of(beside)
    if problem is None and data is None:
        found = ", ".join(map(repr, list(beside)[:5])) if isinstance(beside, dict) else type(beside).__name__
        problem = f"expected lists seen and unseen, a text or list instruction, or a list of texts, found {found}"
    if problem is not None or data is None:
        warnings.append(f"{_name(path)} is not used: {problem}")
        return [], []
    lists: list[list[object]] = []
    for key in ("seen", "unseen"):
        value = data.get(key, [])
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            warnings.append(f"{_name(path)}: {key!r} must be a list, found {type(value).__name__}")
            value = []
        lists.append(value)
    return lists[0], lists[1]


def _texts_of(data: Any) -> dict[str, object] | None:
    """What a file of instructions says as `seen` and `unseen`, from any of the forms that third parties write."""
    if isinstance(data, str | list):
        return {"seen": data}
    if not isinstance(data, dict):
        return None
    if "seen" in data or "unseen" in data or not data:
        return data
    for key in TEXT_KEYS:
        value = data.get(key)
        if isinstance(value, dict):
            return _texts_of(value)
        if isinstance(value, str | list):
            return {"seen": value}
    return None


def _read_json(path: Path) -> tuple[Any, str | None]:
    """(data, None), or (None, reason)."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return None, f"larger than {MAX_FILE_BYTES >> 20} MiB"
        data = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=lambda _: None)  # NaN is no JSON
        json.dumps(data, ensure_ascii=False).encode()  # refuses lone surrogates, which no store could write
        return data, None
    except OSError as error:
        return None, str(error.strerror or error)
    except (ValueError, RecursionError) as error:
        return None, not_content(path, _name(path)) or f"no valid JSON ({str(error)[:80]})"


_SEED = re.compile(rb"-?[0-9]{1,18}")


def read_seed(path: Path | None, index: int) -> tuple[int | None, str | None]:
    """(seed, warning) of an episode: token i of seed.txt belongs to episode i, gaps in the numbering included."""
    if path is None:
        return None, None
    try:
        tokens = path.read_bytes()[:MAX_FILE_BYTES].split()
    except OSError as error:
        return None, f"seed.txt cannot be read: {error.strerror}"
    if not all(map(_SEED.fullmatch, tokens[: index + 1])) or not tokens:
        other = not_content(path, path.name)
        if other is not None:
            return None, f"seed.txt is not used: {other}"
    if index >= len(tokens):
        return None, f"seed.txt holds {len(tokens)} seeds, none for episode {index}"
    if not _SEED.fullmatch(tokens[index]):
        return None, f"seed.txt: token {index} is not a number: {tokens[index][:20]!r}"
    return int(tokens[index]), None


def read_scene(path: Path | None, index: int) -> tuple[dict[str, Json] | None, str | None]:
    """(entry of scene_info.json, warning) of an episode, by its key and not by its position."""
    if path is None:
        return None, None
    try:
        status = path.stat()
    except OSError as error:
        return None, f"scene_info.json cannot be read: {error.strerror}"
    data, problem = _scenes(path, status.st_mtime_ns, status.st_size)
    if problem is None and not isinstance(data, dict):
        problem = f"expected an object, found {type(data).__name__}"
    if problem is not None:
        return None, f"scene_info.json is not used: {problem}"
    entry = data.get(f"episode_{index}")
    if not isinstance(entry, dict):
        return (
            None,
            f"scene_info.json has no entry episode_{index}: instruction files may be shifted against recordings",
        )
    return entry, None


@lru_cache(maxsize=4)
def _scenes(path: Path, _mtime_ns: int, _size: int) -> tuple[Any, str | None]:
    """The parsed file; kept because every episode of a folder asks for it (500 entries in randomized folders)."""
    return _read_json(path)


def arm_conflict(seen: Sequence[str], scene: Mapping[str, Json] | None) -> str | None:
    """A warning where the texts speak of one arm and the scene's `info` of the other.

    The text generator numbers episodes by position in scene_info.json: after a missing entry all later instruction
    files belong to the next recording.
    """
    info = scene.get("info") if scene else None
    if not isinstance(info, dict):
        return None
    arms = {value for value in info.values() if isinstance(value, str) and value in ("left", "right")}
    named = {match for text in seen for match in re.findall(r"\b(left|right)[ -](?:arm|hand|gripper)\b", text.lower())}
    if len(arms) == 1 and len(named) == 1 and arms != named:
        return (
            f"the instructions speak of the {named.pop()} arm, scene_info.json of the {arms.pop()} one: "
            "instruction files may be shifted against recordings"
        )
    return None
