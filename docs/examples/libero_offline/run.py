"""LIBERO from nothing, offline: demonstrations, caches, two training runs of equal budget, and their success rates.

    python docs/examples/libero_offline/run.py --out OUT                         # 3 tasks x 50 demonstrations: hours
    python docs/examples/libero_offline/run.py --out OUT --tasks 8 --episodes 3 --steps 40 --trials 2 --limit 60

Every step is a `fwdata` or `fwtrain` command run as its own process; its output and time go to OUT/steps/NAME.json.
Stop it at any time and run it again with the same arguments: each command continues where it was. Needs the extras
convert, train and libero-sim; nothing is downloaded. The result is OUT/report.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = Path(__file__).with_name("manifest.yaml")
VARIANTS = ("fastwam", "no-video")


@dataclass(frozen=True)
class Example:
    """What is asked for."""

    out: Path
    """Folder for everything it makes."""
    suite: str
    """Suite of the benchmark."""
    tasks: str
    """Numbers of its tasks, comma-separated."""
    episodes: int
    """Demonstrations per task."""
    steps: int
    """Optimizer steps of each run."""
    trials: str
    """Trials per task, a count or a range."""
    limit: int | None
    """Steps per trial in place of the protocol's."""
    workers: int
    """Processes that record and evaluate."""
    recipe: str
    """Recipe of both runs."""
    overrides: tuple[str, ...]
    """Keys of the recipe, KEY=VALUE."""


def commands(asked: Example) -> dict[str, list[str]]:
    """The commands by name, in order."""
    demos, store, workers = f"{asked.out}/demos", f"{asked.out}/store.zarr", str(asked.workers)
    where = ["--suite", asked.suite, "--tasks", asked.tasks]
    sample = ["fwdata", "sample", "libero", "--simulator", *where, "--episodes", str(asked.episodes), "--pushes", "3"]
    found = {
        "sample": [*sample, "--workers", workers, "--out", demos],
        "convert": ["fwdata", "convert", "libero", demos, "--out", store, "--manifest", str(MANIFEST)],
        "stats": ["fwdata", "stats", store],
        "text": ["fwdata", "encode-text", store, "--encoder", "tiny"],
        "latents": ["fwdata", "encode-latents", store, "--vae", "tiny-libero", "--stride", "4", "--workers", workers],
    }
    settings = ["data.windows=future", f"optim.steps={asked.steps}", *asked.overrides]
    for variant in VARIANTS:
        words = [word for key in (f"model.variant={variant}", *settings) for word in ("--set", key)]
        run = ["fwtrain", "run", store, "--recipe", asked.recipe, "--out", f"{asked.out}/runs/{variant}"]
        found[f"train {variant}"] = [*run, "--threads", "1", *words]
    for name in (*VARIANTS, "untrained"):
        run = f"{asked.out}/runs/{VARIANTS[0] if name == 'untrained' else name}"
        words = ["fwtrain", "eval", run, "--env", "libero", *where, "--trials", asked.trials, "--resolution", "128"]
        words += ["--workers", workers, "--films", "0", "--film-failures", "1", "--out", f"{asked.out}/eval/{name}"]
        words += [] if asked.limit is None else ["--limit", str(asked.limit)]
        found[f"eval {name}"] = [*words, "--threads", "1", *(["--untrained"] if name == "untrained" else [])]
    return found


def run(name: str, command: list[str], out: Path) -> dict[str, Any]:
    """Run one command and keep what it printed. SystemExit with its exit code when it fails."""
    print(f"$ {' '.join(command)}", flush=True)
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", *command, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    kept = out / "steps" / f"{name.replace(' ', '-')}.json"
    before = json.loads(kept.read_text())["seconds"] if kept.exists() else 0.0
    found = {"command": command, "seconds": before + time.monotonic() - began, "result": json.loads(done.stdout)}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found, indent=1))
    return found


def report(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: success by task with 95 % Wilson intervals, and what every step took."""
    results = {name: found[f"eval {name}"]["result"]["by_suite"] for name in (*VARIANTS, "untrained")}
    lines = ["| task | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for suite, tallies in results[VARIANTS[0]].items():
        for task in tallies["by_task"]:
            cells = [_rate(suites[suite]["by_task"][task]) for suites in results.values()]
            lines.append(f"| {suite}: {task} | {' | '.join(cells)} |")
    lines += ["", "| step | minutes | command |", "|---|---|---|"]
    for name, step in found.items():
        lines.append(f"| {name} | {step['seconds'] / 60:.1f} | `{' '.join(step['command'])}` |")
    return "\n".join(lines) + "\n"


def _rate(tally: dict[str, Any]) -> str:
    if not tally["trials"]:
        return "no trial"
    low, high = (100 * value for value in tally["interval"])
    return f"{tally['successes']} of {tally['trials']} ({low:.0f} to {high:.0f} %)"


def main() -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything it makes")
    parser.add_argument("--suite", default="libero_goal", help="suite (default libero_goal)")
    parser.add_argument("--tasks", default="1,4,8", help="tasks, comma-separated (default 1,4,8)")
    parser.add_argument("--episodes", type=int, default=50, help="demonstrations per task (default 50)")
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps of each run (default 4000)")
    parser.add_argument("--trials", default="50", help="trials per task, a count or a range like 40-49 (default 50)")
    parser.add_argument("--limit", type=int, help="steps per trial (default: the protocol's 400)")
    parser.add_argument("--workers", type=int, default=2, help="processes that record and evaluate (default 2)")
    parser.add_argument("--recipe", default="tiny", help="recipe of both runs (default tiny)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    given = vars(parser.parse_args())
    asked = Example(**{("overrides" if key == "set" else key): value for key, value in given.items()})
    found = {name: run(name, command, asked.out) for name, command in commands(asked).items()}
    text = report(found)
    (asked.out / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
