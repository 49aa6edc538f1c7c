"""Counters and latencies of a server, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LOWEST, PER_DECADE, DECADES = 1e-4, 40, 6


@dataclass
class Latencies:
    """A histogram from 0.1 ms to 100 s; a quantile is right to 6 %."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(PER_DECADE * DECADES, np.int64))
    """int64 [bins], requests per bin; bins are equally wide in the logarithm."""

    def add(self, seconds: float) -> None:
        """Count one."""
        place = int(np.log10(max(seconds, LOWEST) / LOWEST) * PER_DECADE)
        self.counts[min(place, len(self.counts) - 1)] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds that `share` of all stay under; None before the first."""
        total = int(self.counts.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return float(LOWEST * 10 ** ((place + 1) / PER_DECADE))


@dataclass
class Stats:
    """What a server has done so far."""

    requests: int = 0
    """Answered requests."""
    failed: int = 0
    """Requests among them that were answered by an error."""
    refused: int = 0
    """Connections that were refused."""
    lost: int = 0
    """Connections that broke off."""
    latencies: Latencies = field(default_factory=Latencies)
    """Of the requests that did not fail."""
    _batches: float = 0.0
    """Number of batches, counted as 1 / size per request."""

    def add(self, seconds: float, *, failed: bool) -> None:
        """Count one answered request."""
        self.requests += 1
        self.failed += failed
        if not failed:
            self.latencies.add(seconds)

    def batched(self, size: int) -> None:
        """Count one request of a batch of `size`."""
        self._batches += 1 / size

    def to_json(self) -> dict[str, object]:
        """Plain JSON; latencies in milliseconds, from a message's arrival to its answer's departure."""
        good = self.requests - self.failed
        quantiles = {f"p{round(100 * share)}_ms": self.latencies.quantile(share) for share in (0.5, 0.95, 0.99)}
        return {
            "requests": self.requests,
            "failed": self.failed,
            "refused": self.refused,
            "lost": self.lost,
            "mean_batch": round(good / self._batches, 2) if self._batches else None,
            **{name: None if value is None else round(1e3 * value, 2) for name, value in quantiles.items()},
        }
