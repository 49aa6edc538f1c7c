"""Frames that no training window reaches, because frames marked not valid lie too close together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.doctor.findings import DoctorFinding, listed
from fwdata.doctor.remedies import Patient
from fwdata.evidence.records import Severity
from fwdata.window import VAE_TEMPORAL_STRIDE, Window, usable_starts
from fwdata.wording import counted, verb

UNREACHED_SHARE = 0.1
"""Share of all frames without a window above which it warns."""


@dataclass(frozen=True)
class ValidRows:
    """What an index of windows asks of an episode."""

    rows: NDArray[np.bool_]
    """bool [T], False where alignment rules marked the frame."""

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.rows)

    def valid(self) -> NDArray[np.bool_]:
        """The rows."""
        return self.rows


@dataclass(frozen=True)
class WindowFacts:
    """What windows reach in one episode."""

    id: str
    """Id of the episode."""
    rows: int
    """Its rows."""
    invalid: int
    """Rows marked not valid."""
    windows: int
    """Window starts that can be used."""
    unreached: int
    """Rows in no usable window."""
    first_unreached: int | None
    """The first of them."""
    shorter: tuple[int, ...] = ()
    """Rows in no usable window with every shorter window of `shorter_windows`, the longest first."""


def shorter_windows(window: Window) -> tuple[Window, ...]:
    """Windows of fewer latents with the same stride, the longest first; one action per frame step."""
    step = window.video_stride * VAE_TEMPORAL_STRIDE
    frames = range(window.num_frames - step, step, -step)
    return tuple(Window(num_frames=n, video_stride=window.video_stride, action_horizon=n - 1) for n in frames)


def window_facts(episode: str, valid: NDArray[np.bool_], window: Window) -> WindowFacts:
    """The facts of one episode. valid: bool [T]."""
    starts, missed = _unreached(valid, window)
    first = int(np.argmax(missed)) if missed.any() else None
    shorter = () if first is None else tuple(int(_unreached(valid, each)[1].sum()) for each in shorter_windows(window))
    invalid = int((~valid).sum())
    return WindowFacts(episode, len(valid), invalid, starts, int(missed.sum()), first, shorter)


def _unreached(valid: NDArray[np.bool_], window: Window) -> tuple[int, NDArray[np.bool_]]:
    """(usable starts, bool [T] of the rows in none of their windows)."""
    starts = usable_starts(ValidRows(valid), window)
    edges = np.zeros(len(valid) + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, np.minimum(starts + window.num_frames, len(valid)), -1)
    return len(starts), np.cumsum(edges)[:-1] == 0


def window_findings(facts: Sequence[WindowFacts], window: Window, patient: Patient) -> list[DoctorFinding]:
    """One finding where frames are in no window; it warns from a tenth of them, or with an episode without any."""
    missed = sorted((f for f in facts if f.unreached), key=lambda f: -f.unreached)
    if not missed:
        return []
    frames, total, empty = (
        sum(f.unreached for f in missed),
        sum(f.rows for f in facts),
        sum(not f.windows for f in facts),
    )
    share = frames / total
    severity: Severity = "warn" if share > UNREACHED_SHARE or empty else "note"
    names = [f.id for f in missed]
    none = f"; {counted(empty, 'episode')} {verb(empty, 'has', 'have')} no window at all" if empty else ""
    marked = sum(f.invalid for f in missed)
    held = "the frame" if marked == 1 else f"one of the {marked} frames"
    sentence = (
        f"{frames} of {total} frames ({share:.1%}) {verb(frames, 'is', 'are')} in no training window of "
        f"{window.num_frames} frames, because a "
        f"window must not hold {held} marked not valid{none}"
    )
    without = patient.without([f.id for f in missed if not f.windows], len(facts))
    command = _shorter(missed, window, patient) or without
    row = missed[0].first_unreached
    return [
        DoctorFinding(severity, "unreachable_windows", sentence, "", share, listed(names), len(names), command, row)
    ]


def _shorter(missed: Sequence[WindowFacts], window: Window, patient: Patient) -> str:
    """The longest shorter window that halves what is missed; empty for none."""
    frames = sum(f.unreached for f in missed)
    for number, each in enumerate(shorter_windows(window)):
        if 2 * sum(f.shorter[number] for f in missed) <= frames:
            return patient.view(f"window.num_frames={each.num_frames}", f"window.action_horizon={each.action_horizon}")
    return ""
