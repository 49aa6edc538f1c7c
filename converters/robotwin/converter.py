"""RoboTwin 2.0 recordings, every variant: classic, and v1.0 native, converted, interim and marked.

What a file is, is decided by its content; its folders tell task, embodiment and setting. Rows follow the rule of all
RoboTwin converters and of Fast-WAM's own data: state = row t of the joint targets, action = row t + 1, the image of
row t; T recorded frames give T - 1 rows. Unmarked JPEG streams hold red and blue exchanged (the collector handed RGB
to an encoder that takes BGR); streams with the COM segment `XPL-RGB1` are standard. This is decided for every buffer.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.robotwin import camera_motion, cameras, hdf5, paths, stamps, text
from converters.robotwin import discovery as finding
from converters.robotwin.conventions import conventions
from converters.robotwin.options import RobotwinOptions
from converters.shared.hdf5 import dataset, open_recording
from fwdata.api import (
    BadEpisode,
    Discovery,
    Episode,
    EpisodeRef,
    Json,
    UsageError,
    converter_options,
)
from fwdata.errors import did_you_mean
from fwdata.manifest import Manifest, validate_model
from fwdata.wording import counted

MAX_JOINT_STEP = 1.0
ASPECT = 0.02
"""Share by which a camera's aspect may differ from the stitched one's."""
GRIPPER_RANGE = (-1e-3, 1.001)


class RobotwinConverter:
    """RoboTwin 2.0; see `fwdata.api.Converter` for the contract and `RobotwinOptions` for the manifest's options."""

    version = 2  # 2: texts beside data/<task>, embodiments named twice, settings of converted files
    """See `fwdata.api.Converter`."""
    slow_reading = True  # what is measured first is read once; its images stay in the file

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        merged = converter_options(manifest.options, RobotwinOptions().model_dump(), "robotwin")
        self.options = validate_model(RobotwinOptions, merged, f"options of manifest {manifest.name!r}")

    def discover(self, root: Path) -> Discovery:
        """Find the recordings below a folder of any level (dataset, task, archive, `data`) or in one file.

        Costs one directory walk; files are only opened to compare the joints of recordings that may be the same one.
        Raises UsageError when nothing is found, when the options leave nothing, or when they leave several embodiments.
        """
        listing = paths.list_recordings(root)
        if not listing.recordings:
            raise UsageError(finding.nothing_found(root, listing))
        base = paths.base_folder(root)
        found, stated = finding.stated_by_content(base, listing.recordings)
        chosen = self._choose(found)
        finding.check_embodiments(chosen)
        kept, skipped = finding.drop_duplicates(base, chosen)
        warnings = [*finding.listing_warnings(listing), *finding.place_warnings(chosen)]
        warnings += finding.failure_warnings(chosen)
        if root.is_dir():
            warnings += finding.numbering_warnings(chosen)
        if stated:
            warnings.append(f"{counted(stated, 'recording')}: attribute source_path tells what the folders do not")
        last_of = {r.folder: r.index for r in sorted(chosen, key=lambda r: r.index)}
        taken = self._limit(kept)
        named = {r.path for r in chosen}
        filtered = [r.path for r in found if r.path not in named]
        return Discovery(
            finding.references(base, taken, last_of),
            skipped,
            self._decisions(kept),
            tuple(warnings),
            per_episode=self._per_episode,
            left_out=tuple(finding.left_out(listing, len(chosen), len(kept) - len(taken), filtered)),
        )

    def _choose(self, found: Sequence[paths.RecordingFile]) -> list[paths.RecordingFile]:
        """Recordings that the options ask for, in conversion order."""
        options = self.options
        wanted = paths.canonical_embodiment(options.embodiment) if options.embodiment else None
        filled = [_with_defaults(r, wanted, options.default_setting) for r in found]
        tasks = {r.place.task for r in filled}
        for task in options.tasks or ():
            if task not in tasks:
                raise UsageError(f"option tasks: no recording of task {task!r} was found{did_you_mean(task, tasks)}")
        chosen = [
            r
            for r in filled
            if (options.tasks is None or r.place.task in options.tasks)
            and (options.settings is None or r.place.setting in options.settings)
            and (wanted is None or r.place.embodiment == wanted)
        ]
        if not chosen:
            embodiments = ", ".join(sorted({r.place.embodiment for r in filled}))
            settings = ", ".join(sorted({r.place.setting for r in filled}))
            untold = options.settings and any(r.place.setting == paths.UNKNOWN for r in filled)
            raise UsageError(
                f"the options leave none of the {len(filled)} recordings found; "
                f"their embodiments are {embodiments}, their settings {settings}"
                + ("; option default_setting says what those are whose folders do not tell" if untold else "")
            )
        place_of = dataclasses.astuple
        return sorted(chosen, key=lambda r: (*place_of(r.place)[:3], r.index, r.path))

    def _limit(self, recordings: Sequence[paths.RecordingFile]) -> list[paths.RecordingFile]:
        limit, taken, kept = self.options.max_episodes_per_task, Counter[str](), []
        for recording in recordings:
            taken[recording.place.task] += 1
            if limit is None or taken[recording.place.task] <= limit:
                kept.append(recording)
        return kept

    def _decisions(self, recordings: Sequence[paths.RecordingFile]) -> dict[str, Json]:
        return {
            "rows": "state = joint targets of frame t, action = those of frame t + 1; the last frame has no row"
            if self.options.actions == "next_state"
            else "state and action of frame t as recorded in v1.0 files (option actions)",
            "colour": {
                "auto": "buffers marked XPL-RGB1 are standard RGB, all others hold red and blue exchanged",
                "rgb": "forced: every buffer is standard RGB",
                "swapped": "forced: every buffer holds red and blue exchanged",
            }[self.options.colour],
            "rate_hz": self.manifest.fps.hz,
            "joint_order": "left arm, left gripper, right arm, right gripper; grippers 0 closed .. 1 open",
            "instruction": "seen texts of the recording, else of the file beside it, else the task's name; "
            + {"first": "canonical is the first", "seeded": "canonical is picked by a hash of the episode's id"}[
                self.options.instruction
            ],
            "embodiments": dict(sorted(Counter(r.place.embodiment for r in recordings).items())),
            "settings": dict(sorted(Counter(r.place.setting for r in recordings).items())),
        }

    @property
    def _per_episode(self) -> tuple[str, ...]:
        """Keys of the episodes' metadata that hold what was decided for each."""
        return (
            "variant",
            "rows",
            "fps_label",
            "instruction_fallback",
            *(f"colour_order.{name}" for name in self.manifest.cameras),
            "colour_check.verdict",
        )

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        """Read one recording; images stay in the file until their iterators are used.

        Raises BadEpisode with the key and what was found. Cost: some 20 ms of CPU, half of it to check the
        colours where the collector's video is there.
        """
        base = paths.base_folder(root)
        path = base / ref.files[0]
        warnings: list[str] = []
        with open_recording(path) as file:
            variant = hdf5.detect_variant(file)
            motion = hdf5.read_motion(file, variant, self.options.actions == "recorded")
            label = hdf5.frequency(file)
            warnings += stamps.remarks(file, motion.recorded, (self.manifest.fps.hz, self.manifest.fps.nominal, label))
            infos = self._cameras(file, path, variant, motion, warnings)
            stored = _stored_texts(file, variant, warnings)
            warnings += finding.stated_otherwise(hdf5.made_from(file), ref)
            for name in self.manifest.cameras:
                camera_motion.check_upright(file, name, infos[name].height, infos[name].width)
            moving = camera_motion.camera_claims(file, self.manifest.cameras, len(motion.state))
        task, index, rows = str(ref.hints["task"]), int(ref.hints["index"]), len(motion.state)
        about = _about(infos, motion, variant)
        about |= {
            "task": task,
            "setting": str(ref.hints["setting"]),
            "index": index,
            "fps_label": label,
            "cameras_not_used": [name for name in infos if name not in self.manifest.cameras],
            "colour_option": self.options.colour,
            "colour_check": self._check_colours(base, ref, infos, warnings),
        }
        warnings += _range_warnings(motion) + self._image_warnings(infos)
        instructions = self._side_files(base, ref, stored, variant, about, warnings)
        names = _joint_names(motion)
        return Episode(
            cameras={name: infos[name].camera() for name in self.manifest.cameras},
            state=motion.state,
            action=motion.action,
            timestamp_ns=np.rint(np.arange(rows) * (1e9 / self.manifest.fps.hz)).astype(np.int64),
            valid=np.ones(rows, dtype=np.bool_),
            state_names=names,
            action_names=names,
            task=task,
            instructions=instructions,
            metadata=about,
            warnings=tuple(warnings),
            conventions=dataclasses.replace(
                conventions(self.manifest, (names, names), label, about), cameras=moving if variant == "classic" else ()
            ),
            embodiment=_embodiment(ref.embodiment, motion),
        )

    def _image_warnings(self, infos: Mapping[str, cameras.CameraInfo]) -> list[str]:
        """Cameras that are used and show no colours, or are stretched when they are stitched."""
        height, width = self.manifest.stitch.camera_size
        used = {name: infos[name] for name in self.manifest.cameras}
        grey = [name for name, info in used.items() if info.grey]
        warnings = [f"{name} is greyscale; stored as three equal channels" for name in grey]
        for name, info in used.items():
            if info.height > info.width:
                warnings.append(
                    f"{name} has images of {info.width}x{info.height} pixels (width x height), higher than wide, as "
                    "RoboTwin renders none; if they were turned by 90 degrees, turn them back"
                )
                continue
            stretched = (width / height) / (info.width / info.height)
            if abs(stretched - 1) > ASPECT:
                warnings.append(
                    f"{name} has images of {info.width}x{info.height} pixels (width x height), stretched to "
                    f"{stretched:.2f} of their aspect when stitched at {width}x{height}"
                )
        return warnings

    def _cameras(
        self, file: Any, path: Path, variant: hdf5.Variant, motion: hdf5.Motion, warnings: list[str]
    ) -> dict[str, cameras.CameraInfo]:
        """Every camera of the file, checked; BadEpisode when one of the manifest's is absent.

        Lengths must agree for all of them; an unreadable image only matters in those that are used.
        """
        keys = hdf5.camera_keys(file, variant)
        missing = [name for name in self.manifest.cameras if name not in keys]
        if missing:
            raise BadEpisode(
                f"camera {missing[0]} is missing, found {', '.join(keys) or 'none'}; "
                "to convert without it, use a manifest whose cameras do not name it"
            )
        infos: dict[str, cameras.CameraInfo] = {}
        for name, key in keys.items():
            try:
                node = dataset(file, key)
            except BadEpisode as error:
                if name in self.manifest.cameras:
                    raise
                warnings.append(f"{error} (a camera that is not used)")
                continue
            cameras.checked(node, key, motion.recorded)
            source = cameras.Hdf5Frames(path, key, name, motion.recorded, len(motion.state), self.options.colour)
            try:
                infos[name] = cameras.open_camera(file, source)
            except BadEpisode as error:
                if name in self.manifest.cameras:
                    raise
                warnings.append(f"{error} (a camera that is not used)")
        return infos

    def _check_colours(
        self, base: Path, ref: EpisodeRef, infos: dict[str, cameras.CameraInfo], warnings: list[str]
    ) -> dict[str, Json] | None:
        """Compare the head camera with the collector's video; BadEpisode when it shows red and blue the other way."""
        if "video" not in ref.hints or "head_camera" not in self.manifest.cameras:
            return None
        video = base / str(ref.hints["video"])
        head = infos["head_camera"]
        first, last = (cameras.image_of(head, row) for row in (0, head.source.rows - 1))
        try:
            found = cameras.compare_with_video(first, last, video)
        except ValueError as error:
            warnings.append(f"colours are not checked: {error}")
            return {"verdict": "not checked"}
        warnings += self._other_length(video.name, found.frames, head.source.rows)
        verdict, straight, exchanged = found.verdict, found.straight, found.exchanged
        levels = f"({straight:.1f} grey levels apart as read, {exchanged:.1f} with red and blue exchanged)"
        if found.turned:
            raise BadEpisode(
                f"head_camera is {found.turned} against {video.name}, the collector's video {levels}; turn the images "
                "in the recording back, or remove the video where it is the one that was turned"
            )
        if found.backwards:
            raise BadEpisode(
                f"head_camera frame {head.source.rows - 1}, and not frame 0, is the first one of {video.name}, the "
                "collector's video: the rows are in reverse order; record them in order, or remove the video where it "
                "is the one that was reversed"
            )
        if verdict == "contradicts":
            found_colours = f"{video.name} contradicts the colours of head_camera {levels}"
            if self.options.colour == "auto":
                agrees = "rgb" if head.order == "swapped" else "swapped"
                raise BadEpisode(
                    f"{found_colours}; if the recording was rewritten, --colour {agrees} reads it as the video"
                )
            warnings.append(f"{found_colours}; the order is forced by option colour")
        elif verdict == "undecided":
            warnings.append(f"{video.name} fits neither colour order of head_camera {levels}")
        return {"verdict": verdict, "as_read": round(straight, 2), "exchanged": round(exchanged, 2)}

    @staticmethod
    def _other_length(video: str, frames: int, recorded: int) -> list[str]:
        """A video of another length: v1.0 files hold one row less than was collected."""
        if not frames or frames in (recorded, recorded + 1):
            return []
        how = "left out of" if frames > recorded else "added to"
        return [
            f"{video} has {frames} frames, the recording {recorded}: rows were {how} it, which makes its rate "
            f"another one, or the video is {'' if frames > recorded else 'cut or '}of another recording"
        ]

    def _side_files(
        self,
        base: Path,
        ref: EpisodeRef,
        stored: list[str] | None,
        variant: hdf5.Variant,
        about: dict[str, Json],
        warnings: list[str],
    ) -> tuple[str, ...]:
        """Instructions, canonical first; adds what the files beside the recording tell to `about` and `warnings`."""
        task, index = str(ref.hints["task"]), int(ref.hints["index"])
        sidecar, seeds, scenes = (
            base / str(ref.hints[key]) if key in ref.hints else None for key in ("instructions", "seeds", "scene_info")
        )
        found = text.choose_instructions(task, stored, sidecar)
        seed, seed_warning = text.read_seed(seeds, index)
        scene, scene_warning = text.read_scene(scenes, index)
        conflict = None if found.fallback else text.arm_conflict(found.seen, scene)
        warnings += [*found.warnings, *(w for w in (seed_warning, scene_warning, conflict) if w)]
        if found.fallback and (unread := paths.texts_of_all(base, ref.source.rpartition("/")[0] or ".")):
            warnings.append(f"{unread} is not read: a text belongs to one episode, in instructions/episode{{N}}.json")
        if variant == "classic" and ref.hints.get("last_without_text"):
            warnings.append(
                "last episode of a folder without instructions: an interrupted collection may end in a failed one"
            )
        about |= {
            "instruction_source": found.source,
            "instruction_fallback": found.fallback,
            "instructions_unseen": list(found.unseen),
            "seed": seed,
            "scene_info": scene,
        }
        return text.canonical_first(found.seen, ref.id, self.options.instruction)


def _about(infos: dict[str, cameras.CameraInfo], motion: hdf5.Motion, variant: hdf5.Variant) -> dict[str, Json]:
    """Metadata that the file itself tells."""
    marked = variant == "v1.0 native" and any(info.order == "marked" for info in infos.values())
    return {
        "variant": "v1.0 marked" if marked else variant,
        "rows": motion.rule,
        "recorded_frames": motion.recorded,
        "joints_per_arm": [motion.left, motion.right],
        "gripper_indices": [motion.left, motion.left + motion.right + 1],
        "source_sizes": {name: [info.height, info.width] for name, info in infos.items()},
        "colour_order": {name: info.order for name, info in infos.items()},
    }


def _with_defaults(
    recording: paths.RecordingFile, embodiment: str | None, setting: paths.Setting
) -> paths.RecordingFile:
    """Fill what the path does not tell from the options."""
    place = recording.place
    if place.embodiment == paths.UNKNOWN and embodiment:
        place = dataclasses.replace(place, embodiment=embodiment)
    if place.setting == paths.UNKNOWN:
        place = dataclasses.replace(place, setting=setting)
    return dataclasses.replace(recording, place=place)


def _stored_texts(file: Any, variant: hdf5.Variant, warnings: list[str]) -> list[str] | None:
    """Instructions inside a v1.0 file; a broken dataset is a warning."""
    if variant == "classic":
        return None
    for key in ("instructions", "instruction"):
        try:
            stored = hdf5.texts(file, key)
        except BadEpisode as error:
            warnings.append(f"{error}; not used")
            continue
        if stored and any(value.strip(" \n[]\"'") for value in stored):
            return stored
    return None


def _embodiment(stated: str, motion: hdf5.Motion) -> str:
    """The path's embodiment, checked against the joint counts; without one, 7 joints are franka-panda's alone."""
    joints, expected = {motion.left, motion.right}, paths.ARM_JOINTS.get(stated)
    if expected is not None and joints != {expected}:
        raise BadEpisode(
            f"the arms have {motion.left} and {motion.right} joints, but {stated} has {expected} per arm; name the "
            "folder after the robot that it is, or give that one with --embodiment where no folder tells it"
        )
    return "franka-panda" if stated == paths.UNKNOWN and joints == {7} else stated


def _joint_names(motion: hdf5.Motion) -> tuple[str, ...]:
    sides = (("left", motion.left), ("right", motion.right))
    return tuple(
        name for side, n in sides for name in (*(f"{side}_joint_{i + 1}" for i in range(n)), f"{side}_gripper")
    )


def _range_warnings(motion: hdf5.Motion) -> list[str]:
    """Values outside what the collector can write: suspicious, but kept."""
    rows = np.concatenate([motion.state, motion.action[-1:]])
    grippers = [motion.left, motion.left + motion.right + 1]
    values, joints = rows[:, grippers], np.delete(rows, grippers, axis=1)
    warnings = []
    if values.min() < GRIPPER_RANGE[0] or values.max() > GRIPPER_RANGE[1]:
        warnings.append(f"gripper values reach {values.min():.4g} .. {values.max():.4g}, expected 0 .. 1")
    steps = np.abs(np.diff(joints, axis=0)).max(axis=1)
    if steps.max() > MAX_JOINT_STEP:
        warnings.append(f"a joint moves {steps.max():.3g} rad between frames {steps.argmax()} and {steps.argmax() + 1}")
    return warnings
