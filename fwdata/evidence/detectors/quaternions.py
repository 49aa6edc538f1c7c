"""Quaternions by their names: four columns called x, y, z and w of one are of length 1, and of one sign (b11)."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import Floats

LIMIT = 0.05
"""How far the length of a quaternion may be from 1: rounded and interpolated ones are off by less."""

OPPOSITE = 0.8
"""Product of two rows' quaternions beyond which they are one rotation, within 1.3 rad, in opposite signs."""

_PART = re.compile(r"(?P<whole>.*?(?:q|quat|quaternion|rot|rotation|orient|orientation)[\W_]*)(?P<letter>[xyzw])", re.I)
_RATE = re.compile(r"vel|speed|rate|delta|diff", re.I)
UNIT = "quaternions of length 1"


@lru_cache(maxsize=64)
def quaternions_of(names: tuple[str, ...]) -> tuple[tuple[str, tuple[int, int, int, int]], ...]:
    """(name, columns of x, y, z, w) of every four columns that are named as a quaternion's (`left_qx`, `rot.w`)."""
    found: dict[str, dict[str, int]] = {}
    for column, name in enumerate(names):
        told = _PART.fullmatch(name)
        if told is not None and not _RATE.search(name):
            found.setdefault(told["whole"].lower(), {}).setdefault(told["letter"].lower(), column)
    whole = {key: places for key, places in found.items() if len(places) == len("xyzw")}
    return tuple((names[p["x"]], (p["x"], p["y"], p["z"], p["w"])) for p in whole.values())


class QuaternionLength(Detector):
    """b11: columns that are named as a quaternion's hold one in every row, whose sign does not change on the way."""

    name, code, question, action = "quaternion_length", "b11", "quaternion", "warn"
    advice = "write the rotation as its columns are named, or name them as what they are"
    word = "expected"
    min_rows = min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per quaternion of state and action."""
        return tuple(
            self._one(f"{kind} {name}", values[:, list(columns)])
            for kind, names, values in (
                ("state", episode.state_names, episode.state64),
                ("action", episode.action_names, episode.action64),
            )
            for name, columns in quaternions_of(tuple(names))
        )

    def _one(self, subject: str, quaternions: Floats) -> Verdict:
        lengths = np.linalg.norm(quaternions, axis=1)
        off = np.flatnonzero(np.abs(lengths - 1) > LIMIT)
        turned = np.flatnonzero((quaternions[1:] * quaternions[:-1]).sum(axis=1) < -OPPOSITE) + 1
        if len(turned) and not len(off):
            return self.verdict(
                "contradicted",
                f"before {len(turned)} of {len(lengths)} rows, the first is {turned[0]}",
                subject=subject,
                value=float(turned[0]),
                n=len(lengths),
                decided="quaternions that turn without jumps",
                measured="the sign of all four numbers changes, which is the same rotation",
            )
        rows = f"{len(off)} of {len(lengths)} rows, the first is {off[0]}: " if len(off) else ""
        return self.verdict(
            "contradicted" if len(off) else "confirmed",
            f"{rows}lengths {lengths.min():.3g} .. {lengths.max():.3g}",
            subject=subject,
            value=float(lengths[off[0]] if len(off) else lengths.max()),
            n=len(lengths),
            decided=UNIT,
            measured="numbers that are no rotation as a quaternion" if len(off) else UNIT,
        )


DETECTORS = (QuaternionLength(),)
