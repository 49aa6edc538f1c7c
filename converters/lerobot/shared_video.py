"""Videos that hold several episodes (v3.0), checked as a whole: are there as many frames as rows, and on one clock?

The metadata say where an episode begins in seconds. A video that lost or gained one frame shows every later episode at
the wrong time, and nothing in the episode itself tells: so the number of frames is compared with the rows of all the
episodes that share the file. Where they agree, the frames are counted and times are a hint only. Where they do not, an
episode between two cuts in the images that are as far apart as it has rows is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.cuts import REACH, find_cuts
from converters.lerobot.entry import EpisodeMeta
from converters.lerobot.stamps import at_rate, at_times, two_rates
from converters.lerobot.timelines import Timeline
from converters.lerobot.torn_video import Wanted, assign_torn
from converters.lerobot.values import Floats
from converters.lerobot.video import Assignment, assign_run, assign_span
from fwdata.errors import BadEpisode

MOST_CUTS = 200
"""Episodes of a file up to which all joints are looked at."""

TELLING = 2
"""First times above 0 in shared videos that tell at what rate frames were counted, at least."""

FASTER = 1.01
"""Frames for a row from which on a video has a rate of its own."""

CHANCE = 0.05
"""Episodes whose first frames are keyframes are where the metadata say, unless chance alone would do it so often."""


@dataclass(frozen=True)
class Slot:
    """An episode's place in a shared video."""

    start: float
    """First frame by from_timestamp, in frames of `Dataset.video_hz`."""
    rows: int
    """Rows, and so frames, of the episode."""
    episode: int
    """Its index."""
    unsure: bool = False
    """See `VideoPlace.unsure`."""
    followed: bool = False
    """See `VideoPlace.followed`."""


def slots_of(entries: Iterable[EpisodeMeta], fps: float) -> dict[tuple[str, str], tuple[Slot, ...]]:
    """(feature key, file) -> the episodes that share it, in order of their first frames."""
    found: dict[tuple[str, str], list[Slot]] = {}
    for entry in entries:
        for key, place in entry.videos.items():
            if place.start_s is not None:
                found.setdefault((key, place.file), []).append(
                    Slot(place.start_s * fps, entry.length, entry.index, place.unsure, place.followed)
                )
    return {key: tuple(sorted(slots, key=lambda slot: (slot.start, slot.episode))) for key, slots in found.items()}


def rate_of_places(entries: Sequence[EpisodeMeta], label: float) -> float:
    """Frames per second that the episodes' first times in shared videos are counted with: the label of info.json, or,
    where it does not let them follow each other in some file, the one rate that does in all."""
    files = {key: slots for key, slots in slots_of(entries, 1.0).items() if len(slots) > 1}
    if sum(len(slots) - 1 for slots in files.values()) < TELLING or all(
        tiling(slots) is not None for key, slots in slots_of(entries, label).items() if key in files
    ):
        return label
    first, *_ = files.values()
    before = float(sum(slot.rows for slot in first[:-1]))
    rate = before / first[-1].start if first[-1].start > 0 else label
    fits = all(_counted(slots, rate) for slots in files.values())
    return rate if fits else label


def _counted(slots: Sequence[Slot], rate: float) -> bool:
    """Whether the times in s of slots are those of counted frames, at so many a second."""
    first = np.concatenate([[0], np.cumsum([slot.rows for slot in slots])[:-1]])
    return bool((np.abs(np.array([slot.start for slot in slots]) * rate - first) < 0.5).all())


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


def assign_shared(
    found: Timeline,
    path: Path,
    name: str,
    slots: Sequence[Slot],
    episode: int,
    fps: float,
    label: float,
    seconds: Floats | None = None,
) -> Assignment:
    """Frames of an episode in a video that `slots` share. BadEpisode where nothing tells which they are.

    fps: `Dataset.video_hz`; label: rate of info.json; seconds: of `TableRows`.
    """
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
    end = max(s.start + s.rows for s in slots)
    wrong = round(frames - end)
    if wrong < 0 or found.damage:
        begin = int(first[number]) if first is not None and near else round(slot.start)
        whole = total if first is not None else round(end)
        place = Wanted(begin, slot.rows, whole, _unlisted(slots), first is not None and near)
        left = assign_torn(found, path, name, place, fps)
        if left is not None:
            return left
    timed = at_times(found, slot.start / fps, seconds) if seconds is not None and wrong >= 0 else None
    what = f"{name} holds {frames} frames, its {len(slots)} episodes have {total} rows"
    if timed is not None:
        return replace(timed, warning=f"{what}; the frame at each row's timestamp is taken")
    many = 1 / (step * fps)  # frames for a row
    by_label = abs(fps - label) < 0.01 * label and first is not None and near
    if by_label and even and many > FASTER and abs(frames - total * many) <= many:
        return replace(at_rate(found, name, slot.rows, fps, slot.start / fps), warning=two_rates(what, 1 / step, fps))
    grid = round((found.times[-1] - found.times[0]) * fps) + 1
    gaps = not even and grid == round(end)  # every frame that is left is where its time says
    if gaps or (wrong == 0 and abs(step * fps - 1) * frames < 0.5):
        late = float(found.times[0])  # of files that begin later, such as transport streams, no frame is lost in front
        start = late if late >= 0.5 / fps and grid == round(end) else 0.0
        return assign_span(found, name, slot.rows, fps, start + slot.start / fps)
    return _uncertain(found, path, name, slots, number, wrong, fps)


def _unlisted(slots: Sequence[Slot]) -> float:
    """Frames that no row has from which on they are taken for those of unlisted episodes."""
    lengths = sorted(slot.rows for slot in slots)
    return max(lengths[0], lengths[len(lengths) // 2] / 2)  # one very short episode says nothing


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
    found: Timeline, path: Path, name: str, slots: Sequence[Slot], number: int, wrong: int, fps: float
) -> Assignment:
    """An episode of a video whose number of frames is not that of its rows: by the cuts in its images, if they show."""
    rows, frames, slot = sum(slot.rows for slot in slots), len(found.times), slots[number]
    what = f"{name} holds {frames} frames, its {len(slots)} episodes have {rows} rows"
    begin, end = _between_cuts(path, name, slots, number, frames, wrong)
    if begin is not None and end is not None:
        return _cut_out(found, name, slot, (begin, end), what, fps)
    place = _beside_the_fault(path, name, slots, number, frames, wrong)
    if place is not None:
        chosen = assign_run(found, name, slot.rows, fps, place, f"counted: frame k + {place} is row k")
        return replace(
            chosen, warning=f"{what}; cuts in the images show that all of the difference is in another episode"
        )
    span = partial(assign_span, found, name, slot.rows, fps, slot.start / fps)
    if wrong >= _unlisted(slots) and not slot.unsure:
        return replace(span(), warning=f"{what}; the surplus is as long as an episode and taken for unlisted ones")
    if wrong > 0 and slot.followed:
        return replace(
            span(),
            warning=f"{what}; the recording was killed, so the surplus is taken for rows that were lost at its end",
        )
    if _on_keyframes(found, [round(slot.start) for slot in slots]):
        return replace(
            span(), warning=f"{what}; every episode begins at a keyframe, so their places are taken as right"
        )
    many = f"{abs(wrong)} frame{' is' if abs(wrong) == 1 else 's are'}"
    some = f"{many} missing" if wrong < 0 else f"{many} there that no row has"
    if frames == rows:
        span()  # a time that is far off says so itself
        some = "as many, but at another rate"
    off = max(1, min(abs(wrong), slot.rows))
    if number == 0 and slot.start < 0.5:
        return replace(
            span(),
            warning=f"{what}: {some}, and no cut in the images tells where; this episode is the first and is taken "
            f"from the start of the file: its images may be off by up to {off}",
        )
    raise BadEpisode(
        f"{what}: {some}, and no cut in the images tells where, so the images of episode {slot.episode} may be off by "
        f"up to {off}; download the video again, or leave the episode out"
    )


def _between_cuts(
    path: Path, name: str, slots: Sequence[Slot], number: int, frames: int, wrong: int
) -> tuple[int | None, int | None]:
    """(first frame of an episode, first frame behind it) by the images; None where they do not show."""
    slot, last, reach = slots[number], number == len(slots) - 1, min(abs(wrong) + 2, REACH)
    first = tiling(slots)
    start = round(slot.start) if first is None else int(first[number])
    stop = start + slot.rows
    before, after = slots[number - 1] if number else slot, slot if last else slots[number + 1]
    room = [min(slot.rows, other.rows) // 2 for other in (before, after)]
    wanted = [(at, min(reach, near), near) for at, near in zip((start, stop), room, strict=True)]
    begin, end = find_cuts(path, name, wanted)
    begin = 0 if start == 0 else begin
    if end is None and (stop > frames or (last and stop + reach >= frames)):
        end = frames
    return begin, end


def _beside_the_fault(path: Path, name: str, slots: Sequence[Slot], number: int, frames: int, wrong: int) -> int | None:
    """First frame of an episode where cuts show that others have all the frames that are too many or too few.

    Cost: looks at every joint of the file, once per process.
    """
    first = tiling(slots)
    if first is None or not 0 < abs(wrong) <= REACH or round(slots[0].start) != 0 or len(slots) > MOST_CUTS:
        return None
    faults = []
    for other, slot in enumerate(slots):
        begin, end = _between_cuts(path, name, slots, other, frames, wrong)
        faults.append(0 if begin is None or end is None else end - begin - slot.rows)
    return int(first[number]) + sum(faults[:number]) if sum(faults) == wrong and not faults[number] else None


def _cut_out(found: Timeline, name: str, slot: Slot, span: tuple[int, int], what: str, fps: float) -> Assignment:
    """The frames between two cuts; BadEpisode where they are more or fewer than the rows."""
    begin, count = span[0], span[1] - span[0]
    if count == slot.rows:
        rule = f"between cuts in the images at frames {begin} and {span[1]}"
        chosen = assign_run(found, name, slot.rows, fps, begin, rule)
        sentence = "an episode that lies between two cuts in the images with as many frames as it has rows is whole"
        return replace(chosen, warning=f"{what}; {sentence}")
    raise BadEpisode(
        f"{what}; episode {slot.episode} lies between cuts in the images at frames {begin} and {span[1]}, which are "
        f"{count} frames for its {slot.rows} rows, so nothing tells which frame each row has; download the video "
        "again, or leave the episode out"
    )


def _on_keyframes(found: Timeline, starts: Sequence[int]) -> bool:
    """Whether all episodes but the first begin at keyframes, and chance alone would hardly do that."""
    keys = set(found.keys.tolist())
    later = [start for start in starts if start > 0]
    return all(start in keys for start in later) and (len(keys) / len(found.times)) ** len(later) < CHANCE
