"""Images that several episodes hold although their rows differ (h7)."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.looks import smallest
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, LookTrace

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
        rows = np.concatenate([episode.state, episode.action], axis=1)
        prints = smallest(zlib.crc32(row) for row in np.ascontiguousarray(rows))
        return tuple(LookTrace(name, look.tiles, look.prints, prints) for name, look in episode.looks.items())

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict; its episodes are all of those that share images, as either may have the other's."""
        found = [(m.episode, trace) for m in episodes for trace in m.traces if isinstance(trace, LookTrace)]
        total = len({name for name, _ in found})
        if total < 2:
            return ()
        pairs = _pairs(found)
        names = sorted({found[place][0] for pair in pairs for place in pair}, key=[name for name, _ in found].index)
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
    counts = [len(trace.prints) if len(trace.prints) >= FEWEST else 0 for _, trace in found]
    prints = np.concatenate([trace.prints[:count] for (_, trace), count in zip(found, counts, strict=True)])
    order = np.argsort(prints, kind="stable")
    owners = np.repeat(np.arange(len(found)), counts)[order]
    again = np.flatnonzero(np.diff(prints[order]) == 0)  # where a print is that of the one before
    shared = Counter[tuple[int, int]]()
    for run in np.split(again, np.flatnonzero(np.diff(again) > 1) + 1):
        held = owners[run[0] : run[-1] + 2].tolist() if len(run) else []
        if len(held) <= COMMON:
            shared.update((one, other) for n, one in enumerate(held) for other in held[n + 1 :])
    return {(one, other) for (one, other), count in shared.items() if _same(found[one], found[other], count)}


def _same(one: tuple[str, LookTrace], other: tuple[str, LookTrace], count: int) -> bool:
    left, right = one[1], other[1]
    if one[0] == other[0] or count <= SHARED * min(len(left.prints), len(right.prints)):
        return False
    both = len(np.intersect1d(left.rows, right.rows))
    return both <= SHARED * min(len(left.rows), len(right.rows))  # else h1 finds them


DETECTORS = (SameImages(),)
