"""First pass over a recording: stamps and numbers of every needed topic, and what each image is."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.r1lite import align, sources
from converters.r1lite.bags import UNSET_NS, Bags, header_stamp
from converters.r1lite.images import Image, Kind, Look, look_at
from converters.r1lite.reordering import display_order, frames_of_stamps
from converters.r1lite.topics import CAMERAS, HEAD, TopicPart, columns, first_message
from fwdata.errors import BadEpisode

JUMP_NS = align.SECOND // 2
"""A change of (stamp - log time) above this is a clock that was set, not a delay."""

DRIFT_NS, MIN_DRIFT, MAX_DRIFT = 100_000_000, 20, 0.05
"""Change of the delay from begin to end that is reported, in a topic of so many messages, and the share of the
recording's time that no recorder falls behind."""

VIDEO_HOLE = 1.5
"""A step between video frames above this many usual ones: a frame is missing, and others build on it."""

SMALL_BYTES = 3 << 20
"""Small images of a camera that are kept of looking at it, so that detectors need not decode it again: 50 s."""

MAX_DAMAGED = 0.02
MAX_VALUE = 1e6
MAX_NS = 2**62


@dataclass
class _Collector:
    """Messages of one topic in written order."""

    stamps: array[int] = field(default_factory=lambda: array("q"))
    logs: array[int] = field(default_factory=lambda: array("q"))
    unset: int = 0
    headerless: bool = False
    values: array[float] = field(default_factory=lambda: array("d"))
    looks: list[Look] = field(default_factory=list)
    small_bytes: int = 0

    def look(self, message: Any) -> None:
        """Look at an image, and keep it small while there is room."""
        found = look_at(message, small=self.small_bytes < SMALL_BYTES)
        self.small_bytes += 0 if found.small is None else found.small.nbytes
        self.looks.append(found)

    def add(self, topic: str, value: Any, log_ns: int) -> None:
        stamp = header_stamp(value)
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


@dataclass(frozen=True)
class Series:
    """A topic of numbers."""

    part: TopicPart
    """The columns it becomes."""
    timing: TopicTiming
    """Stamps of its messages."""
    values: align.Values
    """float64 [n, d], in the order of the stamps."""


@dataclass(frozen=True)
class Track:
    """A topic of images."""

    camera: str
    """Name of the camera."""
    timing: TopicTiming
    """Stamps of its messages."""
    kind: Kind
    """How its images are coded."""
    height: int
    """Pixels of every good image; 0 for video, whose size is known once decoded."""
    width: int
    """Pixels of every good image; 0 for video."""
    good: NDArray[np.bool_]
    """bool [n], in the order of the stamps; False for an image that cannot be used."""
    problem: str
    """What is wrong with the first image that is not good; "" where all are."""
    shown: NDArray[np.int64] | None = None
    """int64 [messages], the message whose frame belongs to each message's stamp; None: its own. For B-frames."""
    display: tuple[int, ...] | None = None
    """Messages in display order, for video with B-frames; None: in their own order."""
    small: Mapping[int, Image] = field(default_factory=dict)
    """By message, small images of a JPEG camera's first frames."""


@dataclass(frozen=True)
class RecordedSeries:
    """What one pass over a recording found."""

    series: tuple[Series, ...]
    """Topics of numbers, in the order of the parts asked for."""
    tracks: Mapping[str, Track]
    """Topics of images by camera."""
    truncated: bool
    """Whether the recording has no end (option recover)."""
    damaged_chunks: int
    """Damaged chunks that were left out (option recover)."""
    warnings: tuple[str, ...]
    """Sentences for the user."""


def read_recording(
    bags: Bags, parts: Sequence[TopicPart], cameras: Sequence[str], shift_clocks: bool
) -> RecordedSeries:
    """Read all numbers and look at all images once. HEAD is always read.

    shift_clocks: correct topics whose clock differs from the head camera's by their median offset. Raises BadEpisode
    for absent topics, stamps that cannot be trusted, too many damaged images, and damaged files. Memory: the numbers
    (some 50 kB per second) and one chunk of the file. Cost: reading, and decoding every JPEG at an eighth of its size.
    """
    wanted = list(dict.fromkeys((HEAD, *cameras)))
    topic_of = {topic: part for part in parts for topic in part.topics}
    camera_of = {topic: name for name in wanted for topic in CAMERAS[name]}
    found: dict[str, _Collector] = {}
    warnings: list[str] = []
    for topic, log_ns, value in bags.messages(frozenset(topic_of) | frozenset(camera_of)):
        collector = found.setdefault(topic, _Collector())
        if not collector.logs:
            warnings += first_message(topic, value, topic_of.get(topic))
        if topic in camera_of:
            collector.look(value)
        else:
            collector.values.extend(columns(topic_of[topic], value, topic))
        collector.add(topic, value, log_ns)
    chosen = _choose(found, parts, wanted, warnings)
    timings = _timings({topic: found[topic] for topic in chosen.values()}, chosen[HEAD], shift_clocks, warnings)
    series = []
    for part in parts:
        topic = chosen[f"{part.name} {part.role}"]
        series.append(Series(part, timings[topic], _values(part, found[topic], timings[topic])))
    tracks = {name: _track(name, found[chosen[name]], timings[chosen[name]], bags) for name in wanted}
    warnings += [
        f"{name}: the video has B-frames, its images are taken in display order"
        for name, track in tracks.items()
        if track.display is not None
    ]
    return RecordedSeries(tuple(series), tracks, bags.damage.truncated, bags.damage.chunks, tuple(warnings))


def _values(part: TopicPart, collector: _Collector, timing: TopicTiming) -> align.Values:
    """The numbers of a topic in the order of its stamps; BadEpisode for any that cannot be real."""
    values = np.frombuffer(collector.values).reshape(-1, len(part.names))
    absurd = ~(np.abs(values) <= MAX_VALUE)
    if absurd.any():
        row, column = np.argwhere(absurd)[0]
        value = values[row, column]
        what = f"the value {value:g}" if np.isfinite(value) else "a value that is not finite"
        raise BadEpisode(f"{timing.topic} holds {what}: message {row}, {part.names[column]}")
    ordered: align.Values = values[timing.index]
    sources.check_one_sender(part, timing.topic, ordered)
    return ordered


def _choose(
    found: Mapping[str, _Collector], parts: Sequence[TopicPart], cameras: Sequence[str], warnings: list[str]
) -> dict[str, str]:
    """The topic of every part and camera: the preferred one of those recorded. BadEpisode names all that are absent."""
    logs = {topic: np.frombuffer(collector.logs, np.int64) for topic, collector in found.items()}
    asked = {f"{part.name} {part.role}": part.topics for part in parts} | {name: CAMERAS[name] for name in cameras}
    chosen, missing = {}, []
    for name, topics in asked.items():
        topic = sources.source_of(name, topics, logs, warnings)
        if topic is None:
            missing.append(f"{topics[0]} ({name})")
        else:
            chosen[name] = topic
    if missing:
        raise BadEpisode(f"{len(missing)} needed topics are absent or empty: {', '.join(missing)}")
    return chosen


def _timings(
    found: Mapping[str, _Collector], head: str, shift_clocks: bool, warnings: list[str]
) -> dict[str, TopicTiming]:
    """Sorted stamps of every topic, once all clocks are known to agree."""
    simulated = _is_simulated(found)
    if simulated:
        warnings.append("header stamps are simulation time; log times are not compared with them")
    unset: dict[str, list[str]] = {}
    stamps = {topic: _trusted_stamps(topic, collector, simulated, unset) for topic, collector in found.items()}
    for why, topics in unset.items():
        more = f" and {len(topics) - 1} more topics" if len(topics) > 1 else ""
        warnings.append(f"{topics[0]}{more}: {why}; log times are used, which are later")
    logs = {topic: np.frombuffer(collector.logs, np.int64) for topic, collector in found.items()}
    if not simulated:
        warnings += _drifts(stamps, logs, head)
    delays = {t: int(np.median(logs[t] - stamps[t])) for t in found}
    timings = {}
    period = float(np.median(np.diff(np.sort(stamps[head])))) if len(stamps[head]) > 1 else float(JUMP_NS)
    apart = {t: delays[t] - delays[head] for t in found if not simulated}
    skewed = {topic: late for topic, late in apart.items() if period < abs(late) <= JUMP_NS}
    if skewed:
        warnings.append(_skew_warning(skewed, delays, head, shift_clocks))
    for topic, own in stamps.items():
        late = apart.get(topic, 0)
        if topic in skewed and shift_clocks:
            own = own + late
        if abs(late) > JUMP_NS:
            what = f"the clock of {topic} is {late / align.SECOND:+.3f} s away from the head camera's"
            if not shift_clocks:
                raise BadEpisode(f"{what}; set option clock to shift to correct such topics by their median offset")
            warnings.append(f"{what}; corrected by it")
            own = own + late
        order = align.order_of(own)
        timings[topic] = TopicTiming(
            topic, own[order.index], order.index, len(own), order.inversions, order.duplicates, delays[topic]
        )
        if order.inversions or order.duplicates:
            warnings.append(
                f"{topic}: {order.inversions} messages out of order were sorted, {order.duplicates} of equal stamps "
                "were left out"
            )
    return timings


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
    more = sum(abs(other) > DRIFT_NS for other in apart.values()) - 1
    all_of_them = f"{topic} and {more} more topics" if more else topic
    what = (
        f"the stamps of {all_of_them} {'fall behind' if moved > 0 else 'overtake'} their log times by "
        f"{abs(moved) / align.SECOND:.3f} s from begin to end of the recording, against the head camera's"
    )
    if abs(moved) > max(JUMP_NS, MAX_DRIFT * np.ptp(logs[topic])):
        raise BadEpisode(f"{what}: a clock of another speed; correct the stamps, or leave it out (--exclude)")
    return [f"{what}: a clock of another speed, or slow recording; joints and images may be out of step by that"]


def _drift(delays: align.Stamps) -> int:
    """How much log times minus stamps grow, from the median of the first tenth to that of the last, ns."""
    tenth = max(1, len(delays) // 10)
    return int(np.median(delays[-tenth:]) - np.median(delays[:tenth]))


def _is_simulated(found: Mapping[str, _Collector]) -> bool:
    """Whether the header stamps count from the start of a simulation: below 10^9 s, and running, in every topic."""
    with_header = [c for c in found.values() if not c.headerless]
    return bool(with_header) and all(
        len(c.stamps) > 1 and c.unset == len(c.stamps) and max(c.stamps) > min(c.stamps) for c in with_header
    )


def _skew_warning(skewed: Mapping[str, int], delays: Mapping[str, int], head: str, shifted: bool) -> str:
    """One sentence about topics whose stamps are further from their log times than the head camera's."""
    topic = max(skewed, key=lambda name: abs(skewed[name]))
    more = f" and {len(skewed) - 1} more topics" if len(skewed) > 1 else ""
    ends = "corrected by it" if shifted else "option clock = shift corrects every such topic by its own median"
    return (
        f"clock skew: the stamps of {topic}{more} lie {abs(skewed[topic]) / align.SECOND:.3f} s further "
        f"{'before' if skewed[topic] > 0 else 'after'} their log times than the head camera's (median delay "
        f"{delays[topic] / 1e6:.0f} ms against {delays[head] / 1e6:.0f} ms); joints and images may be out of step by "
        f"that; {ends}"
    )


def _trusted_stamps(topic: str, collector: _Collector, simulated: bool, unset: dict[str, list[str]]) -> align.Stamps:
    """Header stamps, or log times where a whole topic has none; BadEpisode when some are unset or the clock was set.

    unset: why -> topics that have none, added to.
    simulated: the stamps count from the start of a simulation, at another speed than the log's clock.
    """
    stamps, logs = np.frombuffer(collector.stamps, np.int64), np.frombuffer(collector.logs, np.int64)
    if simulated:
        if collector.headerless:
            raise BadEpisode(f"{topic}: its messages have no header, and those of other topics are in simulation time")
        return stamps
    if collector.unset == len(stamps):
        why = "its messages have no header" if collector.headerless else "its header stamps are unset"
        if not collector.headerless and 0 < min(collector.stamps) < max(collector.stamps):
            why = "its header stamps are times of another clock, that of a simulation"
        stamps = logs
        unset.setdefault(why, []).append(topic)
    elif collector.unset:
        raise BadEpisode(f"{topic}: {collector.unset} of {len(stamps)} header stamps are unset")
    sources.check_set_back(topic, stamps, logs)
    steps = np.abs(np.diff(stamps - logs))
    if len(steps) and steps.max() > JUMP_NS:
        at = int(steps.argmax()) + 1
        raise BadEpisode(
            f"{topic}: the clock jumps by {steps.max() / align.SECOND:.3f} s against the log time at message {at}"
        )
    return stamps


def _track(camera: str, collector: _Collector, timing: TopicTiming, bags: Bags) -> Track:
    """What a topic's images have in common; those that differ are bad. BadEpisode when too many are."""
    first = next((look for look in collector.looks if look.kind is not None), None)
    if first is None:
        raise BadEpisode(f"{camera}: none of {timing.messages} images is readable: {collector.looks[0].problem}")
    if first.kind is not None and first.kind.startswith("unsupported"):
        raise BadEpisode(f"{camera}: {timing.topic} holds {first.problem}")
    problems = [_problem(look, first) for look in collector.looks]
    if first.kind in ("h264", "hevc"):
        return _video_track(camera, collector, timing, first, problems, bags)
    bad = [i for i, problem in enumerate(problems) if problem]
    if len(bad) > MAX_DAMAGED * timing.messages:
        raise BadEpisode(
            f"{camera}: {len(bad)} of {timing.messages} images are damaged (message {bad[0]}: {problems[bad[0]]}); "
            f"at most {MAX_DAMAGED:.0%} are replaced by their neighbours"
        )
    good = np.array([not problem for problem in problems])[timing.index]
    problem = f"message {bad[0]}: {problems[bad[0]]}" if bad else ""
    assert first.kind is not None
    small = {number: look.small for number, look in enumerate(collector.looks) if look.small is not None}
    return Track(camera, timing, first.kind, first.height, first.width, good, problem, small=small)


def _video_track(
    camera: str, collector: _Collector, timing: TopicTiming, first: Look, problems: Sequence[str], bags: Bags
) -> Track:
    """A compressed video, in stamp order. Usable from its first keyframe on, and after a hole from the next one.

    A frame that builds on one that was not recorded decodes without an error, to a wrong image.
    """
    keys = np.array([look.key for look in collector.looks])
    if not keys.any():
        raise BadEpisode(f"{camera}: {timing.topic} holds {first.kind} video without a keyframe")
    bad = next((i for i in range(int(keys.argmax()), len(problems)) if problems[i]), None)
    if bad is not None:
        raise BadEpisode(f"{camera}: message {bad} of the {first.kind} video: {problems[bad]}")
    assert first.kind is not None
    order, shown = display_order(bags, camera, timing.topic, first.kind, int(keys.argmax())), None
    if timing.duplicates or (timing.inversions and order is None):
        raise BadEpisode(f"{camera}: {timing.topic} holds {first.kind} video whose stamps are out of order")
    if order is not None:
        shown = frames_of_stamps(timing.topic, timing.index, order, int(keys.argmax()))
    steps = np.diff(timing.stamps)
    holes = np.append(True, steps > VIDEO_HOLE * np.median(steps)) if len(steps) else np.array([True])
    numbers = np.arange(timing.messages)
    last_hole, last_key = (np.maximum.accumulate(np.where(at, numbers, -1)) for at in (holes, keys))
    good = last_key >= last_hole
    if order is not None and holes[1:].any():
        raise BadEpisode(
            f"{camera}: {timing.topic} holds {first.kind} video with B-frames and a pause of "
            f"{steps.max() / align.SECOND:.2f} s, so that lost messages would shift its images"
        )
    missing = int((~good).sum())
    problem = f"{missing} frames before the first keyframe, or between a hole and the next one" if missing else ""
    return Track(camera, timing, first.kind, 0, 0, good, problem, shown, order)


def _problem(look: Look, first: Look) -> str:
    if look.problem:
        return look.problem
    if look.kind != first.kind:
        return f"is {look.kind}, the first is {first.kind}"
    if (look.height, look.width) != (first.height, first.width):
        return f"is {look.height}x{look.width} pixels, the first is {first.height}x{first.width}"
    return ""
