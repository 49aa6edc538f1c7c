"""Names of columns of a left and a right arm."""

from __future__ import annotations

import re

_SIDE = re.compile(r"left|right", re.IGNORECASE)


ON_AN_ARM = re.compile(r"wrist|hand|gripper|eef|end_?effector")
"""What lower-case names of cameras on an arm hold."""


def has_side(name: str) -> bool:
    """Whether a name says left or right, and not both."""
    return len({found.lower() for found in _SIDE.findall(name)}) == 1


def opposite(name: str) -> str:
    """The name with left for right and right for left, in the case it has: "kLeftElbow" is "kRightElbow"."""
    return _SIDE.sub(_other, name)


def is_left(name: str) -> bool:
    """Whether a name says left, and not right."""
    return {found.lower() for found in _SIDE.findall(name)} == {"left"}


def _other(side: re.Match[str]) -> str:
    other = "right" if side[0].lower() == "left" else "left"
    return other.upper() if side[0].isupper() else other.title() if side[0][0].isupper() else other
