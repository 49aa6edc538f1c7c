"""Caches that no longer fit cannot be trained on: one setting is changed at a time, and the refusal names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_metadata import read_attributes, write_attributes

import fwdata
from fault.stores import full_store, quick
from fwdata.encode.latents import EncodeRequest, encode_latents
from fwdata.encode.prompts import encode_text
from fwdata.errors import StaleCache
from fwtrain.data import open_source
from fwtrain.recipe import load_recipe


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_store(tmp_path_factory.mktemp("stale"))


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "toy.zarr")
    return tmp_path / "toy.zarr"


def rewrite(store: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the store's manifest as if it had been converted with another one."""
    attributes = read_attributes(store)
    change(attributes["manifest"])
    write_attributes(store, attributes)


def train_on(store: Path) -> int:
    """Episodes to train on."""
    return len(open_source(fwdata.open(store), load_recipe("tiny")).train)


def test_a_fitting_store_is_taken(store: Path) -> None:
    assert train_on(store) > 0


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda m: m["stitch"].update(camera_size=[16, 32], size=[16, 64]), "stitch.camera_size is"),
        (lambda m: m["window"].update(num_frames=17), "window.num_frames is 33, asked for 17"),
        (lambda m: m["window"].update(video_stride=8), "window.video_stride is 4, asked for 8"),
        (lambda m: m.update(prompt="do {task}"), "prompt is A video reco.., asked for do {task}"),
    ],
    ids=["stitch", "frames", "video stride", "prompt template"],
)
def test_another_manifest_is_refused(store: Path, change: Callable[[dict[str, Any]], None], difference: str) -> None:
    rewrite(store, change)
    with pytest.raises(StaleCache) as caught:
        train_on(store)
    assert difference in str(caught.value) and "make it again with" in str(caught.value)


@pytest.mark.parametrize(
    ("constant", "difference"),
    [
        ("fwdata.store.caches.identity.LATENT_CODE_VERSION", "code is 1, asked for 2"),
        ("fwdata.store.caches.texts.TEXT_CODE_VERSION", "code is 1, asked for 2"),
        ("fwdata.images.stitch.STITCH_CODE_VERSION", "stitch.code is 1, asked for 2"),
    ],
)
def test_another_code_version_is_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch, constant: str, difference: str
) -> None:
    monkeypatch.setattr(constant, 2)
    with pytest.raises(StaleCache, match=difference):
        train_on(store)


@pytest.mark.parametrize(
    ("request_of", "difference"),
    [
        (lambda s: EncodeRequest(s, "other", stride=2), "vae.name is fake, asked for other"),
        (lambda s: EncodeRequest(s, "fake", stride=3), "stride is 2, asked for 3"),
    ],
    ids=["weights", "stride"],
)
def test_adding_to_a_cache_of_other_settings_is_refused(
    store: Path, request_of: Callable[[Path], EncodeRequest], difference: str
) -> None:
    with quick(), pytest.raises(StaleCache, match=difference):
        encode_latents(request_of(store), lambda count: None, lambda *values: None)


@pytest.mark.slow
def test_another_dtype_of_the_vae_is_refused(store: Path) -> None:
    encode_latents(EncodeRequest(store, "tiny", "real", stride=8), lambda count: None, lambda *values: None)
    with pytest.raises(StaleCache, match=r"vae\.compute_dtype is float32, asked for bfloat16"):
        again = EncodeRequest(store, "tiny", "real", stride=8, dtype="bfloat16")
        encode_latents(again, lambda count: None, lambda *values: None)


def test_another_text_encoder_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fwdata.encode.text.encoders.TEXT_CODE_VERSION", 2)
    with pytest.raises(StaleCache, match=r"encoder\.code is 1, asked for 2"):
        encode_text(store, "tiny")
