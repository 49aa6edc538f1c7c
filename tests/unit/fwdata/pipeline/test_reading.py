"""Recordings that are measured and then converted are read once, where the converter says that reading is slow."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from fixtures import run_convert
from paths import DATA

from converters.lerobot.converter import LerobotConverter
from converters.r1lite import Converter
from fwdata.evidence.registry import find_detector
from fwdata.manifest import load_manifest
from fwdata.pipeline import ahead, evidence, reading


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    found: Counter[str] = Counter()
    read = Converter.read

    def counted(self, root, ref):
        found[ref.id] += 1
        return read(self, root, ref)

    monkeypatch.setattr(Converter, "read", counted)
    monkeypatch.setattr(reading, "_kept", {})
    return found


def convert(out: Path, raw: Path = DATA / "r1lite", below: str = "parts") -> dict[str, bytes]:
    assert run_convert(raw, out, load_manifest("r1lite")).episodes == 1
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in (out / below).rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_recording_is_read_once_and_stored_the_same(
    tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = convert(tmp_path / "once.zarr")
    assert reads and set(reads.values()) == {1} and not reading._kept
    monkeypatch.setattr(Converter, "slow_reading", False)
    assert convert(tmp_path / "again.zarr") == stored
    assert max(reads.values()) >= 3


def test_a_lerobot_episode_is_read_once_and_stored_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, read = Counter[str](), LerobotConverter.read

    def counted(self, root, ref):
        count[ref.id] += 1
        return read(self, root, ref)

    def stored(name: str) -> dict[str, bytes]:
        out = tmp_path / name
        assert run_convert(DATA / "lerobot_v21", out, load_manifest("lerobot-r1lite")).episodes == 1
        return {p.relative_to(out).as_posix(): p.read_bytes() for p in (out / "parts").rglob("*") if p.is_file()}

    monkeypatch.setattr(LerobotConverter, "read", counted)
    monkeypatch.setattr(reading, "_kept", {})
    once = stored("once.zarr")
    assert count and set(count.values()) == {1} and not reading._kept
    monkeypatch.setattr(LerobotConverter, "slow_reading", False)
    assert stored("again.zarr") == once and max(count.values()) >= 3


def test_rows_are_measured_once_and_tell_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = Counter[str]()
    meaning = type(find_detector("action_meaning"))
    measured = meaning.measure

    def counted(self, episode):
        count[episode.id] += 1
        return measured(self, episode)

    monkeypatch.setattr(meaning, "measure", counted)
    monkeypatch.setattr(reading, "_measured", {})
    told = convert(tmp_path / "once.zarr", below="evidence")
    assert set(count.values()) == {1} and not reading._measured
    monkeypatch.setattr(ahead, "kept_measurement", lambda request, recording: None)
    assert convert(tmp_path / "again.zarr", below="evidence") == told
    assert set(count.values()) == {3}


def test_images_that_were_looked_at_first_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Counter[str]()
    content = type(find_detector("camera_content"))
    measured = content.measure

    def counted(self, episode):
        count[episode.id] += bool(episode.thumbnails)
        return measured(self, episode)

    monkeypatch.setattr(content, "measure", counted)
    monkeypatch.setattr(evidence, "IMAGE_SHARE", 1)
    monkeypatch.setattr(evidence, "MIN_IMAGES", 1)
    monkeypatch.setattr(reading, "_measured", {})
    told = convert(tmp_path / "once.zarr", below="evidence")
    assert set(count.values()) == {1}
    monkeypatch.setattr(ahead, "kept_measurement", lambda request, recording: None)
    assert convert(tmp_path / "again.zarr", below="evidence") == told
    assert set(count.values()) == {3}


def test_a_recording_that_changed_after_it_was_measured_is_read_again(
    tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = shutil.copytree(DATA / "r1lite", tmp_path / "raw")
    files = [path for path in raw.rglob("*") if path.suffix in (".mcap", ".db3")]
    read = reading.read_recording

    def touching(request, converter, recording, *, again=False):
        if not again:
            for file in files:
                os.utime(file, ns=(1, 1))
        return read(request, converter, recording, again=again)

    monkeypatch.setattr("fwdata.pipeline.ahead.read_recording", touching)
    convert(tmp_path / "o.zarr", raw=raw)
    assert set(reads.values()) == {2}


@pytest.mark.slow
def test_a_process_keeps_so_many(tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_KEPT", 0)
    convert(tmp_path / "o.zarr")
    assert min(reads.values()) >= 2
