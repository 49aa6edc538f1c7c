"""Images of the LIBERO simulator that the VAE `tiny-libero` is trained and measured on.

    python -m fwdata.encode.vae.libero_clips --out CLIPS [--tasks N] [--tries N] [--seed S]

Writes CLIPS/train/SUITE-TASK.npz and, for the last task of every suite, CLIPS/held_out/..: key `frames`, uint8
[tries, frames, 128, 256, 3], both cameras side by side as `fwdata convert libero` stitches them at 128 px, every
`STRIDE`th step as a window's video takes them. A file that exists is not made again.

In every try the scripted expert's motion carries one object of the scene, drawn at random, to another one, whatever
the task: the hand and the objects are seen in far more places than in demonstrations. Needs the extra `libero-sim`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fwdata.envs import libero as simulators
from fwdata.envs.benchmarks.contract import BenchmarkTask
from fwdata.envs.benchmarks.libero import BENCHMARK, RESTING
from fwdata.envs.libero_experts import PickAndPlace, expert_actions
from fwdata.io import write_atomic

RESOLUTION = 128
STRIDE = 4
"""Steps between frames: the video stride of the LIBERO manifest."""
FRAMES = 25
"""Frames per try: 1 + 24 * STRIDE steps."""
SETTLING_STEPS = 10
HELD_OUT = 9
"""The task of every suite that training does not see."""
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


def side_by_side(seen: simulators.SimulatorState) -> NDArray[np.uint8]:
    """uint8 [128, 256, 3]: both cameras, rotated by 180 degrees as the converter does."""
    cameras = [seen.images[name][::-1, ::-1] for name in ("agentview_rgb", "eye_in_hand_rgb")]
    return np.concatenate(cameras, axis=1)


def one_try(
    simulator: simulators.LiberoSimulator, state: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.uint8]:
    """uint8 [FRAMES, 128, 256, 3]: a random object carried to another one, or as far as the steps reach."""
    simulator.looking = False
    simulator.set_state(state)
    for _ in range(SETTLING_STEPS):
        simulator.step(RESTING)
    names = sorted(simulator.world.objects_dict)
    item, target = random.choice(names, 2, replace=False) if len(names) > 1 else (names[0], names[0])
    actions = itertools.chain(
        expert_actions(simulator, PickAndPlace(str(item), str(target)), random), itertools.repeat(RESTING)
    )
    frames = []
    for step in range(1 + (FRAMES - 1) * STRIDE):
        simulator.looking = step % STRIDE == 0
        seen, _ = simulator.step(next(actions))
        if simulator.looking:
            frames.append(side_by_side(seen))
    return np.stack(frames)


def collect_task(suite: str, task: BenchmarkTask, tries: int, seed: int, path: Path) -> None:
    """The clips of one task, written atomically."""
    import io

    states = BENCHMARK.initial_states(suite, task).states
    simulator = simulators.open_simulator(suite, task.name, RESOLUTION)
    random = np.random.default_rng([seed, SUITES.index(suite), task.number])
    try:
        simulator.looking = False
        simulator.reset()
        clips = np.stack([one_try(simulator, state, random) for state in random.permutation(states)[:tries]])
    finally:
        simulator.close()
    packed = io.BytesIO()
    np.savez_compressed(packed, frames=clips)
    write_atomic(path, packed.getvalue())


def load_clips(folder: Path) -> NDArray[np.uint8]:
    """uint8 [tries, FRAMES, 128, 256, 3] of all files of a folder, in the order of their names."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            found.append(file["frames"])
    return np.concatenate(found)


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m fwdata.encode.vae.libero_clips", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for train/ and held_out/")
    parser.add_argument("--tasks", type=int, default=9, help="training tasks per suite, the first ones (default 9)")
    parser.add_argument("--tries", type=int, default=3, help="clips per task (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    simulators.choose_backend()
    listed = [(suite, task) for suite in SUITES for task in BENCHMARK.tasks(suite)]
    wanted = [one for one in listed if one[1].number < given.tasks or one[1].number == HELD_OUT]
    for suite, task in sorted(wanted, key=lambda one: one[1].number % HELD_OUT):  # a run that is stopped has all suites
        folder = given.out / ("held_out" if task.number == HELD_OUT else "train")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{suite}-{task.number}.npz"
        if not path.exists():
            collect_task(suite, task, given.tries, given.seed, path)
            print(path, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
