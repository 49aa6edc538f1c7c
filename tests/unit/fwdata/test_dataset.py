"""`fwdata.WindowDataset`: what `fwtrain` trains on, as a PyTorch dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from fixtures import toy_store
from latent_caches import random_latents
from torch.utils.data import DataLoader

import fwdata
from fwdata.dataset import SamplerState
from fwdata.encode.prompts import encode_text
from fwdata.errors import StoreError, UsageError
from fwtrain.data import open_source, training_reader
from fwtrain.data.order import BatchPlan
from fwtrain.recipe import load_recipe

TASKS = {"push": [40, 7], "pull": [33, 12]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        store = toy_store(tmp_path_factory.mktemp("dataset"), patch, TASKS)
        random_latents(store, stride=2)
        encode_text(store, "tiny")
    return store


def test_its_windows_are_those_that_fwtrain_trains_on(path: Path) -> None:
    dataset = fwdata.WindowDataset(path)
    recipe = load_recipe("tiny", ["data.state_dim=null", "data.action_dim=null"])
    reader = training_reader(open_source(fwdata.open(path), recipe), recipe)
    assert len(dataset) == len(reader.index)
    for position in range(0, len(dataset), 7):
        sample, has_future = dataset[position], bool(reader.index.video[position])
        batch = reader.fetch(BatchPlan(np.array([position]), has_future, 0, 0))
        assert bool(sample.has_future) == has_future == (int(dataset.index.start[position]) % 2 == 0)
        for name in ("first", "context", "proprio", "action", "action_is_pad"):
            assert torch.equal(getattr(sample, name), getattr(batch, name)[0]), name
        if has_future:
            assert batch.future is not None and batch.future_is_pad is not None
            assert torch.equal(sample.future, batch.future[0])
            assert torch.equal(sample.future_is_pad, batch.future_is_pad[0])
        else:
            assert not sample.future.any() and sample.future_is_pad.all()


def test_splits_and_windows_with_future(path: Path) -> None:
    frames = sum(TASKS["push"] + TASKS["pull"])
    assert len(fwdata.WindowDataset(path, "all")) == frames
    futures = fwdata.WindowDataset(path, "all", future_only=True)
    assert len(futures) == sum(-(-n // 2) for n in TASKS["push"] + TASKS["pull"])
    assert all(bool(s.has_future) for s in futures.__getitems__(range(len(futures))))
    train, val = (sum(e.num_frames for e in fwdata.open(path).episodes if e.split == s) for s in ("train", "val"))
    assert len(fwdata.WindowDataset(path)) == train
    if not val:
        with pytest.raises(StoreError, match="no usable window in its val episodes"):
            fwdata.WindowDataset(path, "val")


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_give_the_same_batches(path: Path, context: str) -> None:
    dataset = fwdata.WindowDataset(path)

    def batches(**options: object) -> list[list[torch.Tensor]]:
        loader = DataLoader(dataset, batch_size=8, sampler=dataset.sampler(seed=3), **options)  # type: ignore[arg-type]
        return [list(batch) for batch in loader]

    alone = batches()
    together = batches(num_workers=2, multiprocessing_context=context)
    assert len(alone) == -(-len(dataset) // 8)
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_order_continues_where_it_stood(path: Path) -> None:
    dataset = fwdata.WindowDataset(path)
    whole = dataset.sampler(seed=1)
    order = [*whole, *whole]
    assert sorted(order[: len(dataset)]) == sorted(order[len(dataset) :]) == list(range(len(dataset)))
    assert order[: len(dataset)] != order[len(dataset) :]
    for done in (0, 5, len(dataset) - 1):
        first = dataset.sampler(seed=1)
        walk = iter(first)
        head = [next(walk) for _ in range(done)]
        later = dataset.sampler(seed=99)
        later.load_state_dict(first.state_dict())
        assert len(later) == len(dataset) - done
        assert [*head, *later, *later] == order


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 7}, "of a dataset of 7 windows, this one has"),
        ({"position": 10_000}, "position 10000 do not fit"),
        ({"epoch": -1}, "epoch -1"),
        ({"seed": None}, "seed is missing"),
    ],
)
def test_a_state_that_cannot_be_continued_is_refused(path: Path, change: dict[str, Any], message: str) -> None:
    sampler = fwdata.WindowDataset(path).sampler()
    state = {key: value for key, value in {**sampler.state_dict(), **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        sampler.load_state_dict(cast("SamplerState", state))
    sampler.load_state_dict({"seed": 1, "epoch": 2, "position": 3})  # as earlier versions wrote it
    assert len(sampler) == sampler.state_dict().get("size", 0) - 3


@pytest.mark.parametrize("wrong", [{"split": "test"}, {"verify": "never"}])
def test_unknown_options_name_the_known_ones(path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"must be one of .*, found"):
        fwdata.WindowDataset(path, **wrong)


def test_a_window_outside_is_refused(path: Path) -> None:
    dataset = fwdata.WindowDataset(path)
    assert torch.equal(dataset[-1].first, dataset[len(dataset) - 1].first)
    with pytest.raises(IndexError, match=f"windows 0..{len(dataset) - 1}"):
        dataset[len(dataset)]
    with pytest.raises(IndexError, match="windows are asked for by whole numbers, found float64"):
        dataset.__getitems__([0.5])
