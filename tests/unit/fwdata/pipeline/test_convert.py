"""Conversion: same bytes whatever happens, bad recordings left out with a reason, wrong outputs refused."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures import (
    PLUGINS,
    flip_bit,
    killed,
    run_convert,
    stamps,
    toy_manifest,
    tree,
    write_toy,
)
from numpy.typing import NDArray
from robotwin_files import write_task

import fwdata
from fwdata.api import BadEpisode, EncodedCamera, Episode, EpisodeRef, RawCamera
from fwdata.errors import StaleCache, StoreError, UsageError
from fwdata.manifest import Fps, Manifest, load_manifest
from fwdata.pipeline import plan as plan_module
from fwdata.pipeline.choose import manifest_for
from fwdata.pipeline.estimate import dry_run
from fwdata.pipeline.registry import load_converter
from fwdata.pipeline.request import ConvertRequest

TASKS = {"a": [3, 4], "b": [5], "c": [2, 2, 2]}


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    return toy_manifest(monkeypatch)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "raw", TASKS)


@pytest.fixture
def reference(tmp_path: Path, raw: Path, manifest: Manifest) -> dict[str, str]:
    run_convert(raw, tmp_path / "reference.zarr", manifest)
    return tree(tmp_path / "reference.zarr")


def test_report_and_rerun_writes_nothing(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    out = tmp_path / "s.zarr"
    report = run_convert(raw, out, manifest)
    assert (report.episodes, report.frames, report.new_episodes, report.new_frames) == (6, 18, 6, 18)
    before = stamps(out)
    again = run_convert(raw, out, manifest)
    assert (again.episodes, again.new_episodes, again.new_frames) == (6, 0, 0)
    assert stamps(out) == before


def test_workers_change_no_byte(tmp_path: Path, raw: Path, manifest: Manifest, reference: dict[str, str]) -> None:
    report = run_convert(raw, tmp_path / "s.zarr", manifest, workers=2)
    assert tree(tmp_path / "s.zarr") == reference
    assert report.new_episodes == 6


@pytest.mark.slow
def test_a_conversion_killed_anywhere_completes_identically(tmp_path: Path, manifest: Manifest) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [3], "b": [2, 2]})
    run_convert(raw, tmp_path / "reference.zarr", manifest)
    reference = tree(tmp_path / "reference.zarr")
    at_write, whole = 1, {0, 1, 3}
    while True:
        out = tmp_path / f"k{at_write}.zarr"
        if not killed(lambda out=out: run_convert(raw, out, manifest), at_write):
            break
        if (out / "zarr.json").exists():  # what it left opens, and shows whole parts only
            store = fwdata.open(out)
            assert len(store.episodes) in whole and not store.complete
            assert all(len(e.frames("wrist")) == e.num_frames for e in store.episodes)
        run_convert(raw, out, manifest)
        assert tree(out) == reference, f"killed at write {at_write}"
        at_write += 1 if at_write < 4 else 6
    assert at_write > 40
    assert tree(out) == reference


def test_new_recordings_become_further_parts(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    out = tmp_path / "s.zarr"
    run_convert(raw, out, manifest)
    before = {name: digest for name, digest in tree(out).items() if name.startswith("parts/")}
    write_toy(raw, {"0-new": [7]})
    assert run_convert(raw, out, manifest).new_episodes == 1
    assert before.items() <= tree(out).items()
    assert [e.id for e in fwdata.open(out).episodes][-1] == "0-new/take0"


def test_parts_hold_one_group_and_at_most_the_limits(
    tmp_path: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "PART_EPISODES", 2)
    run_convert(raw, tmp_path / "s.zarr", manifest)
    store = fwdata.open(tmp_path / "s.zarr")
    assert [[e.id for e in p.record.episodes] for p in store.parts] == [
        ["a/take0", "a/take1"],
        ["b/take0"],
        ["c/take0", "c/take1"],
        ["c/take2"],
    ]
    monkeypatch.setattr(plan_module, "PART_BYTES", 1)
    run_convert(raw, tmp_path / "t.zarr", manifest)
    assert len(fwdata.open(tmp_path / "t.zarr").parts) == 6


def test_missing_and_empty_folders_are_named(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(UsageError, match=rf"no folder {tmp_path}/none"):
        run_convert(tmp_path / "none", tmp_path / "s.zarr", manifest)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"holds no \.npz recording"):
        run_convert(tmp_path / "empty", tmp_path / "s.zarr", manifest)
    assert not (tmp_path / "s.zarr").exists()


def test_output_that_exists_is_refused(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="is a file"):
            run_convert(raw, out, manifest)
    with pytest.raises(UsageError, match="is not an fwdata store"):
        run_convert(raw, raw, manifest)
    (tmp_path / "empty").mkdir()
    assert run_convert(raw, tmp_path / "empty", manifest).episodes == 6


def test_output_of_another_manifest_is_refused_with_the_difference(
    tmp_path: Path, raw: Path, manifest: Manifest
) -> None:
    out = tmp_path / "s.zarr"
    run_convert(raw, out, manifest)
    before = stamps(out)
    changed = manifest.model_copy(update={"options": {"prefix": "now "}})
    with pytest.raises(StaleCache, match=r"with other settings: options\.prefix is '', asked for now ;") as caught:
        run_convert(raw, out, changed)
    assert caught.value.exit_code == 4
    other = changed.model_copy(update={"name": "other", "fps": Fps(hz=9), "units": dict.fromkeys("abcdefgh", "m")})
    with pytest.raises(StaleCache, match=r"with manifest 'toy', asked for 'other': fps.hz is 10.0, asked .*") as caught:
        run_convert(raw, out, other)
    assert re.search(r"(; [^;]* is [^;]*, asked for [^;]*){4}; and \d+ more; choose another --out$", str(caught.value))
    assert stamps(out) == before


def test_full_disk_ends_the_run_and_a_rerun_completes(
    tmp_path: Path, raw: Path, manifest: Manifest, reference: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s.zarr"
    count = 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("os.fsync", full)
        run_convert(raw, out, manifest)
    assert run_convert(raw, out, manifest).quarantined == []
    assert tree(out) == reference


def test_dry_run_writes_nothing(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    request = ConvertRequest("toy", (raw,), tmp_path / "s.zarr", manifest, workers=0)
    found = dry_run(request)
    assert (found.episodes, found.parts, found.pending_parts) == (6, 3, 3)
    assert found.bytes == sum(p.stat().st_size for p in raw.rglob("*.npz"))
    assert found.decisions == {"pictures": "as recorded"}
    assert not (tmp_path / "s.zarr").exists()
    run_convert(raw, tmp_path / "s.zarr", manifest)
    assert dry_run(request).pending_parts == 0


def test_source_files_are_recorded_with_their_digests(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    run_convert(raw, tmp_path / "s.zarr", manifest)
    record = fwdata.open(tmp_path / "s.zarr").parts[1].record.episodes[0].to_json()
    digest = tree(raw)["b/take0.npz"]
    assert record["files"] == [{"path": "b/take0.npz", "bytes": (raw / "b/take0.npz").stat().st_size, "sha256": digest}]
    assert str(tmp_path) not in json.dumps(fwdata.open(tmp_path / "s.zarr").metadata)


def test_damaged_jpeg_is_found_at_conversion(tmp_path: Path) -> None:
    import h5py

    write_task(tmp_path / "rt", "classic", "click_bell", [0, 1])
    with h5py.File(tmp_path / "rt/click_bell/demo_clean/data/episode1.hdf5", "r+") as file:
        frames = file["observation/left_camera/rgb"]
        frames[2] = bytes(frames[2])[:200]
    report = run_convert(tmp_path / "rt", tmp_path / "s.zarr", load_manifest("robotwin-sample"))
    assert report.episodes == 1
    assert "episode1.hdf5" in report.quarantined[0][0] and "left_camera, frame 2" in report.quarantined[0][1]


def test_unknown_names_get_the_closest_match(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    with pytest.raises(UsageError, match="no converter 'robotwni'; did you mean 'robotwin'"):
        manifest_for("robotwni", None, {})
    with pytest.raises(UsageError, match="no manifest 'robotwin-sampel'; did you mean 'robotwin-sample'"):
        manifest_for("robotwin", "robotwin-sampel", {})
    with pytest.raises(UsageError, match="manifest 'robotwin' is for converter 'robotwin', not 'toy'"):
        manifest_for("toy", "robotwin", {})
    with pytest.raises(UsageError, match="converter 'toy' has no option 'prefx'; did you mean 'prefix'"):
        load_converter(manifest_for("toy", None, {"prefx": "a"}))
    assert manifest_for("toy", None, {"prefix": "a"}).options == {"prefix": "a"}


def test_a_plugin_without_a_converter_class_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    shutil.copy(PLUGINS / "toy.yaml", tmp_path / "mine.yaml")
    text = (tmp_path / "mine.yaml").read_text().replace("converter: toy", "converter: mine")
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path))
    with pytest.raises(UsageError, match=r"mine\.py has no class Converter"):
        load_converter(load_manifest("mine"))


def test_a_changed_part_of_another_plan_is_refused(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    out = tmp_path / "s.zarr"
    run_convert(raw, out, manifest)
    flip_bit(out / "parts" / "p00000" / "zarr.json", np.random.default_rng(0))
    with pytest.raises(StoreError):
        run_convert(raw, out, manifest)


def test_a_store_of_other_recordings_is_not_extended(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    out = tmp_path / "s.zarr"
    run_convert(raw, out, manifest)
    before = tree(out)
    other = write_toy(tmp_path / "other", {"another task": (3,)})
    with pytest.raises(UsageError, match="was converted from other recordings"):
        run_convert(other, out, manifest)
    assert tree(out) == before


def test_absurd_sizes_are_refused_before_anything_is_allocated() -> None:
    camera = RawCamera(lambda: iter(()), 4096, 4096)
    rows = np.broadcast_to(np.float32(0), (1 << 17, 2))
    with pytest.raises(BadEpisode, match=r"camera wrist: 131072 frames of 4096x4096"):
        Episode(
            {"wrist": camera}, rows, rows, np.arange(1 << 17), np.ones(1 << 17, np.bool_), "xy", "xy", "task", ["text"]
        )
    with pytest.raises(BadEpisode, match=r"images of 0x4 pixels"):
        EncodedCamera(lambda: iter(()), 0, 4)


def endless(camera: RawCamera) -> Iterator[NDArray[np.uint8]]:
    while True:
        yield np.zeros((16, camera.height, camera.width, 3), np.uint8)


def test_a_camera_without_an_end_does_not_fill_the_disk(
    tmp_path: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:

    converter = type(load_converter(manifest))

    class Endless(converter):  # type: ignore[misc,valid-type]
        def read(self, root: Path, ref: EpisodeRef) -> Episode:
            episode: Episode = super().read(root, ref)
            camera = episode.cameras["wrist"]
            assert isinstance(camera, RawCamera)
            changed = replace(camera, frames=lambda: endless(camera))
            return replace(episode, cameras={**episode.cameras, "wrist": changed}) if ref.group == "b" else episode

    monkeypatch.setattr("fwdata.pipeline.part.load_converter", lambda manifest: Endless(manifest))
    report = run_convert(raw, tmp_path / "s.zarr", manifest)
    assert [s for s, _ in report.quarantined] == ["b/take0.npz"] and "more frames" in report.quarantined[0][1]
