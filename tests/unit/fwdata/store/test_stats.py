"""Normalisation statistics: the official golden, the rules at the edges, and the official file's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fixtures import (
    ROBOTWIN,
    run_convert,
    toy_manifest,
    toy_store,
    write_toy,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from robotwin_files import write_task

import fwdata
from fwdata.errors import StaleCache, StoreDamaged, UsageError
from fwdata.manifest import Split, load_manifest
from fwdata.store.caches.stats import NAMES, Statistics, compute_statistics, save_statistics, statistics_of
from fwdata.store.records.statistics import StatisticsRecord

GOLDEN = json.loads((ROBOTWIN / "dataset_stats_golden.json").read_text())


def golden_rows() -> list[NDArray[Any]]:
    rows = []
    for name in GOLDEN["episodes"]:
        with h5py.File(ROBOTWIN / name) as file:
            rows.append(np.asarray(file["joint_action/vector"], np.float32))
    return rows


@pytest.mark.parametrize("kind", ["state", "action"])
def test_golden_statistics(kind: str) -> None:
    rows = golden_rows()
    found = statistics_of([r[:-1] for r in rows], [r[1:] for r in rows], 32)
    for name in NAMES:
        values = np.array(getattr(getattr(found, kind), name))
        assert np.allclose(values, GOLDEN[kind][name], rtol=1e-5, atol=1e-7), name
    assert (found.num_episodes, found.num_transitions) == (2, sum(len(r) - 1 for r in rows))


def naive(episodes: list[NDArray[Any]], horizon: int) -> dict[str, NDArray[Any]]:
    """Action statistics by the official rules, one window at a time."""
    per_step: list[list[NDArray[Any]]] = []
    for rows in episodes:
        windows = np.stack([[rows[min(t + k, len(rows) - 1)] for k in range(horizon)] for t in range(len(rows))])
        per_step.append([windows[:, k].astype(np.float64) for k in range(horizon)])
    flat = [step for steps in per_step for step in steps]
    means = np.stack([s.mean(0) for s in flat])
    variances = np.stack([s.var(0, ddof=1) for s in flat])
    return {
        "min": np.min([s.min(0) for s in flat], 0),
        "max": np.max([s.max(0) for s in flat], 0),
        "mean": means.mean(0),
        "std": np.sqrt((variances + (means - means.mean(0)) ** 2).mean(0)),
        "q01": np.min([np.quantile(s, 0.01, axis=0) for s in flat], 0),
        "q99": np.max([np.quantile(s, 0.99, axis=0) for s in flat], 0),
    }


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(2, 12), min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 10**6))
def test_actions_match_the_naive_rules(lengths: list[int], horizon: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    episodes = [rng.normal(3, 2, (n, 3)).astype(np.float32) for n in lengths]
    found = statistics_of(episodes, episodes, horizon)
    for name, expected in naive(episodes, horizon).items():
        assert np.allclose(getattr(found.action, name), expected, rtol=1e-9, atol=1e-12), name
    for name, expected in naive(episodes, 1).items():
        assert np.allclose(getattr(found.state, name), expected, rtol=1e-9, atol=1e-12), name
    assert np.array(found.action.stepwise["mean"]).shape == (horizon, 3)
    assert np.array(found.state.stepwise["mean"]).shape == (1, 3)


def test_one_row_episodes_are_left_out() -> None:
    long = np.arange(12, dtype=np.float32).reshape(6, 2)
    short = np.full((1, 2), 1e6, np.float32)
    found = statistics_of([long, short], [long, short], 4)
    assert found == statistics_of([long], [long], 4)
    assert (found.num_episodes, found.num_transitions) == (1, 6)
    with pytest.raises(UsageError, match="two frames"):
        statistics_of([short], [short], 4)


def test_every_episode_weighs_the_same() -> None:
    low, high = np.zeros((50, 1), np.float32), np.ones((2, 1), np.float32)
    assert statistics_of([low, high], [low, high], 1).state.mean == (0.5,)


def test_official_file_layout(tmp_path: Path) -> None:
    rows = golden_rows()
    statistics_of([r[:-1] for r in rows], [r[1:] for r in rows], 32).save_json(tmp_path / "dataset_stats.json")
    content = json.loads((tmp_path / "dataset_stats.json").read_text())
    assert content.keys() == {"state", "action", "num_episodes", "num_transition"}
    for kind, steps in (("state", 1), ("action", 32)):
        entries = content[kind]["default"]
        assert entries.keys() == {f"{scope}_{name}" for scope in ("stepwise", "global") for name in NAMES}
        assert np.array(entries["stepwise_q99"]).shape == (steps, 14)
        assert np.allclose(entries["global_mean"], GOLDEN[kind]["mean"], rtol=1e-5, atol=1e-7)


def test_json_round_trip_is_exact() -> None:
    rng = np.random.default_rng(1)
    rows = [rng.normal(size=(5, 2)).astype(np.float32)]
    found = statistics_of(rows, rows, 3)
    assert Statistics.of(StatisticsRecord.model_validate(json.loads(json.dumps(found.to_json())))) == found


def test_only_training_episodes_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fwdata.open(toy_store(tmp_path, monkeypatch, {"a": [5, 6, 7, 8]}, split=Split(val=0.5)))
    train = [e for e in store.episodes if e.split == "train"]
    assert len(train) == 2
    expected = statistics_of([e.state() for e in train], [e.action() for e in train], 32)
    assert store.stats() == compute_statistics(store) == expected


def test_saved_statistics_are_read_and_refused_when_episodes_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [5, 6]})
    store = fwdata.open(path)
    made = compute_statistics(store)
    save_statistics(store, made)
    monkeypatch.setattr(
        "fwdata.store.caches.stats.compute_statistics", lambda store: pytest.fail("the saved ones were not read")
    )
    assert fwdata.open(path).stats() == made
    (path / "stats" / "dataset_stats.json").write_text("{}")  # as earlier releases left it
    save_statistics(store, made)
    assert [file.name for file in (path / "stats").iterdir()] == ["zarr.json"]
    write_toy(tmp_path / "raw", {"b": [4]})
    run_convert(tmp_path / "raw", path, toy_manifest(monkeypatch))
    with pytest.raises(StaleCache, match="fwdata stats"):
        fwdata.open(path).stats()
    (path / "stats" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(StoreDamaged):
        fwdata.open(path).stats()


def test_robots_do_not_share_statistics(tmp_path: Path) -> None:
    write_task(tmp_path / "raw", "archive", "click_bell", [0], embodiment="fr3", n_arm=7)
    write_task(tmp_path / "raw", "classic", "click_bell", [1], n_arm=7)  # known by its joints when it is read
    run_convert(tmp_path / "raw", tmp_path / "s.zarr", load_manifest("robotwin-sample"))
    with pytest.raises(UsageError, match=r"the embodiments \['fr3', 'franka-panda'\]"):
        fwdata.open(tmp_path / "s.zarr").stats()
