"""What an R1 Lite episode's metadata and warnings say: counts, skew, gaps, scale of the grippers, segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from converters.r1lite import align
from converters.r1lite.clocks import TopicTiming
from converters.r1lite.rows import AlignedRows, Skew, suspicious
from converters.r1lite.series import RecordedSeries, Track
from converters.r1lite.topics import HEAD, SIDES, Role, TopicPart, column_names
from converters.shared import galaxea_text as text
from fwdata.api import Json
from fwdata.wording import counted, verb

type Columns = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
type GripperScale = Literal["auto", "0-100", "0-1"]

UNIT_SCALE_MAX = 1.5
"""Targets and feedback that never exceed this are on the scale 0 .. 1 (closed grippers of 0 .. 100 read 1.5 to 2.2)."""

UNIT_SCALE_MIN = 0.1
"""Targets that never reach this tell no scale: a closed gripper is closed on both. The robot's own is taken then."""

GRIPPER_LIMITS = (-5.0, 110.0)

INVALID = ("feedback pauses", "picture too far", "picture damaged", "after a gap")
"""Why rows are marked invalid; keys of `invalid_frames`."""


@dataclass(frozen=True)
class Grippers:
    """Scale of a recording's grippers."""

    top: int
    """What a fully open gripper reads, 1 or 100."""
    largest: dict[Role, float]
    """Largest value by role, in recorded units."""
    warnings: tuple[str, ...]
    """Sentences about a scale that was guessed or values outside it."""

    def to_json(self, unit: bool) -> dict[str, Json]:
        """For the episode's metadata. unit: they are stored as 0 .. 1."""
        return {
            "gripper_range": [0, 1 if unit else self.top],
            "gripper_recorded_range": [0, self.top],
            "gripper_largest": {role: round(value, 4) for role, value in self.largest.items()},
        }


def gripper_scale(recording: RecordedSeries, wanted: GripperScale, unit: bool) -> Grippers:
    """Decide the scale of a recording's grippers from their largest values, unless `wanted` names it."""
    found = [s for s in recording.series if s.part.name.endswith("_gripper")]
    roles: tuple[Role, ...] = ("feedback", "target")
    largest = {role: max(float(s.values.max()) for s in found if s.part.role == role) for role in roles}
    low, high = min(float(s.values.min()) for s in found), max(largest.values())
    unit_like = largest["target"] >= UNIT_SCALE_MIN and high <= UNIT_SCALE_MAX
    top = 1 if wanted == "0-1" or (wanted == "auto" and unit_like) else 100
    warnings = []
    if top == 1 and wanted == "auto" and not unit:
        warnings.append("the grippers of this recording are on the scale 0 .. 1, R1 Lite's own is 0 .. 100")
    if top == 100 and not (GRIPPER_LIMITS[0] <= low and high <= GRIPPER_LIMITS[1]):
        warnings.append(f"gripper values reach {low:.4g} .. {high:.4g}, expected 0 .. 100")
    return Grippers(top, largest, tuple(warnings))


def arm_columns(parts: Sequence[TopicPart], role: Role, kind: Literal["joint", "gripper"]) -> Columns:
    """Columns of the arms' joints or grippers."""
    names = column_names(parts, role)
    return np.array([i for i, n in enumerate(names) if f"_{kind}" in n and n.startswith(SIDES)], np.int64)


def warn(rows: AlignedRows, parts: Sequence[TopicPart], period_ns: float, window: int) -> list[str]:
    """Sentences about the rows that are kept."""
    speeds = [i for i, n in enumerate(column_names(parts, "target")) if n.startswith(("torso_", "chassis_"))]
    warnings = suspicious(rows, arm_columns(parts, "feedback", "joint"), np.array(speeds, np.int64), period_ns)
    gaps = rows.gaps(period_ns)
    if gaps:
        missing, longest = sum(g.missing for g in gaps), max(g.seconds for g in gaps)
        frames = "frame" if missing == 1 else "frames"
        warnings.append(
            f"{missing} head {frames} missing in {counted(len(gaps), 'place')}, longest pause {longest:.3f} s"
        )
    invalid = int((~rows.valid).sum())
    if invalid:
        warnings.append(
            f"{invalid} of {counted(len(rows), 'frame')} {verb(invalid, 'is', 'are')} invalid: no training window "
            "reaches them"
        )
    if len(rows) < window:
        warnings.append(f"{counted(len(rows), 'frame')}: shorter than a training window of {window}")
    return warnings


def warn_texts(segments: Sequence[text.Segment], annotated: bool, language: text.Language, strict: bool) -> list[str]:
    """Sentences about the language of the rows. annotated: the recording has annotations."""
    if annotated and all(s.text == text.NO_TEXT for s in segments):
        return ["no frame lies inside an annotation with a text"]
    return text.warn_foreign(segments, strict) if language == "en" else []


def warn_annotations(annotations: Sequence[text.Annotation], stamps: align.Stamps) -> list[str]:
    """A sentence about annotations that begin after the last frame: the first one reaches back over all of them."""
    if not annotations or annotations[0].start_ns <= stamps[-1]:
        return []
    late = (annotations[0].start_ns - int(stamps[-1])) / align.SECOND
    return [
        f"its first annotation begins {late:.1f} s after the last frame, so they are of another clock, and its text is "
        "taken for every frame; correct their times in the json file"
    ]


def about(
    recording: RecordedSeries, rows: AlignedRows, segments: Sequence[text.Segment], period_ns: float
) -> dict[str, Json]:
    """The episode's report: what was recorded, aligned and left out."""
    head = recording.tracks[HEAD].timing
    timings = [s.timing for s in recording.series] + [t.timing for t in recording.tracks.values()]
    return {
        "start_ns": int(rows.stamps[0]),
        "frames_recorded": head.messages,
        "frames_kept": len(rows),
        "fps_measured": align.frame_rate(head.stamps),
        "gaps": [gap.to_json() for gap in rows.gaps(period_ns)],
        "invalid_frames": {name: int(mask.sum()) for name, mask in rows.reasons.items()},
        "topics": {t.topic: _topic(t, head) for t in timings},
        "camera_skew_ms": {name: _skew(rows.skew(name), recording.tracks[name]) for name in sorted(recording.tracks)},
        "recovered": recording.truncated or recording.damaged_chunks > 0,
        "unqualified_frames": sum(s.last - s.first + 1 for s in segments if not s.qualified),
    }


def _topic(timing: TopicTiming, head: TopicTiming) -> dict[str, Json]:
    """Counts of a topic, and where it begins and ends against the head camera's range."""
    return {
        "messages": timing.messages,
        "out_of_order": timing.inversions,
        "equal_stamps": timing.duplicates,
        "first_offset_s": round((timing.first - head.first) / align.SECOND, 6),
        "last_offset_s": round((timing.last - head.last) / align.SECOND, 6),
        "median_delay_ms": round(timing.delay_ns / 1e6, 3),
    }


def _skew(skew: Skew, track: Track) -> dict[str, Json]:
    return {
        "max": round(skew.largest / 1e6, 6),
        "p95": round(skew.percentile_95 / 1e6, 6),
        "topic": track.timing.topic,
        "kind": track.kind,
    }
