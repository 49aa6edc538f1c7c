"""Closed loops on a run's page: results and films of evaluations whose folders lie in the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fwdata.report import Report
from fwdata.report.films import FRAMES, NARROWEST, film_frames, rollout_film

RESULT = "result.json"
COMPARED = "compared"
"""Folder of a run of a comparison that holds the trials of benchmarks, in folders below."""
SHOWN = 4
"""Films of each evaluation: as many solved ones as not, where both are there."""
RATE = 20.0
"""Frames per second of a film."""


@dataclass(frozen=True)
class LoopResult:
    """An evaluation in the run folder."""

    folder: Path
    """Folder of the evaluation."""
    world: str
    """Where the policy acted."""
    untrained: bool
    """Whether its weights were those before training."""
    checkpoint: str
    """Which weights acted."""
    solved: int
    """Trials that were solved."""
    trials: int
    """Trials that were run."""
    low: float
    """Lower end of the rate's 95 % interval, 0 .. 1."""
    high: float
    """Its upper end."""

    @property
    def text(self) -> str:
        """`19 of 20 solved (95 % interval 76 to 99 %)`."""
        return f"{self.solved} of {self.trials} solved (95 % interval {self.low:.0%} to {self.high:.0%})"


def find_loops(run: Path) -> list[LoopResult]:
    """Evaluations in folders of a run that have a result, before training first; unreadable ones are left out."""
    paths = [*sorted(run.glob(f"*/{RESULT}")), *sorted(run.glob(f"{COMPARED}/*/*/{RESULT}"))]
    found = [loop for path in paths if (loop := _read(path)) is not None]
    return sorted(found, key=lambda loop: (not loop.untrained, loop.folder.name))


def _read(path: Path) -> LoopResult | None:
    try:
        value = json.loads(path.read_bytes())
        policy = value.get("policy", {})
        untrained = bool(value.get("untrained", str(policy.get("checkpoint", "")).startswith("untrained")))
        trials = int(value["trials"] if "trials" in value else value["episodes"])
        low, high = value["interval"]
        which = str(value.get("checkpoint", policy.get("checkpoint", "")))
        return LoopResult(
            path.parent, str(value["env"]), untrained, which, int(value["successes"]), trials, float(low), float(high)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def add_loops(report: Report, loops: Sequence[LoopResult]) -> None:
    """A table of the results, then films of each: before training, and after."""
    if not loops:
        return
    report.heading("In closed loop")
    rows = [
        (loop.world, loop.checkpoint, loop.solved, loop.trials, f"{loop.low:.0%} to {loop.high:.0%}") for loop in loops
    ]
    report.table(("world", "weights", "solved", "trials", "95 % interval"), rows)
    for loop in loops:
        films = _films(loop.folder)
        if films:
            report.heading(f"{'Before' if loop.untrained else 'After'} training: {loop.text}", 3)
            report.images(films, at_least=NARROWEST)


def _films(folder: Path) -> list[tuple[bytes, str]]:
    """Films as images with their captions: of `--record`, and of a benchmark's `films`."""
    npz = {path: _recorded(path)[1] for path in sorted(folder.glob("episode_*.npz"))}
    mp4 = {path: path.stem.endswith("-success") for path in sorted((folder / "films").glob("*.mp4"))}
    found = []
    for path in _mixed({**npz, **mp4}):
        frames, solved, text = (
            _recorded(path) if path.suffix == ".npz" else (film_frames(path, FRAMES), mp4[path], path.stem)
        )
        caption = f"{text.rstrip('.')}: {'solved' if solved else 'not solved'}"
        found.append((rollout_film(frames, RATE), caption))
    return found


def _mixed(outcomes: dict[Path, bool]) -> list[Path]:
    """At most `SHOWN` films, half of them failures where there are as many."""
    solved, failed = ([path for path, won in outcomes.items() if won is wanted] for wanted in (True, False))
    kept = max(SHOWN // 2, SHOWN - len(failed))
    return [*solved[:kept], *failed[: SHOWN - min(kept, len(solved))]]


def _recorded(path: Path) -> tuple[NDArray[np.uint8], bool, str]:
    """uint8 [n, H, W, 3], whether it was solved, and the instruction."""
    with np.load(path, allow_pickle=False) as data:
        return data["frames"], bool(data["success"]), str(data["instruction"])
