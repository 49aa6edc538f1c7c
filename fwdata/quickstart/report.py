"""The quickstart's report: what each command did, the figures, and images of what the model sees and does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import fwdata
from fwdata.quickstart.results import AFTER, BEFORE, Results, Step, summary_rows
from fwdata.report import Report, frames_strip
from fwdata.report.films import NARROWEST, rollout_film
from fwdata.store.reader import Store

SCALE = 2
"""Pixels of an image per pixel of a frame."""


def write_report(out: Path, steps: list[Step], results: Results) -> Path:
    """Write `report.html` in `out` and return its path."""
    store = fwdata.open(out / "sample.zarr")
    report = Report("fwdata quickstart")
    trained, untrained = results.values["trained"], results.values["untrained"]
    report.text(
        f"The trained policy solves {trained['rate']:.0%} of {trained['episodes']} episodes of a small tabletop world "
        f"in closed loop; with untrained weights it is {untrained['rate']:.0%}."
    )
    _rollouts(report, "In closed loop, before training", out / "run" / BEFORE)
    _rollouts(report, "In closed loop, after training", out / "run" / AFTER)
    report.heading("Figures")
    report.facts(dict(summary_rows(results)))
    _demonstrations(report, store)
    _reconstructions(report, store)
    _training(report, out / "run" / "log.jsonl")
    _prediction(report, results)
    report.heading("Commands")
    for step in steps:
        report.text(f"{step.why[0].upper()}{step.why[1:]}, {results.seconds[step.name]:.1f} s")
        report.code(" ".join(step.command))
    path = out / "report.html"
    report.write(path)
    return path


def _demonstrations(report: Report, store: Store) -> None:
    report.heading("Demonstrations")
    films = []
    for episode in [store.episodes[0], store.episodes[-1]]:
        frames = episode.stitched(np.arange(episode.num_frames))
        films.append((rollout_film(frames, store.fps), f"{episode.id}: {episode.instruction}"))
    report.images(films, at_least=NARROWEST)


def _reconstructions(report: Report, store: Store) -> None:
    """What the latents keep: frames of a window, and the same decoded from the cache."""
    from fwdata.encode.vae.wan import load_vae

    cache = store.latents()
    episode = store.episodes[0]
    start = int(cache.starts(episode)[1])
    frames = episode.stitched(cache.window.video_indices(start, episode.num_frames))
    future = cache.future(episode, [start])[0]
    latents = np.concatenate([cache.first(episode, [start])[0][:, None], future], axis=1)
    decoded = load_vae(cache.vae, decoder=True).decode(latents)
    error = np.square(decoded.astype(np.float64) - frames).mean()
    psnr = 10 * np.log10(255.0**2 / max(error, 1e-12))
    report.heading("What the latents keep")
    report.images(
        [
            (frames_strip(frames, scale=SCALE, lossy=True), "the 9 video frames of one window"),
            (frames_strip(decoded, scale=SCALE, lossy=True), f"decoded from the cached latents, {psnr:.1f} dB PSNR"),
        ]
    )


def _training(report: Report, log: Path) -> None:
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    train = [r for r in records if r["kind"] == "train"]
    if not train:
        return
    xs = [r["step"] for r in train]
    report.heading("Training")
    curves = {name: (xs, [r[key] for r in train]) for name, key in (("video", "video"), ("action", "action"))}
    report.plot("Loss", curves, "step", "loss", log=True)
    if (log.parent / "report.html").is_file():
        report.links(
            {"The run: validation, and predicted futures beside the true ones": f"{log.parent.name}/report.html"}
        )


def _prediction(report: Report, results: Results) -> None:
    """The arm joints that move most in the predicted chunk, beside what was recorded."""
    chunk = results.values["predict"]
    predicted, recorded = np.asarray(chunk["action"]), np.asarray(chunk["recorded"])
    moving = np.argsort(-np.ptp(recorded, axis=0))[:2]
    report.heading("A predicted action chunk")
    for dimension in moving:
        name = chunk["names"][dimension]
        curves = {
            "predicted": (list(range(len(predicted))), predicted[:, dimension].tolist()),
            "recorded": (list(range(len(recorded))), recorded[:, dimension].tolist()),
        }
        report.plot(name, curves, "step", "robot units")


def _rollouts(report: Report, heading: str, folder: Path) -> None:
    found = sorted(folder.glob("*.npz"))
    if not found:
        return
    report.heading(heading)
    images = []
    for path in found[:4]:
        with np.load(path, allow_pickle=False) as data:
            caption = f"{data['instruction']} — {'solved' if data['success'] else 'not solved'}"
            images.append((rollout_film(data["frames"], 16.0), caption))
    report.images(images, at_least=NARROWEST)
