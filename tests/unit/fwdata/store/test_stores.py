"""Training on several stores: one set of statistics, windows by weight, the right caches, exact resume."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_store import FakeCache, FakeEpisode, FakeStore, FakeText
from hypothesis import given, settings
from hypothesis import strategies as st
from training import SMALL, assert_same_run, recipe, run

import fwdata
from fwdata.errors import StaleCache, StoreError, UsageError
from fwdata.store.caches.stats import Statistics, merge_statistics, statistics_of
from fwtrain import cli
from fwtrain.data import BatchPlan, join_stores, open_source, training_order, training_reader, validation_plans
from fwtrain.errors import RunMismatch
from fwtrain.train.folder import RunFolder


class Named(FakeStore):
    """A store of its own name and episodes, with real statistics. first: index of its first episode's rows."""

    def __init__(self, name: str, lengths: tuple[int, ...], first: int = 0, **options: object) -> None:
        super().__init__(lengths, **options)  # type: ignore[arg-type]
        self.location, self.fingerprint = f"data/{name}.zarr", f"print-{name}"
        for episode in self.episodes:
            episode.index += first

    def stats(self) -> Statistics:
        train = [e for e in self.episodes if e.split == "train"]
        return statistics_of([e.state() for e in train], [e.action() for e in train], 32)


class Shifted(FakeCache):
    """Latents that no other cache holds."""

    def first(self, episode: FakeEpisode, indices: np.ndarray) -> np.ndarray:
        return super().first(episode, indices) + np.float16(3)


def two(val: int = 1) -> tuple[Named, Named]:
    return Named("a", (40, 30, 35), val=val), Named("b", (20, 25, 30, 36), first=10, val=val)


def test_statistics_of_groups_are_those_of_all_episodes() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(rng.normal(0, 3), rng.uniform(0.1, 2), (n, 3)).astype(np.float32) for n in (5, 40, 9, 2, 1, 33)]
    groups = [rows[:1], rows[1:4], rows[4:]]
    merged = merge_statistics([statistics_of(g, [r * 2 for r in g], 4) for g in groups])
    whole = statistics_of(rows, [r * 2 for r in rows], 4)
    assert (merged.num_episodes, merged.num_transitions) == (whole.num_episodes, whole.num_transitions) == (5, 89)
    for one, other in ((merged.state, whole.state), (merged.action, whole.action)):
        for name in ("min", "max", "mean", "std", "q01", "q99"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)
            np.testing.assert_allclose(one.stepwise[name], other.stepwise[name], rtol=1e-12)


def test_windows_come_from_their_own_store() -> None:
    a, b = two()
    b.cache = Shifted()
    chosen = recipe()
    source = open_source(join_stores([a, b]), chosen)
    assert [e.id for e in source.train] == ["a:episode0", "a:episode1", *(f"b:episode{i}" for i in (10, 11, 12))]
    assert [e.id for e in source.val] == ["a:episode2", "b:episode13"]
    assert [(s.name, s.train, s.weight) for s in source.stores] == [("a", 2, 1.0), ("b", 3, 1.0)]
    reader = training_reader(source, chosen)
    for plan in training_order(reader.index, chosen, source.stores).epoch(0).plans:
        batch = reader.fetch(plan)
        for row, window in enumerate(plan.windows):
            member = source.train[reader.index.episode[window]]
            episode, cache = member.episode, (a, b)[member.member].cache
            start = reader.index.start[window]
            assert np.array_equal(batch.first[row].numpy(), cache.first(episode, np.array([start]))[0])
            assert batch.future is not None
            assert np.array_equal(batch.future[row].numpy(), cache.future(episode, np.array([start]))[0])
            assert np.array_equal(batch.proprio[row].numpy(), source.state.apply(episode.state()[start]))
    named = reader.describe(BatchPlan(np.array([0, len(reader.index) - 1]), True, 0, 0))
    assert named == "a:episode0 frame 0; b:episode12 frame 29"
    found = validation_plans(source, chosen)
    assert found is not None and {e.store for e in found[0].episodes} == {"a", "b"}


def test_a_prompt_is_looked_up_in_every_store() -> None:
    a, b = two()
    known = {"a": "lift", "b": "drop"}

    def text(store: Named) -> FakeText:
        class Own(FakeText):
            def embedding(self, prompt: str) -> np.ndarray:
                if prompt != known[Path(store.location).stem]:
                    raise StoreError(f"no embedding of {prompt!r}")
                return super().embedding(prompt)

        return Own()

    a.text, b.text = (lambda name=None: text(a)), (lambda name=None: text(b))  # type: ignore[method-assign]
    joined = join_stores([a, b]).text()
    for prompt in known.values():
        assert np.array_equal(joined.embedding(prompt), FakeText().embedding(prompt))
    with pytest.raises(StoreError, match="no embedding of 'push'"):
        joined.embedding("push")


def test_weight_one_is_plain_concatenation() -> None:
    a, b = two()
    plain, weighted = recipe(), recipe("data.weights=[1, 1.0]")
    orders = []
    for chosen in (plain, weighted):
        source = open_source(join_stores([a, b]), chosen)
        index = training_reader(source, chosen).index
        orders.append(training_order(index, chosen, source.stores))
    whole = Counter(w for plan in orders[0].epoch(1).plans for w in plan.windows.tolist())
    assert set(whole) == set(range(145))
    for one, other in zip(orders[0].epoch(1).plans, orders[1].epoch(1).plans, strict=True):
        assert np.array_equal(one.windows, other.windows)


@settings(max_examples=20, deadline=None)
@given(
    weights=st.tuples(*[st.floats(0.05, 3.5)] * 2),
    stride=st.sampled_from([1, 4]),
    fraction=st.sampled_from([0.5, 1.0]),
    epoch=st.integers(0, 5),
)
def test_an_epoch_draws_each_store_by_its_weight(
    weights: tuple[float, float], stride: int, fraction: float, epoch: int
) -> None:
    a, b = Named("a", (40, 30), val=0, stride=stride), Named("b", (20, 25, 30), first=5, val=0, stride=stride)
    chosen = recipe(f"data.weights={list(weights)}", f"data.video_fraction={fraction}", "optim.batch_size=1")
    source = open_source(join_stores([a, b]), chosen)
    index = training_reader(source, chosen).index
    order = training_order(index, chosen, source.stores)
    drawn = np.array([w for plan in order.epoch(epoch).plans for w in plan.windows])
    again = training_order(index, chosen, source.stores)
    assert np.array_equal(drawn, [w for plan in again.epoch(epoch).plans for w in plan.windows])
    assert len(drawn) == order.num_windows == order.batches_per_epoch
    for member, weight in enumerate(weights):
        own = np.flatnonzero((index.episode >= 2) == member)
        times = Counter(drawn[np.isin(drawn, own)].tolist())
        expected = sum(round(weight * n) for n in (index.video[own].sum(), (~index.video[own]).sum()))
        assert times.total() == expected
        assert {times[int(w)] for w in own} <= {int(weight), int(weight) + 1}


def test_other_windows_are_drawn_in_every_epoch() -> None:
    a, b = two()
    chosen = recipe("data.weights=[1, 0.5]")
    source = open_source(join_stores([a, b]), chosen)
    index = training_reader(source, chosen).index
    order = training_order(index, chosen, source.stores)
    first, second = (
        {w for plan in order.epoch(e).plans for w in plan.windows.tolist() if index.episode[w] >= 2} for e in (0, 1)
    )
    assert len(first) == len(second) == round(0.5 * 75) and first != second


@pytest.mark.slow
def test_a_run_on_a_list_resumes_exactly_and_refuses_another_list(tmp_path: Path) -> None:
    weights = ("data.weights=[1, 0.5]",)
    whole = run(tmp_path / "whole", *weights, store=two())  # type: ignore[arg-type]
    assert whole.finished
    run(tmp_path / "cut", *weights, store=two(), stop_after=3)  # type: ignore[arg-type]
    a, b = two()
    changed = Named("b", (20, 25, 30, 36), first=10)
    changed.fingerprint = "print-later"
    for other in ([b, a], [a, changed]):
        with pytest.raises(RunMismatch, match="another list of stores: a print-a, b print-b -> "):
            run(tmp_path / "cut", *weights, store=other)  # type: ignore[arg-type]
    with pytest.raises(RunMismatch, match=r"data\.weights: \[1\.0, 0\.5\] -> \[1\.0, 0\.25\]"):
        run(tmp_path / "cut", "data.weights=[1, 0.25]", store=[a, b])  # type: ignore[arg-type]
    run(tmp_path / "cut", *weights, store=[a, b])  # type: ignore[arg-type]
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    info = RunFolder(tmp_path / "cut").info()
    assert [(s.name, s.fingerprint, s.weight) for s in info.stores] == [("a", "print-a", 1.0), ("b", "print-b", 0.5)]


def test_one_store_in_a_list_is_that_store(tmp_path: Path) -> None:
    run(tmp_path / "one", store=FakeStore())
    run(tmp_path / "list", store=[FakeStore()])  # type: ignore[arg-type]
    assert_same_run(tmp_path / "one", tmp_path / "list")
    with pytest.raises(RunMismatch, match="another list of stores: none -> a print-a, b print-b"):
        run(tmp_path / "one", store=two())  # type: ignore[arg-type]


def test_stores_that_do_not_belong_together_are_refused() -> None:
    a, b = two()
    with pytest.raises(UsageError, match=r"data/a\.zarr holds the same episodes as data/a\.zarr"):
        join_stores([a, b, a])
    b.fps = 5.0
    with pytest.raises(UsageError, match=r"data/b\.zarr has fps 5\.0, data/a\.zarr has 15\.0"):
        join_stores([a, b])
    a, b = two()
    b.cache = replace(b.cache, identity={"vae": "another"})
    with pytest.raises(StaleCache, match=r"data/b\.zarr has latents\.vae 'another', data/a\.zarr has 'fake'"):
        open_source(join_stores([a, b]), recipe())
    for weights, words in (("[1]", "has 1 numbers for 2 stores"), ("[1,2,3]", "has 3 numbers for 2 stores")):
        with pytest.raises(UsageError, match=words):
            open_source(join_stores(two()), recipe(f"data.weights={weights}"))
    with pytest.raises(UsageError, match=r"data\.weights\.1: must be greater than 0"):
        recipe("data.weights=[1, 0]")


def test_a_recording_does_not_train_in_one_store_and_validate_in_another() -> None:
    a, b = two()
    a.episodes[0].files, b.episodes[1].files = (({"sha256": "0" * 64},),) * 2
    assert (a.episodes[0].split, b.episodes[1].split) == ("train", "train")
    join_stores([a, b])
    b.episodes[3].files, b.episodes[1].files = b.episodes[1].files, ()
    with pytest.raises(UsageError, match=r"data/b\.zarr: episode13 \(val\) is the same recording as data/a\.zarr: ep"):
        join_stores([a, b])
    b.episodes[3].files = ({"sha256": "1" * 64},)
    join_stores([a, b])


def test_an_episode_says_its_store() -> None:
    episode = join_stores(two()).episodes[3]
    assert (episode.index, episode.store, episode.num_frames) == (3, "b", 20)
    assert isinstance(episode.episode, FakeEpisode)


def test_the_command_takes_several_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    stores = dict(zip("ab", two(), strict=True))
    monkeypatch.setattr(fwdata, "open", lambda location: stores[location])
    flags = [part for override in (*SMALL, "optim.steps=1") for part in ("--set", override)]
    flags += ["--recipe", "tiny"]

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fwtrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    code, _, err = call("run", "a", "b", "--weights", "1,0.5", "--out", tmp_path / "r", *flags, "--threads", 1)
    assert code == 0, err
    assert "108 windows of 5 episodes" in err
    assert [s.weight for s in RunFolder(tmp_path / "r").info().stores] == [1.0, 0.5]
    code, out, _ = call("predict", tmp_path / "r", "--store", "b", "--frame", 2, "--threads", 1)
    assert code == 0 and out.startswith("store b, episode episode10, frame 2")
    code, _, err = call("run", "a", "b", "--weights", "1,x", "--out", tmp_path / "s", *flags)
    assert code == 2 and "data.weights.1" in err
