"""Episodes that are two in one, of which rows were left out, or that have an image of another one at an end (e6)."""

from __future__ import annotations

import numpy as np

from fwdata.evidence.columns import at
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import CONSTANT, Floats, percentile
from fwdata.wording import counted

JUMP, COLUMNS, FEWEST = 2.0, 0.35, 3
"""How far above its usual largest steps (p99 + 1 % of the range) a column jumps, the share of those that move which do
so in one row, and how many they are at least."""

CUT, NOISE = 1.5, 0.5
"""How far the change of half of the cameras' images in that row is above its 99th percentile in others, and grey
levels that are added to this.

Of 76 clean episodes none has more than 0.23 of the columns with a change above 0.3, or a change above 1.2 with 0.18."""

EDGE, FEWEST_IMAGES = 1.5, 20
"""How far an image at the end differs from its neighbour, above the largest change of all others and NOISE, and images
that tell. Of 340 cameras of clean episodes none is above 0.72; the last image of one episode before the first of the
next is above 1.5 in all of GR-1 and the sample world, in 4 of 5 of G1, and in 1 of 9 of a robot that ends where it
begins."""

ONE = "one take"


class SceneCut(Detector):
    """e6: no row in which much of the state and the images jump together, as where two takes were joined, and no image
    of another episode at an end, as where a shared video is a row off."""

    name, code, question, action = "scene_cut", "e6", "rows and images go on", "warn"
    advice = "split the recordings there, or leave them out (--exclude)"
    word = "expected"
    needs_images = light = True
    min_rows = 20

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict; none without images."""
        if not episode.motion:
            return ()
        row, share, count = largest_jump(episode)
        said, value, measured = "", round(share, 3), ONE
        if share >= COLUMNS and count >= FEWEST and _images_jump(episode, row):
            said, value = f"{counted(count, 'column')} of the state and the images jump at row {row}", float(row)
            measured = "two takes joined, or rows left out"
        elif foreign := _foreign_image(episode):
            said, value = foreign
            measured = "an image of another scene at an end, as where a video is a row off"
        return (
            self.verdict(
                "contradicted" if said else "confirmed",
                said,
                value=value,
                n=len(episode.state),
                decided=ONE,
                measured=measured,
            ),
        )


def largest_jump(episode: EpisodeInput) -> tuple[int, float, int]:
    """(row, share of the state columns that move, how many) of the row in which most of them jump; 0 where none do."""
    columns, width = episode.columns, episode.state.shape[1]
    reach = columns.reach[:width]
    moving = np.flatnonzero(reach > CONSTANT)
    if not len(moving) or not np.isfinite(reach).all():
        return 1, 0.0, 0
    others = columns.ordered_steps[moving, :-1]  # of a short episode, the jump itself is most of its p99
    usual = at(others, 99) + 0.01 * reach[moving] if others.shape[1] else reach[moving]
    if not (columns.ordered_steps[moving, -1] > JUMP * usual).any():
        return 1, 0.0, 0
    far = columns.steps[moving] / usual[:, None]
    counts = (far > JUMP).sum(axis=0)
    place = int(np.argmax(counts + np.minimum(far, 2 * JUMP).mean(axis=0) / (2 * JUMP + 1)))
    return place + 1, float(counts[place] / len(moving)), int(counts[place])


def _foreign_image(episode: EpisodeInput) -> tuple[str, float] | None:
    """(sentence, row) of an image at an end that differs from its neighbour as no others do."""
    for name, motion in episode.motion.items():
        changes = motion.changes
        if len(changes) < FEWEST_IMAGES:
            continue
        first, last, others = float(changes[1]), float(changes[-1]), float(changes[2:-1].max())
        if max(first, last) > EDGE * (others + NOISE):
            if first >= last:
                return f"the first image of {name} is unlike the one after it", 0.0
            return f"the last image of {name} is unlike the one before it", float(len(episode.state) - 1)
    return None


def _images_jump(episode: EpisodeInput, row: int) -> bool:
    """Whether half of the cameras whose images change do so there as nowhere else: that on an arm at rest does not
    where rows were left out."""
    shown = [each.energy for each in episode.motion.values() if each.energy.max(initial=0.0) > NOISE]
    jumps = [_change(energy, row, episode.every) >= CUT for energy in shown]
    return any(jumps) and 2 * sum(jumps) >= len(jumps)


def _change(energy: Floats, row: int, every: int) -> float:
    """Change of the image about a row against the usual largest one, of [T]."""
    last = min(row + every, len(energy))
    others = np.concatenate([energy[: max(0, row - every + 1)], energy[last:]])
    return float(energy[row:last].max() / (float(percentile(others, 99)) + NOISE)) if len(others) else 0.0


DETECTORS = (SceneCut(),)
