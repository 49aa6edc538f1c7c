"""Whether recordings that differ from those of a store are a newer version of them, or another collection.

Datasets of one format name their recordings alike (`episode_000000`), so that another dataset looks like one in which
every recording changed. What tells them apart: a recording that did not change, the folder, the dataset's name on the
hub, and numbers that stayed the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fwdata.api import Episode, Json
from fwdata.errors import UsageError
from fwdata.pipeline.changes import ChangedRecording, SourceCheck
from fwdata.pipeline.evidence import spread
from fwdata.pipeline.part import Unreadable, use_recording
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import CombinedDiscovery, Root, RootedRecording
from fwdata.pipeline.workers import LeftOut, Link, RetryThenLeaveOut, Task, WorkerPool
from fwdata.store.files import LocalFiles
from fwdata.store.metadata import read_root
from fwdata.store.reader import Store, open_store
from fwdata.store.sources import place_of, read_sources

COMPARED = 8
"""Most recordings whose numbers are compared with those of the store."""

type Rows = tuple[NDArray[np.float32], NDArray[np.float32]]
"""State [T, Ds] and action [T, Da] of one episode."""


def check_collection(
    request: ConvertRequest, found: CombinedDiscovery, check: SourceCheck, pool: WorkerPool, *, grows: bool
) -> None:
    """UsageError when a store would take recordings of another collection for changed ones of its own.

    grows: whether recordings that are new would be added. Nothing is written. Cost: nothing, unless all recordings
    changed and the folder is another one; then up to COMPARED recordings are read without their images.
    """
    if not check.changed or check.same or request.replace_all or not (request.update or grows):
        return
    by_id = {recording.id: recording for recording in found.recordings}
    store = open_store(request.out)
    if _same_folder(request, found, check.changed, by_id) or _same_origin(request, found):
        return
    compared, alike = _alike(request, store, check.changed, by_id, pool)
    if alike and 2 * alike >= compared:
        return
    what = "replace them" if request.update else "add others to them"
    raise UsageError(
        f"{request.where()} holds other recordings under the names of those in {request.out}: none of "
        f"{len(check.changed)} is as it was converted (such as {check.changed[0].source}), {alike} of {compared} that "
        "were read hold the store's numbers, and it is not the folder they were converted from; nothing was changed. "
        "Convert them to another --out; where they are a newer version of the same recordings, "
        f"--replace-all lets this command {what}"
    )


def _same_folder(
    request: ConvertRequest,
    found: CombinedDiscovery,
    changed: Sequence[ChangedRecording],
    by_id: dict[str, RootedRecording],
) -> bool:
    """Whether the roots are where they were; by their names where a store of an earlier release tells no more."""
    files = LocalFiles(request.out)
    places: dict[str, Root] = {item.part: by_id[item.id].root for item in changed}
    recorded = {part: read_sources(files, part).place for part in places}
    if any(recorded.values()):
        return any(recorded[part] == place_of(root.path) for part, root in places.items())
    root = read_root(files)
    return root is not None and bool(root.roots) and list(root.roots) == [one.name for one in found.roots]


def _same_origin(request: ConvertRequest, found: CombinedDiscovery) -> bool:
    """Whether both are revisions of the same datasets of a hub, as far as the converter's decisions say."""
    root = read_root(LocalFiles(request.out))
    before = set(_origins(root.decisions.to_json())) if root else set[str]()
    return bool(before & set(_origins(found.decisions)))


def _origins(decisions: Json) -> Iterator[str]:
    if isinstance(decisions, dict):
        for key, value in decisions.items():
            if key == "hub_dataset" and isinstance(value, str):
                yield value
            yield from _origins(value)


def _alike(
    request: ConvertRequest,
    store: Store,
    changed: Sequence[ChangedRecording],
    by_id: dict[str, RootedRecording],
    pool: WorkerPool,
) -> tuple[int, int]:
    """(recordings compared, those whose state or action is, in half of its columns, that of the store)."""
    stored = {episode.id: episode for episode in store.episodes}
    chosen = spread([by_id[item.id] for item in changed if item.id in stored], COMPARED)
    tasks: list[Task] = [(request, r, (stored[r.id].state(), stored[r.id].action()), {}) for r in chosen]
    losses = RetryThenLeaveOut(lambda task: f"comparing {task[1].source}", "run it again", "reading this recording")
    return len(chosen), sum(pool.run(shares_numbers, tasks, lambda *_: None, losses))


def shares_numbers(
    request: ConvertRequest, recording: RootedRecording, stored: Rows, left_out: LeftOut, *, link: Link
) -> bool:
    """Whether a recording holds the numbers of the store, state or action; False where it cannot be read."""

    def use(episode: Episode) -> bool:
        return any(_shares(old, new) for old, new in zip(stored, (episode.state, episode.action), strict=True))

    found = use_recording(request, recording, use, left_out, link)
    return found is True and not isinstance(found, Unreadable)


def _shares(old: NDArray[np.float32], new: NDArray[np.float32]) -> bool:
    """Whether half of the columns that tell (more than two values: open and closed agree by chance) are in both."""
    if len(old) != len(new):
        return False
    telling = [column for column in range(old.shape[1]) if len(np.unique(old[:, column])) > 2]
    found = sum(bool((old[:, [column]] == new).all(axis=0).any()) for column in telling)
    return 0 < len(telling) <= 2 * found
