"""LeRobot datasets, v2.0, v2.1 and v3.0: one dataset folder, or several below one folder into one store.

Which features become cameras, state and action is stated by the manifest (`_lerobot_mapping`); the manifests called
lerobot-* fit the published sets. Rows are kept as they are: the image, state and action of frame k. LeRobot's
timestamps are k / fps, so they are recorded as nominal. Packets of videos and JPEG buffers of image features pass
through untouched.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.lerobot import choice as choosing
from converters.lerobot import discovery as finding
from converters.lerobot import grippers as gripping
from converters.lerobot import hub, text, unused
from converters.lerobot import splits as splitting
from converters.lerobot.cameras import open_cameras
from converters.lerobot.conventions import conventions
from converters.lerobot.info import Info, read_info
from converters.lerobot.mapping import Fit, fit, fit_cameras, name_notes
from converters.lerobot.meta import Dataset, EpisodeMeta, load_dataset
from converters.lerobot.options import LerobotOptions, options_of, rate_agrees
from converters.lerobot.own_exports import valid_rows
from converters.lerobot.parquet import Span
from converters.lerobot.rates import check_rate
from converters.lerobot.recognise import fitting_manifests
from converters.lerobot.recover import recovering
from converters.lerobot.rows import TableRows, as_float32, read_rows
from converters.lerobot.strays import unlisted_videos
from converters.lerobot.survey import agreed
from converters.lerobot.twins import twins
from converters.shared.galaxea_text import META_NAMES
from fwdata.api import (
    BadEpisode,
    Discovery,
    Episode,
    EpisodeRef,
    Json,
    LeftOut,
    Skipped,
    UsageError,
    is_hub_id,
    is_wanted,
)
from fwdata.manifest import Manifest, load_manifest
from fwdata.wording import counted, verb


@dataclass
class _Collected:
    """What discovery has found so far."""

    refs: list[EpisodeRef] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    stray: list[LeftOut] = field(default_factory=list)
    datasets: dict[str, Json] = field(default_factory=dict)
    scales: dict[str, str] = field(default_factory=dict)
    several: bool = False


class LerobotConverter:
    """LeRobot; see `fwdata.api.Converter` and `converters.lerobot.options.LerobotOptions`."""

    version = 1
    """See `fwdata.api.Converter`."""
    slow_reading = True  # what is measured first is read once; its images stay in the files

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.options = options_of(manifest)
        self.variants = self.options.variants()

    def discover(self, root: Path) -> Discovery:
        """Find the datasets below a folder and their episodes. Reads metadata files only.

        A dataset that cannot be read or does not fit is skipped, if it is not the only one. Raises UsageError when
        nothing is left, when rates differ, or when the manifest maps no features.
        """
        with recovering(self.options.recover, told=self.options.task is not None):
            return self._discover(root)

    def _discover(self, root: Path) -> Discovery:
        found = finding.list_datasets(root)
        if not (self.options.cameras and self.variants):
            raise UsageError(
                f"manifest {self.manifest.name!r} maps no features: fill in its options cameras, state and action"
            )
        collected = _Collected(several=len(found) > 1)
        linked = finding.linked_datasets(root)
        if linked:
            collected.warnings.append(
                f"{counted(len(linked), 'linked dataset')} {verb(len(linked), 'is', 'are')} not entered, such "
                f"as {linked[0]}; give them by name"
            )
        rates: dict[str, float] = {}
        copies = {twin.place: twin for twin in twins(found)} if self.options.copies == "leave-out" else {}
        for place in found:
            twin = copies.get(place)
            if twin is not None:
                collected.skipped.append(Skipped(place.relative or ".", twin.sentence(), damaged=False))
                collected.warnings.append(twin.sentence())
                if twin.complete:
                    continue
            try:
                rates[place.relative or "."] = read_info(place.folder).fps
                self._add(place, collected, twin.episodes if twin else frozenset())
            except UsageError as error:
                if len(found) == 1:
                    raise UsageError(f"{place.folder}: {error}") from None
                collected.skipped.append(Skipped(place.relative or ".", str(error)))
        self._check_rates(root, rates)
        self._check_scales(root, collected.scales)
        if not collected.refs:
            first = collected.skipped[0] if collected.skipped else None
            reason = f", {first.source}: {first.reason}" if first else ""
            raise UsageError(f"{root} holds no episode that can be converted{reason}{finding.unpack_hint(root)}")
        decisions = {"manifest": choosing.why(self.manifest, found), **self._decisions(collected.datasets)}
        warnings = (*choosing.doubts(self.manifest, found), *collected.warnings)
        refs, skipped = tuple(collected.refs), tuple(collected.skipped)
        left_out = (*finding.archives_below(root, found), *finding.not_listed(collected.unlisted), *collected.stray)
        return Discovery(refs, skipped, decisions, warnings, left_out, self._per_episode)

    def _add(self, place: finding.DatasetFolder, collected: _Collected, twice: frozenset[int]) -> None:
        """One dataset's episodes but those that are there `twice`; UsageError when it does not fit this manifest."""
        if not rate_agrees(read_info(place.folder).fps, self.manifest, self.options):
            return  # reported for all datasets at once
        dataset = load_dataset(place.folder)
        info = dataset.info
        mapping = self._fit(info)
        if not dataset.episodes:
            first = f" ({dataset.problems[0].source}: {dataset.problems[0].reason})" if dataset.problems else ""
            raise UsageError(f"the metadata list no episode{first}; download the dataset again")
        used = tuple(key for key in mapping.cameras.values() if key in info.videos())
        limits = finding.EpisodeLimits(self.options.max_episodes, splitting.episodes_of(info, self.options.splits))
        listing = finding.references(place, dataset, used, limits, self._robot(info))
        if listing.skipped and not listing.refs:  # nothing to decide on
            collected.skipped += listing.skipped
            return
        rules = self._grippers(dataset, mapping)
        name = place.relative or "dataset"
        refs = [ref for ref in listing.refs if ref.hints["episode"] not in twice]
        wanted = [int(ref.hints["episode"]) for ref in refs if is_wanted(ref)]
        check_rate(dataset, self.options.rate, wanted)
        scale = gripping.recorded_scale(dataset, mapping, wanted) if wanted else None
        collected.refs += refs
        left_out: dict[str, Json] = dict(listing.left_out)
        left_out |= {"lines of the metadata": len(dataset.problems)} if dataset.problems else {}
        left_out |= {"in another dataset too": len(twice)} if twice else {}
        if left_out:
            counts = ", ".join(f"{kind}: {count}" for kind, count in left_out.items())
            collected.warnings.append(
                f"{name}: {len(refs)} of {counted(len(dataset.episodes), 'episode')} "
                f"{verb(len(refs), 'is', 'are')} read, the others "
                f"left out ({counts})"
            )
        if scale is not None and refs:
            collected.scales[name] = scale
        collected.unlisted += [] if self.options.recover else [place.place(name) for name in dataset.unlisted]
        collected.stray += unlisted_videos(dataset, place.place(""), used)
        collected.skipped += [Skipped(place.place(problem.source), problem.reason) for problem in dataset.problems]
        collected.skipped += listing.skipped
        notes = [*dataset.warnings, *name_notes(info, mapping), *splitting.notes(dataset, self.options.splits)]
        notes += [*unused.notes(dataset, mapping), *finding.nested_datasets(place)]
        others = sorted(set(info.image_features()) - set(mapping.cameras.values())) if collected.several else []
        if others and self.manifest.name == choosing.PLAIN:
            notes.append(f"cameras {', '.join(others)} are left out: not every dataset of the store has them")
        if not rate_agrees(info.fps, self.manifest, LerobotOptions()):
            notes.append(f"meta/info.json says {info.fps:g} fps, the rows are stored at {self.manifest.fps.hz:g}")
        collected.warnings += [f"{name}: {warning}" for warning in notes]
        collected.datasets[name] = {
            "codebase_version": info.version,
            **_hub_origin(place.folder),
            "robot_type": info.robot,
            "episodes": len(refs),
            "frames": sum(int(ref.hints["length"]) for ref in refs),
            "left_out": left_out,
            "fps_label": info.fps,
            **_mapped(mapping),
            **rules.to_json(),
        }

    def _check_scales(self, root: Path, scales: dict[str, str]) -> None:
        try:
            gripping.check_one_scale(scales, self.options.gripper_unit)
        except UsageError as error:
            raise UsageError(f"{root}: {error}") from None

    def _robot(self, info: Info) -> str:
        return self.options.embodiment or info.robot

    def _fit(self, info: Info) -> Fit:
        try:
            return fit(info, self.options.cameras, self.variants)
        except UsageError as error:
            others = fitting_manifests([info])
            hint = f"; it fits --manifest {others[0]}" if others else ""
            raise UsageError(f"does not fit manifest {self.manifest.name!r}: {error}{hint}") from None

    def _check_rates(self, root: Path, rates: dict[str, float]) -> None:
        """All datasets of a store have the manifest's rate; UsageError names one that has not."""
        name, hz = self.manifest.name, self.manifest.fps.hz
        for place, rate in rates.items():
            if rate_agrees(rate, self.manifest, self.options):
                continue
            others = sorted({other for other in rates.values() if other != rate})
            beside = f" (others: {', '.join(f'{other:g}' for other in others)})" if others else ""
            if self.options.rate is not None:
                raise UsageError(
                    f"option rate is {self.options.rate:g}, manifest {name!r} has {hz:g} rows per second; leave --rate "
                    "out, or give a copy of the manifest with that fps.hz by --manifest"
                )
            raise UsageError(
                f"{(root / place).as_posix()}: meta/info.json says {rate:g} fps{beside}, manifest {name!r} {hz:g}; a "
                "store has one rate: convert it alone with a manifest of that rate, or, where the label is wrong, add "
                "it to option fps_labels"
            )

    def _grippers(self, dataset: Dataset, mapping: Fit) -> gripping.GripperRules:
        options = self.options
        return gripping.decide(dataset, mapping, options.gripper_scale, options.gripper_unit, options.gripper_action)

    def _decisions(self, datasets: dict[str, Json]) -> dict[str, Json]:
        options = self.options
        return {
            "datasets": datasets,
            "rows": "state, action and picture of frame k, as recorded",
            "timestamps": f"nominal, k / {self.manifest.fps.hz:g} s: LeRobot keeps no measured ones",
            "frames": "one per row, checked against the video's own times; "
            + {"keep": "packets of video as recorded", "pixels": "decoded once and stored losslessly"}[options.video],
            "colour": {"recorded": "as decoded", "swapped": "forced: red and blue exchanged"}[options.colour],
            "gripper_action": {"recorded": "as recorded"}.get(options.gripper_action, "1 open, 0 closed"),
            "grippers": "0 closed .. 1 open" if options.gripper_unit else "as recorded",
            "instruction": options.instruction,
            "language": options.lang,
            "unqualified_frames": {"keep": "kept", "invalid": "marked invalid"}[options.unqualified],
        }

    @property
    def _per_episode(self) -> tuple[str, ...]:
        """Keys of the episodes' metadata that hold what was decided for each."""
        return (
            "codebase_version",
            "robot_type",
            "variant",
            "instruction_source",
            "gripper_range",
            "unqualified_frames",
        )

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        """Read one episode; images stay in their files until the iterators are used.

        Raises BadEpisode with the file and what was found. Cost: the episode's rows without images, and once per
        process and video file a pass over its packets.
        """
        try:
            told = self.options.task is not None
            with recovering(self.options.recover, told=told), agreed("features" not in ref.hints):
                dataset = load_dataset(root / str(ref.hints["dataset"]))
                mapping = self._fit(dataset.info)
                rules = self._grippers(dataset, mapping)
        except UsageError as error:
            raise BadEpisode(str(error)) from None
        index = int(ref.hints["episode"])
        entry = dataset.episodes.get(index)
        if entry is None:
            raise BadEpisode(f"the metadata list no episode {index} any more")
        span = dataset.span(entry)
        rows = read_rows(span, dataset.info, mapping, self.options.rate)
        return self._episode(dataset, entry, span, mapping, rows, rules)

    def _episode(
        self,
        dataset: Dataset,
        entry: EpisodeMeta,
        span: Span,
        mapping: Fit,
        rows: TableRows,
        rules: gripping.GripperRules,
    ) -> Episode:
        options, info, names = self.options, dataset.info, (mapping.state_names, mapping.action_names)
        state, action, warnings = gripping.apply(rows.state, rows.action, names, rules)
        spoken = text.LanguageOptions(options.instruction == "fine", options.lang, options.strict_lang, options.task)
        labels = rows.labels if dataset.tasks or not options.recover else text.Labels(None, None, None)
        told = text.tell(labels, span.count, entry.tasks, dataset.tasks, dataset.folder, spoken)
        shown = open_cameras(
            dataset,
            entry,
            span,
            {name: mapping.cameras[name] for name in self.manifest.cameras},
            rows.seconds,
            swapped=options.colour == "swapped",
            extra_frames=options.extra_frames,
            video_as="keep" if options.video == "keep" else options.decoder,
            check_colours=options.colour_check,
        )
        stored = [as_float32(*side) for side in ((state, names[0], "state"), (action, names[1], "action"))]
        warnings += [*rows.warnings, *(text for _, texts in stored for text in texts), *shown.warnings, *told.warnings]
        window = self.manifest.window.num_frames
        if span.count < window:
            warnings.append(f"{span.count} rows are fewer than a window of {window}; windows are padded")
        return Episode(
            cameras=shown.by_name,
            state=stored[0][0],
            action=stored[1][0],
            timestamp_ns=np.rint(np.arange(span.count) * (1e9 / self.manifest.fps.hz)).astype(np.int64),
            valid=valid_rows(dataset.folder, entry.index, told.unqualified & (options.unqualified == "invalid")),
            state_names=mapping.state_names,
            action_names=mapping.action_names,
            task=told.coarse,
            instructions=told.instructions,
            metadata={
                "robot_type": info.robot,
                "codebase_version": info.version,
                **_hub_origin(dataset.folder),
                "episode_index": entry.index,
                "raw_file_name": entry.raw_name,
                "fps_label": info.fps,
                "timestamps": "nominal",
                "pictures": shown.metadata,
                "colour_check": shown.colours,
                **_mapped(mapping),
                **rules.to_json(),
                **told.metadata(),
            },
            warnings=tuple(warnings),
            conventions=conventions(self.manifest, options, info, mapping, rules),
            embodiment=self._robot(info),
            segments=[segment.of_episode() for segment in told.segments],
            instruction_per_frame=told.per_frame,
        )


def choose_manifest(roots: Sequence[Path], options: Mapping[str, Any]) -> Manifest:
    """The manifest of the datasets below these roots, where the user names none; see `_lerobot_choice`.

    Raises UsageError when there is no dataset, when several manifests fit, or none, and when several roots hold the
    same recordings or grippers of different scales.
    """
    places = [place for root in roots for place in finding.list_datasets(root)]
    with recovering(bool(options.get("recover")), told=options.get("task") is not None):
        chosen = choosing.choose(places, options)
        if len(roots) > 1:
            choosing.check_together(places, chosen, options)
    return chosen


def fetch(name: str, manifest: str | None, options: Mapping[str, Any]) -> Path:
    """Folder of the hub's dataset OWNER/NAME: its metadata, rows, and the videos of the cameras that are used.

    Option revision names a branch, tag or commit; with max_episodes only the files of the first ones are downloaded.
    What is in the hub's cache already is not downloaded again. Raises UsageError when `name` has another form, when
    the hub cannot be reached, and when no manifest fits.
    """
    if not is_hub_id(name):
        raise UsageError(f"there is no folder {name}; give a LeRobot dataset, a folder of several, or OWNER/NAME")
    folder = hub.download(name, options.get("revision"), ["meta/*", *META_NAMES])
    commit, limit = (hub.provenance(folder) or ("", options.get("revision")))[1], options.get("max_episodes")
    try:
        dataset = load_dataset(folder)
        entries = list(dataset.episodes.values())[:limit]
        hub.download(name, commit, [e.data_file for e in entries] if limit else [_pattern(dataset.info.data_path)])
        chosen = load_manifest(manifest) if manifest else choose_manifest([folder], options)
        keys = options_of(chosen.model_copy(update={"options": {**chosen.options, **options}})).cameras
        cameras = [key for key in fit_cameras(dataset.info, keys).values() if key in dataset.info.videos()]
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    if cameras:
        videos = [e.videos[key].file for e in entries for key in cameras]
        hub.download(name, commit, videos if limit else [_pattern(dataset.info.video_path, key) for key in cameras])
    return folder


def _pattern(template: str, key: str = "") -> str:
    """A path template of info.json as a pattern of file names."""
    return "".join(
        text + ("" if name is None else key if name == "video_key" else "*")
        for text, name, _, _ in string.Formatter().parse(template)
    )


def _hub_origin(folder: Path) -> dict[str, Json]:
    """Where a folder in the hub's cache is from, for the metadata."""
    found = hub.provenance(folder)
    return {} if found is None else {"hub_dataset": found[0], "hub_revision": found[1]}


def _mapped(mapping: Fit) -> dict[str, Json]:
    """Which features were taken, for the metadata."""
    return {
        "variant": mapping.variant,
        "columns_found_by": mapping.found_by,
        "camera_keys": dict(mapping.cameras),
        "state_columns": [part.text() for part in mapping.state],
        "action_columns": [part.text() for part in mapping.action],
    }
