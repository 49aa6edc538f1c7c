"""A fixed and a wrist camera exchanged (e5): the image of a camera on an arm changes nearly everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.claims import ArmClaim
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Outcome, Verdict
from fwdata.evidence.signals import spread_places

LOOKED_AT = 32
"""Frames, evenly spread, whose pixels are compared."""

CHANGED = 8.0
"""Standard deviation in grey levels above which a pixel has changed."""

LEAST, NOTHING, RATIO = 0.1, 0.01, 2.0
"""Share of changed pixels that one of the cameras must reach, that the other must reach too (a frozen or black camera
tells nothing), and how many times the larger is the smaller at least."""

EACH = "the wrist camera rides on the arm, the fixed camera does not"


class ExchangedMount(Detector):
    """e5: of a fixed camera and the one on the arm that travels most, the one on the arm changes more pixels."""

    name, code, question, action = "mounts_exchanged", "e5", "fixed and wrist camera", "stop"
    advice = "exchange both cameras in `stitch.cameras` of a manifest (--manifest)"
    word = "expected"
    needs_images = True

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per fixed camera, against the camera of the arm that travels most."""
        arm = _busiest(episode)
        if arm is None or arm.camera is None:
            return ()
        mounted = {claim.camera for claim in episode.claims.arms}
        fixed = [name for name in episode.thumbnails if name not in mounted]
        return tuple(self._one(episode, name, arm.camera) for name in fixed)

    def _one(self, episode: EpisodeInput, fixed: str, wrist: str) -> Verdict:
        still, moved = changed_share(episode.thumbnails[fixed]), changed_share(episode.thumbnails[wrist])
        subject = f"{fixed} and {wrist}"
        detail = f"{still:.0%} of the pixels of {fixed} change, {moved:.0%} of those of {wrist}"
        low, high = min(still, moved), max(still, moved)
        if low < NOTHING or high < LEAST or high < RATIO * low:
            return self.abstain(detail, subject=subject, decided=EACH)
        outcome: Outcome = "confirmed" if moved > still or episode.claims.reordered else "contradicted"
        return self.verdict(
            outcome,
            detail,
            subject=subject,
            value=round(moved / still, 4),
            n=len(episode.state),
            decided=EACH,
            measured=EACH if outcome == "confirmed" else f"{fixed} rides on the arm, {wrist} does not",
            action=self.action if episode.claims.layout else "warn",
        )


def _busiest(episode: EpisodeInput) -> ArmClaim | None:
    """The arm with a camera that travels most; None where none moves."""
    travels: list[tuple[float, ArmClaim]] = []
    moving = set(episode.active.tolist())
    for arm in episode.claims.arms:
        rows = episode.state64[:, list(arm.state)]
        if arm.camera in episode.thumbnails and moving.intersection(arm.state):
            travels.append((float(np.ptp(rows, axis=0).sum()), arm))
    return max(travels, key=lambda item: item[0])[1] if travels else None


def changed_share(images: NDArray[np.uint8]) -> float:
    """Share of the pixels of uint8 [T, h, w] that change over the episode. Cost: 60 us for 48x64 pixels."""
    values = images[spread_places(len(images), LOOKED_AT)].astype(np.float32)  # whose sums are below 2^24, so exact
    count, sums = len(values), values.sum(axis=0).astype(np.float64)
    squares = np.einsum("tij,tij->ij", values, values).astype(np.float64)
    return float((count * squares - sums**2 > (CHANGED * count) ** 2).mean())


DETECTORS = (ExchangedMount(),)
