"""Damage is always noticed: by `fwdata verify`, and by the reader, which never answers with something else.

The short run is part of the default tests; `pytest -m fault` does it at full length.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from old_stores import answers, unpack

from fault.damage import Damage, Kind, damaged
from fault.stores import full_store
from fwdata.errors import StoreError
from fwdata.store.verify import verify_store

FULL: dict[Kind, int] = {"flip": 1000, "truncate": 300, "delete": 100, "swap": 100}
SHORT: dict[Kind, int] = {"flip": 60, "truncate": 25, "delete": 15, "swap": 30}

NOT_READ = "only what is there for others may change without changing an answer"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_store(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def expected(store: Path) -> dict[str, Any]:
    return said(store)


def said(store: Path) -> dict[str, Any]:
    """Everything the reader answers, freshly opened."""
    found: dict[str, Any] = json.loads(json.dumps(answers(store)))
    return found


def noticed(store: Path, kind: Kind, rng: np.random.Generator, expected: dict[str, Any]) -> tuple[Damage, bool, bool]:
    """(what was damaged, whether verify saw it, whether the reader raised). The reader must not answer otherwise."""
    with damaged(store, kind, rng) as damage:
        try:
            seen = bool(verify_store(store).damaged)
        except StoreError:
            seen = True
        try:
            answer = said(store)
        except StoreError:
            return damage, seen, True
        assert answer == expected, f"{damage} changed an answer without an error"
        return damage, seen, False


def run(store: Path, expected: dict[str, Any], counts: dict[Kind, int], seed: int) -> Counter[str]:
    totals: Counter[str] = Counter()
    for kind, count in counts.items():
        rng = np.random.default_rng([seed, len(kind)])
        for _ in range(count):
            damage, seen, raised = noticed(store, kind, rng, expected)
            assert seen, f"verify did not notice {damage}"
            if not raised:
                assert all(is_for_others(store / file) for file in damage.files), f"{damage}: {NOT_READ}"
            totals[kind] += 1
            totals[f"{kind}, reader raised"] += raised
    return totals


def is_for_others(path: Path) -> bool:
    """Whether our reader never needs a file: metadata of a group that carries nothing of ours, what only a further
    conversion asks for, or the record of stitched frames, which are stitched on reading where they are not finished."""
    if {"evidence", "sources"} & {path.parent.name, path.parent.parent.name} or path.parent.name == "frames":
        return True
    return path.name == "zarr.json" and json.loads(path.read_bytes()).get("attributes") == {}


@pytest.mark.slow
def test_damage_of_kept_video_is_noticed(tmp_path: Path) -> None:
    """On the frozen store of layout 2: packets, tables and headers."""
    store = unpack("v2-video", tmp_path)
    counts: dict[Kind, int] = {"flip": 25, "truncate": 10, "delete": 8, "swap": 10}
    totals = run(store, said(store), counts, seed=3)
    assert totals["delete, reader raised"] == counts["delete"]


@pytest.mark.slow
def test_damage_is_noticed(store: Path, expected: dict[str, Any]) -> None:
    totals = run(store, expected, SHORT, seed=1)
    assert {kind: totals[kind] for kind in SHORT} == SHORT
    assert totals["delete, reader raised"] == SHORT["delete"]


def test_an_undamaged_store_gives_no_alarm(store: Path, expected: dict[str, Any]) -> None:
    report = verify_store(store)
    assert report.damaged == []
    assert report.files == sum(1 for p in store.rglob("*") if p.is_file())
    assert said(store) == expected


@pytest.mark.fault
def test_damage_is_noticed_at_full_length(store: Path, expected: dict[str, Any]) -> None:
    totals = run(store, expected, FULL, seed=2)
    print(dict(totals))
    assert {kind: totals[kind] for kind in FULL} == FULL


@pytest.mark.slow
def test_a_sample_reads_a_share_and_misses_no_absent_file(store: Path) -> None:
    whole, part = verify_store(store), verify_store(store, sample=0.2, seed=3)
    assert part.total_files == whole.files and 0 < part.files < whole.files and part.damaged == []
    rng = np.random.default_rng(5)
    with damaged(store, "delete", rng) as damage:
        assert [f.key for f in verify_store(store, sample=0.01, seed=4).findings] == list(damage.files)
    found = 0
    for seed in range(40):
        with damaged(store, "flip", rng):
            try:
                found += bool(verify_store(store, sample=0.5, seed=seed).findings)
            except StoreError:
                found += 1
    assert 20 <= found < 40  # half of the data files, and all metadata
