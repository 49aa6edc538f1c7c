"""Seeded damage to the messages of R1 Lite recordings, MCAP and ROS 1: written anew with one thing that is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from r1lite_files import (
    ARM,
    ARM_TARGET,
    GRIPPER,
    GRIPPER_TARGET,
    HEAD,
    SECOND,
    WRISTS,
    McapWriter,
    Sent,
    compressed,
    edit,
    jpeg,
    recording,
    rename,
    write_bag,
)

from fault.mutate import Rng

TOPICS = (HEAD, *(topics[side] for topics in (WRISTS, ARM, GRIPPER, ARM_TARGET, GRIPPER_TARGET) for side in WRISTS))

type OneMessage = Callable[[Sent, Rng], Sent | None]
"""Another message in the place of one; None drops it."""


def take(path: Path) -> list[Sent]:
    """What was recorded in a path with a folder or file called `take<number>`: 9 + number frames."""
    found = re.search(r"take(\d+)", path.as_posix())
    assert found is not None, path
    return recording(frames=9 + int(found.group(1)))


def messages(path: Path, rng: Rng) -> str:
    """Write the recording again with one message, one topic or the file's structure changed."""
    kinds = [*MESSAGES, *TOPIC_WIDE, *WRITTEN]
    kind = kinds[int(rng.integers(len(kinds)))]
    topic = TOPICS[int(rng.integers(len(TOPICS)))]
    sent = take(path)
    if kind in MESSAGES:
        chosen = int(rng.integers(sum(s.topic == topic for s in sent)))
        sent = edit(sent, topic, lambda n, s: MESSAGES[kind](s, rng) if n == chosen else s)
    elif kind in TOPIC_WIDE:
        sent = TOPIC_WIDE[kind](sent, topic, rng)
    path.unlink()
    if path.suffix == ".bag":
        write_bag(path, sent)
    else:
        # not packed and without checksums, so that what is written over below is read
        McapWriter(compression="", crc=False).write(path, sent)
    if kind in WRITTEN:
        path.write_bytes(WRITTEN[kind](path.read_bytes(), rng))
    return f"message: {kind} ({topic})"


def _stamped(sent: Sent, stamp: int) -> Sent:
    return replace(sent, stamp=stamp)


def _valued(sent: Sent, change: Callable[[np.ndarray], np.ndarray]) -> Sent:
    """The array of a message, joint positions or a picture's bytes, changed."""
    key = "position" if sent.kind == "JointState" else "data"
    return replace(sent, value={**sent.value, key: change(np.array(sent.value[key]))})


def _not_finite(sent: Sent, rng: Rng) -> Sent:
    value = [np.nan, np.inf, -np.inf, 1e300][int(rng.integers(4))]
    return _valued(sent, lambda a: np.array([value, *a[1:]]) if a.dtype.kind == "f" else a[:-40])


def _other_picture(sent: Sent, rng: Rng) -> Sent:
    if sent.kind != "CompressedImage":
        return _valued(sent, lambda a: a[:-1])
    return replace(sent, value=compressed(jpeg(1, 1, (48, 80))))


def _other_kind(sent: Sequence[Sent], topic: str, rng: Rng) -> list[Sent]:
    twist: dict[str, Any] = {"six": [0.0] * 6}
    return edit(sent, topic, lambda n, s: replace(s, kind="TwistStamped", value=twist))


def _back(sent: Sequence[Sent], topic: str, rng: Rng) -> list[Sent]:
    """Stamps of the topic in reverse order."""
    stamps = [s.stamp for s in sent if s.topic == topic][::-1]
    return edit(sent, topic, lambda n, s: _stamped(s, stamps[n]))


MESSAGES: dict[str, OneMessage] = {
    "stamp zero": lambda s, rng: _stamped(s, 0),
    "stamp an hour late": lambda s, rng: _stamped(s, s.stamp + 3600 * SECOND),
    "stamp an hour early": lambda s, rng: _stamped(s, s.stamp - 3600 * SECOND),
    "stamp far future": lambda s, rng: _stamped(s, (2**31 - 1) * SECOND),
    "log time zero": lambda s, rng: replace(s, log=0),
    "log time huge": lambda s, rng: replace(s, log=4 * 10**18),
    "array empty": lambda s, rng: _valued(s, lambda a: a[:0]),
    "array short": lambda s, rng: _valued(s, lambda a: a[:-1]),
    "array long": lambda s, rng: _valued(s, lambda a: np.concatenate([a] * 1000)),
    "not finite": _not_finite,
    "another picture's size": _other_picture,
    "message lost": lambda s, rng: None,
}

TOPIC_WIDE: dict[str, Callable[[Sequence[Sent], str, Rng], list[Sent]]] = {
    "topic lost": lambda sent, topic, rng: edit(sent, topic, lambda n, s: None),
    "one message left": lambda sent, topic, rng: edit(sent, topic, lambda n, s: s if n == 0 else None),
    "topic renamed": lambda sent, topic, rng: rename(sent, topic, f"{topic}_2"),
    "another type": _other_kind,
    "stamps backwards": _back,
    "stamps all the same": lambda sent, topic, rng: edit(sent, topic, lambda n, s: _stamped(s, sent[0].stamp)),
    "stamps a second late": lambda sent, topic, rng: edit(sent, topic, lambda n, s: _stamped(s, s.stamp + SECOND)),
    "arrays empty": lambda sent, topic, rng: edit(sent, topic, lambda n, s: _valued(s, lambda a: a[:0])),
}


def _length(data: bytes, rng: Rng) -> bytes:
    """A picture's length, before its bytes, is absurd."""
    at = data.index(b"\xff\xd8\xff") - 4
    return data[:at] + [2**31, 2**32 - 1, 2**24][int(rng.integers(3))].to_bytes(4, "little") + data[at + 4 :]


WRITTEN: dict[str, Callable[[bytes, Rng], bytes]] = {
    "schema of another name": lambda data, rng: data.replace(b"_msgs/msg/JointState", b"_msgs/msg/JointStatX").replace(
        b"sensor_msgs/JointState", b"sensor_msgs/JointStatX"
    ),
    "definition damaged": lambda data, rng: data.replace(b"float64[] position", b"float64[] positiXn"),
    "definition of another type": lambda data, rng: data.replace(b"float64[] position", b"float32[] position"),
    "absurd length": _length,
    "channel of another encoding": lambda data, rng: data.replace(b"\x03\x00\x00\x00cdr", b"\x03\x00\x00\x00xyz"),
}
