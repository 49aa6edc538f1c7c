"""Videos of one episode with more frames than it has rows: which of the frames belong to the rows.

Episodes that were cut out of a longer video without encoding it again begin at the keyframe before their first row:
the surplus is at the start, and it is the end of the episode before. Dropping the frames behind the last row, as
tolerant readers do, shows every row some frames late. A cut that includes its end has the next episode's first frame,
too. So nothing is dropped unless the files say where.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from converters.lerobot.shared_frames import Beside, frames_before_rows
from converters.lerobot.stamps import at_rate, at_times, two_rates
from converters.lerobot.timelines import Timeline
from converters.lerobot.values import Floats
from converters.lerobot.video import Assignment, assign_run, assign_whole
from fwdata.errors import BadEpisode
from fwdata.wording import counted, verb

type Surplus = Literal["auto", "reject", "first", "last", "by-time", "ignore"]


def assign_alone(found: Timeline, name: str, rows: int, fps: float, seconds: Floats | None) -> Assignment:
    """`assign_whole`, and frames that are not evenly spaced where the rows were recorded at their very times."""
    try:
        return assign_whole(found, name, rows, fps)
    except BadEpisode:
        starts = () if seconds is None or len(found.times) != rows else (seconds, seconds - seconds[0])
        chosen = next((a for s in starts if (a := at_times(found, 0.0, s)) is not None), None)
        if chosen is None:
            raise
        return chosen


def assign_surplus(
    found: Timeline,
    name: str,
    rows: int,
    fps: float,
    rule: Surplus,
    beside: Beside,
    seconds: Floats | None = None,
) -> Assignment:
    """Frames of an episode whose video has more than `rows`. beside: its neighbours' videos; seconds: of `TableRows`.

    BadEpisode where the rule is "reject", or "auto" and nothing tells.
    """
    surplus = len(found.times) - rows
    rate = (len(found.times) - 1) / float(found.times[-1] - found.times[0])
    faster = rate / fps > 1.01 and len(found.times) >= (rows - 1) * rate / fps
    what = f"{name} holds {counted(len(found.times), 'frame')}, the episode has {counted(rows, 'row')}"
    timed = at_times(found, 0.0, seconds) if seconds is not None else None
    if rule == "by-time":
        return timed or at_rate(found, name, rows, fps)
    if rule == "auto" and timed is not None:
        return replace(timed, warning=f"{what}; the frame at each row's timestamp is taken")
    if rule != "auto":
        if rule == "reject":
            raise BadEpisode(f"{what}; {_ASK}")
        if faster:
            return at_rate(found, name, rows, fps, from_end=rule == "last")
        begin = surplus if rule == "last" else 0
        chosen = assign_run(found, name, rows, fps, begin, f"option extra_frames={rule}: frame k + {begin} is row k")
        if timed is not None and timed.ranks[0] != begin:
            return replace(chosen, warning=f"{what}; {_other_times(rule, int(timed.ranks[0]), begin)}")
        first = frames_before_rows(beside)
        if first is None or first == begin:
            return chosen
        return replace(chosen, warning=_contradicted(what, rule, first, begin))
    if faster and abs(len(found.times) - rows * rate / fps) <= rate / fps:
        return replace(at_rate(found, name, rows, fps), warning=two_rates(what, rate, fps))
    if faster:
        raise BadEpisode(
            f"{what} at {rate:.4g} and {fps:g} a second, so the video is longer, and nothing in the files tells where "
            "the rows begin; compare its first and last images with the neighbouring episodes, and say "
            "--extra-frames first where both begin together, or last where both end together"
        )
    first = frames_before_rows(beside)
    if first is None:
        raise BadEpisode(f"{what}, and nothing in the files tells which frames belong to them; {_ASK}")
    chosen = assign_run(found, name, rows, fps, first, f"frame k + {first} is row k: the others are the neighbours'")
    start = f"the first {verb(first, 'is', f'{first} are')} also the last of the episode before" if first else ""
    end = (
        f"the last {verb(surplus - first, 'is', f'{surplus - first} are')} also the first of the episode after"
        if surplus > first
        else ""
    )
    dropped = verb(surplus, "was", "were")
    return replace(chosen, warning=f"{what}; {' and '.join(filter(None, (start, end)))}, and {dropped} dropped")


_ASK = (
    "compare its first and last images with the neighbouring episodes, and say which belong to the rows with "
    "--extra-frames first, last or by-time"
)


def _contradicted(what: str, rule: Surplus, first: int, begin: int) -> str:
    """The warning for an option that takes other frames than the neighbouring videos say belong to the rows."""
    how = "behind" if begin < first else "ahead of"
    return (
        f"{what}; the neighbouring videos hold the first {verb(first, 'one', str(first))} too, so frame k + "
        f"{first} is row k, but option "
        f"extra_frames={rule} takes frame k + {begin}: images are {abs(first - begin)} rows {how} state and action; "
        "--extra-frames auto takes the right ones"
    )


def _other_times(rule: Surplus, first: int, begin: int) -> str:
    """The warning for an option that takes other frames than those of the rows' timestamps."""
    return (
        f"by the rows' timestamps row 0 shows frame {first}, but option extra_frames={rule} takes frame {begin}; "
        "--extra-frames by-time takes those of the timestamps"
    )
