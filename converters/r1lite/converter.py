"""Galaxea R1 Lite teleoperation: ROS 2 .mcap and .db3, ROS 1 .bag, read without a ROS installation.

Rows follow the head-left camera: one row per frame, at its header stamp. State is the feedback and action the target
of arms and grippers, interpolated to that stamp in float64; the other cameras show their nearest image. JPEG buffers
are kept byte for byte. Nothing is interpolated or joined across pauses longer than 0.25 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converters.r1lite import align, kept, report, series, topics
from converters.r1lite import discovery as finding
from converters.r1lite import images as camera_images
from converters.r1lite import rows as rowing
from converters.r1lite.bags import Bags
from converters.r1lite.mcap import Truncated
from converters.r1lite.splits import SplitFiles
from converters.shared import archives as packed
from converters.shared import conventions as claims
from converters.shared import galaxea_text as text
from converters.shared.gripper_unit import to_unit
from fwdata.api import (
    BadEpisode,
    Camera,
    Conventions,
    Discovery,
    EncodedCamera,
    Episode,
    EpisodeRef,
    GripperScale,
    Json,
    RateClaim,
    RawCamera,
    Skipped,
    UsageError,
    converter_options,
)
from fwdata.errors import did_you_mean
from fwdata.manifest import Manifest, Model, validate_model
from fwdata.wording import counted, verb

MIN_FRAMES_FOR_RATE = 8
RATE_TOLERANCE = 0.25


class R1LiteOptions(Model):
    """Options of an R1 Lite manifest.

    Example: fwdata convert r1lite RAW_DIR --out data/r1lite.zarr --action-set arms+torso --gap keep
    """

    action_set: topics.ActionSet = "arms"
    """Which parts make up state and action: "arms", or more of the robot; see `column_names`."""
    instruction: Literal["fine", "coarse"] = "fine"
    """"fine" trains every window on the text annotated at its first frame, "coarse" on the dataset's name."""
    lang: text.Language = "en"
    """Which half of a bilingual text is used."""
    strict_lang: bool = False
    """Replace text that has no English half (Chinese, Japanese, Korean, ..) by the coarse task."""
    task: str | None = None
    """The coarse task of all recordings; null: that of the JSON files beside them, else the folder's name."""
    drop_unqualified: bool = False
    """Leave out frames labelled unqualified."""
    recover: bool = False
    """Read what truncated or damaged .mcap files still hold."""
    video: Literal["keep", "pixels"] = "keep"
    """"keep" stores the messages of video topics as they are, "pixels" decodes them and stores every frame
    losslessly."""
    gap: Literal["keep", "split", "reject"] = "split"
    """Pauses above 0.25 s between head frames: "split" keeps windows from crossing them, "keep" lets them, "reject"
    leaves the recording out."""
    clock: Literal["reject", "shift"] = "reject"
    """Topics whose clock differs by more than 0.5 s: "reject" leaves the recording out, "shift" corrects them by the
    median offset, and also those apart by more than a frame."""
    gripper_scale: report.GripperScale = "auto"
    """Scale of the grippers; "auto" decides per recording."""
    gripper_unit: bool = False
    """Store grippers as 0 closed .. 1 open."""
    trim_unengaged: bool = False
    """Leave out the start until the targets are within 0.2 rad of the state."""
    include_failed: bool = False
    """Also convert recordings marked as failed."""
    check_rate: bool = True
    """Refuse frame rates that differ from the manifest's."""
    split_files: SplitFiles = "merge"
    """Files `x_0`, `x_1`, .. of one folder, and others whose names differ by a number: "merge" joins those that go on
    where the one before ends to one recording, "separate" makes each its own."""


@dataclass(frozen=True)
class _Language:
    """What the files beside a recording tell about it."""

    coarse: str
    source: str
    annotations: tuple[text.Annotation, ...]
    robot: str


class R1LiteConverter:
    """Galaxea R1 Lite; see `fwdata.api.Converter` for the contract and `R1LiteOptions` for the manifest's options."""

    version = 2  # 2: files of split recordings joined by the names of current rosbag2 and ROS 1
    slow_reading = True  # every image is decoded to see whether it can be used
    """See `fwdata.api.Converter`."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        merged = converter_options(manifest.options, R1LiteOptions().model_dump(), "r1lite")
        self.options = validate_model(R1LiteOptions, merged, f"options of manifest {manifest.name!r}")
        unknown = [name for name in manifest.cameras if name not in topics.CAMERAS]
        if unknown:
            raise UsageError(
                f"manifest {manifest.name!r}: R1 Lite has no camera {unknown[0]!r}"
                f"{did_you_mean(unknown[0], topics.CAMERAS)}"
            )
        self.parts = topics.parts_of(self.options.action_set)
        self.period_ns = align.SECOND / manifest.fps.hz

    def discover(self, root: Path) -> Discovery:
        """Find the recordings below a folder, or take one file. Costs one directory walk; reads the json files.

        Raises UsageError when there is no recording, or a dataset's json file is not readable.
        """
        listing = finding.list_files(root)
        if not listing.files:
            raise UsageError(finding.nothing_found(root, listing))
        found, absent, warnings = finding.find_recordings(
            root, listing, self.options.split_files, keep_pauses=self.options.gap == "keep"
        )
        base = finding.base_folder(root)
        kept, groups = [], []
        skipped = [*listing.skipped, *absent]
        for recording in found:
            reason = self._why_not(base, recording, warnings)
            if reason:
                skipped.append(Skipped(recording.files[0], reason, damaged=False))
            else:
                kept.append(recording)
                beside = (recording.meta, recording.entry, recording.sidecar)
                groups.append(self._coarse(base, *beside, recording.folder)[0])
        if not kept:
            raise UsageError(
                f"none of {len(found)} recordings below {root} is to be converted: {skipped[-1].source}: "
                f"{skipped[-1].reason}"
            )
        if listing.ignored:
            warnings.append(
                f"{counted(len(listing.ignored), 'entry')} {verb(len(listing.ignored), 'was', 'were')} not followed, "
                f"the first is {listing.ignored[0]}"
            )
        refs = finding.references(listing, kept, groups)
        archives = packed.left_out(listing.archives, packed.above(listing.files))
        return Discovery(refs, tuple(skipped), self._decisions(), tuple(warnings), archives, self._per_episode)

    def _why_not(self, base: Path, recording: finding.BagRecording, warnings: list[str]) -> str | None:
        """Why a recording that was found must not be converted."""
        if recording.meta is not None and recording.entry is not None:
            entry = text.read_meta(base / recording.meta)[recording.entry]
            if not text.is_r1_lite(entry.robot):
                return f"{recording.meta} says robotType {entry.robot!r}, expected R1Lite"
        failed = not {"fail", "failed", "failure", "failures"}.isdisjoint(recording.folder.lower().split("/"))
        if recording.sidecar is not None:
            sidecar, warning = text.read_sidecar(base / recording.sidecar)
            warnings += [warning] if warning else []
            if sidecar.fail and not self.options.include_failed:
                return f"{recording.sidecar} marks it as failed ({sidecar.fail}); option include_failed converts it"
        if failed and not self.options.include_failed:
            return "its folder is named fail; option include_failed converts it"
        return None

    def _coarse(
        self, base: Path, meta: str | None, entry: int | None, sidecar: str | None, folder: str
    ) -> tuple[str, str]:
        """(coarse task, where it is from); empty when nothing tells it."""
        if self.options.task:
            return self.options.task, "option task"
        if meta is not None and entry is not None:
            task = text.read_meta(base / meta)[entry].task
            if task:
                return task, meta.rpartition("/")[2]
        if sidecar is not None:
            task = text.read_sidecar(base / sidecar)[0].task
            if task:
                return task, "sidecar"
        return finding.folder_task(base, folder), "folder name"

    def _decisions(self) -> dict[str, Json]:
        options = self.options
        return {
            "clock": "header stamps; one row per frame of the head-left camera",
            "rows": "state = feedback, action = absolute targets, both at the head stamp (no shift by a frame)",
            "alignment": "joints linear in float64, sparse commands hold their last value, nearest pictures",
            "pauses": f"above 0.25 s: nothing is interpolated across; between head frames: {options.gap}",
            "joint_order": "left arm 6, left gripper, right arm 6, right gripper"
            + {"arms": "", "arms+torso": ", torso", "arms+torso+chassis": ", torso, chassis"}[options.action_set],
            "action_set": options.action_set,
            "grippers": "0 closed .. 1 open" if options.gripper_unit else "as recorded (see each gripper_range)",
            "colour": "JPEG buffers as recorded, standard colours",
            "instruction": options.instruction,
            "language": options.lang,
            "unqualified_frames": "left out" if options.drop_unqualified else "kept",
            "recover": options.recover,
        }

    @property
    def _per_episode(self) -> tuple[str, ...]:
        """Keys of the episodes' metadata that hold what was decided for each."""
        return (
            "instruction_source",
            "gripper_range",
            "gaps.length",
            "frames_recorded",
            "frames_kept",
            "recovered",
            *(f"camera_skew_ms.{name}.max" for name in self.manifest.cameras),
            *(f"invalid_frames.{reason}" for reason in report.INVALID),
        )

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        """Read one recording; images stay in the file until their iterators are used (one pass per camera).

        Raises BadEpisode with the topic and what was found. Cost: one pass that decodes all numbers, and every JPEG at
        an eighth of its size; memory is one chunk of the file and the numbers, whatever the images' size.
        """
        base, options = finding.base_folder(root), self.options
        bags = Bags(tuple(base / name for name in ref.files[: int(ref.hints["parts"])]), options.recover)
        language, warnings = self._language(base, ref)
        try:
            recording = series.read_recording(bags, self.parts, self.manifest.cameras, options.clock == "shift")
        except Truncated as error:
            raise BadEpisode(f"{error}; {self._recoverable(bags)}") from None
        if options.gap != "keep":
            bags.check_one_take()
        warnings += recording.warnings
        grey = [name for name, track in recording.tracks.items() if track.grey]
        warnings += [f"{name} is greyscale; stored as three equal channels" for name in grey]
        warnings += self._check_rate(recording)
        rows = rowing.align_rows(recording, self.period_ns, warnings)
        rows, numbers = self._choose_rows(rows, language, warnings)
        segments = text.segments(language.annotations, numbers, language.coarse, options.lang, options.strict_lang)
        warnings += report.warn(rows, self.parts, self.period_ns, self.manifest.window.num_frames)
        warnings += report.warn_texts(segments, bool(language.annotations), options.lang, options.strict_lang)
        warnings += report.warn_annotations(language.annotations, rows.stamps)
        grippers = report.gripper_scale(recording, options.gripper_scale, options.gripper_unit)
        keep = options.video == "keep"
        return Episode(
            cameras={name: _camera(bags, recording.tracks[name], rows, keep) for name in self.manifest.cameras},
            state=self._stored(rows.state, "feedback", grippers),
            action=self._stored(rows.action, "target", grippers),
            timestamp_ns=rows.stamps - rows.stamps[0],
            valid=rows.valid,
            state_names=topics.column_names(self.parts, "feedback"),
            action_names=topics.column_names(self.parts, "target"),
            task=language.coarse,
            instructions=text.instructions_of(segments, language.coarse, options.instruction == "fine"),
            metadata={
                "robot_type": language.robot,
                "action_set": options.action_set,
                "coarse_task": language.coarse,
                "instruction_source": language.source,
                "raw_file_name": ref.files[0].rpartition("/")[2],
                **grippers.to_json(options.gripper_unit),
                **report.about(recording, rows, segments, self.period_ns),
            },
            warnings=(*warnings, *grippers.warnings),
            conventions=self._conventions(grippers),
            embodiment="galaxea_r1_lite",
            segments=[segment.of_episode() for segment in segments],
            instruction_per_frame=options.instruction == "fine" and text.changes(segments),
        )

    def _conventions(self, grippers: report.Grippers) -> Conventions:
        """What is decided here: absolute targets, grippers that open upwards, the head camera's clock."""
        names = topics.column_names(self.parts, "feedback"), topics.column_names(self.parts, "target")
        scale: GripperScale = "unit" if self.options.gripper_unit or grippers.top == 1 else "percent"
        return _claims(self.manifest, names, scale, check_rate=self.options.check_rate)

    def _recoverable(self, bags: Bags) -> str:
        """How much of a truncated recording option recover would read, or why it would not read it either."""
        whole = Bags(bags.files, recover=True)
        frames = sum(1 for _ in whole.messages(frozenset(topics.CAMERAS[topics.HEAD])))
        if not frames:
            return "nothing of its head camera is recoverable"
        try:
            series.read_recording(whole, self.parts, self.manifest.cameras, self.options.clock == "shift")
        except BadEpisode as error:
            return f"--recover does not read it either: {error}"
        return f"{counted(frames, 'head frame')} may be recovered with --recover"

    def _language(self, base: Path, ref: EpisodeRef) -> tuple[_Language, list[str]]:
        """What lies beside the recording tells, and what to say about it."""
        hints, warnings = ref.hints, list[str]()
        meta = str(hints["meta"]) if "meta" in hints else None
        number = int(hints["entry"]) if meta is not None else None
        sidecar = str(hints["sidecar"]) if "sidecar" in hints else None
        coarse, source = self._coarse(base, meta, number, sidecar, ref.files[0].rpartition("/")[0] or ".")
        if not coarse:
            raise BadEpisode(
                "nothing tells the task: no dataset json, sidecar or folder name; set option task (--task TEXT)"
            )
        if source == "folder name":
            warnings.append(f"the task {coarse!r} is taken from a folder name; option task sets another")
        if meta is None or number is None:
            return _Language(coarse, source, (), ""), warnings
        entry = text.read_meta(base / meta)[number]
        warnings += entry.problems
        if not entry.annotations:
            warnings.append("the recording has no annotations; the coarse task is used for all frames")
        return _Language(coarse, source, entry.annotations, entry.robot), warnings

    def _check_rate(self, recording: series.RecordedSeries) -> list[str]:
        """What is to be said of the head camera's rate; BadEpisode for one that the manifest does not have."""
        stamps = recording.tracks[topics.HEAD].timing.stamps
        rate, expected = align.frame_rate(stamps), self.manifest.fps.hz
        if rate is None or len(stamps) < MIN_FRAMES_FOR_RATE or abs(rate - expected) <= RATE_TOLERANCE * expected:
            return []
        simulated = "".join(f" ({text})" for text in recording.warnings if "simulation time" in text)
        found = (
            f"the head camera runs at {align.SECOND / np.median(np.diff(stamps)):.3g} frames/s{simulated}, manifest "
        )
        if not self.options.check_rate:
            return [f"{found}{self.manifest.name!r} says {expected:g}, which is stored (option check_rate)"]
        raise BadEpisode(
            f"{found}{self.manifest.name!r} says {expected:g}; convert it with a manifest of that rate, or set option "
            "check_rate to false"
        )

    def _choose_rows(
        self, rows: rowing.AlignedRows, language: _Language, warnings: list[str]
    ) -> tuple[rowing.AlignedRows, report.Columns]:
        """Rows that the options keep, breaks marked, and the annotation of each."""
        keep = np.ones(len(rows), np.bool_)
        if self.options.trim_unengaged:
            start = rowing.engaged_from(rows, report.arm_columns(self.parts, "feedback", "joint"))
            keep[:start] = False
            if start:
                warnings.append(
                    f"{counted(start, 'frame')} before the leader was engaged {verb(start, 'is', 'are')} left out"
                )
        numbers = text.frame_annotations(language.annotations, rows.stamps)
        if self.options.drop_unqualified:
            bad = [i for i, annotation in enumerate(language.annotations) if not annotation.qualified]
            dropped = np.isin(numbers, bad) & keep
            keep &= ~dropped
            if dropped.any():
                warnings.append(
                    f"{counted(int(dropped.sum()), 'unqualified frame')} {verb(int(dropped.sum()), 'is', 'are')} left "
                    "out"
                )
        if not keep.any():
            raise BadEpisode(f"the options leave none of {len(rows)} frames: {warnings[-1]}")
        rows = rows.select(keep)
        longest = int(np.diff(rows.stamps).max(initial=0))
        if self.options.gap == "reject" and longest > align.HOLE_NS:
            raise BadEpisode(f"the head camera pauses for {longest / align.SECOND:.3f} s; option gap is set to reject")
        return rowing.mark_breaks(rows, self.options.gap == "split"), numbers[keep]

    def _stored(self, values: align.Values, role: topics.Role, grippers: report.Grippers) -> NDArray[np.float32]:
        """Rows as they are stored: float32, grippers on the scale asked for."""
        if self.options.gripper_unit:
            columns = report.arm_columns(self.parts, role, "gripper")
            values = values.copy()
            values[:, columns] = to_unit(values[:, columns], grippers.top)
        return values.astype(np.float32)


def _camera(bags: Bags, track: series.Track, rows: rowing.AlignedRows, keep_video: bool) -> Camera:
    """One camera of an episode, streamed from the recording in a pass of its own."""
    shown = tuple(rows.images[track.camera].tolist())
    if track.kind == "jpeg":
        buffers = camera_images.BagJpegs(bags, track.camera, track.timing.topic, track.kind, shown, small=track.small)
        return EncodedCamera(buffers, track.height, track.width)
    good = track.timing.index[track.good]
    first = int(good[0])
    if track.shown is not None:
        shown = tuple(track.shown[list(shown)].tolist())
    place = (bags, track.camera, track.timing.topic, track.kind)
    pixels = camera_images.BagPixels(*place, shown, first, reordered=track.display is not None)
    if keep_video and track.kind in ("h264", "hevc"):
        return kept.keep(pixels, good, track.display)
    height, width = (track.height, track.width) if track.height else pixels.size()
    return RawCamera(pixels, height, width)


def _claims(
    manifest: Manifest, names: tuple[tuple[str, ...], tuple[str, ...]], scale: GripperScale, check_rate: bool
) -> Conventions:
    wrists = ("left_wrist_rgb", "right_wrist_rgb")
    found = claims.two_arms("r1lite", "absolute", names, scale, claims.as_stitched(manifest, wrists))
    options = claims.swapped_wrists(manifest, wrists)
    options |= claims.scale_option(scale)
    if not manifest.options.get("gripper_unit"):
        kinds = zip(("state", "action"), names, strict=True)
        options |= {f"one_scale {kind} {n}": "--gripper-unit" for kind, own in kinds for n in own if "gripper" in n}
        options["one_scale grippers"] = "--gripper-unit"
    if manifest.options.get("clock", "reject") != "shift":
        options["camera_delay"] = "--clock shift"
    rate = RateClaim(manifest.fps.hz, measured_times=True) if check_rate else None
    return replace(found, rate=rate, options=options)


def stored_conventions(
    manifest: Manifest, names: tuple[tuple[str, ...], tuple[str, ...]], metadata: Mapping[str, Json]
) -> Conventions:
    """See `fwdata.api.StoredConventions`."""
    scale: GripperScale = "unit" if metadata.get("gripper_range") == [0, 1] else "percent"
    return _claims(manifest, names, scale, check_rate=manifest.options.get("check_rate", True) is not False)
