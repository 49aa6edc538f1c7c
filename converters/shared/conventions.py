"""What layouts that several source formats share claim about their numbers, for the evidence that is measured."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fwdata.api import (
    ActionMeaning,
    ArmClaim,
    Bound,
    CameraClaim,
    ColourClaim,
    Conventions,
    GripperClaim,
    GripperScale,
    RotationClaim,
    UnitClaim,
)
from fwdata.manifest import Manifest

FINGER = 0.045
"""Largest opening of one Panda finger in m, some millimetres above the joint's 0.04."""

OPENING = 0.08
"""Sum of both fingers' openings in m when they are open."""

FINGERS = 0.03
"""Largest difference of both fingers' openings in m: they move together."""

REACH = 3.0
"""Largest coordinate of LIBERO's end effector in m, with a wide margin: 20 true episodes stay within 1.2."""

TURN = 6.6
"""Largest size of a rotation vector, which is at most a full turn, in rad, with a margin."""

JOINT = 12.6
"""Largest angle of a joint in rad, two turns: no arm of these layouts turns further, and most degrees are larger."""

STEP = (0.004, 0.06)
"""How far LIBERO's end effector moves in a row (m) per unit of its command: 0.0106 to 0.0129 in true demonstrations;
0.05 where the controller reaches its target within the row."""

SIDES = ("left", "right")

_FULL = {"unit": 1.0, "percent": 100.0}
"""Scale -> what an open gripper reads."""

UNSHOWN = ColourClaim(reason="there is nothing to compare them with")
"""Colours of images that are stored as recorded: whether red and blue were exchanged before is not to be seen."""


def libero(
    cameras: Mapping[str, str],
    quaternions: NDArray[np.float32] | None = None,
    chosen: Collection[str] = (),
) -> Conventions:
    """LIBERO's 8 state and 7 action numbers as they are stored (gripper 1 open, 0 closed).

    cameras: names of the "fixed" and the "wrist" camera, where their images are turned as published (180 degrees), or
    by an option (those in `chosen`).
    quaternions: float32 [T, 4], x y z w, of the end effector from the same file.
    """
    claims = [CameraClaim(cameras["fixed"], up="z+", right="y-")] if "fixed" in cameras else []
    claims += [CameraClaim(cameras["wrist"], right="y-", mounted=True)] if "wrist" in cameras else []
    claims = [replace(claim, chosen=claim.name in chosen) for claim in claims]
    return Conventions(
        layout="libero",
        action="delta",
        pairs=((0, 0), (1, 1), (2, 2)),
        grippers=(GripperClaim("gripper", 6, (6, 7), (1.0, -1.0), 1, "unit", full=OPENING),),
        rotations=(RotationClaim((3, 4, 5), "axis_angle", True, (3, 4, 5), quaternions),),
        arms=(ArmClaim("arm", (0, 1, 2, 3, 4, 5), cameras.get("wrist")),),
        position=(0, 1, 2),
        cameras=tuple(claims),
        bounds=(
            Bound("finger_1 (m)", (6,), -FINGER, FINGER),
            Bound("finger_2 (m)", (7,), -FINGER, FINGER),
            Bound("finger_1 + finger_2 (m)", (6, 7), -FINGERS, FINGERS),
        ),
        step=STEP,
        colour=UNSHOWN,
        units=(UnitClaim("position", (0, 1, 2), "m", REACH), UnitClaim("rotation", (3, 4, 5), "rad", TURN)),
        simulated=True,
    )


def two_arms(
    layout: str,
    action: ActionMeaning,
    names: tuple[Sequence[str], Sequence[str]],
    scale: GripperScale | None,
    wrists: Sequence[str],
) -> Conventions:
    """Two arms whose columns are called `left_joint_1`, `left_gripper`, ..; grippers count up when they open.

    names: of the state and of the action columns. wrists: cameras on the left and on the right arm, () for none.
    """
    state_names, action_names = names
    cameras = dict(zip(SIDES, wrists, strict=False))
    joints = {
        side: tuple(i for i, name in enumerate(state_names) if name.startswith(f"{side}_joint")) for side in SIDES
    }
    arms = tuple(ArmClaim(side, columns, cameras.get(side)) for side, columns in joints.items() if columns)
    full = _FULL.get(scale or "")
    known = (
        replace(each, polarity=1, action_scale=scale, state_scale=scale, full=full)
        for each in named_grippers(state_names, action_names)
    )
    return Conventions(
        layout=layout,
        action=action,
        grippers=tuple(known),
        arms=arms,
        colour=UNSHOWN,
        units=tuple(UnitClaim(f"{arm.name} arm", arm.state, "rad", JOINT) for arm in arms),
    )


def scale_option(scale: GripperScale) -> dict[str, str]:
    """The flag that agrees with grippers on the other of both scales, for `Conventions.options`; no other has one."""
    if scale == "unit":
        return {"gripper_scale -> 0 .. 100": "--gripper-scale 0-100"}
    return {"gripper_scale -> 0 .. 1": "--gripper-scale 0-1"}


def rate_option(label: float | None) -> dict[str, str]:
    """The manifest key that agrees with the rate that the source states, for `Conventions.options`."""
    return {"row_rate": f"fps.hz: {label:g}"} if label else {}


def order_option(detector: str, cameras: Sequence[str]) -> dict[str, str]:
    """The manifest key that stitches cameras in another order, for `Conventions.options`."""
    return {detector: f"stitch.cameras: [{', '.join(cameras)}]"}


def as_stitched(manifest: Manifest, wrists: tuple[str, str]) -> tuple[str, str]:
    """The cameras that are taken for the left and the right arm's.

    Where a view stitches nothing but these two the other way round, the right one is taken for the left arm's.
    """
    exchanged = manifest.stitch.cameras == _exchanged(manifest.cameras, wrists) != manifest.cameras
    return (wrists[1], wrists[0]) if exchanged else wrists


def swapped_wrists(manifest: Manifest, wrists: tuple[str, str]) -> dict[str, str]:
    """The manifest key that stitches both wrist cameras the other way round; {} where the view has not both."""
    stitched = manifest.stitch.cameras
    return order_option("wrists_exchanged", _exchanged(stitched, wrists)) if set(wrists) <= set(stitched) else {}


def _exchanged(cameras: Sequence[str], pair: tuple[str, str]) -> tuple[str, ...]:
    """The cameras with two of them exchanged."""
    other = {pair[0]: pair[1], pair[1]: pair[0]}
    return tuple(other.get(name, name) for name in cameras)


def is_gripper(name: str) -> bool:
    """Whether a column is called a gripper's opening: `left_gripper`, `gripper.pos`; not its force, speed or place."""
    words = re.findall(r"[a-z]+", name.lower())
    if name.endswith("gripper"):
        return True
    return "gripper" in words and set(words[words.index("gripper") + 1 :]) <= _OPENING


_OPENING = frozenset({"pos", "position", "open", "opening", "width", "stroke", "joint", "state", "cmd", "command"})
"""Words that may follow "gripper" in the name of a column that holds its opening."""


def named_grippers(state_names: Sequence[str], action_names: Sequence[str]) -> tuple[GripperClaim, ...]:
    """Columns that `is_gripper` knows by their names, nothing decided about them."""
    where = {name: index for index, name in enumerate(state_names)}
    return tuple(
        GripperClaim(name, index, (where[name],) if name in where else ())
        for index, name in enumerate(action_names)
        if is_gripper(name)
    )
