"""A store's text cache as upstream's files, which its training reads where its own script cannot make them.

Source: see `fwdata.encode.text.official_cache`. Upstream's precompute_text_embeds.py reads meta/tasks.jsonl alone,
which LeRobot v3.0 datasets do not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fwdata.encode.tensor_files import save_torch
from fwdata.encode.text.official_cache import ENCODER, file_name, official_file
from fwdata.errors import UsageError, quoted
from fwdata.io import whole_file
from fwdata.store.reader import Store


@dataclass(frozen=True)
class OfficialTextReport:
    """What was written."""

    folder: Path
    """Where the files are."""
    prompts: int
    """Prompts of the cache, each with a file now."""
    written: int
    """Files made by this call; the others were there."""


def export_official_text(store: Store, folder: Path, name: str | None = None) -> OfficialTextReport:
    """Write a file for every prompt of the text cache called `name` (None: the only or default one).

    Files that are there are kept: caches of several stores share one folder, as upstream's do. Raises UsageError for a
    cache of another encoder, which upstream would take for its own, and StoreError for an absent one.
    """
    cache = store.text(name)
    made_by = cache.identity["encoder"].get("name")
    if made_by != ENCODER:
        raise UsageError(
            f"text cache {cache.name!r} was made by {made_by}, upstream's files hold {ENCODER} embeddings; "
            f"make one with fwdata encode-text {quoted(store.location)} --encoder {ENCODER}"
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for prompt in cache.prompts:
        path = folder / file_name(prompt, cache.max_tokens)
        if path.exists():
            continue
        with whole_file(path) as temporary:
            save_torch(temporary, official_file(cache.tokens(prompt), cache.max_tokens))
        written += 1
    return OfficialTextReport(folder, len(cache.prompts), written)
