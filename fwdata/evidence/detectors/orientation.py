"""Orientation: apparent motion in the image against the end effector's motion in the world (f1, f2, f3)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fwdata.evidence.claims import Axis, CameraClaim
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Outcome, Severity, Verdict
from fwdata.evidence.signals import correlation, smooth

LIMIT, MIN_TRAVEL, MIN_ROWS = 0.6, 0.03, 20

type Direction = Literal["up", "right"]


class ImageDirection(Detector):
    """Shared by the detectors of up and right: the sign of image motion against world motion, for a known layout."""

    needs_images = True
    direction: Direction
    mounted: bool

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per camera whose orientation the layout tells."""
        claims = [c for c in episode.claims.cameras if c.mounted == self.mounted and c.name in episode.thumbnails]
        if episode.claims.position is None:
            return ()
        return tuple(self._one(episode, c) for c in claims if self._axis(c) is not None)

    def _axis(self, claim: CameraClaim) -> Axis | None:
        return claim.up if self.direction == "up" else claim.right

    def _one(self, episode: EpisodeInput, claim: CameraClaim) -> Verdict:
        axis = self._axis(claim)
        assert axis is not None and episode.claims.position is not None
        along = episode.state64[:, episode.claims.position["xyz".index(axis[0])]]
        travel, decided = float(np.ptp(along)), f"{axis} is {self.direction}"
        if travel < MIN_TRAVEL or len(along) < MIN_ROWS:
            return self.abstain(
                f"the arm moves {travel * 100:.1f} cm along {axis[0]}", subject=claim.name, decided=decided
            )
        motion = episode.motion[claim.name].translation
        shown = -motion[:, 1] if self.direction == "up" else motion[:, 0]
        world = np.diff(along, prepend=along[:1]) * (1.0 if axis[1] == "+" else -1.0)
        score = correlation(smooth(shown), smooth(world))
        if abs(score) < LIMIT:
            return self.abstain(f"correlation {score:+.2f}", subject=claim.name, decided=decided, value=round(score, 4))
        outcome: Outcome = "confirmed" if score > 0 else "contradicted"
        other = {"up": "upside down", "right": "mirrored"}[self.direction]
        severity: Severity = self.action if episode.claims.layout else "warn"
        return self.verdict(
            outcome,
            f"correlation {score:+.2f}",
            subject=claim.name,
            value=round(score, 4),
            n=len(along),
            decided=decided,
            measured=decided if score > 0 else other,
            action=severity,
        )


class UpDown(ImageDirection):
    """f1: a fixed camera shows the end effector rise when it rises."""

    name, code, question, action = "camera_up_down", "f1", "camera up/down", "stop"
    advice = "turn the images in the recordings, or give the direction as `up` of the converter's CameraClaim"
    direction, mounted = "up", False


class LeftRight(ImageDirection):
    """f2: a fixed camera shows the end effector move right when it moves along the axis that is right."""

    name, code, question, action = "camera_left_right", "f2", "camera left/right", "stop"
    advice = "mirror the images in the recordings, or give the direction as `right` of the converter's CameraClaim"
    direction, mounted = "right", False


class WristLeftRight(ImageDirection):
    """f3: the scene in a wrist camera moves against the end effector. Says nothing of up/down for a wrist camera."""

    name, code, question, action = "wrist_left_right", "f3", "wrist camera left/right", "warn"
    advice = "mirror the images in the recordings, or give the direction as `right` of the converter's CameraClaim"
    direction, mounted = "right", True


DETECTORS = (UpDown(), LeftRight(), WristLeftRight())
