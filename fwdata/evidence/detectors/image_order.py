"""Images under stamps of others: neighbours exchanged (e8), two cameras that change places on the way (e7)."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.image_motion import ImageMotion
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import percentile

SHORTER, FEWEST, SHARE = 0.8, 2, 0.03
"""The way from image to image is shorter by so much once two neighbours are exchanged, in so many rows, and in such a
share of those that tell something. Of 3251 moving rows of 81 clean cameras, 12 of them real, none is below 0.99."""

LEAST, MOVES = 0.5, 0.3
"""Change over three rows, in grey levels and as a share of its 90th percentile, below which a row tells nothing."""

MOST = 0.4
"""Share of the rows from which images come and go by themselves, as under flickering light: a fifth of them exchanged
gives 0.28 at most."""

MIN_ROWS = 10
"""Rows that tell something before a camera does."""

ACROSS, APART = 0.5, 4.0
"""Where two cameras change places, the image before is nearer to the other camera's image after by this factor, and the
images of one camera differ by so many grey levels."""

IN_ORDER = "images in the order of their rows"
PLACES = "each camera stays where it is"


class ImageOrder(Detector):
    """e8: no image is shown in the place of its neighbour."""

    name, code, question, action = "image_order", "e8", "order of images", "warn"
    advice = "record them again, or sort the images by the times they were taken"
    word = "expected"
    needs_images = True

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per camera whose images of every row were looked at."""
        if episode.every > 1:
            return ()
        return tuple(self._one(camera, motion) for camera, motion in episode.motion.items())

    def _one(self, camera: str, motion: ImageMotion) -> Verdict:
        near, far = motion.energy, motion.energy_over(2)
        kept = near[1:-2] + near[2:-1] + near[3:]  # the way over images t - 1 to t + 2
        turned = far[1:-2] + near[2:-1] + far[2:-1]  # with t and t + 1 exchanged
        tells = kept > max(LEAST, MOVES * float(percentile(kept, 90))) if len(kept) else np.zeros(0, np.bool_)
        if tells.sum() < MIN_ROWS:
            return self.abstain("too few images change", subject=camera)
        nearer = (far[1:-2] < near[1:-2]) & (far[2:-1] < near[3:])  # both are; of a trembling hand one is, by chance
        odd = np.pad(tells & nearer & (turned < SHORTER * kept), 1)
        rows = np.flatnonzero(odd[1:-1] & ~odd[:-2] & ~odd[2:]) + 1  # an image is in one exchange; stripes pass in more
        if len(rows) > MOST * tells.sum():
            return self.abstain("the images come and go", subject=camera)
        bad = len(rows) >= max(FEWEST, SHARE * tells.sum())
        return self.verdict(
            "contradicted" if bad else "confirmed",
            f"{len(rows)} times, the first in rows {rows[0]} and {rows[0] + 1}" if bad else "",
            subject=camera,
            value=float(len(rows)),
            n=int(tells.sum()),
            decided=IN_ORDER,
            measured="neighbouring images exchanged" if bad else IN_ORDER,
        )


class ChangedPlaces(Detector):
    """e7: no two cameras change places within an episode."""

    name, code, question, action = "cameras_change_places", "e7", "places of cameras", "warn"
    advice = "split the recordings there and name the cameras of the second part anew, or leave them out (--exclude)"
    word = "expected"
    needs_images = light = True

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict for all pairs of cameras of one size; none without such."""
        pairs = [
            (one, other)
            for one, other in combinations(episode.motion, 2)
            if episode.motion[one].images.shape == episode.motion[other].images.shape
        ]
        if not pairs:
            return ()
        for one, other in pairs:
            if image := changed_places(episode.motion[one], episode.motion[other]):
                detail = f"{one} and {other} from row {image * episode.every} on"
                measured, row = "two cameras exchanged on the way", float(image * episode.every)
                return (self.verdict("contradicted", detail, value=row, decided=PLACES, measured=measured),)
        return (self.verdict("confirmed", "", value=0.0, n=len(pairs), decided=PLACES, measured=PLACES),)


def changed_places(one: ImageMotion, other: ImageMotion) -> int:
    """The image from which on two cameras show what the other one showed before; 0 where there is none."""
    both = np.minimum(one.changes, other.changes)
    image = int(both[1:].argmax()) + 1 if len(both) > 1 else 0
    if not image or both[image] < APART:
        return 0
    before, after = ((one.images[at].astype(np.int16), other.images[at].astype(np.int16)) for at in (image - 1, image))
    kept = np.abs(after[0] - before[0]).mean() + np.abs(after[1] - before[1]).mean()
    across = np.abs(after[0] - before[1]).mean() + np.abs(after[1] - before[0]).mean()
    return image if across < ACROSS * kept else 0


DETECTORS = (ChangedPlaces(), ImageOrder())
