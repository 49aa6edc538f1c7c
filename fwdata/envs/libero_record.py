"""Demonstrations of the scripted experts, written like LIBERO's raw recordings (layout of scripts/create_dataset.py).

OUT/<suite>/<task>_demo.hdf5     one file per task: the demonstrations that solved it, numbered 0, 1, ..
OUT/<suite>/.sample/<task>/      progress: one HDF5 and one JSON file per attempt, kept so that a rerun continues
OUT/sample.json                  seeds, versions, attempts and failures

For step j: states[j] from before action j, the observation from after it, as in the published files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata.envs import libero as simulators
from fwdata.envs.benchmarks.contract import BenchmarkTask
from fwdata.envs.benchmarks.libero import BENCHMARK, RESTING
from fwdata.envs.libero_experts import PickAndPlace, expert_actions, perturbed, pushed
from fwdata.errors import FwdataError, UsageError, did_you_mean
from fwdata.io import folder_lock, made_folder, sync, whole_file, write_json
from fwdata.pipeline.workers import WorkerPool

MODEL = "model_file"
"""Attribute of a demonstration: MJCF of its scene. The fixtures' places are in no state, so a replay needs it."""
CONTROLLER = {
    "type": "OSC_POSE", "input_max": 1, "input_min": -1, "output_max": [0.05] * 3 + [0.5] * 3,
    "output_min": [-0.05] * 3 + [-0.5] * 3, "kp": 150, "damping_ratio": 1, "impedance_mode": "fixed",
    "kp_limits": [0, 300], "damping_ratio_limits": [0, 10], "position_limits": None, "orientation_limits": None,
    "uncouple_pos_ori": True, "control_delta": True, "interpolation": None, "ramp_ratio": 0.2,
}  # fmt: skip
"""robosuite's osc_pose.json, as published files have it."""
RESOLUTION = 128
SETTLING_STEPS = 10
ATTEMPTS_PER_EPISODE = 3
"""A task that fails more often than this per wanted episode is given up."""
KNOWN = {
    "libero_spatial": (0, 1, 2, 3, 5, 6, 7, 8),
    "libero_object": tuple(range(10)),
    "libero_goal": (1, 2, 4, 6, 8),
}
"""Suite -> numbers of the tasks that the experts are known to solve."""


@dataclass(frozen=True)
class RecordRequest:
    """What to record. Picklable; sent to worker processes."""

    out: Path
    """Folder of the recordings."""
    suite: str
    """Suite of the benchmark."""
    episodes: int
    """Demonstrations wanted per task."""
    seed: int = 0
    """Of the expert's noise and the placement noise."""
    first_state: int = 0
    """Attempt k begins with initial state (first_state + k) % 50 and draw k of the fixtures."""
    placement_noise: float = 0.01
    """Largest shift of the object along x and y from its initial state, m."""
    pushes: int = 0
    """How often the hand is pushed off its way in each demonstration, so that recordings show the way back."""

    @property
    def folder(self) -> Path:
        """Where the suite's files go."""
        return self.out / self.suite


@dataclass(frozen=True)
class Attempt:
    """One attempt at a task."""

    number: int
    """Its number; with the seed it decides everything."""
    state: int
    """The initial state it began with."""
    success: bool
    """Whether the simulator says that the task was solved."""
    steps: int
    """Actions carried out."""


@dataclass
class RecordReport:
    """What a folder holds after recording."""

    folder: Path
    """The suite's folder."""
    demos: int = 0
    """Demonstrations in all files."""
    frames: int = 0
    """Their steps."""
    failed: list[tuple[str, int, int]] = field(default_factory=list)
    """(task, attempt, initial state) of attempts that did not solve the task."""
    short: list[str] = field(default_factory=list)
    """Tasks with fewer demonstrations than wanted."""


def tasks_to_record(suite: str, asked: str | None) -> list[BenchmarkTask]:
    """Tasks by number or name; by default all that an expert is known to solve. UsageError for others."""
    known = BENCHMARK.tasks(suite)
    able = KNOWN.get(suite, ())
    if not able:
        raise UsageError(f"no scripted expert solves tasks of {suite}{did_you_mean(suite, KNOWN)}")
    if asked is None:
        return [known[number] for number in able]
    found = []
    for word in filter(None, (part.strip() for part in asked.split(","))):
        match = [task for task in known if word in {str(task.number), task.name}]
        if not match:
            raise UsageError(f"{suite} has no task {word!r}{did_you_mean(word, [task.name for task in known])}")
        if match[0].number not in able:
            raise UsageError(
                f"no scripted expert solves task {match[0].number} of {suite} ({match[0].name}); "
                f"it solves {', '.join(map(str, able))}"
            )
        found += [task for task in match if task not in found]
    if not found:
        raise UsageError("--tasks names no task")
    return found


def record_task(request: RecordRequest, task: BenchmarkTask, *, link: Any) -> str:
    """Record one task's demonstrations and put its file in place; a finished file is never made again."""
    target = request.folder / f"{task.name}_demo.hdf5"
    if target.exists():
        return task.name
    progress = request.folder / ".sample" / task.name
    progress.mkdir(parents=True, exist_ok=True)
    kept: list[Attempt] = []
    simulator = None
    try:
        for number in range(request.episodes * ATTEMPTS_PER_EPISODE):
            if len(kept) == request.episodes:
                break
            noted = progress / f"{number}.json"
            if not noted.exists():
                if simulator is None:
                    link.announce(f"starting {task.name}", 600.0)
                    simulator = simulators.open_simulator(request.suite, task.name, RESOLUTION)
                    states = BENCHMARK.initial_states(request.suite, task).states
                link.announce(f"attempt {number} of {task.name}", 1800.0)
                found = record_attempt(simulator, request, task, states, number, progress / f"{number}.hdf5")
                write_json(noted, asdict(found))
            attempt = Attempt(**json.loads(noted.read_bytes()))
            if attempt.success:
                kept.append(attempt)
                link.report(1)
    finally:
        if simulator is not None:
            simulator.close()
    _assemble(request, task, kept, progress, target)
    return task.name


def record_attempt(
    simulator: simulators.LiberoSimulator,
    request: RecordRequest,
    task: BenchmarkTask,
    states: NDArray[np.float64],
    number: int,
    path: Path,
) -> Attempt:
    """One attempt from a benchmark's state with placement noise; written to `path` when it solves the task."""
    random = np.random.default_rng([request.seed, task.number, number])
    plan = PickAndPlace.of(simulator)
    if plan is None:
        raise FwdataError(f"the goal of {task.name} is not to put one object somewhere")
    first = (request.first_state + number) % len(states)
    simulator.looking = False
    simulator.place(request.seed, number)
    scene = simulator.model_xml()
    simulator.set_state(perturbed(simulator, plan, states[first], random, request.placement_noise))
    for _ in range(SETTLING_STEPS):
        simulator.step(RESTING)
    rows: list[tuple[NDArray[np.float64], NDArray[np.float64], simulators.SimulatorState]] = []
    solved = False
    simulator.looking = True
    for action in pushed(expert_actions(simulator, plan, random), random, request.pushes):
        before = simulator.state()
        seen, solved = simulator.step(action)
        rows.append((before, action, seen))
        if solved:
            break
    if solved:
        _write_demo(path, rows, scene)
    return Attempt(number, first, solved, len(rows))


def _write_demo(
    path: Path, rows: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], simulators.SimulatorState]], scene: str
) -> None:
    import h5py

    seen = [row[2] for row in rows]
    effector = np.stack([np.concatenate([s.position, simulators.axis_angle(s.quaternion)]) for s in seen])
    last = np.zeros(len(rows), np.uint8)
    last[-1] = 1
    low: dict[str, NDArray[Any]] = {
        "actions": np.stack([row[1] for row in rows]),
        "states": np.stack([row[0] for row in rows]),
        "robot_states": np.stack([np.concatenate([s.fingers, s.position, s.quaternion]) for s in seen]),
        "rewards": last,
        "dones": last,
        "obs/ee_states": effector,
        "obs/ee_pos": effector[:, :3],
        "obs/ee_ori": effector[:, 3:],
        "obs/gripper_states": np.stack([s.fingers for s in seen]),
        "obs/joint_states": np.stack([s.joints for s in seen]),
    }
    with h5py.File(path, "w") as file:
        file.attrs[MODEL] = scene
        for name, values in low.items():
            file[name] = values
        for name in seen[0].images:
            frames = np.stack([s.images[name] for s in seen])
            file.create_dataset(
                f"obs/{name}", data=frames, chunks=(1, *frames.shape[1:]), compression="gzip", compression_opts=1
            )
    sync(path)


def _assemble(
    request: RecordRequest, task: BenchmarkTask, kept: Sequence[Attempt], progress: Path, target: Path
) -> None:
    """The task's file from its attempts, with the attributes of published files; absent when none succeeded."""
    import h5py

    if not kept:
        return
    with whole_file(target) as temporary, h5py.File(temporary, "w") as file:
        data = file.create_group("data")
        for number, attempt in enumerate(kept):
            with h5py.File(progress / f"{attempt.number}.hdf5", "r") as source:
                demo = data.create_group(f"demo_{number}")
                for key in source:
                    source.copy(source[key], demo, key)
                demo.attrs["num_samples"] = attempt.steps
                demo.attrs["init_state"] = source["states"][0]
                if MODEL in source.attrs:  # attempts of older versions lack it
                    demo.attrs[MODEL] = source.attrs[MODEL]
        data.attrs.update(_attributes(request, task, kept))


def _attributes(request: RecordRequest, task: BenchmarkTask, kept: Sequence[Attempt]) -> dict[str, object]:
    domain = "libero_floor_manipulation" if request.suite == "libero_object" else "libero_tabletop_manipulation"
    name = "_".join(part.capitalize() for part in domain.split("_"))
    bddl = f"libero/libero/bddl_files/{request.suite}/{task.name}.bddl"
    kwargs = {
        "robots": ["Panda"], "controller_configs": CONTROLLER, "bddl_file_name": bddl, "has_renderer": False,
        "has_offscreen_renderer": True, "ignore_done": True, "use_camera_obs": True, "camera_depths": False,
        "camera_names": ["robot0_eye_in_hand", "agentview"], "reward_shaping": False, "control_freq": 20,
        "camera_heights": RESOLUTION, "camera_widths": RESOLUTION, "camera_segmentations": None,
    }  # fmt: skip
    problem = {"problem_name": domain, "domain_name": "robosuite", "language_instruction": task.instruction}
    env_args = {"type": 1, "env_name": name, "problem_name": domain, "bddl_file": bddl, "env_kwargs": kwargs}
    return {
        "bddl_file_name": bddl,
        "env_args": json.dumps(env_args),
        "env_name": name,
        "macros_image_convention": "opengl",
        "num_demos": len(kept),
        "problem_info": json.dumps(problem),
        "tag": "libero-v1",
        "total": sum(attempt.steps for attempt in kept),
    }


def report_of(request: RecordRequest, tasks: Sequence[BenchmarkTask]) -> RecordReport:
    """What the folder holds of these tasks."""
    report = RecordReport(request.folder)
    for task in tasks:
        notes = (request.folder / ".sample" / task.name).glob("*.json")
        attempts = sorted((Attempt(**json.loads(p.read_bytes())) for p in notes), key=lambda a: a.number)
        kept = [attempt for attempt in attempts if attempt.success][: request.episodes]
        report.demos += len(kept)
        report.frames += sum(attempt.steps for attempt in kept)
        report.failed += [(task.name, a.number, a.state) for a in attempts if not a.success]
        if len(kept) < request.episodes:
            report.short.append(task.name)
    return report


def settle(request: RecordRequest, versions: dict[str, str]) -> None:
    """Record the settings of a new folder; UsageError naming what differs in one that was begun otherwise."""
    path = request.folder / ".sample" / "settings.json"
    now = {k: v for k, v in asdict(request).items() if k not in {"out", "suite"}} | versions
    if not path.exists():
        if any(request.folder.glob("*.hdf5")):
            raise UsageError(f"{request.folder} holds files that were not made by this command; use another --out")
        write_json(path, now)
        return
    before = json.loads(path.read_bytes())
    for key, value in now.items():
        if before.get(key, 0 if key == "pushes" else None) != value:  # older folders do not name them
            raise UsageError(
                f"{request.folder} was begun with {key} {before.get(key)}, now it is {value}; use another --out, or "
                "the same settings to continue"
            )


def write_record(request: RecordRequest, tasks: Sequence[BenchmarkTask], report: RecordReport) -> None:
    """OUT/<suite>/sample.json: seeds, versions and failures."""
    settings = json.loads((request.folder / ".sample" / "settings.json").read_bytes())
    failed = [{"task": t, "attempt": n, "initial_state": s} for t, n, s in report.failed]
    found = {
        "suite": request.suite, "tasks": [task.name for task in tasks], "settings": settings, "demos": report.demos,
        "frames": report.frames, "failed": failed, "short": report.short,
    }  # fmt: skip
    write_json(request.folder / "sample.json", found)


def record_suite(
    request: RecordRequest, tasks: Sequence[BenchmarkTask], workers: int, on_demo: Callable[[int], None]
) -> RecordReport:
    """Record what is not there yet, tasks in worker processes; the same command continues after a kill.

    on_demo: callback, demonstrations recorded. Raises UsageError for a folder with other settings, StoreBusy when
    another process records there. Cost: 20 to 40 CPU seconds per demonstration with software rendering.
    """
    if not 0 <= request.seed < 1 << 32:
        raise UsageError(f"--seed must be 0 to {(1 << 32) - 1} in the simulator, found {request.seed}")
    versions = simulators.versions()
    simulators.choose_backend()
    with made_folder(request.folder), folder_lock(request.folder):
        settle(request, versions)
        with WorkerPool(workers if len(tasks) > 1 else 0) as pool:
            for _ in pool.run(record_task, [(request, task) for task in tasks], on_demo):
                write_record(request, tasks, report_of(request, tasks))
        report = report_of(request, tasks)
        write_record(request, tasks, report)
    return report
