"""Which of the published layouts a dataset is: features, rate and robot first, then its names and its numbers.

A robot of one's own is often published with the features, rate and robot name of a benchmark. So a layout is only taken
where the numbers keep what its column names promise, and a rate label is only overruled where the source names the
benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from converters.lerobot import hub
from converters.lerobot.discovery import DatasetFolder
from converters.lerobot.domain import breach
from converters.lerobot.info import Info
from converters.lerobot.mapping import Fit, fit
from converters.lerobot.meta import Dataset, corrected_info, load_dataset
from converters.lerobot.options import LerobotOptions, options_of, rate_agrees
from converters.lerobot.own_exports import true_rate
from converters.lerobot.rows import read_rows
from converters.lerobot.values import Floats
from fwdata.errors import BadEpisode, ManifestError, UsageError
from fwdata.manifest import Manifest, manifest_names, shared_manifest
from fwdata.wording import counted

SCANNED_EPISODES = 5
OVERRULED = 0.01
"""A label that is farther from a manifest's own rate is overruled by it."""

_NO_ROBOT = frozenset({"", "unknown", "none", "null"})


def detect(places: Sequence[DatasetFolder]) -> list[str]:
    """Names of the manifests that fit all of these datasets, sorted."""
    names = fitting_manifests(readable(places))
    return [name for name in names if not contradiction(shared_manifest(name), places)]


def near_misses(places: Sequence[DatasetFolder]) -> dict[str, str]:
    """Manifests whose features, rate and robot fit all of these datasets -> why they are not taken all the same."""
    found = {name: contradiction(shared_manifest(name), places) for name in fitting_manifests(readable(places))}
    return {name: reason for name, reason in found.items() if reason}


def readable(places: Sequence[DatasetFolder]) -> list[Info]:
    """info.json of every dataset that has a readable one; UsageError when none has."""
    infos = []
    for place in places:
        try:
            infos.append(corrected_info(place.folder))
        except UsageError as error:
            if len(places) == 1:
                raise UsageError(f"{place.folder}: {error}") from None
    if not infos:
        raise UsageError(
            f"{places[0].folder} and {counted(len(places) - 1, 'more dataset')} cannot be read; convert one "
            "of them alone to see "
            "why"
        )
    return infos


def fitting_manifests(infos: Iterable[Info]) -> list[str]:
    """Names of the manifests whose features, rate and robot fit all of these datasets, sorted."""
    found, names = list(infos), []
    for name in manifest_names():
        try:
            manifest = shared_manifest(name)
            if manifest.converter == "lerobot" and _fits_all(manifest, options_of(manifest), found):
                names.append(name)
        except ManifestError:  # one of the user's that is of no use here
            continue
    return names


def _fits_all(manifest: Manifest, options: LerobotOptions, infos: Sequence[Info]) -> bool:
    if not (options.cameras and options.variants()):
        return False
    for info in infos:
        try:
            fit(info, options.cameras, options.variants())
        except UsageError:
            return False
        if not (rate_agrees(info.fps, manifest, options) and _robot_agrees(info.robot, options.robots)):
            return False
    return True


def _robot_agrees(robot: str, known: Sequence[str]) -> bool:
    """Whether robot_type begins with one of the names in any spelling, or says nothing."""
    return not known or _plain(robot) in _NO_ROBOT or _plain(robot).startswith(tuple(known))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def contradiction(manifest: Manifest, places: Sequence[DatasetFolder]) -> str | None:
    """Why a manifest is not taken for these datasets though features, rate and robot fit; None where it is.

    Reads the numbers of up to five episodes of each dataset.
    """
    return broken_promise(manifest, places) or _first(_unproven, manifest, places)


def broken_promise(manifest: Manifest, places: Sequence[DatasetFolder]) -> str | None:
    """Why the numbers of these datasets are not what a manifest promises; None where they are, or cannot be read."""
    return _first(_first_problem, manifest, places)


type _Check = Callable[[Manifest, DatasetFolder, Dataset, Fit], str | None]


def _first(check: _Check, manifest: Manifest, places: Sequence[DatasetFolder]) -> str | None:
    options = options_of(manifest)
    for place in places:
        try:
            dataset = load_dataset(place.folder)
            mapping = fit(dataset.info, options.cameras, options.variants())
        except UsageError:
            continue
        problem = check(manifest, place, dataset, mapping)
        if problem:
            return problem
    return None


def _unproven(manifest: Manifest, place: DatasetFolder, dataset: Dataset, mapping: Fit) -> str | None:
    reason = _unnamed(manifest, dataset, mapping) or _overruled(manifest, place, dataset, mapping)
    return f"{reason}; add --manifest {manifest.name} if these are its recordings" if reason else None


def _unnamed(manifest: Manifest, dataset: Dataset, mapping: Fit) -> str | None:
    """Columns found by position alone, in a set that names neither them nor the robot; numbers can tell for some."""
    keys = {part.key for part in mapping.state}
    if mapping.found_by != "position" or len(keys) > 1 or _plain(dataset.info.robot) not in _NO_ROBOT:
        return None
    if options_of(manifest).robotwin_rows or not options_of(manifest).robots or _tells(mapping):
        return None
    return "neither the robot nor its columns are named, so that only shapes and the rate fit"


def _tells(mapping: Fit) -> bool:
    """Whether numbers alone can show that a dataset is not of this layout, see `converters.lerobot.domain`."""
    return "finger_1" in mapping.state_names


def _overruled(manifest: Manifest, place: DatasetFolder, dataset: Dataset, mapping: Fit) -> str | None:
    """A rate label that the manifest overrules, in a set that does not say it is of this benchmark."""
    label, hz = dataset.info.fps, manifest.fps.hz
    rate = true_rate(place.folder, dataset.info) or label
    if abs(rate - hz) <= OVERRULED * hz or _tells(mapping):
        return None
    origin = hub.provenance(place.folder)
    names = (dataset.info.robot, *(origin or ())[:1], place.folder.name, *place.relative.split("/"))
    mark = manifest.name.rpartition("-")[2]
    if any(mark in _plain(name) for name in names):
        return None
    return (
        f"meta/info.json says {label:g} fps, which it would store as {hz:g}, and neither the robot's nor the dataset's "
        f"name says {mark!r}"
    )


def _first_problem(manifest: Manifest, place: DatasetFolder, dataset: Dataset, mapping: Fit) -> str | None:
    for entry in list(dataset.episodes.values())[:SCANNED_EPISODES]:
        try:
            rows = read_rows(dataset.span(entry), dataset.info, mapping)
        except BadEpisode:
            continue
        problem = breach(rows.state, rows.action, (mapping.state_names, mapping.action_names))
        if problem is None and options_of(manifest).robotwin_rows:
            problem = not_robotwin(rows.state, rows.action, mapping.state_names)
        if problem:
            return f"{place.place(entry.data_file)}: {problem}"
    return None


def not_robotwin(state: Floats, action: Floats, names: Sequence[str]) -> str | None:
    """Why rows break RoboTwin's rule: an action is the next row's state, grippers are 0 .. 1."""
    apart = np.abs(action[:-1] - state[1:]) > 1e-4
    if apart.any():
        row = int(apart.any(axis=1).argmax())
        return f"the action of row {row} is not the state of row {row + 1}, as in RoboTwin's sets"
    grippers = state[:, [i for i, name in enumerate(names) if name.endswith("gripper")]]
    if grippers.min(initial=0) < -0.01 or grippers.max(initial=0) > 1.01:
        return f"grippers reach {grippers.min():.4g} .. {grippers.max():.4g}, RoboTwin's are 0 .. 1"
    return None
