"""One `fwdata convert` call, and its default bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fwdata.manifest import Manifest
from fwdata.pipeline.units import ALONE, Spread

if TYPE_CHECKING:
    from fwdata.pipeline.evidence import EvidenceGate

EPISODE_SECONDS = 300.0
SECONDS_PER_MB = 20.0
"""How long one recording may take by default: so many seconds, and so many more per MB of its source."""

WORKER_MEMORY = 4 << 30
"""Bytes a worker may allocate by default; conversions stream, and stay below 700 MB."""


@dataclass(frozen=True)
class ConvertRequest:
    """One `fwdata convert` call."""

    source: str
    """Converter name."""
    roots: tuple[Path, ...]
    """Folders (or files) of recordings."""
    out: Path
    """The store."""
    manifest: Manifest
    """With options applied."""
    workers: int = 1
    """Processes that read recordings, each supervised; 0 reads in this process, where a decoder that crashes ends the
    run."""
    on_error: str = "skip"
    """"skip" quarantines bad recordings and goes on, "fail" stops at the first."""
    episode_seconds: float = EPISODE_SECONDS
    """Time one recording may take, besides SECONDS_PER_MB of its size."""
    memory: int | None = WORKER_MEMORY
    """Bytes a worker may allocate (Linux), None for no bound. A recording that costs two workers their life is
    quarantined."""
    part_episodes: int | None = None
    """Most recordings of a part, the unit that one worker does; None for PART_EPISODES."""
    retry: bool = False
    """Try recordings that an earlier run left out again."""
    update: bool = False
    """Convert again the recordings whose files changed, and all that an older version of the converter made."""
    replace_all: bool = False
    """Also where all recordings differ and nothing shows that they are of the collection that the store was made of."""
    exclude: tuple[str, ...] = ()
    """Recordings to leave out, by id, source, file or a pattern of one of them."""
    only: tuple[str, ...] = ()
    """The recordings to take alone, named in the same way; () for all."""
    evidence: bool = True
    """Measure conventions, and stop where the data contradict a decision."""
    accept: Mapping[str, str] = field(default_factory=dict)
    """Detector -> why what was decided is kept though the data contradict it."""
    gate: EvidenceGate | None = None
    """What the first recordings showed, for workers; set by `convert`."""
    spread: Spread = ALONE
    """Which parts are converted here, and by what."""
    named: bool = True
    """The manifest was chosen by the caller. False: a default, whose view a store made with another manifest does not
    take."""

    def where(self) -> str:
        """The roots, for messages."""
        return str(self.roots[0]) + (f" and {len(self.roots) - 1} more" if len(self.roots) > 1 else "")
