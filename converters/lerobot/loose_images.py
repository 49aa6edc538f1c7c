"""Images that LeRobot's writer had not encoded as a video yet when it was killed: one file each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.entry import EpisodeMeta, VideoPlace
from converters.lerobot.images import decode_image
from converters.lerobot.parquet import MAX_IMAGE_BYTES
from converters.lerobot.tree import Tree
from fwdata.api import BadEpisode, RawCamera, opening


@dataclass(frozen=True)
class LooseImages:
    """Images of one camera and episode, decoded one by one: uint8 [1, H, W, 3]. Picklable."""

    paths: tuple[Path, ...]
    """The files, in order of the rows."""
    names: tuple[str, ...]
    """How messages call them: relative to the dataset, POSIX."""
    height: int
    """Pixels of every image; another size is refused."""
    width: int
    """Pixels of every image; another size is refused."""
    swapped: bool
    """Whether red and blue are exchanged after decoding."""

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        for path, name in zip(self.paths, self.names, strict=True):
            image = _read(path, name)
            if image.shape[:2] != (self.height, self.width):
                found = f"{image.shape[0]}x{image.shape[1]}"
                raise BadEpisode(f"{name} is {found} pixels, frame 0 {self.height}x{self.width}")
            yield (image[..., ::-1] if self.swapped else image)[None]


def open_loose(paths: tuple[Path, ...], names: tuple[str, ...], swapped: bool) -> RawCamera:
    """The camera of such files; only the first is read. BadEpisode when that is no image."""
    height, width, _ = _read(paths[0], names[0]).shape
    return RawCamera(LooseImages(paths, names, height, width, swapped), height, width)


def loose_place(tree: Tree, key: str, entry: EpisodeMeta) -> VideoPlace | None:
    """The images of an episode where there is one for every row and no other, else None.

    lerobot 0.3 and later put them into images/CAMERA/episode-000000/frame-000000.png, earlier ones wrote `_` for `-`.
    They are removed when their video is complete, all of a batch at once (batch_encoding_size).
    """
    for sign in "-_":
        names = [f"images/{key}/episode{sign}{entry.index:06d}/frame{sign}{n:06d}.png" for n in range(entry.length + 1)]
        beyond = names.pop()
        if names and names[-1] in tree.paths and beyond not in tree.paths and tree.paths.issuperset(names):
            return VideoPlace(names[0], images=tuple(names))
    return None


def _read(path: Path, name: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], RGB; BadEpisode for what is too large, cannot be read, or is no image."""
    try:
        with opening(path), path.open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise BadEpisode(f"{name} cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_IMAGE_BYTES:
        raise BadEpisode(f"{name} holds more than {MAX_IMAGE_BYTES >> 20} MiB, expected one image")
    return decode_image(data, name)
