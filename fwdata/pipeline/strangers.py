"""Whether recordings given for a part of which nothing is left are others of the same names and sizes.

The part itself tells nothing then. Recordings of parts that are whole do: where none of some is as it was converted,
those of the lost part are others, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from fwdata.pipeline.misfits import file_misfits, recorded_part
from fwdata.pipeline.plan import PlannedPart
from fwdata.pipeline.rebuild import Survey, content_misfits
from fwdata.pipeline.roots import RootedRecording
from fwdata.pipeline.same_content import shared_files
from fwdata.store.records import FileRecord

WITNESSES = 4
"""Recordings of whole parts that are compared at most, evenly spread."""


def strangers(found: Survey) -> tuple[str, ...]:
    """A sentence for each of some recordings of whole parts, where none is as it was converted; () where one is, or
    where every lost part left something to compare. Writes nothing.

    Cost: the files of WITNESSES recordings are read once; where other recordings share all of them, a part is converted
    once into a temporary folder.
    """
    recorded = {part.name: recorded_part(found.request.out, part) for part in found.parts}
    if found.misfits or all(recorded.get(name) is not None for name in found.names):
        return ()
    shared = shared_files(found.found.recordings)
    changed: dict[str, tuple[str, ...]] = {}
    own: list[str] = []
    for part, recording, files in _spread(list(_of_whole_parts(found))):
        differ = list(file_misfits(part, recording, files))
        if not differ:
            return ()
        own += [item.text for item in differ if item.file not in shared]
        changed.setdefault(part.name, tuple(dict.fromkeys(item.file for item in differ)))
    if own or not changed:
        return tuple(own)
    first = next(iter(changed))
    return tuple(content_misfits(replace(found, grown={first: changed[first]})))


def _of_whole_parts(found: Survey) -> Iterator[tuple[PlannedPart, RootedRecording, Sequence[FileRecord]]]:
    """Recordings of parts that are not rebuilt, with what was recorded of their files."""
    for part in found.parts:
        recorded = None if part.name in found.names else recorded_part(found.request.out, part)
        by_id = {recording.id: recording for recording in part.recordings}
        for episode in () if recorded is None else recorded.episodes:
            if episode.id in by_id:
                yield part, by_id[episode.id], episode.files


def _spread[T](items: list[T]) -> list[T]:
    places = np.linspace(0, len(items) - 1, min(WITNESSES, len(items))).round().astype(int).tolist()
    return [items[place] for place in places]
