"""What a preview adds to an episode on demand: the doctor's findings about it, and what its latents keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fwdata.doctor.findings import Checkup
from fwdata.encode.devices import compute_devices
from fwdata.encode.fidelity import psnr
from fwdata.encode.vae.wan import load_vae
from fwdata.errors import UsageError
from fwdata.report import Report, frames_strip
from fwdata.report.preview import Extra
from fwdata.store.episode import StoredEpisode
from fwdata.store.reader import Store

STRIP_WIDTH = 160
"""Frames of a strip are enlarged by whole numbers to at least this width."""


def worst_episodes(store: Store, checked: Checkup, count: int) -> list[int]:
    """Indices of at most `count` episodes that the doctor's findings name, those of the gravest findings first."""
    records = [record for part in store.parts for record in part.record.episodes]
    index = {record.id: number for number, record in enumerate(records)}
    named = [name for finding in checked.findings for name in finding.episodes if name in index]
    return [index[name] for name in dict.fromkeys(named)][:count]


def finding_notes(checked: Checkup) -> Extra:
    """Adds the findings that name an episode, with their commands."""

    def add(report: Report, episode: StoredEpisode) -> None:
        for finding in checked.findings:
            if episode.id in finding.episodes:
                report.text(f"{finding.severity}, {finding.detector}: {finding.sentence}")
                if finding.command:
                    report.code(finding.command)

    return add


def reconstructions(store: Store) -> Extra:
    """Adds the first window of an episode that has future latents: its frames, and the same decoded from the cache.

    Loads the cache's VAE with its decoder. UsageError where it has none, or no window of the store has future latents.
    """
    cache = store.latents()
    vae = load_vae(cache.vae, device=compute_devices()[0], decoder=True)
    if not cache.num_windows:
        raise UsageError(f"--reconstruct: no window of {store.location} has future latents")

    def add(report: Report, episode: StoredEpisode) -> None:
        starts = cache.starts(episode)
        if not len(starts):
            report.text("No window of this episode has future latents.")
            return
        start = int(starts[0])
        frames = episode.stitched(cache.window.video_indices(start, episode.num_frames))
        latents = np.concatenate([cache.first(episode, [start])[0][:, None], cache.future(episode, [start])[0]], axis=1)
        decoded = vae.decode(latents)
        scale = max(1, -(-STRIP_WIDTH // frames.shape[2]))
        shown: Sequence[tuple[bytes, str]] = [
            (frames_strip(frames, scale), f"frames of the window at {start}"),
            (frames_strip(decoded, scale), f"decoded from its latents, {psnr(frames, decoded):.1f} dB PSNR"),
        ]
        report.images(shown)

    return add
