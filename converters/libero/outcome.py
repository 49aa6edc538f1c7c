"""Whether a demonstration did what it was asked to: what recorders write beside its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
_NO = ("false", "0", "no", "n", "f")
_FAILED = ("fail", "failed", "failure", "unsuccessful", "not successful")
MOST_VALUES = 100_000
"""Values of a dataset that are looked at."""
OTHER_DEMOS = 5
"""Demonstrations of a file that are asked whether their rewards tell anything."""


def says_failed(file: h5py.File, name: str) -> bool:
    """Whether an attribute of the demonstration, or a dataset beside its rows, says that it did not succeed."""
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


def unrewarded(file: h5py.File, name: str, demos: Sequence[str], expected: bool) -> str | None:
    """A warning where a demonstration has no reward in any row while others of the file have one.

    expected: whether failed ones are asked for.
    """
    if expected or _rewarded(file, name) is not False:
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
