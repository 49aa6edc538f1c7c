"""Scripted experts for LIBERO: pick-and-place by privileged state, for the tasks it is known to solve.

The hand keeps the orientation it rests in and moves between way points: above the object, down, close, up, above the
target, down, open. Way points come from the positions of bodies and sites in the simulator, which no policy sees. The
carried object's offset from the hand is measured after the lift and the target corrected by it. Commands are bounded
and quantised like those of the published recordings (a 6-DoF mouse), with a little noise in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.libero import LiberoSimulator

type Vector = NDArray[np.float64]

OPEN, CLOSE = -1.0, 1.0
REACH, SLOW_REACH = 0.9375, 0.35
"""Largest command of a position, in free motion and near objects; 1 asks the controller for 0.05 m."""
QUANTUM = np.array([0.9375 / 350] * 3 + [0.375 / 350] * 3)
TURN = 0.375
"""Largest command of a rotation."""
GAIN, TURN_GAIN = 12.0, 1.0
NOISE = 0.06
"""Standard deviation of a command's noise, in proportion to the command."""
NEAR, PATIENCE = 0.012, 60
"""A way point is reached within so many metres, or given up after so many steps."""
HOLD = 9
"""Steps that the gripper gets to close or open."""
LIFT = 0.2
PUSH_STEPS, PUSH_WITHIN = 4, 100
"""Steps that a push lasts, and the first steps of a demonstration that pushes are drawn from; most last about 120."""


@dataclass(frozen=True)
class Grip:
    """Where to hold an object and how far to lower it, in metres from its body's origin."""

    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Centre of the fingertips from the origin. Fingers close along y."""
    release: float = 0.06
    """Height of the object's origin above the target's when the gripper opens."""


GRIPS = {
    "akita_black_bowl": Grip((0.0, 0.05, 0.02), 0.03),
    "wine_bottle": Grip((0.0, 0.0, 0.03), 0.1),
    "salad_dressing": Grip((0.0, 0.0, 0.04)),
    "ketchup": Grip((0.0, 0.0, 0.04)),
    "milk": Grip((0.0, 0.0, 0.04)),
    "orange_juice": Grip((0.0, 0.0, 0.04)),
}
"""By kind of object; others are held at their origin."""


@dataclass(frozen=True)
class PickAndPlace:
    """A task as its goal says it: one object that is to be on or in something."""

    item: str
    """Name of the object in the simulator."""
    target: str
    """Name of the object or region that it is to be on or in."""

    @classmethod
    def of(cls, simulator: LiberoSimulator) -> PickAndPlace | None:
        """The task of a simulator; None when its goal is another kind."""
        goal = simulator.world.parsed_problem["goal_state"]
        if len(goal) != 1 or len(goal[0]) != 3 or goal[0][0].lower() not in {"on", "in"}:
            return None
        _, item, target = goal[0]
        return cls(item, target) if item in simulator.world.objects_dict else None


def position(simulator: LiberoSimulator, name: str) -> Vector:
    """float64 [3]: where a body or a region is, m."""
    world: Any = simulator.world
    if name in world.object_sites_dict:
        return np.array(world.sim.data.get_site_xpos(name))
    return np.array(world.sim.data.body_xpos[world.obj_body_id[name]])


def hand(simulator: LiberoSimulator) -> tuple[Vector, NDArray[np.float64]]:
    """Position float64 [3] of the centre of the fingertips and the rotation matrix of the hand."""
    world: Any = simulator.world
    site = world.robots[0].eef_site_id
    return np.array(world.sim.data.site_xpos[site]), np.array(world.sim.data.site_xmat[site]).reshape(3, 3)


def expert_actions(
    simulator: LiberoSimulator, task: PickAndPlace, random: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Actions float64 [7] one by one; each is to be carried out before the next is asked for."""
    grip = GRIPS.get(task.item.rsplit("_", 1)[0], Grip())
    _, rest = hand(simulator)
    place = position(simulator, task.item) + grip.offset
    target = position(simulator, task.target)
    top = max(place[2], target[2]) + LIFT

    def go(goal: Vector, gripper: float, reach: float, near: float = NEAR) -> Iterator[NDArray[np.float64]]:
        for _ in range(PATIENCE):
            at, turned = hand(simulator)
            if np.linalg.norm(goal - at) < near:
                return
            yield _command(goal - at, rest, turned, gripper, reach, random)

    def stay(gripper: float) -> Iterator[NDArray[np.float64]]:
        for _ in range(HOLD):
            yield _command(np.zeros(3), rest, rest, gripper, REACH, random)

    yield from go(np.array([place[0], place[1], max(place[2] + 0.1, top - 0.06)]), OPEN, REACH, 0.03)
    yield from go(np.array([place[0], place[1], place[2] + 0.05]), OPEN, REACH)
    yield from go(place, OPEN, SLOW_REACH, 0.008)
    yield from stay(CLOSE)
    yield from go(np.array([place[0], place[1], top]), CLOSE, REACH, 0.03)
    carried = position(simulator, task.item) - hand(simulator)[0]
    above = np.array([*(target - carried)[:2], top])
    yield from go(above, CLOSE, REACH)
    low = np.array([above[0], above[1], target[2] + grip.release - carried[2]])
    yield from go(low, CLOSE, SLOW_REACH)
    yield from stay(OPEN)
    yield from go(low + np.array([0, 0, 0.1]), OPEN, REACH)
    yield from stay(OPEN)


def pushed(
    actions: Iterator[NDArray[np.float64]], random: np.random.Generator, count: int
) -> Iterator[NDArray[np.float64]]:
    """Actions with `count` pushes, each a constant command over `PUSH_STEPS` steps in place of the expert's.

    A push is what is carried out, so it is what is recorded; the gripper keeps the expert's command. The expert asks
    where the hand is before every action and so finds the way back: without pushes, demonstrations show only states
    from which nothing has gone wrong yet (DART, arXiv 1703.09327, disturbs the expert for the same reason).
    """
    bound = np.array([REACH] * 3 + [TURN] * 3)
    starts = random.integers(0, PUSH_WITHIN, count)
    commands = np.round(random.uniform(-bound, bound, (count, 6)) / QUANTUM) * QUANTUM
    for step, action in enumerate(actions):
        under_way = np.flatnonzero((starts <= step) & (step < starts + PUSH_STEPS))
        yield np.concatenate([commands[under_way[0]], action[6:]]) if len(under_way) else action


def _command(
    way: Vector, rest: Vector, turned: Vector, gripper: float, reach: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Towards a way point `way` metres off, turning back to the resting orientation."""
    move = way * GAIN
    largest = float(np.abs(move).max())
    move = move if largest <= reach else move * (reach / largest)
    error = rest @ turned.T
    spin = 0.5 * np.array([error[2, 1] - error[1, 2], error[0, 2] - error[2, 0], error[1, 0] - error[0, 1]])
    command = np.concatenate([move, np.clip(spin * TURN_GAIN, -TURN, TURN)])
    command = command * (1 + NOISE * random.standard_normal(6))
    bound = np.array([REACH] * 3 + [TURN] * 3)
    command = np.clip(np.round(command / QUANTUM) * QUANTUM, -bound, bound)
    return np.concatenate([command, [gripper]])


def perturbed(
    simulator: LiberoSimulator, task: PickAndPlace, state: NDArray[np.float64], random: np.random.Generator, most: float
) -> NDArray[np.float64]:
    """A simulator state [S] with the task's object moved by up to `most` metres along x and y."""
    joint = simulator.world.objects_dict[task.item].joints[0]
    first, _ = simulator.world.sim.model.get_joint_qpos_addr(joint)
    moved = state.copy()
    moved[1 + first : 3 + first] += random.uniform(-most, most, 2)  # time comes before the positions
    return moved
