"""What detectors answer: a verdict of one episode, all verdicts of it, and the verdict of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENGINE_VERSION = 9
"""Raised whenever a detector's formula or threshold changes; recorded with every verdict."""

type Outcome = Literal["confirmed", "contradicted", "no evidence"]
type PooledOutcome = Literal["confirmed", "contradicted", "mixed", "no evidence"]
type Severity = Literal["stop", "warn", "note"]

FROZEN = "camera_frozen"
"""Detector of cameras whose motion tells nothing else."""

MAX_LISTED = 12
"""Episodes that a data set's verdict lists."""


class VerdictJson(TypedDict, total=False):
    """A verdict of one episode; fields that are empty or 0 are absent, but for `value`."""

    detector: Required[str]
    """Name of the detector."""
    verdict: Required[Literal["confirmed", "contradicted", "no evidence"]]
    """Whether the data agree with the decision."""
    subject: str
    """Gripper, camera or column; absent: the episode as a whole."""
    value: Required[float | None]
    """The number that decided; its meaning is the detector's."""
    interval: list[float]
    """Both ends of the value's 95 % interval."""
    n: int
    """How much evidence it rests on; the detector says of what."""
    detail: str
    """What was found, or why nothing could be."""
    action: Literal["stop", "warn", "note"]
    """What a contradiction does to a conversion."""
    decided: str
    """What the converter decided, in words."""
    measured: str
    """What the data say, in words."""


class DatasetVerdictJson(TypedDict, total=False):
    """A verdict of all episodes; fields that are empty or 0 are absent, but for `value`."""

    detector: Required[str]
    """Name of the detector."""
    verdict: Required[Literal["confirmed", "contradicted", "mixed", "no evidence"]]
    """"mixed": at least three episodes tell something and fewer than 90 % agree."""
    subject: str
    """Gripper, camera or column; absent: the data set as a whole."""
    value: Required[float | None]
    """Median of the episodes' values, or the pooled value."""
    interval: list[float]
    """Both ends of the 95 % interval of a pooled value."""
    episodes_for: int
    """Episodes that agree with the decision."""
    against: int
    """Episodes that contradict it."""
    abstained: int
    """Episodes without evidence."""
    action: Literal["stop", "warn", "note"]
    """What the verdict does to a conversion."""
    decided: str
    """What was decided, in words."""
    measured: str
    """What the data say, in words."""
    detail: str
    """A reason for no evidence, or what to look at."""
    episodes: list[str]
    """Ids of contradicting episodes, at most 12."""


@dataclass(frozen=True)
class Verdict:
    """What one detector says of one subject (a gripper, a camera, ..) of one episode."""

    detector: str
    """Name of the detector, e.g. "gripper_polarity"."""
    verdict: Outcome
    """Whether the data agree with the decision; "no evidence" where they do not tell or nothing was decided."""
    subject: str = ""
    """Gripper, camera or column that was measured; empty for the episode as a whole."""
    value: float | None = None
    """The number that decided; its meaning is the detector's."""
    interval: tuple[float, float] | None = None
    """95 % interval of the value, where there is one."""
    n: int = 0
    """How much evidence it rests on: switches, rows, ..; the detector says which."""
    detail: str = ""
    """What was found, or why nothing could be."""
    action: Severity = "note"
    """What a contradiction does to a conversion."""
    decided: str = ""
    """What the converter decided, in words; empty: nothing."""
    measured: str = ""
    """What the data say, in words; empty: nothing."""

    def to_json(self) -> VerdictJson:
        """The verdict as plain JSON, empty fields left out."""
        return cast(VerdictJson, compact(vars(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """The inverse of `to_json`; keys of a newer engine are ignored."""
        return _known(cls, data)


@dataclass(frozen=True, eq=False)
class MotionTrace:
    """What a lag of a camera is pooled from: image energy and joint speeds of one episode."""

    camera: str
    """Name of the camera."""
    hz: float
    """Rate of the rows."""
    energy: NDArray[Any]
    """float32 [T] while it travels between processes, else float64, square root of the image energy."""
    speeds: NDArray[Any]
    """[T, D], the same of the speed of every state dimension, divided by its 95th percentile."""
    simulated: bool
    """Whether the image is rendered in step with the rows."""
    commands: NDArray[Any] | None = None
    """[T, Da], as `speeds` of the action, where that is an absolute target; None where it is not."""
    state_lag: float = 0.0
    """Rows by which the state follows the action, where `commands` are there."""
    mounted: bool = False
    """Whether the camera rides on an arm: what it is near changes its image more than the arm's speed does."""

    def whole(self) -> MotionTrace:
        """The same in float64, for sums."""
        commands = None if self.commands is None else self.commands.astype(float)
        energy, speeds = self.energy.astype(float), self.speeds.astype(float)
        return replace(self, energy=energy, speeds=speeds, commands=commands)

    @cached_property
    def products(self) -> tuple[NDArray[Any], NDArray[Any], float]:
        """(X'X [D, D], X'y [D], y'y) of its speeds X and energy y, each less its mean: what all fits without a lag
        are made from."""
        speeds, energy = self.speeds - self.speeds.mean(axis=0), self.energy - self.energy.mean()
        return speeds.T @ speeds, speeds.T @ energy, float(energy @ energy)


@dataclass(frozen=True)
class RowTrace:
    """What duplicates are found from."""

    path: NDArray[np.float32]
    """float32 [32, Ds + Da], the episode's rows at 32 evenly spaced times."""
    rows: NDArray[np.uint64]
    """uint64 [n], digests of the distinct rows rounded to 1e-4, constant columns of the episode included."""


@dataclass(frozen=True)
class TextTrace:
    """What near-misses among instructions are found from."""

    text: str
    """The canonical instruction."""


@dataclass(frozen=True)
class SizeTrace:
    """What units of columns are compared by."""

    names: tuple[str, ...]
    """D names, "state " or "action " before each."""
    sizes: NDArray[np.float32]
    """float32 [D], 95th percentile of the size; NaN where a column does not move, or goes from end to end."""
    tops: NDArray[np.float32]
    """float32 [D], upper end of columns that go from end to end, as grippers do; NaN for others."""


@dataclass(frozen=True)
class LookTrace:
    """What the images of one camera are compared with those of other episodes by."""

    camera: str
    """Name of the camera."""
    tiles: NDArray[np.uint8]
    """uint8 [8, 8, 3], RGB, the first image averaged over tiles."""
    prints: NDArray[np.uint32]
    """uint32 [n], in order: checksums of some images, the same ones wherever the images are the same."""
    rows: NDArray[np.uint32]
    """The same of the rows of state and action."""


@dataclass(frozen=True)
class StepTrace:
    """What resolutions of columns are compared by; NaN and 0 where a column does not move."""

    names: tuple[str, ...]
    """D names, "state " or "action " before each."""
    steps: NDArray[np.float32]
    """float32 [D], smallest difference between two distinct values."""
    distinct: NDArray[np.float32]
    """float32 [D], distinct values."""
    reach: NDArray[np.float32]
    """float32 [D], the range."""
    regular: NDArray[np.float32]
    """float32 [D], 2 where all values are whole numbers, 1 where they are multiples of one step, else 0."""


type Trace = MotionTrace | LookTrace | StepTrace | RowTrace | TextTrace | SizeTrace


class MeasurementJson(TypedDict):
    """An episode's verdicts as a store keeps them; keys of the mappings are "detector subject"."""

    id: str
    """Id of the episode."""
    group: str
    """Unit in which scales are compared."""
    confirmed: dict[str, float | None]
    """Values of what agrees."""
    no_evidence: dict[str, str]
    """Why the others do not tell."""
    contradicted: list[VerdictJson]
    """Contradictions, whole."""


@dataclass(frozen=True)
class EpisodeMeasurement:
    """Everything that was measured in one episode."""

    episode: str
    """Id of the episode."""
    group: str
    """Unit in which scales are compared: the folder or data set of the episode."""
    verdicts: tuple[Verdict, ...]
    """One verdict per detector and subject."""
    traces: tuple[Trace, ...] = ()
    """What pooled detectors need besides; not stored."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Detector -> the converter option that would agree with the opposite; not stored."""

    def of(self, detector: str) -> Sequence[Verdict]:
        """The verdicts of one detector."""
        return self._by_detector.get(detector, ())

    def of_all(self, detectors: Sequence[str]) -> tuple[Verdict, ...]:
        """The verdicts of some detectors."""
        return tuple(verdict for name in detectors for verdict in self.of(name))

    def compared(self) -> tuple[Trace, ...]:
        """The traces that all episodes are compared by, as far as they are known."""
        return tuple(trace for trace in self.traces if not isinstance(trace, MotionTrace | LookTrace))

    def uncompared(self) -> EpisodeMeasurement:
        """The same without those: short episodes lack some, and what is claimed counts in them."""
        return replace(self, traces=tuple(trace for trace in self.traces if isinstance(trace, MotionTrace | LookTrace)))

    def motion_traces(self) -> list[MotionTrace]:
        """Those of cameras that keep recording: a frozen one is neither late nor of other joints."""
        frozen = {verdict.subject for verdict in self.of(FROZEN) if verdict.verdict == "contradicted"}
        return [trace for trace in self._motion if trace.camera not in frozen]

    @cached_property
    def _motion(self) -> Sequence[MotionTrace]:
        """Its motion traces in float64."""
        return [trace.whole() for trace in self.traces if isinstance(trace, MotionTrace)]

    @cached_property
    def _by_detector(self) -> Mapping[str, Sequence[Verdict]]:
        """Detector -> its verdicts, as every detector asks every episode of a data set for its own."""
        found: dict[str, list[Verdict]] = {}
        for verdict in self.verdicts:
            found.setdefault(verdict.detector, []).append(verdict)
        return found

    def to_json(self) -> MeasurementJson:
        """As a store keeps it, some 50 bytes a verdict: values of what agrees, reasons of what does not tell.

        Keys are "detector subject"; contradictions are kept whole.
        """
        keyed = [(f"{v.detector} {v.subject}".rstrip(), v) for v in self.verdicts]
        return {
            "id": self.episode,
            "group": self.group,
            "confirmed": {key: _plain(v.value) for key, v in keyed if v.verdict == "confirmed"},
            "no_evidence": {key: v.measured or v.detail for key, v in keyed if v.verdict == "no evidence"},
            "contradicted": [v.to_json() for v in self.verdicts if v.verdict == "contradicted"],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EpisodeMeasurement:
        """The verdicts that `to_json` kept."""
        good = [_kept(key, "confirmed", value=value) for key, value in data["confirmed"].items()]
        silent = [_kept(key, "no evidence", detail=text) for key, text in data["no_evidence"].items()]
        bad = [Verdict.from_json(item) for item in data["contradicted"]]
        return cls(data["id"], data["group"], (*good, *silent, *bad))


def _kept(key: str, outcome: Outcome, value: float | None = None, detail: str = "") -> Verdict:
    detector, _, subject = key.partition(" ")
    return Verdict(detector, outcome, subject, value, detail=detail)


@dataclass(frozen=True)
class DatasetVerdict:
    """What one detector says of one subject over all episodes that were measured."""

    detector: str
    """Name of the detector."""
    verdict: PooledOutcome
    """"mixed": at least three episodes tell something and fewer than 90 % agree."""
    subject: str = ""
    """Gripper, camera or column; empty for the data set as a whole."""
    value: float | None = None
    """Median of the episodes' values, or the pooled value."""
    interval: tuple[float, float] | None = None
    """95 % interval of a pooled value."""
    episodes_for: int = 0
    """Episodes that agree with the decision."""
    against: int = 0
    """Episodes that contradict it."""
    abstained: int = 0
    """Episodes without evidence."""
    action: Severity = "note"
    """What the verdict does to a conversion; at most "warn" where too few episodes tell something."""
    decided: str = ""
    """What was decided, in words; empty: nothing."""
    measured: str = ""
    """What the data say, in words."""
    detail: str = ""
    """Further words: a reason for no evidence, or what to look at."""
    episodes: tuple[str, ...] = ()
    """Ids of contradicting episodes, at most `MAX_LISTED`."""

    @property
    def tells(self) -> bool:
        """Whether there is something to print: a decision, or what the data say without one."""
        return bool(self.decided or self.measured)

    def to_json(self) -> DatasetVerdictJson:
        """The verdict as plain JSON, empty fields left out."""
        return cast(DatasetVerdictJson, compact(vars(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DatasetVerdict:
        """The inverse of `to_json`; keys of a newer engine are ignored."""
        return _known(cls, data)


def compact(data: Mapping[str, Any]) -> dict[str, object]:
    """Without empty fields; floats with six significant digits, tuples as lists."""
    return {key: _plain(value) for key, value in data.items() if value not in ("", None, 0, ()) or key == "value"}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _known[V: (Verdict, DatasetVerdict)](cls: type[V], data: Mapping[str, Any]) -> V:
    """A verdict from the keys that this engine knows, lists as tuples."""
    return cls(**{key: _listed(value) for key, value in data.items() if key in cls.__dataclass_fields__})


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
