"""Normalisation of state and action, exactly as the official trainer does it (fastwam/.../utils/normalizer.py).

    x' = clip(x * scale + offset, -5, 5)        inverse: (x' - offset) / scale, not clipped

    minmax    r = max - min; scale = 2/r, offset = -1 - scale*min; where r < 1e-4: scale = 1, offset = -min
    quantile  the same with q01 and q99
    zscore    scale = 1/(std + 1e-8), offset = -mean/(std + 1e-8)

Two guards, where the official arithmetic breaks down:
- statistics that are not finite (the official code makes NaN of one-frame episodes) are refused;
- zscore with std < 1e-4: the official scale reaches 1e8, where float32 rounding of x alone spans the clip range, so
  that a joint that never moves becomes noise of +-5. Such dimensions use std = 1e-3 instead (`guard=False`: official).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import StoreError, quoted

type Mode = Literal["zscore", "minmax", "quantile"]
type Float32 = NDArray[np.float32]

CLIP = np.float32(5.0)
FLAT_RANGE = np.float32(1e-4)
FLAT_STD = np.float32(1e-4)
STD_OF_FLAT = np.float32(1e-3)


@dataclass(frozen=True)
class Normaliser:
    """One affine map per dimension; D is the width of the state or action vector."""

    scale: Float32
    """float32 [D], factor."""
    offset: Float32
    """float32 [D], summand."""

    @classmethod
    def from_statistics(
        cls,
        statistics: object,
        mode: Mode,
        names: Sequence[str],
        what: str = "action",
        *,
        guard: bool = True,
        where: str = "",
    ) -> Normaliser:
        """The map of one vector's statistics: an object with float [D] `min`, `max`, `mean`, `std`, `q01`, `q99`.

        Raises StoreError naming the first dimension whose statistics are not finite, or a width other than `names`;
        where: the store that is to compute them again, if it is known.
        """
        advice = f"; run `fwdata stats {quoted(where)}` again" if where else ""

        def column(key: str) -> Float32:
            values = np.asarray(getattr(statistics, key), dtype=np.float32)
            if values.shape != (len(names),):
                raise StoreError(
                    f"statistics {what}.{key} have shape {values.shape}, the store has {len(names)} {what} "
                    f"dimensions{advice}"
                )
            if not np.isfinite(values).all():
                name = names[int(np.flatnonzero(~np.isfinite(values))[0])]
                raise StoreError(f"statistics {what}.{key} of dimension {name} are not finite{advice}")
            return values

        if mode == "zscore":
            return cls._zscore(column("mean"), column("std"), guard)
        low, high = ("min", "max") if mode == "minmax" else ("q01", "q99")
        return cls._range(column(low), column(high))

    @classmethod
    def _zscore(cls, mean: Float32, std: Float32, guard: bool) -> Normaliser:
        if guard:
            std = np.where(std < FLAT_STD, STD_OF_FLAT, std).astype(np.float32)
        divisor = std + np.float32(1e-8)
        return cls(np.float32(1) / divisor, -mean / divisor)

    @classmethod
    def _range(cls, low: Float32, high: Float32) -> Normaliser:
        width = high - low
        flat = width < FLAT_RANGE
        scale = np.where(flat, np.float32(1), np.float32(2) / np.where(flat, np.float32(1), width)).astype(np.float32)
        offset = np.where(flat, -low, np.float32(-1) - scale * low).astype(np.float32)
        return cls(scale, offset)

    def apply(self, values: Float32) -> Float32:
        """float32 [..., D] in the robot's units to normalised values in [-5, 5]."""
        scaled: Float32 = np.clip(values * self.scale + self.offset, -CLIP, CLIP)
        return scaled

    def invert(self, values: Float32) -> Float32:
        """Normalised float32 [..., D] back to the robot's units."""
        result: Float32 = (values - self.offset) / self.scale
        return result

    def to_json(self) -> dict[str, list[float]]:
        """JSON form; float32 values survive it exactly."""
        return {"scale": self.scale.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Normaliser:
        """Inverse of `to_json`."""
        return cls(np.asarray(data["scale"], np.float32), np.asarray(data["offset"], np.float32))
