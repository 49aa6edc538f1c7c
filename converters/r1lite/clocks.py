"""When the messages of every topic were taken: header stamps, once all clocks are known to agree."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from converters.r1lite import align, sources
from converters.r1lite.bags import UNSET_NS
from fwdata.errors import BadEpisode

JUMP_NS = align.SECOND // 2
"""A change of (stamp - log time) above this is a clock that was set, not a delay."""

DRIFT_NS, MIN_DRIFT, MAX_DRIFT = 100_000_000, 20, 0.05
"""Change of the delay from begin to end that is reported, in a topic of so many messages, and the share of the
recording's time that no recorder falls behind."""

MAX_NS = 2**62
REAL_TIME = 0.02
"""Share by which stamps that count from another start may run faster or slower than log times to be compared."""

OTHER_UNIT = 50.0
"""No simulation runs so many times faster or slower than its log times."""

SAME_CLOCK = 0.9
"""Share of the largest skew that the topic named for it has at least: the first one, which is the same in recordings of
the same clocks, whose sentences are then said once."""

FEW = 3
"""Messages above which stamps that are all the same are a clock that stands still."""


@dataclass
class MessageTimes:
    """Times of the messages of one topic, in written order."""

    stamps: array[int] = field(default_factory=lambda: array("q"))
    """Header stamps, ns; log times where the messages have no header."""
    logs: array[int] = field(default_factory=lambda: array("q"))
    """Log times, ns."""
    unset: int = 0
    """Messages without a header stamp, or with one near zero."""
    headerless: bool = False
    """Whether a message has no header."""

    def add(self, topic: str, stamp: int | None, log_ns: int) -> None:
        """Take one message. stamp: of its header, ns; None: it has none."""
        if not 0 <= log_ns < MAX_NS:
            raise BadEpisode(f"{topic}: message {len(self.logs)} has the impossible log time {log_ns} ns")
        self.headerless |= stamp is None
        if stamp is None or stamp < UNSET_NS:
            self.unset += 1
        self.stamps.append(log_ns if stamp is None else stamp)
        self.logs.append(log_ns)


@dataclass(frozen=True)
class TopicTiming:
    """Stamps of one topic."""

    topic: str
    """Name of the topic."""
    stamps: align.Stamps
    """int64 [n], nanoseconds, sorted and distinct."""
    index: NDArray[np.int64]
    """int64 [n], positions of the messages in written order."""
    messages: int
    """Messages in the recording, those left out included."""
    inversions: int
    """Messages stamped before their predecessor."""
    duplicates: int
    """Messages left out because a later one has the same stamp."""
    delay_ns: int
    """Median of log time minus stamp, nanoseconds."""

    @property
    def first(self) -> int:
        """Earliest stamp."""
        return int(self.stamps[0])

    @property
    def last(self) -> int:
        """Latest stamp."""
        return int(self.stamps[-1])


def timings_of(
    found: Mapping[str, MessageTimes], head: str, shift_clocks: bool, warnings: list[str]
) -> dict[str, TopicTiming]:
    """Sorted stamps of every topic, once all clocks are known to agree.

    found: by topic. shift_clocks: correct topics whose clock differs from the head camera's. warnings: added to.
    BadEpisode for stamps that cannot be trusted.
    """
    logs = {topic: np.frombuffer(times.logs, np.int64) for topic, times in found.items()}
    standing = {topic for topic, own in logs.items() if len(own) > 1 and not np.ptp(own)}
    if standing:
        warnings.append(_standing_logs(standing, logs))
    simulated, speed = _is_simulated(found), _speed(found[head])
    if simulated:
        warnings.append(_simulated(speed, len(standing) < len(found)))
    unset: dict[str, list[str]] = {}
    stamps = {
        topic: _trusted_stamps(topic, times, simulated, topic in standing, unset) for topic, times in found.items()
    }
    for why, topics in unset.items():
        warnings.append(f"{_several(topics)}: {why}; log times are used, which are later")
    compared = set() if head in standing or (simulated and not _is_real_time(speed)) else stamps.keys() - standing
    warnings += _drifts({t: stamps[t] for t in compared}, logs, head)
    delays = {t: int(np.median(logs[t] - stamps[t])) for t in found}
    apart = {t: delays[t] - delays[head] for t in found if t in compared}
    distinct = np.unique(stamps[head])  # of messages that were recorded twice, one
    period = float(np.median(np.diff(distinct))) if len(distinct) > 1 else float(JUMP_NS)
    skewed = {topic: late for topic, late in apart.items() if period < abs(late) <= JUMP_NS}
    if skewed:
        warnings.append(_skew_warning(skewed, delays, head, shift_clocks))
    timings = {}
    for topic, own in stamps.items():
        late = apart.get(topic, 0)
        if topic in skewed and shift_clocks:
            own = own + late
        if abs(late) > JUMP_NS:
            own = own + _large_shift(topic, late, shift_clocks, warnings)
        timings[topic] = _timing(topic, own, delays[topic])
    warnings += _disorder([timing for timing in timings.values() if timing.inversions or timing.duplicates])
    return timings


def _several(topics: Sequence[str]) -> str:
    """The first topic, and how many more there are."""
    more = len(topics) - 1
    return topics[0] + (f" and {more} more {'topic' if more == 1 else 'topics'}" if more else "")


def _standing_logs(standing: Collection[str], logs: Mapping[str, align.Stamps]) -> str:
    """One sentence about topics whose log times are all the same."""
    named = sorted(standing)
    value = int(logs[named[0]][0])
    what = "are all 0" if not value else f"stand still at {value / align.SECOND:.3f} s"
    return (
        f"the log times of {_several(named)} {what}: whether their clocks agree with those of other topics is not "
        "verified"
    )


def _speed(times: MessageTimes) -> float:
    """How fast header stamps run, as a share of the speed of log times; 1 where these do not run."""
    logged = int(np.ptp(np.frombuffer(times.logs, np.int64)))
    return int(np.ptp(np.frombuffer(times.stamps, np.int64))) / logged if logged else 1.0


def _is_real_time(speed: float) -> bool:
    return abs(speed - 1) < REAL_TIME


def _simulated(speed: float, logged: bool) -> str:
    """One sentence about stamps that count from another start. BadEpisode where they are not in ns.

    logged: whether there are log times that run.
    """
    if not 1 / OTHER_UNIT < speed < OTHER_UNIT:
        raise BadEpisode(
            f"the header stamps run at {speed:.3g} times the speed of the log times: they are in another unit than "
            "seconds and nanoseconds; correct them in the recording"
        )
    if _is_real_time(speed):
        return (
            "header stamps are simulation time, or count from when the robot was started"
            if logged
            else ("header stamps are simulation time, or count from when the robot was started; there are no log times")
        )
    return (
        f"header stamps are simulation time, which runs at {speed:.3g} times the speed of the log times; they are not "
        "compared with these"
    )


def _large_shift(topic: str, late: int, shift_clocks: bool, warnings: list[str]) -> int:
    """What corrects a clock that is set to another time, ns; BadEpisode unless it may be."""
    what = f"the clock of {topic} is {late / align.SECOND:+.3f} s away from the head camera's"
    if not shift_clocks:
        raise BadEpisode(f"{what}; set option clock to shift to correct such topics by their median offset")
    warnings.append(f"{what}; corrected by it")
    return late


def _timing(topic: str, stamps: align.Stamps, delay_ns: int) -> TopicTiming:
    """Sorted and distinct stamps of one topic."""
    order = align.order_of(stamps)
    ordered = stamps[order.index]
    return TopicTiming(topic, ordered, order.index, len(stamps), order.inversions, order.duplicates, delay_ns)


def _disorder(wrong: Sequence[TopicTiming]) -> list[str]:
    """One sentence about topics whose messages were not in order, or not all of another stamp."""
    if not wrong:
        return []
    sorted_, left_out = sum(timing.inversions for timing in wrong), sum(timing.duplicates for timing in wrong)
    return [
        f"{_several([timing.topic for timing in wrong])}: {sorted_} messages out of order were sorted, {left_out} of "
        "equal stamps were left out"
    ]


def _drifts(stamps: Mapping[str, align.Stamps], logs: Mapping[str, align.Stamps], head: str) -> list[str]:
    """Topics whose stamps drift from their log times, int64 [n] each, while the head camera's do not.

    BadEpisode for a clock of another speed, which no offset corrects; one that is slow to be recorded is only reported.
    """
    drifts = {topic: _drift(logs[topic] - own) for topic, own in stamps.items() if len(own) >= MIN_DRIFT}
    apart = {topic: drift - drifts.get(head, 0) for topic, drift in drifts.items()}
    topic = max(apart, key=lambda name: abs(apart[name]), default=head)
    moved = apart.get(topic, 0)
    if abs(moved) <= DRIFT_NS:
        return []
    named = [topic, *(name for name, other in apart.items() if name != topic and abs(other) > DRIFT_NS)]
    what = (
        f"the stamps of {_several(named)} {'fall behind' if moved > 0 else 'overtake'} their log times by "
        f"{abs(moved) / align.SECOND:.3f} s from begin to end of the recording, against the head camera's"
    )
    if abs(moved) > max(JUMP_NS, MAX_DRIFT * np.ptp(logs[topic])):
        raise BadEpisode(f"{what}: a clock of another speed; correct the stamps, or leave it out (--exclude)")
    return [f"{what}: a clock of another speed, or slow recording; joints and images may be out of step by that"]


def _drift(delays: align.Stamps) -> int:
    """How much log times minus stamps grow, from the median of the first tenth to that of the last, ns."""
    tenth = max(1, len(delays) // 10)
    return int(np.median(delays[-tenth:]) - np.median(delays[:tenth]))


def _is_simulated(found: Mapping[str, MessageTimes]) -> bool:
    """Whether the header stamps count from the start of a simulation: below 10^9 s, and running, in every topic."""
    with_header = [c for c in found.values() if not c.headerless]
    return bool(with_header) and all(
        len(c.stamps) > 1 and c.unset == len(c.stamps) and max(c.stamps) > min(c.stamps) for c in with_header
    )


def _trusted_stamps(
    topic: str, times: MessageTimes, simulated: bool, standing: bool, unset: dict[str, list[str]]
) -> align.Stamps:
    """Header stamps, or log times where a whole topic has none; BadEpisode when some are unset or the clock was set.

    simulated: the stamps count from another start than the log times. standing: the log times are all the same.
    unset: why -> topics that have none, added to.
    """
    stamps, logs = np.frombuffer(times.stamps, np.int64), np.frombuffer(times.logs, np.int64)
    if simulated:
        if times.headerless:
            raise BadEpisode(f"{topic}: its messages have no header, and those of other topics are in simulation time")
        return stamps
    if times.unset == len(stamps):
        why = "its messages have no header" if times.headerless else "its header stamps are unset"
        if not times.headerless and 0 < min(times.stamps) < max(times.stamps):
            why = "its header stamps are times of another clock, that of a simulation"
        if standing:
            raise BadEpisode(
                f"{topic}: {why}, and its log times are all {int(logs[0]) / align.SECOND:.9g} s: nothing tells when "
                "its messages were taken"
            )
        unset.setdefault(why, []).append(topic)
        stamps = logs
    elif times.unset:
        raise BadEpisode(f"{topic}: {times.unset} of {len(stamps)} header stamps are unset")
    if standing:
        return stamps
    if len(stamps) > FEW and not np.ptp(stamps):
        raise BadEpisode(
            f"{topic}: its {len(stamps)} header stamps stand still at {int(stamps[0]) / align.SECOND:.3f} s while log "
            "times run; correct the stamps, or leave the recording out (--exclude)"
        )
    sources.check_set_back(topic, stamps, logs)
    steps = np.abs(np.diff(stamps - logs))
    if len(steps) and steps.max() > JUMP_NS:
        at = int(steps.argmax()) + 1
        raise BadEpisode(
            f"{topic}: the clock jumps by {steps.max() / align.SECOND:.3f} s against the log time at message {at}"
        )
    return stamps


def _skew_warning(skewed: Mapping[str, int], delays: Mapping[str, int], head: str, shifted: bool) -> str:
    """One sentence about topics whose stamps are further from their log times than the head camera's."""
    largest = max(map(abs, skewed.values()))
    topic = next(name for name, late in skewed.items() if abs(late) >= SAME_CLOCK * largest)
    named = [topic, *(name for name in skewed if name != topic)]
    apart = (
        "joints and images may be out of step by that; option clock = shift corrects every such topic by its own median"
    )
    return (
        f"clock skew: the stamps of {_several(named)} lie {abs(skewed[topic]) / align.SECOND:.3f} s further "
        f"{'before' if skewed[topic] > 0 else 'after'} their log times than the head camera's (median delay "
        f"{delays[topic] / 1e6:.0f} ms against {delays[head] / 1e6:.0f} ms); "
        f"{'corrected by it' if shifted else apart}"
    )
