"""Messages to observations: the keys of `fwtrain.serve`, every value checked; one sentence names what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.base import Observation
from fwdata.errors import UsageError, did_you_mean
from fwtrain.train.folder import RunInfo

LOG = logging.getLogger("fwtrain.serve")

STATE_KEYS = ("observation/state", "observation.state", "state")
PROMPT_KEYS = ("prompt", "task")
MAX_PROMPT = 2000
"""Characters of an instruction."""
SIZES_NOTED = 20
"""Different sizes of images that are logged."""
MAX_SIDE = 8192
"""Pixels of an image's side."""


def camera_keys(name: str) -> tuple[str, ...]:
    """Keys a camera's image may have, the first found counts; a map `images` may hold it too."""
    return f"observation/{name}", f"observation.images.{name}", name


@dataclass(frozen=True)
class Request:
    """One observation that is asked for."""

    observed: Observation
    """What the robot sees."""
    seed: int
    """Seed of the noise."""


@dataclass(frozen=True)
class ObservationReader:
    """Reads the observations of one run."""

    info: RunInfo
    """What the run was made from."""
    seed: int
    """Seed of messages that carry none."""
    noted: set[tuple[int, int]] = field(default_factory=set)
    """Sizes of images, (height, width), that the log has a warning of."""

    def read(self, message: object) -> Request:
        """The checked request of a message. Raises UsageError naming the key."""
        if not isinstance(message, dict):
            raise UsageError(f"an observation is a map of keys to values, found {type(message).__name__}")
        cameras = {name: self._image(message, name) for name in self.info.manifest.stitch.cameras}
        return Request(Observation(cameras, self._state(message), _prompt(message)), self._seed(message))

    def _image(self, message: Mapping[Any, Any], name: str) -> NDArray[np.uint8]:
        images = message.get("images")
        if isinstance(images, dict) and name in images:
            key, value = f"images.{name}", images[name]
        else:
            key, value = _first(message, camera_keys(name), f"camera {name!r}")
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
            raise UsageError(f"{key} must be a uint8 image [H, W, 3], found {_kind(value)}")
        if value.ndim == 3 and value.shape[0] == 3 and value.shape[2] != 3:
            value = value.transpose(1, 2, 0)
        if value.ndim != 3 or value.shape[2] != 3 or not 0 < min(value.shape) <= max(value.shape) <= MAX_SIDE:
            raise UsageError(f"{key} must be a uint8 image [H, W, 3] or [3, H, W], found {_kind(value)}")
        self._note_size(name, (value.shape[0], value.shape[1]))
        return np.ascontiguousarray(value)

    def _note_size(self, camera: str, size: tuple[int, int]) -> None:
        """Log, once for every size, that an image has neither the recorded size nor that of the run's own images."""
        recorded, own = self.info.recorded_sizes, self.info.manifest.stitch.camera_size
        if not recorded or size in {*recorded, own} or size in self.noted or len(self.noted) >= SIZES_NOTED:
            return
        self.noted.add(size)
        listed = ", ".join(f"{height}x{width}" for height, width in recorded)
        LOG.warning(
            "camera %s sends images of %dx%d pixels, the run was trained on recordings of %s pixels, resized to %dx%d: "
            "send images of the recorded size", camera, *size, listed, *own
        )  # fmt: skip

    def _state(self, message: Mapping[Any, Any]) -> NDArray[np.float32]:
        names = self.info.state.names
        key, value = _first(message, STATE_KEYS, "the state")
        if not isinstance(value, np.ndarray) or value.shape != (len(names),):
            raise UsageError(f"{key} must be an array of {len(names)} numbers, found {_kind(value)}")
        with np.errstate(over="ignore"):
            state = value.astype(np.float32)
        if not np.isfinite(state).all():
            raise UsageError(f"{key}: {names[int(np.flatnonzero(~np.isfinite(state))[0])]} is not a finite number")
        return state

    def _seed(self, message: Mapping[Any, Any]) -> int:
        seed = message.get("seed", self.seed)
        if isinstance(seed, np.integer):
            seed = int(seed)
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise UsageError(f"seed must be a whole number from 0, found {str(seed)[:40]}")
        return seed


def _prompt(message: Mapping[Any, Any]) -> str:
    key, value = _first(message, PROMPT_KEYS, "the instruction")
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_PROMPT:
        found = f"{len(value)} characters" if isinstance(value, str) else _kind(value)
        raise UsageError(f"{key} must be a text of 1 to {MAX_PROMPT} characters, found {found}")
    return value


def _first(message: Mapping[Any, Any], keys: tuple[str, ...], what: str) -> tuple[str, Any]:
    for key in keys:
        if key in message:
            return key, message[key]
    known = [key[:60] for key in message if isinstance(key, str)]
    raise UsageError(f"the observation lacks {what} (key {' or '.join(keys)}){did_you_mean(keys[0], known)}")


def _kind(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
