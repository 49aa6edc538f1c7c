"""The contract that every converter keeps. A new converter adds a writer of two sample recordings to SAMPLES."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lerobot_files
import numpy as np
import pytest
import r1lite_files
from fixtures import (
    PLUGINS,
    quick_writes,  # noqa: F401 - used by every test
    run_convert,
    tree,
    write_toy,
)
from libero_files import write_file as write_libero
from numpy.typing import NDArray
from robotwin_files import write_task

import fwdata
from fwdata.api import BadEpisode, Converter, Discovery, EncodedCamera, Episode, UsageError
from fwdata.errors import FwdataError
from fwdata.jpeg import decode_rgb
from fwdata.manifest import load_manifest
from fwdata.pipeline.plan import converter_names, load_converter, manifest_for

type Writer = Callable[[Path], object]


def write_r1lite(root: Path, number: int) -> Path:
    """One recording in a folder of its own."""
    notes = [r1lite_files.annotation("左@Lift the block.", 0, 9)]
    return r1lite_files.write_recording(root / f"take{number}", r1lite_files.recording(frames=10 + number), notes)


SAMPLES: dict[str, tuple[Writer, str]] = {
    "robotwin": (lambda root: write_task(root, "classic", "click_bell", [0, 1]), "robotwin-sample"),
    "lerobot": (lambda root: lerobot_files.write_dataset(root / "set", lerobot_files.Recipe()), "lerobot-r1lite"),
    "libero": (lambda root: write_libero(root / "libero_goal" / "turn_on_the_stove_demo.hdf5", [0, 1]), "libero"),
    "r1lite": (lambda root: [write_r1lite(root, number) for number in (1, 2)], "r1lite"),
    "toy": (lambda root: write_toy(root, {"a": [5, 6]}), "toy"),
}
"""Converter name -> (writes two recordings below a folder, manifest that fits them)."""


def all_names() -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FWDATA_PLUGINS", str(PLUGINS))
        return converter_names()


@pytest.fixture(params=all_names())
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    found = str(request.param)
    assert found in SAMPLES, f"add a writer of two recordings for converter {found!r} to SAMPLES"
    return found


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    SAMPLES[name][0](tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def converter(name: str) -> Converter:
    return load_converter(load_manifest(SAMPLES[name][1]))


def pixels(episode: Episode, camera: str) -> NDArray[Any]:
    found = episode.cameras[camera]
    if isinstance(found, EncodedCamera):
        return np.stack([decode_rgb(f.data, f.red_blue_swapped) for f in found.frames()])
    return np.concatenate(list(found.frames()))


def test_discovery_is_stable_and_complete(converter: Converter, root: Path, tmp_path: Path) -> None:
    assert isinstance(converter, Converter)
    found = converter.discover(root)
    assert isinstance(found, Discovery) and len(found.episodes) == 2
    assert len({ref.id for ref in found.episodes}) == 2
    for ref in found.episodes:
        assert ref.num_bytes > 0 and ref.group and ref.id == ref.id.strip()
        assert not Path(ref.source).is_absolute() and "\\" not in ref.source
        assert ref.files[0] == ref.source.split("#")[0]
        assert all((root / file).is_file() for file in ref.files)
    assert pickle.loads(pickle.dumps(found.episodes)) == found.episodes  # noqa: S301 - made here
    json.dumps(dict(found.decisions), allow_nan=False)
    copy = tmp_path / "copied"
    copy.mkdir()
    for path in sorted(root.rglob("*"), reverse=True):  # another order of creation, another place, the same answer
        if path.is_file():
            (copy / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / path.relative_to(root))
    assert converter.discover(copy) == found


def test_reading_is_pure_and_cameras_are_complete(converter: Converter, name: str, root: Path) -> None:
    cameras = load_manifest(SAMPLES[name][1]).cameras
    before = tree(root)
    for ref in converter.discover(root).episodes:
        one, two = converter.read(root, ref), converter.read(root, ref)
        rows = len(one.state)
        assert np.array_equal(one.state, two.state) and np.array_equal(one.action, two.action)
        assert one.metadata == two.metadata and one.instructions == two.instructions and one.task
        assert one.timestamp_ns[0] == 0 and set(cameras) <= set(one.cameras)
        for camera in cameras:
            shape = (rows, one.cameras[camera].height, one.cameras[camera].width, 3)
            first = pixels(one, camera)
            assert first.shape == shape and first.dtype == np.uint8
            assert np.array_equal(first, pixels(one, camera))  # a second pass over the same frames
        json.dumps(dict(one.metadata), allow_nan=False)
    assert tree(root) == before


def test_what_is_read_is_what_is_stored(converter: Converter, name: str, root: Path, tmp_path: Path) -> None:
    manifest = load_manifest(SAMPLES[name][1])
    report = run_convert(root, tmp_path / "s.zarr", manifest)
    assert report.episodes == 2 and report.quarantined == []
    store = fwdata.open(tmp_path / "s.zarr")
    assert store.source == name
    for ref, stored in zip(converter.discover(root).episodes, store.episodes, strict=True):
        episode = converter.read(root, ref)
        assert (stored.id, stored.source, stored.task) == (ref.id, ref.source, episode.task)
        assert stored.instructions == tuple(episode.instructions)
        assert episode.metadata.items() <= stored.metadata.items()
        assert np.array_equal(stored.state(), episode.state) and np.array_equal(stored.action(), episode.action)
        assert np.array_equal(stored.timestamp_ns(), episode.timestamp_ns)
        assert np.array_equal(stored.valid(), episode.valid)
        for camera in store.cameras:
            assert np.array_equal(stored.frames(camera), pixels(episode, camera))
        assert stored.stitched([0]).shape == (1, *manifest.stitch.size, 3)


def test_damaged_recordings_are_bad_episodes(converter: Converter, root: Path) -> None:
    ref = converter.discover(root).episodes[0]
    path = root / ref.files[0]
    data = path.read_bytes()
    for damage in (data[: len(data) // 2], data[:100], b"", b"x" * len(data)):
        path.write_bytes(damage)
        with pytest.raises(BadEpisode) as caught:
            converter.read(root, ref)
        assert str(caught.value) and "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises((BadEpisode, FileNotFoundError)):  # both are one recording's fault
        converter.read(root, ref)


def test_wrong_roots_and_options_are_usage_errors(converter: Converter, name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        converter.discover(tmp_path / "empty")
    assert str(tmp_path / "empty") in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="no option 'no-such-option'"):
        load_converter(manifest_for(name, SAMPLES[name][1], {"no-such-option": 1}))
    assert issubclass(BadEpisode, FwdataError)
