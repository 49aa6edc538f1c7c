"""Training data: order, windows, normalisation, prefetching. On a store in memory."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_store import FakeStore, vector_statistics
from training import run

from fwdata.errors import StoreError, UsageError
from fwdata.normalise import Normaliser
from fwtrain.data import (
    DataOrder,
    Prefetcher,
    TextTable,
    WindowReader,
    build_index,
    open_source,
    training_order,
    training_reader,
    validation_plans,
)
from fwtrain.recipe import Recipe, load_recipe
from fwtrain.train.build import build_model


def recipe(*overrides: str) -> Recipe:
    return load_recipe("tiny", ["optim.batch_size=8", *overrides])


def order_of(store: FakeStore, **options) -> DataOrder:
    index = build_index(store.episodes, store.cache, store.cache.window)
    return DataOrder(index, **{"batch_size": 8, "seed": 1, **options})


def epoch_windows(order: DataOrder, epoch: int, video: bool | None = None) -> list[int]:
    plans = order.epoch(epoch).plans
    return [int(w) for plan in plans if video is None or plan.video == video for w in plan.windows]


def test_every_frame_of_every_episode_is_a_start():
    store = FakeStore((40, 1, 33), val=0)
    index = build_index(store.episodes, store.cache, store.cache.window)
    assert len(index) == 74
    assert index.start[index.episode == 0].tolist() == list(range(40))
    assert index.video.all()


def test_windows_never_reach_an_invalid_frame():
    store = FakeStore((80,), val=0, invalid=(40,))
    index = build_index(store.episodes, store.cache, store.cache.window)
    assert index.start.tolist() == [*range(8), *range(41, 80)]


def test_an_epoch_deals_every_window_and_fills_only_the_last_batch():
    order = order_of(FakeStore((40, 20, 33), val=0))
    dealt = epoch_windows(order, 0)
    assert set(dealt) == set(range(93))
    assert len(dealt) == 96
    assert order.batches_per_epoch == 12
    assert all(len(plan.windows) == 8 for plan in order.epoch(0).plans)


def test_order_is_a_function_of_seed_and_epoch_alone():
    store = FakeStore()
    one, other = order_of(store), order_of(store)
    other.epoch(5)
    assert epoch_windows(one, 2) == epoch_windows(other, 2)
    assert epoch_windows(one, 0) != epoch_windows(one, 1)
    assert epoch_windows(one, 0) != epoch_windows(order_of(store, seed=2), 0)


def test_steps_walk_through_epochs_in_order():
    order = order_of(FakeStore((40, 20), val=0), accumulation=3)
    assert order.batches_per_epoch == 8
    assert order.steps_per_epoch == 3
    walked = [plan for step in range(6) for plan in order.step(step)]
    expected = [*order.epoch(0).plans, *order.epoch(1).plans]
    assert [(p.epoch, p.number) for p in walked] == [(p.epoch, p.number) for p in expected]
    assert all((a.windows == b.windows).all() for a, b in zip(walked, expected, strict=True))


def test_batches_hold_one_kind_and_stride_decides_which_windows_have_video():
    store = FakeStore((40, 20), val=0, stride=4)
    order = order_of(store)
    index = build_index(store.episodes, store.cache, store.cache.window)
    video = set(epoch_windows(order, 0, video=True))
    assert video == set(np.flatnonzero(index.start % 4 == 0).tolist())
    assert video.isdisjoint(epoch_windows(order, 0, video=False))
    assert order.video_share == pytest.approx(15 / 60)


def test_video_fraction_takes_other_windows_every_epoch():
    order = order_of(FakeStore((64, 64), val=0), video_fraction=0.25)
    first, second = (set(epoch_windows(order, e, video=True)) for e in (0, 1))
    assert len(first) == len(second) == 32
    assert first != second
    assert set(epoch_windows(order, 0)) == set(range(128))


def test_joint_and_idm_use_only_windows_with_future_latents():
    store = FakeStore((40, 20, 33, 50), stride=4)
    source = open_source(store, recipe("model.variant=joint"))
    reader = training_reader(source, recipe("model.variant=joint"))
    order = training_order(reader.index, recipe("model.variant=joint", "data.video_fraction=0.5"))
    assert all(plan.video for plan in order.epoch(0).plans)
    assert order.num_windows == reader.index.video.sum() < len(reader.index)


@pytest.mark.parametrize("override", ["model.variant=no-video", "model.lambda_video=0"])
def test_without_video_loss_future_latents_are_never_read(override: str):
    store, chosen = FakeStore(), recipe(override)
    reader = training_reader(open_source(store, chosen), chosen)
    for plan in training_order(reader.index, chosen).epoch(0).plans:
        assert reader.fetch(plan).future is None
    assert store.cache.future_calls == 0


def test_a_batch_holds_the_windows_of_its_plan():
    store, chosen = FakeStore(), recipe()
    source = open_source(store, chosen)
    reader = training_reader(source, chosen)
    plan = training_order(reader.index, chosen).step(0)[0]
    batch = reader.fetch(plan)
    for row, window in enumerate(plan.windows):
        episode, start = store.episodes[int(reader.index.episode[window])], int(reader.index.start[window])
        rows = np.minimum(start + np.arange(32), episode.num_frames - 1)
        assert batch.action[row].numpy() == pytest.approx(source.action.apply(episode.action()[rows]))
        assert batch.proprio[row].numpy() == pytest.approx(source.state.apply(episode.state()[start]))
        assert batch.action_is_pad[row].tolist() == [start + k >= episode.num_frames for k in range(32)]
        assert batch.future_is_pad[row].tolist() == [start + 4 >= episode.num_frames, start + 20 >= episode.num_frames]
        assert (batch.first[row].numpy() == store.cache.first(episode, np.asarray([start]))[0]).all()
        assert (batch.future[row].numpy() == store.cache.future(episode, np.asarray([start]))[0]).all()
    assert batch.context.shape == (8, 8, 16)
    assert (batch.context[:, 5:] == 0).all()


def test_delta_dimensions_are_zero_past_the_end_and_others_repeat():
    store, chosen = FakeStore((10, 12), val=1), recipe()
    store.metadata["manifest"]["normalisation"]["delta_actions"] = [0, 2]
    source = open_source(store, chosen)
    reader = training_reader(source, chosen)
    plan = training_order(reader.index, chosen).step(0)[0]
    batch = reader.fetch(plan)
    zero = source.action.apply(np.zeros(14, np.float32))
    last = source.action.apply(store.episodes[0].action()[-1])
    padded = batch.action[batch.action_is_pad].numpy()
    assert len(padded)
    assert (padded[:, [0, 2]] == zero[[0, 2]]).all()
    assert (padded[:, [1, 3]] == last[[1, 3]]).all()
    assert (reader.raw_action(plan)[:, -1] == store.episodes[0].action()[-1]).all()


def test_sampled_instructions_differ_by_epoch_but_not_by_reader():
    store = FakeStore((64,), val=0)
    chosen = recipe("data.instruction=sample", "optim.batch_size=64")
    source = open_source(store, chosen)
    readers = [training_reader(source, chosen) for _ in range(2)]
    plans = [training_order(readers[0].index, chosen).epoch(e).plans[0] for e in (0, 1)]
    first, again = (reader.fetch(plans[0]).context for reader in readers)
    assert torch.equal(first, again)
    prompts = {store.text().embedding(source.manifest.render_prompt(t))[0, 0] for t in store.episodes[0].instructions}
    assert {np.float16(v) for v in first[:, 0, 0].numpy()} == prompts
    assert not torch.equal(first, readers[0].fetch(plans[1]).context)


def test_text_table_reads_once_and_forgets_the_oldest():
    calls = []

    class Text:
        def embedding(self, prompt: str) -> np.ndarray:
            calls.append(prompt)
            return np.zeros((2, 4), np.float16)

    table = TextTable(Text(), max_bytes=64)
    table.stack(["a", "b", "a"])
    assert calls == ["a", "b"]
    table.stack(["c", "a"])
    assert calls == ["a", "b", "c"]
    table.get("b")
    assert calls == ["a", "b", "c", "b"]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_keeps_the_order_and_raises_in_place(workers: int):
    gate = threading.Event()

    def fetch(number: int) -> int:
        if number == 0 and workers > 1:
            gate.wait(1)  # the first result comes last
        if number == 1:
            gate.set()
        if number == 5:
            raise StoreError("five")
        return number * 10

    with Prefetcher(fetch, range(10), workers) as items:
        assert [next(items) for _ in range(5)] == [0, 10, 20, 30, 40]
        with pytest.raises(StoreError, match="five"):
            next(items)
    assert items.waited > 0


def test_batches_come_while_the_model_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fetch, seen = WindowReader.fetch, threading.Event()

    def make(*given, **named):
        assert seen.wait(120)
        return build_model(*given, **named)

    monkeypatch.setattr(WindowReader, "fetch", lambda self, *given: (seen.set(), fetch(self, *given))[1])
    monkeypatch.setattr("fwtrain.train.loop.build_model", make)
    assert run(tmp_path / "run", "optim.steps=1", "validation.windows=0").finished


def test_validation_windows_are_spread_over_the_validation_episodes():
    store, chosen = FakeStore((40, 40, 40), val=2), recipe("validation.windows=10")
    found = validation_plans(open_source(store, chosen), chosen)
    assert found is not None
    reader, plans = found
    windows = np.concatenate([plan.windows for plan in plans])
    assert len(windows) == 10
    assert {episode.id for episode in reader.episodes} == {"episode1", "episode2"}
    assert set(reader.index.episode[windows].tolist()) == {0, 1}
    assert validation_plans(open_source(FakeStore(val=0), chosen), chosen) is None


def test_wrong_dimensions_are_named():
    with pytest.raises(UsageError, match="recipe tiny is for 8 state dimensions, the store has 14"):
        open_source(FakeStore(), recipe("data.state_dim=8"))


def test_a_store_without_usable_windows_is_refused():
    chosen = recipe()
    store = FakeStore((20,), val=0, invalid=(19,))
    with pytest.raises(StoreError, match="usable training window"):
        training_reader(open_source(store, chosen), chosen)


def test_reader_is_safe_in_threads():
    store, chosen = FakeStore(), recipe()
    reader: WindowReader = training_reader(open_source(store, chosen), chosen)
    plans = training_order(reader.index, chosen).epoch(0).plans
    expected = [reader.fetch(plan) for plan in plans]
    fresh = training_reader(open_source(store, chosen), chosen)
    with Prefetcher(fresh.fetch, plans, 4) as batches:
        for have, want in zip(batches, expected, strict=True):
            assert torch.equal(have.action, want.action)
            assert torch.equal(have.first, want.first)


class TestNormaliser:
    rows = np.random.default_rng(0).normal(2.0, 3.0, (200, 3)).astype(np.float32)

    def make(self, mode, rows=None, **options):
        statistics = vector_statistics(self.rows if rows is None else rows)
        return Normaliser.from_statistics(statistics, mode, ("a", "b", "c"), **options)

    def test_zscore(self):
        scaled = self.make("zscore").apply(self.rows)
        std = self.rows.std(0, ddof=1) + np.float32(1e-8)
        expected = self.rows * (np.float32(1) / std) + -self.rows.mean(0) / std
        assert scaled == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert scaled.dtype == np.float32

    @pytest.mark.parametrize(("mode", "low", "high"), [("minmax", 0.0, 1.0), ("quantile", 0.01, 0.99)])
    def test_ranges_map_to_minus_one_and_one(self, mode, low, high):
        edges = np.quantile(self.rows, [low, high], axis=0).astype(np.float32)
        assert self.make(mode).apply(edges) == pytest.approx(np.asarray([[-1] * 3, [1] * 3]), abs=1e-5)

    @pytest.mark.parametrize("mode", ["zscore", "minmax", "quantile"])
    def test_round_trip(self, mode):
        normaliser = self.make(mode)
        inside = np.clip(self.rows, self.rows.mean(0) - 2, self.rows.mean(0) + 2)
        assert normaliser.invert(normaliser.apply(inside)) == pytest.approx(inside, abs=1e-4)

    def test_values_are_clipped_at_five_and_the_inverse_is_not(self):
        normaliser = self.make("zscore")
        assert normaliser.apply(np.full(3, 1e6, np.float32)).tolist() == [5.0] * 3
        assert (normaliser.invert(np.full(3, 100.0, np.float32)) > 100).all()

    def test_a_range_below_the_limit_only_shifts(self):
        rows = np.full((10, 3), 0.7, np.float32)
        assert self.make("minmax", rows).scale.tolist() == [1.0] * 3
        assert self.make("minmax", rows).apply(rows[0]) == pytest.approx([0.0] * 3, abs=1e-6)

    def test_a_joint_that_never_moves_stays_at_zero(self):
        rows = np.full((10, 3), 0.7, np.float32)
        statistics = vector_statistics(rows)
        statistics.std = np.zeros(3, np.float32)
        statistics.mean = np.nextafter(rows[0], np.float32(1))  # rounding of the mean
        guarded = Normaliser.from_statistics(statistics, "zscore", ("a", "b", "c"))
        official = Normaliser.from_statistics(statistics, "zscore", ("a", "b", "c"), guard=False)
        assert np.abs(guarded.apply(rows)).max() < 1e-3
        assert np.abs(official.apply(rows)).max() > 1
        assert guarded.invert(guarded.apply(rows)) == pytest.approx(rows, abs=1e-6)

    def test_statistics_that_are_not_finite_name_the_dimension(self):
        statistics = vector_statistics(self.rows)
        statistics.std[1] = np.nan
        with pytest.raises(StoreError, match=r"dimension b are not finite$"):
            Normaliser.from_statistics(statistics, "zscore", ("a", "b", "c"))
        with pytest.raises(StoreError, match=r"not finite; run `fwdata stats 'my store.zarr'` again"):
            Normaliser.from_statistics(statistics, "zscore", ("a", "b", "c"), where="my store.zarr")

    def test_json_keeps_every_bit(self):
        normaliser = self.make("zscore")
        again = Normaliser.from_json(normaliser.to_json())
        assert (again.scale == normaliser.scale).all()
        assert (again.offset == normaliser.offset).all()
