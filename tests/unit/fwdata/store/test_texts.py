"""Text caches: every prompt once, zero rows past its end, resuming, refusing what does not match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures import (
    stamps,
    toy_store,
    tree,
)
from numpy.typing import NDArray

import fwdata
from fwdata.encode.prompts import encode_text, store_prompts
from fwdata.errors import StaleCache, StoreError, UsageError
from fwdata.store.verify import verify_store

TASKS = {"a": [2] * 4, "b": [2] * 3}


class FakeEncoder:
    """One row per word; its first value is the word's length."""

    name, dim, max_tokens = "fake", 4, 24

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.seen: list[str] = []
        self.fail_after: int | None = None

    def identity(self) -> dict[str, Any]:
        return {"name": "fake", "version": self.version}

    def encode(self, prompts: list[str]) -> list[NDArray[np.float16]]:
        self.seen += prompts
        if self.fail_after is not None and len(self.seen) > self.fail_after:
            raise KeyboardInterrupt
        return [np.array([[len(w), 1, 2, 3] for w in p.split()], np.float16) for p in prompts]


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    found = FakeEncoder()
    monkeypatch.setattr("fwdata.encode.text.encoders.load_text_encoder", lambda spec, **_: found)
    return found


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return toy_store(tmp_path, monkeypatch, TASKS)


@pytest.mark.slow
def test_each_distinct_prompt_is_encoded_once(path: Path, encoder: FakeEncoder) -> None:
    report = encode_text(path, "fake")
    assert (report.prompts, report.encoded) == (3, 3)
    template = "A video recorded from a robot's point of view executing the following instruction: "
    assert encoder.seen == [f"{template}move to spot {i}" for i in range(3)]
    cache = fwdata.open(path).text()
    assert cache.prompts == tuple(encoder.seen)
    assert (cache.name, cache.encoder, cache.dim, cache.max_tokens) == ("default", "fake", 4, 24)


@pytest.mark.slow
def test_embedding_has_zero_rows_past_the_prompt(path: Path, encoder: FakeEncoder) -> None:
    encode_text(path, "fake")
    cache = fwdata.open(path).text()
    words = cache.prompts[1].split()
    found = cache.embedding(cache.prompts[1])
    assert found.shape == (24, 4) and found.dtype == np.float16
    assert found[: len(words), 0].tolist() == [len(w) for w in words]
    assert not found[len(words) :].any() and found[len(words) - 1].any()
    assert np.array_equal(cache.embedding("move to spot 1"), found)  # the instruction without the template
    assert np.array_equal(cache.tokens("move to spot 1"), found[: len(words)])
    with pytest.raises(
        StoreError,
        match=r"no embedding of 'fly away'; add it with `fwdata encode-text .* --name default --encoder fake`",
    ):
        cache.embedding("fly away")


@pytest.mark.slow
def test_all_wordings_are_added_to_the_canonical_ones(path: Path, encoder: FakeEncoder) -> None:
    encode_text(path, "fake")
    before = tree(path)
    report = encode_text(path, "fake", which="all")
    assert (report.prompts, report.encoded) == (6, 3)
    assert before.items() <= tree(path).items()
    store = fwdata.open(path)
    assert len(store.text().prompts) == len(store_prompts(store, "all")) == 6
    assert store.text().embedding("please move to spot 2").any()


@pytest.mark.slow
def test_rerun_writes_nothing(path: Path, encoder: FakeEncoder) -> None:
    encode_text(path, "fake")
    before = stamps(path)
    assert encode_text(path, "fake").encoded == 0
    assert stamps(path) == before and len(encoder.seen) == 3
    assert verify_store(path).damaged == []


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [0, 3])
def test_a_killed_run_continues_with_the_next_part(
    tmp_path: Path, path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    monkeypatch.setattr("fwdata.store.caches.texts.TEXT_PART", 2)
    other = toy_store(tmp_path / "other", monkeypatch, TASKS)
    encode_text(other, "fake", which="all")
    encoder.seen, encoder.fail_after = [], kill_at
    with pytest.raises(KeyboardInterrupt):
        encode_text(path, "fake", which="all")
    assert len(fwdata.open(path).text().prompts) == kill_at // 2 * 2
    encoder.seen, encoder.fail_after = [], None
    assert encode_text(path, "fake", which="all").encoded == 6 - kill_at // 2 * 2
    assert tree(path) == tree(other)


@pytest.mark.slow
def test_another_encoder_is_refused_with_the_difference(
    path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_text(path, "fake")
    before = stamps(path)
    monkeypatch.setattr("fwdata.encode.text.encoders.load_text_encoder", lambda spec, **_: FakeEncoder(version=2))
    with pytest.raises(StaleCache, match=r"encoder\.version is 1, asked for 2; use --name NEW .* or --replace"):
        encode_text(path, "fake")
    assert stamps(path) == before
    encode_text(path, "fake", name="second")
    assert {p.name.rsplit("-", 1)[0] for p in (path / "text").iterdir() if p.is_dir()} == {"default", "second"}
    assert encode_text(path, "fake", replace=True).encoded == 3
    assert fwdata.open(path).text().identity["encoder"]["version"] == 2
    with pytest.raises(UsageError, match="--name"):
        encode_text(path, "fake", name="../up")


def test_unfinished_stores_are_refused(path: Path, encoder: FakeEncoder) -> None:
    (path / "parts" / "p00001" / "zarr.json").unlink()
    with pytest.raises(UsageError, match="not wholly converted yet"):
        encode_text(path, "fake")
    assert encoder.seen == [] and not (path / "text").exists()


@pytest.mark.slow
def test_the_embedded_encoder_fills_a_cache(path: Path) -> None:
    assert encode_text(path, "tiny").encoded == 3
    cache = fwdata.open(path).text()
    one, two = cache.embedding("move to spot 0"), cache.embedding("move to spot 1")
    assert one.shape == (cache.max_tokens, cache.dim) and np.isfinite(one).all() and not np.array_equal(one, two)
