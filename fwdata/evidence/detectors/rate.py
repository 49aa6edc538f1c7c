"""Rate: the rates that are stated for the rows must be one (c1)."""

from __future__ import annotations

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import middle

TOLERANCE = 0.02


class RowRate(Detector):
    """c1: decided rate, source's label, container and measured stamps differ by at most 2 %."""

    name, code, question, action = "row_rate", "c1", "rate", "stop"
    advice = "give the rate as `fps.hz` of a manifest (--manifest)"
    min_rows = 1
    min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict; stamps that are row number / rate prove nothing and are not counted."""
        rate = episode.claims.rate
        if rate is None:
            return ()
        stated = {"label": rate.label, "video": rate.container, "the simulator's clock": rate.clock}
        if rate.measured_times and len(episode.timestamp_s) > 2:
            step = middle(np.diff(episode.timestamp_s))
            stated["time stamps"] = 1 / step if step > 0 else None
        known = [(name, value) for name, value in stated.items() if value]
        decided = f"{rate.decided:.5g} Hz"
        if not known:
            return (self.abstain("time stamps are nominal and the source states no rate", decided=decided),)
        usual = [(n, v) for n, v in known if n == "label" and _in(v, rate.known_labels)]
        odd = [(n, v) for n, v in known if (n, v) not in usual and not _same(v, rate.decided)]
        shown = odd or known
        words = ", ".join(f"{name} {value:.5g} Hz" for name, value in shown)
        return (
            self.verdict(
                "contradicted" if odd else "confirmed",
                "a label that the layout is known to carry" if usual and not odd else "",
                value=shown[0][1],
                n=len(known),
                decided=decided,
                measured=words,
            ),
        )


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(one, other)


def _in(value: float, labels: tuple[float, ...]) -> bool:
    return any(_same(value, label) for label in labels)


DETECTORS = (RowRate(),)
