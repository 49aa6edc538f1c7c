"""Stores copied between folders and URLs: the same bytes, checked, and continued after an interruption."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault.stores import full_store, quick
from fixtures import run_convert, toy_manifest, tree, write_toy

import fwdata
from fwdata.errors import StaleCache, StoreBusy, StoreDamaged, StoreError, UsageError
from fwdata.store.copy_target import Target
from fwdata.store.copying import copy_store
from fwdata.store.files import LocalFiles, shared_write
from fwdata.store.layout import CLAIM
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
    real, count = Target.write, 0
    monkeypatch.setattr("fwdata.store.remote.IN_FLIGHT", 1)

    def write(files: Target, key: str, data: bytes) -> None:
        nonlocal count
        if count == at:
            raise KeyboardInterrupt
        count += 1
        real(files, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(Target, "write", write)
        with pytest.raises(KeyboardInterrupt):
            copy_store(str(store), bucket)
    with pytest.raises(StoreError, match="half a copy of a store; run the same `fwdata copy` again"):
        fwdata.open(bucket)
    report = copy_store(str(store), bucket)
    assert report.copied == report.files - at
    assert fwdata.open(bucket).fingerprint == fwdata.open(store).fingerprint


def test_damage_and_other_targets_are_refused(store: Path, bucket: str, tmp_path: Path) -> None:
    copy_store(str(store), bucket)
    files = objects(bucket)
    chunk = next(key for key in files.listing().keys if "/state/c/" in key)
    files.write(chunk, (files.read(chunk) or b"")[:-1] + b"?")
    with pytest.raises(StoreDamaged, match=f"sha256 does not match; run `fwdata verify {bucket}`"):
        copy_store(bucket, str(tmp_path / "back.zarr"))
    named = tmp_path / "named store"
    copy_store(str(store), str(named))
    (named / chunk).write_bytes(files.read(chunk) or b"")
    with pytest.raises(StoreDamaged, match=re.escape(f"does not match; run `fwdata repair '{named}'`")):
        copy_store(str(named), str(tmp_path / "back.zarr"))
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


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A store, the same with a part more, and that with its first part converted again."""
    folder = tmp_path_factory.mktemp("states")
    with quick() as patch:
        manifest = toy_manifest(patch)
        write_toy(folder / "raw", {"lift": [2, 3]})
        run_convert(folder / "raw", folder / "first.zarr", manifest)
        shutil.copytree(folder / "first.zarr", folder / "longer.zarr")
        write_toy(folder / "raw", {"push": [3, 2]}, seed=1)
        run_convert(folder / "raw", folder / "longer.zarr", manifest)
        shutil.copytree(folder / "longer.zarr", folder / "again.zarr")
        write_toy(folder / "raw", {"lift": [2, 4]}, seed=2)
        run_convert(folder / "raw", folder / "again.zarr", manifest, update=True)
    return folder / "first.zarr", folder / "longer.zarr", folder / "again.zarr"


@pytest.mark.parametrize("remote", [False, True])
def test_a_copy_follows_its_store_and_is_never_set_back(
    states: tuple[Path, Path, Path], remote: bool, bucket: str, tmp_path: Path
) -> None:
    place = bucket if remote else str(tmp_path / "copy.zarr")
    for state in states:
        copy_store(str(state), place)
        copy_store(place, str(tmp_path / f"back-{state.name}"))
        assert tree(tmp_path / f"back-{state.name}") == tree(state)
    before = open_target(place).listing()
    for state in states[:2]:
        with pytest.raises(StaleCache, match=r"p00000-1 is not in .*: a newer state of this store"):
            copy_store(str(state), place)
    assert open_target(place).listing() == before


def test_a_half_copy_of_another_store_is_not_mixed_with(
    states: tuple[Path, Path, Path], bucket: str, tmp_path: Path
) -> None:
    with quick() as patch:
        manifest = toy_manifest(patch)
        run_convert(write_toy(tmp_path / "raw", {"lift": [2, 3]}, seed=7), tmp_path / "other.zarr", manifest)
    assert (tmp_path / "other.zarr/zarr.json").read_bytes() == (states[0] / "zarr.json").read_bytes()
    copy_store(str(tmp_path / "other.zarr"), bucket)
    with pytest.raises(StaleCache, match=r"p00000 holds other recordings than "):
        copy_store(str(states[0]), bucket)
    files = objects(bucket)
    files.write(CLAIM, b"{}")
    files.delete([key for key in files.listing().keys if "/state/" not in key])
    with pytest.raises(StaleCache, match="another store is being copied"):
        copy_store(str(states[0]), bucket)


def test_copies_of_two_stores_at_once_never_mix(
    states: tuple[Path, Path, Path], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quick() as patch:
        manifest = toy_manifest(patch)
        run_convert(write_toy(tmp_path / "raw", {"lift": [2, 3]}, seed=7), tmp_path / "other.zarr", manifest)
    real, refused = Target.write, []

    def write(target: Target, key: str, data: bytes) -> None:
        monkeypatch.setattr(Target, "write", real)
        with pytest.raises(StaleCache, match="another store is being copied"):
            copy_store(str(tmp_path / "other.zarr"), bucket)
        refused.append(key)
        real(target, key, data)

    monkeypatch.setattr("fwdata.store.remote.IN_FLIGHT", 1)
    monkeypatch.setattr(Target, "write", write)
    copy_store(str(states[0]), bucket)
    copy_store(bucket, str(tmp_path / "back.zarr"))
    assert refused and tree(tmp_path / "back.zarr") == tree(states[0])


def test_a_file_that_another_process_wrote_meanwhile_stays(
    states: tuple[Path, Path, Path], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Target.write

    def write(target: Target, key: str, data: bytes) -> None:
        if key == "plan/zarr.json":
            objects(bucket).write(key, b"newer")
        real(target, key, data)

    monkeypatch.setattr(Target, "write", write)
    with pytest.raises(StoreBusy, match=r"plan/zarr.json is being written by another process"):
        copy_store(str(states[0]), bucket)
    assert objects(bucket).read("plan/zarr.json") == b"newer"


@pytest.mark.slow
def test_no_command_puts_its_results_into_a_store(store: Path, tmp_path: Path, run) -> None:
    before = tree(store)
    inside = store / "results"
    for line in (
        ("report", store, "--out", store),
        ("report", store, "--out", inside / "page.html"),
        ("preview", store, "--out", store),
        ("preview", store, "--episodes", "1", "--out", tmp_path / "preview", "--rerun", store / "x.rrd"),
        ("doctor", store, "--html", store),
        ("doctor", store, "--html", inside),
        ("sample", "robotwin", "--episodes", "1", "--out", inside),
        ("init", "mybot", "--out", inside),
        ("export", "fastwam-text", store, inside),
    ):
        run(*line).refused(2, "lies inside the store")
        assert tree(store) == before, line
