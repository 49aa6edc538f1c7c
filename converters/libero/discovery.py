"""Finding LIBERO demonstrations: their identities, and sentences about what looks wrong in a tree.

Files are opened for the names and lengths of their demonstrations and for their attributes; no row is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from converters.libero import hdf5, paths, published
from converters.libero.options import LiberoOptions
from converters.libero.outcome import names_failure, says_failed
from converters.libero.task_name import parse_task
from converters.libero.text import Preference, TaskInstruction, choose
from converters.shared import archives as packed
from converters.shared.hdf5 import group_keys, open_recording
from fwdata.api import BadEpisode, EpisodeRef, LeftOut, Skipped, UsageError
from fwdata.errors import did_you_mean
from fwdata.wording import counted, verb

if TYPE_CHECKING:
    import h5py

type Layout = str
RAW: Layout = "raw"
REGENERATED: Layout = "regenerated"

KEPT_TOLERANCE = 0.05


@dataclass(frozen=True)
class FoundDemo:
    """One demonstration."""

    name: str
    """Its group below `data`."""
    rows: int
    """Recorded rows; 0 where something is wrong with it."""
    num_bytes: int
    """Stored bytes of its actions and images."""
    other: bool = False
    """Whether its name is not `demo_<i>`."""
    failed: bool = False
    """Whether its attributes say that it did not succeed."""


@dataclass(frozen=True)
class OpenedFile:
    """One task file, opened."""

    place: paths.TaskFile
    """Where it lies."""
    attributes: hdf5.Attributes
    """What its attributes tell."""
    demos: tuple[FoundDemo, ...]
    """Its demonstrations in order of their number, those of other names last."""
    instruction: TaskInstruction | None
    """Its instruction; None where nothing tells it."""
    masks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Demonstrations of every filter in its group `mask`."""
    unread_masks: tuple[str, ...] = ()
    """Filters there that do not hold names."""

    @property
    def layout(self) -> Layout:
        """Raw files carry attributes, regenerated ones none."""
        return RAW if self.attributes.present else REGENERATED


def nothing_found(root: Path, listing: paths.Hdf5Listing) -> str:
    """One sentence: what was searched for, what lay there instead, what to do."""
    found = packed.instead(
        listing.endings, listing.archives, listing.ignored, "give the folder that holds the LIBERO suites"
    )
    return f"no <suite>/<task>_demo.hdf5 below {root} {found}"


def open_files(
    base: Path, files: Iterable[paths.TaskFile], image_keys: Sequence[str], options: LiberoOptions
) -> tuple[list[OpenedFile], tuple[Skipped, ...], list[str]]:
    """Open every file: those with demonstrations, those that cannot be read, and warnings about those without any."""
    opened: list[OpenedFile] = []
    skipped: list[Skipped] = []
    warnings: list[str] = []
    for place in files:
        try:
            with open_recording(base / place.path) as file:
                names, others = hdf5.demo_names(file), hdf5.other_names(file)
                attributes, masks = hdf5.read_attributes(file), hdf5.read_masks(file)
                failed = names_failure(place.path)
                demos = tuple(
                    FoundDemo(name, *hdf5.demo_size(file, name, image_keys), other, failed or says_failed(file, name))
                    for name, other in (*((n, False) for n in names), *((n, True) for n in others))
                )
                held = _held(file)
        except BadEpisode as error:
            skipped.append(Skipped(place.path, str(error)))
            continue
        if not demos:
            warnings.append(f"{place.path}: {held}; nothing to convert in it")
            continue
        told = _instruction(place, attributes, options.instruction)
        read = {name: members for name, members in masks.items() if members is not None}
        opened.append(OpenedFile(place, attributes, demos, told, read, tuple(sorted(masks.keys() - read.keys()))))
    return opened, tuple(skipped), warnings


def _held(file: h5py.File) -> str:
    """What a file without demonstrations holds instead."""
    outside = [name for name in group_keys(file, "") if name not in ("data", "mask") and hdf5.has_actions(file, name)]
    if outside:
        listed = ", ".join(outside[:3]) + (", .." if len(outside) > 3 else "")
        return f"its demonstrations ({listed}) lie at the root; move them into its group data (h5py: File.move)"
    if "data" not in file:
        return f"it has no group data (it holds {', '.join(group_keys(file, '')[:6]) or 'nothing'})"
    inside = ", ".join(group_keys(file, "data")[:6])
    return f"its group data holds no demonstration ({inside or 'it is empty'})"


def choose_demos(files: Sequence[OpenedFile], options: LiberoOptions) -> tuple[list[OpenedFile], list[LeftOut]]:
    """The demonstrations that the options ask for, and the others, counted by reason.

    Raises UsageError for a filter that no file has or that does not hold names, and when nothing is left.
    """
    known = {name for file in files for name in file.masks}
    for name in options.mask or ():
        unread = [file.place.path for file in files if name in file.unread_masks]
        if unread:
            raise UsageError(f"option mask: filter {name!r} of {unread[0]} does not hold names of demonstrations")
        if name not in known:
            raise UsageError(f"option mask: no file has a filter {name!r} in its group mask{did_you_mean(name, known)}")
    out: dict[tuple[str, bool], list[str]] = {}
    chosen: list[OpenedFile] = []
    for file in files:
        kept: list[FoundDemo] = []
        for demo in file.demos:
            reason = _why_not(file, demo, len(kept), options)
            if reason is None:
                kept.append(demo)
            else:
                out.setdefault(reason, []).append(f"{file.place.path}#{demo.name}")
        if kept:
            chosen.append(replace(file, demos=tuple(kept)))
    left_out = [
        LeftOut(reason, len(names), tuple(names[:2]), asked, tuple(names)) for (reason, asked), names in out.items()
    ]
    if not chosen:
        reasons = "; ".join(f"{left.count} {left.reason}, the first is {left.examples[0]}" for left in left_out)
        absent = sorted({name for file in files for name in _absent(file, options)})
        told = f"; the mask names {_first(absent)}, which its file does not have" if absent else ""
        raise UsageError(f"none of the demonstrations found is to be converted: {reasons}{told}")
    return chosen, left_out


def absent_warnings(files: Sequence[OpenedFile], options: LiberoOptions) -> list[str]:
    """One sentence on the demonstrations that the filters asked for name and their files do not have."""
    absent = [f"{file.place.path} ({_first(names)})" for file in files if (names := _absent(file, options))]
    return _about("option mask names demonstrations that its file does not have", absent)


def _absent(file: OpenedFile, options: LiberoOptions) -> list[str]:
    """What the filters asked for name that a file does not have, sorted."""
    named = {name for mask in options.mask or () for name in file.masks.get(mask, ())}
    return sorted(named - {demo.name for demo in file.demos})


def _first(names: Sequence[str]) -> str:
    """Three names at most."""
    return ", ".join(names[:3]) + (", .." if len(names) > 3 else "")


def _why_not(file: OpenedFile, demo: FoundDemo, taken: int, options: LiberoOptions) -> tuple[str, bool] | None:
    """(why a demonstration is not taken, whether an option says so); None where it is."""
    if demo.other and not options.other_demos:
        return "groups with actions whose names are not demo_N (option other_demos takes them)", False
    if demo.failed and not options.include_failed:
        return "demonstrations whose names or attributes say that they failed (option include_failed takes them)", False
    if options.mask is not None and not any(demo.name in file.masks.get(name, ()) for name in options.mask):
        return f"demonstrations outside of mask {', '.join(options.mask)}", True
    if options.max_episodes_per_task is not None and taken >= options.max_episodes_per_task:
        return f"demonstrations after the first {options.max_episodes_per_task} of their file", True
    return None


def archives(listing: paths.Hdf5Listing) -> tuple[LeftOut, ...]:
    """Zips and tars among the files."""
    return packed.left_out(listing.archives, packed.above(file.path for file in listing.files))


def _instruction(place: paths.TaskFile, attributes: hdf5.Attributes, preference: Preference) -> TaskInstruction | None:
    try:
        return choose(Path(place.path).name, attributes.problem_info, attributes.bddl, preference, place.folder)
    except BadEpisode:
        return None  # every demonstration of the file will say so when it is read


def references(files: Iterable[OpenedFile]) -> tuple[EpisodeRef, ...]:
    """References in the given order with unique ids."""
    refs: list[EpisodeRef] = []
    taken: set[str] = set()
    for file in files:
        place = file.place
        name = f"{place.folder}/{place.task}"
        parent = place.path.rpartition("/")[0] or "."
        group = next(i for i in (name, f"{name}@{parent}", f"{name}@{place.path}") if i not in taken)
        taken.add(group)
        for demo in file.demos:
            hints: dict[str, str | int | float | bool] = {
                "suite": place.suite,
                "folder": place.folder,
                "task": place.task,
                "demo": demo.name,
                "layout": file.layout,
                "frames": demo.rows,
            }
            source = f"{place.path}#{demo.name}"
            name = f"{group}/{demo.name}"
            refs.append(EpisodeRef(name, source, (place.path,), group, demo.num_bytes, hints, demo.rows))
    return tuple(refs)


def nothing_left(root: Path, skipped: Sequence[Skipped], warnings: Sequence[str]) -> UsageError:
    """The error for a root whose HDF5 files hold no demonstration."""
    reasons = [*(f"{s.source}: {s.reason}" for s in skipped), *warnings]
    more = f" (and {len(reasons) - 1} more files)" if len(reasons) > 1 else ""
    return UsageError(f"no HDF5 file below {root} holds a LIBERO demonstration: {reasons[0]}{more}")


def place_warnings(listing: paths.Hdf5Listing, files: Sequence[paths.TaskFile]) -> list[str]:
    """What the walk left out, empty suite folders, unknown suites, files in another suite's folder, and doubles."""
    warnings = []
    if listing.ignored:
        warnings.append(
            f"{counted(len(listing.ignored), 'entry')} {verb(len(listing.ignored), 'was', 'were')} not followed, "
            f"the first is {listing.ignored[0]}"
        )
    warnings += _about("suite folders without a task file", listing.empty)
    unknown = [file.path for file in files if file.suite == paths.UNKNOWN]
    warnings += _about("neither folder nor file name tells the suite", unknown)
    homes = [(file, paths.suite_of_task(_without_marks(file.task))) for file in files]
    moved = [f"{file.path} ({home})" for file, home in homes if home not in (None, file.suite)]
    warnings += _about("the folder names another suite than the one the task is from", moved)
    seen: dict[tuple[str, str], str] = {}
    doubles = []
    for file in files:
        first = seen.setdefault((file.suite, file.task), file.path)
        if first != file.path:
            doubles.append(f"{first} and {file.path}")
    warnings += _about("the same task lies there more than once, its demonstrations would count twice", doubles)
    return warnings


def _without_marks(task: str) -> str:
    """A published task without what was added to its name; others as they are."""
    name = parse_task(task)
    if not name.published or name.words is None:
        return task
    return "_".join([*([name.scene] if name.scene else []), *name.words.split()])


def _about(what: str, items: Sequence[str]) -> list[str]:
    """One sentence for any number of files."""
    if not items:
        return []
    return [f"{what}: {items[0]}" + (f" and {len(items) - 1} more" if len(items) > 1 else "")]


def _of_all(name: str, members: Sequence[str], file: OpenedFile) -> bool:
    """Whether a filter takes every demonstration of its file, so that it changes nothing whether it is used or not."""
    return name in _OF_ALL and {demo.name for demo in file.demos} <= set(members)


_OF_ALL = frozenset({"all", "train", "success", "successful", "demos"})
"""Filters that name what to take."""


def content_warnings(files: Sequence[OpenedFile], hz: float, masked: bool) -> list[str]:
    """Attributes that contradict the content, the rate or the file name, and filters that are not used.

    masked: whether option mask is set.
    """
    counts, rates, texts, named, masks, cut, marks, unreadable = [], [], [], [], [], [], [], []
    unread = [f"{file.place.path} ({', '.join(file.unread_masks)})" for file in files if file.unread_masks]
    for file in files:
        found, claimed = len(file.demos), file.attributes
        telling = {name: members for name, members in file.masks.items() if not _of_all(name, members, file)}
        if telling:
            held = ", ".join(f"{name} ({len(members)})" for name, members in sorted(telling.items()))
            masks.append(f"{file.place.path} ({held})")
        rows = sum(demo.rows for demo in file.demos)
        if claimed.num_demos not in (None, found):
            counts.append(f"{file.place.path} (num_demos {claimed.num_demos}, found {found})")
        elif claimed.total not in (None, rows):
            counts.append(f"{file.place.path} (total {claimed.total}, found {rows})")
        if claimed.control_freq not in (None, hz):
            rates.append(f"{file.place.path} ({claimed.control_freq:g} Hz)")
        told = file.instruction
        if told is not None and claimed.unread:
            unreadable.append(f"{file.place.path}; its instruction is the {told.source}'s {told.text!r}")
        if told is not None and (told.led or told.dropped):
            parts = " and ".join(part for part in (told.led, told.dropped) if part)
            named.append(f"{file.place.path} ({parts}); its instruction is the {told.source}'s {told.text!r}")
        if told is not None and told.mark is not None:
            marks.append(f"{file.place.path} ({told.mark}); its instruction is the {told.source}'s {told.text!r}")
        if told is not None and told.shortened is not None:
            cut.append(f"{file.place.path} ({told.source} {told.shortened!r}); its instruction is {told.text!r}")
        elif told is not None and told.differs:
            texts.append(f"{file.place.path} ({told.problem_info!r}); used is the {told.source}'s {told.text!r}")
    return [
        *_about("the group mask has filters that are not used (option mask takes some)", [] if masked else masks),
        *_about("the group mask has filters that are ignored, they do not hold names of demonstrations", unread),
        *_about("attributes and content disagree on the number of demonstrations or rows, the content counts", counts),
        *_about(f"recorded at another rate than the manifest's {hz:g} Hz", rates),
        *_about(
            "the file's name starts or ends in a perturbation or number, which is not part of the instruction", named
        ),
        *_about(
            "a text in the file ends in the name of a perturbation, or starts with a number, which is not taken for a "
            "part of it",
            cut,
        ),
        *_about("the text starts or ends in what may be a mark on the file alone", marks),
        *_about("problem_info has another instruction than the file name", texts),
        *_about("problem_info cannot be read, or tells no instruction", unreadable),
    ]


def count_warnings(files: Sequence[OpenedFile], found: Sequence[paths.TaskFile]) -> list[str]:
    """Suites that hold less or more than the published ones. Never an error: subsets are legitimate.

    found: every task file below the root, those without demonstrations included.
    """
    warnings = []
    for folder in dict.fromkeys(file.folder for file in found):
        suite = next(file.suite for file in found if file.folder == folder)
        if suite not in published.SUITE_TASKS:
            continue
        expected, tasks = published.SUITE_TASKS[suite], {file.task for file in found if file.folder == folder}
        if len(tasks) != expected:
            more = f"task files of {len(tasks)} names found, the suite has {expected} tasks"
            few = f"{len(tasks)} of {expected} task files found"
            warnings.append(f"{folder}: {few if len(tasks) < expected else more}")
        members = [file for file in files if file.place.folder == folder]
        odd = [
            f"{file.place.task} ({len(file.demos)})"
            for file in members
            if file.layout == RAW and len(file.demos) != published.RAW_DEMOS
        ]
        warnings += _about(f"{folder}: task files with other than {published.RAW_DEMOS} demonstrations", odd)
        kept, total = published.REGENERATED_DEMOS.get(suite), sum(len(file.demos) for file in members)
        complete = len(tasks) == expected and all(file.layout == REGENERATED for file in members)
        if kept and complete and abs(total - kept) > KEPT_TOLERANCE * kept:
            warnings.append(f"{folder}: {total} demonstrations, the published regeneration has {kept}")
    return warnings
