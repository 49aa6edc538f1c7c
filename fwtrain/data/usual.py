"""Values far outside the statistics that a run normalises with: degrees for radians, grippers of 0 .. 255."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.normalise import STD_OF_FLAT, Float32, Mode, Normaliser

FAR_DEVIATIONS, FAR_RANGE = 10.0, 4.0
"""zscore: standard deviations; minmax and quantile: half ranges from the middle (the ends are at 1)."""

FAR_UNITS = 1.0
"""Of a dimension that did not move in training: units from its value."""

EDGE = {"zscore": 5.0, "minmax": 1.0, "quantile": 1.0}
"""Normalised value that a message calls the end of what was trained on."""

SHOWN = 3


@dataclass(frozen=True)
class UsualValues:
    """What a vector of a run usually holds."""

    names: tuple[str, ...]
    """One name per dimension."""
    normaliser: Normaliser
    """Its normalisation."""
    mode: Mode
    """How that was made."""

    def far(self, values: Float32) -> NDArray[np.bool_]:
        """bool [..., D]: values float [..., D] in the store's units that lie far outside the training statistics."""
        scaled = np.abs(values.astype(np.float64) * self.normaliser.scale + self.normaliser.offset)
        found: NDArray[np.bool_] = scaled > self._limits()
        return found

    def warning(self, values: Float32, what: str) -> str | None:
        """A sentence about the far dimensions of one vector float [D]; None where there are none."""
        far = np.flatnonzero(self.far(values))
        return self.sentence(values, far.tolist(), what) if len(far) else None

    def sentence(self, values: Float32, far: Sequence[int], what: str) -> str:
        """What the far dimensions hold, what was trained on, and what to check."""
        scale, offset = (np.asarray(v, np.float64) for v in (self.normaliser.scale, self.normaliser.offset))
        edge = EDGE[self.mode]
        low, high = (-edge - offset) / scale, (edge - offset) / scale
        listed = [
            f"{self.names[i]} is {values[i]:.4g} (usual in training: {low[i]:.4g} .. {high[i]:.4g})"
            for i in far[:SHOWN]
        ]
        more = f" and {len(far) - SHOWN} more" if len(far) > SHOWN else ""
        return (
            f"{what} far outside the training data in {len(far)} of {len(self.names)} dimensions: "
            f"{', '.join(listed)}{more}; check units and scales (degrees for radians, a gripper of 0 .. 255 for 0 .. 1)"
        )

    def _limits(self) -> NDArray[np.float64]:
        scale = np.abs(np.asarray(self.normaliser.scale, np.float64))
        if self.mode != "zscore":  # a flat dimension keeps scale 1 there
            return np.full(len(scale), FAR_RANGE)
        flat = scale >= 0.9 / float(STD_OF_FLAT)
        return np.where(flat, FAR_UNITS * scale, FAR_DEVIATIONS)
