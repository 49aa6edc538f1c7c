"""Images that detectors look at: taken while they are stored, and of which recordings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import simplejpeg
from commands import Command
from evidence_episodes import changed, clean_set, told
from paths import DATA

from fwdata.api import EncodedFrame, Episode, EpisodeRef
from fwdata.evidence.claims import Conventions
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.thumbnails import Collector, from_rgb
from fwdata.pipeline import evidence, part
from fwdata.pipeline.evidence import first_recordings, gate_of
from fwdata.pipeline.roots import Root, RootedRecording
from fwdata.store.writer import check_jpeg


@pytest.mark.parametrize(
    ("source", "folder"),
    [("libero", "libero"), ("robotwin", "robotwin"), ("lerobot", "lerobot_v21"), ("r1lite", "r1lite")],
)
def test_images_taken_while_storing_are_those_of_the_recording(
    source: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command
) -> None:
    compared, seen = [], part.with_images

    def compare(rows: EpisodeInput, episode: Episode, taken: Mapping[str, Collector], every: int) -> EpisodeInput:
        again = evidence.read_thumbnails(episode)
        compared.extend(np.array_equal(taken[name].take(), again[name].take()) for name in taken)
        return seen(rows, episode, taken, every)

    monkeypatch.setattr(part, "with_images", compare)
    assert run("convert", source, DATA / folder, "--out", tmp_path / "o.zarr", "--workers", 0).code in (0, 3)
    assert compared and all(compared)


def test_a_grey_decode_finds_the_damage_that_a_colour_decode_finds() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    data = simplejpeg.encode_jpeg(image, quality=80)
    rng, found = np.random.default_rng(1), []
    for place in rng.integers(len(data) // 4, len(data), 200):
        broken = bytearray(data)
        broken[place] = rng.integers(256)
        found.append([raises(bytes(broken), taken) for taken in (None, Collector())])
    assert all(colour == grey for colour, grey in found)
    assert 0 < sum(colour for colour, _ in found) < 200
    assert all(raises(data[:end], taken) for end in (len(data) // 2, len(data) - 40) for taken in (None, Collector()))


def raises(data: bytes, taken: Collector | None) -> bool:
    """Whether the check of a JPEG buffer refuses it."""
    try:
        check_jpeg(EncodedFrame(data), 48, 64, taken)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(
    ("recordings", "images", "looked_at"), [(1, 0, 1), (8, 0, 4), (60, 0, 6), (150, 3, 10), (900, 10, 10)]
)
def test_the_first_recordings_are_spread_and_their_images_bounded(recordings: int, images: int, looked_at: int) -> None:
    root = Root(Path("raw"), "raw")
    found = [RootedRecording(root, EpisodeRef(f"e{n}", f"e{n}", (f"e{n}",), "g", 1)) for n in range(recordings)]
    chosen = first_recordings(found)
    assert (len(chosen), sum(shown for _, shown in chosen)) == (looked_at, images)
    assert chosen[0][0].id == "e0" and chosen[-1][0].id == f"e{recordings - 1}"


def test_videos_of_real_robots_are_looked_at_frame_by_frame_in_a_few_recordings() -> None:
    root = Root(Path("raw"), "raw")
    found = [RootedRecording(root, EpisodeRef(f"e{n}", f"e{n}", (f"e{n}",), "g", 1)) for n in range(30)]
    gate = gate_of((), {}, found)
    assert len(gate.shown) == 10 and len(gate.closely) == 4 and set(gate.closely) < gate.shown
    assert gate.closely[:2] == ("e0", "e29")
    other = next(name for name in (f"e{n}" for n in range(30)) if name not in gate.shown)
    half, (first, *_, last) = min(gate.shown - set(gate.closely)), gate.closely
    for encoding, simulated, rows, every in (
        ("video", False, 299, (1, 1, 2, 3)),
        ("video", False, 300, (1, 2, 2, 3)),
        ("video", True, 300, (1, 1, 1, 3)),
        ("raw", False, 300, (1, 1, 1, 2)),
    ):
        episode = SimpleNamespace(
            cameras={"head": SimpleNamespace(encoding=encoding)},
            conventions=Conventions(simulated=simulated),
            state=np.zeros((rows, 7)),
        )
        assert tuple(gate.every(name, cast(Episode, episode)) for name in (first, last, half, other)) == every


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("side", [64, 128, 480])
def test_random_pixels_are_noise_and_a_textured_scene_is_none(side: int, light: bool) -> None:
    random = np.random.default_rng(side)
    episode = clean_set()[0]
    count = len(episode.state)
    noise = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    texture = np.repeat(random.integers(0, 256, (1, side, side, 3), dtype=np.uint8), count, axis=0)
    shown = {"head": from_rgb(noise, light), "left": from_rgb(texture, light)}
    found = told("camera_content", changed(episode, thumbnails=shown))
    assert (found["head"].measured, found["head"].action, found["left"].verdict) == ("noise", "warn", "confirmed")
