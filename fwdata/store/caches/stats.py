"""Normalisation statistics, as the official trainer computes them, and its `dataset_stats.json`.

State: over the rows of each training episode. Action: over all windows of `action_horizon` rows, one per frame, the
last row repeated past the end; so late rows weigh more than in a plain mean. Per episode e (and window step k): min,
max, mean, unbiased variance, 1 % and 99 % quantiles. Then over episodes, every episode weighing the same:

    mean = average of mean_e      std = sqrt(average of var_e + (mean_e - mean)^2)
    min, max, q01 = min, q99 = max over episodes

`stepwise_*` keeps the window steps apart, `global_*` takes them together. Episodes with fewer than two rows have no
variance and are left out. Source: FastWAM base_lerobot_dataset.py (get_dataset_stats), utils/normalizer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import StaleCache, UsageError, quoted
from fwdata.io import write_atomic
from fwdata.store.caches.identity import unlike
from fwdata.store.files import LocalFiles, canonical_json, json_digest
from fwdata.store.metadata import COMPLETE, read_complete, write_record
from fwdata.store.records import JsonObject
from fwdata.store.records.statistics import FieldStatisticsRecord, StatisticsRecord, StatsRecord

if TYPE_CHECKING:
    from fwdata.manifest import Manifest
    from fwdata.store.episode import StoreContents

NAMES = ("min", "max", "mean", "std", "q01", "q99")

type OfficialField = dict[str, list[float] | list[list[float]]]
"""`global_min` .. `global_q99`, one number per dimension, and `stepwise_min` .., the same per window step."""


class OfficialStatistics(TypedDict):
    """The official `dataset_stats.json`, and the document of `fwdata stats --json`."""

    state: dict[str, OfficialField]
    """"default" -> `global_min`, `stepwise_min` and so on, of min, max, mean, std, q01 and q99; robot units."""
    action: dict[str, OfficialField]
    """The same of the action."""
    num_episodes: int
    """Training episodes."""
    num_transition: int
    """Their rows."""


@dataclass(frozen=True)
class FieldStatistics:
    """Statistics of state or action over the training rows; one number per dimension."""

    min: tuple[float, ...]
    """Least value."""
    max: tuple[float, ...]
    """Greatest value."""
    mean: tuple[float, ...]
    """Mean value."""
    std: tuple[float, ...]
    """Population standard deviation."""
    q01: tuple[float, ...]
    """1 % quantile."""
    q99: tuple[float, ...]
    """99 % quantile."""
    stepwise: dict[str, list[list[float]]]
    """The same six by name, per window step: [K][D]."""

    def official(self) -> OfficialField:
        """`{"stepwise_min", "global_min", ..}` of the official file."""
        entries: OfficialField = {}
        for name in NAMES:
            entries[f"stepwise_{name}"] = self.stepwise[name]
            entries[f"global_{name}"] = list(getattr(self, name))
        return entries


@dataclass(frozen=True)
class Statistics:
    """Statistics of a store's training episodes."""

    state: FieldStatistics
    """Of the state."""
    action: FieldStatistics
    """Of the action."""
    num_episodes: int
    """Training episodes."""
    num_transitions: int
    """Rows of the episodes counted."""

    def official(self) -> OfficialStatistics:
        """The content of the official `dataset_stats.json`."""
        return {
            "state": {"default": self.state.official()},
            "action": {"default": self.action.official()},
            "num_episodes": self.num_episodes,
            "num_transition": self.num_transitions,
        }

    def save_json(self, path: str | Path) -> None:
        """Write `dataset_stats.json` in the official layout, atomically."""
        write_atomic(Path(path), canonical_json(self.official()))

    def to_json(self) -> JsonObject:
        """Plain JSON, the document of `StatisticsRecord`."""
        return asdict(self)

    @staticmethod
    def of(record: StatisticsRecord) -> Statistics:
        """As a store keeps them."""

        def read(item: FieldStatisticsRecord) -> FieldStatistics:
            stepwise = {name: [list(row) for row in rows] for name, rows in item.stepwise.items()}
            return FieldStatistics(item.min, item.max, item.mean, item.std, item.q01, item.q99, stepwise)

        return Statistics(read(record.state), read(record.action), record.num_episodes, record.num_transitions)


class _RunningMoments:
    """Per-episode moments of windows [T, K, D], merged over episodes with equal weight."""

    def __init__(self) -> None:
        self._moments: list[NDArray[np.float64]] = []

    def add(self, values: NDArray[np.float32]) -> None:
        wide = values.astype(np.float64)
        low, high = np.quantile(wide, [0.01, 0.99], axis=0)
        moments = (wide.min(0), wide.max(0), wide.mean(0), wide.var(0, ddof=1), low, high)
        self._moments.append(np.stack(moments))

    def result(self) -> FieldStatistics:
        every = np.stack(self._moments)  # [E, 6, K, D]
        steps = _merge(every.transpose(1, 0, 2, 3), axis=0)
        merged = every.transpose(1, 0, 2, 3).reshape(6, -1, every.shape[-1])
        whole = {name: tuple(float(v) for v in value) for name, value in _merge(merged, axis=0).items()}
        return FieldStatistics(**whole, stepwise={name: value.tolist() for name, value in steps.items()})


def _merge(moments: NDArray[np.float64], axis: int) -> dict[str, NDArray[np.float64]]:
    low, high, means, variances, q01, q99 = moments
    mean = means.mean(axis)
    std = np.sqrt((variances + (means - mean) ** 2).mean(axis))
    return {
        "min": low.min(axis),
        "max": high.max(axis),
        "mean": mean,
        "std": std,
        "q01": q01.min(axis),
        "q99": q99.max(axis),
    }


def statistics_of(
    states: list[NDArray[np.float32]], actions: list[NDArray[np.float32]], action_horizon: int
) -> Statistics:
    """Statistics of episodes given as float32 [T, Ds] states and [T, Da] actions. UsageError when none has two rows."""
    state, action, rows, used = _RunningMoments(), _RunningMoments(), 0, 0
    for episode_state, episode_action in zip(states, actions, strict=True):
        length = len(episode_state)
        if length < 2:
            continue
        window = np.minimum(np.arange(length)[:, None] + np.arange(action_horizon), length - 1)
        state.add(episode_state[:, None])
        action.add(episode_action[window])
        rows, used = rows + length, used + 1
    if not used:
        raise UsageError("statistics need at least one training episode with two frames")
    return Statistics(state.result(), action.result(), used, rows)


def merge_statistics(several: Sequence[Statistics]) -> Statistics:
    """Statistics over the episodes of all, every episode weighing the same: those of one set of all these episodes.

    Exact up to rounding of float64: means and variances of groups add up by their numbers of episodes.
    """
    first, counts = several[0], np.array([s.num_episodes for s in several], np.float64)
    if len(several) == 1:
        return first
    transitions = sum(s.num_transitions for s in several)
    state, action = (_merge_fields([getattr(s, name) for s in several], counts) for name in ("state", "action"))
    return Statistics(state, action, int(counts.sum()), transitions)


def _merge_fields(fields: Sequence[FieldStatistics], counts: NDArray[np.float64]) -> FieldStatistics:
    whole = _merge_groups({name: np.array([getattr(f, name) for f in fields]) for name in NAMES}, counts)
    steps = _merge_groups({name: np.array([f.stepwise[name] for f in fields]) for name in NAMES}, counts)
    return FieldStatistics(
        **{name: tuple(value.tolist()) for name, value in whole.items()},
        stepwise={name: value.tolist() for name, value in steps.items()},
    )


def _merge_groups(
    values: dict[str, NDArray[np.float64]], counts: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """values: [groups, ..] per name; counts: episodes per group."""
    mean = np.average(values["mean"], axis=0, weights=counts)
    variance = np.average(values["std"] ** 2 + (values["mean"] - mean) ** 2, axis=0, weights=counts)
    merged = {"mean": mean, "std": np.sqrt(variance)}
    for name in ("min", "q01"):
        merged[name] = values[name].min(0)
    for name in ("max", "q99"):
        merged[name] = values[name].max(0)
    return merged


def _identity(store: StoreContents) -> JsonObject:
    """What the statistics of a store depend on."""
    parts = json_digest([part.digest for part in store.parts])
    return {"parts": parts, **statistics_settings(store.manifest)}


def statistics_settings(manifest: Manifest) -> JsonObject:
    """What the identity of statistics must hold besides the episodes, for a store with this manifest."""
    return {"split": manifest.split.model_dump(), "action_horizon": manifest.window.action_horizon}


def compute_statistics(store: StoreContents, progress: Callable[[int], None] = lambda _: None) -> Statistics:
    """Statistics of a store's training episodes; reads all state and action rows (about 5 ms an episode).

    UsageError when the episodes come from different robots, whose dimensions must not share statistics.
    """
    if len(store.embodiments) > 1:
        raise UsageError(
            f"{store.location} holds the embodiments {sorted(store.embodiments)}, which must not share statistics; "
            "convert each to a store of its own (option embodiment)"
        )
    states, actions = [], []
    for episode in store.episodes:
        if episode.split == "train":
            states.append(episode.state())
            actions.append(episode.action())
        progress(1)
    return statistics_of(states, actions, store.manifest.window.action_horizon)


def save_statistics(store: StoreContents, statistics: Statistics) -> None:
    """Keep statistics in the store, under `stats/`, with what they were made from.

    A `dataset_stats.json` that an earlier release put beside them is removed: Zarr knows no such file in a group.
    """
    assert isinstance(store.files, LocalFiles)
    folder = store.files.root / "stats"
    numbers = StatisticsRecord.model_validate(statistics.to_json())
    record = StatsRecord(state=COMPLETE, identity=_identity(store), statistics=numbers, digests={})
    write_record(folder, record)
    (folder / "dataset_stats.json").unlink(missing_ok=True)


def load_statistics(store: StoreContents) -> Statistics | None:
    """The saved statistics, None when there are none; StaleCache when the episodes changed since they were made."""
    record = read_complete(store.files, "stats", StatsRecord)
    if record is None:
        return None
    found, now = record.identity, _identity(store)
    if found != now:
        view = unlike(found, statistics_settings(store.manifest))
        why = [*(["were made from other episodes"] if found.get("parts") != now["parts"] else [])]
        why += [f"do not match the view: {'; '.join(view)}"] if view else []
        raise StaleCache(
            f"the statistics of {store.location} {' and '.join(why)}; run `fwdata stats {quoted(store.location)}` again"
        )
    return Statistics.of(record.statistics)
