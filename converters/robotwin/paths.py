"""RoboTwin 2.0 on disk: which files are recordings, and what their folders say about them.

Nothing is opened here. Folder orders, as the collectors and the released archives write them:

    <task>/<config>/data/episode{N}.hdf5                          classic, self-collected
    <task>/<embodiment>_<clean|randomized>_<count>/data/...       classic, released archives
    <config>/<task>/<embodiment>/data/episode_{N:07d}.hdf5        v1.0, self-collected
    <task>/aloha_agilex/data/episode_{N:07d}.hdf5                 v1.0, released archives
    data/<task>/episode{N}.hdf5, instructions/<task>/..           regrouped by third parties
    <task>/episode{N}.hdf5, instructions/<task>/..                the same without data
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converters.shared.archives import instead_of_root, is_set_aside
from converters.shared.links import is_file_inside, leads_inside, not_followed, odd_name, shown_name, store_of
from fwdata.errors import UsageError

type Setting = Literal["clean", "randomized", "unknown"]

UNKNOWN: Literal["unknown"] = "unknown"

TASKS = frozenset(
    """adjust_bottle beat_block_hammer blocks_ranking_rgb blocks_ranking_size click_alarmclock click_bell
    dump_bin_bigbin grab_roller handover_block handover_mic hanging_mug lift_pot move_can_pot move_pillbottle_pad
    move_playingcard_away move_stapler_pad open_laptop open_microwave pick_diverse_bottles pick_dual_bottles
    place_a2b_left place_a2b_right place_bread_basket place_bread_skillet place_burger_fries place_can_basket
    place_cans_plasticbox place_container_plate place_dual_shoes place_empty_cup place_fan place_mouse_pad
    place_object_basket place_object_scale place_object_stand place_phone_stand place_shoe press_stapler
    put_bottles_dustbin put_object_cabinet rotate_qrcode scan_object shake_bottle shake_bottle_horizontally
    stack_blocks_three stack_blocks_two stack_bowls_three stack_bowls_two stamp_seal turn_switch""".split()  # noqa: SIM905 (fifty lines otherwise)
)
"""The 50 tasks of RoboTwin 2.0 (its description/task_instruction)."""

ARM_JOINTS = {"aloha-agilex": 6, "arx-x5": 6, "franka-panda": 7, "piper": 6, "ur5-wsg": 6}
"""Joints of one arm for every canonical embodiment name."""

_SPELLINGS = {
    **{re.sub(r"\W", "_", name): name for name in ARM_JOINTS},
    "aloha": "aloha-agilex",
    "franka": "franka-panda",
    "ur5": "ur5-wsg",
}
_TWICE = re.compile(r"(.+)_\1")
_EPISODE = re.compile(r"episode_?([0-9]{1,9})\.(?:hdf5|h5)")
_SIDECAR = re.compile(r"episode_?([0-9]{1,9})\.(?:json|mp4)")
_ARCHIVE = re.compile(r"(?P<embodiment>.+?)_(?P<setting>clean|randomized)_(?P<count>[0-9]{1,7})")
_CONFIG = re.compile(r"demo(?:_(?P<setting>clean|randomized))?(?:_.*)?|(?P<bare>clean|randomized)")
_DATA_FOLDERS = ("data", "hdf5", "h5")
_NO_RECORDINGS = frozenset({"_traj_data", "video", "instruction", "instructions", "__MACOSX"})
_LEVELS = 4


@dataclass(frozen=True)
class FolderSetting:
    """What a folder says about the recordings in it."""

    task: str
    """Name of the task."""
    embodiment: str
    """Canonical name of the robot."""
    setting: Setting
    """"clean" or "randomized"; "unknown" where the path does not tell."""
    expected: int = 0
    """Number of recordings in an archive's name; 0 where it gives none."""


@dataclass(frozen=True)
class RecordingFile:
    """One recording file."""

    path: str
    """Relative to the base folder, POSIX."""
    index: int
    """Episode number in its name."""
    num_bytes: int
    """Size of the file in bytes."""
    place: FolderSetting
    """What its folder says."""

    @property
    def folder(self) -> str:
        """Its folder, relative to the base; `.` for the base itself."""
        return self.path.rpartition("/")[0] or "."


@dataclass(frozen=True)
class RecordingListing:
    """What one walk over a folder found; all paths relative to the base, POSIX."""

    recordings: tuple[RecordingFile, ...]
    """Recordings in path order."""
    ignored: tuple[str, ...]
    """What was not entered, with the reason."""
    outside_data: tuple[str, ...]
    """Files named like recordings outside of `data` folders, where others lie in one; they are left out."""
    endings: Counter[str]
    """Number of other files by ending."""
    archives: tuple[str, ...] = ()
    """Zip and tar files among the files, and unfinished downloads."""
    others: tuple[str, ...] = ()
    """HDF5 files that are not named as recordings are."""


@dataclass(frozen=True)
class Sidecars:
    """Files beside a `data` folder, relative to the base, POSIX."""

    instructions: dict[int, str]
    """Instruction file by episode index."""
    videos: dict[int, str]
    """Preview video by episode index."""
    seeds: str | None
    """The file of scene seeds; None where there is none."""
    scene_info: str | None
    """The scene description; None where there is none."""
    has_instruction_folder: bool
    """Whether there is a folder of instruction files at all."""


def canonical_embodiment(name: str) -> str:
    """The canonical name for any spelling (`ARX-X5`, `arx_x5`, `franka`); other names come back as they are.

    Two arms of one kind may be named twice (`ur5_wsg_ur5_wsg`, `piper+piper`), as RoboTwin's collect_data.py does.
    """
    plain = re.sub(r"\W", "_", name.strip().lower())
    twice = _TWICE.fullmatch(plain)
    if plain not in _SPELLINGS and twice is not None:
        return _SPELLINGS.get(twice[1], twice[1])
    return _SPELLINGS.get(plain, name.strip())


def episode_index(name: str) -> int | None:
    """The number in `episode{N}`, `episode_{N}` or `episode_{N:07d}` with `.hdf5` or `.h5`; None for other files."""
    match = _EPISODE.fullmatch(name)
    return int(match[1]) if match else None


def parse_folder(names: Sequence[str]) -> FolderSetting:
    """Task, embodiment and setting from the folder names that lead to a recording, outermost first.

    The lowest folder that tells something wins; a known task name beats an unknown one. What nothing tells is
    "unknown".
    """
    collapsed = [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]  # X/X/data after unpacking
    collapsed = [name for name in collapsed if name != "data"]
    task = other = embodiment = below_task = None
    setting: str | None = None
    expected = 0
    for name in reversed(collapsed[-_LEVELS:]):
        archive, config = _ARCHIVE.fullmatch(name), _CONFIG.fullmatch(name)
        if config:
            setting = setting or config["setting"] or config["bare"]
            if task and below_task:  # <config>/<task>/<an embodiment of an unknown name>
                embodiment = embodiment or (canonical_embodiment(below_task) if below_task else None)
        elif archive:
            if setting is None and embodiment is None:
                expected = int(archive["count"])
            setting = setting or archive["setting"]
            embodiment = embodiment or canonical_embodiment(archive["embodiment"])
        elif canonical_embodiment(name) in ARM_JOINTS:
            embodiment = embodiment or canonical_embodiment(name)
        elif task is None and name in TASKS:
            task, below_task = name, other
        elif task is None:
            other = other or name
    known = next((s for s in ("clean", "randomized") if s == setting), UNKNOWN)
    return FolderSetting(task or other or UNKNOWN, embodiment or UNKNOWN, known, expected)


def base_folder(root: Path) -> Path:
    """The folder that paths are relative to: the root, or its parent where the root is one recording."""
    return root.parent if root.is_file() else root


def list_recordings(root: Path) -> RecordingListing:
    """Walk `root` (a folder of any level, or one recording) once; opens no file.

    Symbolic links to folders, and to files outside the root, are not followed but listed. Files below `data` folders
    and in the root itself are recordings; only where there are none, `episode{N}` files of other folders are taken.
    Raises UsageError when the root does not exist or is a file of another name. Cost: about 1 s for 100,000 files.
    """
    if not root.exists():
        raise UsageError(f"there is no {root}; give the folder that RoboTwin recordings were unpacked to")
    if root.is_file() and episode_index(root.name) is None:
        what = f"{root} is no RoboTwin recording: expected a folder, or a file named episode{{N}}.hdf5"
        raise UsageError(instead_of_root(root) or what)
    walk = _Walk(root)
    inside = [r for r in walk.found if "/" not in r.path or "data" in r.path.split("/")[:-1]]
    outside = {r.path for r in walk.found} - {r.path for r in inside} if inside else set[str]()
    ordered = sorted(inside or walk.found, key=lambda r: r.path)
    ignored, archives = tuple(sorted(walk.ignored)), tuple(sorted(walk.archives))
    return RecordingListing(
        tuple(ordered), ignored, tuple(sorted(outside)), walk.endings, archives, tuple(sorted(walk.others))
    )


class _Walk:
    """State of one directory walk."""

    def __init__(self, root: Path) -> None:
        self.found: list[RecordingFile] = []
        self.ignored: list[str] = []
        self.archives: list[str] = []
        self.others: list[str] = []
        self.endings: Counter[str] = Counter()
        self.real = root.resolve()
        if root.is_file():
            size, place = root.stat().st_size, parse_folder(self.real.parent.parts[1:])
            self.found.append(RecordingFile(root.name, episode_index(root.name) or 0, size, place))
        else:
            self._folder(str(root), "", self.real.parts[1:])

    def _folder(self, path: str, relative: str, names: tuple[str, ...]) -> None:
        place: FolderSetting | None = None
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            self.ignored.append(f"{relative or '.'} ({error.strerror})")
            return
        for entry in entries:
            if entry.name.startswith("."):  # hidden, .cache, ._* of macOS
                continue
            if (odd := odd_name(entry.name)) is not None:
                self.ignored.append(f"{relative}{shown_name(entry.name)} ({odd})")
            elif entry.is_symlink() and not is_file_inside(entry.path, self.real):
                self.ignored.append(f"{relative}{entry.name} ({not_followed(entry.path, relative + entry.name)})")
            elif entry.is_dir(follow_symlinks=False):
                if entry.name not in _NO_RECORDINGS:
                    self._folder(entry.path, f"{relative}{entry.name}/", (*names, entry.name))
            elif entry.is_file():
                self.endings[os.path.splitext(entry.name)[1] or "no ending"] += 1  # noqa: PTH122 (27,500 files)
                self.archives += [relative + entry.name] if is_set_aside(entry.name) else []
                index = episode_index(entry.name)
                if index is not None:
                    place = place or parse_folder(names)
                    self.found.append(RecordingFile(relative + entry.name, index, entry.stat().st_size, place))
                elif entry.name.lower().endswith((".hdf5", ".h5")):
                    self.others.append(relative + entry.name)
            else:
                self.ignored.append(f"{relative}{entry.name} (neither a file nor a folder)")


def find_sidecars(base: Path, folder: str) -> Sidecars:
    """Files that belong to the recordings of `base/folder`: beside `data` (or `hdf5`), one level up in an `X/X/data`
    tree, in `instructions/<task>` for recordings in `data/<task>` or `<task>`, or, where there are none, among the
    recordings themselves.

    Paths may start with `../` where the base is the `data` folder itself. Links that lead out of both the base and
    the folder that holds `data` are left out.
    """
    home = (base / folder).resolve()
    prefix = "" if folder == "." else f"{folder}/"
    among = home, prefix
    if home.name in _DATA_FOLDERS:
        home, prefix = home.parent, f"{prefix}../" if folder == "." else folder[: -len(home.name)]
    places = [(home, prefix)]
    if home.parent.name == home.name:
        places.append((home.parent, posixpath.normpath(f"{prefix}..") + "/"))
    store = store_of(home)
    limits = (base.resolve(), places[-1][0], *([] if store is None else [store.resolve()]))
    instructions: dict[int, str] = {}
    videos: dict[int, str] = {}
    single: dict[str, str] = {}
    has_folder = False
    for name, target in (("instruction", instructions), ("instructions", instructions), ("video", videos)):
        for place, start in _mirrored(home, folder, name):
            has_folder |= target is instructions
            target.update(_numbered(place, start, (*limits, place)))
    for place, start in reversed(places):  # the nearer one wins
        for name, target in (("instruction", instructions), ("instructions", instructions), ("video", videos)):
            if (place / name).is_dir():
                has_folder |= target is instructions
                target.update(_numbered(place / name, f"{start}{name}/", limits))
        for name in ("seed.txt", "scene_info.json"):
            if leads_inside(place / name, *limits) and (place / name).is_file():
                single[name] = start + name
    for ending, target in ((".json", instructions), (".mp4", videos)):
        if not target:
            target.update(_numbered(*among, limits, ending))
    has_folder |= bool(instructions)
    return Sidecars(instructions, videos, single.get("seed.txt"), single.get("scene_info.json"), has_folder)


def texts_of_all(base: Path, folder: str) -> str | None:
    """The first JSON file that may hold the text of every recording of `base/folder`, relative to the base:
    `instructions/<task>.json` or `instructions.json`. None of them is read: which text is whose is not told."""
    home = (base / folder).resolve()
    for place in (home, *home.parents[: _LEVELS - 1]):
        for name in ("instructions", "instruction"):
            for path in (place / f"{name}.json", *(place / name / f"{part}.json" for part in home.parts[-_LEVELS:])):
                if path.is_file():
                    return os.path.relpath(path, base.resolve())
    return None


def _mirrored(home: Path, folder: str, name: str) -> list[tuple[Path, str]]:
    """`A/instructions/B` for recordings in `A/data/B` or `A/B`, with its path relative to the base; none where it is
    absent."""
    found = []
    for levels, above in enumerate(home.parents[: _LEVELS - 1], start=1):
        tail = home.parts[-levels:]
        if "data" in tail:
            continue
        home_of, up = (above.parent, levels + 1) if above.name == "data" else (above, levels)
        place = home_of.joinpath(name, *tail)
        if place.is_dir() and not place.is_symlink():
            found.append((place, posixpath.normpath(posixpath.join(folder, *[".."] * up, name, *tail)) + "/"))
    return found


def _numbered(path: Path, prefix: str, limits: tuple[Path, ...], ending: str = "") -> dict[int, str]:
    if not leads_inside(path, *limits):
        return {}
    files: dict[int, str] = {}
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            match = _SIDECAR.fullmatch(entry.name) if entry.name.endswith(ending) else None
            if match and (not entry.is_symlink() or leads_inside(entry.path, *limits)) and entry.is_file():
                files[int(match[1])] = prefix + entry.name
    return files
