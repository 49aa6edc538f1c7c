"""Cameras: frozen, black, saturated, noise, alike, exchanged, slower than the rows (e1 to e4)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.image_motion import NOISE_LEVELS, ImageMotion
from fwdata.evidence.records import FROZEN, Verdict
from fwdata.evidence.sides import ON_AN_ARM
from fwdata.evidence.signals import Floats, correlation, lagged, percentile
from fwdata.wording import counted

STILL = 0.02
FROZEN_ROWS, FROZEN_SECONDS, MOST = 20, 1.0, 0.5
MIN_MOVING, WHOLE = 10, 0.9
"""Moving rows that are needed, and the share of them without change that is a dead camera in any episode."""
FROZEN_RUN, FROZEN_SHARE = 8, 0.3
"""Moving rows without change up to the last one, and their share of all: a camera that ends on the way in a short
episode. The longest true run is 11 of 333 rows."""

BLACK_MEAN, BLACK_STD = 8.0, 4.0
DARK_MEAN, DARK_STD = 16.0, 8.0
"""Mean and contrast below which an image shows hardly anything; the darkest true camera has 32 and 13."""
SATURATED_VALUE, SATURATED_SHARE = 254, 0.5
BLANK_ROWS = 3
"""Rows without an image, black or saturated, from which an episode whose other images are good is reported."""
NOISY_CHANGE, NOISY_CONTRAST, NOISY_NEIGHBOURS = 0.45, 2.0, 0.3
"""Change from an image to the next over their contrast, contrast, and correlation of neighbouring pixels from which
images are noise: 0.57 to 1.12 and 0.02 at most for random pixels of any size and coding; genuine and made cameras reach
0.35 and have 0.70 at least."""
ALIKE = 2.0
MIN_FRAMES = 5
OF_ITS_ARM, EXCHANGED, EXCHANGED_DEAD, EXCHANGED_LAGS = 0.2, 0.4, 0.6, range(-3, 4)
"""Least scores for and against; the largest one where one of the images never changes, which is more often a dead
camera. Where both arms start and stop together, scores of clean episodes go down to -0.36 (2 of 90 were reported);
those of the sample world and of genuine recordings, which an exchange turns round, are mostly above 0.5."""
REPEATED = 0.4

CREEP, EVEN = 0.05, 0.15
"""Speed that is added to all before their logarithm, and the standard deviation of that below which an arm moves too
evenly to be told from the other: 0.02 in recordings of steady sines, 0.76 and more in genuine ones."""


class FrozenCamera(Detector):
    """e1: a run of moving rows without any change of the image."""

    name, code, question, action = FROZEN, "e1", "camera keeps recording", "warn"
    advice = "leave the camera out (`cameras` and `stitch.cameras` of a manifest), or the episodes (--exclude)"
    word = "expected"
    needs_images = light = True

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per camera."""
        return tuple(self._one(episode, name) for name in episode.thumbnails)

    def _one(self, episode: EpisodeInput, camera: str) -> Verdict:
        moving, limit = episode.moving_of(camera), max(FROZEN_ROWS, round(FROZEN_SECONDS * episode.hz))
        count = int(np.count_nonzero(moving))
        if count < MIN_MOVING:
            return self.abstain(
                f"{counted(count, 'moving row')}, {MIN_MOVING} are needed", subject=camera, decided=DECIDED
            )
        if is_black(episode.motion[camera]):
            return self.abstain("the image is black", subject=camera, decided=DECIDED)
        still = (episode.motion[camera].energy < STILL)[moving]
        longest, share, dead, frozen = 0, 0.0, False, False
        if still.any():
            (first, last), share = _longest(still), float(still.mean())
            longest = last - first + 1
            rows, motion = np.flatnonzero(moving), episode.motion[camera]
            dead = (longest >= limit or share >= WHOLE) and not _creeps(motion, rows[first : last + 1])
            frozen = dead or ((ends := _ends(still)) > 0 and not _creeps(motion, rows[-ends:]))
        return self.verdict(
            "contradicted" if frozen else "confirmed",
            f"longest run of {counted(longest, 'moving row')} without change, {share:.0%} of them in all",
            subject=camera,
            value=float(longest),
            n=count,
            decided=DECIDED,
            measured="frozen" if frozen else DECIDED,
            action="stop" if dead and share > MOST and not _rides_unknown(episode, camera) else "warn",
        )


def _ends(still: NDArray[np.bool_]) -> int:
    """The last of the moving rows, in which the image never changes again; 0 where they may be a last small step."""
    changing = np.flatnonzero(~still)
    last = len(still) - 1 - int(changing[-1]) if len(changing) else len(still)
    return last if last >= max(FROZEN_RUN, FROZEN_SHARE * len(still)) else 0


def _creeps(motion: ImageMotion, rows: NDArray[np.int64]) -> bool:
    """Whether the image changes over rows [n] without a change from one to the next, before their middle and behind it:
    a slow arm, or one in a dark room, changes less in a row than what counts as noise."""
    images = motion.images[rows[[0, len(rows) // 2, -1]] // motion.every].astype(np.int16)
    change = np.maximum(np.abs(images[[0, 2]] - images[1]) - NOISE_LEVELS, 0).mean(axis=(1, 2))
    return bool(change.min() >= STILL)


def _rides_unknown(episode: EpisodeInput, camera: str) -> bool:
    """Whether a camera rides on an arm by its name, and nothing tells which: that arm may rest while another moves."""
    known = any(arm.camera == camera for arm in episode.claims.arms)
    return not known and bool(ON_AN_ARM.search(camera.lower()))


DECIDED = "the image changes while the robot moves"


def _longest(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """The first and the last place of the longest run of True, of which there is one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    run = int((edges[1::2] - edges[::2]).argmax())
    return int(edges[2 * run]), int(edges[2 * run + 1]) - 1


class DeadCamera(Detector):
    """e2: cameras that are black, saturated or noise, and two that show the same."""

    name, code, question, action = "camera_content", "e2", "camera content", "stop"
    advice = "leave the camera out (`cameras` and `stitch.cameras` of a manifest), or the episodes (--exclude)"
    min_rows = 5
    word = "expected"
    needs_images = light = True

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per camera, and one per pair of cameras that are alike."""
        seen = {name: motion for name, motion in episode.motion.items() if len(motion.images) >= MIN_FRAMES}
        found = [self._one(name, motion) for name, motion in seen.items()]
        return (*found, *(v for a, b in combinations(seen, 2) if (v := self._alike(a, b, seen[a], seen[b]))))

    def _one(self, camera: str, motion: ImageMotion) -> Verdict:
        images, (mean, std) = motion.spread, motion.brightness
        full = np.count_nonzero(images >= SATURATED_VALUE) / images.size
        black, measured = is_black(motion), "an image of the scene"
        detail = f"mean {mean:.0f}, contrast {std:.0f} of 255, {full:.0%} saturated"
        if black or full > SATURATED_SHARE:
            measured = "black" if black else "saturated"
        elif _is_noise(motion):
            measured = "noise"
        elif mean < DARK_MEAN and std < DARK_STD:
            measured = "nearly black"
        elif lost := _blank_rows(motion):
            measured, detail = f"{lost[0]} in some rows", lost[1]
        return self.verdict(
            "confirmed" if measured == "an image of the scene" else "contradicted",
            detail,
            subject=camera,
            value=round(mean, 2),
            n=len(images),
            decided="an image of the scene",
            measured=measured,
            action="stop" if black else "warn",
        )

    def _alike(self, one: str, other: str, left: ImageMotion, right: ImageMotion) -> Verdict | None:
        a, b = left.spread, right.spread
        if a.shape != b.shape or abs(left.brightness[0] - right.brightness[0]) >= ALIKE:
            return None  # the means cannot be farther apart than the images are
        difference = float((np.maximum(a, b) - np.minimum(a, b)).sum(dtype=np.uint32) / a.size)
        if difference >= ALIKE or left.brightness[1] < BLACK_STD:
            return None
        return self.verdict(
            "contradicted",
            f"mean difference {difference:.2f} of 255",
            subject=f"{one} and {other}",
            value=difference,
            n=len(a),
            decided="two cameras",
            measured="the same image twice",
            action="warn",
        )


def is_black(motion: ImageMotion) -> bool:
    """Whether the images, as far as they are compared, show nothing."""
    mean, std = motion.brightness
    return mean < BLACK_MEAN and std < BLACK_STD


def _is_noise(motion: ImageMotion) -> bool:
    """Whether no pixel tells anything of its neighbours, nor of itself in the next image."""
    contrast = motion.brightness[1]
    if contrast < NOISY_CONTRAST or float(motion.changes.mean()) < NOISY_CHANGE * contrast:
        return False
    pixels = motion.spread.astype(np.float64)
    pixels -= pixels.mean(axis=(1, 2), keepdims=True)
    across, down = (pixels[..., 1:] * pixels[..., :-1]).mean(), (pixels[:, 1:] * pixels[:, :-1]).mean()
    return bool(max(abs(across), abs(down)) < NOISY_NEIGHBOURS * (pixels**2).mean())


def _blank_rows(motion: ImageMotion) -> tuple[str, str] | None:
    """(black or saturated, which rows) where single images of a camera that works show nothing; None where none do."""
    dark, bright = motion.means < BLACK_MEAN, motion.means > SATURATED_SHARE * SATURATED_VALUE
    if not (dark | bright).any():
        return None
    if dark.any():
        dark[dark] = motion.images[dark].std(axis=(1, 2)) < BLACK_STD
    if bright.any():
        full = (motion.images[bright] >= SATURATED_VALUE).view(np.uint8).sum(axis=(1, 2), dtype=np.uint32)
        bright[bright] = full > SATURATED_SHARE * motion.images[0].size
    for name, blank in (("black", dark), ("saturated", bright)):
        rows = np.flatnonzero(blank) * motion.every
        if len(rows) * motion.every >= BLANK_ROWS:
            return name, f"{len(rows) * motion.every} of {motion.rows} rows, the first is {rows[0]}"
    return None


class ExchangedWrists(Detector):
    """e3: each wrist camera's image moves with its own arm."""

    name, code, question, action = "wrists_exchanged", "e3", "wrist cameras", "stop"
    advice = "exchange both cameras in `stitch.cameras` of a manifest (--manifest)"
    word = "expected"
    needs_images = True

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict for two arms with a camera each; an arm that rests or moves evenly adds nothing."""
        arms = [arm for arm in episode.claims.arms or episode.likely_arms if arm.camera in episode.thumbnails]
        if len(arms) != 2:
            return ()
        speeds = [episode.speed_of(str(arm.camera)) for arm in arms]
        energies = [episode.motion[str(arm.camera)].energy for arm in arms]
        halves = [
            (arm.name, follows(energies[own], each), follows(energies[1 - own], each))
            for own, (arm, each) in enumerate(zip(arms, speeds, strict=True))
            if len(each) and float(np.log(each + CREEP).std()) > EVEN
        ]
        if not halves:
            return (self.abstain("no arm moves at more than one speed", decided=OWN),)
        score = sum(own - other for _, own, other in halves)
        detail = ", ".join(f"{name} arm: own camera {own:.2f}, other {other:.2f}" for name, own, other in halves)
        dead = score < 0 and any(float((energy < STILL).mean()) >= WHOLE for energy in energies)
        doubtful = score < 0 and any(own > other for _, own, other in halves)  # an exchange shows on both arms
        least = OF_ITS_ARM if score > 0 else EXCHANGED_DEAD if dead else EXCHANGED
        if doubtful or abs(score) < least:
            return (self.abstain(detail, decided=OWN, value=round(score, 4)),)
        return (
            self.verdict(
                "confirmed" if score > 0 else "contradicted",
                detail,
                value=round(score, 4),
                n=len(episode.state),
                decided=OWN,
                measured=OWN if score > 0 else "each wrist image moves with the other arm",
                action="stop" if episode.claims.arms else "warn",
            ),
        )


OWN = "each wrist image moves with its own arm"


def follows(energy: Floats, speeds: Floats) -> float:
    """Best correlation over lags -3..3 of log energy and log speed."""
    scores = lagged(np.log(speeds + CREEP)[:, None], np.log(energy + STILL)[:, None], EXCHANGED_LAGS)
    return float(scores.max())


class SlowCamera(Detector):
    """e4: images held for several rows: the camera is slower than the rows."""

    name, code, question, action = "camera_rate", "e4", "camera rate", "note"
    word = "expected"
    needs_images = True

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per camera; contradicted where every second image or so is a repeat."""
        found: list[Verdict] = []
        if episode.every > 1:
            return ()
        for camera in episode.thumbnails:
            moving = episode.moving_of(camera)
            if moving.sum() < FROZEN_ROWS:
                found.append(self.abstain("too few moving rows", subject=camera, decided=EVERY))
                continue
            energy = episode.motion[camera].energy
            repeats = float((energy[moving] < repeat_limit(energy)).mean())
            alternates = correlation(energy[1:-1], energy[2:]) if len(energy) > 4 else 0.0
            slow = repeats > REPEATED and alternates < 0
            rate = episode.hz * (1 - repeats)
            measured = f"about {rate:.0f} images a second for {episode.hz:.0f} rows" if slow else EVERY
            found.append(
                self.verdict(
                    "contradicted" if slow else "confirmed",
                    f"{repeats:.0%} of moving rows repeat the image, autocorrelation {alternates:+.2f}",
                    subject=camera,
                    value=round(repeats, 4),
                    n=int(moving.sum()),
                    decided=EVERY,
                    measured=measured,
                )
            )
        return tuple(found)


EVERY = "a new image for every row"


def repeat_limit(energy: Floats) -> float:
    """Energy below which an image repeats the one before: compressed video leaves a little."""
    return max(STILL, 0.1 * float(percentile(energy, 75)))


DETECTORS = (FrozenCamera(), DeadCamera(), ExchangedWrists(), SlowCamera())
