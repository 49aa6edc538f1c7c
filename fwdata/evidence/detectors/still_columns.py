"""Single columns that never change though their other half does: a joint that was not read, or not commanded (h13)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from fwdata.evidence.columns import Mask
from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.columns import own_scores
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Verdict
from fwdata.evidence.signals import CONSTANT, Floats, middle

OTHERS, FOLLOWS, FOLLOWS_CHANGE = 2, 0.8, 0.5
"""Other columns whose state follows its action, at least half of those that move, and how well: targets, and changes,
which are noisier."""

TRAVEL, LEAST, OF_VALUE = 0.5, 0.02, 0.05
"""How far the half that moves goes at least: as a share of what these go in the median, in their unit (m, rad), and as
a share of its own largest value, as an open gripper of 0 .. 100 wanders by more than joints move."""

MOST = 0.5
"""Share of the episodes above which a set is as its robot was: GR-1 (5 of 5) has fingers that turn while their command
rests at 3 rad."""

ONE = "columns that change with their other half"


class StillColumns(Detector):
    """h13: no column of the state is the same in every row while its action moves, as others' states follow theirs, nor
    one of an action while its state travels."""

    name, code, question, action = "still_columns", "h13", "every column is recorded", "warn"
    advice = "record the episodes again, or leave them out (--exclude)"
    word = "expected"
    min_rows = 20

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict where other columns of the state follow their actions."""
        width, reach = episode.state.shape[1], episode.columns.reach
        pairs = list(episode.pairs)
        if len(pairs) <= OTHERS:
            return ()
        at = np.array(pairs)
        moved, commanded = reach[at[:, 1]], reach[at[:, 0] + width]
        still = (moved <= CONSTANT) != (commanded <= CONSTANT)
        for claim in episode.claims.grippers:  # a7 tells of an opening that stands still
            still &= (at[:, 0] != claim.action) | (moved > CONSTANT)
        if not still.any():
            return (self._told(episode, []),)
        scores = own_scores(episode, pairs)
        follows = scores >= (FOLLOWS_CHANGE if episode.claims.action == "delta" else FOLLOWS)
        if follows.sum() < max(OTHERS, np.isfinite(scores).sum() / 2):
            return ()
        return (self._told(episode, list(_still(episode, pairs, (moved, commanded), follows, still))),)

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """By agreement; what most episodes have is only recorded."""
        return tuple(
            replace(found, action="note") if found.against > MOST * (found.against + found.episodes_for) else found
            for found in super().pool(episodes)
        )

    def _told(self, episode: EpisodeInput, found: list[str]) -> Verdict:
        return self.verdict(
            "contradicted" if found else "confirmed",
            "; ".join(found[:2]),
            value=float(len(found)),
            n=len(episode.state),
            decided=ONE,
            measured="a column that stands still while its other half moves" if found else ONE,
        )


def _still(
    episode: EpisodeInput, pairs: list[tuple[int, int]], reaches: tuple[Floats, Floats], follows: Mask, still: Mask
) -> Iterator[str]:
    """Which columns never change though their other half travels as far as that of others does."""
    moved, commanded = reaches
    usual = middle(moved[follows]), middle(commanded[follows])
    for place in np.flatnonzero(still).tolist():
        action, state = pairs[place]
        most = np.abs(episode.state[:, state]).max(), np.abs(episode.action[:, action]).max()
        limits = [max(TRAVEL * own, LEAST, OF_VALUE * top) for own, top in zip(usual, most, strict=True)]
        if moved[place] <= CONSTANT and commanded[place] >= limits[1]:
            yield (
                f"state {episode.state_names[state]} is {episode.state[0, state]:.3g} in every row, "
                f"action {episode.action_names[action]} goes {commanded[place]:.3g} far"
            )
        elif commanded[place] <= CONSTANT and moved[place] >= limits[0]:
            yield (
                f"action {episode.action_names[action]} is {episode.action[0, action]:.3g} in every row, "
                f"state {episode.state_names[state]} goes {moved[place]:.3g} far"
            )


DETECTORS = (StillColumns(),)
