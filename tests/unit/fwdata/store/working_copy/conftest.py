"""Recordings, the store that they make locally, and a scratch folder of each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault.stores import quick
from fixtures import run_convert, toy_manifest, write_toy


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Any]]:
    """Recordings, and the store of three parts that they make locally."""
    folder = tmp_path_factory.mktemp("made")
    with quick() as patch:
        manifest = toy_manifest(patch)
        raw = write_toy(folder / "raw", {"lift": [2, 3, 2, 2, 3]})
        run_convert(raw, folder / "toy.zarr", manifest)
        yield raw, folder / "toy.zarr", manifest
