"""Stores copied between folders and URLs: the same bytes, checked, and continued after an interruption."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from fault.stores import full_store
from fixtures import tree

import fwdata
from fwdata.errors import StaleCache, StoreDamaged, StoreError, UsageError
from fwdata.store.copying import copy_store
from fwdata.store.files import LocalFiles, RemoteFiles, shared_write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_store(tmp_path_factory.mktemp("copied"))


@pytest.fixture
def bucket() -> str:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    return "memory://bucket/toy.zarr"


def test_there_and_back_again_has_the_same_bytes_and_opens_on_the_way(store: Path, bucket: str, tmp_path: Path) -> None:
    report = copy_store(str(store), bucket)
    assert report.copied == report.files == len(LocalFiles(store).keys())
    opened = fwdata.open(bucket)
    assert opened.fingerprint == fwdata.open(store).fingerprint
    assert (
        opened.latents().first(opened.episodes[0], [1])
        == fwdata.open(store).latents().first(fwdata.open(store).episodes[0], [1])
    ).all()
    copy_store(bucket, str(tmp_path / "back.zarr"))
    assert tree(tmp_path / "back.zarr") == tree(store)
    assert copy_store(str(store), bucket).copied == 0


@pytest.mark.parametrize("at", [0, 7, 40])
def test_an_interrupted_copy_does_not_open_and_goes_on(
    store: Path, bucket: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = RemoteFiles.write, 0

    def write(files: RemoteFiles, key: str, data: bytes) -> None:
        nonlocal count
        if count == at:
            raise KeyboardInterrupt
        count += 1
        real(files, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFiles, "write", write)
        with pytest.raises(KeyboardInterrupt):
            copy_store(str(store), bucket)
    with pytest.raises(StoreError):
        fwdata.open(bucket)
    report = copy_store(str(store), bucket)
    assert report.copied == report.files - at
    assert fwdata.open(bucket).fingerprint == fwdata.open(store).fingerprint


def test_damage_and_other_targets_are_refused(store: Path, bucket: str, tmp_path: Path) -> None:
    copy_store(str(store), bucket)
    memory = fsspec.filesystem("memory")
    chunk = next(name for name in memory.find("/bucket/toy.zarr/parts") if "/state/c/" in name)
    memory.pipe_file(chunk, memory.cat_file(chunk)[:-1] + b"?")
    with pytest.raises(StoreDamaged, match="sha256 does not match"):
        copy_store(bucket, str(tmp_path / "back.zarr"))
    memory.rm_file(chunk)
    with pytest.raises(StoreDamaged, match="is missing"):
        copy_store(bucket, str(tmp_path / "back.zarr"))
    memory.pipe_file("/other/notes.txt", b"mine")
    with pytest.raises(UsageError, match=r"holds notes.txt, which is not of this store"):
        copy_store(str(store), "memory://other")
    memory.pipe_file("/third/zarr.json", b"{}")
    with pytest.raises(StaleCache, match="holds another store"):
        copy_store(str(store), "memory://third")
    with pytest.raises(UsageError, match="credentials in the environment"):
        copy_store(str(store), "s3://key:secret@bucket/x")
    with pytest.raises(UsageError, match="to itself"):
        copy_store(str(store), str(store))


@pytest.mark.parametrize("place", ["copy.zarr", "parts/deep/copy.zarr"])
def test_nothing_is_written_inside_a_store(store: Path, place: str) -> None:
    before = tree(store)
    with pytest.raises(UsageError, match="lies inside the store"):
        copy_store(str(store), str(store / place))
    with pytest.raises(UsageError, match="lies inside the store"), shared_write(store / place):
        pass
    assert tree(store) == before and not (store / place).parent.joinpath("copy.zarr").exists()
