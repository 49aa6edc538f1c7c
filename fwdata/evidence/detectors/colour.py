"""Colour: nothing in the images alone shows the order of red and blue (g1), so only outside evidence counts.

Exchanging red and blue leaves brightness, sharpness and the smoothness of both chroma planes as they are, and the share
of warm pixels is chance in real rooms. A converter that compared with a video of the episode or found a marker says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Verdict


class ColourOrder(Detector):
    """g1: confirmed by the converter's own comparison or a marker; else no evidence, never a guess."""

    name, code, question, action = "colour_order", "g1", "red/blue order", "warn"
    advice = "give the order with the converter's option for colours"
    min_rows = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict where the source format leaves the order open."""
        claim = episode.claims.colour
        if claim is None:
            return ()
        if claim.verified_by is None:
            return (self.abstain(claim.reason or "nothing shows it", decided="true colours"),)
        words = f"shown by {claim.verified_by}"
        return (self.verdict("confirmed", words, n=1, decided="true colours", measured="true colours"),)

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict, which also tells why the other episodes have no evidence."""
        silent = Counter(v.detail for m in episodes for v in m.of(self.name) if v.verdict == "no evidence")
        found = super().pool(episodes)
        if not silent:
            return found
        why = silent.most_common(1)[0][0]
        return tuple(replace(v, detail=f"{v.detail}, others: {why}" if v.episodes_for else why) for v in found)


DETECTORS = (ColourOrder(),)
