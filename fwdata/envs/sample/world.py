"""The sample world: a table with a red and a blue button, one or two planar arms, and a scripted expert.

Lengths are metres, angles radians. World frame: x to the right, y away from the robot, z up; the table top is z = 0.
An arm has 6 joints and a gripper, stored as 7 numbers:

    0 shoulder   yaw of the upper arm, 0 = straight ahead, counter-clockwise
    1 elbow      yaw of the forearm against the upper arm
    2 lowering   0 above the table .. LOWERED on it; follows the gripper
    3, 4         smooth functions of shoulder and elbow that move nothing
    5 wrist      yaw of the fingers against the forearm; the expert keeps them straight ahead
    6 gripper    1 open .. 0 closed

A state is the arms' numbers one after the other (left first), and an action is the next state's target: drive targets
are reached within the step unless they are further than `MAX_JOINT_STEP` or `MAX_GRIPPER_STEP` away.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.sample.tasks import TASKS, Task

type Point = tuple[float, float]
type State = NDArray[np.float32]

ARM_DIMS = 7
LINK = 0.28
"""Length of the upper arm and of the forearm."""
LOWERED = 0.5
MAX_JOINT_STEP = 0.2
MAX_GRIPPER_STEP = 0.34
PRESS_RADIUS = 0.07
"""A closed gripper this near to a button's centre presses it."""
BUTTON_DISTANCE = 0.185
"""Least distance of the two buttons' centres."""
CLOSED = 0.35
"""A gripper value up to this counts as closed."""

_SPEED = 0.0148
_GRIPPER_SPEED = 0.25


@dataclass(frozen=True)
class Arm:
    """Where an arm stands."""

    name: str
    """Prefix of its columns."""
    base: Point
    """Shoulder on the table, m."""
    home: Point
    """Nominal resting place of the hand, m."""
    elbow: int
    """+1 when the elbow points to the left, -1 to the right."""


@dataclass(frozen=True)
class Layout:
    """The arms of a robot, and the area of the table that buttons lie in."""

    arms: tuple[Arm, ...]
    """Arms, in the order of their columns."""
    area: Point
    """Middle of the area, m."""
    spread: Point
    """Half the size of the area in x and y, m."""

    @property
    def state_dims(self) -> int:
        """Numbers in a state."""
        return ARM_DIMS * len(self.arms)


TWO_ARMS = Layout(
    arms=(
        Arm("left", base=(-0.16, -0.04), home=(-0.22, 0.13), elbow=1),
        Arm("right", base=(0.16, -0.04), home=(0.22, 0.13), elbow=-1),
    ),
    area=(0.0, 0.35),
    spread=(0.12, 0.075),
)
ONE_ARM = Layout(
    arms=(Arm("arm", base=(0.0, -0.08), home=(0.0, 0.13), elbow=-1),),
    area=(0.0, 0.34),
    spread=(0.15, 0.075),
)


@dataclass(frozen=True)
class Button:
    """A button on the table."""

    colour: str
    """Colour word."""
    centre: Point
    """Place on the table, m."""


@dataclass(frozen=True)
class Scene:
    """What an episode starts from."""

    layout: Layout
    """The robot."""
    buttons: tuple[Button, ...]
    """Buttons on the table."""
    hands: tuple[Point, ...]
    """Where each arm's hand rests at the start, m."""
    speed: float
    """Factor on the speed of this episode's expert."""
    bow: float
    """Angle by which the expert leaves the straight line, rad."""
    offset: Point
    """Where on the button the expert presses, m from its centre."""

    def button(self, colour: str) -> Button:
        """The button of this colour."""
        return next(button for button in self.buttons if button.colour == colour)

    def pressing_arm(self, task: Task) -> int:
        """Index of the arm that presses this task's button: each colour has its own, as far as there are arms."""
        return min(TASKS.index(task), len(self.layout.arms) - 1)

    def start_state(self) -> State:
        """float32 [state_dims]: the first state, grippers open."""
        poses = [arm_pose(arm, hand, 1.0) for arm, hand in zip(self.layout.arms, self.hands, strict=True)]
        return np.concatenate(poses).astype(np.float32)


def sample_scene(rng: np.random.Generator, layout: Layout) -> Scene:
    """A scene of the recordings' distribution: a button of each colour anywhere in the layout's area, not too close."""
    while True:
        centres = [_near(rng, layout.area, layout.spread) for _ in TASKS]
        if math.dist(*centres) >= BUTTON_DISTANCE:
            break
    buttons = tuple(Button(task.colour, centre) for task, centre in zip(TASKS, centres, strict=True))
    hands = tuple(_near(rng, arm.home, (0.025, 0.025)) for arm in layout.arms)
    return Scene(
        layout=layout,
        buttons=buttons,
        hands=hands,
        speed=float(rng.uniform(0.92, 1.12)),
        bow=float(rng.uniform(-0.35, 0.35)),
        offset=_near(rng, (0.0, 0.0), (0.006, 0.006)),
    )


def _near(rng: np.random.Generator, centre: Point, spread: Point) -> Point:
    dx, dy = rng.uniform(-1.0, 1.0, 2)
    return centre[0] + float(dx) * spread[0], centre[1] + float(dy) * spread[1]


def arm_pose(arm: Arm, hand: Point, gripper: float) -> NDArray[np.float64]:
    """float64 [7]: joints and gripper that bring the hand to this place (pulled into reach when it is out of it)."""
    dx, dy = hand[0] - arm.base[0], hand[1] - arm.base[1]
    reach = min(max(math.hypot(dx, dy), 0.05), 2 * LINK * 0.999)
    bend = math.acos(reach / (2 * LINK))
    shoulder = math.atan2(dy, dx) - math.pi / 2 + arm.elbow * bend
    elbow = -2 * arm.elbow * bend
    return np.array(
        [
            shoulder,
            elbow,
            LOWERED * (1.0 - gripper),
            0.25 * math.sin(shoulder),
            0.25 * elbow,
            -(shoulder + elbow),
            gripper,
        ]
    )


def elbow_and_hand(arm: Arm, pose: NDArray[np.floating]) -> tuple[Point, Point]:
    """Where the elbow and the hand are for an arm's 7 numbers."""
    upper = float(pose[0]) + math.pi / 2
    fore = upper + float(pose[1])
    ex, ey = arm.base[0] + LINK * math.cos(upper), arm.base[1] + LINK * math.sin(upper)
    return (ex, ey), (ex + LINK * math.cos(fore), ey + LINK * math.sin(fore))


def arm_slice(index: int) -> slice:
    """Where an arm's 7 numbers are in a state or action."""
    return slice(ARM_DIMS * index, ARM_DIMS * (index + 1))


def advance(layout: Layout, state: State, action: NDArray[np.floating]) -> State:
    """float32 [state_dims]: the state after a step: the action itself, within the largest step and the gripper's 0..1.

    A number that is not finite moves nothing.
    """
    limit = _step_limit(len(layout.arms))
    target = np.where(np.isfinite(action), action, state).astype(np.float32)
    reached = np.minimum(np.maximum(target, state - limit), state + limit)
    grippers = reached[ARM_DIMS - 1 :: ARM_DIMS]
    np.minimum(np.maximum(grippers, 0.0, out=grippers), 1.0, out=grippers)
    return np.asarray(reached, np.float32)


@functools.cache
def _step_limit(arms: int) -> State:
    return np.array(([MAX_JOINT_STEP] * 6 + [MAX_GRIPPER_STEP]) * arms, np.float32)


def pressed_colours(scene: Scene, state: State) -> frozenset[str]:
    """Colours of the buttons that some closed gripper is on."""
    pressed = set()
    for index, arm in enumerate(scene.layout.arms):
        pose = state[arm_slice(index)]
        if pose[6] > CLOSED:
            continue
        _, hand = elbow_and_hand(arm, pose)
        pressed |= {b.colour for b in scene.buttons if math.dist(hand, b.centre) <= PRESS_RADIUS}
    return frozenset(pressed)


def expert_action(scene: Scene, task: Task, state: State) -> State:
    """float32 [state_dims]: the scripted expert's next drive targets, a smooth function of scene, task and state alone.

    The task's arm starts gently, swings to the button, slows down, closes the gripper on it and stays;
    the other arm rests.
    """
    index = scene.pressing_arm(task)
    arm = scene.layout.arms[index]
    pose = state[arm_slice(index)]
    _, hand = elbow_and_hand(arm, pose)
    centre = scene.button(task.colour).centre
    dx, dy = centre[0] + scene.offset[0] - hand[0], centre[1] + scene.offset[1] - hand[1]
    distance = math.hypot(dx, dy)
    start = 0.35 + 0.65 * _smooth(math.dist(hand, arm.home) / 0.08)
    brake = 0.12 + 0.88 * _smooth(distance / 0.09)
    step = min(_SPEED * scene.speed * start * brake, distance)
    heading = math.atan2(dy, dx) + scene.bow * _smooth(distance / 0.25)
    target = (hand[0] + step * math.cos(heading), hand[1] + step * math.sin(heading))
    opening = _smooth((distance - 0.015) / 0.04)
    gripper = float(pose[6])
    gripper += min(max(opening - gripper, -_GRIPPER_SPEED), _GRIPPER_SPEED)
    action = state.copy()
    action[arm_slice(index)] = arm_pose(arm, target, gripper).astype(np.float32)
    return action


def _smooth(x: float) -> float:
    """0 below 0, 1 above 1, with a level start and end."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)
