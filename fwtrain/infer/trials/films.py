"""Films of finished trials: their recorded actions are replayed with every step rendered; no policy is needed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.benchmarks.child import EnvOrder
from fwdata.envs.benchmarks.process import EnvProcess
from fwdata.envs.play import EnvLost
from fwdata.io import write_atomic
from fwtrain.infer.trials.plan import EvalPlan, TaskPlan
from fwtrain.infer.trials.records import FILMS, EvalFolder, TrialRecord

SLOW_SECONDS = 5.0
"""A rendered step that takes longer hangs."""


_X264 = {"crf": "23", "preset": "veryfast", "threads": "1", "mbtree": "0"}
"""Same frames, same bytes: x264's macroblock tree also reads memory that it has not written."""


@dataclass(frozen=True)
class Film:
    """A film on disk."""

    record: TrialRecord
    """The trial."""
    path: Path
    """Its MP4 file."""


def chosen_trials(
    plan: EvalPlan, records: Iterable[TrialRecord], numbers: Sequence[int], failures: int
) -> list[TrialRecord]:
    """Trials to film: those with these numbers, and the first failures of every task."""
    names = {(task.suite, task.task.name) for task in plan.tasks}
    found: list[TrialRecord] = []
    failed: dict[tuple[str, str], int] = {}
    for record in records:
        key = (record.suite, record.task)
        if key not in names or record.trial not in plan.trials:
            continue
        count = failed[key] = failed.get(key, 0) + (not record.success)
        if record.trial in numbers or (not record.success and count <= failures):
            found.append(record)
    return found


def make_films(
    plan: EvalPlan, folder: EvalFolder, records: Sequence[TrialRecord], hang: float | None = None
) -> tuple[list[Film], list[str]]:
    """Film trials that have no film yet; the films, and a sentence for each that could not be made or differed.

    Cost: 0.3 CPU seconds per step. A film is written whole or not at all; OSError when the disk is full.
    """
    films, said = [], []
    tasks = {(task.suite, task.task.name): task for task in plan.tasks}
    for record in records:
        name = f"{record.suite}-{record.task}-{record.trial}-{'success' if record.success else 'failure'}.mp4"
        film = Film(record, folder.path / FILMS / name)
        if not film.path.exists():
            try:
                frames, same = _replay(plan, tasks[record.suite, record.task], record, hang)
            except EnvLost as error:
                said.append(f"no film of trial {record.trial} of {record.task}: its environment {error}")
                continue
            if not same:
                said.append(f"the film of trial {record.trial} of {record.task} does not end as the trial did")
            write_atomic(film.path, encode_mp4(frames))
        films.append(film)
    return films, said


def _replay(plan: EvalPlan, task: TaskPlan, record: TrialRecord, hang: float | None) -> tuple[NDArray[np.uint8], bool]:
    """uint8 [n, H, W, 3] of both cameras side by side, and whether it ended like the trial."""
    env = EnvProcess(EnvOrder(plan.env, task.suite, task.task, plan.protocol, task.states.states), hang)
    try:
        env.reset(plan.protocol.env_seed, record.trial)
        played = env.answer()
        frames = list(played.frames)
        actions = record.commands()
        for first in range(0, len(actions), plan.protocol.execute):
            env.run(actions[first : first + plan.protocol.execute], film=True)
            played = env.answer()
            frames += played.frames
    finally:
        env.close()
    joined = np.stack([np.concatenate([frame[name] for name in plan.robot.cameras], axis=1) for frame in frames])
    return joined, played.success == record.success and len(frames) == record.steps + 1


def encode_mp4(frames: NDArray[np.uint8], fps: int = 20) -> bytes:
    """H.264 MP4 of uint8 [n, H, W, 3] frames, even height and width, at 20 frames per second."""
    import av

    out = io.BytesIO()
    _, height, width, _ = frames.shape
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=_X264)
        stream.width, stream.height, stream.pix_fmt = width - width % 2, height - height % 2, "yuv420p"
        for frame in frames:
            cut = np.ascontiguousarray(frame[: height - height % 2, : width - width % 2])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, "rgb24")))
        container.mux(stream.encode())
    return out.getvalue()
