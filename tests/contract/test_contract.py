"""The contract that every converter keeps. A new converter adds a writer of two sample recordings to SAMPLES."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import lerobot_files
import numpy as np
import pytest
import r1lite_files
from fixtures import (
    PLUGINS,
    killed,
    run_convert,
    stamps,
    tree,
    write_toy,
)
from libero_files import write_file as write_libero
from numpy.typing import NDArray
from robotwin_files import write_task

import fwdata
from fwdata.api import BadEpisode, Converter, Discovery, EncodedCamera, Episode, UsageError, VideoCamera
from fwdata.errors import FwdataError
from fwdata.images.colour import ToRgb
from fwdata.images.jpeg import decode_rgb
from fwdata.manifest import Manifest, load_manifest
from fwdata.pipeline.choose import manifest_for
from fwdata.pipeline.registry import converter_names, load_converter

type Writer = Callable[[Path], object]


def write_r1lite(root: Path, number: int) -> Path:
    """One recording in a folder of its own."""
    notes = [r1lite_files.annotation("左@Lift the block.", 0, 9)]
    return r1lite_files.write_recording(root / f"take{number}", r1lite_files.recording(frames=10 + number), notes)


def take(number: int) -> list[r1lite_files.Sent]:
    return r1lite_files.recording(frames=10 + number)


def lerobot(version: str) -> Writer:
    return lambda root: lerobot_files.write_dataset(root / "set", lerobot_files.Recipe(version=version))


SAMPLES: dict[str, tuple[Writer, str, str]] = {
    "robotwin": (lambda root: write_task(root, "classic", "click_bell", [0, 1]), "robotwin-sample", "robotwin"),
    "robotwin-v1": (lambda root: write_task(root, "v1", "click_bell", [0, 1]), "robotwin-sample", "robotwin"),
    "lerobot-v2.1": (lerobot("v2.1"), "lerobot-r1lite", "lerobot"),
    "lerobot-v3.0": (lerobot("v3.0"), "lerobot-r1lite", "lerobot"),
    "libero": (
        lambda root: write_libero(root / "libero_goal" / "turn_on_the_stove_demo.hdf5", [0, 1]),
        "libero",
        "libero",
    ),
    "r1lite-mcap": (lambda root: [write_r1lite(root, n) for n in (1, 2)], "r1lite", "r1lite"),
    "r1lite-bag": (  # the folder's name tells the task
        lambda root: [r1lite_files.write_bag(root / "lift_block" / f"t{n}.bag", take(n)) for n in (1, 2)],
        "r1lite",
        "r1lite",
    ),
    "r1lite-db3": (
        lambda root: [root.mkdir(), *(r1lite_files.write_db3(root / f"take{n}", take(n)) for n in (1, 2))],
        "r1lite",
        "r1lite",
    ),
    "toy": (lambda root: write_toy(root, {"a": [5, 6]}), "toy", "toy"),
}
"""Format -> (writes two recordings below a folder, manifest that fits them, converter)."""


def test_every_converter_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    assert set(converter_names()) == {converter for _, _, converter in SAMPLES.values()}, "add a writer to SAMPLES"


@pytest.fixture(params=SAMPLES)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    return str(request.param)


@pytest.fixture
def manifest(name: str) -> Manifest:
    return load_manifest(SAMPLES[name][1])


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
    if isinstance(found, VideoCamera):
        to_rgb = ToRgb()
        return np.stack([to_rgb(frame) for frame in found.frames()])
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
    copy = tmp_path / "copied" / root.name  # which may say what the task is
    copy.mkdir(parents=True)
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
    assert store.source == SAMPLES[name][2]
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
        load_converter(manifest_for(SAMPLES[name][2], SAMPLES[name][1], {"no-such-option": 1}))
    assert issubclass(BadEpisode, FwdataError)


class HeaderOnly:
    """An open video of which the streams can be looked at, and nothing be read."""

    def __init__(self, container: av.container.InputContainer) -> None:
        self.streams, self.close = container.streams, container.close

    def __enter__(self) -> HeaderOnly:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def test_discovery_reads_no_picture(converter: Converter, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import h5py
    import simplejpeg

    def refused(*arguments: object, **more: object) -> object:
        raise AssertionError("a picture was read")

    def no_frames(dataset: h5py.Dataset, *arguments: object) -> object:
        return refused() if dataset.ndim > 2 or dataset.dtype.kind == "S" else plain(dataset, *arguments)

    plain = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", no_frames)
    opened = av.open
    monkeypatch.setattr(av, "open", lambda *arguments, **more: HeaderOnly(opened(*arguments, **more)))
    for function in ("decode_jpeg", "decode_jpeg_header"):
        monkeypatch.setattr(simplejpeg, function, refused)
    found = converter.discover(root)
    monkeypatch.undo()
    for ref in found.episodes:
        assert ref.num_frames in (None, len(converter.read(root, ref).state))


@pytest.fixture
def two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fwdata.pipeline.plan.PART_EPISODES", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("two_parts")
def test_a_killed_conversion_completes_identically_and_a_finished_one_writes_nothing(
    manifest: Manifest, root: Path, tmp_path: Path
) -> None:
    run_convert(root, tmp_path / "whole.zarr", manifest)
    whole, out = tree(tmp_path / "whole.zarr"), tmp_path / "s.zarr"
    assert killed(lambda: run_convert(root, out, manifest), 14)
    assert 0 < len(tree(out)) < len(whole)
    assert run_convert(root, out, manifest).episodes == 2
    assert tree(out) == whole
    before = stamps(out)
    again = run_convert(root, out, manifest)
    assert (again.episodes, again.new_episodes) == (2, 0) and stamps(out) == before


@pytest.mark.slow
@pytest.mark.usefixtures("two_parts")
def test_workers_change_no_byte(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    run_convert(root, tmp_path / "0.zarr", manifest)
    for workers in (1, 4):  # 4: more than there are parts
        assert run_convert(root, tmp_path / f"{workers}.zarr", manifest, workers).new_episodes == 2
        assert tree(tmp_path / f"{workers}.zarr") == tree(tmp_path / "0.zarr")


@pytest.mark.slow
def test_what_was_found_is_converted_quarantined_or_skipped(
    converter: Converter, manifest: Manifest, root: Path, tmp_path: Path
) -> None:
    found = converter.discover(root).episodes
    path = root / found[0].files[0]
    damaged = {ref.source for ref in found if ref.files[0] == found[0].files[0]}
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    try:
        report = run_convert(root, tmp_path / "s.zarr", manifest)
    except UsageError as error:  # nothing is left of a file that holds them all
        assert len(damaged) == len(found) and path.name in str(error)
        return
    assert report.episodes == len(found) - len(damaged)
    outcomes = {row.source: row.outcome for row in report.rows}
    assert len(outcomes) == len(report.rows) == report.episodes + len(report.quarantined)
    left_out = {source for source, outcome in outcomes.items() if outcome != "converted"}
    assert left_out == damaged or left_out == {path.relative_to(root).as_posix()}
    assert all(row.reason and row.frames == 0 for row in report.rows if row.outcome != "converted")


def test_what_steers_fwdata_is_a_field_and_is_stored_among_the_metadata():
    from dataclasses import replace

    import numpy as np

    from fwdata.api import BadEpisode, Episode, EpisodeSegment

    rows = np.zeros((4, 2), np.float32)
    plain = Episode(
        {},
        rows,
        rows,
        np.arange(4, dtype=np.int64),
        np.ones(4, np.bool_),
        ("x", "y"),
        ("x", "y"),
        "t",
        ("go",),
        {"a": 1},
    )
    assert plain.stored_metadata() == {"a": 1}
    parts = (EpisodeSegment(0, 1, "go", {"quality": "good"}), EpisodeSegment(2, 3, ""))
    full = replace(plain, embodiment="arm", segments=parts, instruction_per_frame=True)
    assert full.stored_metadata() == {
        "a": 1,
        "embodiment": "arm",
        "instruction_per_frame": True,
        "segments": [
            {"first_frame": 0, "last_frame": 1, "instruction": "go", "quality": "good"},
            {"first_frame": 2, "last_frame": 3, "instruction": ""},
        ],
    }
    with pytest.raises(BadEpisode, match="metadata must not hold 'embodiment': it is a field of Episode"):
        replace(plain, metadata={"embodiment": "arm"})
    with pytest.raises(BadEpisode, match="instruction_per_frame needs segments"):
        replace(plain, instruction_per_frame=True)
