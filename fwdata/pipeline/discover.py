"""Looking for recordings, in a worker process or in this one: a damaged file costs itself, and never the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fwdata.api import Discovery, wanting
from fwdata.errors import BadEpisode, UsageError
from fwdata.manifest import Manifest
from fwdata.pipeline.guarded_open import Watch, watched
from fwdata.pipeline.other_source import with_other_source
from fwdata.pipeline.pick import is_picked, names_asked, pick_recordings
from fwdata.pipeline.registry import chooser, load_converter
from fwdata.pipeline.request import EPISODE_SECONDS, ConvertRequest
from fwdata.pipeline.roots import CombinedDiscovery, Root, discover, name_roots, together
from fwdata.pipeline.workers import LeftOut, Link, RetryThenLeaveOut, Task, WorkerPool
from fwdata.wording import verb

type Names = tuple[tuple[str, ...], tuple[str, ...]]
"""Recordings that are left out, and those that are taken alone."""

NOT_NAMED = frozenset({"", "unknown"})
"""Names of no robot."""

WALK = 12
"""Walking through a root may take this many times the seconds of one file: an hour by default."""


def find_recordings(request: ConvertRequest, pool: WorkerPool) -> CombinedDiscovery:
    """What the roots hold; see `Converter.discover`.

    UsageError when one is absent, when the converter says so, and when the recordings are of several robots. A file
    inside whose `opening` two workers end is skipped with the reason; FwdataError where they end outside of one.
    """
    roots = name_roots(request.roots)
    names = names_asked(request)
    tasks: list[Task] = [(request, root, names, {}) for root in roots]
    found = dict(pool.run(_discover, tasks, lambda: None, _losses(lambda task: str(task[1].path))))
    every = together([(root, found[root]) for root in roots])
    ids = Counter(recording.id for recording in every.recordings)
    double = [name for name, count in ids.items() if count > 1]
    if double:
        raise UsageError(f"converter {request.source!r} gave two recordings the id {double[0]!r}; ids must be unique")
    every = pick_recordings(request, every)
    _check_robots(request, every)
    return replace(every, warnings=(*every.warnings, *_of_no_robot(every)))


def _check_robots(request: ConvertRequest, found: CombinedDiscovery) -> None:
    """UsageError when the recordings are of several robots."""
    robots = Counter(recording.ref.embodiment or "unknown" for recording in found.recordings)
    del robots["unknown"]
    if len(robots) > 1:
        listed = ", ".join(f"{name} ({robots[name]})" for name in sorted(robots))
        raise UsageError(
            f"{request.where()}: the recordings are of several embodiments, {listed}, which must not share statistics; "
            "convert each to a store of its own, from its folders alone; one robot under several names is named by "
            "--embodiment"
        )


def _of_no_robot(found: CombinedDiscovery) -> list[str]:
    """What to say of recordings that do not name their robot beside others that do."""
    named = {recording.ref.embodiment for recording in found.recordings} - NOT_NAMED
    others = [recording for recording in found.recordings if recording.ref.embodiment in NOT_NAMED]
    if not named or not others:
        return []
    groups = ", ".join(list(dict.fromkeys(recording.group for recording in others))[:2])
    return [
        f"{len(others)} of {len(found.recordings)} recordings {verb(len(others), 'does', 'do')} not name "
        f"their robot ({groups}), the others are of "
        f"{named.pop()}, with which they share statistics: convert them apart if they are of another, or say "
        "--embodiment"
    ]


def choose_manifest(source: str, roots: Sequence[Path], options: Mapping[str, Any], pool: WorkerPool) -> Manifest:
    """The manifest that a converter chooses for these roots."""
    task: Task = (source, tuple(roots), dict(options), {})
    chosen: Manifest
    [chosen] = pool.run(_choose, [task], lambda: None, _losses(lambda task: ", ".join(map(str, task[1]))))
    return chosen


def _losses(where: Callable[[Task], str]) -> RetryThenLeaveOut:
    return RetryThenLeaveOut(
        lambda task: f"looking for recordings below {where(task)}",
        "convert its folders one by one to learn which of them does it",
        "opening this file",
    )


def _discover(
    request: ConvertRequest, root: Root, names: Names, left_out: LeftOut, *, link: Link
) -> tuple[Root, Discovery]:
    wanted = partial(is_picked, root, *names) if any(names) else None
    with watched(_watch(request.episode_seconds, left_out, link)), wanting(wanted):
        find = partial(discover, root, load_converter(request.manifest))
        return root, with_other_source(find, request.source, root.path)


def _choose(
    source: str, roots: tuple[Path, ...], options: Mapping[str, Any], left_out: LeftOut, *, link: Link
) -> Manifest:
    choose = chooser(source)
    assert choose is not None
    with watched(_watch(EPISODE_SECONDS, left_out, link)):
        return with_other_source(partial(choose, roots, options), source, roots[0])


def _watch(seconds: float, left_out: LeftOut, link: Link) -> Watch:
    """Announces every file that is opened, and the walk between them; refuses those that are left out."""

    def watch(path: Path | None) -> None:
        if path is None:
            link.announce(None, WALK * seconds)
        elif str(path) in left_out:
            raise BadEpisode(f"{path.name} is left out: {left_out[str(path)]}")
        else:
            link.announce(str(path), seconds)

    watch(None)
    return watch
