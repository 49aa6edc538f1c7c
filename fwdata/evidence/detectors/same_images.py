"""Images that several episodes hold although their rows differ (h7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.looks import PRINTS
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, LookTrace
from fwdata.evidence.shared_values import AT_ONCE, Pairs, shared_values

SHARED, FEWEST, COMMON = 0.5, 8, 256
"""Share of the prints of two cameras above which they show the same images, distinct images that a camera needs to be
compared, and episodes that may have one print before it tells nothing, as a black image's."""

OWN = "images of its own"


class SameImages(Detector):
    """h7: an episode holds the images of another one, although its rows are others."""

    name, code, question, action = "same_images", "h7", "images of every episode", "warn"
    advice = "look which rows the images belong to, record the others again, or leave both out (--exclude)"
    word = "expected"
    needs_images = light = True

    def trace(self, episode: EpisodeInput) -> tuple[LookTrace, ...]:
        """What each camera's images are known again by."""
        if not episode.looks:
            return ()
        prints = episode.distinct_prints[:PRINTS]
        return tuple(LookTrace(name, look.tiles, look.prints, prints) for name, look in episode.looks.items())

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict; its episodes are all of those that share images, as either may have the other's."""
        found = [(m.episode, trace) for m in episodes for trace in m.traces if isinstance(trace, LookTrace)]
        total = len({name for name, _ in found})
        if total < 2:
            return ()
        pairs = _pairs(found)
        sharing = {found[place][0] for pair in pairs for place in pair}
        names = [name for name in dict.fromkeys(name for name, _ in found) if name in sharing]
        shown = [(found[one], found[other]) for one, other in sorted(pairs)[:2]]
        examples = ", ".join(f"{one[0]} {one[1].camera} is {other[0]} {other[1].camera}" for one, other in shown)
        return (
            DatasetVerdict(
                self.name,
                "contradicted" if pairs else "confirmed",
                value=float(len(names)),
                episodes_for=total - len(names),
                against=len(names),
                action="warn" if pairs else "note",
                decided=OWN,
                measured=f"images of another episode, while the rows differ, in {len(names)} of {total}"
                if pairs
                else OWN,
                detail=examples,
                episodes=tuple(names[:MAX_LISTED]),
            ),
        )


def _pairs(found: Sequence[tuple[str, LookTrace]]) -> set[tuple[int, int]]:
    """Pairs of cameras of two episodes with other rows that show the same images."""
    prints = [trace.prints if len(trace.prints) >= FEWEST else trace.prints[:0] for _, trace in found]
    pairs, counts = shared_values(prints, COMMON)
    lengths = np.array([len(each) for each in prints])
    number = {name: place for place, (name, _) in enumerate(found)}
    own = np.array([number[name] for name, _ in found])
    pairs = pairs[(counts > SHARED * lengths[pairs].min(axis=1)) & (own[pairs[:, 0]] != own[pairs[:, 1]])]
    rows = [trace.rows for _, trace in found]
    known = dict[bytes, int]()
    kinds = np.array([known.setdefault(each.tobytes(), len(known)) for each in rows])
    pairs = pairs[kinds[pairs[:, 0]] != kinds[pairs[:, 1]]]  # else copies, of which there may be many
    limits = SHARED * np.array([len(each) for each in rows])[pairs].min(axis=1)
    return {(one, other) for one, other in pairs[_both(rows, pairs) <= limits].tolist()}  # else h1 finds them


def _both(held: Sequence[NDArray[np.uint32]], pairs: Pairs) -> NDArray[np.int64]:
    """int64 [m], how many of their distinct values the two of each pair share."""
    width = max(len(values) for values in held)
    table = np.full((len(held), width), -1, np.int64)
    for row, values in zip(table, held, strict=True):
        row[: len(values)] = values
    found, size = np.empty(len(pairs), np.int64), max(1, AT_ONCE // max(1, width) ** 2)
    for low in range(0, len(pairs), size):
        one, other = table[pairs[low : low + size, 0]], table[pairs[low : low + size, 1]]
        found[low : low + size] = ((one[:, :, None] == other[:, None]) & (one >= 0)[:, :, None]).sum(axis=(1, 2))
    return found


DETECTORS = (SameImages(),)
