"""Rotation: against a quaternion of the same file, against the command, and wrapped components (b4, b5, b6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.claims import RotationClaim, RotationForm
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput, Together
from fwdata.evidence.records import Outcome, Severity, Verdict
from fwdata.evidence.signals import Floats, lagged_each, middle, smooth

ANGLE_LIMIT = 0.01
MIN_SCORE, MARGIN = 0.3, 0.1
COMMAND_LAGS = range(4)
MIN_COMMAND, MIN_ROWS = 0.02, 20
NORM_LIMIT = 1e-3
PART_LENGTHS = 0.8, 1.001
"""Lengths of x, y, z of the quaternion of a gripper that points down, within a radian."""


def from_axis_angle(vectors: Floats) -> Floats:
    """Rotation vectors [T, 3] in rad -> unit quaternions [T, 4] as x, y, z, w."""
    angle = np.linalg.norm(vectors, axis=1, keepdims=True)
    half = np.where(angle > 1e-9, np.sin(angle / 2) / np.maximum(angle, 1e-12), 0.5)
    return np.concatenate([vectors * half, np.cos(angle / 2)], axis=1)


def product(left: Floats, right: Floats) -> Floats:
    """Hamilton products of quaternions [T, 4]: the rotation `right`, then `left`."""
    v, w, u, s = left[:, :3], left[:, 3:], right[:, :3], right[:, 3:]
    across = v[:, [1, 2, 0]] * u[:, [2, 0, 1]] - v[:, [2, 0, 1]] * u[:, [1, 2, 0]]  # np.cross takes five times as long
    vector = w * u + s * v + across
    found: Floats = np.concatenate([vector, w * s - (v * u).sum(axis=1, keepdims=True)], axis=1)
    return found


def inverse(quaternions: Floats) -> Floats:
    """Conjugates of unit quaternions [T, 4]."""
    found: Floats = quaternions * np.asarray([-1.0, -1.0, -1.0, 1.0])
    return found


def to_axis_angle(quaternions: Floats) -> Floats:
    """Unit quaternions [T, 4] -> rotation vectors [T, 3], angles 0 .. pi."""
    q = quaternions * np.where(quaternions[:, 3:] < 0, -1.0, 1.0)
    sine = np.sqrt((q[:, :3] ** 2).sum(axis=1, keepdims=True))
    angle = 2 * np.arctan2(sine, q[:, 3:])
    found: Floats = np.where(sine > 1e-9, q[:, :3] / np.maximum(sine, 1e-12) * angle, 2 * q[:, :3])
    return found


def from_euler(angles: Floats, moving: bool = False) -> Floats:
    """Angles [T, 3] in rad -> quaternions [T, 4] of turns about x, y and z, in this order: about fixed axes, or moving
    with the turns before."""
    return np.stack(_about_axes(np.sin(angles.T / 2), np.cos(angles.T / 2), moving=moving), axis=1)


def _about_axes(sines: Floats, cosines: Floats, *, moving: bool) -> tuple[Floats, ...]:
    """x, y, z, w [T] of the same, from sines and cosines [3, T] of the half angles."""
    (a, b, c), (u, v, w) = sines, cosines
    sign = -1.0 if moving else 1.0
    return (
        a * v * w - sign * u * b * c,
        u * b * w + sign * a * v * c,
        u * v * c - sign * a * b * w,
        u * v * w + sign * a * b * c,
    )


def _zyx(angles: Floats) -> Floats:
    """Yaw, pitch, roll in this column order: the same rotation as roll, pitch, yaw about fixed axes."""
    return from_euler(angles[:, ::-1])


READ: Mapping[RotationForm, Callable[[Floats], Floats]] = {
    "axis_angle": from_axis_angle,
    "quaternion_xyzw": lambda q: q / np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-9),
    "quaternion_wxyz": lambda q: np.roll(q, -1, axis=1) / np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-9),
    "euler_xyz": from_euler,
    "euler_zyx": _zyx,
}

HYPOTHESES = ("axis_angle", "euler_xyz", "euler_zyx", "euler_XYZ")
"""What three numbers may be; the last one: about axes that move with the turns before."""


def angles_between(left: Floats, right: Floats) -> Floats:
    """Angles [T] in rad between rotations given as unit quaternions [T, 4]."""
    found: Floats = np.linalg.norm(to_axis_angle(product(left, inverse(right))), axis=1)
    return found


def _form_of(columns: Floats, reference: Floats) -> str:
    """What numbers are that are another rotation than the quaternions [T, 4] when read as was decided."""
    known: list[tuple[str, Callable[[Floats], Floats]]] = [
        *((name, read) for name, read in READ.items() if name.startswith("quaternion") == (columns.shape[1] == 4)),
        *([("euler_XYZ", lambda angles: from_euler(angles, moving=True))] if columns.shape[1] == 3 else []),
    ]
    fitting = (name for name, read in known if middle(angles_between(read(columns), reference)) <= ANGLE_LIMIT)
    return next(fitting, "another rotation than the file's quaternion")


class RotationForms(Detector):
    """b4: the written rotation and the quaternion of the same file are one rotation."""

    name, code, question, action = "rotation_form", "b4", "rotation", "stop"
    advice = "write the rotation in the layout's form, or give its form as `form` of the converter's RotationClaim"
    min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per rotation; without a quaternion in the file there is no evidence."""
        return tuple(self._one(episode, claim) for claim in episode.claims.rotations)

    def _one(self, episode: EpisodeInput, claim: RotationClaim) -> Verdict:
        subject = episode.state_names[claim.columns[0]]
        columns = episode.state64[:, list(claim.columns)]
        if claim.reference is None or len(claim.reference) != len(episode.state):
            return self._by_length(columns, claim, subject)
        reference = READ["quaternion_xyzw"](claim.reference.astype(np.float64))
        angle = middle(angles_between(READ[claim.form](columns), reference))
        return self.verdict(
            "confirmed" if angle <= ANGLE_LIMIT else "contradicted",
            f"median angle to the quaternion {angle:.4f} rad",
            subject=subject,
            value=angle,
            n=len(columns),
            decided=claim.form,
            measured=claim.form if angle <= ANGLE_LIMIT else _form_of(columns, reference),
        )

    def _by_length(self, columns: Floats, claim: RotationClaim, subject: str) -> Verdict:
        """Without a quaternion, the lengths of what a layout calls rotation vectors of a gripper that points down: they
        are near pi, and those of a quaternion's x, y, z near 1."""
        lengths = np.linalg.norm(columns, axis=1)
        low, high = float(lengths.min(initial=np.inf)), float(lengths.max(initial=0.0))
        if not claim.unwrapped or claim.form != "axis_angle" or low < PART_LENGTHS[0] or high > PART_LENGTHS[1]:
            return self.abstain("the file holds no quaternion to compare with", subject=subject, decided=claim.form)
        return self.verdict(
            "contradicted",
            f"length {low:.3f} .. {high:.3f}, a gripper that points down has some 3.1",
            subject=subject,
            value=high,
            n=len(columns),
            decided=claim.form,
            measured="x, y, z of a quaternion, by their length",
            action="warn",
        )


class RotationCommand(Detector):
    """b5: of several readings of three numbers, the right one turns as the action commands."""

    name, code, question, action = "rotation_command", "b5", "rotation against command", "warn"
    advice = "check the order of the angles; `form` of the converter's RotationClaim gives it"

    def prepare(self, episodes: Sequence[EpisodeInput]) -> None:
        """The correlations of all readings."""
        follows.prepare(episodes)

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per rotation of three columns with a commanded rotation."""
        scored = zip(_commands(episode), follows(episode), strict=True)
        return tuple(self._one(episode, claim, scores) for (claim, _), scores in scored)

    def _one(self, episode: EpisodeInput, claim: RotationClaim, scored: Floats | None) -> Verdict:
        subject = episode.state_names[claim.columns[0]]
        if scored is None:
            return self.abstain("no rotation is commanded", subject=subject, decided=claim.form)
        scores = dict(zip(HYPOTHESES, scored.tolist(), strict=True))
        best, second = sorted(scores, key=lambda name: scores[name], reverse=True)[:2]
        detail = f"correlation {best} {scores[best]:.2f}, {second} {scores[second]:.2f}"
        if scores[best] < MIN_SCORE or scores[best] - scores[second] < MARGIN:
            return self.abstain(detail, subject=subject, decided=claim.form)
        outcome: Outcome = "confirmed" if best == claim.form else "contradicted"
        score = round(scores[best], 4)
        return self.verdict(
            outcome, detail, subject=subject, value=score, n=len(episode.state), decided=claim.form, measured=best
        )


def _commands(episode: EpisodeInput) -> list[tuple[RotationClaim, Floats]]:
    """(rotation, what it is commanded [T, 3]) of every rotation of three columns with a commanded rotation."""
    claims = [claim for claim in episode.claims.rotations if len(claim.columns) == 3 and len(claim.command) == 3]
    return [(claim, episode.action64[:, list(claim.command)]) for claim in claims]


def _commanded(command: Floats) -> bool:
    return not (float(np.abs(command).max(initial=0.0)) < MIN_COMMAND or len(command) < MIN_ROWS)


@Together
def follows(episodes: Sequence[EpisodeInput]) -> list[tuple[Floats | None, ...]]:
    """Of every rotation with a command: float64 [hypotheses], the best mean correlation over lags of the rotation
    between rows with the commanded one (world frame); None where none is commanded."""
    asked = [
        (place, number, episode.state64[:, list(claim.columns)], command)
        for place, episode in enumerate(episodes)
        for number, (claim, command) in enumerate(_commands(episode))
        if _commanded(command)
    ]
    found: list[list[Floats | None]] = [[None] * len(_commands(episode)) for episode in episodes]
    if asked:
        scores = _scores([columns for _, _, columns, _ in asked], [command for *_, command in asked])
        for (place, number, *_), each in zip(asked, scores, strict=True):
            found[place][number] = each
    return [tuple(each) for each in found]


def _scores(columns: Sequence[Floats], commands: Sequence[Floats]) -> list[Floats]:
    """float64 [hypotheses] of each rotation, as of `follows`."""
    turned, first = smoothed_turns(columns), 0
    pairs: list[tuple[Floats, Floats]] = []
    for command in commands:
        used = np.flatnonzero(np.ptp(command, axis=0) > MIN_COMMAND)
        turns = turned[used, :, first : first + len(command) - 1].reshape(-1, len(command) - 1).T
        pairs.append((np.repeat(smooth(command[:-1, used]), len(HYPOTHESES), axis=1), turns))
        first += len(command)
    told = lagged_each(pairs, [COMMAND_LAGS] * len(pairs))
    shaped = (scores.reshape(len(COMMAND_LAGS), -1, len(HYPOTHESES)) for scores in told)
    return [s.mean(axis=1).max(axis=0) if s.shape[1] else np.zeros(len(HYPOTHESES)) for s in shaped]


def smoothed_turns(columns: Sequence[Floats]) -> Floats:
    """float64 [3, hypotheses, T - 1]: the smoothed rotation vectors (world frame) from each row to the next, of several
    episodes [.., 3] of at least three rows one after the other; between two of them it means nothing."""
    turns = turns_between(read_each_way(np.concatenate(columns)))
    ends = np.cumsum([len(each) for each in columns])
    first, last = ends - [len(each) for each in columns], ends - 2
    found = np.empty(turns.shape)
    found[..., 1:-1] = turns[..., :-2] + turns[..., 1:-1] + turns[..., 2:]
    found[..., first] = 2 * turns[..., first] + turns[..., first + 1]
    found[..., last] = turns[..., last - 1] + 2 * turns[..., last]
    found /= 3
    return found


def read_each_way(columns: Floats) -> Floats:
    """float64 [4, hypotheses, T], x, y, z, w of the rotations that numbers [T, 3] are by each of the hypotheses."""
    half = np.ascontiguousarray(columns.T) / 2
    sines, cosines = np.sin(half), np.cos(half)
    turned = (
        from_axis_angle(columns).T,
        _about_axes(sines, cosines, moving=False),
        _about_axes(sines[::-1], cosines[::-1], moving=False),
        _about_axes(sines, cosines, moving=True),
    )
    return np.stack([np.stack(list(each)) for each in turned], axis=1)


def turns_between(quaternions: Floats) -> Floats:
    """float64 [3, .., T - 1], `to_axis_angle` of the `product` of each row of unit quaternions [4, .., T] with the
    `inverse` of the one before."""
    (x, y, z, w), (a, b, c, d) = quaternions[..., 1:], quaternions[..., :-1]
    scalar = x * a + y * b + z * c + w * d
    found: Floats = np.stack(
        [d * x - w * a - (y * c - z * b), d * y - w * b - (z * a - x * c), d * z - w * c - (x * b - y * a)]
    )
    sine = np.sqrt((found * found).sum(axis=0))
    angle = 2 * np.arctan2(sine, np.abs(scalar))
    size = np.divide(angle, sine, out=np.full(sine.shape, 2.0), where=sine > 1e-9)
    found *= np.where(scalar < 0, -size, size)
    return found


TURN_SHARE, EXACT, MIN_STEPS = 0.05, 0.01, 8
"""Share of a full turn that nine in ten steps keep below, how near to it one is at least, and steps that are needed."""


class WrappedAngles(Detector):
    """b6: no component jumps by more than pi between rows; a quaternion has norm 1 and moves."""

    name, code, question, action = "wrapped_angles", "b6", "rotation without jumps", "stop"
    advice = "unwrap the angles in the recordings, or give `unwrapped` of the converter's RotationClaim as False"

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per rotation, and one for columns of which nothing is decided that jump by a full turn."""
        claimed = tuple(self._one(episode, claim) for claim in episode.claims.rotations)
        return (*claimed, *self._others(episode)) if episode.claims.layout is None else claimed

    def _others(self, episode: EpisodeInput) -> Iterator[Verdict]:
        """Columns of a mapping of one's own that step by 2 pi, or by 360, between rows of small steps."""
        steps = episode.columns.steps[: episode.state.shape[1]]
        if steps.shape[1] < MIN_STEPS:
            return
        calm, reach = (each[: len(steps)] for each in (episode.columns.step_percentile(90), episode.columns.reach))
        for turn, unit in ((2 * np.pi, "rad"), (360.0, "degrees")):
            off = np.maximum(EXACT * turn, 2 * calm)[:, None]
            near = (np.abs(steps - turn) < off) & ((calm < TURN_SHARE * turn) & (reach < 2.2 * turn))[:, None]
            if near.any():
                column, row = np.argwhere(near)[0].tolist()
                yield self.verdict(
                    "contradicted",
                    f"{episode.state_names[column]} steps by {steps[column, row]:.4g} {unit} at row {row + 1}",
                    subject="columns",
                    value=float(steps[column, row]),
                    n=int(near.sum()),
                    decided="no jump between rows",
                    measured="jumps by a full turn",
                    action="warn",
                )
                return

    def _one(self, episode: EpisodeInput, claim: RotationClaim) -> Verdict:
        subject, columns = episode.state_names[claim.columns[0]], episode.state64[:, list(claim.columns)]
        severity: Severity = "stop" if claim.unwrapped else "warn"
        if len(claim.columns) == 4:
            return self._quaternion(columns, subject, claim.form)
        step = float(np.abs(np.diff(columns, axis=0)).max(initial=0.0))
        wrapped = step > np.pi
        return self.verdict(
            "contradicted" if wrapped else "confirmed",
            f"largest step of a component {step:.2f} rad",
            subject=subject,
            value=step,
            n=len(columns),
            decided="no jump between rows",
            measured="jumps by a full turn" if wrapped else "no jump between rows",
            action=severity,
        )

    def _quaternion(self, columns: NDArray[np.float64], subject: str, form: str) -> Verdict:
        off = float(np.abs(np.linalg.norm(columns, axis=1) - 1).max())
        good = off <= NORM_LIMIT and float(np.ptp(columns, axis=0).max()) > 0
        return self.verdict(
            "confirmed" if good else "contradicted",
            f"norm differs from 1 by at most {off:.2g}",
            subject=subject,
            value=off,
            n=len(columns),
            decided=form,
            measured=form if good else "not a unit quaternion that moves",
        )


DETECTORS = (RotationForms(), RotationCommand(), WrappedAngles())
