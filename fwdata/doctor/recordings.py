"""A checkup of recordings that are not converted yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fwdata.api import Episode
from fwdata.doctor.checkup import Advance, in_order, left_out_finding, spread
from fwdata.doctor.examine import IMAGE_EPISODES, Examination, ExaminedEpisode, examine
from fwdata.doctor.findings import Checkup, DoctorFinding
from fwdata.doctor.remedies import Patient
from fwdata.pipeline.discover import find_recordings
from fwdata.pipeline.evidence import episode_as_seen
from fwdata.pipeline.part import Unreadable, use_recording
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import CombinedDiscovery, RootedRecording
from fwdata.pipeline.workers import LeftOut, Link, RetryThenLeaveOut, Task, WorkerPool
from fwdata.warning_kinds import group_warnings


def examine_recording(
    request: ConvertRequest, recording: RootedRecording, images: bool, left_out: LeftOut, *, link: Link
) -> ExaminedEpisode | Unreadable:
    """Read and examine one recording; what a worker does."""

    def use(episode: Episode) -> ExaminedEpisode:
        seen = episode_as_seen(recording, episode, request.manifest.fps.hz, images)
        return examine(seen, episode.valid, request.manifest, episode.warnings)

    return use_recording(request, recording, use, left_out, link)


def check_recordings(
    request: ConvertRequest,
    given: Sequence[str] = (),
    on_found: Callable[[CombinedDiscovery], None] = lambda _: None,
    advance: Advance = lambda _: None,
) -> Checkup:
    """Examine the recordings that `request` would convert; nothing is written, and its `out` is not used.

    given: flags of a conversion that made the request, for the commands of findings.

    Reads every recording once, and the images of at most 20. Raises what `fwdata.pipeline.run.convert` raises for roots
    that hold nothing.
    """
    stitch = request.manifest.stitch
    patient = Patient(
        request.where(),
        request.source,
        False,
        stitch.cameras,
        tuple(given),
        stitch.camera_size,
        request.manifest.cameras,
    )
    losses = RetryThenLeaveOut(lambda task: f"examining {task[1].source}", "examine fewer folders", "reading this file")
    unread: list[Unreadable] = []
    with WorkerPool(request.workers, request.memory) as pool:
        found = find_recordings(request, pool)
        on_found(found)
        order = {recording.id: number for number, recording in enumerate(found.recordings)}
        examination = Examination(patient, request.manifest, len(found.recordings), order=order)
        shown = spread(len(found.recordings), IMAGE_EPISODES)
        tasks: list[Task] = [(request, r, number in shown, {}) for number, r in enumerate(found.recordings)]
        result: ExaminedEpisode | Unreadable
        for result in pool.run(examine_recording, tasks, lambda *_: None, losses):
            if isinstance(result, Unreadable):
                unread.append(result)
            else:
                examination.add(result)
            advance(1)
    findings, silent = examination.findings()
    findings += _not_converted(found, unread, patient)
    good = len(found.recordings) - len(unread)
    looked_at = dict(examination.looked_at)
    return Checkup(
        request.where(),
        "recordings",
        good,
        examination.frames,
        in_order(findings),
        silent,
        looked_at,
        examination.verdicts,
    )


def _not_converted(found: CombinedDiscovery, unread: list[Unreadable], patient: Patient) -> list[DoctorFinding]:
    """Recordings that cannot be read, those that discovery leaves out, and what it warns about."""
    good, findings = len(found.recordings) - len(unread), list[DoctorFinding]()
    damaged = [skip for skip in found.skipped if skip.damaged]
    if unread or damaged:
        findings.append(left_out_finding("unreadable", "warn", [*unread, *damaged], good, patient))
    meant = [skip for skip in found.skipped if not skip.damaged]
    if meant:
        findings.append(left_out_finding("left_out", "note", meant, good, patient))
    for kind in group_warnings((text, text) for text in found.warnings):
        more = f" (and {kind.count - 1} more of this kind)" if kind.count > 1 else ""
        command = patient.option_in(kind.text)
        findings.append(
            DoctorFinding("note", "discovery", f"{kind.text}{more}", "", float(kind.count), command=command)
        )
    return findings
