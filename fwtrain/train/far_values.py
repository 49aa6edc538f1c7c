"""Training rows that lie far outside the statistics they are normalised with."""

from __future__ import annotations

import numpy as np

from fwtrain.data.source import StoreSource
from fwtrain.data.stores import command_word
from fwtrain.data.usual import UsualValues

LOOKED_AT = 64
"""Training episodes whose rows are compared, evenly spread."""


def far_values(source: StoreSource) -> list[str]:
    """A sentence each for state and action where rows of 64 episodes lie far outside; normalisation clips them."""
    mode, found = source.manifest.normalisation.mode, []
    count = len(source.train)
    chosen = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).round().astype(int))
    episodes = [source.train[index] for index in chosen]
    names = {"state": tuple(source.store.state_names), "action": tuple(source.store.action_names)}
    for what, normaliser in (("state", source.state), ("action", source.action)):
        usual = UsualValues(names[what], normaliser, mode)
        far = []
        for episode in episodes:
            rows = episode.state() if what == "state" else episode.action()
            outside = usual.far(rows)
            if outside.any():
                worst = int(outside.sum(axis=1).argmax())
                far.append((episode.id, usual.sentence(rows[worst], np.flatnonzero(outside[worst]).tolist(), "lies")))
        if far:
            first = far[0]
            found.append(
                f"{what} rows of {len(far)} of {len(episodes)} episodes are far outside the statistics, such as "
                f"{first[0]}, which {first[1]}; compute them again with `fwdata stats "
                f"{command_word(source.store)}`"
            )
    return found
