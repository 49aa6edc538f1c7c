"""Stores of recorded video, from clips made by the tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fixtures import PLUGINS, run_convert
from paths import SUPPORT

from fwdata.manifest import Manifest, load_manifest
from fwdata.pipeline.results import ConvertReport

VIDEO_PLUGIN = SUPPORT / "video_plugin"


def video_manifest(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """The toy manifest for recordings of `toyvideo`, with one camera used twice."""
    monkeypatch.setenv("FWDATA_PLUGINS", str(VIDEO_PLUGIN))
    toy = load_manifest(str(PLUGINS / "toy.yaml"))
    return toy.model_copy(update={"converter": "toyvideo"})


def write_recording(folder: Path, name: str, clip: str, frames: Sequence[int]) -> None:
    """One recording whose two cameras show the same frames of a clip beside it."""
    cameras = {camera: {"file": clip, "frames": list(frames)} for camera in ("overhead", "wrist")}
    (folder / f"{name}.json").write_text(json.dumps(cameras))


def video_store(
    raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch, recordings: Mapping[str, tuple[str, Sequence[int]]]
) -> ConvertReport:
    """Convert recordings (name -> clip below raw/task, its frames) to a store."""
    for name, (clip, frames) in recordings.items():
        write_recording(raw / "task", name, clip, frames)
    return run_convert(raw, out, video_manifest(monkeypatch))
