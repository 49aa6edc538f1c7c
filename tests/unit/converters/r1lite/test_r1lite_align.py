"""Alignment of R1 Lite topics against a naive reference: pure functions, and whole irregular recordings."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import r1lite_files as r1
import r1lite_reading as rd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.r1lite import align

EPOCH = 1_754_400_852_323_083_011
stamp_lists = st.lists(st.integers(0, 3_000_000_000), min_size=1, max_size=40)


def naive_order(stamps):
    """Positions of the last written message of every stamp, by stamp."""
    last = {stamp: i for i, stamp in enumerate(stamps)}
    return [last[stamp] for stamp in sorted(last)]


def naive_nearest(time, stamps):
    best = 0
    for i, stamp in enumerate(stamps):
        if abs(stamp - time) < abs(stamps[best] - time):
            best = i
    return best


def naive_value(time, stamps, values, interpolate=True):
    """(value, inside a hole) at a time; exact integer arithmetic for the weights."""
    before = [i for i, stamp in enumerate(stamps) if stamp <= time]
    if not before:
        return values[0], False
    i = before[-1]
    if i == len(stamps) - 1 or stamps[i] == time:
        return values[i], False
    if stamps[i + 1] - stamps[i] > 250_000_000:
        return values[i], True
    if not interpolate:
        return values[i], False
    share = (time - stamps[i]) / (stamps[i + 1] - stamps[i])
    return values[i] + share * (values[i + 1] - values[i]), False


@given(stamp_lists)
def test_order(stamps):
    found = align.order_of(np.array([EPOCH + s for s in stamps], np.int64))
    assert found.index.tolist() == naive_order(stamps)
    assert found.duplicates == len(stamps) - len(set(stamps))
    assert found.inversions == sum(b < a for a, b in itertools.pairwise(stamps))


@given(stamp_lists, stamp_lists)
def test_nearest(times, stamps):
    ordered = sorted(set(stamps))
    found = align.nearest(np.array(times, np.int64) + EPOCH, np.array(ordered, np.int64) + EPOCH)
    assert found.tolist() == [naive_nearest(t, ordered) for t in times]


def test_of_two_equally_near_pictures_the_earlier_is_taken():
    stamps = np.array([EPOCH, EPOCH + 20, EPOCH + 40])
    assert align.nearest(np.array([EPOCH + 10, EPOCH + 30, EPOCH + 31]), stamps).tolist() == [0, 1, 2]


@given(stamp_lists, stamp_lists, st.integers(0, 2**32))
def test_interpolation_and_hold(times, stamps, seed):
    ordered = sorted(set(stamps))
    values = np.random.default_rng(seed).normal(size=(len(ordered), 2))
    at, known = np.array(times, np.int64) + EPOCH, np.array(ordered, np.int64) + EPOCH
    found, holes = align.interpolated(at, known, values)
    naive = [naive_value(t, ordered, values) for t in times]
    np.testing.assert_allclose(found, [v for v, _ in naive], atol=1e-12)
    assert holes.tolist() == [hole for _, hole in naive]
    held = align.held(at, known, values)
    np.testing.assert_array_equal(held, [naive_value(t, ordered, values, False)[0] for t in times])


def test_epoch_stamps_keep_their_nanoseconds():
    """float64 seconds since 1970 resolve 240 ns; rows must not depend on that."""
    stamps = np.array([EPOCH, EPOCH + 100], np.int64)
    found, _ = align.interpolated(np.array([EPOCH + 25], np.int64), stamps, np.array([[0.0], [1.0]]))
    assert found[0, 0] == 0.25


@pytest.mark.parametrize(("count", "sparse"), [(7, True), (8, False)])
def test_sparse_topics(count, sparse):
    assert align.is_sparse(count, 40) is sparse


def test_frame_rate():
    assert align.frame_rate(np.array([0, 66_000_000, 133_000_000, 400_000_000])) == 15
    assert align.frame_rate(np.array([5])) is None


@dataclass(frozen=True)
class Trouble:
    """What happens to one topic: jitter in ms, messages stamped like their predecessor, (first, number) left out."""

    topic: str
    jitter: int
    seed: int
    equal: tuple[int, ...]
    pause: tuple[int, int]

    def apply(self, messages):
        numbers = [n for n, s in enumerate(messages) if s.topic == self.topic]
        rng, out = np.random.default_rng(self.seed), list(messages)
        for n in numbers:
            moved = int(rng.integers(-self.jitter, self.jitter + 1)) * 1_000_000
            out[n] = replace(out[n], stamp=out[n].stamp + moved)
        for i in self.equal:
            i = 1 + i % (len(numbers) - 1)
            out[numbers[i]] = replace(out[numbers[i]], stamp=out[numbers[i - 1]].stamp)
        first = self.pause[0] % len(numbers)
        gone = set(numbers[first : first + self.pause[1] * len(numbers) // 24])
        return [s for n, s in enumerate(out) if n not in gone]


TOPICS = [r1.HEAD, *r1.WRISTS.values(), *r1.ARM.values(), r1.GRIPPER["left"], *r1.ARM_TARGET.values()]
troubles = st.lists(
    st.builds(
        Trouble,
        st.sampled_from(TOPICS),
        st.integers(0, 30),
        st.integers(0, 2**32),
        st.lists(st.integers(0, 99), max_size=3).map(tuple),
        st.tuples(st.integers(0, 99), st.integers(0, 8)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda t: t.topic,
)


BASE = r1.recording(frames=24)


def expected(messages):
    """Rows as the rules say, in plain Python: (stamps, state, action, head and left wrist buffers, valid)."""
    by_topic = {}
    for s in messages:
        by_topic.setdefault(s.topic, []).append(s)
    clean = {t: [found[i] for i in naive_order([s.stamp for s in found])] for t, found in by_topic.items()}
    head = clean[r1.HEAD]
    feedback = [t for side in ("left", "right") for t in (r1.ARM[side], r1.GRIPPER[side])]
    keep = [True] * len(head)
    for topic in feedback:
        first, last = clean[topic][0].stamp, clean[topic][-1].stamp
        if first - head[0].stamp > 200_000_000:
            keep = [k and s.stamp >= first for k, s in zip(keep, head, strict=True)]
        if head[-1].stamp - last > 200_000_000:
            keep = [k and s.stamp <= last for k, s in zip(keep, head, strict=True)]
    head = [s for k, s in zip(keep, head, strict=True) if k]
    valid, state, action = [True] * len(head), [], []
    for row, s in enumerate(head):
        values = {"feedback": [], "target": []}
        for side in ("left", "right"):
            for role, topic, width in (
                ("feedback", r1.ARM[side], 6),
                ("feedback", r1.GRIPPER[side], 1),
                ("target", r1.ARM_TARGET[side], 6),
                ("target", r1.GRIPPER_TARGET[side], 1),
            ):
                known = clean[topic]
                numbers = np.array([k.value["position"][:width] for k in known])
                dense = role == "feedback" or len(by_topic[topic]) >= 0.2 * len(head)
                value, hole = naive_value(s.stamp, [k.stamp for k in known], numbers, dense)
                values[role] += value.tolist()
                valid[row] &= not (hole and role == "feedback")
        state.append(values["feedback"])
        action.append(values["target"])
        for side in ("left", "right"):
            wrist = clean[r1.WRISTS[side]]
            near = wrist[naive_nearest(s.stamp, [w.stamp for w in wrist])]
            valid[row] &= abs(near.stamp - s.stamp) <= 2e9 / 15
        if row and s.stamp - head[row - 1].stamp > 250_000_000:
            valid[row] = False
    left = clean[r1.WRISTS["left"]]
    shown = [left[naive_nearest(s.stamp, [w.stamp for w in left])] for s in head]
    pictures = [[bytes(s.value["data"]) for s in found] for found in (head, shown)]
    return [s.stamp for s in head], state, action, pictures, valid


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(troubles, st.sampled_from([None, 9_000, 200_000]))
def test_irregular_recordings(what, chunk_bytes):
    messages = BASE
    for trouble in what:
        messages = trouble.apply(messages)
    with tempfile.TemporaryDirectory() as folder:
        r1.McapWriter(chunk_bytes=chunk_bytes).write(Path(folder) / "x.mcap", messages)
        episode = rd.read_one(Path(folder), task="t", check_rate=False)
        found = [rd.buffers(episode, name) for name in ("head_rgb", "left_wrist_rgb")]
    stamps, state, action, pictures, valid = expected(messages)
    assert [episode.metadata["start_ns"] + int(t) for t in episode.timestamp_ns] == stamps
    np.testing.assert_allclose(episode.state, state, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(episode.action, action, rtol=1e-6, atol=1e-6)
    assert episode.valid.tolist() == valid
    assert found == pictures
