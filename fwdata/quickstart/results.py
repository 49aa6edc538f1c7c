"""The steps of the quickstart, what they printed, and the figures made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from fwdata.console import human_bytes
from fwdata.io import write_atomic
from fwdata.store.records import JsonObject
from fwdata.wording import counted

AFTER, BEFORE = "eval", "eval-untrained"
"""Folders of the run with what the trained and the untrained policy did in closed loop."""
MEASURED = "results.json"
"""File of the quickstart's folder with what its steps measured when they had something to do."""


@dataclass(frozen=True)
class Step:
    """One command of the quickstart."""

    name: str
    """Key of its result."""
    command: tuple[str, ...]
    """Its words."""
    why: str
    """What it does, for people."""


@dataclass
class Results:
    """What the commands printed and used."""

    values: dict[str, JsonObject] = field(default_factory=dict)
    """JSON that each command printed, by its name; open, since each command has its own."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each command, by its name."""
    peak_rss: int = 0
    """Largest resident memory any of them used, bytes."""
    total_seconds: float = 0.0
    """Time of all commands."""

    def with_earlier(self, folder: Path) -> Results:
        """The same, with what an earlier quickstart in `folder` measured where a step had nothing left to do.

        Writes it there for the next one, together with steps that this one has not reached yet.
        """
        path = folder / MEASURED
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"values": {}, "seconds": {}}
        done = self.values.keys()
        kept = {name for name, nothing in _DID_NOTHING.items() if name in done and nothing(self.values[name])}
        kept &= earlier["values"].keys()
        values = {name: earlier["values"][name] if name in kept else value for name, value in self.values.items()}
        seconds = {name: earlier["seconds"][name] if name in kept else took for name, took in self.seconds.items()}
        peak = max(self.peak_rss, earlier.get("peak_rss", 0))
        total = sum(seconds.values()) if kept else self.total_seconds
        data = {
            "values": {**earlier["values"], **values},
            "seconds": {**earlier["seconds"], **seconds},
            "peak_rss": peak,
        }
        write_atomic(path, json.dumps(data, indent=2).encode())
        return Results(values, seconds, peak, total)


_DID_NOTHING: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "latents": lambda value: not value["first"],
    "train": lambda value: value["loss"] is None,
}
"""Steps whose speed is in the report, and how their JSON says that there was nothing left to do."""


def result_line(step: str, value: Mapping[str, Any]) -> str:
    """What a step's JSON says, in one line for people; empty for a step that has nothing to say."""
    match step:
        case "sample":
            return (
                f"{counted(value['episodes'], 'recording')}, {counted(value['frames'], 'frame')}, "
                f"{human_bytes(value['bytes'])}"
            )
        case "convert":
            return f"{counted(value['episodes'], 'episode')} in the store, {value['new_episodes']} of them new"
        case "stats":
            return (
                f"of {counted(value['num_episodes'], 'training episode')}, {counted(value['num_transition'], 'frame')}"
            )
        case "text":
            return (
                f"{value['encoded']} of {counted(value['prompts'], 'prompt')} encoded"
                if value["encoded"]
                else "encoded already"
            )
        case "latents":
            return f"{value['first']} first frames encoded" if value["first"] else "all latents are there already"
        case "inspect":
            shown = (
                f"{counted(value['episodes'], 'episode')}, {counted(value['frames'], 'frame')} at {value['fps']:.4g} Hz"
            )
            return f"{shown}, {counted(len(value['cameras']), 'camera')}, {human_bytes(value['bytes'])}"
        case "train":
            loss = value["loss"]
            return f"step {value['step']} of {value['total']}" + ("" if loss is None else f", loss {loss:.4f}")
        case "predict":
            return f"{counted(len(value['action']), 'action')} of {counted(len(value['names']), 'dimension')}"
        case "trained" | "untrained":
            return f"{value['rate']:.0%} of {counted(value['episodes'], 'episode')} solved"
    return ""


class QuickstartSummary(TypedDict):
    """The figures of the closing table; null where a rerun had nothing left to measure."""

    episodes: int
    """Episodes of the store."""
    frames: int
    """Their rows."""
    bytes: int
    """Size of the store."""
    latents_per_second: float | None
    """Latents encoded per second."""
    vae_share: float | None
    """Share of that time inside the VAE, 0 .. 1."""
    steps_per_second: float | None
    """Optimizer steps per second."""
    samples_per_second: float | None
    """Windows per second."""
    data_wait: float | None
    """Share of the time that training waited for data, 0 .. 1."""
    loss: float | None
    """Training loss of the last log interval."""
    video_loss: float | None
    """Its video part."""
    action_loss: float | None
    """Its action part."""
    success_trained: float
    """Success rate of the trained policy in the sample world, 0 .. 1."""
    success_untrained: float
    """The same before training."""
    eval_episodes: int
    """Episodes that both rates are of."""
    seconds: float
    """Time of all commands."""
    peak_rss_bytes: int
    """Largest resident memory any command used."""


def summary(results: Results) -> QuickstartSummary:
    """The figures of the closing table."""
    value = results.values
    train = value["train"]
    trained = train["loss"] is not None
    return {
        "episodes": value["inspect"]["episodes"],
        "frames": value["inspect"]["frames"],
        "bytes": value["inspect"]["bytes"],
        "latents_per_second": value["latents"]["latents_per_second"],
        "vae_share": value["latents"]["vae_share"],
        "steps_per_second": train["steps_per_s"] if trained else None,
        "samples_per_second": train["samples_per_s"] if trained else None,
        "data_wait": train["data_wait"] if trained else None,
        "loss": train["loss"],
        "video_loss": train["video_loss"],
        "action_loss": train["action_loss"],
        "success_trained": value["trained"]["rate"],
        "success_untrained": value["untrained"]["rate"],
        "eval_episodes": value["trained"]["episodes"],
        "seconds": round(results.total_seconds, 1),
        "peak_rss_bytes": results.peak_rss,
    }


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def summary_rows(results: Results) -> list[tuple[str, str]]:
    """The closing table for people; "-" where a rerun had nothing left to measure."""
    s = summary(results)
    trained, untrained, episodes = s["success_trained"], s["success_untrained"], s["eval_episodes"]
    losses = " / ".join(_number(s[name], ".4f") for name in ("loss", "video_loss", "action_loss"))
    latents = s["latents_per_second"]
    return [
        ("closed-loop success, trained", f"{trained:.0%} of {episodes}"),
        ("closed-loop success, untrained", f"{untrained:.0%} of {episodes}"),
        ("episodes", f"{s['episodes']}"),
        ("frames", f"{s['frames']}"),
        ("store", human_bytes(s["bytes"])),
        ("latents/s", f"{latents:.1f} ({s['vae_share']:.0%} inside the VAE)" if latents else "- (cached)"),
        ("steps/s", _number(s["steps_per_second"], ".2f")),
        ("samples/s", _number(s["samples_per_second"], ".1f")),
        ("data wait", _number(s["data_wait"], ".1%")),
        ("loss (all / video / action)", losses),
        ("time", f"{s['seconds']:.0f} s"),
        ("peak memory", human_bytes(s["peak_rss_bytes"])),
    ]
