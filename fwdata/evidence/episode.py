"""One episode as detectors see it: its rows, small grey images, texts, and what the converter decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.claims import ArmClaim, Conventions
from fwdata.evidence.columns import ColumnValues, Mask, titles
from fwdata.evidence.image_motion import ImageMotion
from fwdata.evidence.looks import CameraLook
from fwdata.evidence.shared_values import odd_factors
from fwdata.evidence.sides import ON_AN_ARM, has_side, is_left
from fwdata.evidence.signals import Floats, moving_rows

HALVES = (6, 7, 8)
"""Columns of one arm of two: joints, with or without a gripper."""

OF_ROWS = (
    "kept",
    "state64",
    "action64",
    "columns",
    "row_prints",
    "distinct_prints",
    "speed",
    "active",
    "pairs",
    "_moving",
)
"""What an `EpisodeInput` computes of anything but its images."""


@dataclass(frozen=True, eq=False)
class EpisodeInput:
    """One episode, T rows. Signals that several detectors need are computed once."""

    id: str
    """Id of the episode."""
    group: str
    """Unit in which scales are compared: its folder or data set."""
    state: NDArray[np.float32]
    """float32 [T, Ds], as stored."""
    action: NDArray[np.float32]
    """float32 [T, Da], as stored."""
    state_names: tuple[str, ...]
    """Ds names."""
    action_names: tuple[str, ...]
    """Da names."""
    timestamp_s: NDArray[np.float64]
    """float64 [T], seconds from the first frame."""
    hz: float
    """Rate of the rows that the store records."""
    instruction: str = ""
    """The canonical instruction."""
    claims: Conventions = field(default_factory=Conventions)
    """What the converter decided."""
    thumbnails: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Camera -> uint8 [T, h, w], grey images of about 64 pixels width; cameras that were not looked at are absent."""
    looks: Mapping[str, CameraLook] = field(default_factory=dict)
    """Camera -> what its images are known again by; cameras that were not looked at are absent."""
    every: int = 1
    """Rows from one thumbnail to the next: above 1, for light detectors, there are ceil(T / every)."""

    def seen(
        self, thumbnails: Mapping[str, NDArray[np.uint8]], looks: Mapping[str, CameraLook], every: int
    ) -> EpisodeInput:
        """The same episode with its images; what was computed of its rows stays known."""
        found = replace(self, thumbnails=thumbnails, looks=looks, every=every)
        found.__dict__.update({name: self.__dict__[name] for name in OF_ROWS if name in self.__dict__})
        return found

    def unclaimed(self) -> EpisodeInput:
        """The rows and the instruction alone, as a store holds them; what was computed of the values stays known."""
        names = self.state_names, self.action_names
        found = EpisodeInput(
            *(self.id, self.group, self.state, self.action), *names, self.timestamp_s, self.hz, self.instruction
        )
        found.__dict__["columns"] = self.columns.unclaimed()
        return found

    @cached_property
    def kept(self) -> dict[str, object]:
        """Function -> what it made of this episode; see `once` and `Together`."""
        return {}

    @cached_property
    def state64(self) -> Floats:
        """float64 [T, Ds], the state."""
        return self.state.astype(np.float64)

    @cached_property
    def action64(self) -> Floats:
        """float64 [T, Da], the action."""
        return self.action.astype(np.float64)

    @cached_property
    def columns(self) -> ColumnValues:
        """The columns of the state, then those of the action."""
        first, rows = self.state.shape[1], len(self.state)
        values = np.empty((first + self.action.shape[1], rows))
        values[:first], values[first:] = self.state.T, self.action.T
        return ColumnValues(values, self._alike)

    @property
    def _alike(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Columns of both arms, of both grippers, and of every joint of an arm, of which some may rest."""
        arms, first = self.claims.arms or self.likely_arms, self.state.shape[1]
        measured = tuple(arm.state for arm in arms)
        commanded = tuple(tuple(first + a for a, s in self.pairs if s in side) for side in measured)
        opened = tuple(claim.state for claim in self.claims.grippers)
        angles = (claim.columns for claim in self.claims.units if claim.unit == "rad" and len(arms) > 1)
        return (measured, commanded, opened, *(tuple((column,) for column in each) for each in angles))

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, "state " or "action " before each."""
        return titles(self.state_names, self.action_names)

    @cached_property
    def row_prints(self) -> NDArray[np.uint32]:
        """uint32 [T], a checksum of every row of state and action: the upper half of the sum of its numbers' bits, each
        times an odd number of 64 bits. Two rows that differ have one by a chance of about 1 in 2^31."""
        words = np.concatenate([self.state, self.action], axis=1, dtype=np.float32).view(np.uint32)
        found: NDArray[np.uint32] = (words @ odd_factors(words.shape[1]) >> np.uint64(32)).astype(np.uint32)
        return found

    @cached_property
    def distinct_prints(self) -> NDArray[np.uint32]:
        """uint32 [n], the different ones of these in order."""
        return np.unique(self.row_prints)

    @cached_property
    def speed(self) -> Floats:
        """float64 [T], speed of all state columns together (`signals.speed`)."""
        return self.columns.speed(self.active)

    @cached_property
    def active(self) -> NDArray[np.int64]:
        """Indices of the state columns that move and are not noise."""
        return np.flatnonzero(self.columns.active[: self.state.shape[1]])

    @cached_property
    def motion(self) -> Mapping[str, ImageMotion]:
        """Camera -> what moves in its thumbnails."""
        return {name: ImageMotion(images, self.every, len(self.state)) for name, images in self.thumbnails.items()}

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(action column, state column) of the same quantity: as claimed, else by equal names, else by position."""
        if self.claims.pairs is not None:
            return self.claims.pairs
        where = {name: index for index, name in enumerate(self.state_names)}
        by_name = tuple((i, where[name]) for i, name in enumerate(self.action_names) if name in where)
        if by_name:
            return by_name
        same = len(self.state_names) == len(self.action_names)
        return tuple((i, i) for i in range(len(self.action_names))) if same else ()

    def arm_of(self, camera: str) -> ArmClaim | None:
        """The arm that a camera rides on; None for a fixed camera."""
        return next((arm for arm in (*self.claims.arms, *self.likely_arms) if arm.camera == camera), None)

    @cached_property
    def likely_arms(self) -> tuple[ArmClaim, ...]:
        """Both halves of columns without a side in their names, where a left and a right wrist camera are the only ones
        that have one, and nothing else is claimed: the left arm's columns are before the right arm's."""
        half, odd = divmod(len(self.state_names), 2)
        if self.claims.arms or odd or half not in HALVES or any(has_side(name) for name in self.state_names):
            return ()
        seen = dict.fromkeys((*self.thumbnails, *self.looks))
        wrists = [name for name in seen if has_side(name) and ON_AN_ARM.search(name.lower())]
        halves = {True: ("left", tuple(range(half))), False: ("right", tuple(range(half, 2 * half)))}
        return tuple(ArmClaim(*halves[is_left(name)], name) for name in wrists)

    def rows_of(self, camera: str) -> Floats:
        """float64 [T, D], the state columns that move what a camera sees: its arm's, or all for a fixed camera."""
        arm = self.arm_of(camera)
        return self.state64 if arm is None else self.state64[:, list(arm.state)]

    def speed_of(self, camera: str) -> Floats:
        """float64 [T], speed of `rows_of` a camera."""
        arm = self.arm_of(camera)
        return self.speed if arm is None else self._arm_speed[arm.name]

    def moving_of(self, camera: str) -> Mask:
        """bool [T], rows in which what moves this camera's image moves: its arm, or anything for a fixed camera."""
        arm = self.arm_of(camera)
        return self._moving if arm is None else self._arm_moving[arm.name]

    @cached_property
    def _arm_speed(self) -> Mapping[str, Floats]:
        """The speed of every arm; that of all columns where no others move."""
        active = set(self.active.tolist())
        arms = (*self.claims.arms, *self.likely_arms)
        moving = {arm.name: [column for column in arm.state if column in active] for arm in arms}
        return {
            name: self.speed if len(columns) == len(active) else self.columns.speed(np.array(columns, np.int64))
            for name, columns in moving.items()
        }

    @cached_property
    def _moving(self) -> Mask:
        return moving_rows(self.speed)

    @cached_property
    def _arm_moving(self) -> Mapping[str, Mask]:
        whole = self.speed
        return {
            name: self._moving if speeds is whole else moving_rows(speeds) for name, speeds in self._arm_speed.items()
        }


def once[R](function: Callable[[EpisodeInput], R]) -> Callable[[EpisodeInput], R]:
    """A function of an episode's rows and claims, whose answer is kept with the episode, as several detectors ask."""
    name = f"{function.__module__}.{function.__qualname__}"

    @wraps(function)
    def asked(episode: EpisodeInput) -> R:
        kept = episode.kept
        if name not in kept:
            kept[name] = function(episode)
        return cast(R, kept[name])

    return asked


class Together[R]:
    """A function of the rows and claims of several episodes, whose answers are kept with each; called with one episode
    as `once` is. What it computes of many at once, by `prepare`, costs less than of one after the other."""

    def __init__(self, function: Callable[[Sequence[EpisodeInput]], Sequence[R]]) -> None:
        self._function, self._name = function, f"{function.__module__}.{function.__qualname__}"
        self.__doc__ = function.__doc__

    def __call__(self, episode: EpisodeInput) -> R:
        """The answer for one episode."""
        self.prepare((episode,))
        return cast(R, episode.kept[self._name])

    def prepare(self, episodes: Sequence[EpisodeInput]) -> None:
        """Find the answers of all of them that have none."""
        new = [episode for episode in episodes if self._name not in episode.kept]
        if new:
            for episode, answer in zip(new, self._function(new), strict=True):
                episode.kept[self._name] = answer
