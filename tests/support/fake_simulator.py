"""A stand-in for the LIBERO simulator: what it shows says which scene, which step and which state it is in.

The last value of the state that a demonstration begins with decides its end: 0 solved, 1 never solved, 2 solved at
first but not at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from libero_files import STATE_WIDTH

from fwdata.envs.libero import SimulatorState
from fwdata.errors import BadEpisode

SOLVED, FAILS, LOST = 0, 1, 2


@dataclass
class FakeSimulator:
    """Follows `fwdata.envs.libero.Simulator`; `log` tells what was asked of it."""

    resolution: int = 20
    log: list[Any] = field(default_factory=list)
    die_at_reset: int | None = None
    resets: int = 0
    seed: int = 0
    scene: int = 0
    steps: int = 0
    closed: bool = False

    def reset(self) -> None:
        if self.die_at_reset == self.resets:
            raise KeyboardInterrupt
        self.resets += 1
        self.log.append("reset")
        self.seed = (self.seed * 31 + 7) % 101
        self.scene, self.steps = self.seed, 0

    def set_state(self, state: np.ndarray) -> None:
        if len(state) != STATE_WIDTH:
            raise BadEpisode(f"its states have {len(state)} values, the simulator of this task has {STATE_WIDTH}")
        self.log.append(("state", state.copy()))
        self.ending = state[-1]

    def step(self, action: np.ndarray) -> tuple[SimulatorState, bool]:
        self.log.append(action.copy())
        self.steps += 1
        solved = {SOLVED: True, FAILS: False, LOST: self.steps < 13}[int(self.ending)]
        return self.observation(), solved

    def observation(self) -> SimulatorState:
        """What is seen now: joints and states move with the steps; the gripper is at the top of the wrist picture."""
        picture = np.full((self.resolution, self.resolution, 3), (self.scene, self.steps, 200), np.uint8)
        wrist = picture.copy()
        wrist[: max(1, round(0.17 * self.resolution))] = 50
        joints = np.full(7, 0.1 * self.steps)
        place = np.array([0.01 * self.steps, 0.005 * self.scene, 0.5])
        turn = np.array([0, 0, np.sin(0.05 * self.steps), np.cos(0.05 * self.steps)])
        pictures = {"agentview_rgb": picture, "eye_in_hand_rgb": wrist}
        return SimulatorState(joints, np.array([0.04, -0.04]), place, turn, pictures)

    def state(self) -> np.ndarray:
        state = np.zeros(STATE_WIDTH)
        state[0], state[1:8] = self.steps, 0.1 * self.steps
        return state

    def random_state(self) -> list[Any]:
        return [self.seed]

    def restore_random_state(self, state: list[Any]) -> None:
        (self.seed,) = state

    def close(self) -> None:
        self.closed = True
