"""Stores copied between folders and URLs: the same bytes, checked, and continued after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault.stores import full_store
from fixtures import tree

import fwdata
from fwdata.errors import StaleCache, StoreDamaged, StoreError, UsageError
from fwdata.store.copying import copy_store
from fwdata.store.files import LocalFiles, shared_write
from fwdata.store.opening import open_target
from fwdata.store.remote import RemoteFiles


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_store(tmp_path_factory.mktemp("copied"))


def objects(url: str) -> RemoteFiles:
    files = open_target(url)
    assert isinstance(files, RemoteFiles)
    return files


@pytest.fixture
def bucket() -> Iterator[str]:
    yield "memory://bucket/toy.zarr"
    for url in ("memory://bucket", "memory://other", "memory://third"):
        objects(url).delete(list(objects(url).listing().sizes))


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
    monkeypatch.setattr("fwdata.store.remote.IN_FLIGHT", 1)

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
    files = objects(bucket)
    chunk = next(key for key in files.listing().keys if "/state/c/" in key)
    files.write(chunk, (files.read(chunk) or b"")[:-1] + b"?")
    with pytest.raises(StoreDamaged, match="sha256 does not match"):
        copy_store(bucket, str(tmp_path / "back.zarr"))
    files.delete([chunk])
    with pytest.raises(StoreDamaged, match="is missing"):
        copy_store(bucket, str(tmp_path / "back.zarr"))
    objects("memory://other").write("notes.txt", b"mine")
    with pytest.raises(UsageError, match=r"holds notes.txt, which is not of this store"):
        copy_store(str(store), "memory://other")
    objects("memory://third").write("zarr.json", b"{}")
    with pytest.raises(StaleCache, match="holds another store"):
        copy_store(str(store), "memory://third")
    with pytest.raises(UsageError, match="can only be read"):
        copy_store(str(store), "https://127.0.0.1:1/toy.zarr")
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
