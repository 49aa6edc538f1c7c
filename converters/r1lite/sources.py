"""Whether a topic comes from one steady source: renamed on the way, two senders at once, a clock that was set back.

Rows would be made of any of these without an error: the last value is held, or two series are taken in turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np

from converters.r1lite import align
from converters.r1lite.topics import TopicPart
from fwdata.errors import BadEpisode
from fwdata.wording import counted, verb

COVERED, APART, FEW = 0.9, 0.1, 5
"""Share of the time that a topic covers to be taken first, share in which two that follow each other overlap, and
fewest messages that such a topic has."""

SPARSER = 5
"""A preferred topic with so many times fewer messages than another one is not the one that was recorded."""

ALTERNATE, RETURN, STEP, MOVING = 0.8, 0.25, 0.05, 0.3
"""Share of the steps that are undone by the next message, what counts as undone, the smallest step that counts (as a
share of the range), and the share of all steps that count."""

MOST_LISTED = 4
"""Absent topics that a message names."""

FEWEST_OF_A_ROBOT = 2
"""Topics of joints and grippers that a further robot has at least: one alone is republished or throttled."""

LEAST_RAD, LEAST_STROKE = 0.02, 0.02
"""Ranges (rad, and share of a gripper's stroke) below which values flicker by the resolution of their sensor."""

LEAST_MESSAGES = 20
SET_BACK_NS, NEAR = 50_000_000, 20
"""Smallest step back of a clock, ns, and of how many messages on each side of it the delays are compared."""


def source_of(name: str, topics: Sequence[str], logs: Mapping[str, align.Stamps], warnings: list[str]) -> str | None:
    """The topic to read for a part or camera: the preferred one, unless another has its recording; None: none.

    topics: in order of preference. logs: log times int64 [n] of those recorded. BadEpisode for a topic that was renamed
    on the way, whose halves no row may mix.
    """
    recorded = [topic for topic in topics if topic in logs]
    if len(recorded) < 2:
        return recorded[0] if recorded else None
    begin = min(int(logs[topic].min()) for topic in recorded)
    whole = max(1, max(int(logs[topic].max()) for topic in recorded) - begin)
    share = {topic: int(np.ptp(logs[topic])) / whole for topic in recorded}
    most = max(len(logs[topic]) for topic in recorded)
    full = [t for t in recorded if share[t] >= COVERED and SPARSER * len(logs[t]) >= most]
    if full:
        if full[0] != recorded[0]:
            warnings.append(
                f"{recorded[0]} ({name}) has {len(logs[recorded[0]])} messages in {share[recorded[0]]:.0%} of the "
                f"recording; {full[0]} is read instead, which has {len(logs[full[0]])}"
            )
        return full[0]
    steady = [topic for topic in recorded if len(logs[topic]) >= FEW]
    for one, other in pairwise(steady):
        first, second = sorted((one, other), key=lambda topic: int(logs[topic].min()))
        if int(logs[first].max()) - int(logs[second].min()) < APART * whole:
            at = (int(logs[second].min()) - begin) / align.SECOND
            raise BadEpisode(
                f"{name} is recorded as {first} and, from {at:.1f} s on, as {second}: a topic that was renamed on the "
                "way, of which only one is read; give both one name in the recording, or leave it out (--exclude)"
            )
    return recorded[0]


def absent(missing: Mapping[str, Sequence[str]], held: Collection[str]) -> str:
    """What to say of parts and cameras without a topic. missing: name -> its topics; held: topics of the recording."""
    names = [f"{topics[0]} ({name})" for name, topics in missing.items()]
    listed = ", ".join(names[:MOST_LISTED]) + (", .." if len(names) > MOST_LISTED else "")
    told = f"{counted(len(missing), 'needed topic')} {verb(len(missing), 'is', 'are')} absent or empty: {listed}"
    below = _namespaces({topic for topics in missing.values() for topic in topics}, held)
    if below:
        space, count = below.most_common(1)[0]
        return f"{told}; {count} such topics are there below {space}: give them their names without it in the recording"
    there = f"; it has {counted(len(held), 'topic')}, such as {', '.join(sorted(held)[:3])}" if held else ""
    return f"{told}{there}; leave the recording out (--exclude), or record them"


def other_robots(topics: Collection[str], held: Collection[str]) -> list[str]:
    """A sentence for every namespace that has topics of joints and grippers of its own, which are not read."""
    return [
        f"{count} topics of joints and grippers below {space} are not read: another robot's, or a copy of these"
        for space, count in sorted(_namespaces(topics, held).items())
        if count >= FEWEST_OF_A_ROBOT
    ]


def _namespaces(topics: Collection[str], held: Collection[str]) -> Counter[str]:
    """What stands before these topics in others of the recording -> how many."""
    return Counter(
        other[: -len(topic)] for other in held for topic in topics if other != topic and other.endswith(topic)
    )


def check_one_sender(part: TopicPart, topic: str, values: align.Values) -> None:
    """BadEpisode where values [n, d] of sorted stamps jump to and fro: two programs published on one topic."""
    if len(values) < LEAST_MESSAGES:
        return
    steps, twice = np.abs(np.diff(values, axis=0))[:-1], np.abs(values[2:] - values[:-2])
    span = np.ptp(values, axis=0)
    least = LEAST_STROKE * np.maximum(1.0, np.abs(values).max(axis=0)) if "gripper" in part.name else LEAST_RAD
    counted = (steps > STEP * span) & (span > least)
    undone = counted & (twice < RETURN * steps)
    wrong = np.flatnonzero((counted.mean(axis=0) > MOVING) & (undone.sum(axis=0) > ALTERNATE * counted.sum(axis=0)))
    if len(wrong):
        column = int(wrong[0])
        row = int(np.flatnonzero(undone[:, column])[0])
        before, after = values[row, column], values[row + 1, column]
        raise BadEpisode(
            f"{topic}: {part.names[column]} goes to and fro from message to message ({before:.4g}, {after:.4g}, "
            f"{values[row + 2, column]:.4g} at messages {row} to {row + 2} by stamp): two programs published on one "
            "topic, and no row can tell them apart; leave one out of the recording, or leave it out (--exclude)"
        )


def check_set_back(topic: str, stamps: align.Stamps, logs: align.Stamps) -> None:
    """BadEpisode where stamps step back while log times go on, and stay there: rows of two times would be mixed.

    Messages out of order return to their delay at once. stamps, logs: int64 [n], in written order.
    """
    order = np.argsort(logs, kind="stable")
    ordered, delays = stamps[order], (logs - stamps)[order]
    back = -np.diff(ordered)
    for at in np.flatnonzero(back > 0) + 1:
        before, after = delays[max(0, at - NEAR) : at], delays[at : at + NEAR]
        if min(len(before), len(after)) < FEW:
            continue
        moved = float(np.median(after) - np.median(before))
        apart = float(np.percentile(after, 10) - np.percentile(before, 90))  # not so where all come out of order
        if min(moved, apart) > SET_BACK_NS and moved > back[at - 1]:
            raise BadEpisode(
                f"{topic}: its clock was set back by {moved / align.SECOND:.3f} s at message {int(order[at])}, so that "
                "later messages have the stamps of earlier ones; correct the stamps, or leave the recording out "
                "(--exclude)"
            )
