"""LIBERO demonstrations replayed as for the published no-noops data.

Source: openvla experiments/robot/libero/regenerate_libero_dataset.py. Per task the environment is seeded once with 0;
per demonstration: reset, simulator state `states[0]`, 10 settling steps with the gripper open, then every action that
is not a no-op: the observation from before it is kept, then it is taken. Demonstrations whose last step does not report
success are left out, so numbers have gaps.

Images are kept as the simulator renders them, bottom row first, which is how raw files and openvla's regenerated ones
hold them (any4lerobot's are rotated already): one rule, a rotation by 180 degrees, fits both, and option rotation
"auto" sees it by the gripper. The layout has no attributes. Images are compressed with gzip, one frame per chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.libero import hdf5, paths
from converters.libero.actions import kept_actions
from converters.libero.published import SUITE_TASKS
from converters.libero.task_name import split_task
from converters.shared.hdf5 import open_recording
from fwdata.api import BadEpisode, Skipped, UsageError
from fwdata.envs import libero as simulators
from fwdata.envs.replay import Replayed, ReplayTask, Session
from fwdata.errors import did_you_mean

if TYPE_CHECKING:
    import h5py

SETTLING_STEPS = 10
SETTLING_ACTION = np.array([0.0, 0, 0, 0, 0, 0, -1])


class LiberoReplayer:
    """LIBERO; see `fwdata.envs.replay.Replayer`."""

    def find(
        self, raw: Path, suite: str, tasks: Sequence[str] | None, max_demos: int | None
    ) -> tuple[tuple[ReplayTask, ...], tuple[Skipped, ...]]:
        """Raw task files of a suite below a folder of any level. Reads actions, no images: 1 ms per demonstration."""
        if suite not in SUITE_TASKS:
            raise UsageError(f"there is no LIBERO suite {suite!r}{did_you_mean(suite, SUITE_TASKS)}")
        listing = paths.list_files(raw)
        files = [file for file in listing.files if file.suite == suite]
        if not files:
            held = ", ".join(sorted({file.suite for file in listing.files})) or "none"
            raise UsageError(f"no task file of {suite} below {raw} (suites found: {held}); give the folder that has it")
        known = {file.task for file in files}
        for name in tasks or ():
            if name not in known:
                raise UsageError(f"no task file of {name!r} was found{did_you_mean(name, known)}")
        found: dict[str, ReplayTask] = {}
        skipped: list[Skipped] = []
        for file in files:
            if tasks is not None and file.task not in tasks:
                continue
            try:
                task = _open_raw(paths.base_folder(raw), file, max_demos)
            except BadEpisode as error:
                skipped.append(Skipped(file.path, str(error)))
                continue
            if task is not None:
                other = found.setdefault(task.name, task)
                if other is not task:
                    raise UsageError(f"{other.source} and {task.source} are the same task; give the folder of one")
        if not found and not skipped:
            raise UsageError(f"the files of {suite} below {raw} are regenerated already; give the raw ones")
        return tuple(found.values()), tuple(skipped)

    def prepare(self, suite: str, tasks: Sequence[ReplayTask]) -> dict[str, str]:
        """Versions and renderer of the simulator. Costs 1 to 3 s: LIBERO is imported, a renderer is tried."""
        versions = simulators.versions()
        for task in tasks:
            simulators.bddl_file(suite, task.name)
        return {**versions, "renderer": simulators.choose_backend()}

    def open(self, raw: Path, suite: str, task: ReplayTask, resolution: int) -> Session:
        """The task's environment, found by the task's name alone: paths in a file's attributes are stale."""
        path = paths.base_folder(raw) / task.source
        return TaskSession(path, simulators.open_simulator(suite, task.name, resolution))

    def assemble(self, demos: Sequence[tuple[str, Path]], path: Path) -> None:
        """One task file; compressed images are copied as they are. Without demonstrations its group is empty."""
        import h5py

        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            for name, part in demos:
                with h5py.File(part, "r") as source:
                    source.copy(source[f"data/{name}"], data, name)


def _open_raw(base: Path, file: paths.TaskFile, max_demos: int | None) -> ReplayTask | None:
    """What is in a raw task file; None for a regenerated one."""
    with open_recording(base / file.path) as opened:
        if not hdf5.read_attributes(opened).present:
            return None
        demos = tuple(hdf5.demo_names(opened)[:max_demos])
        recorded = rows = 0
        for name in demos:
            try:
                kept = kept_actions(hdf5.read_commands(opened, name).actions)
            except BadEpisode:
                continue  # its replay will say so
            recorded, rows = recorded + len(kept), rows + int(kept.sum())
    if not demos:
        raise BadEpisode(f"{file.path} holds no demonstration")
    text = file.task if file.suite == "libero_90" else split_task(file.task)[1]  # texts of libero_90 repeat
    return ReplayTask(
        file.path, file.task, text, f"{file.task}_demo.hdf5", demos, recorded, rows, (base / file.path).stat().st_size
    )


class TaskSession:
    """Replays of one raw task file; see `fwdata.envs.replay.Session`."""

    def __init__(self, raw: Path, simulator: simulators.Simulator) -> None:
        self._raw = raw
        self._simulator = simulator
        self.random_state = simulator.random_state
        self.restore_random_state = simulator.restore_random_state
        self.close = simulator.close

    def replay(self, demo: str, path: Path) -> Replayed:
        """Replay one demonstration. Holds one frame at a time; nearly all the time is rendering."""
        import h5py

        self._simulator.reset()  # also for damaged ones: the scenes of those that follow are drawn after it
        recorded, rows, first, success = 0, 0, np.zeros(0), False
        reason: str | None = None
        try:
            with open_recording(self._raw) as file:
                commands = hdf5.read_commands(file, demo)
            first, recorded = commands.states[0], len(commands.actions)
            kept = kept_actions(commands.actions)
            rows = int(kept.sum())
            if not rows:
                raise BadEpisode(f"all {recorded} actions are no-ops, nothing is left of the demonstration")
            with h5py.File(path, "w") as file:
                success = _replay(self._simulator, commands, kept, file.create_group(f"data/{demo}"))
        except BadEpisode as error:
            reason = str(error)
        damaged = reason is not None
        if not success:
            path.unlink(missing_ok=True)
            reason = reason or "its last step did not solve the task in the simulator"
        return Replayed(demo, reason, damaged, recorded, rows, tuple(first.tolist()))


def _replay(
    simulator: simulators.Simulator, commands: hdf5.Commands, kept: NDArray[np.bool_], group: h5py.Group
) -> bool:
    """Replay the kept actions after a reset and write their rows; whether the last step solved the task."""
    simulator.set_state(commands.states[0])
    for _ in range(SETTLING_STEPS):
        seen, solved = simulator.step(SETTLING_ACTION)
    actions = commands.actions[kept]
    obs = group.create_group("obs")
    image_nodes = {name: _image_dataset(obs, name, len(actions), frame.shape) for name, frame in seen.images.items()}
    states: list[NDArray[np.float64]] = []
    robot_states: list[NDArray[np.float64]] = []
    low: dict[str, list[NDArray[np.float64]]] = {"gripper_states": [], "joint_states": [], "ee_states": []}
    for row, action in enumerate(actions):
        states.append(simulator.state())
        robot_states.append(np.concatenate([seen.fingers, seen.position, seen.quaternion]))
        low["gripper_states"].append(seen.fingers)
        low["joint_states"].append(seen.joints)
        low["ee_states"].append(np.concatenate([seen.position, simulators.axis_angle(seen.quaternion)]))
        for name, node in image_nodes.items():
            node[row] = seen.images[name]
        seen, solved = simulator.step(action)
    if solved:
        states[0] = commands.states[0]  # as published: from before the settling steps
        if commands.robot_state is not None:
            robot_states[0] = commands.robot_state
        _write_rows(group, actions, states, robot_states, low)
    return solved


def _image_dataset(obs: h5py.Group, name: str, rows: int, shape: tuple[int, ...]) -> h5py.Dataset:
    return obs.create_dataset(
        name, (rows, *shape), np.uint8, chunks=(1, *shape), compression="gzip", compression_opts=1
    )


def _write_rows(
    group: h5py.Group,
    actions: NDArray[np.float64],
    states: list[NDArray[np.float64]],
    robot_states: list[NDArray[np.float64]],
    low: dict[str, list[NDArray[np.float64]]],
) -> None:
    for name, values in low.items():
        group[f"obs/{name}"] = np.stack(values)
    effector = np.stack(low["ee_states"])
    group["obs/ee_pos"], group["obs/ee_ori"] = effector[:, :3], effector[:, 3:]
    last = np.zeros(len(actions), np.uint8)
    last[-1] = 1
    rows: dict[str, object] = {"actions": actions, "states": np.stack(states), "robot_states": np.stack(robot_states)}
    for name, value in (*rows.items(), ("rewards", last), ("dones", last)):
        group[name] = value
