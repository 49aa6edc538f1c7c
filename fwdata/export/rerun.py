"""Episodes as a rerun recording (.rrd): cameras, state and action on one time line, for the rerun viewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fwdata.errors import UsageError, needed_for
from fwdata.io import whole_file
from fwdata.store.episode import StoredEpisode
from fwdata.store.reader import Store

IMAGES = 200
"""Most frames of an episode whose images are written; states and actions are written whole."""
QUALITY = 90
"""JPEG quality of the images."""


def write_rerun(store: Store, episodes: Sequence[StoredEpisode], out: Path) -> Path:
    """Write a .rrd of some episodes, whole or not at all; returns its path. Needs the extra `rerun`.

    An episode is the entity `episode-00000`, with `camera/NAME`, `state/NAME`, `action/NAME` and `instruction` below,
    on the time line `seconds`. UsageError where `out` has another suffix.
    """
    if out.suffix != ".rrd":
        raise UsageError(f"--rerun {out}: name a file ending in .rrd")
    with needed_for("--rerun of fwdata preview"):
        import rerun
    with whole_file(out) as temporary:
        recording = rerun.RecordingStream("fwdata")
        recording.save(temporary)
        for episode in episodes:
            _log_episode(recording, store, episode)
        recording.flush()
        recording.disconnect()
    return out


def _log_episode(recording: Any, store: Store, episode: StoredEpisode) -> None:
    """Send one episode to a recording (`rerun.RecordingStream`)."""
    import rerun

    name = f"episode-{episode.index:05d}"
    recording.log(f"{name}/instruction", rerun.TextDocument(episode.instruction), static=True)
    times = episode.timestamps()
    for kind, names, values in (
        ("state", store.state_names, episode.state()),
        ("action", store.action_names, episode.action()),
    ):
        column = rerun.TimeColumn("seconds", duration=times)
        for number, label in enumerate(names):
            lines = rerun.Scalars.columns(scalars=values[:, number].astype(np.float64))
            recording.send_columns(f"{name}/{kind}/{label}", [column], lines)
    rows = np.unique(np.linspace(0, episode.num_frames - 1, min(episode.num_frames, IMAGES)).astype(np.int64))
    for camera in (camera for camera in store.cameras if camera in episode.part.record.cameras):
        for row, image in zip(rows, episode.frames(camera, rows), strict=True):
            recording.set_time("seconds", duration=float(times[row]))
            recording.log(f"{name}/camera/{camera}", rerun.Image(image).compress(QUALITY))
