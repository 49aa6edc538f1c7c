"""Symbolic links in folders of recordings: followed to files inside, never out of the folder.

A snapshot in the hub's cache links to the files of its dataset, which lie beside it in the cache; these are followed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

SNAPSHOT = re.compile(r"datasets--(?P<owner>.+?)--(?P<name>.+)")
"""Folder of one dataset in the hub's cache; its `snapshots/COMMIT` hold links to its `blobs`."""


def odd_name(name: str) -> str | None:
    """Why a file or folder of this name is left out; None where nothing is wrong with it.

    Names become ids, of which lists hold one on a line and stores hold UTF-8.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "its name is not UTF-8; rename it"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "its name holds a control character, such as a line break; rename it"
    return None


def shown_name(name: str) -> str:
    """A path as messages quote it: on one line, in UTF-8."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def leads_inside(path: str | os.PathLike[str], *folders: Path) -> bool:
    """Whether a path leads into one of the (resolved) folders; False for a loop of links."""
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError):  # RuntimeError: a loop, until Python 3.13
        return False
    return any(target.is_relative_to(folder) for folder in folders)


def store_of(folder: Path) -> Path | None:
    """The hub's cache of one dataset, to whose files a snapshot of it links; None for folders outside of such a cache.

    The folder may be a link to the snapshot, and the cache may have another name: `blobs` beside `snapshots` tell it.
    """
    for start in (folder.absolute(), folder.resolve()):
        for place in (start, *start.parents):
            cache = place.parent.parent
            if place.parent.name == "snapshots" and (SNAPSHOT.fullmatch(cache.name) or (cache / "blobs").is_dir()):
                return cache
    return None


def not_followed(path: str, name: str) -> str:
    """Why a symbolic link is not followed, with what fetches a file that it should lead to. name: for the command."""
    place = Path(path)
    try:
        if place.exists():
            return LINK
        target = str(place.readlink())
    except (OSError, RuntimeError):  # a loop
        return LINK
    if "annex/objects/" in target:
        return f"{ANNEX} to content that is not here; fetch it: git annex get '{name}'"
    return "a link to a file that is not here; download or copy it again"


LINK, ANNEX = "a symbolic link", "a link of git-annex"


def is_file_inside(path: str | os.PathLike[str], folder: Path) -> bool:
    """Whether a link leads to a file inside the (resolved) folder, or from a snapshot in the hub's cache into the cache
    of the same dataset; False for a loop of links, pipes and devices."""
    store = store_of(folder)
    return leads_inside(path, folder, *([] if store is None else [store.resolve()])) and Path(path).is_file()
