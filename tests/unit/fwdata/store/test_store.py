"""The public reader on converted stores: every name of the contract, processes, threads, damage."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from fixtures import (
    flip_bit,
    robotwin_store,
    run_convert,
    toy_arrays,
    toy_manifest,
    toy_store,
    write_toy,
)
from reading import sum_pixels
from robotwin_files import SEEN, joint_rows

import fwdata
from fwdata.cli import app
from fwdata.console import run_app
from fwdata.errors import StoreBusy, StoreDamaged, StoreError, UsageError
from fwdata.io import write_atomic
from fwdata.manifest import Manifest, Split
from fwdata.report.inspect_store import describe
from fwdata.store.caches.stats import compute_statistics, save_statistics
from fwdata.store.caches.stitched import materialise
from fwdata.store.copying import copy_store
from fwdata.store.files import write_lock
from fwdata.store.opening import open_target
from fwdata.store.reader import Store
from fwdata.store.remote import RemoteFiles
from fwdata.store.verify import verify_store
from fwdata.window import Window


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return robotwin_store(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def store(shared: Path) -> Store:
    return fwdata.open(shared)


def test_store_offers_every_name_of_the_contract(store: Store) -> None:
    assert store.layout_version == 1
    assert store.source == "robotwin"
    assert store.fps == pytest.approx(250 / 15)
    assert store.metadata["fps_nominal"] == 15
    assert store.cameras == ("head_camera", "left_camera", "right_camera")
    assert len(store.state_names) == len(store.action_names) == 14
    assert store.stitch_layout == "robotwin"
    assert store.metadata["roots"] == ["rt"] and "fwdata" in store.metadata["writer"]
    assert Manifest.model_validate(store.metadata["manifest"]).name == "robotwin-sample"
    assert store.quarantined == []
    assert store.manifest.window == Window()
    assert len(store.episodes) == 4 and store.num_frames == 28 and store.complete
    json.dumps(store.metadata, allow_nan=False)


def test_episodes_are_a_sequence_in_conversion_order(store: Store) -> None:
    episodes = store.episodes
    assert [e.index for e in episodes] == [0, 1, 2, 3]
    assert len({e.id for e in episodes}) == 4
    assert episodes[-1].id == episodes[3].id and [e.index for e in episodes[1:3]] == [1, 2]
    for index in (4, -5):
        with pytest.raises(IndexError, match=r"episodes 0\.\.3"):
            episodes[index]
    assert [e.task for e in episodes] == ["beat_block_hammer"] * 3 + ["click_bell"]


def test_episode_offers_every_name_of_the_contract(store: Store) -> None:
    episode = store.episodes[1]
    rows = joint_rows(8, 6, 6, seed=1).astype(np.float32)
    assert episode.source == "beat_block_hammer/demo_clean/data/episode1.hdf5"
    assert episode.num_frames == 7
    assert episode.instructions == tuple(dict.fromkeys(SEEN)) and episode.instruction == SEEN[0]
    assert episode.metadata["setting"] and episode.metadata["seed"] == 101
    assert episode.split in ("train", "val")
    assert episode.state().dtype == np.float32 and np.array_equal(episode.state(), rows[:-1])
    assert episode.action().dtype == np.float32 and np.array_equal(episode.action(), rows[1:])
    assert episode.timestamps().dtype == np.float64 and episode.timestamps()[0] == 0
    assert np.allclose(np.diff(episode.timestamps()), 15 / 250)
    assert episode.valid().dtype == np.bool_ and episode.valid().all() and episode.valid().shape == (7,)
    for camera in store.cameras:
        pictures = episode.frames(camera)
        assert pictures.shape == (7, 48, 64, 3) and pictures.dtype == np.uint8
        assert np.array_equal(episode.frames(camera, [6, 0, 6]), pictures[[6, 0, 6]])
        left, right = pictures[0, 4, 4].astype(int), pictures[0, 40, 60].astype(int)
        assert left[0] > left[2] + 100 and right[2] > right[0] + 100  # orange left, blue right
    assert episode.stitched().shape == (7, 96, 64, 3)
    assert episode.frames("head_camera", []).shape == (0, 48, 64, 3)
    assert episode.stitched([]).shape == (0, 96, 64, 3)


def test_stored_jpeg_buffers_are_the_recorded_bytes(shared: Path, store: Store) -> None:
    import h5py

    episode = store.episodes[2]
    with h5py.File(shared.parent / "rt" / episode.source) as file:
        recorded = [bytes(b) for b in file["observation/left_camera/rgb"][:-1]]
    assert [b.rstrip(b"\0") for b in episode.encoded("left_camera")] == [b.rstrip(b"\0") for b in recorded]


@pytest.mark.parametrize("indices", [[7], [-1], [0, 100]])
def test_frames_outside_the_episode_are_refused(store: Store, indices: list[int]) -> None:
    episode = store.episodes[0]
    with pytest.raises(IndexError, match=r"frames 0\.\.6"):
        episode.frames("head_camera", indices)
    with pytest.raises(IndexError, match=r"frames 0\.\.6"):
        episode.stitched(indices)


@pytest.mark.parametrize("indices", [np.array([True, False]), [1.5], np.array([1.0])])
def test_masks_and_fractions_are_no_frames(store: Store, indices: list[float]) -> None:
    """They were taken for other frames: a mask for the first two."""
    for read in (partial(store.episodes[0].frames, "head_camera"), store.episodes[0].stitched):
        with pytest.raises(IndexError, match=r"frames are asked for by whole numbers, found (bool|float)"):
            read(indices)
    assert len(store.episodes[0].frames("head_camera", [])) == 0


def test_unknown_names_are_named(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no camera 'wrist'; it has head_camera"):
        store.episodes[0].frames("wrist")
    with pytest.raises(StoreError, match="fwdata encode-latents"):
        store.latents()
    with pytest.raises(StoreError, match="fwdata encode-text"):
        store.text()


def test_raw_pixels_come_back_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fwdata.open(toy_store(tmp_path, monkeypatch, {"a": [3, 21], "b": [40]}))
    for seed, episode in enumerate(store.episodes):
        written = toy_arrays(episode.num_frames, seed)
        assert np.array_equal(episode.state(), written["state"])
        assert np.array_equal(episode.action(), written["action"])
        for camera in store.cameras:
            assert np.array_equal(episode.frames(camera), written[camera])
    with pytest.raises(StoreError, match="no JPEG"):
        store.episodes[0].encoded("wrist")


def test_materialised_frames_equal_computed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [3, 40], "b": [5]})
    before = [e.stitched() for e in fwdata.open(path).episodes]
    assert materialise(path) == 48
    store = fwdata.open(path)
    monkeypatch.setattr("fwdata.images.stitch.stitch", lambda *_: pytest.fail("stitched again"))
    assert all(np.array_equal(e.stitched(), b) for e, b in zip(store.episodes, before, strict=True))
    assert np.array_equal(store.episodes[1].stitched([39, 0]), before[1][[39, 0]])
    assert materialise(path) == 0
    assert describe(store)["stitched"] == {"height": 32, "width": 64, "materialised": True}
    assert verify_store(path).damaged == []


def test_pickled_stores_and_episodes_read_the_same(store: Store) -> None:
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 - made here
    assert [e.id for e in again.episodes] == [e.id for e in store.episodes]
    episode = store.episodes[3]
    data = pickle.dumps(episode)
    copy = pickle.loads(data)  # noqa: S301 - made here
    assert len(data) < 1000
    assert (copy.index, copy.id, copy.split) == (episode.index, episode.id, episode.split)
    assert np.array_equal(copy.frames("head_camera"), episode.frames("head_camera"))


def test_threads_read_the_same_frames(store: Store) -> None:
    expected = [e.stitched() for e in fwdata.open(store.location).episodes]

    def read(n: int) -> bool:
        episode = store.episodes[n % 4]
        return np.array_equal(episode.stitched([n % 7]), expected[n % 4][[n % 7]]) and len(episode.state()) == 7

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(40)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_an_open_store(store: Store, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    sum_pixels(store, queue)  # opens files here first, which a forked process inherits
    expected = queue.get()
    process = context.Process(target=sum_pixels, args=(store, queue))
    process.start()
    assert queue.get(timeout=300) == expected
    process.join()


def test_zarr_python_reads_every_array(shared: Path, store: Store) -> None:
    group = zarr.open_group(str(shared), mode="r")
    part = group["parts/p00000"]
    assert isinstance(part, zarr.Group)
    state = np.asarray(part["lowdim/state"])
    assert np.array_equal(state[7:14], store.episodes[1].state())
    offsets = np.asarray(part["cameras/head_camera/offset"])
    data = np.asarray(part["cameras/head_camera/data"])
    assert data[offsets[7] : offsets[8]].tobytes() == store.episodes[1].encoded("head_camera", [0])[0]
    assert set(dict(group.groups())) == {"evidence", "parts", "plan", "sources", "view"}


def test_a_store_behind_a_url_reads_the_same(store: Store) -> None:
    copy_store(store.location, "memory://read/copy.zarr")
    remote = fwdata.open("memory://read/copy.zarr")
    assert [e.id for e in remote.episodes] == [e.id for e in store.episodes]
    assert np.array_equal(remote.episodes[2].stitched([1, 5]), store.episodes[2].stitched([1, 5]))
    assert np.array_equal(remote.episodes[2].state(), store.episodes[2].state())
    described = describe(remote)
    assert described["bytes"] is None and described["episodes"] == 4
    files = open_target("memory://read/copy.zarr")
    assert isinstance(files, RemoteFiles)
    files.delete([key for key in files.keys() if key.startswith("parts/p00000/lowdim/state/c")])  # noqa: SIM118
    with pytest.raises(StoreDamaged, match="is missing"):
        fwdata.open("memory://read/copy.zarr").episodes[0].state()
    with pytest.raises(UsageError, match="nosuch:// is not a kind of storage"):
        fwdata.open("nosuch://x")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, ["there is no store at", "fwdata convert"]),
        (lambda p: p.mkdir(), ["is not an fwdata store", "fwdata convert SOURCE RAW"]),
        (lambda p: zarr.create_group(str(p)), ["is not an fwdata store"]),
        (lambda p: write_atomic(p / "zarr.json", b"{"), ["not valid JSON"]),
        (lambda p: write_atomic(p / "zarr.json", b"[1]"), ["must hold a JSON object"]),
        (lambda p: write_atomic(p / "zarr.json", b'{"attributes": null}'), ["is not an fwdata store"]),
        (lambda p: p.write_text("file"), ["is a file, and a store is a folder", "x.zarr --out STORE"]),
    ],
)
def test_absent_and_foreign_folders_are_one_sentence(tmp_path: Path, make: object, words: list[str]) -> None:
    path = tmp_path / "x.zarr"
    make(path)  # type: ignore[operator]
    with pytest.raises(StoreError) as caught:
        fwdata.open(path)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_newer_and_edited_stores_are_refused(tmp_path: Path, shared: Path) -> None:
    from raw_metadata import read_attributes, write_attributes

    shutil.copytree(shared, tmp_path / "s")
    attributes = read_attributes(shared)
    write_attributes(tmp_path / "s", {**attributes, "layout_version": 99})
    with pytest.raises(StoreError, match=r"layout version 99.*update fwdata"):
        fwdata.open(tmp_path / "s")
    text = (shared / "zarr.json").read_text()
    (tmp_path / "s" / "zarr.json").write_text(text.replace('"fps_nominal": 15', '"fps_nominal": 16'))
    with pytest.raises(StoreDamaged, match="checksum does not hold"):
        fwdata.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("count", "val", "expected"), [(4, 0.25, 1), (3, 0.25, 0), (10, 0.1, 1), (9, 0.1, 0), (7, 0.5, 4), (5, 0.0, 0)]
)
def test_split_is_the_official_shuffle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, val: float, expected: int
) -> None:
    store = fwdata.open(toy_store(tmp_path, monkeypatch, {"a": [2] * count}, split=Split(val=val)))
    order = np.arange(count)
    np.random.default_rng(42).shuffle(order)
    training = order[: int(count * (1 - val))] if count * val >= 1 else order
    assert {e.index for e in store.episodes if e.split == "train"} == set(training.tolist())
    assert sum(e.split == "val" for e in store.episodes) == expected


def read_everything(path: Path) -> None:
    """Everything the reader offers; raises what it notices."""
    store = fwdata.open(path)
    if not store.complete:
        raise StoreError("a part is gone")
    store.quarantined, store.stats()
    for episode in store.episodes:
        episode.state(), episode.action(), episode.timestamps(), episode.valid(), episode.metadata
        for camera in store.cameras:
            episode.frames(camera)
        episode.stitched([0])


@pytest.mark.slow
def test_every_flipped_bit_of_a_store_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [3, 2], "b": [2]})
    materialise(path)
    store = fwdata.open(path)
    save_statistics(store, compute_statistics(store))
    read_everything(path)
    assert verify_store(path).damaged == []
    plain = json.dumps({"attributes": {}, "node_type": "group", "zarr_format": 3}, indent=2) + "\n"
    rng = np.random.default_rng(7)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    for file in rng.permutation(np.array(files, object))[:60]:
        before = file.read_bytes()
        flip_bit(file, rng)
        reader = noticed(lambda: read_everything(path))
        verify = noticed(lambda: _verify(path))
        where = f"{file.relative_to(path)}"
        assert verify, where
        # the reader uses neither plain groups nor what only a conversion asks for
        unused = {"evidence", "sources"} & set(file.relative_to(path).parts)
        assert reader or unused or before == plain.encode(), where
        file.write_bytes(before)
    read_everything(path)


@pytest.mark.parametrize("group", ["plan", "parts/p00000"])
def test_a_group_whose_attributes_lost_their_name_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [2]})
    file = path / group / "zarr.json"
    file.write_text(file.read_text().replace('"fwdata"', '"fwdat!"', 1))
    with pytest.raises(StoreDamaged, match="no fwdata attributes"):
        read_everything(path)


def noticed(action: object) -> bool:
    try:
        action()  # type: ignore[operator]
    except StoreError as error:
        assert "\n" not in str(error)
        return True
    return False


def _verify(path: Path) -> None:
    damaged = verify_store(path).damaged
    if damaged:
        raise StoreDamaged(damaged[0])


def test_every_deleted_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [3]})
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        before = file.read_bytes()
        if before.startswith(b'{\n  "attributes": {},\n  "node_type": "group"'):
            continue
        file.unlink()
        assert noticed(lambda: _verify(path)), file
        if not {"evidence", "sources"} & set(file.relative_to(path).parts):  # of use to a further conversion only
            assert noticed(lambda: read_everything(path)), file
        file.write_bytes(before)
    _verify(path)


def test_verify_names_strange_and_unfinished_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [3], "b": [2]})
    files = sum(1 for p in path.rglob("*") if p.is_file())
    report = verify_store(path)
    assert (report.files, report.damaged) == (files, [])
    assert report.bytes == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    (path / "notes.txt").write_text("x")
    assert verify_store(path).damaged == [f"{path / 'notes.txt'} does not belong to the store"]
    (path / "notes.txt").unlink()
    shutil.rmtree(path / "parts" / "p00001")
    assert [line for line in verify_store(path).damaged if "p00001 is missing" in line]
    (path / "parts" / "p00001").mkdir()
    assert [line for line in verify_store(path).damaged if "p00001 is not finished" in line]
    (path / "plan" / "zarr.json").unlink()
    assert [f.key for f in verify_store(path).findings if "is missing" in f.problem] == ["plan/zarr.json"]


def test_a_lost_plan_is_made_anew_by_the_printed_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion, which was advised, cannot: it said so of itself."""
    path = toy_store(tmp_path, monkeypatch, {"a": [3], "b": [2]})
    plan = (path / "plan" / "zarr.json").read_bytes()
    (path / "plan" / "zarr.json").unlink()
    [finding] = [f for f in verify_store(path).findings if "is missing" in f.problem]
    with pytest.raises(StoreDamaged) as refused:
        _ = fwdata.open(path).plan
    for said in (finding.problem, str(refused.value)):
        [command] = re.findall(r"`fwdata (repair [^`]*)`", said)
        assert command == f"repair {path} --from RAW"
    monkeypatch.setattr("sys.argv", ["fwdata", *command.split()[:-1], str(tmp_path / "raw")])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    assert not ended.value.code
    assert (path / "plan" / "zarr.json").read_bytes() == plan and verify_store(path).damaged == []


def test_inspect_describes_the_store(shared: Path, store: Store) -> None:
    found = describe(store)
    assert found["episodes"] == 4 and found["frames"] == 28 and found["fps"] == store.fps
    assert found["tasks"] == {"beat_block_hammer": 3, "click_bell": 1}
    assert found["cameras"]["head_camera"] == {"height": 48, "width": 64, "encoding": "jpeg", "channel_order": "bgr"}
    assert found["stitched"] == {"height": 96, "width": 64, "materialised": False}
    assert found["bytes"] == sum(p.stat().st_size for p in shared.rglob("*") if p.is_file())
    assert (found["latents"], found["text"], found["stats"], found["quarantined"]) == ([], [], False, [])
    for key in ("layout_version", "source", "stitch_layout", "state_names", "action_names", "decisions"):
        assert key in found
    json.dumps(found, allow_nan=False)


def test_only_one_writer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [2]})
    manifest = toy_manifest(monkeypatch)
    child = os.fork()
    if not child:
        with write_lock(tmp_path / "s.zarr"):
            (tmp_path / "held").touch()
            signal.pause()
        os._exit(0)
    try:
        while not (tmp_path / "held").exists():
            os.sched_yield()
        with pytest.raises(StoreBusy, match=rf"being written by process {child} \(.*python"):
            run_convert(raw, tmp_path / "s.zarr", manifest)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert run_convert(raw, tmp_path / "s.zarr", manifest).episodes == 1  # the system released the dead one's lock


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "f", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "f", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_bytes() == b"old"
