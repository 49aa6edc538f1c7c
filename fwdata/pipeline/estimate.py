"""What a conversion would do, with its expected size and time; nothing is written and no image is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fwdata.api import Json, LeftOut
from fwdata.errors import UsageError
from fwdata.evidence.records import DatasetVerdict
from fwdata.pipeline.changes import ChangedRecording, check_sources, outdated_parts, outdated_sentence
from fwdata.pipeline.discover import find_recordings
from fwdata.pipeline.evidence import dry_recordings, first_recordings, gate_of
from fwdata.pipeline.first_look import FirstLook, look_at_more, look_first, looks
from fwdata.pipeline.part import SampledRecording
from fwdata.pipeline.plan import ConversionPlan, check_output, make_plan
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import RootedRecording
from fwdata.pipeline.run import part_losses, sample
from fwdata.pipeline.same_collection import check_collection
from fwdata.pipeline.same_content import drop_unchanged
from fwdata.pipeline.update import plan_update
from fwdata.pipeline.workers import WorkerPool

RAW_RATIO = 0.30
"""Stored bytes per byte of raw pixels: 0.26 to 0.30 was measured on simulator frames."""

PIXEL_RATE = {"jpeg": 200e6, "raw": 60e6, "video": 58e6, "lerobot": 58e6}
"""Pixels that a worker stores per second of CPU time, beside reading the numbers: JPEG buffers checked and copied, raw
pixels unpacked and packed again, LeRobot's images decoded from video too.

Measured on the recordings of `fwdata bench convert` (4 of 120 rows), one thread of an AMD EPYC that other programs
shared, the fastest of 4 conversions less the fastest of 4 readings: 208 Mpixel/s for 320x240 JPEG, 412 for 1280x720,
59.5 for 128x128 raw, 58.1 for 320x240 video. Small images count here; large ones are faster."""


@dataclass(frozen=True)
class Group:
    """Recordings of one natural unit (task, suite, dataset)."""

    name: str
    """Name of the unit."""
    episodes: int
    """Recordings."""
    frames: int
    """Their rows, known or estimated."""
    frames_known: bool
    """Whether discovery gave every length; otherwise `frames` is estimated from the sample."""
    seconds: float
    """Their length at the manifest's rate."""
    bytes: int
    """Size of the recordings."""


@dataclass(frozen=True)
class DryRun:
    """What a conversion would do."""

    groups: tuple[Group, ...]
    """Recordings by natural unit."""
    parts: int
    """Parts of the whole store."""
    pending_parts: int
    """Parts that are not written yet, or that `--update` writes anew."""
    store_bytes: int
    """Expected size of the whole store."""
    expected_seconds: float
    """Expected time of what is not written yet, with the workers asked for."""
    basis: str
    """What both are estimated from, one sentence."""
    skipped: tuple[tuple[str, str], ...]
    """(source, reason) of recordings that cannot be converted, as far as discovery and the look at them tell."""
    decisions: dict[str, Json]
    """What the converter decided about all recordings; open JSON, only shown."""
    warnings: tuple[tuple[str, str], ...]
    """(source, or "" for the root; sentence) about recordings that are converted."""
    looked_at: int
    """Recordings that were read; what is wrong with others only the conversion says."""
    left_out: tuple[LeftOut, ...]
    """Recordings that are not taken although nothing is wrong with them, counted by reason."""
    changed: tuple[ChangedRecording, ...] = ()
    """Recordings with other bytes than those converted; `--update` converts them again."""
    outdated: str = ""
    """A sentence where an older version of the converter made the store."""
    evidence: tuple[DatasetVerdict, ...] = ()
    """What the first episodes show of every convention; () where a store is continued or nothing was measured."""

    @property
    def episodes(self) -> int:
        """Recordings found."""
        return sum(group.episodes for group in self.groups)

    @property
    def frames(self) -> int:
        """Their frames, known or estimated."""
        return sum(group.frames for group in self.groups)

    @property
    def bytes(self) -> int:
        """Source bytes."""
        return sum(group.bytes for group in self.groups)


def dry_run(request: ConvertRequest) -> DryRun:
    """Plan, measure the first recordings, read the numbers of one. Writes nothing; see `convert` for errors."""
    check_output(request)
    with WorkerPool(min(1, request.workers), request.memory) as pool:
        plan = make_plan(request, find_recordings(request, pool))
        look = _look(request, plan, pool)
        first = sample(request, plan, pool, part_losses(request.out))
        check = check_sources(request, plan.found, thorough=request.update)
        drop_unchanged(request, plan.found, check, pool)
        check_collection(request, plan.found, check, pool, grows=bool(plan.pending))
        older = outdated_parts(request)
        renewed = request.update and (older or check.changed)
        update = plan_update(request, plan.found, check.changed, older) if renewed else ()
    again = {name for item in update for name in item.again}
    everything, parts = plan.found.recordings, len(plan.pending) + len(update)
    pending = [r for part in plan.pending for r in part.recordings] + [r for r in everything if r.id in again]
    return DryRun(
        groups=_groups(request, plan, first),
        parts=len(plan.parts),
        pending_parts=parts,
        store_bytes=round(_store_bytes(everything, first)),
        expected_seconds=_work_seconds(request, pending, first) / max(1, min(request.workers, parts)),
        basis=_basis(request, first),
        skipped=(*((s.source, s.reason) for s in plan.found.skipped), *_refused(request, plan, look)),
        decisions=plan.found.decisions,
        warnings=(*(("", text) for text in plan.found.warnings), *_told(look)),
        looked_at=len(look.outcomes) if look else 1,
        left_out=plan.found.left_out,
        changed=tuple(check.changed),
        outdated=outdated_sentence(request, older) if older else "",
        evidence=look.verdicts if look else (),
    )


def _look(request: ConvertRequest, plan: ConversionPlan, pool: WorkerPool) -> FirstLook | None:
    """Read the first recordings; None where nothing new is to be converted. UsageError as the conversion's own."""
    looking = looks(request) or not (request.evidence or request.out.exists())
    everything = plan.found.recordings
    first = [recording for recording, _ in first_recordings(everything)]
    parts, warned = len(plan.parts), plan.found.warnings
    look = look_first(request, dry_recordings(everything), pool, parts, (), first, warned) if looking else None
    look = look or look_at_more(request, plan, pool, dry=True)
    unread = next((outcome for outcome in look.outcomes if outcome.reason), None) if look else None
    if unread is not None and request.on_error == "fail":
        raise UsageError(f"{unread.source}: {unread.reason}")
    return look


def _refused(request: ConvertRequest, plan: ConversionPlan, look: FirstLook | None) -> list[tuple[str, str]]:
    """(source, reason) of the recordings looked at that cannot be read, or contradict what the others confirm."""
    if look is None:
        return []
    gate = gate_of(look.verdicts, request.accept, plan.found.recordings)
    reasons = ((o, o.reason or (o.measurement and gate.reason(o.measurement))) for o in look.outcomes)
    return [(outcome.source, reason) for outcome, reason in reasons if reason]


def _told(look: FirstLook | None) -> list[tuple[str, str]]:
    """(source, sentence) of what is unusual in the recordings looked at."""
    return [(outcome.source, text) for outcome in look.outcomes for text in outcome.warnings] if look else []


def _groups(request: ConvertRequest, plan: ConversionPlan, first: SampledRecording) -> tuple[Group, ...]:
    members: dict[str, list[RootedRecording]] = {}
    for recording in plan.found.recordings:
        members.setdefault(recording.group, []).append(recording)
    found = []
    for name, recordings in members.items():
        frames = sum(_frames(r, first) for r in recordings)
        known = all(r.ref.num_frames is not None for r in recordings)
        size = sum(r.ref.num_bytes for r in recordings)
        found.append(Group(name, len(recordings), frames, known, frames / request.manifest.fps.hz, size))
    return tuple(found)


def _frames(recording: RootedRecording, first: SampledRecording) -> int:
    """Known frames of a recording, else by its size against the sample's."""
    if recording.ref.num_frames is not None:
        return recording.ref.num_frames
    return max(1, round(first.rows * recording.ref.num_bytes / max(1, first.recording.ref.num_bytes)))


def _store_bytes(recordings: Sequence[RootedRecording], first: SampledRecording) -> float:
    raw = sum(c.height * c.width * 3 for c in first.cameras if c.encoding == "raw") * RAW_RATIO
    kept = any(c.encoding in ("jpeg", "video") for c in first.cameras)
    return sum(raw * _frames(r, first) + kept * r.ref.num_bytes for r in recordings)


def _work_seconds(request: ConvertRequest, recordings: Sequence[RootedRecording], first: SampledRecording) -> float:
    """Seconds of one worker: reading as the sample took, and images by PIXEL_RATE."""
    per_frame = sum(c.height * c.width / _pixel_rate(request, c.encoding) for c in first.cameras)
    per_frame += first.seconds / first.rows
    return sum(_frames(r, first) for r in recordings) * per_frame


def _pixel_rate(request: ConvertRequest, encoding: str) -> float:
    return PIXEL_RATE.get(request.source if encoding == "raw" else encoding, PIXEL_RATE[encoding])


def _basis(request: ConvertRequest, first: SampledRecording) -> str:
    sizes = ", ".join(dict.fromkeys(f"{c.width}x{c.height} {c.encoding}" for c in first.cameras))
    rates = sorted({_pixel_rate(request, c.encoding) / 1e6 for c in first.cameras})
    return (
        f"the numbers of {first.recording.source} read in {first.seconds:.2f} s (its images, {sizes}, were not), and "
        f"{' or '.join(f'{rate:g}' for rate in rates)} Mpixel/s per worker, measured on one shared EPYC core"
    )
