"""What is done with recordings, in a worker process or in this one: a part converted, the first readable one found."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from fwdata.api import Converter, Episode
from fwdata.errors import BadEpisode, FwdataError, MissingLibrary, UsageError, one_line
from fwdata.evidence.image_memory import ImageMemory
from fwdata.evidence.measure import measure
from fwdata.evidence.records import EpisodeMeasurement
from fwdata.evidence.thumbnails import Collector
from fwdata.pipeline.ahead import ReadAhead, in_turn
from fwdata.pipeline.evidence import EvidenceGate, episode_with, with_images
from fwdata.pipeline.memory import keep_freed
from fwdata.pipeline.plan import PlannedPart
from fwdata.pipeline.reading import kept_measurement, read_recording
from fwdata.pipeline.registry import converter_version, load_converter
from fwdata.pipeline.request import SECONDS_PER_MB, ConvertRequest
from fwdata.pipeline.roots import RootedRecording
from fwdata.pipeline.shared_evidence import hand_over
from fwdata.pipeline.workers import LeftOut, Link
from fwdata.store.evidence import write_part_evidence
from fwdata.store.files import LocalFiles
from fwdata.store.layout import VIDEO_LAYOUT
from fwdata.store.metadata import read_root
from fwdata.store.sources import place_of, source_files
from fwdata.store.writer import FrameLook, PartWriter

FATAL_ERRNOS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EMFILE", "ENFILE", "EIO")
)
"""System errors that concern the machine, not one recording."""


@dataclass(frozen=True)
class RecordingOutcome:
    """What became of one recording."""

    source: str
    """The recording, as the store calls it."""
    frames: int
    """Rows that were written; 0 where it was left out."""
    reason: str = ""
    """Why it was left out; "" where it was written."""
    warnings: tuple[str, ...] = ()
    """Sentences about what is unusual in it."""
    measurement: EpisodeMeasurement | None = None
    """What its rows and images show of the conventions, where that is measured."""


@dataclass(frozen=True)
class Unreadable:
    """A recording that cannot be read."""

    source: str
    """Where it is from."""
    reason: str
    """Why, one sentence."""


@dataclass(frozen=True)
class CameraSize:
    """How one camera of a recording is stored."""

    encoding: str
    """"jpeg", "video" or "raw"."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""


@dataclass(frozen=True)
class SampledRecording:
    """What the first readable recording says about all; its images are not read."""

    recording: RootedRecording
    """The recording."""
    rows: int
    """Its rows."""
    state_names: tuple[str, ...]
    """One name per state column."""
    action_names: tuple[str, ...]
    """One name per action column."""
    cameras: tuple[CameraSize, ...]
    """How each of its cameras is stored."""
    seconds: float
    """Time that reading its numbers took."""


def _announce(request: ConvertRequest, recording: RootedRecording, link: Link) -> None:
    link.announce(recording.id, request.episode_seconds + SECONDS_PER_MB * recording.ref.num_bytes / 1e6)


def _concerns_all(error: BaseException, source: str) -> BaseException | None:
    """What to raise for an error that is of the machine or of what the user asked for, itself or what it was raised
    for; None for one that is of the recording `source` alone."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError):
            return found  # ends the reader, as its memory bound does
        if isinstance(found, ModuleNotFoundError):
            return MissingLibrary.of(found, f"reading {source}")
        if isinstance(found, UsageError) or getattr(found, "errno", None) in FATAL_ERRNOS:
            advice = "the machine could not read it, run the same command again to continue"
            return FwdataError(f"{source}: {error}; {advice}") if isinstance(error, BadEpisode) else error
        found = found.__cause__ or found.__context__
    return None


def _reason(error: Exception) -> str:
    return one_line(str(error) if isinstance(error, BadEpisode) else f"{type(error).__name__}: {error}")


def find_readable(
    request: ConvertRequest, part: PlannedPart, left_out: LeftOut, *, link: Link
) -> tuple[SampledRecording | None, list[str]]:
    """The first recording of a part that can be read, and why those before it cannot.

    With on_error "fail" the first that cannot is a UsageError.
    """
    converter = load_converter(request.manifest)
    reasons: list[str] = []
    for recording in part.recordings:
        reason = left_out.get(recording.id)
        if reason is None:
            _announce(request, recording, link)
            began = time.perf_counter()
            try:
                episode = read_recording(request, converter, recording, again=True)
            except Exception as error:  # noqa: BLE001 - the boundary that leaves out one recording
                fatal = _concerns_all(error, recording.source)
                if fatal is not None:
                    raise fatal from None
                reason = _reason(error)
            else:
                cameras = (episode.cameras[name] for name in request.manifest.cameras if name in episode.cameras)
                sizes = tuple(CameraSize(c.encoding, c.height, c.width) for c in cameras)
                names = tuple(episode.state_names), tuple(episode.action_names)
                return SampledRecording(
                    recording, len(episode.state), *names, sizes, time.perf_counter() - began
                ), reasons
        reasons.append(f"{recording.source}: {reason}")
        if request.on_error == "fail":
            raise UsageError(reasons[-1]) from None
    return None, reasons


def use_recording[R](
    request: ConvertRequest, recording: RootedRecording, use: Callable[[Episode], R], left_out: LeftOut, link: Link
) -> R | Unreadable:
    """What `use` makes of one recording, or why it cannot be read. Raises what concerns the machine or the request."""
    if recording.id in left_out:
        return Unreadable(recording.source, left_out[recording.id])
    _announce(request, recording, link)
    return kept_apart(
        recording, lambda: use(read_recording(request, load_converter(request.manifest), recording, again=True))
    )


def kept_apart[R](recording: RootedRecording, work: Callable[[], R]) -> R | Unreadable:
    """What `work` on one recording gives, or why it cannot be done. Raises what concerns the machine or the request."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the boundary that leaves out one recording
        fatal = _concerns_all(error, recording.source)
        if fatal is not None:
            raise fatal from None
        return Unreadable(recording.source, _reason(error))


def new_writer(request: ConvertRequest, part: PlannedPart) -> PartWriter:
    """A writer for a part of the request's store."""
    keep_freed()
    store = read_root(LocalFiles(request.out))
    assert store is not None
    version = converter_version(request.manifest.converter)
    names = store.state_names, store.action_names
    place = (request.out, part.name, part.group, request.manifest.cameras)
    return PartWriter(
        *place,
        *names,
        plan=part.digest,
        version=version,
        place=place_of(part.recordings[0].root.path) if part.recordings else "",
        keep_video=store.layout_version == VIDEO_LAYOUT,
        named=store.named_dimensions,
        layout=store.layout_version,
    )


@contextlib.contextmanager
def part_written(request: ConvertRequest, part: PlannedPart) -> Iterator[PartWriter]:
    """A writer for a part of the request's store; what it has written is removed where the block fails."""
    writer = new_writer(request, part)
    try:
        yield writer
    except BaseException:
        shutil.rmtree(writer.folder, ignore_errors=True)
        raise


def convert_recording(
    request: ConvertRequest,
    converter: Converter,
    writer: PartWriter,
    recording: RootedRecording,
    left_out: LeftOut,
    link: Link,
    ahead: ReadAhead | None = None,
    memory: Mapping[str, ImageMemory] | None = None,
) -> RecordingOutcome:
    """Read one recording into a part. UsageError with its reason when it cannot be and on_error is "fail".

    ahead: what was read of it before. memory: by camera, for its small images.
    """
    root, source = recording.root, recording.source
    _announce(request, recording, link)
    if recording.id in left_out:
        outcome = RecordingOutcome(source, 0, left_out[recording.id])
    else:
        try:
            episode = read_recording(request, converter, recording) if ahead is None else ahead.episode
            gate = request.gate
            look = None if gate is None else _MeasuredOnTheWay(request, gate, recording, episode, ahead, memory or {})
            files = source_files(root.path, recording.ref, root.prefix)
            warnings = writer.add(recording.stored(), episode, files, look.frames if look else None)
            measured = look.measurement if look else None
            outcome = RecordingOutcome(source, len(episode.state), warnings=warnings, measurement=measured)
        except Exception as error:  # noqa: BLE001 - the boundary that quarantines one recording
            fatal = error if writer.appending else _concerns_all(error, source)
            if fatal is not None:
                raise fatal from None
            outcome = RecordingOutcome(source, 0, _reason(error))
    if outcome.reason and request.on_error == "fail":
        raise UsageError(f"{outcome.source}: {outcome.reason}")
    return outcome


def left_out_of(writer: PartWriter, outcome: RecordingOutcome) -> None:
    """Record in the part that a recording was left out, if it was."""
    if outcome.reason:
        writer.quarantine(outcome.source, outcome.reason)


def convert_part(
    request: ConvertRequest, part: PlannedPart, left_out: LeftOut, *, link: Link
) -> tuple[RecordingOutcome, ...]:
    """Convert one part; reports (part, recording's number, frames) of every recording when it is done."""
    converter = load_converter(request.manifest)
    outcomes = [RecordingOutcome(source, 0, "the recording is no longer in the folder") for source in part.missing]
    if outcomes and request.on_error == "fail" and part.recordings:
        raise UsageError(f"{outcomes[0].source}: {outcomes[0].reason}")
    turns = in_turn(request, converter, part.recordings, left_out, lambda each: _announce(request, each, link))
    memory = {name: ImageMemory() for name in request.manifest.cameras}
    with part_written(request, part) as writer:
        for number, (recording, ahead) in enumerate(turns):
            outcomes.append(convert_recording(request, converter, writer, recording, left_out, link, ahead, memory))
            link.report(part.name, number, outcomes[-1].frames)
        link.announce(None)
        for outcome in outcomes:
            left_out_of(writer, outcome)
        measured = [outcome.measurement for outcome in outcomes if outcome.measurement is not None]
        if request.gate is not None:
            write_part_evidence(request.out, part.name, measured)
            hand_over(request.out, part.name, measured)
        writer.commit()
    return tuple(outcomes)


class _MeasuredOnTheWay:
    """Measures an episode while it is written: its images are those that the writer decodes to check them."""

    def __init__(
        self,
        request: ConvertRequest,
        gate: EvidenceGate,
        recording: RootedRecording,
        episode: Episode,
        ahead: ReadAhead | None,
        memory: Mapping[str, ImageMemory],
    ) -> None:
        self._gate, self._recording, self._episode, self._ahead = gate, recording, episode, ahead
        self._hz = request.manifest.fps.hz
        self._light = recording.id not in gate.shown
        cameras = [name for name in request.manifest.cameras if name in episode.cameras]
        self._every = gate.every(recording.id, episode)
        self._known: EpisodeMeasurement | None
        kept = kept_measurement(request, recording) if ahead is None else None
        self._known = ahead.known if ahead else kept.found if kept else None
        complete = ahead.complete if ahead else kept is not None and kept.images
        self._again = not complete or self._light or self._every > 1 or set(cameras) != set(episode.cameras)
        rendered = episode.conventions.simulated
        taken = {
            name: Collector(self._light, self._every, memory.get(name), rendered) for name in cameras if self._again
        }
        self.frames = FrameLook(taken, self._approve)
        self.measurement: EpisodeMeasurement | None = None

    def _measured(self) -> EpisodeMeasurement:
        """What is known of the recording, where all that is to be looked at was looked at before."""
        if self._known is not None and not self._again:
            return self._known
        rows = self._ahead.seen if self._ahead else episode_with(self._recording, self._episode, self._hz, {})
        seen = with_images(rows, self._episode, self.frames.taken, self._every)
        return measure(seen, self._light, self._known, compared=False)

    def _approve(self) -> None:
        """Measure; BadEpisode when the data contradict what the first episodes confirmed."""
        found = self._measured()
        reason = self._gate.reason(found)
        if reason is not None:
            raise BadEpisode(reason)
        traces = (*found.uncompared().traces, *(self._ahead.compared if self._ahead else ()))
        self.measurement = replace(found, traces=traces)
