"""Upstream's text embedding files: their names, reading them in place of an encoder, and writing them from a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import (
    toy_store,
    tree,
)

import fwdata
from fwdata.cli import main
from fwdata.encode.prompts import encode_text
from fwdata.encode.text.encoders import load_text_encoder
from fwdata.encode.text.official_cache import file_name, official_file
from fwdata.errors import StoreDamaged, UsageError
from fwdata.export.official_text import export_official_text

TASKS = {"a": [2] * 3, "b": [2] * 2}
PROMPT = "A video recorded from a robot's point of view executing the following instruction: put the bowl on the plate"


def test_names_are_the_digest_of_the_prompt_with_its_template():
    """As `sha256sum` gives it for the prompt's bytes."""
    digest = "4659b13576ca907ddfe4dde5e7d25a8a54a9cd4fb86f5188989dfef12345cee7"
    assert file_name(PROMPT) == f"{digest}.t5_len128.wan22ti2v5b.pt"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return toy_store(tmp_path, monkeypatch, TASKS)


def write(folder: Path, prompts: list[str], dim: int = 6, length: int = 128) -> dict[str, np.ndarray]:
    """Files as upstream writes them: rows past the mask are not zero. The real rows by prompt."""
    folder.mkdir(exist_ok=True)
    real = {}
    for number, prompt in enumerate(prompts):
        context = torch.randn(length, dim, generator=torch.Generator().manual_seed(number)).to(torch.bfloat16)
        mask = torch.arange(length) < 3 + number
        torch.save({"context": context, "mask": mask}, folder / file_name(prompt, length))
        real[prompt] = context[mask].float().numpy().astype(np.float16)
    return real


def prompts_of(path: Path) -> list[str]:
    encode_text(path, "tiny", name="tiny")
    return list(fwdata.open(path).text("tiny").prompts)


@pytest.mark.slow
def test_a_store_takes_the_embeddings_that_upstreams_script_made(path: Path, tmp_path: Path):
    prompts = prompts_of(path)
    real = write(tmp_path / "embeds", [*prompts, "another"])
    encode_text(path, f"fastwam-text:{tmp_path / 'embeds'}")
    cache = fwdata.open(path).text("default")
    assert (cache.dim, cache.max_tokens, cache.identity["encoder"]["name"]) == (6, 128, "umt5-xxl")
    for prompt in prompts:
        assert np.array_equal(cache.tokens(prompt), real[prompt])
        assert not cache.embedding(prompt)[len(real[prompt]) :].any()
    again = load_text_encoder(cache.encoder)  # what a run's policy loads
    assert again.identity() == cache.identity["encoder"]


def test_a_prompt_without_a_file_is_named_and_nothing_is_written(path: Path, tmp_path: Path):
    prompts = prompts_of(path)
    write(tmp_path / "embeds", prompts[1:])
    before = tree(path)
    with pytest.raises(
        UsageError, match=r"has no embedding of 1 of \d prompts, the first .A video .*encode with --encoder"
    ):
        encode_text(path, f"fastwam-text:{tmp_path / 'embeds'}")
    assert tree(path) == before


def test_folders_and_files_of_something_else_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="holds no text embedding of upstream's"):
        load_text_encoder(f"fastwam-text:{tmp_path}")
    folder = tmp_path / "embeds"
    write(folder, ["x"])
    for content, message in (
        (b"no torch file", "cannot be read as plain tensors"),
        ([1], "is not a text embedding"),
        ({"context": torch.zeros(4, 2), "mask": torch.ones(3, dtype=torch.bool)}, "is not a text embedding"),
        ({"context": torch.zeros(4, 2), "mask": torch.zeros(4, dtype=torch.bool)}, "mask must cover the first rows"),
        (
            {"context": torch.zeros(4, 2), "mask": torch.tensor([True, False, True, False])},
            "mask must cover the first rows",
        ),
    ):
        place = folder / file_name("x")
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            torch.save(content, place)
        with pytest.raises(StoreDamaged, match=message) as caught:
            load_text_encoder(f"fastwam-text:{folder}")
        assert "\n" not in str(caught.value)


class Umt5:
    """Stands for umt5-xxl; values that bfloat16 holds."""

    name, dim, max_tokens = "umt5-xxl", 6, 128

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "weights": "some"}

    def encode(self, prompts: list[str]) -> list[np.ndarray]:
        return [np.full((len(p.split()), self.dim), 0.125 * len(p), np.float16) for p in prompts]


@pytest.mark.slow
def test_a_text_cache_leaves_as_upstreams_files_and_comes_back(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with monkeypatch.context() as patch:
        patch.setattr("fwdata.encode.text.encoders.load_text_encoder", lambda spec, **_: Umt5())
        encode_text(path, "umt5-xxl")
    store, out = fwdata.open(path), tmp_path / "out" / "embeds"
    cache = store.text()
    monkeypatch.setattr("sys.argv", ["fwdata", "export", "fastwam-text", str(path), str(out), "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "prompts": 3, "written": 3}
    assert sorted(item.name for item in out.iterdir()) == sorted(file_name(prompt) for prompt in cache.prompts)
    found = torch.load(out / file_name(cache.prompts[0]), weights_only=True)
    assert found.keys() == {"context", "mask"}
    assert found["context"].shape == (128, 6) and found["context"].dtype == torch.bfloat16
    assert (
        int(found["mask"].sum()) == len(cache.tokens(cache.prompts[0])) and not found["context"][~found["mask"]].any()
    )
    assert export_official_text(store, out).written == 0  # several stores share a folder
    encode_text(path, f"fastwam-text:{out}", name="back")
    back = fwdata.open(path).text("back")
    assert all(np.array_equal(back.tokens(prompt), cache.tokens(prompt)) for prompt in cache.prompts)


def test_embeddings_of_another_encoder_are_not_written_under_these_names(path: Path, tmp_path: Path):
    prompts_of(path)
    with pytest.raises(UsageError, match="'tiny' was made by tiny, upstream's files hold umt5-xxl embeddings"):
        export_official_text(fwdata.open(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_longest_prompt_fills_its_file():
    full = official_file(np.ones((128, 2), np.float16), 128)
    assert bool(full["mask"].all()) and float(full["context"].sum()) == 256
