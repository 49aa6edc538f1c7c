"""The documents of `fwdata regenerate --json`."""

from __future__ import annotations

from typing import TypedDict

from fwdata.report.conversion import ReasonJson


class ReplayJson(TypedDict):
    """A recording whose replay was not kept."""

    task: str
    """Its task."""
    demo: str
    """Its name."""
    reason: str
    """Why, one sentence."""


class RegenerationJson(TypedDict):
    """The document of `fwdata regenerate --json`."""

    folder: str
    """Folder of the new recordings."""
    tasks: int
    """Tasks that are done."""
    demos: int
    """Recordings that were replayed."""
    kept: int
    """Those that solved their task again."""
    rows: int
    """Steps that were kept."""
    noops: int
    """Steps without motion that were left out."""
    failed: list[ReplayJson]
    """Replays that did not solve their task."""
    damaged: list[ReplayJson]
    """Recordings that cannot be used."""
    skipped: list[ReasonJson]
    """Files that were not replayed."""
    versions: dict[str, str]
    """Versions of the simulator and its libraries."""
    new_steps: int
    """Steps simulated by this run."""
    seconds: float
    """Time of this run."""


class RegenerationPlanJson(TypedDict):
    """The document of `fwdata regenerate --dry-run --json`."""

    tasks: int
    """Tasks that were found."""
    pending_tasks: int
    """Those that are still to replay."""
    demos: int
    """Recordings of these."""
    recorded: int
    """Their steps as recorded."""
    rows: int
    """Steps without those without motion."""
    bytes: int
    """At most so many bytes of images."""
    skipped: list[ReasonJson]
    """Files that are not replayed."""
