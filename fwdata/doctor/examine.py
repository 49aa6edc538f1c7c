"""Every episode examined once: its verdicts, rows, windows and columns, pooled into findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fwdata.doctor.columns import RunningStatistics, column_findings
from fwdata.doctor.conventions import Thinner, convention_findings
from fwdata.doctor.findings import DoctorFinding, listed
from fwdata.doctor.remedies import Patient
from fwdata.doctor.rows import RowFacts, row_facts, row_findings
from fwdata.doctor.windows import WindowFacts, window_facts, window_findings
from fwdata.evidence import sentences
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure, pool
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Severity
from fwdata.manifest import Manifest
from fwdata.warning_kinds import group_warnings
from fwdata.wording import counted, verb

IMAGE_EPISODES = 20
"""Episodes whose images are looked at, evenly spread."""

COMPARED_ROWS = 1_000_000
"""Rows up to which all episodes are compared with each other for duplicates; beyond, evenly spread ones."""

UNSETTLED = re.compile(
    r"out of step|nothing tells|turned differently|no switch|contradicts|shifted against"
    r"|rows were (?:left out of|added to) it|fits neither colour order|may be one take in two files"
)
"""Warnings of converters about a decision that the recording does not settle."""


@dataclass(frozen=True, eq=False)
class ExaminedEpisode:
    """What one episode shows. Picklable; made where the episode is read."""

    measurement: EpisodeMeasurement
    """Its verdicts and traces."""
    facts: RowFacts
    """What is unusual about its rows."""
    windows: WindowFacts
    """What windows reach."""
    state: NDArray[np.float32]
    """float32 [T, Ds]."""
    action: NDArray[np.float32]
    """float32 [T, Da]."""
    names: tuple[tuple[str, ...], tuple[str, ...]]
    """Of the state and of the action columns."""
    cameras: tuple[str, ...] = ()
    """Cameras whose images were looked at."""
    warnings: tuple[str, ...] = ()
    """What its converter warns about; of a store's episodes, what it warned about that nothing settled."""


def examine(
    episode: EpisodeInput, valid: NDArray[np.bool_], manifest: Manifest, warnings: Sequence[str] = ()
) -> ExaminedEpisode:
    """Examine one episode. valid: bool [T]. warnings: of its converter."""
    return ExaminedEpisode(
        measure(episode),
        row_facts(episode),
        window_facts(episode.id, valid, manifest.window),
        episode.state,
        episode.action,
        (episode.state_names, episode.action_names),
        tuple(episode.thumbnails),
        tuple(warnings),
    )


@dataclass
class Examination:
    """Takes examined episodes one by one and says what all of them show."""

    patient: Patient
    """What is examined."""
    manifest: Manifest
    """With the current view."""
    total: int
    """Episodes that are to come."""
    accepted: Mapping[str, str] = field(default_factory=dict)
    """Detector -> why its contradiction is kept."""
    order: Mapping[str, int] = field(default_factory=dict)
    """Id -> place of the episodes, where they do not come in order; their verdicts are pooled in it."""

    def __post_init__(self) -> None:
        self.frames, self.looked_at = 0, Counter[str]()
        self.verdicts: tuple[DatasetVerdict, ...] = ()
        self._names: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._other_names: list[str] = []
        self._warnings: list[tuple[str, str]] = []
        self._measured: list[EpisodeMeasurement] = []
        self._facts: list[RowFacts] = []
        self._windows: list[WindowFacts] = []
        self._options: dict[str, str] = {}
        self._columns = RunningStatistics(self.total, self.manifest.window.action_horizon)
        self._thinner = Thinner()
        self._compared = 0

    def add(self, episode: ExaminedEpisode, train: bool = True) -> None:
        """Take one episode. train: whether its rows count for the statistics."""
        rows = len(episode.state)
        self.frames += rows
        self.looked_at.update(episode.cameras)
        self._names = self._names or episode.names
        same = episode.names == self._names
        keep = self._kept(rows) and same
        if not same:
            self._other_names.append(episode.facts.id)
        self._warnings += [(episode.facts.id, text) for text in episode.warnings]
        self._measured.append(self._thinner.thin(episode.measurement, traces=keep))
        self._options |= episode.measurement.options
        self._facts.append(episode.facts)
        self._windows.append(episode.windows)
        if train and same:
            self._columns.add(episode.state, episode.action)

    def _kept(self, rows: int) -> bool:
        """Whether an episode is compared with the others; evenly spread where they are too many."""
        self._compared += rows
        expected = self._compared / (len(self._measured) + 1) * self.total
        every = max(1, round(expected / COMPARED_ROWS))
        return len(self._measured) % every == 0

    def findings(self) -> tuple[list[DoctorFinding], tuple[str, ...]]:
        """(what was found, what could not be measured)."""
        if not self._measured or self._names is None:
            return [], ()
        for items in (self._measured, self._facts, self._windows):
            items.sort(key=self._place)
        verdicts = self.verdicts = pool(self._measured)
        total = len(self._measured)
        found = convention_findings(verdicts, self.patient, total, self._options, self.accepted)
        found += row_findings(self._facts, self.patient)
        found += window_findings(self._windows, self.manifest.window, self.patient)
        sample = self._columns.result()
        if sample is not None:
            found += column_findings(sample, self.manifest.normalisation.mode, self._names, self.patient)
        return [*found, *self._misfits(), *self._warned()], sentences.not_verified(verdicts)

    def _place(self, item: EpisodeMeasurement | RowFacts | WindowFacts) -> int:
        return self.order.get(item.episode if isinstance(item, EpisodeMeasurement) else item.id, 0)

    def _misfits(self) -> list[DoctorFinding]:
        """Episodes with other columns than the first, which cannot share a store with it."""
        names = self._other_names
        if not names:
            return []
        sentence = (
            f"{len(names)} of {len(self._measured)} episodes {verb(len(names), 'has', 'have')} other state or "
            "action columns than the first"
        )
        command = self.patient.without(names, len(self._measured))
        return [DoctorFinding("warn", "columns", sentence, "", float(len(names)), listed(names), len(names), command)]

    def _warned(self) -> list[DoctorFinding]:
        """Warnings of the converter, one finding for each kind."""
        found, total = [], len(self._measured)
        for kind in group_warnings(sorted(self._warnings, key=lambda said: self.order.get(said[0], 0))):
            severity: Severity = "warn" if UNSETTLED.search(kind.text) else "note"
            sentence = (
                f"{kind.text}{'' if kind.same else ', and the like'} ({kind.count} of {counted(total, 'episode')})"
            )
            names = kind.sources
            command = self.patient.option_in(kind.text)
            if not command and severity == "warn":
                command = self.patient.without(names, total)
            found.append(
                DoctorFinding(
                    severity, "conversion", sentence, "", float(kind.count), listed(names), len(names), command
                )
            )
        return found
