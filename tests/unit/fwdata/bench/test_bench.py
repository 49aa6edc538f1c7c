"""Benchmarks: they measure the work they name, on recordings that convert. No timing is asserted."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command
from fixtures import (
    run_convert,
    save,
    toy_arrays,
    toy_manifest,
    toy_store,
)
from latent_caches import random_latents

import fwdata
from fwdata.bench import SOURCES, Timing, bench_convert, bench_read, write_recordings
from fwdata.bench.codecs import CODECS
from fwdata.bench.evidence import bench_evidence
from fwdata.bench.floor import in_worker
from fwdata.bench.recordings import EPISODES, _images
from fwdata.bench.timing import timed
from fwdata.bench.whole import convert_once
from fwdata.errors import FwdataError, UsageError
from fwdata.evidence.detectors.cameras import STILL
from fwdata.evidence.image_motion import ImageMotion
from fwdata.evidence.registry import all_detectors
from fwdata.evidence.thumbnails import from_rgb
from fwdata.manifest import Manifest
from fwdata.pipeline.choose import manifest_for
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.results import ConvertReport
from fwdata.pipeline.run import convert
from fwdata.store import layout, sources, writer

SIZES = {"robotwin": (240, 320), "libero": (128, 128), "r1lite": (720, 1280), "lerobot": (240, 320)}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("r1lite", "lerobot")]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["robotwin", "libero", *SLOW])
def test_made_recordings_convert_whole(source: str, tmp_path: Path) -> None:
    rows = 16
    raw = write_recordings(source, tmp_path / "raw", 2, rows)
    report = run_convert(raw, tmp_path / "s.zarr", manifest_for(source, None, {}, [raw]))
    store = fwdata.open(tmp_path / "s.zarr")
    assert (report.episodes, report.quarantined) == (2, [])
    assert rows - 1 <= report.frames / 2 <= rows
    first = store.episodes[0]
    assert first.frames(store.cameras[0], [3]).shape == (1, *SIZES[source], 3)
    assert (first.frames(store.cameras[0], [3]) != first.frames(store.cameras[0], [4])).mean() > 0.1
    assert len(store.parts) == (1 if source in ("r1lite", "lerobot") else 2)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(720, 1280), (360, 640), (240, 320)])
def test_no_detector_takes_made_images_for_frozen(height: int, width: int) -> None:
    view = _images(height, width, 3)
    images = from_rgb(np.stack([view(frame) for frame in range(6)]))
    assert ImageMotion(images).energy.min() > 4 * STILL


@pytest.mark.slow
def test_the_same_frames_are_counted_on_both_sides(tmp_path: Path) -> None:
    raw = write_recordings("robotwin", tmp_path / "raw", 2, 16)
    chosen = manifest_for("robotwin", None, {})
    found = bench_convert("robotwin", raw, chosen, repeats=1, peer=False, workers=(1, 2), short=raw)
    assert found.conversion.units == found.floor.units == 2 * 16 * 3
    assert found.pictures == "3 x 320x240 jpeg" and found.of_peer is None
    assert [(w.workers, w.frames) for w in found.whole] == [(1, 32), (2, 32)] and found.whole[0].cpu > 0
    assert all(w.store_bytes > 0 and 30e6 < w.peak_memory < 1e9 for w in found.whole)
    assert found.of_floor == found.conversion.rate / found.floor.rate > 0
    row = json.loads(json.dumps(found.to_json()))
    assert row["frames"] == 96 and row["floor_share"] > 0
    assert row["two_worker_ratio"] == pytest.approx(found.whole[0].wall / found.whole[1].wall, abs=1e-3)
    assert row["two_worker_limit"] > 0
    assert min(row["startup_seconds"], row["startup_cpu_seconds"]) > 0.1
    assert row["peak_memory"] == max(w.peak_memory for w in found.whole)
    assert 0.5 < row["bytes_ratio"] < 1.5 and row["bytes"]["store"] == found.store_bytes > 0


def test_made_images_are_measured_whatever_a_detector_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def accepting(request: ConvertRequest, *others: Any) -> ConvertReport:
        assert request.accept.keys() == {detector.name for detector in all_detectors()}
        return convert(request, *others)

    monkeypatch.setattr("fwdata.bench.whole.convert", accepting)
    raw = write_recordings("robotwin", tmp_path / "raw", 2, 16)
    assert convert_once("robotwin", raw, manifest_for("robotwin", None, {}), 0, True).rows == 32


def _state(manifest: Manifest, raw: Path) -> tuple[int, int]:
    """Number of the process, and digests that it knows already."""
    return os.getpid(), sources._cached_sha256.cache_info().currsize


def test_floor_and_conversion_are_measured_in_processes_that_did_nothing_else(tmp_path: Path) -> None:
    raw = write_recordings("robotwin", tmp_path / "raw", 2, 16)
    chosen = manifest_for("robotwin", None, {})
    convert_once("robotwin", raw, chosen, 0, False)
    assert _state(chosen, raw)[1] > 0
    first, second = (in_worker(_state, chosen, raw) for _ in range(2))
    assert first[1] == second[1] == 0 and len({os.getpid(), first[0], second[0]}) == 3


@pytest.mark.slow
def test_codecs_of_pixels_are_measured_in_the_same_run_and_leave_the_writer_as_it_was(tmp_path: Path) -> None:
    raw = write_recordings("libero", tmp_path / "raw", 2, 16)
    chosen = manifest_for("libero", None, {})
    found = bench_convert("libero", raw, chosen, repeats=1, peer=False, workers=(), evidence=False, codecs=True)
    rows = {row["codec"]: row for row in found.to_json()["codecs"]}
    assert list(rows) == [codec.name for codec in CODECS] and all(row["floor_share"] > 0 for row in rows.values())
    sizes = {name: row["bytes_ratio"] for name, row in rows.items()}
    assert sizes["stored as is, CRC-32C"] > 0.9 > sizes["lines, LZ4"] > sizes["lines, zstd fast (layout 3)"]
    assert sizes["lines, zstd fast (layout 3)"] == round(found.bytes_ratio, 3)
    assert writer.frame_array is layout.frame_array


def test_codecs_of_pixels_need_pixels(tmp_path: Path, run: Command) -> None:
    raw = write_recordings("robotwin", tmp_path / "raw", 2, 16)
    with pytest.raises(UsageError, match="--codecs compares codecs of pixels; the recordings of robotwin hold jpeg"):
        bench_convert("robotwin", raw, manifest_for("robotwin", None, {}), repeats=1, peer=False, codecs=True)
    assert "needs a source of pixels" in run("bench", "convert", "--codecs").err


@pytest.mark.slow
def test_kept_video_is_measured_by_group_length(run: Command) -> None:
    found = run("bench", "video", "--side", 64, "--frames", 20, "--json").json
    assert [row["video"].split()[-1] for row in found["rows"]] == ["2", "2", "12", "250"]
    assert all(row["random_ms"] > 0 and row["in_order_per_cpu_second"] > 0 for row in found["rows"])
    assert "AV1, group 2" in run("bench", "video", "--side", 64, "--frames", 20).out


@pytest.mark.slow
def test_lerobots_writer_is_timed_on_the_same_recordings(tmp_path: Path) -> None:
    raw = write_recordings("robotwin", tmp_path / "raw", 2, 16)
    found = bench_convert("robotwin", raw, manifest_for("robotwin", None, {}), repeats=1, workers=())
    assert found.peer is not None and found.peer.units == 48 and found.of_peer


def test_recordings_that_are_left_out_are_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for take, side in (("take0", 32), ("take1", 16)):  # one part cannot hold both sizes
        arrays = toy_arrays(4, side)
        arrays["overhead"] = arrays["overhead"][:, :side, :side]
        (tmp_path / "toy" / "push").mkdir(parents=True, exist_ok=True)
        save(tmp_path / "toy" / "push" / f"{take}.npz", arrays)
    with pytest.raises(FwdataError, match=r"recordings that are left out: push/take1"):
        bench_convert("toy", tmp_path / "toy", toy_manifest(monkeypatch), repeats=1, peer=False, workers=())
    raw = write_recordings("robotwin", tmp_path / "raw", 2, 16)
    next(raw.rglob("episode0.hdf5")).write_bytes(b"damaged")
    manifest = manifest_for("robotwin", None, {})
    with pytest.raises(FwdataError, match="episode0"):
        bench_convert("robotwin", raw, manifest, repeats=1, peer=False, workers=())
    with pytest.raises(UsageError, match="the benchmark cannot record 'robotvin'; did you mean 'robotwin'"):
        write_recordings("robotvin", tmp_path / "other", 2, 16)
    assert sorted(SOURCES) == sorted(EPISODES) == ["lerobot", "libero", "r1lite", "robotwin"]


def test_time_is_that_of_this_process_and_its_threads() -> None:
    found = timed("loop", lambda: sum(1 for _ in range(200_000)))
    assert found.units == 200_000 and found.cpu_seconds > 0
    assert Timing("x", 10, 2.0).rate == 5.0


@pytest.mark.slow
def test_the_command_prints_a_table(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--episodes", 2, "--rows", 16, "--no-peer", "--no-workers", "--no-evidence")
    monkeypatch.setattr("fwdata.pipeline.run.look_first", lambda *_: pytest.fail("conventions were measured"))
    ran = run("bench", "convert", "libero", *flags, "--json")
    assert ran.code == 0 and ran.json["rows"][0]["frames"] == 2 * 16 * 2
    shown = run("bench", "convert", "libero", *flags).out
    assert "2 x 128x128 raw" in shown and "of it" in shown
    run("bench", "convert", "robotvin").refused(2, "robotvin")


@pytest.mark.slow
def test_conventions_are_timed_in_turns(run: Command, tmp_path: Path) -> None:
    shown = run(
        "bench", "evidence", "libero", "--episodes", 2, "--rows", 16, "--runs", 3, "--workers", 1, "--json"
    ).json
    assert shown["source"] == "libero" and len(shown["without"]["wall"]) == len(shown["measured"]["wall"]) == 3
    lowest = min(shown["measured"]["cpu_seconds"]) / min(shown["without"]["cpu_seconds"]) - 1
    assert shown["adds_lowest"] == pytest.approx(lowest, abs=1e-3)
    run("bench", "evidence", "libero", tmp_path / "none").refused(1, "there is no folder")


def test_the_ways_are_timed_in_turns_that_begin_with_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = list[bool]()

    def timed(arguments: Sequence[str], some_left_out: bool) -> tuple[float, float]:
        assert some_left_out
        asked.append("--no-evidence" in arguments)
        return (2.0, 1.0 + len(asked)) if asked[-1] else (3.0, 10.0 + len(asked))

    monkeypatch.setattr("fwdata.bench.evidence.command_seconds", timed)
    found = bench_evidence("libero", tmp_path, 3)
    assert asked == [True, False, False, True, True, False, False, True]
    assert found.without == ((2.0, 5.0), (2.0, 6.0), (2.0, 9.0)) and [cpu for _, cpu in found.measured] == [13, 16, 17]
    assert found.adds(min) == pytest.approx(13 / 5 - 1) and found.adds(max, 0) == pytest.approx(0.5)
    assert found.rows()[0] == ("CPU, lowest", "5.00", "13.00", "+160%")
    assert found.adds_pairs() == pytest.approx(13 / 5 - 1) and found.adds_pairs(0) == pytest.approx(0.5)
    assert found.rows()[2] == ("CPU, median of pairs", "", "", "+160%") and len(found.rows()) == 6


@pytest.mark.slow
def test_reading_is_compared_with_two_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [20]})
    random_latents(path)
    found = bench_read(fwdata.open(path), batch=4, batches=3, repeats=1, memmap_bytes=1 << 16)
    names = [t.name.split(",")[0] for t in found]
    assert names == ["numpy.memmap", "floor: pread and CRC-32C of the same rows", *["fwdata"] * 3, "zarr-python"]
    assert all(t.units > 0 for t in found)
    monkeypatch.setattr("fwdata.bench.read.MEMMAP_BYTES", 1 << 16)
    shown = run("bench", "read", str(path), "--json").json
    assert shown["unit"] == "windows" and [row["name"] for row in shown["rows"]] == [t.name for t in found]
    assert shown["rows"][0]["ratio"] == 1
