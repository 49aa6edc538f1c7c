"""Galaxea R1 Lite: which topics are read, what their numbers mean, and how they become state and action."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from fwdata.errors import BadEpisode

type Role = Literal["feedback", "target"]
type ActionSet = Literal["arms", "arms+torso", "arms+torso+chassis"]

HEAD = "head_rgb"
"""Camera whose header stamps are the clock of an episode."""

SIDES = ("left", "right")


VIDEO_ENDINGS = ("compressed_video", "compressedVideo", "video", "h264", "h265", "hevc", "ffmpeg")
"""How recorders of H.264 and H.265 end a camera's topic, besides `compressed`."""


def _cameras() -> dict[str, tuple[str, ...]]:
    """Topics of every camera, preferred first; without an ending they hold plain images."""
    bases: dict[str, tuple[str, ...]] = {
        HEAD: ("/hdas/camera_head/left_raw/image_raw_color",),
        "head_right_rgb": ("/hdas/camera_head/right_raw/image_raw_color",),
    }
    for side in SIDES:
        wrist = f"/hdas/camera_wrist_{side}/color"
        bases[f"{side}_wrist_rgb"] = (f"{wrist}/image_raw", f"{wrist}/image_rect_raw")
    ends = ("compressed", *VIDEO_ENDINGS)
    return {name: (*(f"{topic}/{end}" for end in ends for topic in topics), *topics) for name, topics in bases.items()}


CAMERAS = _cameras()
"""Topics of every camera this converter knows, in order of preference."""


@dataclass(frozen=True)
class TopicPart:
    """Numbers of one topic that become columns of state (role feedback) or action (role target)."""

    name: str
    """What messages and decisions call it, such as `left_arm`."""
    role: Role
    """"feedback" for state, "target" for action."""
    topics: tuple[str, ...]
    """Topics in order of preference; the first one in the recording is read."""
    names: tuple[str, ...]
    """One name per column."""
    exact: bool = False
    """Whether the vector must have just this length. Feedback may hold the gripper as a further entry, so it is False
    there; a target of 7 numbers is another robot."""


def _arms() -> tuple[TopicPart, ...]:
    parts = []
    for side in SIDES:
        joints, gripper = tuple(f"{side}_joint_{i + 1}" for i in range(6)), (f"{side}_gripper",)
        target = f"/motion_target/target_position_gripper_{side}"
        older = f"/motion_control/position_control_gripper_{side}"
        parts += [
            TopicPart(f"{side}_arm", "feedback", (f"/hdas/feedback_arm_{side}",), joints),
            TopicPart(f"{side}_gripper", "feedback", (f"/hdas/feedback_gripper_{side}",), gripper),
            TopicPart(f"{side}_arm", "target", (f"/motion_target/target_joint_state_arm_{side}",), joints, exact=True),
            TopicPart(f"{side}_gripper", "target", (target, older), gripper),
        ]
    return tuple(parts)


TORSO = (
    TopicPart("torso", "feedback", ("/hdas/feedback_torso",), tuple(f"torso_joint_{i + 1}" for i in range(3))),
    TopicPart(
        "torso",
        "target",
        ("/motion_target/target_speed_torso",),
        tuple(f"torso_{axis}" for axis in ("linear_x", "linear_z", "angular_y", "angular_z")),
    ),
)
_WHEELS = ("front_left", "front_right", "rear")
CHASSIS = (
    TopicPart(
        "chassis",
        "feedback",
        ("/hdas/feedback_chassis",),
        (*(f"chassis_steering_{w}" for w in _WHEELS), *(f"chassis_wheel_speed_{w}" for w in _WHEELS)),
    ),
    TopicPart(
        "chassis",
        "target",
        ("/motion_target/target_speed_chassis",),
        tuple(f"chassis_{axis}" for axis in ("linear_x", "linear_y", "angular_z")),
    ),
)


def parts_of(action_set: ActionSet) -> tuple[TopicPart, ...]:
    """Parts in the order of the state's and action's columns."""
    parts = _arms()
    if action_set != "arms":
        parts += TORSO
    if action_set == "arms+torso+chassis":
        parts += CHASSIS
    return parts


def column_names(parts: Sequence[TopicPart], role: Role) -> tuple[str, ...]:
    """Names of the columns of state (feedback) or action (target)."""
    return tuple(name for part in parts if part.role == role for name in part.names)


def columns(part: TopicPart, message: Any, topic: str) -> list[float]:
    """The part's numbers of one decoded message, float64; BadEpisode when it holds too few or is of another robot."""
    try:
        if hasattr(message, "position"):
            values = _joints(part, message, topic)
        elif hasattr(message, "data"):  # std_msgs Float32
            values = [float(message.data)]
        else:
            values = _speeds(part, message)
    except BadEpisode:
        raise
    except (AttributeError, TypeError, ValueError):  # the definition comes from the file: fields may be anything
        kind = type(message).__name__.replace("__", "/")
        raise BadEpisode(
            f"{topic} holds {kind} messages without the numbers of {part.name}, expected JointState, Twist or Float32"
        ) from None
    if len(values) != len(part.names):
        raise BadEpisode(f"{topic} holds {len(values)} numbers, expected {len(part.names)}")
    return values


def first_message(topic: str, message: Any, part: TopicPart | None) -> list[str]:
    """What the first message of a topic says against how its messages are read. part: None for images."""
    if part is None:
        text = str(getattr(message, "format", ""))
        if "jpeg compressed rgb" not in text:
            return []
        return [
            f"{topic}: its format is {text[:60]!r}, by which ROS exchanges red and blue of its JPEGs; they are read "
            "with the colours that JPEG files have, look at them with fwdata preview"
        ]
    order = named_order(len(part.names), tuple(getattr(message, "name", ())))
    if order is None:
        return _more_values(topic, message, part)
    listed = ", ".join(str(name) for name in message.name)
    return [f"{topic}: its joints are taken in the order of their names, not of their places ({listed})"]


def _more_values(topic: str, message: Any, part: TopicPart) -> list[str]:
    """An arm that reports more than its joints and its gripper, whose first values are taken for the joints."""
    held, wanted = len(getattr(message, "position", ())), len(part.names)
    if not part.name.endswith("arm") or held <= wanted + 1:
        return []
    return [f"{topic} holds {held} joint values, expected {wanted} and a gripper's; the first {wanted} are taken"]


@lru_cache(maxsize=256)
def named_order(count: int, names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Places of the joints 1 to `count` by names that end in numbers (`left_arm_joint6`); None where names tell no
    other order than that of the values. R1 Lite's own names are empty, or one for the whole arm."""
    numbered = [(int(match[0]), place) for place, name in enumerate(names) if (match := _joint_number(name))]
    numbers = sorted(number for number, _ in numbered)
    if count < 2 or len(numbers) < count or len(set(numbers)) < len(numbers):
        return None
    order = tuple(place for _, place in sorted(numbered)[:count])
    return None if order == tuple(range(count)) else order


def _joint_number(name: str) -> re.Match[str] | None:
    return None if "gripper" in name.lower() else re.search(r"[0-9]+(?=\D*$)", name)


def _joints(part: TopicPart, message: Any, topic: str) -> list[float]:
    count, position = len(part.names), message.position
    if len(names := getattr(message, "name", ())) == len(position) > 1:
        order = named_order(count, tuple(names))
        if order is not None:
            position = position[list(order)]
    if part.name == "chassis":
        velocity = message.velocity
        if len(position) < 3 or len(velocity) < 3:
            raise BadEpisode(f"{topic} holds {len(position)} positions and {len(velocity)} speeds, expected 3 of each")
        return [*position[:3].tolist(), *velocity[:3].tolist()]
    if part.exact and len(position) == 7:
        raise BadEpisode(f"{topic} holds 7 joint targets: this is an R1 Pro recording, not an R1 Lite one")
    if len(position) < count or (part.exact and len(position) != count):
        raise BadEpisode(f"{topic} holds {len(position)} joint values, expected {count}")
    return np.asarray(position[:count], np.float64).tolist()  # type: ignore[no-any-return]


def _speeds(part: TopicPart, message: Any) -> list[float]:
    twist = getattr(message, "twist", message)
    return [
        float(getattr(getattr(twist, kind), axis))
        for kind, axis in (name.removeprefix(f"{part.name}_").split("_") for name in part.names)
    ]
