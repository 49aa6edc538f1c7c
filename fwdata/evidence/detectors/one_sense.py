"""Grippers that count the other way round in a part of the episodes, in command and opening alike (a8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.paths import named_path
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, SizeTrace, TextTrace
from fwdata.evidence.signals import Floats

FEWEST, MOST = 3, 200
"""Episodes that each of two parts needs, and of one text that are compared; beyond, evenly spread ones."""
ALIKE, OPPOSITE, ALL = 0.5, -0.5, 0.9
"""Least median cosine within a part, largest between two, and the share of pairs that have its sign."""
SAME_MOTION, SAME_COLUMNS = 0.8, 0.7
"""Correlation of both parts' mean paths that columns of the arm need, and how many of those that move."""

BEYOND, SPREAD = 0.1, 0.03
"""How much further off one end of its scale than off the other a gripper stays, which shows where it is closed: on an
object it stops short of the end; on a scale that is not known, how much larger its ends' deviation is there. As a share
of the way from end to end."""
NEAR, TOPS = 0.05, (1.0, 100.0, 255.0)
"""Scales from 0 that are known by the value that is reached, within a share of it."""

ONE = "one sense in all episodes of a text"
REVERSED = "the reverse along the same way of the arm"
UNDONE = f"{REVERSED}, or the task undone (picked, put back) under its own text: played backwards they are alike"


class OneSense(Detector):
    """a8: where episodes of one text make the same motion, their grippers do not count the reverse of each other."""

    name, code, question, action = "gripper_sense", "a8", "sense of grippers", "warn"
    advice = (
        "where they count otherwise turn commands and openings round; where one opens on the way on which another "
        "closes, as in a task and its undoing (pick, put back), only their text is wrong: give each its own"
    )
    word = "expected"
    compares = True

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict for at least six episodes of one text that have grippers; its traces are those of h1, h2 and
        a5."""
        texts: dict[tuple[str, tuple[str, ...]], list[_OneGrip]] = {}
        for measurement in episodes:
            known = _known(measurement)
            if known is not None:
                texts.setdefault((known.text, known.names), []).append(known)
        compared = [each for each in texts.values() if len(each) >= 2 * FEWEST and _ends(each).any()]
        if not compared:
            return ()
        found = {place: told for known in compared for place, told in _reversed(_spread(known)).items()}
        first = next(iter(found), "")
        column, measured = found.get(first, ("", ONE))
        return (
            DatasetVerdict(
                self.name,
                "mixed" if found else "confirmed",
                value=float(len(found)),
                episodes_for=sum(map(len, compared)) - len(found),
                against=len(found),
                action="warn" if found else "note",
                decided=ONE,
                measured=measured,
                detail=f"{column} of {first}" if found else "",
                episodes=tuple(found)[:MAX_LISTED],
            ),
        )


class _OneGrip(NamedTuple):
    """What is compared of one episode."""

    episode: str
    text: str
    names: tuple[str, ...]
    path: NDArray[np.float32]
    ends: NDArray[np.bool_]
    """Columns that go from end to end, as grippers do."""


def _known(measurement: EpisodeMeasurement) -> _OneGrip | None:
    named = named_path(measurement)
    text = next((t.text for t in measurement.traces if isinstance(t, TextTrace)), "")
    tops = next((t.tops for t in measurement.traces if isinstance(t, SizeTrace)), None)
    if named is None or not text or tops is None:
        return None
    return _OneGrip(measurement.episode, text, *named, np.isfinite(tops))


def _spread(known: Sequence[_OneGrip]) -> list[_OneGrip]:
    """Evenly spread ones, in pairs of neighbours."""
    if len(known) <= MOST:
        return list(known)
    first = np.linspace(0, len(known) - 2, MOST // 2).astype(np.int64) // 2 * 2
    return [known[place] for place in np.stack([first, first + 1], axis=1).ravel().tolist()]


def _ends(known: Sequence[_OneGrip]) -> NDArray[np.bool_]:
    return np.asarray(np.stack([each.ends for each in known]).all(axis=0), np.bool_)


def _in_turns(odd: NDArray[np.bool_]) -> bool:
    """Whether every other episode is of the other part, as where a task and its undoing are recorded in turns; merged
    sets lie one behind the other."""
    pairs = odd[: len(odd) // 2 * 2].reshape(-1, 2)
    return bool((pairs == [pairs[0, 0], not pairs[0, 0]]).all())


def _reversed(known: Sequence[_OneGrip]) -> dict[str, tuple[str, str]]:
    """Episode of the smaller of two parts, the later one of two equal ones -> (the first column that is reversed, what
    that is)."""
    paths = np.stack([each.path for each in known]).astype(np.float64)
    ends = _ends(known)
    parts = {int(c): _other_part(paths[:, :, c]) for c in np.flatnonzero(ends)}
    for column, other in parts.items():
        if other is None or _in_turns(other) or not _moves_alike(paths[:, :, ~ends], other):
            continue
        if any(_closes_alike(paths[:, :, c], other) for c in _with(paths, other, known)):
            continue
        undone = _moves_alike(paths[:, :, ~ends], other, back=True) and _moves_alike(
            paths[:, :, [column]], other, back=True
        )
        told = (known[0].names[column], UNDONE if undone else REVERSED)
        return {each.episode: told for each, odd in zip(known, other, strict=True) if odd}
    return {}


def _with(paths: Floats, other: NDArray[np.bool_], known: Sequence[_OneGrip]) -> list[int]:
    """Columns that fall into the same two parts, and go from end to end in some episodes: openings that stop at what is
    held do not in all."""
    some = np.flatnonzero(np.stack([each.ends for each in known]).any(axis=0)).tolist()
    parts = {column: _other_part(paths[:, :, column]) for column in some}
    return [column for column, part in parts.items() if part is not None and bool((part == other).all())]


def _closes_alike(values: Floats, other: NDArray[np.bool_]) -> bool:
    """Whether both parts of paths [n, 32] stay off the same end of their scale, as grippers do that close on an object:
    they count alike. Where the scale is not known, that end is the one which differs more between episodes."""
    low, high = values.min(axis=1), values.max(axis=1)
    top = next((top for top in TOPS if abs(high.max() - top) <= NEAR * top and low.min() >= -NEAR * top), None)
    skews = []
    for part in (other, ~other):
        ends = low[part], high[part]
        off = float(np.median(ends[0]) - np.median(top - ends[1])) if top else float(ends[0].std() - ends[1].std())
        skews.append(off / float(high.max() - low.min()))
    return min(map(abs, skews)) >= (BEYOND if top else SPREAD) and skews[0] * skews[1] > 0


def _other_part(values: Floats) -> NDArray[np.bool_] | None:
    """bool [n], the smaller of two parts whose paths [n, 32] are each other's reverse; None where there are none."""
    level = values - (values.min() + values.max()) / 2
    size = np.linalg.norm(level, axis=1, keepdims=True)
    if not size.all():
        return None
    cosine = (level / size) @ (level / size).T
    odd: NDArray[np.bool_] = cosine[0] < 0
    if not FEWEST <= int(odd.sum()) <= len(odd) - FEWEST:
        return None
    between = cosine[np.ix_(odd, ~odd)].ravel()
    if np.median(between) > OPPOSITE or (between < 0).mean() < ALL:
        return None
    for part in (odd, ~odd):
        within = cosine[np.ix_(part, part)][np.triu_indices(int(part.sum()), 1)]
        if np.median(within) < ALIKE or (within > 0).mean() < ALL:
            return None
    return odd if 2 * int(odd.sum()) <= len(odd) else np.logical_not(odd)


def _moves_alike(paths: Floats, other: NDArray[np.bool_], back: bool = False) -> bool:
    """Whether columns [n, 32, D] follow the same mean path in both parts: those that move, most of them. back: the
    other part's played backwards."""
    one, two = (paths[part].mean(axis=0) for part in (~other, other))
    one, two = one - one.mean(axis=0), (two[::-1] if back else two) - two.mean(axis=0)
    reach = paths.max(axis=(0, 1)) - paths.min(axis=(0, 1))
    moving = (np.ptp(one, axis=0) > 0.2 * reach) & (reach > 0)
    if not moving.any():
        return False
    size = np.linalg.norm(one, axis=0) * np.linalg.norm(two, axis=0)
    alike = (one * two).sum(axis=0)[moving] >= SAME_MOTION * size[moving]
    return bool(alike.mean() >= SAME_COLUMNS)


DETECTORS = (OneSense(),)
