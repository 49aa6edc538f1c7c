"""Finding RoboTwin recordings: duplicates, identities, and sentences about what looks wrong in a tree.

Files are only opened to compare the joints of recordings that may be the same one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from converters.robotwin import hdf5, paths
from converters.shared import archives as packed
from fwdata.api import EpisodeRef, LeftOut, Skipped, UsageError
from fwdata.errors import did_you_mean
from fwdata.wording import counted, verb


def nothing_found(root: Path, listing: paths.RecordingListing) -> str:
    """One sentence: what was searched for, what lay there instead, what to do."""
    advice = "give the folder that holds the unpacked recordings"
    if listing.others:
        advice += f", or give files such as {listing.others[0]} the names episode0.hdf5, episode1.hdf5, .."
    found = packed.instead(listing.endings, listing.archives, listing.ignored, advice)
    return f"no data/episode{{N}}.hdf5 below {root} {found}"


def stated_by_content(base: Path, recordings: Iterable[paths.RecordingFile]) -> tuple[list[paths.RecordingFile], int]:
    """The recordings, with task, embodiment and setting that their folders do not tell filled in from the path that a
    converted file says it was made from; and of how many. Opens only files whose folders leave something open."""
    found, count = [], 0
    for recording in recordings:
        place = recording.place
        if paths.UNKNOWN in (place.task, place.embodiment, place.setting):
            stated = paths.parse_folder(hdf5.source_folders(base / recording.path))
            open_task = place.task == paths.UNKNOWN or (place.task not in paths.TASKS and stated.task in paths.TASKS)
            filled = replace(
                place,
                task=stated.task if open_task else place.task,
                embodiment=stated.embodiment if place.embodiment == paths.UNKNOWN else place.embodiment,
                setting=stated.setting if place.setting == paths.UNKNOWN else place.setting,
            )
            count += filled != place
            recording = replace(recording, place=filled)
        found.append(recording)
    return found, count


def stated_otherwise(folders: Sequence[str], ref: EpisodeRef) -> list[str]:
    """A warning where the path that a converted file says it was made from contradicts where it lies now.

    folders: of that path, outermost first.
    """
    stated, unknown = paths.parse_folder(folders), {paths.UNKNOWN, "", None}
    pairs: list[tuple[str, str, object]] = [("setting", stated.setting, ref.hints["setting"])]
    pairs += [("robot", stated.embodiment, ref.embodiment)] if stated.embodiment in paths.ARM_JOINTS else []
    pairs += [("task", stated.task, ref.hints["task"])] if stated.task in paths.TASKS else []
    apart = [pair for pair in pairs if pair[1] != pair[2] and unknown.isdisjoint(pair[1:])]
    if not apart:
        return []
    theirs, ours = (" and ".join(f"{pair[0]} {pair[side]}" for pair in apart) for side in (1, 2))
    return [
        f"its attribute source_path says {theirs}, its folders or options say {ours}, which is stored; move it where "
        "it belongs, or leave it out (--exclude)"
    ]


def left_out(listing: paths.RecordingListing, chosen: int, limited: int, filtered: Sequence[str]) -> list[LeftOut]:
    """What is not taken although it is there. chosen: recordings that the options name; limited: those of them beyond
    max_episodes_per_task; filtered: the others."""
    found = list(packed.left_out(listing.archives, packed.above(r.path for r in listing.recordings)))
    if listing.others:
        reason = "HDF5 files that are not called episode{N}.hdf5"
        found.append(LeftOut(reason, len(listing.others), listing.others[:2]))
    if filtered:
        reason = "recordings that the options tasks, settings and embodiment do not name"
        found.append(LeftOut(reason, len(filtered), tuple(filtered[:2]), asked=True, names=tuple(filtered)))
    if limited:
        found.append(LeftOut("recordings beyond max_episodes_per_task of their task", limited, asked=True))
    if listing.outside_data:
        reason = "episode files outside of data folders"
        found.append(LeftOut(reason, len(listing.outside_data), listing.outside_data[:2]))
    return found


def check_embodiments(recordings: Iterable[paths.RecordingFile]) -> None:
    """Refuse several robots: their joints must not share statistics, and may not even be rows of one array."""
    found = Counter(r.place.embodiment for r in recordings)
    del found[paths.UNKNOWN]
    if len(found) > 1:
        listed = ", ".join(f"{name} ({found[name]})" for name in sorted(found))
        raise UsageError(
            f"the recordings are of several embodiments, {listed}, which must not share statistics; convert each to a "
            f"store of its own, the first with --embodiment {min(found)}"
        )


def drop_duplicates(
    base: Path, recordings: Sequence[paths.RecordingFile]
) -> tuple[list[paths.RecordingFile], tuple[Skipped, ...]]:
    """Keep one of recordings that are the same episode in two layouts: equal joint rows where the paths allow it.

    Kept is the one whose path tells more, then the first by path. Opens only files of equal task and index.
    """
    groups: dict[tuple[str, int], list[paths.RecordingFile]] = {}
    for recording in recordings:
        groups.setdefault((recording.place.task, recording.index), []).append(recording)
    dropped: dict[str, str] = {}
    for group in groups.values():
        digests: dict[str, str | None] = {}
        kept: list[paths.RecordingFile] = []
        for recording in sorted(group, key=lambda r: (_unknowns(r.place), r.path)):
            for other in kept:
                if not _compatible(recording.place, other.place):
                    continue
                for path in (recording.path, other.path):
                    if path not in digests:
                        digests[path] = hdf5.joint_digest(base / path)
                if digests[recording.path] is not None and digests[recording.path] == digests[other.path]:
                    dropped[recording.path] = other.path
                    break
            else:
                kept.append(recording)
    skipped = tuple(
        Skipped(path, f"the same episode as {other} (equal joint rows)", damaged=False)
        for path, other in sorted(dropped.items())
    )
    return [r for r in recordings if r.path not in dropped], skipped


def _unknowns(place: paths.FolderSetting) -> int:
    return (place.embodiment == paths.UNKNOWN) + (place.setting == paths.UNKNOWN)


def _compatible(one: paths.FolderSetting, other: paths.FolderSetting) -> bool:
    pairs = ((one.embodiment, other.embodiment), (one.setting, other.setting))
    return all(a == b or paths.UNKNOWN in (a, b) for a, b in pairs)


def references(
    base: Path, recordings: Sequence[paths.RecordingFile], last_of: Mapping[str, int]
) -> tuple[EpisodeRef, ...]:
    """References in the given order, with unique ids and the files beside each recording.

    last_of: highest episode number of every folder.
    """
    sidecars = {folder: paths.find_sidecars(base, folder) for folder in {r.folder for r in recordings}}
    refs: list[EpisodeRef] = []
    taken: set[str] = set()
    for r in recordings:
        place, beside = r.place, sidecars[r.folder]
        group = f"{place.task}/{place.embodiment}/{place.setting}"
        name = f"{group}/episode_{r.index}"
        unique = next(i for i in (name, f"{name}@{r.folder}", f"{name}@{r.path}") if i not in taken)
        taken.add(unique)
        roles = {
            "instructions": beside.instructions.get(r.index),
            "video": beside.videos.get(r.index),
            "seeds": beside.seeds,
            "scene_info": beside.scene_info,
        }
        files = {role: path for role, path in roles.items() if path}
        hints: dict[str, str | int | float | bool] = {
            "task": place.task,
            "setting": place.setting,
            "index": r.index,
            **files,
        }
        if not beside.has_instruction_folder and last_of[r.folder] == r.index:
            hints["last_without_text"] = True
        refs.append(
            EpisodeRef(
                unique, r.path, (r.path, *files.values()), group, r.num_bytes, hints, embodiment=place.embodiment
            )
        )
    return tuple(refs)


def listing_warnings(listing: paths.RecordingListing) -> list[str]:
    """What the walk left out."""
    warnings = []
    if listing.ignored:
        warnings.append(
            f"{counted(len(listing.ignored), 'entry')} {verb(len(listing.ignored), 'was', 'were')} not followed, "
            f"the first is {listing.ignored[0]}"
        )
    return warnings


def place_warnings(recordings: Iterable[paths.RecordingFile]) -> list[str]:
    """Tasks, embodiments and settings that are unknown."""
    places = {r.place for r in recordings}
    unknown = {p.task for p in places} - paths.TASKS
    if unknown:
        from fwdata.envs.sample.tasks import TASKS  # takes time to import

        unknown -= {task.name for task in TASKS}
    warnings = [
        f"{task!r} is not one of RoboTwin's 50 tasks{did_you_mean(task, paths.TASKS)}" for task in sorted(unknown)
    ]
    if any(p.embodiment == paths.UNKNOWN for p in places):
        warnings.append("no folder names the embodiment of some recordings; option embodiment sets it")
    if any(p.setting == paths.UNKNOWN for p in places):
        warnings.append(
            "no folder tells whether some recordings are clean or randomized; option default_setting sets it"
        )
    return warnings


_FAILED = frozenset(["fail", "fails", "failed", "failure", "failures"])


def failure_warnings(recordings: Sequence[paths.RecordingFile]) -> list[str]:
    """Recordings in folders that are called after failures."""
    found = [r.path for r in recordings if not _FAILED.isdisjoint(r.path.lower().split("/")[:-1])]
    if not found:
        return []
    return [
        f"{counted(len(found), 'recording')} {verb(len(found), 'lies', 'lie')} in folders named as failed, "
        f"the first is {found[0]}; --exclude leaves them out"
    ]


def numbering_warnings(recordings: Iterable[paths.RecordingFile]) -> list[str]:
    """Gaps in a folder's numbering, and fewer episodes than an archive's name promises."""
    folders: dict[str, tuple[set[int], int]] = {}
    for r in recordings:
        folders.setdefault(r.folder, (set(), r.place.expected))[0].add(r.index)
    warnings = []
    for folder, (indices, expected) in sorted(folders.items()):
        absent = max(indices) + 1 - len(indices)
        if absent:
            first = itertools.islice((i for i in itertools.count() if i not in indices), min(absent, 5))
            listed = ", ".join(map(str, first)) + (", .." if absent > 5 else "")
            warnings.append(
                f"{folder}: {counted(absent, 'episode number')} {verb(absent, 'is', 'are')} absent ({listed}); the "
                "others keep their numbers"
            )
        if len(indices) < expected:
            warnings.append(
                f"{folder}: {counted(len(indices), 'episode')} found, {expected} expected from the folder's name"
            )
    return warnings
