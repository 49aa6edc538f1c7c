"""What a finding looks like: a film strip of the camera, or plots of the columns concerned."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from fwdata.doctor.album import Album, ShownEpisode
from fwdata.doctor.findings import DoctorFinding
from fwdata.evidence.signals import active_columns, speed
from fwdata.report import Band, Panel, Range, RangePanel, Report, frames_strip

STRIP_FRAMES, STRIP_COLUMNS, STRIP_WIDTH = 8, 4, 160
PANELS = 4
SHARES, SHARE_NAME = 12, 44
"""Lines of a plot of counts, and letters of their names."""
WITHOUT = re.compile(r"(latents|text|statistics|stitched)_|discovery|quarantined|unreadable|left_out|unfinished")
"""Findings without counts that the sentence says in full: there is nothing to draw."""

_PAIR = re.compile(r"(\S+) repeats (\S+?)(?:,|$)")


def add_exhibit(report: Report, finding: DoctorFinding, album: Album) -> None:
    """Add what a finding looks like in its first episode, where there is something to see."""
    if finding.shares:
        _shares(report, finding)
        return
    if WITHOUT.match(finding.detector):
        return
    episode = album.episode(finding.episodes[0] if finding.episodes else None)
    if episode is None:
        return
    if finding.detector in ("embodiments", "same_images"):
        for name in finding.episodes[:PANELS]:
            shown = album.episode(name)
            if shown is not None:
                _strips(report, finding, shown)
    elif finding.detector.startswith(("camera", "wrist", "colour", "one_look", "mounts", "conversion")):
        _strips(report, finding, episode)
    elif finding.detector.startswith("instruction"):
        seen = [shown for name in finding.episodes[:PANELS] if (shown := album.episode(name))]
        report.table(("episode", "instruction"), [(shown.id, shown.instruction) for shown in seen])
        _strips(report, finding, episode)
    elif finding.detector == "duplicate_episodes":
        _twice(report, finding, album)
    elif finding.detector == "idle_stretch":
        _speed(report, finding, episode)
    elif finding.detector == "unreachable_windows":
        marked = episode.valid.astype(np.float64)
        panel = Panel("1 valid, 0 not", {"valid": (np.arange(len(marked)), marked)})
        report.multiples(f"Frames marked not valid, {episode.id}", [panel], "rows")
    elif finding.detector == "episode_length":
        _strips(report, finding, episode)
    else:
        _columns(report, finding, episode)


def _shares(report: Report, finding: DoctorFinding) -> None:
    """Counts, each on a line from 0 to all of them."""
    rows: dict[str, Range | None] = {}
    for share in finding.shares[:SHARES]:
        name = share.name if len(share.name) <= SHARE_NAME else f"{share.name[: SHARE_NAME - 2]}.."
        while name in rows:
            name += "'"
        rows[name] = Range(share.count, math.nan, math.nan)
    most = max(share.total for share in finding.shares)
    panel = RangePanel(finding.subject or finding.detector, f"of {most}", rows, (0.0, float(max(1, most))))
    rest = len(finding.shares) - SHARES
    report.ranges(f"How many{f', the first {SHARES} of {len(finding.shares)}' if rest > 0 else ''}", [panel])


def _strips(report: Report, finding: DoctorFinding, episode: ShownEpisode) -> None:
    """Frames of the cameras that the finding names, evenly spread; of the first camera where it names none."""
    named = [name for name in episode.cameras if name in finding.subject.split(" and ")]
    both = finding.detector in ("wrists_exchanged", "mounts_exchanged")
    rows = np.unique(np.linspace(0, len(episode.state) - 1, STRIP_FRAMES).astype(np.int64)).tolist()
    images = []
    for camera in named or episode.cameras[: 3 if both else 1]:
        frames = episode.frames(camera, rows)
        if len(frames):
            labels = [f"row {row}" for row in rows[: len(frames)]]
            scale = STRIP_WIDTH / frames.shape[2]
            images.append((frames_strip(frames, scale, labels, STRIP_COLUMNS, lossy=True), f"{camera}, {episode.id}"))
    if images:
        report.images(images)
    if finding.detector in ("camera_delay", "camera_frozen", "wrists_exchanged"):
        _speed(report, finding, episode)


def _speed(report: Report, finding: DoctorFinding, episode: ShownEpisode) -> None:
    rows = np.arange(len(episode.state))
    bands = []
    if finding.detector == "idle_stretch" and finding.row is not None:
        still = np.flatnonzero(speed(episode.state.astype(np.float64))[finding.row :] > 0.01)
        stop = finding.row + (int(still[0]) if len(still) else len(rows) - finding.row)
        bands.append(Band(finding.row, stop))
    panel = Panel("relative speed of the state", {"speed": (rows, speed(episode.state.astype(np.float64)))}, bands)
    report.multiples(f"Motion, {episode.id}", [panel], "rows")


def _twice(report: Report, finding: DoctorFinding, album: Album) -> None:
    """Columns of both episodes of the first pair on top of each other."""
    pair = _PAIR.search(finding.sentence)
    both = [album.episode(name) for name in (pair.groups() if pair else finding.episodes[:1])]
    shown = [episode for episode in both if episode is not None]
    if not shown:
        return
    columns = active_columns(shown[0].state.astype(np.float64))[:PANELS]
    panels = [
        Panel(shown[0].names[0][i], {e.id: (np.linspace(0, 1, len(e.state)), e.state[:, i]) for e in shown})
        for i in columns
    ]
    report.multiples("The same motion twice", panels, "share of the episode")


def _columns(report: Report, finding: DoctorFinding, episode: ShownEpisode) -> None:
    """State and action of the columns that the finding names, else of the first that move."""
    state_names, action_names = episode.names
    rows = np.arange(len(episode.state))
    bands = [Band(finding.row - 2, finding.row + 2)] if finding.row is not None else []
    panels = []
    for name in _named(finding, state_names, action_names) or _moving(episode):
        lines = {}
        if name in state_names:
            lines["state"] = (rows, episode.state[:, state_names.index(name)])
        if name in action_names:
            lines["action"] = (rows, episode.action[:, action_names.index(name)])
        panels.append(Panel(name, lines, bands))
    report.multiples(f"State and action, {episode.id}", panels[:PANELS], "rows")


def _named(finding: DoctorFinding, state: Sequence[str], action: Sequence[str]) -> list[str]:
    """Columns whose name the subject holds; all grippers for a finding about grippers."""
    words = set(re.split(r"[ ,]+", finding.subject))
    every = list(dict.fromkeys([*state, *action]))
    named = [name for name in every if name in words]
    if not named and finding.detector.startswith("gripper"):
        named = [name for name in every if "gripper" in name or "finger" in name]
    if finding.detector.startswith(("rotation", "wrapped")) and named and named[0] in state:
        first = state.index(named[0])
        named = list(state[first : first + 3])
    return named


def _moving(episode: ShownEpisode) -> list[str]:
    return [episode.names[0][i] for i in active_columns(episode.state.astype(np.float64))[:PANELS]]
