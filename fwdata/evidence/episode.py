"""One episode as detectors see it: its rows, small grey images, texts, and what the converter decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.claims import ArmClaim, Conventions
from fwdata.evidence.image_motion import ImageMotion
from fwdata.evidence.looks import CameraLook
from fwdata.evidence.signals import Floats, active_columns, speed


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

    @cached_property
    def state64(self) -> Floats:
        """float64 [T, Ds], the state."""
        return self.state.astype(np.float64)

    @cached_property
    def action64(self) -> Floats:
        """float64 [T, Da], the action."""
        return self.action.astype(np.float64)

    @cached_property
    def speed(self) -> Floats:
        """float64 [T], speed of all state columns together (`signals.speed`)."""
        return speed(self.state64, self.active)

    @cached_property
    def active(self) -> NDArray[np.int64]:
        """Indices of the state columns that move and are not noise."""
        return active_columns(self.state64)

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
        return next((arm for arm in self.claims.arms if arm.camera == camera), None)

    def rows_of(self, camera: str) -> Floats:
        """float64 [T, D], the state columns that move what a camera sees: its arm's, or all for a fixed camera."""
        arm = self.arm_of(camera)
        return self.state64 if arm is None else self.state64[:, list(arm.state)]

    def speed_of(self, camera: str) -> Floats:
        """float64 [T], speed of `rows_of` a camera."""
        arm = self.arm_of(camera)
        return self.speed if arm is None else self._arm_speed[arm.name]

    @cached_property
    def _arm_speed(self) -> Mapping[str, Floats]:
        return {arm.name: speed(self.state64[:, list(arm.state)]) for arm in self.claims.arms}
