"""Who works on a store behind a URL: plans, leases and failures of jobs as hidden objects, for `fwdata status`.

They lie where a local store has them (`.jobs/<job>/..`) and are sent again when they were touched. Nothing depends on
them: that units may be written twice at once is settled by their marks.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fwdata.io import write_atomic
from fwdata.store.leases import JOBS, PLAN
from fwdata.store.remote import Entry, RemoteFiles

_SHOWN = re.compile(rf"{re.escape(JOBS)}/[^/.][^/]*/(?:{re.escape(PLAN)}|[^/.][^/]*\.(?:lease|failed))")


class ShownJobs:
    """Shows the jobs of a working copy behind its URL. there: keys that lie there already."""

    def __init__(self, remote: RemoteFiles, root: Path, there: Iterable[str]) -> None:
        self._remote, self._root = remote, root
        self._sent: dict[str, float] = {}
        self._plans = {key for key in there if _SHOWN.fullmatch(key) and key.endswith(f"/{PLAN}")}

    def send(self) -> None:
        """Send what is new or was touched; remove leases and failures that are gone here. Plans stay until `end`."""
        here: dict[str, float] = {}
        for path in (self._root / JOBS).glob("*/*"):
            key = path.relative_to(self._root).as_posix()
            if _SHOWN.fullmatch(key):
                with contextlib.suppress(FileNotFoundError):  # its unit ended meanwhile
                    touched = path.stat().st_mtime
                    if self._sent.get(key) != touched:
                        self._remote.write(key, path.read_bytes())
                    here[key] = touched
        self._plans |= {key for key in here if key.endswith(f"/{PLAN}")}
        self._remote.delete([key for key in self._sent if key not in here and key not in self._plans])
        self._sent = here

    def end(self, whole: Callable[[str], bool]) -> None:
        """Remove what is there of jobs whose units are all done. whole: tells it of the folder of a unit."""
        for key in sorted(self._plans):
            try:
                plan = json.loads(self._remote.read(key) or b"")
                folders = [plan["folder"].format(unit=unit["name"]) for unit in plan["units"]]
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                continue  # gone, or nothing that fwdata wrote
            if all(whole(folder) for folder in folders):
                job = key.removesuffix(f"/{PLAN}")
                self._remote.delete([found for found in self._remote.entries(job) if _SHOWN.fullmatch(found)])
                self._sent = {sent: at for sent, at in self._sent.items() if not sent.startswith(f"{job}/")}


def fetch_jobs(remote: RemoteFiles, root: Path, entries: Mapping[str, Entry]) -> None:
    """Write the jobs that are shown behind a URL to a folder, as old as they are there."""
    for key, entry in entries.items():
        if _SHOWN.fullmatch(key) and (data := remote.read(key)) is not None:
            write_atomic(root / key, data)
            os.utime(root / key, (entry.modified.timestamp(),) * 2)
