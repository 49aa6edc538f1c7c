"""Reading LIBERO task files in tests: the converter as the pipeline uses it, in one line each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from converting import SourceReading
from numpy.typing import NDArray

from fwdata.api import BadEpisode, Episode, RawCamera

_READING = SourceReading("libero")
manifest = _READING.manifest
converter = _READING.converter
read_all = _READING.read_all

TASK = "turn_on_the_stove"
FILE = f"libero_goal/{TASK}_demo.hdf5"
SHORT = "rows are fewer than a window"


def read_one(root: Path, **options: object) -> Episode:
    """The first demonstration below a root."""
    made = converter(**options)
    return made.read(root, made.discover(root).episodes[0])


def pixels(episode: Episode, camera: str) -> NDArray[np.uint8]:
    """All frames [T, H, W, 3] of a camera, as the store writer takes them."""
    found = episode.cameras[camera]
    assert isinstance(found, RawCamera)
    return np.concatenate(list(found.frames()))


def warnings_of(episode: Episode) -> list[str]:
    """Warnings, without those that every tiny recording of 24x20 pixels causes."""
    return [text for text in episode.warnings if SHORT not in text and " has images of 24x20 pixels" not in text]


def reason(root: Path, index: int = 0, **options: object) -> str:
    """Why a demonstration below a root cannot be converted."""
    made = converter(**options)
    ref = made.discover(root).episodes[index]
    with pytest.raises(BadEpisode) as caught:
        episode = made.read(root, ref)
        for camera in episode.cameras.values():
            list(camera.frames())
    assert "\n" not in str(caught.value)
    return str(caught.value)
