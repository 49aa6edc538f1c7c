"""The steps of the quickstart, what they printed, and the figures made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fwdata.console import human_bytes


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

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    """JSON that each command printed, by its name; open, since each command has its own."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each command, by its name."""
    peak_rss: int = 0
    """Largest resident memory any of them used, bytes."""
    total_seconds: float = 0.0
    """Time of all commands."""


def summary(results: Results) -> dict[str, Any]:
    """The figures of the closing table."""
    value = results.values
    train = value["train"]
    return {
        "episodes": value["inspect"]["episodes"],
        "frames": value["inspect"]["frames"],
        "bytes": value["inspect"]["bytes"],
        "latents_per_second": value["latents"]["latents_per_second"],
        "vae_share": value["latents"]["vae_share"],
        "steps_per_second": train["steps_per_s"],
        "samples_per_second": train["samples_per_s"],
        "data_wait": train["data_wait"],
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
        ("episodes", f"{s['episodes']}"),
        ("frames", f"{s['frames']}"),
        ("store", human_bytes(s["bytes"])),
        ("latents/s", f"{latents:.1f} ({s['vae_share']:.0%} inside the VAE)" if latents else "- (cached)"),
        ("steps/s", _number(s["steps_per_second"], ".2f")),
        ("samples/s", _number(s["samples_per_second"], ".1f")),
        ("data wait", _number(s["data_wait"], ".1%")),
        ("loss (all / video / action)", losses),
        ("closed-loop success, trained", f"{trained:.0%} of {episodes}"),
        ("closed-loop success, untrained", f"{untrained:.0%} of {episodes}"),
        ("time", f"{s['seconds']:.0f} s"),
        ("peak memory", human_bytes(s["peak_rss_bytes"])),
    ]
