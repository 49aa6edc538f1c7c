"""First pass over a recording: stamps and numbers of every needed topic, and what each image is."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.r1lite import align, sources
from converters.r1lite.bags import Bags, header_stamp
from converters.r1lite.clocks import MessageTimes, TopicTiming, timings_of
from converters.r1lite.images import Image, Kind, Look, look_at
from converters.r1lite.reordering import display_order, frames_of_stamps
from converters.r1lite.topics import CAMERAS, HEAD, TopicPart, columns, first_message
from fwdata.errors import BadEpisode
from fwdata.images.jpeg import is_grey
from fwdata.wording import counted, verb

VIDEO_HOLE = 1.5
"""A step between video frames above this many usual ones: a frame is missing, and others build on it."""

SMALL_BYTES = 3 << 20
"""Small images of a camera that are kept of looking at it, so that detectors need not decode it again: 50 s."""

_LEAVE = "correct it in the recording, or leave the recording out (--exclude)"
MAX_DAMAGED = 0.02
MAX_VALUE = 1e6


@dataclass
class _Collector(MessageTimes):
    """Messages of one topic in written order."""

    values: array[float] = field(default_factory=lambda: array("d"))
    looks: list[Look] = field(default_factory=list)
    small_bytes: int = 0
    grey: bool = False
    """Whether its first image has one channel."""

    def look(self, message: Any) -> None:
        """Look at an image, and keep it small while there is room."""
        found = look_at(message, small=self.small_bytes < SMALL_BYTES)
        if not self.looks:
            self.grey = found.kind == "mono8" or (found.kind == "jpeg" and is_grey(bytes(message.data)))
        self.small_bytes += 0 if found.small is None else found.small.nbytes
        self.looks.append(found)


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
    grey: bool = False
    """Whether its images have one channel."""


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
        collector.add(topic, header_stamp(value), log_ns)
    chosen = _choose(found, parts, wanted, warnings, bags.topics)
    timings = timings_of({topic: found[topic] for topic in chosen.values()}, chosen[HEAD], shift_clocks, warnings)
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
    found: Mapping[str, _Collector],
    parts: Sequence[TopicPart],
    cameras: Sequence[str],
    warnings: list[str],
    held: Collection[str],
) -> dict[str, str]:
    """The topic of every part and camera: the preferred one of those recorded. BadEpisode names all that are absent."""
    logs = {topic: np.frombuffer(collector.logs, np.int64) for topic, collector in found.items()}
    asked = {f"{part.name} {part.role}": part.topics for part in parts} | {name: CAMERAS[name] for name in cameras}
    chosen, missing = {}, {}
    for name, topics in asked.items():
        topic = sources.source_of(name, topics, logs, warnings)
        if topic is None:
            missing[name] = topics
        else:
            chosen[name] = topic
    if missing:
        raise BadEpisode(sources.absent(missing, held))
    warnings += sources.other_robots({topic for part in parts for topic in part.topics}, held)
    return chosen


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
            f"{camera}: {len(bad)} of {timing.messages} images {verb(len(bad), 'is', 'are')} damaged (message "
            f"{bad[0]}: {problems[bad[0]]}); "
            f"at most {MAX_DAMAGED:.0%} are replaced by their neighbours"
        )
    good = np.array([not problem for problem in problems])[timing.index]
    problem = f"message {bad[0]}: {problems[bad[0]]}" if bad else ""
    assert first.kind is not None
    small = {number: look.small for number, look in enumerate(collector.looks) if look.small is not None}
    return Track(camera, timing, first.kind, first.height, first.width, good, problem, small=small, grey=collector.grey)


def _video_track(
    camera: str, collector: _Collector, timing: TopicTiming, first: Look, problems: Sequence[str], bags: Bags
) -> Track:
    """A compressed video, in stamp order. Usable from its first keyframe on, and after a hole from the next one.

    A frame that builds on one that was not recorded decodes without an error, to a wrong image.
    """
    keys = np.array([look.key for look in collector.looks])
    if not keys.any():
        raise BadEpisode(
            f"{camera}: {timing.topic} holds {first.kind} video without a keyframe, or its format names another codec; "
            f"{_LEAVE}"
        )
    bad = next((i for i in range(int(keys.argmax()), len(problems)) if problems[i]), None)
    if bad is not None:
        raise BadEpisode(f"{camera}: message {bad} of the {first.kind} video: {problems[bad]}")
    assert first.kind is not None
    order, shown = display_order(bags, camera, timing.topic, first.kind, int(keys.argmax())), None
    if timing.duplicates or (timing.inversions and order is None):
        what = (
            f"with {counted(timing.duplicates, 'message')} of another's stamp"
            if timing.duplicates
            else "whose stamps are out of order"
        )
        raise BadEpisode(f"{camera}: {timing.topic} holds {first.kind} video {what}; {_LEAVE}")
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
            f"{steps.max() / align.SECOND:.2f} s, so that lost messages would shift its images; {_LEAVE}"
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
