"""LIBERO demonstrations: raw task files, and those regenerated without no-ops.

One HDF5 file per task, one episode per demonstration. Rows are what Fast-WAM trains on: observation t with action t,
state = end effector position and axis-angle and two finger joints, gripper action 1 open / 0 closed, both cameras
rotated by 180 degrees. Which way frames are stored is decided per file and camera (`orientation`), which command opens
the gripper is measured (`gripper`), and so is whether observation t is from before or after action t (`hdf5`); none of
these is changed silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.libero import about, cameras, clock, gripper, hdf5, paths, text
from converters.libero import discovery as finding
from converters.libero.actions import absolute_targets, action_warnings, kept_actions, policy_actions
from converters.libero.neighbours import kept_of_file
from converters.libero.options import LiberoOptions
from converters.libero.orientation import orient
from converters.libero.outcome import remarks
from converters.libero.stored import agreeing, effect_row, placed, reordered, turned_by_option
from converters.shared import conventions as claims
from converters.shared.hdf5 import open_recording
from fwdata.api import (
    BadEpisode,
    Conventions,
    Discovery,
    Episode,
    EpisodeRef,
    LeftOut,
    RateClaim,
    RawCamera,
    UsageError,
    converter_options,
)
from fwdata.errors import did_you_mean, quoted
from fwdata.manifest import Manifest, built_in_path, validate_model
from fwdata.wording import counted, verb

if TYPE_CHECKING:
    import h5py

CAMERA_KEYS = {"image": "agentview_rgb", "wrist_image": cameras.WRIST}
"""Camera names of the manifest (those of Fast-WAM's data) to datasets in `obs`; another name N is read from `N_rgb`."""


ASPECT = 0.02
"""Share by which a camera's aspect may differ from the stitched one's."""


class LiberoConverter:
    """LIBERO; see `fwdata.api.Converter` for the contract and `LiberoOptions` for the manifest's options."""

    version = 2  # 2: gripper measured, orientation by camera, instructions without perturbations
    """See `fwdata.api.Converter`."""
    slow_reading = True  # what is measured first is read once; its images stay in the file

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        merged = converter_options(manifest.options, LiberoOptions().model_dump(), "libero")
        self.options = validate_model(LiberoOptions, merged, f"options of manifest {manifest.name!r}")
        if self.options.absolute_actions and (manifest.normalisation.delta_actions or self.options.filter_noops):
            raise UsageError(
                f"manifest {manifest.name!r}: option absolute_actions needs normalisation.delta_actions: [] and "
                f"options.filter_noops: false, which are of delta commands; copy {quoted(built_in_path('libero'))}, "
                "set them there, and give it with --manifest FILE.yaml"
            )
        for name in self.options.rotation if isinstance(self.options.rotation, dict) else ():
            if name not in manifest.cameras:
                raise UsageError(f"option rotation: no camera is called {name!r}{did_you_mean(name, manifest.cameras)}")
        self.image_keys = {name: CAMERA_KEYS.get(name, f"{name}_rgb") for name in manifest.cameras}

    def discover(self, root: Path) -> Discovery:
        """Find the demonstrations below a folder of any level (all suites, one suite) or in one file.

        Costs one directory walk, and every file is opened for names, lengths and attributes (about 1 ms per
        demonstration). Raises UsageError when nothing is found or when the options leave nothing.
        """
        listing = paths.list_files(root)
        if not listing.files:
            raise UsageError(finding.nothing_found(root, listing))
        chosen = self._choose(listing.files)
        keys = tuple(self.image_keys.values())
        files, skipped, warnings = finding.open_files(paths.base_folder(root), chosen, keys, self.options)
        if not files:
            raise finding.nothing_left(root, skipped, warnings)
        warnings += finding.place_warnings(listing, chosen)
        warnings += finding.content_warnings(files, self.manifest.fps.hz, self.options.mask is not None)
        if root.is_dir() and not (self.options.suites or self.options.tasks):
            warnings += finding.count_warnings(files, chosen)
        warnings += finding.absent_warnings(files, self.options)
        files, left_out = finding.choose_demos(files, self.options)
        left_out += self._not_asked(listing.files, chosen)
        return Discovery(
            finding.references(files),
            skipped,
            about.decisions(files, self.options, self.manifest.fps.hz),
            tuple(warnings),
            per_episode=about.PER_EPISODE,
            left_out=(*left_out, *finding.archives(listing)),
        )

    def _not_asked(self, found: Sequence[paths.TaskFile], chosen: Sequence[paths.TaskFile]) -> list[LeftOut]:
        """Task files that the options suites and tasks leave out."""
        kept = {file.path for file in chosen}
        names = [file.path for file in found if file.path not in kept]
        reason = "task files that the options suites and tasks do not name"
        return [LeftOut(reason, len(names), tuple(names[:2]), asked=True)] if names else []

    def _choose(self, found: Sequence[paths.TaskFile]) -> list[paths.TaskFile]:
        """Task files that the options ask for."""
        suites, tasks = self.options.suites, self.options.tasks
        for key, wanted, known in (
            ("suites", suites, {name for file in found for name in (file.suite, file.folder)}),
            ("tasks", tasks, {file.task for file in found}),
        ):
            for name in wanted or ():
                if name not in known:
                    raise UsageError(f"option {key}: no task file of {name!r} was found{did_you_mean(name, known)}")
        chosen = [
            file
            for file in found
            if (suites is None or file.suite in suites or file.folder in suites)
            and (tasks is None or file.task in tasks)
        ]
        if not chosen:
            raise UsageError(f"options suites and tasks leave none of the {len(found)} task files found")
        return chosen

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        """Read one demonstration; images stay in the file until their iterators are used.

        Raises BadEpisode with the key and what was found. Cost: some 3 ms of CPU, nine wrist frames included.
        """
        path = paths.base_folder(root) / ref.files[0]
        demo_name, regenerated = str(ref.hints["demo"]), ref.hints["layout"] == finding.REGENERATED
        with open_recording(path) as file:
            attributes = kept_of_file(file, hdf5.read_attributes)
            told = self._told(path.name, attributes, str(ref.hints["folder"]))
            layout_timing: hdf5.Timing = "before_action" if regenerated else "after_action"
            demo = hdf5.read_demo(file, demo_name, self.image_keys, layout_timing)
            quaternions = hdf5.read_quaternions(file, demo_name, demo)
            recorded = len(demo.actions)
            ticking = clock.clock_of(demo.times, f"data/{demo_name}/states")
            found = self._images(path, file, demo_name, recorded)
            demos = kept_of_file(file, hdf5.demo_names)
            facing = (attributes.image_convention, self.options.rotation, self.image_keys)
            turned = orient(file, demo_name, demos, *facing)
            commands, fingers = demo.actions[:, 6], demo.state[:, 6:]
            gripped = gripper.decide(file, demo_name, demos, commands, fingers, self.options.gripper)
            noted = remarks(file, demo_name, demos, told.text, self.options.include_failed)
        self._check_meaning(demo_name, demo)
        rows, actions, noops = self._rows(demo)
        warnings = self._warnings(demo, len(rows), layout_timing) + self._stretched(found)
        warnings += [text for text in (*turned.warnings, gripped.warning, ticking and ticking.warning, *noted) if text]
        told_by_file = about.about(ref, attributes, demo, told, turned, gripped)
        metadata = told_by_file | {
            "obs_timing": "before_action" if self._repaired(demo) else demo.timing,
            "rows": self._rule(demo),
            "noops_found": len(noops),
            "noops_dropped": list(noops) if self.options.filter_noops else [],
            "source_sizes": {name: list(image.size) for name, image in found.items()},
            **clock.about(ticking, self.manifest.fps.hz),
            "resized_to": list(self.options.resize) if self.options.resize else None,
        }
        return Episode(
            cameras={
                name: RawCamera(
                    self._pixels(path, image, rows, turned.operations[name]), *(self.options.resize or image.size)
                )
                for name, image in found.items()
            },
            state=demo.state[rows].astype(np.float32),
            action=policy_actions(actions, gripped),
            timestamp_ns=np.rint(np.arange(len(rows)) * (1e9 / self.manifest.fps.hz)).astype(np.int64),
            valid=np.ones(len(rows), dtype=np.bool_),
            state_names=hdf5.STATE_NAMES,
            action_names=hdf5.TARGET_NAMES if self.options.absolute_actions else hdf5.ACTION_NAMES,
            task=str(ref.hints["task"]),
            instructions=(told.text,),
            metadata=metadata,
            warnings=tuple(warnings),
            conventions=replace(
                self._conventions(attributes, quaternions, rows, ticking),
                effect_row=effect_row(metadata),
                options=agreeing(self.manifest, self.options, metadata),
            ),
            embodiment=attributes.robot or "Panda",
        )

    def _told(self, name: str, attributes: hdf5.Attributes, folder: str) -> text.TaskInstruction:
        return text.choose(name, attributes.problem_info, attributes.bddl, self.options.instruction, folder)

    def _images(self, path: Path, file: h5py.File, demo: str, rows: int) -> dict[str, cameras.DemoImages]:
        """The recorded images of every camera of a demonstration."""
        keys = {name: f"data/{demo}/obs/{key}" for name, key in self.image_keys.items()}
        return {name: cameras.recorded_images(path, file, key, rows) for name, key in keys.items()}

    def _conventions(
        self,
        attributes: hdf5.Attributes,
        quaternions: NDArray[np.float32] | None,
        rows: NDArray[np.int64],
        ticking: clock.SimulatorClock | None,
    ) -> Conventions:
        reference = None if quaternions is None else quaternions[rows]
        found = claims.libero(placed(self.image_keys), reference, turned_by_option(self.options, self.image_keys))
        if self.options.absolute_actions:
            turning = tuple(replace(claim, command=()) for claim in found.rotations)
            found = replace(found, action="absolute", rotations=turning)
        rate = RateClaim(self.manifest.fps.hz, attributes.control_freq, clock=ticking.hz if ticking else None)
        return replace(found, rate=rate, reordered=reordered(self.manifest))

    def _check_meaning(self, name: str, demo: hdf5.Demo) -> None:
        """BadEpisode where the actions are absolute targets and the option does not say so, or the reverse."""
        found = absolute_targets(demo)
        if found is not None and not self.options.absolute_actions:
            raise BadEpisode(
                f"data/{name}/actions hold absolute targets, not LIBERO's delta commands: {found}; convert them with "
                "option absolute_actions and a manifest whose normalisation.delta_actions is empty"
            )

    def _repaired(self, demo: hdf5.Demo) -> bool:
        return self.options.pairing == "next_action" and demo.timing == "after_action"

    def _rule(self, demo: hdf5.Demo) -> str:
        rule = "observation t with action t"
        if self._repaired(demo):
            rule += " + 1 (re-paired; the last observation and the first action have no row)"
        return rule + ("; rows of no-op actions dropped" if self.options.filter_noops else "")

    def _rows(self, demo: hdf5.Demo) -> tuple[NDArray[np.int64], NDArray[np.float64], tuple[int, ...]]:
        """(recorded index of every row's observation, its action, indices whose action is a no-op)."""
        rows: NDArray[np.int64] = np.arange(len(demo.actions), dtype=np.int64)
        actions = demo.actions
        if self._repaired(demo):
            if len(rows) < 2:
                raise BadEpisode("too short: one recorded row leaves none when it is paired with the next action")
            rows, actions = rows[:-1], actions[1:]
        kept = kept_actions(actions)
        noops = tuple(int(row) for row in rows[~kept])
        if not self.options.filter_noops:
            return rows, actions, noops
        if not kept.any():
            raise BadEpisode(f"all {len(kept)} actions are no-ops, nothing is left of the demonstration")
        return rows[kept], actions[kept], noops

    def _pixels(
        self, path: Path, images: cameras.DemoImages, rows: NDArray[np.int64], operation: cameras.Operation
    ) -> cameras.DemoPixels:
        return cameras.DemoPixels(path, images.key, images.rows, rows, operation, self.options.resize, images.place)

    def _stretched(self, images: dict[str, cameras.DemoImages]) -> list[str]:
        """Cameras whose images have another aspect once they are resized and stitched."""
        height, width = self.manifest.stitch.camera_size
        aspects = {name: (width / height) / (image.size[1] / image.size[0]) for name, image in images.items()}
        return [
            f"{name} has images of {images[name].size[1]}x{images[name].size[0]} pixels (width x height), stretched to "
            f"{aspect:.2f} of their aspect when stitched at {width}x{height}"
            for name, aspect in aspects.items()
            if abs(aspect - 1) > ASPECT and name in self.manifest.stitch.cameras
        ]

    def _warnings(self, demo: hdf5.Demo, rows: int, layout_timing: hdf5.Timing) -> list[str]:
        warnings = action_warnings(demo.actions, self.options.absolute_actions)
        if demo.timing != layout_timing:
            warnings.append(
                f"observations are {demo.timing} by their content, but the file's attributes look like {layout_timing}"
            )
        if rows < self.manifest.window.num_frames:
            warnings.append(
                f"{counted(rows, 'row')} {verb(rows, 'is', 'are')} fewer than a window of "
                f"{self.manifest.window.num_frames}; windows are padded"
            )
        return warnings
