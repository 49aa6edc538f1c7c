"""The cameras of one episode, each a video or an image feature, opened without decoding an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converters.lerobot import kept, video
from converters.lerobot.images import open_images
from converters.lerobot.info import Info
from converters.lerobot.loose_images import open_loose
from converters.lerobot.meta import Dataset, EpisodeMeta
from converters.lerobot.own_exports import counted_frames
from converters.lerobot.parquet import Span, read_span
from converters.lerobot.second_decoder import decord_blocks
from converters.lerobot.shared_frames import Cut, cut_of, repeated_start
from converters.lerobot.shared_video import assign_shared
from converters.lerobot.surplus import Surplus, assign_alone, assign_surplus
from converters.lerobot.timelines import ADVICE, timeline
from converters.lerobot.values import Floats
from fwdata.api import Camera, EncodedCamera, Json, RawCamera, VideoCamera
from fwdata.errors import BadEpisode
from fwdata.images.colour import ToRgb
from fwdata.images.jpeg import decode_rgb

type VideoAs = Literal["keep", "pyav", "decord"]
"""Keep packets, or decode them with a library."""


@dataclass(frozen=True)
class Cameras:
    """The cameras of one episode, opened but not read."""

    by_name: Mapping[str, Camera]
    """Cameras under the manifest's names, in its order."""
    metadata: dict[str, Json]
    """Feature key, size, kind and frame rule of every camera, for the episode's metadata."""
    warnings: tuple[str, ...]
    """Sentences about images whose size, length or colours are not as declared; empty where nothing was found."""
    colours: dict[str, Json] | None
    """What `check_plain_scene` found in the first camera's first image; None: not looked at (option colour_check)."""


def open_cameras(
    dataset: Dataset,
    entry: EpisodeMeta,
    span: Span,
    keys: Mapping[str, str],
    seconds: Floats | None = None,
    *,
    swapped: bool,
    extra_frames: Surplus,
    video_as: VideoAs,
    check_colours: bool,
) -> Cameras:
    """Open the cameras of an episode. keys: our name -> feature key; seconds: of `TableRows`.

    BadEpisode names the file and what was found.
    """
    cameras: dict[str, Camera] = {}
    metadata: dict[str, Json] = {}
    warnings: list[str] = []
    for name, key in keys.items():
        if dataset.info.features[key].dtype == "image":
            camera: Camera = open_images(span, key, swapped)
            told: dict[str, Json] = {"kind": "jpeg" if isinstance(camera, EncodedCamera) else "png"}
        else:
            camera, told = _open_video(dataset, entry, span, key, seconds, swapped, extra_frames, video_as, warnings)
        cameras[name] = camera
        metadata[name] = {"key": key, "size": [camera.height, camera.width], **told}
        declared = _declared_size(dataset.info, key)
        if declared and declared != (camera.height, camera.width):
            warnings.append(f"{key} is {camera.height}x{camera.width} pixels, meta/info.json says {declared}")
    colours = check_plain_scene(next(iter(cameras.values())), warnings) if check_colours else None
    return Cameras(cameras, metadata, tuple(warnings), colours)


def check_plain_scene(camera: Camera, warnings: list[str]) -> dict[str, Json]:
    """Whether the bright pixels of the first image are bluish: RoboTwin's plain wall and table are reddish.

    Tells sets whose red and blue were exchanged on the way; says nothing about scenes of random textures.
    """
    image = _first_image(camera).astype(np.int16)
    difference = image[..., 0] - image[..., 2]
    bright = difference[(image.min(axis=2) > 120) & (np.abs(difference) < 60)]
    share = bright.size / difference.size
    blue, red = (float((sign * bright > 3).mean()) if bright.size else 0.0 for sign in (-1, 1))
    verdict = "undecided"
    if share > 0.25 and max(blue, red) > 0.95:
        verdict = "reddish" if red > blue else "bluish"
    if verdict == "bluish":
        warnings.append(
            "red and blue look exchanged: the plain scene is bluish instead of reddish; look at `fwdata preview`, and "
            "convert with option colour=swapped if they are"
        )
    return {"verdict": verdict, "bright": round(share, 3), "reddish": round(red, 3), "bluish": round(blue, 3)}


def _first_image(camera: Camera) -> NDArray[np.uint8]:
    """Frame 0, uint8 [H, W, 3]; only that one is decoded. BadEpisode when it cannot be."""
    if isinstance(camera, EncodedCamera):
        first = next(iter(camera.frames()))
        try:
            return decode_rgb(first.data, first.red_blue_swapped)
        except ValueError as error:
            raise BadEpisode(f"the first image cannot be decoded: {error}") from None
    if isinstance(camera, VideoCamera):
        rgb = ToRgb()(next(iter(camera.frames())))
        return rgb[..., ::-1] if camera.swapped else rgb
    source = camera.frames
    alone = dataclasses.replace(source, ranks=source.ranks[:1]) if isinstance(source, video.VideoPixels) else source
    image: NDArray[np.uint8] = next(iter(alone()))[0]
    return image


def _open_video(
    dataset: Dataset,
    entry: EpisodeMeta,
    span: Span,
    key: str,
    seconds: Floats | None,
    swapped: bool,
    extra_frames: Surplus,
    video_as: VideoAs,
    warnings: list[str],
) -> tuple[RawCamera | VideoCamera, dict[str, Json]]:
    place, fps, told = entry.videos.get(key), dataset.video_hz, dict[str, Json]()
    if place is None:
        raise BadEpisode(f"the metadata give no video of camera {key} for episode {entry.index}")
    if place.images:
        told = {"kind": "png", "frame_of_row": "one image for every row, not encoded yet"}
        return open_loose(tuple(map(dataset.path, place.images)), place.images, swapped), told
    path = dataset.path(place.file)
    found = timeline(path, place.file, torn=place.start_s is not None)
    if place.start_s is not None and counted_frames(dataset.folder, place.file) == len(found.times):
        chosen = video.assign_span(found, place.file, entry.length, fps, place.start_s)
    elif place.start_s is not None:
        slots, label = dataset.shared[key, place.file], dataset.info.fps
        chosen = assign_shared(found, path, place.file, slots, entry.index, fps, label, seconds)
    elif len(found.times) < entry.length and found.tears:
        left = f"{len(found.times)} frames are left for the {entry.length} rows of the episode"
        raise BadEpisode(f"{place.file} {found.tears[0].words}; {left}; {ADVICE}")
    elif len(found.times) > entry.length:
        beside = partial(_cut_at, dataset, entry.index, key)
        chosen = assign_surplus(found, place.file, entry.length, fps, extra_frames, beside, seconds)
    else:
        chosen = assign_alone(found, place.file, entry.length, fps, seconds)
        warnings += _of_the_one_before(dataset, entry, span, key, place.file)
    video.check_whole(found, place.file, chosen.ranks)
    if chosen.warning:
        warnings.append(chosen.warning)
    told = {
        "kind": "video",
        "codec": found.codec,
        "frame_of_row": chosen.rule,
        "first_frame": int(chosen.ranks[0]),
        "largest_offset_ms": round(chosen.largest_offset_s * 1000, 3),
    }
    pixels = video.VideoPixels(path, place.file, chosen.ranks, swapped)
    if video_as == "keep":
        return kept.keep(pixels, found), told
    warnings += [f"{place.file}: {note}" for note in video.notes(path, place.file)]
    frames = partial(decord_blocks, pixels) if video_as == "decord" else pixels
    return RawCamera(frames, found.height, found.width), told


def _cut_at(dataset: Dataset, index: int, key: str, step: int) -> Cut | None:
    """The video of an episode or, `step` places on, of a neighbour; None where it cannot be read."""
    entry = dataset.episodes.get(index + step)
    place = entry.videos.get(key) if entry else None
    if entry is None or place is None or place.images:
        return None
    try:
        return cut_of(dataset.path(place.file), place.file, entry.length)
    except BadEpisode:  # a link that leads out of the folder is the other episode's fault, and said of that
        return None


def _of_the_one_before(dataset: Dataset, entry: EpisodeMeta, span: Span, key: str, name: str) -> list[str]:
    """A sentence where a video with as many frames as rows begins with frames of the episode before; else none."""
    before, here = (_cut_at(dataset, entry.index, key, step) for step in (-1, 0))
    count = repeated_start(before, here) if before and here else 0
    if not count or _same_rows(dataset, dataset.episodes[entry.index - 1], span, count):
        return []
    return [
        f"{name} has a frame for every row, but its first {count} are also the last of the episode before: it was cut "
        f"at an earlier keyframe and as long as the rows, so its images are {count} rows late or more, and others of "
        "the set may be; cut the videos again with the frames that are over, or leave the episode out"
    ]


def _same_rows(dataset: Dataset, before: EpisodeMeta, span: Span, count: int) -> bool:
    """Whether the last rows of the episode before begin this one, too, as where one stream was cut into overlapping
    episodes."""
    keys = [key for key in dataset.info.vectors() if dataset.info.features[key].size > 1]
    try:
        earlier, later = read_span(dataset.span(before), keys), read_span(span, keys)
    except BadEpisode:
        return False
    return bool(keys) and bool(earlier.slice(len(earlier) - count).equals(later.slice(0, count)))


def _declared_size(info: Info, key: str) -> tuple[int, int] | None:
    """(height, width) of an image's feature, channels first or last."""
    shape = info.features[key].shape
    if len(shape) != 3:
        return None
    first = 1 if shape[0] in (1, 3) and shape[2] not in (1, 3) else 0
    return shape[first], shape[first + 1]
