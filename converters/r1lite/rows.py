"""From topics to rows: one row per head frame, with state, action, the image of every camera, and what is valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from converters.r1lite import align
from converters.r1lite.clocks import TopicTiming
from converters.r1lite.series import RecordedSeries, Series, Track
from converters.r1lite.topics import HEAD
from fwdata.api import Json
from fwdata.errors import BadEpisode
from fwdata.wording import counted, verb

TOLERATED_NS = align.SECOND // 5
"""A feedback topic may start this much late or end this much early; its edge value is held meanwhile."""

SPIKE_RAD = 0.6
SPIKE_SPEED = 50.0
FAR_RAD, ENGAGED_RAD, FIRST_FRAMES = 0.5, 0.2, 5


@dataclass(frozen=True)
class Skew:
    """|stamp of the image - stamp of its row| over the rows of one camera."""

    largest: int
    """Largest distance, nanoseconds."""
    percentile_95: float
    """95th percentile of the distance, nanoseconds."""


@dataclass(frozen=True)
class Gap:
    """A pause of the head camera."""

    after: int
    """Row before the pause; the next row is the one after it."""
    seconds: float
    """Length of the pause."""
    missing: int
    """Frames that a steady rate would have had in it."""

    def to_json(self) -> dict[str, Json]:
        """Plain JSON for the episode's metadata."""
        return {"after_frame": self.after, "seconds": round(self.seconds, 6), "missing_frames": self.missing}


@dataclass(frozen=True)
class AlignedRows:
    """Aligned rows. All arrays have T rows, in time order."""

    stamps: align.Stamps
    """int64 [T], header stamps of the head camera, nanoseconds."""
    numbers: NDArray[np.int64]
    """int64 [T], which head frame (in stamp order) a row is."""
    state: align.Values
    """float64 [T, Ds], raw units."""
    action: align.Values
    """float64 [T, Da], raw units."""
    images: Mapping[str, NDArray[np.int64]]
    """Per camera int64 [T], the message of each row (number in written order)."""
    distances: Mapping[str, NDArray[np.int64]]
    """Per camera int64 [T], |stamp of the image - stamp of the row| in nanoseconds."""
    reasons: Mapping[str, align.Mask]
    """Per reason bool [T], True where it makes a row invalid."""

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def valid(self) -> align.Mask:
        """False where any reason makes a row invalid."""
        valid: align.Mask = ~np.any(list(self.reasons.values()), axis=0)
        return valid

    def skew(self, camera: str) -> Skew:
        """How far a camera's images are from their rows."""
        distances = self.distances[camera]
        return Skew(int(distances.max()), float(np.percentile(distances, 95)))

    def select(self, mask: align.Mask) -> AlignedRows:
        """Only the rows of the mask."""
        return replace(
            self,
            stamps=self.stamps[mask],
            numbers=self.numbers[mask],
            state=self.state[mask],
            action=self.action[mask],
            images={name: values[mask] for name, values in self.images.items()},
            distances={name: values[mask] for name, values in self.distances.items()},
            reasons={name: values[mask] for name, values in self.reasons.items()},
        )

    def gaps(self, period_ns: float) -> list[Gap]:
        """Pauses longer than one and a half periods."""
        steps = np.diff(self.stamps)
        return [
            Gap(int(i), int(steps[i]) / align.SECOND, max(0, round(int(steps[i]) / period_ns) - 1))
            for i in np.flatnonzero(steps > 1.5 * period_ns)
        ]


def align_rows(recording: RecordedSeries, period_ns: float, warnings: list[str]) -> AlignedRows:
    """One row for every usable head frame, everything else aligned to its stamp.

    Trims frames before or after all feedback (beyond 0.2 s) and, in a recovered recording, those after the last stamp
    that every topic covers. Raises BadEpisode when no frame is left.
    """
    head = recording.tracks[HEAD]
    keep = _covered(recording, warnings)
    if head.kind in ("h264", "hevc"):
        keep &= head.good
    if not keep.any():
        raise BadEpisode("the head camera and the feedback topics have no time in common")
    stamps = head.timing.stamps[keep]
    reasons = {"feedback pauses": np.zeros(len(stamps), np.bool_)}
    columns: dict[str, list[align.Values]] = {"feedback": [], "target": []}
    for series in recording.series:
        values, holes = _aligned(series, stamps)
        columns[series.part.role].append(values)
        if series.part.role == "feedback":
            reasons["feedback pauses"] |= holes
    images, distances = {}, {}
    reasons |= {"picture too far": np.zeros(len(stamps), np.bool_), "picture damaged": np.zeros(len(stamps), np.bool_)}
    for name, track in recording.tracks.items():
        images[name], distances[name], replaced = _images(track, stamps)
        reasons["picture too far"] |= distances[name] > 2 * period_ns
        reasons["picture damaged"] |= replaced
        _warn_images(track, distances[name], replaced, period_ns, warnings)
    state, action = (np.concatenate(columns[role], axis=1) for role in ("feedback", "target"))
    return AlignedRows(stamps, np.flatnonzero(keep), state, action, images, distances, reasons)


def _covered(recording: RecordedSeries, warnings: list[str]) -> align.Mask:
    """Head frames in the time that all feedback covers."""
    head = recording.tracks[HEAD].timing
    keep = np.ones(len(head.stamps), np.bool_)
    for series in recording.series:
        timing, role = series.timing, series.part.role
        late, early = timing.first - head.first, head.last - timing.last
        for seconds, word in ((late, "starts late"), (early, "ends early")):
            if seconds <= TOLERATED_NS or (role == "target" and align.is_sparse(timing.messages, len(head.stamps))):
                continue
            what = f"{timing.topic} {word} by {seconds / align.SECOND:.3f} s"
            if role == "target":
                warnings.append(f"{what}; its {'first' if word == 'starts late' else 'last'} value is held")
                continue
            outside = head.stamps < timing.first if word == "starts late" else head.stamps > timing.last
            keep &= ~outside
            warnings.append(
                f"{what}; {counted(int(outside.sum()), 'frame')} {verb(int(outside.sum()), 'is', 'are')} trimmed"
            )
    if recording.truncated:
        last = min(timing.last for timing in _needed(recording))
        cut = keep & (head.stamps > last)
        keep &= ~cut
        warnings.append(
            f"recovered from a truncated file; {counted(int(cut.sum()), 'frame')} that not all topics cover "
            f"{verb(int(cut.sum()), 'is', 'are')} left out"
        )
    if recording.damaged_chunks:
        warnings.append(
            f"recovered from a damaged file; {counted(recording.damaged_chunks, 'chunk')} "
            f"{verb(recording.damaged_chunks, 'was', 'were')} skipped"
        )
    return keep


def _needed(recording: RecordedSeries) -> list[TopicTiming]:
    """Timings of all topics that are recorded steadily."""
    frames = len(recording.tracks[HEAD].timing.stamps)
    steady = [s.timing for s in recording.series if not align.is_sparse(s.timing.messages, frames)]
    return steady + [track.timing for track in recording.tracks.values()]


def _aligned(series: Series, stamps: align.Stamps) -> tuple[align.Values, align.Mask]:
    timing = series.timing
    if series.part.role == "target" and align.is_sparse(timing.messages, len(stamps)):
        return align.held(stamps, timing.stamps, series.values), np.zeros(len(stamps), np.bool_)
    return align.interpolated(stamps, timing.stamps, series.values)


def _images(track: Track, stamps: align.Stamps) -> tuple[NDArray[np.int64], NDArray[np.int64], align.Mask]:
    """Message, distance, and whether the nearest image was damaged and its neighbour is taken."""
    own = track.timing.stamps
    video = track.kind in ("h264", "hevc")
    usable = np.flatnonzero(track.good)
    chosen = usable[align.nearest(stamps, own[usable])]
    replaced = np.zeros(len(stamps), np.bool_) if video else chosen != align.nearest(stamps, own)
    return track.timing.index[chosen], np.abs(own[chosen] - stamps), replaced


def _warn_images(
    track: Track, distances: NDArray[np.int64], replaced: align.Mask, period_ns: float, warnings: list[str]
) -> None:
    far = int((distances > period_ns).sum())
    if far:
        warnings.append(
            f"{track.camera}: {counted(far, 'frame')} {verb(far, 'has', 'have')} no image within "
            f"{period_ns / 1e6:.1f} ms "
            f"(largest distance {distances.max() / 1e6:.1f} ms)"
        )
    if replaced.any():
        warnings.append(
            f"{track.camera}: {counted(int(replaced.sum()), 'frame')} "
            f"{verb(int(replaced.sum()), 'shows', 'show')} a neighbouring image and "
            f"{verb(int(replaced.sum()), 'is', 'are')} invalid ({track.problem})"
        )
    elif track.problem:
        warnings.append(f"{track.camera}: {track.problem}")


def mark_breaks(rows: AlignedRows, across_gaps: bool) -> AlignedRows:
    """Make the row after every break invalid, so that no training window reaches across it.

    A break is where rows were left out in between and, with `across_gaps`, every pause longer than 0.25 s.
    """
    after = np.diff(rows.numbers) > 1
    if across_gaps:
        after |= np.diff(rows.stamps) > align.HOLE_NS
    return replace(rows, reasons={**rows.reasons, "after a gap": np.append(False, after)})


def engaged_from(rows: AlignedRows, joints: NDArray[np.int64]) -> int:
    """First row where every arm target is within 0.2 rad of its state; the number of rows when there is none."""
    near = np.abs(rows.action[:, joints] - rows.state[:, joints]).max(axis=1) < ENGAGED_RAD
    return int(near.argmax()) if near.any() else len(rows)


def suspicious(rows: AlignedRows, joints: NDArray[np.int64], speeds: NDArray[np.int64], period_ns: float) -> list[str]:
    """Sentences about values that are kept but look wrong."""
    warnings = []
    apart = np.abs(rows.action[:FIRST_FRAMES, joints] - rows.state[:FIRST_FRAMES, joints]).max()
    if apart > FAR_RAD:
        warnings.append(
            f"at the start the arm targets are up to {apart:.2f} rad away from the state (leader not engaged); option "
            "trim_unengaged leaves such frames out"
        )
    steady = np.diff(rows.stamps) <= 1.5 * period_ns
    for name, values in (("state", rows.state), ("action", rows.action)):
        steps = np.abs(np.diff(values[:, joints], axis=0)).max(axis=1, initial=0.0)
        jumps = np.flatnonzero(steady & (steps > SPIKE_RAD)) + 1
        if len(jumps):
            listed = ", ".join(map(str, jumps[:5])) + (", .." if len(jumps) > 5 else "")
            warnings.append(f"{name}: joints jump by up to {steps[jumps - 1].max():.2f} rad at frames {listed}")
    high = np.flatnonzero(np.abs(rows.action[:, speeds]).max(axis=1, initial=0.0) > SPIKE_SPEED)
    if len(high):
        listed = ", ".join(map(str, high[:5])) + (", .." if len(high) > 5 else "")
        warnings.append(f"action: torso or chassis speeds above {SPIKE_SPEED:g} at frames {listed}")
    return warnings
