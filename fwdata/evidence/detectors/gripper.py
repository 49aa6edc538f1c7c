"""Grippers: which way the command counts, and on which scale command and opening are (a1, a2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fwdata.evidence import pooling
from fwdata.evidence.claims import Bound, GripperClaim, GripperScale
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput, Together
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, Outcome, Verdict
from fwdata.evidence.signals import Floats, lagged_each
from fwdata.evidence.two_grippers import opposite_ways
from fwdata.wording import counted

RESPONSE_SECONDS = 0.75
RESPONSE_SHARE = 0.15
HYSTERESIS = 0.1
COPY = 1e-6
SECOND_OPINION_ROWS = range(11)
SECOND_OPINION = 0.3
SEARCHED_SECONDS = 0.8
"""How far around a command its answer is looked for."""


class GripperPolarity(Detector):
    """a1: after a command switch the measured opening must move the way that was decided."""

    name, code, question, action = "gripper_polarity", "a1", "gripper", "stop"
    advice = (
        "turn the gripper's commands or openings round in the recordings (in a converter of one's own, give the "
        "direction as `polarity` of its GripperClaim)"
    )

    def prepare(self, episodes: Sequence[EpisodeInput]) -> None:
        """The correlations of commands and openings."""
        gripper_motions.prepare([each for each in episodes if each.claims.grippers])

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per gripper that has a command and a measured opening."""
        return tuple(self._one(episode, motion) for motion in gripper_motions(episode))

    def _one(self, episode: EpisodeInput, motion: GripperMotion) -> Verdict:
        claim, command, opened = motion.claim, motion.command, motion.opened
        decided = {1: OPENS, -1: CLOSES, None: ""}[claim.polarity]
        if _is_copy(command, opened):
            return self.abstain("the state holds the command itself", subject=claim.name, decided=decided)
        opens, closes = responses(command, opened, episode.hz)
        if opens == closes:
            reason = (
                "no switch of the command moves the gripper"
                if not opens
                else f"{counted(opens, 'switch')} for, {closes} against"
            )
            return self.abstain(reason, subject=claim.name, decided=decided)
        polarity = 1 if opens > closes else -1
        scores = motion.at(SECOND_OPINION_ROWS)
        second = float(scores[np.argmax(np.abs(scores))])
        if abs(second) > SECOND_OPINION and np.sign(second) != polarity:
            reason = f"switches and correlation ({second:+.2f}) disagree"
            return self.abstain(reason, subject=claim.name, decided=decided)
        if abs(second) <= SECOND_OPINION and claim.polarity == -polarity:
            reason = f"the opening follows no command (correlation {second:+.2f})"
            return self.abstain(reason, subject=claim.name, decided=decided)
        measured = OPENS if polarity == 1 else CLOSES
        count, total = max(opens, closes), opens + closes
        outcome = _outcome(claim.polarity, polarity)
        return self.verdict(
            outcome,
            f"{count} of {counted(total, 'switch')}, correlation {second:+.2f}",
            subject=claim.name,
            value=round(polarity * count / total, 4),
            n=total,
            decided=decided,
            measured=measured,
        )

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """By agreement; where no direction was decided, that of most episodes is expected of the others, and one of
        both grippers of a data set."""
        pooled = super().pool(episodes)
        found = (self._of_most(verdict, episodes) if not verdict.decided else verdict for verdict in pooled)
        return (*found, *opposite_ways(episodes, self.name, (OPENS, CLOSES)))

    def _of_most(self, pooled: DatasetVerdict, episodes: Sequence[EpisodeMeasurement]) -> DatasetVerdict:
        """Not verified where all count one way; a warning where a few count the other way."""
        ways: dict[str, list[str]] = {OPENS: [], CLOSES: []}
        for measurement in episodes:
            for verdict in measurement.of(self.name):
                words = verdict.measured or verdict.detail
                if verdict.subject == pooled.subject and words in ways:
                    ways[words].append(measurement.episode)
        (way, few), (usual, most) = sorted(ways.items(), key=lambda item: len(item[1]))
        if not few or len(most) < MOST_EPISODES:
            return pooled
        return replace(
            pooled,
            verdict="confirmed" if pooling.outliers(len(most), len(few)) else "mixed",
            episodes_for=len(most),
            against=len(few),
            action="warn",
            decided=f"{usual}, as in most episodes",
            measured=way,
            detail="",
            episodes=tuple(few[:MAX_LISTED]),
        )


OPENS, CLOSES = "larger command opens", "larger command closes"

MOST_EPISODES = 3
"""Episodes that must count one way before others are said to count the other way."""


def _outcome(claimed: int | None, measured: int) -> Outcome:
    if claimed is None:
        return "no evidence"
    return "confirmed" if claimed == measured else "contradicted"


class GripperMotion(NamedTuple):
    """A gripper's command and its measured opening."""

    claim: GripperClaim
    """What the converter decided of it."""
    command: Floats
    """float64 [T]."""
    opened: Floats
    """float64 [T], see `opening`."""
    lags: range
    """Rows by which the opening is taken later than the command."""
    scores: Floats
    """float64 [lags], correlation of the command with the opening so many rows later."""

    def at(self, lags: range) -> Floats:
        """The scores of some of the lags."""
        return self.scores[lags.start - self.lags.start : lags.stop - self.lags.start]


@Together
def gripper_motions(episodes: Sequence[EpisodeInput]) -> list[tuple[GripperMotion, ...]]:
    """Those of every gripper of each episode that has a command and a measured opening."""
    claims = [[each for each in e.claims.grippers if each.action is not None and each.state] for e in episodes]
    known = [
        (claim, e.action64[:, claim.action or 0], opening(e, claim), _lags(e))
        for e, own in zip(episodes, claims, strict=True)
        for claim in own
    ]
    told = lagged_each([(command[:, None], opened[:, None]) for _, command, opened, _ in known], [k[3] for k in known])
    found = iter([GripperMotion(*each, scores[:, 0]) for each, scores in zip(known, told, strict=True)])
    return [tuple(next(found) for _ in own) for own in claims]


def answer_rows(episode: EpisodeInput) -> range:
    """Rows around a command in which its answer is looked for."""
    reach = max(2, min(round(SEARCHED_SECONDS * episode.hz), len(episode.state) // 4))
    return range(-reach, reach + 1)


def _lags(episode: EpisodeInput) -> range:
    """All lags that detectors ask for."""
    asked = answer_rows(episode), SECOND_OPINION_ROWS
    return range(min(lags.start for lags in asked), max(lags.stop for lags in asked))


def opening(episode: EpisodeInput, claim: GripperClaim) -> Floats:
    """float64 [T], the measured opening: the signed sum of the gripper's state columns."""
    signs = claim.signs or (1.0,) * len(claim.state)
    found: Floats = episode.state64[:, list(claim.state)] @ np.asarray(signs)
    return found


def responses(command: Floats, opened: Floats, hz: float) -> tuple[int, int]:
    """(switches after which the opening follows the command, switches after which it goes the other way)."""
    span, reach = float(np.ptp(opened)), max(1, round(RESPONSE_SECONDS * hz))
    follow = oppose = 0
    if span <= COPY:
        return 0, 0
    for row, direction in switches(command):
        change = opened[row : row + reach + 1] - opened[max(0, row - 1)]
        largest = float(change[np.argmax(np.abs(change))])
        if abs(largest) > RESPONSE_SHARE * span:
            follow += np.sign(largest) == direction
            whole = row + reach < len(opened)  # else it may still answer the command before
            oppose += whole and np.sign(largest) != direction
    return int(follow), int(oppose)


def switches(command: Floats) -> list[tuple[int, int]]:
    """(row, +1 up or -1 down) of every crossing of the middle of the command's range, with hysteresis."""
    low, high = float(command.min()), float(command.max())
    if high - low <= COPY:
        return []
    middle, margin = (low + high) / 2, HYSTERESIS * (high - low)
    side = np.where(command > middle + margin, 1, np.where(command < middle - margin, -1, 0))
    rows = np.flatnonzero(side)
    turns = np.flatnonzero(np.diff(side[rows]))
    return [(int(rows[turn + 1]), int(side[rows[turn + 1]])) for turn in turns]


def _is_copy(command: Floats, opened: Floats) -> bool:
    """Whether the state holds a copy of the command of this row or the one before: the number then proves nothing."""
    same = np.abs(command - opened).max(initial=0) < COPY
    late = np.abs(command[:-1] - opened[1:]).max(initial=0) < COPY
    return bool(same or late)


SPANS: dict[GripperScale, tuple[float, float]] = {
    "signed": (-1.1, 1.1),
    "unit": (-0.1, 1.1),
    "metres": (-0.02, 0.12),
    "percent": (-5.0, 110.0),
    "degrees": (-400.0, 400.0),
}
"""Smallest and largest value that each scale allows (1st and 99th percentile of an episode)."""

USED: dict[GripperScale, float] = {"signed": 1.0, "unit": 0.5, "metres": 0.015, "percent": 15.0, "degrees": 15.0}
"""Range that an episode must cover before it tells its scale."""

WORDS: dict[GripperScale, str] = {
    "signed": "-1 .. 1",
    "unit": "0 .. 1",
    "metres": "a width in m",
    "percent": "0 .. 100",
    "degrees": "degrees or 0 .. 255",
}


IN_MM, FULL = "a width in mm", 95.0
"""What an opening that stays below so much is beside a command of two values, as grippers of 85 mm have it."""

UNLIKE = {WORDS["unit"], WORDS["percent"]}
"""Scales of one gripper's command and opening that are one of them times 100; widths in m beside shares are usual."""

BY_SIZE: tuple[GripperScale, ...] = ("metres", "unit", "signed", "percent", "degrees")
"""Scales from the smallest to the largest."""

SCALES = [*(WORDS[scale] for scale in BY_SIZE[:3]), IN_MM, *(WORDS[scale] for scale in BY_SIZE[3:])]


def scale_of(low: float, high: float) -> GripperScale | None:
    """The scale that the 1st and 99th percentile of a gripper show; None where it does not move enough to tell."""
    fitting = (s for s in BY_SIZE if SPANS[s][0] <= low and high <= SPANS[s][1])
    scale: GripperScale = next(fitting, "degrees")
    return scale if high - low >= USED[scale] else None


class GripperScaleDetector(Detector):
    """a2: grippers stay on the scale that was decided, and a named layout's state within its domain."""

    name, code, question, action = "gripper_scale", "a2", "gripper scale", "stop"
    advice = "name the layout that the data have (--manifest), or rescale the gripper in the recordings"
    min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per gripper column and one per bound of the layout."""
        found = []
        for claim in episode.claims.grippers:
            if claim.action is not None:
                column = episode.state.shape[1] + claim.action
                found.append(self._scale(episode, f"{claim.name} command", column, claim.action_scale))
            for column in claim.state if claim.state_scale else claim.state[:1]:
                name = f"{claim.name} state" if len(claim.state) < 2 else f"{claim.name} {episode.state_names[column]}"
                found.append(self._scale(episode, name, column, claim.state_scale, _is_switch(episode, claim)))
        stated = [verdict for verdict in found if verdict.decided or verdict.measured]
        return (*stated, *(self._bound(episode, bound) for bound in episode.claims.bounds))

    def _scale(
        self, episode: EpisodeInput, subject: str, column: int, claimed: GripperScale | None, switched: bool = False
    ) -> Verdict:
        low, high = (float(episode.columns.percentile(share)[column]) for share in (1, 99))
        seen = scale_of(low, high)
        decided, measured = (WORDS[claimed] if claimed else ""), (WORDS[seen] if seen else "")
        detail = f"values {low:.4g} .. {high:.4g}"
        outside = claimed is not None and not (SPANS[claimed][0] <= low and high <= SPANS[claimed][1])
        smaller = claimed in ("unit", "percent", "signed") and seen == "metres"
        smaller = smaller or (claimed == "percent" and seen == "unit")
        if claimed is None or (seen is None and not outside):
            measured = IN_MM if claimed is None and switched and seen == "percent" and high < FULL else measured
            reason = detail if seen else f"{detail}: too little motion to tell the scale"
            return self.verdict("no evidence", reason, subject=subject, decided=decided, value=high, measured=measured)
        wrong = outside or smaller
        return self.verdict(
            "contradicted" if wrong else "confirmed",
            detail,
            subject=subject,
            value=high,
            n=len(episode.state),
            decided=decided,
            measured=measured or "another scale",
            action="stop" if episode.claims.layout else "warn",
        )

    def _bound(self, episode: EpisodeInput, bound: Bound) -> Verdict:
        low, high = _ends(episode, bound)
        wrong = low < bound.low or high > bound.high
        return self.verdict(
            "contradicted" if wrong else "confirmed",
            f"values {low:.4g} .. {high:.4g}",
            subject=bound.name,
            value=high if high > bound.high or not wrong else low,
            n=len(episode.state),
            decided=f"{bound.low:g} .. {bound.high:g} as in layout {episode.claims.layout}",
            measured=f"{low:.4g} .. {high:.4g}",
            action="stop" if episode.claims.layout else "warn",
        )

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """By agreement, and one more verdict where data sets of one store show different scales."""
        pooled = pooling.by_agreement(episodes, self.name, self.min_episodes)
        known = group_scales(episodes, self.name)
        mixed = (self._mixed(s, scales) for s, scales in known.items() if len(set(scales.values())) > 1)
        return (*pooled, *mixed, *self._unlike(known, episodes))

    def _unlike(
        self, known: Mapping[str, Mapping[str, str]], episodes: Sequence[EpisodeMeasurement]
    ) -> Iterator[DatasetVerdict]:
        """A verdict per gripper whose command is on 0 .. 1 and whose opening on 0 .. 100, or the other way round."""
        for subject, scales in known.items():
            name, _, kind = subject.rpartition(" ")
            openings = known.get(f"{name} state", {}) if kind == "command" else {}
            odd = [group for group, scale in scales.items() if {scale, openings.get(group)} == UNLIKE]
            if odd:
                of_these = [each.episode for each in episodes if each.group in odd]
                yield DatasetVerdict(
                    self.name,
                    "contradicted",
                    f"{name} command and state",
                    episodes_for=len(episodes) - len(of_these),
                    against=len(of_these),
                    action="warn",
                    decided="one scale",
                    measured=f"command {scales[odd[0]]}, state {openings[odd[0]]}",
                    episodes=tuple(of_these[:MAX_LISTED]),
                )

    def _mixed(self, subject: str, scales: Mapping[str, str]) -> DatasetVerdict:
        listed = ", ".join(f"{group} {scale}" for group, scale in sorted(scales.items())[:4])
        return DatasetVerdict(
            self.name,
            "contradicted",
            f"{subject} across data sets",
            against=len(scales),
            action="warn",
            decided="one scale",
            measured=f"several scales: {listed}",
        )


def group_scales(episodes: Sequence[EpisodeMeasurement], detector: str) -> dict[str, dict[str, str]]:
    """Subject -> group -> the largest scale that any of its episodes shows, or was decided for it, in words."""
    scales: dict[str, dict[str, str]] = {}
    for measurement in episodes:
        for verdict in measurement.of(detector):
            groups, scale = scales.setdefault(verdict.subject, {}), _scale_words(verdict)
            if scale and groups.get(measurement.group) != scale:
                groups[measurement.group] = max(groups.get(measurement.group, scale), scale, key=_rank)
    return scales


def _is_switch(episode: EpisodeInput, claim: GripperClaim) -> bool:
    """Whether a gripper's command has two values, which tell nothing of the scale of its opening."""
    if claim.action is None:
        return False
    column = episode.state.shape[1] + claim.action
    values = episode.columns.values[column]
    ends = (values == episode.columns.low[column]) | (values == episode.columns.high[column])
    return bool(ends.all())


def _ends(episode: EpisodeInput, bound: Bound) -> tuple[float, float]:
    """Smallest and largest value of what is bounded; NaN where a value is."""
    if len(bound.columns) == 1 and not bound.weights:
        column = bound.columns[0]
        return float(episode.columns.low[column]), float(episode.columns.high[column])
    weights = np.asarray(bound.weights or (1.0,) * len(bound.columns))
    values = episode.state64[:, list(bound.columns)] @ weights
    return float(values.min()), float(values.max())


def _scale_words(verdict: Verdict) -> str:
    """The scale that a verdict tells in words; one that a store keeps has its value alone, or the words as detail."""
    stated = (text for text in (verdict.measured, verdict.decided, verdict.detail) if text in SCALES)
    known = next(stated, "")
    if known or verdict.verdict != "confirmed" or verdict.value is None or not verdict.subject.endswith(KINDS):
        return known
    high = verdict.value
    return next((WORDS[s] for s in ("metres", "unit", "percent") if USED[s] <= high <= SPANS[s][1]), "")


KINDS = ("command", "state")
"""How subjects of gripper columns end; those of bounds end otherwise."""


def _rank(scale: str) -> int:
    return SCALES.index(scale)


DETECTORS = (GripperPolarity(), GripperScaleDetector())
