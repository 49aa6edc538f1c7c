"""What recorders write beside a demonstration's rows: whether it did what it was asked to, and a text of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.libero.hdf5 import attribute
from converters.libero.neighbours import kept_of_file
from converters.shared.hdf5 import dataset, find, group_keys
from fwdata.errors import BadEpisode

if TYPE_CHECKING:
    import h5py

_SUCCESS = re.compile(r"(?:(?:is|task|episode|demo)_)*(?:success(?:ful|fully)?|succeeded|solved|completed)")
_FAILURE = re.compile(r"(?:(?:is|task|episode|demo)_)*(?:fail(?:ed|ure)?|unsuccessful)")
_VERDICT = re.compile(r"(?:(?:task|episode|demo)_)*(?:outcome|result|status|label)")
_TEXT = re.compile(r"(?:natural_)?(?:lang|language)(?:_instruction)?|instructions?|task_description|prompt")
_NO = ("false", "0", "no", "n", "f")
_FAILED = ("fail", "failed", "failure", "unsuccessful", "not successful")
MOST_VALUES = 100_000
"""Values of a dataset that are looked at."""
OTHER_DEMOS = 5
"""Demonstrations of a file that are asked whether their rewards tell anything."""


def names_failure(path: str) -> bool:
    """Whether a folder on the way to a file is called after failed demonstrations (`failed`, `failures`)."""
    return any(_FAILURE.fullmatch(name.lower().rstrip("s")) for name in path.split("/")[:-1])


def says_failed(file: h5py.File, name: str) -> bool:
    """Whether a demonstration's name, an attribute of it or a dataset beside its rows says that it did not succeed."""
    if any(_FAILURE.fullmatch(word) for word in re.split(r"[^a-z]+", name.lower())):
        return True
    try:
        node = find(file, f"data/{name}")
        if node is None:
            return False
        held = [key for key in group_keys(file, f"data/{name}") if _tells(key)]
        found = [(key, attribute(node, key)) for key in node.attrs if _tells(key)]
        found += [(key, _value(dataset(file, f"data/{name}/{key}"))) for key in held]
    except (BadEpisode, OSError, RuntimeError, ValueError):  # reading it says what is wrong with it
        return False
    return any(_failed(key.lower(), value) for key, value in found)


def _tells(key: str) -> bool:
    return any(pattern.fullmatch(key.lower()) for pattern in (_SUCCESS, _FAILURE, _VERDICT))


def _value(node: h5py.Dataset | None) -> Any:
    """A dataset's value; of one value per row, whether any is true."""
    if node is None or not 0 < node.size <= MOST_VALUES:
        return None
    values = np.asarray(node[()]).reshape(-1)
    if len(values) == 1:
        return values[0]
    return bool(values.any()) if values.dtype.kind in "biuf" else None


def _failed(key: str, value: Any) -> bool:
    """Whether what a key holds means that the demonstration failed; nothing that cannot be read does."""
    if isinstance(value, bytes | str):
        text = (value.decode(errors="replace") if isinstance(value, bytes) else value).strip().lower()
        if _FAILURE.fullmatch(key):
            return text in ("true", "1", "yes", "y", "t")
        return text in _FAILED or (_SUCCESS.fullmatch(key) is not None and text in _NO)
    if not isinstance(value, bool | np.bool_ | int | np.integer | float | np.floating):
        return False
    return bool(value) if _FAILURE.fullmatch(key) else _SUCCESS.fullmatch(key) is not None and not value


def remarks(file: h5py.File, name: str, demos: Sequence[str], text: str, failed_asked: bool) -> list[str]:
    """Warnings about what lies beside the rows of a demonstration, whose instruction is `text`.

    failed_asked: whether failed demonstrations are asked for.
    """
    found = _other_text(file, name, text), None if failed_asked else _unrewarded(file, name, demos)
    return [warning for warning in found if warning]


def _other_text(file: h5py.File, name: str, text: str) -> str | None:
    """A warning where a demonstration has an instruction of its own, which is another one."""
    node = find(file, f"data/{name}")
    if node is None:
        return None
    said = {key: attribute(node, key) for key in node.attrs if _TEXT.fullmatch(key.lower())}
    for key in group_keys(file, f"data/{name}"):
        if _TEXT.fullmatch(key.lower()):
            with suppress(BadEpisode):
                said[key] = _value(dataset(file, f"data/{name}/{key}"))
    for key, value in said.items():
        own = value.decode(errors="replace") if isinstance(value, bytes) else value
        if isinstance(own, str) and _plain(own) not in ("", _plain(text)):
            return f"its {key} says {own[:80]!r}, which is not used: all demonstrations of a file have one instruction"
    return None


def _plain(text: str) -> str:
    """Its words, however they are written."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _unrewarded(file: h5py.File, name: str, demos: Sequence[str]) -> str | None:
    """A warning where a demonstration has no reward in any row while others of the file have one."""
    if _rewarded(file, name) is not False:
        return None
    others = [other for other in demos if other != name][:OTHER_DEMOS]
    if not any(kept_of_file(file, _rewarded, other) for other in others):
        return None  # they are not recorded
    return (
        "its rewards are 0 in every row, while others of the file end with one: it may have failed, or was cut short; "
        "--exclude leaves it out"
    )


def _rewarded(file: h5py.File, name: str) -> bool | None:
    """Whether any row has a reward, or ends the task; None where nothing tells."""
    told = None
    for key in ("rewards", "dones"):
        try:
            node = dataset(file, f"data/{name}/{key}")
            if node is None or node.ndim != 1 or node.dtype.kind not in "biuf" or not 0 < node.size <= MOST_VALUES:
                continue
            if node[()].any():
                return True
            told = False
        except (BadEpisode, OSError, RuntimeError, ValueError):
            continue
    return told
