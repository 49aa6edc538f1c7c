"""Videos that hold several episodes (v3.0), checked as a whole: are there as many frames as rows, and on one clock?

The metadata say where an episode begins in seconds. A video that lost or gained one frame shows every later episode at
the wrong time, and nothing in the episode itself tells: so the number of frames is compared with the rows of all the
episodes that share the file. Where they agree, the frames are counted and times are a hint only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.entry import EpisodeMeta
from converters.lerobot.video import Assignment, Timeline, assign_span
from fwdata.errors import BadEpisode

CHANCE = 0.05
"""Episodes whose first frames are keyframes are where the metadata say, unless chance alone would do it so often."""


@dataclass(frozen=True)
class Slot:
    """An episode's place in a shared video."""

    start: float
    """First frame by from_timestamp, in frames of the dataset's rate."""
    rows: int
    """Rows, and so frames, of the episode."""
    episode: int
    """Its index."""


def slots_of(entries: Iterable[EpisodeMeta], fps: float) -> dict[tuple[str, str], tuple[Slot, ...]]:
    """(feature key, file) -> the episodes that share it, in order of their first frames."""
    found: dict[tuple[str, str], list[Slot]] = {}
    for entry in entries:
        for key, place in entry.videos.items():
            if place.start_s is not None:
                found.setdefault((key, place.file), []).append(Slot(place.start_s * fps, entry.length, entry.index))
    return {key: tuple(sorted(slots, key=lambda slot: (slot.start, slot.episode))) for key, slots in found.items()}


def tiling(slots: Sequence[Slot]) -> NDArray[np.int64] | None:
    """First frame of each episode where they follow each other without gaps, int64 [n]; None where they cannot.

    Their times may be off by less than half an episode where they come in the order of their numbers: tables that
    count the last frame's time as the end of an episode are one frame more off with each. In another order each time
    has to be right. One time beyond the end is wrong for sure: its episode has the gap that the others leave, so that
    it alone is in doubt.
    """
    rows = np.array([slot.rows for slot in slots], np.int64)
    first = np.concatenate([[0], np.cumsum(rows)[:-1]])
    starts = np.array([slot.start for slot in slots])
    off = np.abs(starts - first)
    numbers = [slot.episode for slot in slots]
    room = (
        np.minimum(rows, np.concatenate([rows[:1], rows[:-1]])) / 2
        if numbers == sorted(numbers)
        else np.full(len(rows), 0.5)
    )
    if bool((off < np.maximum(room, 0.5)).all()):
        return first
    return _with_one_in_the_gap(starts, rows)


def _with_one_in_the_gap(starts: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """`tiling` where only the last episode's time is wrong, being beyond the end; None where more is."""
    if len(rows) < 2 or starts[-1] + rows[-1] < rows.sum() + 0.5:
        return None
    rest = rows[:-1]
    first = np.concatenate([[0], np.cumsum(rest)[:-1]])
    later = starts[:-1] - first >= 0.5  # those behind the gap
    gap = int(later.argmax()) if later.any() else len(rest)
    first[gap:] += rows[-1]
    if bool((np.abs(starts[:-1] - first) >= 0.5).any()):
        return None
    return np.append(first, int(rest[:gap].sum()))


def overlaps(slots: Sequence[Slot], name: str, fps: float) -> dict[int, str]:
    """Episodes that overlap another one by half a frame or more -> a sentence about both; none where they can be tiled.

    One of the two would get the other's images, and nothing tells which. Cost: linear.
    """
    if tiling(slots) is not None:
        return {}
    found: dict[int, str] = {}
    last, *others = slots
    for slot in others:
        if last.start + last.rows - slot.start >= 0.5:
            for one, other in ((last, slot), (slot, last)):
                spans = [f"{s.start / fps:.3f} to {(s.start + s.rows) / fps:.3f} s" for s in (one, other)]
                found.setdefault(
                    one.episode,
                    f"{name}: episode {one.episode} spans {spans[0]}, episode {other.episode} {spans[1]}; one of them "
                    "would get the other's images",
                )
        last = max(last, slot, key=lambda s: s.start + s.rows)
    return found


def assign_shared(found: Timeline, name: str, slots: Sequence[Slot], episode: int, fps: float) -> Assignment:
    """Frames of an episode in a video that `slots` share. BadEpisode where the count leaves open which they are."""
    number = next(i for i, slot in enumerate(slots) if slot.episode == episode)
    slot, frames = slots[number], len(found.times)
    first = tiling(slots)
    total = int(sum(s.rows for s in slots))
    even, step = _grid(found.times, fps)
    near = first is not None and abs(slot.start - first[number]) < max(slot.rows / 2, 0.5)
    if first is not None and near and frames == total and even:
        begin = int(first[number])
        times = found.times[begin : begin + slot.rows]
        wanted = (slot.start + np.arange(slot.rows)) / fps
        offset = float(np.abs(times - wanted).max())
        ranks = np.arange(begin, begin + slot.rows, dtype=np.int64)
        return Assignment(ranks, _COUNTED, offset, _hint(found, name, slot, begin, step, fps))
    chosen = assign_span(found, name, slot.rows, fps, slot.start / fps)
    end = max(s.start + s.rows for s in slots)
    wrong = round(frames - end)
    grid = round((found.times[-1] - found.times[0]) * fps) + 1
    if not even and grid == round(end):
        return chosen  # the frames that are missing left gaps in time: every other frame is where its time says
    if wrong == 0 and abs(step * fps - 1) * frames < 0.5:
        return chosen
    return _uncertain(found, name, slots, number, chosen, wrong)


_COUNTED = "counted: the video has as many frames as its episodes have rows"


def _grid(times: NDArray[np.float64], fps: float) -> tuple[bool, float]:
    """(whether the frames are evenly spaced, their distance in seconds)."""
    if len(times) < 2:
        return True, 1 / fps
    step = float(times[-1] - times[0]) / (len(times) - 1)
    return bool((np.abs(times - times[0] - np.arange(len(times)) * step) < step / 2).all()), step


def _hint(found: Timeline, name: str, slot: Slot, first: int, step: float, fps: float) -> str | None:
    """What the times say that the count contradicts."""
    if found.times[0] >= 0.5 / fps:
        return f"{name}: the first frame is shown at {found.times[0]:.3f} s; frames are counted from it"
    if abs(step * fps - 1) > 0.01:
        return f"{name} runs at {1 / step:.4g} frames/s, meta/info.json says {fps:g}; frames are counted"
    if abs(slot.start - first) >= 0.5:
        return (
            f"{name}: from_timestamp of episode {slot.episode} is {slot.start / fps:.3f} s, counted by rows its frames "
            f"begin at {first / fps:.3f} s; frames are counted"
        )
    return None


def _uncertain(
    found: Timeline, name: str, slots: Sequence[Slot], number: int, chosen: Assignment, wrong: int
) -> Assignment:
    """An episode of a video whose number of frames is not that of its rows."""
    rows, frames = sum(slot.rows for slot in slots), len(found.times)
    what = f"{name} holds {frames} frames, its {len(slots)} episodes have {rows} rows"
    lengths = sorted(slot.rows for slot in slots)
    if wrong >= max(lengths[0], lengths[len(lengths) // 2] / 2):  # one very short episode says nothing
        return replace(chosen, warning=f"{what}; the surplus is as long as an episode and taken for unlisted ones")
    if _on_keyframes(found, [round(slot.start) for slot in slots]):
        return replace(
            chosen, warning=f"{what}; every episode begins at a keyframe, so their places are taken as right"
        )
    if number == 0 and slots[0].start < 0.5:
        return replace(
            chosen, warning=f"{what}; this episode is the first, so that at least its first frame is certain"
        )
    lost = "lost" if wrong < 0 else "doubled" if wrong else "shown at another rate"
    raise BadEpisode(
        f"{what}: frames were {lost} at an unknown place, so the images of episode {slots[number].episode} may be off "
        f"by {max(1, abs(wrong))} or more; download the video again, or leave the episode out"
    )


def _on_keyframes(found: Timeline, starts: Sequence[int]) -> bool:
    """Whether all episodes but the first begin at keyframes, and chance alone would hardly do that."""
    keys = set(found.keys.tolist())
    later = [start for start in starts if start > 0]
    return all(start in keys for start in later) and (len(keys) / len(found.times)) ** len(later) < CHANCE
