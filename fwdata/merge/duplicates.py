"""Recordings that two stores both hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from fwdata.errors import UsageError
from fwdata.store.compatibility import recording_key
from fwdata.store.episode import StoredEpisode
from fwdata.store.reader import Store


def check_duplicates(stores: Sequence[Store], allowed: bool) -> list[str]:
    """A sentence about the recordings that more than one store holds; none when there are none.

    Same means the same source file (sha256, and place in it), or equal state and action rows. UsageError with the
    sentence unless `allowed`. Cost: all state and action rows are read, about 1 ms an episode.
    """
    found = list(_duplicates(stores))
    if not found:
        return []
    earlier, later, why = found[0]
    more = f", and {len(found) - 1} more recordings" if len(found) > 1 else ""
    sentence = f"{later} is the same recording as {earlier} ({why}){more}"
    if not allowed:
        raise UsageError(f"{sentence}; merge each recording once, or keep both with --allow-duplicates")
    return [f"kept twice: {sentence}"]


def _duplicates(stores: Sequence[Store]) -> Iterator[tuple[str, str, str]]:
    """(earlier recording, later recording, what they share), across stores."""
    files: dict[str, tuple[int, str]] = {}
    rows: dict[str, tuple[int, str]] = {}
    for number, store in enumerate(stores):
        for episode in store.episodes:
            where = f"{store.location}: {episode.id}"
            in_file = files.setdefault(recording_key(episode) or where, (number, where))
            in_rows = rows.setdefault(_rows_key(episode), (number, where))
            if in_file[0] != number:
                yield in_file[1], where, "one source file"
            elif in_rows[0] != number:
                yield in_rows[1], where, "equal state and action rows"


def _rows_key(episode: StoredEpisode) -> str:
    digest = hashlib.sha256(episode.state().tobytes())
    digest.update(episode.action().tobytes())
    return digest.hexdigest()
