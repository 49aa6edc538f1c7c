"""Delays: the state behind the action, and a camera before or behind the joints (b3, d1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence import own_lags, pooling
from fwdata.evidence.camera_lags import LagEstimate, estimate_lag
from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.action import column_lags, fit_action
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, MotionTrace, Severity, Verdict
from fwdata.evidence.signals import Floats, bootstrap_interval, middle, relative_speeds
from fwdata.wording import counted, verb

LATE_WARN, LATE_STOP = 0.3, 0.5
"""Seconds by which the state may follow the action: a robot's own 0.1 to 0.15 s is normal."""

EARLY_ROWS = -0.75
"""Rows below which the state moves before it is commanded: no robot does, so rows of state and action are shifted."""

NEXT_ROW = 1.5
"""Rows of delay that a slow rate makes of a state that is recorded before its command."""

TOGETHER_ROWS, TOGETHER_SECONDS, MOST_TOGETHER, FEWEST = 2.0, 0.1, 0.6, 2
"""How near, in rows or seconds, most of the columns that follow the action, at least two (three for a state before its
action), or half of all, must be to one delay for a state to be out of step: columns that have nothing to do with each
other correlate by chance, each at its own."""

CAMERA_LAG, CAMERA_STOP = 0.75, 3.0
MIN_SCORE, WIDEST_SECONDS, MAX_INTERVAL = 0.5, 1.5, 2.0
MIN_SIMULATED, MIN_REAL = 5, 10
MOST_NEAR, DOUBTFUL_LAG = 0.8, 2.0
"""Share of draws within a row of a lag of at least 2 rows, from which a wide interval, as of the few others that find
another peak, warns instead of telling nothing."""
FEW, SMALL_LAG, MIN_GAIN = 8, 2.5, 0.022
"""Fewer episodes tell a smaller lag in rows only where it explains the images better by this much than no lag does.
Five wrist cameras in step measured 1.9 rows (+1.1 .. +2.4) with 0.011, and 1.8 (+1.1 .. +2.4) with 0.019; two rows late
most measure more rows than these and gain 0.03 to 0.1. So do cameras on arms with any number of short episodes: of 480
draws of 10 clean ones of the sample world 49 measured 1.0 to 1.8 rows with 0.005 to 0.012."""
SMALL_MOUNTED = 3.5
"""The same lag for cameras on arms: those of the sample world as LeRobot sets, whose images are smoothed over 4 rows,
measured up to 2.9 rows with at most 0.021, and 2 rows late with 0.023 and more."""

SMOOTH_STEP, REPEATS = 4, 0.3
STILL = 0.02
CLOSES = 1.5
"""Rows by which the lags of camera, state and action may disagree, besides their intervals."""


class StateDelay(Detector):
    """b3: how long the state follows an absolute action; pooled."""

    name, code, question, action = "state_delay", "b3", "state against action in time", "warn"
    advice = "shift the state against the action in the recordings: no manifest can"
    word = "expected"

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """The lag of one episode; whether it is too long is decided for the data set."""
        if not episode.pairs:
            return ()
        if fit_action(episode).meaning not in ("absolute", "next_state"):
            return (self.abstain("the action is not an absolute target", decided=DECIDED),)
        lags, every = column_lags(episode), column_lags(episode, copies=True)
        copied = not len(lags)
        if copied or (2 * len(lags) < len(every) and not _is_apart(middle(lags), episode.hz)):
            late = _is_apart(middle(every), episode.hz)  # as of an arm beside a gripper that moves as it can
            lags = every if copied or late else lags
        rows = middle(lags)
        seconds = rows / episode.hz
        apart = _is_apart(rows, episode.hz)
        if copied and not apart:  # a state that is made from the command is in step with it, whatever it shows
            reason = "every state column that moves is a copy of the action"
            return (self.abstain(reason, decided=DECIDED, value=seconds if len(lags) else None),)
        moving = fit_action(episode).columns
        if apart and not any(_agree(some, rows, episode.hz, moving) for some in (lags, every)):
            return (self.abstain("the columns that follow the action do so each with its own delay", decided=DECIDED),)
        return (
            self.verdict(
                "contradicted" if apart else "confirmed",
                f"{rows:+.1f} rows, median of {counted(len(lags), 'column')}",
                value=round(seconds, 4),
                n=len(lags),
                decided=DECIDED,
                measured=f"the state follows the action after {seconds:.2f} s"
                if rows >= EARLY_ROWS
                else f"the state is {-rows:.1f} rows ({-seconds:.2f} s) before the action",
            ),
        )

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """By agreement; the median decides between warning and stop, with a bootstrap interval. And what is apart."""
        return (*self._together(episodes), *self._apart(episodes))

    def _together(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        found = super().pool(episodes)
        verdicts = [v for m in episodes for v in m.of(self.name) if v.value is not None and v.verdict != "no evidence"]
        if not found or len(verdicts) < self.min_episodes:
            return found
        values = np.asarray([v.value for v in verdicts], np.float64)
        median, interval = middle(values), bootstrap_interval(values)
        early = [v for v in verdicts if v.verdict == "contradicted" and (v.value or 0) < 0]
        if median < 0 or pooling.agreed(len(verdicts) - len(early), len(early)) != "confirmed":
            return found  # too early by so many rows, not seconds; of one arm, perhaps, in the episodes it moves in
        verdict = found[0]
        late = interval[0] > LATE_WARN and verdict.against > 0
        action: Severity = "note" if not late else "stop" if interval[0] > LATE_STOP else "warn"
        measured = f"the state follows the action after {median:.2f} s ({interval[0]:.2f} .. {interval[1]:.2f})"
        against = {m.episode: v for m in episodes for v in m.of(self.name) if v.verdict == "contradicted"}
        if not late:  # of a set that is usual, those a little beyond the limit are as the others
            against = {name: v for name, v in against.items() if abs((v.value or 0.0) - median) > own_lags.OFF}
            measured = next((v.measured for v in against.values()), measured)
        return (
            DatasetVerdict(
                self.name,
                "confirmed" if action == "note" else "contradicted",
                value=median,
                interval=interval,
                episodes_for=verdict.episodes_for + verdict.against - len(against),
                against=len(against),
                abstained=verdict.abstained,
                action=action,
                decided=DECIDED,
                measured=measured,
                episodes=tuple(against)[:MAX_LISTED],
            ),
        )

    def _apart(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """Episodes whose state is earlier or later against the action than in all others, copies of it included."""
        found = [(m.episode, v.value) for m in episodes for v in m.of(self.name) if v.value is not None]
        values = np.asarray([value for _, value in found], np.float64)
        odd = own_lags.odd_lags(values)
        parted = not len(odd)
        odd = own_lags.two_parts(values) if parted else odd
        if not len(odd):
            return ()
        usual = middle(np.delete(values, odd)) if parted else middle(values)
        return (
            DatasetVerdict(
                self.name,
                "mixed" if parted else "confirmed",
                "in a part of the episodes" if parted else "in single episodes",
                value=middle(values[odd]),
                episodes_for=len(found) - len(odd),
                against=len(odd),
                action="warn",
                decided=f"the state follows the action after {usual:.2f} s, as in {'the others' if parted else MOST}",
                measured=f"after {middle(values[odd]):.2f} s",
                episodes=tuple(found[place][0] for place in odd[:MAX_LISTED]),
            ),
        )


def _is_apart(rows: float, hz: float) -> bool:
    """Whether a state that many rows behind its action is late, or before it."""
    return (rows / hz > LATE_WARN and rows > NEXT_ROW) or rows < EARLY_ROWS


def _agree(lags: Floats, rows: float, hz: float, columns: int) -> bool:
    """Whether columns of these lags are of one delay, of so many that move."""
    alike = int((np.abs(lags - rows) <= max(TOGETHER_ROWS, TOGETHER_SECONDS * hz)).sum())
    fewest = FEWEST if rows > 0 else FEWEST + 1
    return 2 * alike >= columns or (alike >= fewest and alike >= MOST_TOGETHER * len(lags))


DECIDED, MOST = "state and action of one row belong together", "most episodes"
DECIDED_IMAGE = "image and state of one row belong together"


class CameraDelay(Detector):
    """d1: image energy explained by joint speeds at every lag; pooled, with an interval, then episode by episode."""

    name, code, question, action = "camera_delay", "d1", "camera against joints in time", "warn"
    advice = "shift the video against the rows in the recordings: no manifest can"
    word = "expected"
    needs_images = True
    min_episodes = MIN_SIMULATED

    def trace(self, episode: EpisodeInput) -> tuple[MotionTrace, ...]:
        """Energy and speeds of every camera that was looked at, and shows motion."""
        return tuple(t for name in episode.thumbnails if (t := _trace(episode, name)))

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict per camera."""
        traces: dict[str, list[MotionTrace]] = {}
        names: dict[str, list[str]] = {}
        for measurement in episodes:
            for trace in measurement.motion_traces():
                traces.setdefault(trace.camera, []).append(trace)
                names.setdefault(trace.camera, []).append(measurement.episode)
        judged = [self._judged(camera, found, names[camera]) for camera, found in traces.items()]
        return own_lags.beside_steady(judged)

    def _judged(self, camera: str, traces: Sequence[MotionTrace], names: Sequence[str]) -> DatasetVerdict:
        """All episodes together, or the few that are out of step with the others."""
        pooled = self._pooled(camera, traces)
        wide = pooled.interval is not None and pooled.interval[1] - pooled.interval[0] > MAX_INTERVAL
        if pooled.against and not wide:
            return replace(pooled, episodes=tuple(names[:MAX_LISTED]))
        found = own_lags.exceptions(traces) if all(t.simulated for t in traces) else ()
        if not found:
            mixed = self._mixed(camera, traces, names, pooled) if pooled.verdict != "confirmed" else None
            return mixed or (replace(pooled, episodes=tuple(names[:MAX_LISTED])) if pooled.against else pooled)
        apart = {each.place for each in found}
        rest = self._pooled(camera, [t for place, t in enumerate(traces) if place not in apart])
        if rest.verdict != "confirmed":
            return pooled
        first = found[0]
        return replace(
            rest,
            verdict="contradicted",
            value=own_lags.typical(found),
            interval=None,
            against=len(found),
            action="warn",
            measured=_side(own_lags.typical(found), traces[0].hz),
            detail=f"r {first.score:.2f} there and {first.expected:.2f} without a lag in {names[first.place]}",
            episodes=tuple(names[each.place] for each in found[:MAX_LISTED]),
        )

    def _mixed(
        self, camera: str, traces: Sequence[MotionTrace], names: Sequence[str], pooled: DatasetVerdict
    ) -> DatasetVerdict | None:
        """The verdict of episodes that fall into two parts of another lag each; None where they do not, or where the
        lag that all have together is that of neither part nor between them."""
        if len(traces) < (MIN_SIMULATED if all(t.simulated for t in traces) else MIN_REAL):
            return None
        near, far = own_lags.parted(traces)
        if not far:
            return None
        lag, hz, low, high = own_lags.typical(far), traces[0].hz, *sorted(map(own_lags.typical, (near, far)))
        if pooled.against and pooled.value is not None and not low - CLOSES <= pooled.value <= high + CLOSES:
            return None
        return DatasetVerdict(
            self.name,
            "mixed",
            camera,
            value=lag,
            episodes_for=len(near),
            against=len(far),
            abstained=len(traces) - len(near) - len(far),
            action="stop" if abs(lag) > CAMERA_STOP else "warn",
            decided=DECIDED_IMAGE,
            measured=_side(lag, hz),
            detail=f"{own_lags.typical(near):.0f} rows in the other {len(near)}",
            episodes=tuple(names[each.place] for each in far[:MAX_LISTED]),
        )

    def _pooled(self, camera: str, traces: Sequence[MotionTrace]) -> DatasetVerdict:
        wanted = MIN_SIMULATED if all(t.simulated for t in traces) else MIN_REAL
        if len(traces) < wanted:
            return self._silent(
                camera,
                traces,
                f"{counted(len(traces), 'episode')} {verb(len(traces), 'shows', 'show')} motion, {wanted} are needed",
            )
        hz = traces[0].hz
        found = estimate_lag(traces, max(6, round(0.4 * hz)))
        if found is None or not found.interior:
            found = estimate_lag(traces, max(6, round(WIDEST_SECONDS * hz)))
        if found is None or not found.interior:
            return self._silent(camera, traces, "no lag stands out")
        if found.score < MIN_SCORE:
            return self._silent(camera, traces, f"the image does not show the motion (r {found.score:.2f})")
        low, high = found.interval
        doubtful = high - low > MAX_INTERVAL
        if doubtful and (found.near < MOST_NEAR or abs(found.lag) < DOUBTFUL_LAG):
            return self._silent(
                camera, traces, f"the lag is {found.lag:+.1f} rows, {low:+.1f} .. {high:+.1f}: too wide"
            )
        wrong = doubtful or (abs(found.lag) >= CAMERA_LAG and (low > 0.5 or high < -0.5))
        if not wrong and not (low > -1 and high < 1):
            lag = f"the lag is {found.lag:+.1f} rows, {low:+.1f} .. {high:+.1f}"
            return self._silent(camera, traces, f"{lag}: hardly distinguishable from zero")
        small = SMALL_MOUNTED if traces[0].mounted else SMALL_LAG if len(traces) < FEW else 0.0
        if wrong and abs(found.lag) < small and found.gain < MIN_GAIN:
            few = (
                f"{_words(found.lag, low, high, hz)}, which {counted(len(traces), 'episode')} hardly "
                f"{verb(len(traces), 'tells', 'tell')} from none"
            )
            return self._silent(camera, traces, few)
        closing = _triangle(traces, found) if wrong else None
        if closing is not None and not closing.closes:
            return self._silent(camera, traces, f"{_words(found.lag, low, high, hz)}, but {closing.words}")
        return DatasetVerdict(
            self.name,
            "contradicted" if wrong else "confirmed",
            camera,
            value=found.lag,
            interval=found.interval,
            episodes_for=0 if wrong else len(traces),
            against=len(traces) if wrong else 0,
            action=("stop" if not doubtful and min(abs(low), abs(high)) >= CAMERA_STOP else "warn")
            if wrong
            else "note",
            decided=DECIDED_IMAGE,
            measured=_words(found.lag, low, high, hz),
            detail=f"r {found.score:.2f}{f'; {closing.words}' if closing else ''}",
        )

    def _silent(self, camera: str, traces: Sequence[MotionTrace], reason: str) -> DatasetVerdict:
        return DatasetVerdict(
            self.name, "no evidence", camera, abstained=len(traces), decided=DECIDED_IMAGE, detail=reason
        )


class Triangle(NamedTuple):
    """Camera, state and action of a data set: three lags of which each follows from the others."""

    camera_action: float
    """Rows by which the image follows the action, measured."""
    expected: float
    """The same by way of the state."""
    allowed: float
    """Largest difference of both that the intervals allow."""

    @property
    def closes(self) -> bool:
        """Whether the three lags agree."""
        return abs(self.camera_action - self.expected) <= self.allowed

    @property
    def words(self) -> str:
        """Both lags in words."""
        verb = "agree" if self.closes else "do not agree"
        return (
            f"image against action {self.camera_action:+.1f} rows and by way of the state {self.expected:+.1f} {verb}"
        )


def _triangle(traces: Sequence[MotionTrace], found: LagEstimate) -> Triangle | None:
    """The check of a camera's lag by the action; None where the action is not an absolute target, or shows no lag."""
    commanded = [replace(t, speeds=t.commands) for t in traces if t.commands is not None]
    if len(commanded) < MIN_SIMULATED:
        return None
    other = estimate_lag(commanded, max(6, round(WIDEST_SECONDS * commanded[0].hz)))
    if other is None or not other.interior or other.score < MIN_SCORE:
        return None
    behind = middle(np.asarray([t.state_lag for t in commanded], np.float64))
    widths = sum((estimate.interval[1] - estimate.interval[0]) / 2 for estimate in (found, other))
    return Triangle(other.lag, found.lag + behind, CLOSES + widths)


def _words(lag: float, low: float, high: float, hz: float) -> str:
    return f"{_side(lag, hz)} ({low:+.1f} .. {high:+.1f})"


def _side(lag: float, hz: float) -> str:
    return f"the image is {abs(lag):.1f} rows ({abs(lag) / hz:.2f} s) {'behind' if lag > 0 else 'before'} the state"


def _trace(episode: EpisodeInput, camera: str) -> MotionTrace | None:
    """What is pooled of one camera; None where nothing moves."""
    motion = episode.motion[camera]
    repeats = float(np.mean(motion.energy[1:] < STILL))
    arm = episode.arm_of(camera)
    step = 1 if episode.claims.simulated and repeats <= REPEATS else SMOOTH_STEP
    if episode.claims.simulated and repeats > REPEATS and arm is not None:
        step = 1  # a still arm repeats its image
    speeds, energy = _root_speeds(episode, None if arm is None else arm.state, step), motion.energy_over(step)
    if not speeds.any() or float(energy.max(initial=0.0)) < STILL:
        return None
    commands, behind = _commands(episode, step)
    roots = np.sqrt(energy).astype(np.float32)
    mounted = arm is not None
    return MotionTrace(camera, episode.hz, roots, speeds, episode.claims.simulated, commands, behind, mounted)


@lru_cache(maxsize=4)
def _root_speeds(episode: EpisodeInput, columns: tuple[int, ...] | None, step: int) -> NDArray[np.float32]:
    """Square root of the speeds of some state columns, or all; kept as several cameras of an episode ask."""
    rows, moving = episode.state64, episode.active
    if columns is not None:
        rows, moving = rows[:, list(columns)], np.flatnonzero(np.isin(columns, moving))
    return np.sqrt(relative_speeds(rows, step, moving)).astype(np.float32)


@lru_cache(maxsize=2)
def _commands(episode: EpisodeInput, step: int) -> tuple[NDArray[np.float32] | None, float]:
    """(square root of the action's speeds, rows by which the state follows it), of an absolute action that moves."""
    fit = fit_action(episode) if episode.pairs else None
    if fit is None or fit.meaning != "absolute" or not fit.interior:
        return None, 0.0
    speeds, lags = relative_speeds(episode.action64, step), column_lags(episode)
    behind = middle(lags) if len(lags) else fit.lag  # columns that copy the command would hide a late stream
    return (np.sqrt(speeds).astype(np.float32), behind) if speeds.any() else (None, 0.0)


DETECTORS = (StateDelay(), CameraDelay())
