"""What images of kept video are known again by: packets of an episode's own frames."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from lerobot_files import V2_VIDEO, V3_VIDEO, Recipe, frames, write_dataset, write_video
from lerobot_reading import read_all

from fwdata.api import Episode, VideoCamera
from fwdata.evidence.looks import CameraLook
from fwdata.evidence.thumbnails import Collector, looked_through
from fwdata.store.video_writer import VideoSpool

CAMERA = "head_rgb"


def look_of(episode: Episode, folder: Path) -> CameraLook:
    """Of one camera, as it is stored; the same as of one that is only looked at."""
    camera = episode.cameras[next(name for name in episode.cameras if CAMERA in name)]
    assert isinstance(camera, VideoCamera)
    taken, rows = Collector(light=True, every=3), len(episode.state)
    VideoSpool(CAMERA, camera, rows, folder, 1 << 20, taken).close()
    stored, seen = taken.look(camera), looked_through(camera, rows).look(camera)
    assert stored is not None and seen is not None
    assert np.array_equal(stored.prints, seen.prints) and np.array_equal(stored.tiles, seen.tiles)
    return stored


def test_an_episode_of_a_shared_group_has_the_prints_of_its_own_frames(tmp_path: Path) -> None:
    """Decoding the last one begins with the frames of those before it, which were counted as its own images."""
    recipe = Recipe(version="v3.0", lengths=(12, 12, 12), tasks=(0, 1, 1), size=(48, 64))
    raw = write_dataset(tmp_path / "set", recipe)
    key = next(key for key in recipe.cameras if CAMERA in key)
    whole = np.concatenate([frames(recipe, key, episode) for episode in range(3)])
    write_video(raw / V3_VIDEO.format(video_key=key, chunk_index=0, file_index=0), whole, recipe.fps, gop=250)
    looks = [look_of(episode, tmp_path) for episode in read_all(raw)]
    assert [len(look.prints) for look in looks] == [12, 12, 12]
    assert len(set().union(*(look.prints.tolist() for look in looks))) == 36


def test_a_video_that_was_copied_into_another_file_has_the_same_prints(tmp_path: Path) -> None:
    recipe = Recipe(lengths=(12, 12, 12), tasks=(0, 1, 1), size=(48, 64))
    raw = write_dataset(tmp_path / "set", recipe)
    key = next(key for key in recipe.cameras if CAMERA in key)
    paths = [raw / V2_VIDEO.format(video_key=key, episode_chunk=0, episode_index=n) for n in range(3)]
    with av.open(str(paths[1])) as box, av.open(str(paths[2]), "w") as copy:
        copy.metadata["comment"] = "not the same file, byte for byte"
        stream = copy.add_stream_from_template(box.streams.video[0], opaque=True)
        for packet in box.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    one, two, three = (look_of(episode, tmp_path) for episode in read_all(raw))
    assert np.array_equal(two.prints, three.prints) and len(two.prints) == 12
    assert not set(one.prints.tolist()) & set(two.prints.tolist())
