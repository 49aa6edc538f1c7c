"""Writing cameras of recorded video: packets byte for byte, and where each frame is among them.

data     uint8 [bytes]    packets in decode order, run after run
offset   int64 [P + 1]    first byte of each packet
rank     int64 [P]        display position of each packet's frame, counted over the part
entry    int64 [G + 1]    packets that decoding may start from; the last is P
header   int32 [G]        which of the camera's headers an entry needs
run      int64 [G]        entry at which the contiguous packets of its episode begin
picture  int64 [F]        rank shown at each row; frames that only others need have no row
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fwdata.api import Camera, RawCamera, VideoCamera
from fwdata.errors import BadEpisode
from fwdata.evidence.looks import packet_print
from fwdata.evidence.thumbnails import Collector
from fwdata.images.colour import ToRgb
from fwdata.images.recode import MixedFrames, recode
from fwdata.images.video import DecodeError, VideoHeader, VideoPacket, undamaged
from fwdata.io import naming
from fwdata.store.array import ArrayWriter, write_table
from fwdata.store.layout import byte_array
from fwdata.store.records import CameraRecord, VideoHeaderRecord
from fwdata.store.video_check import LONG_GROUP, DamagedVideo, Packets, check_packets
from fwdata.wording import counted

DAMAGED = "download the video again, or leave the episode out"
PIXEL_BLOCK = 16
"""Frames that are converted to pixels together."""


class VideoSpool:
    """One video camera's packets of the episode in flight, checked before any of them reaches the part.

    warnings: what was changed on the way. BadEpisode when neither packets nor frames can be stored.
    taken: given the frames as they are decoded for the check.
    """

    def __init__(
        self, name: str, camera: VideoCamera, expected: int, folder: Path, memory: int, taken: Collector | None = None
    ) -> None:
        self.warnings: list[str] = []
        self.rows = np.asarray(camera.rows, np.int64)
        if len(self.rows) != expected:
            raise BadEpisode(
                f"camera {name}: holds {counted(len(self.rows), 'frame')}, state and action hold "
                f"{counted(expected, 'row')}"
            )
        self._memory, self._folder, self._taken = memory, folder, taken
        self.file: IO[bytes] | None = None
        try:
            if camera.unkept:
                raise DecodeError(camera.unkept)
            self._take(camera.header, camera.packets())
            self._check(camera)
        except DamagedVideo as error:
            self.close()
            raise BadEpisode(f"camera {name}: the video is damaged: {error}; {DAMAGED}") from None
        except DecodeError as error:
            self._recode(name, camera, str(error))
        except BaseException:
            self.close()
            raise
        self.warnings += [f"camera {name}: {note}" for note in camera.notes]
        longest = max(end - first for first, end in self.packets.groups())
        if longest > LONG_GROUP:
            self.warnings.append(
                f"camera {name}: up to {longest} frames from keyframe to keyframe; a random frame is slow to read"
            )

    def _take(self, header: VideoHeader, packets: Iterator[VideoPacket]) -> None:
        """Write packets to a temporary file."""
        self.file = tempfile.SpooledTemporaryFile(self._memory, dir=str(self._folder))  # noqa: SIM115
        self.packets = Packets(header, self._read)
        self.offsets = [0]
        self._prints: list[int] = []
        with naming(self._folder):
            for packet in packets:
                if self._taken is not None:
                    self._prints.append(packet_print(packet.data))
                self.file.write(packet.data)
                self.offsets.append(self.offsets[-1] + len(packet.data))
                if packet.is_entry:
                    self.packets.entries.append(len(self.packets.ranks))
                self.packets.ranks.append(packet.rank)

    def _check(self, camera: VideoCamera) -> None:
        """Decode what was taken in once; DecodeError when it cannot be kept."""
        size = (camera.height, camera.width)
        if self._taken is None:
            check_packets(self.packets, self.rows, size)
            return
        shown = self.rows - self.packets.ranks[0]
        self._taken.clear(int(shown[0]))
        check_packets(self.packets, self.rows, size, self._taken.add_video)
        self._taken.order(shown)
        own = set(self.rows.tolist())  # a group may begin with frames of the episode before
        self._taken.add_prints(made for made, rank in zip(self._prints, self.packets.ranks, strict=True) if rank in own)

    def _recode(self, name: str, camera: VideoCamera, reason: str) -> None:
        """Take the decoded frames in, losslessly coded, in place of packets that cannot be kept."""
        size = (camera.height, camera.width)
        try:
            try:
                self._retake(recode(camera.frames(), size))
            except MixedFrames:
                self._retake(recode(camera.frames(), size, as_rgb=True))
            self.rows = np.arange(len(self.packets.ranks))
            self._check(camera)
        except (DecodeError, BadEpisode) as error:
            self.close()
            raise BadEpisode(f"camera {name}: the video cannot be kept as recorded ({reason}): {error}") from None
        except BaseException:
            self.close()
            raise
        if len(self.rows) != len(camera.rows):
            self.close()
            raise BadEpisode(f"camera {name}: {len(self.rows)} frames can be decoded, expected {len(camera.rows)}")
        self.warnings.append(
            f"camera {name}: the video cannot be kept as recorded ({reason}); its frames are stored losslessly coded"
        )

    def _retake(self, coded: tuple[VideoHeader, Iterator[VideoPacket]]) -> None:
        self.close()
        self._take(*coded)

    def _read(self, number: int) -> bytes:
        assert self.file is not None
        self.file.seek(self.offsets[number])
        return self.file.read(self.offsets[number + 1] - self.offsets[number])

    def read(self) -> Iterator[bytes]:
        """The packets again."""
        yield from (self._read(number) for number in range(len(self.offsets) - 1))

    def close(self) -> None:
        """Remove the temporary file."""
        if self.file is not None:
            self.file.close()


def as_pixels(camera: VideoCamera) -> RawCamera:
    """The same frames as pixels, for a store that holds no video."""

    def blocks() -> Iterator[NDArray[np.uint8]]:
        to_rgb, block = ToRgb(), []
        try:
            for number, frame in enumerate(undamaged(camera.frames()), 1):
                rgb = to_rgb(frame)
                block.append(rgb[..., ::-1] if camera.swapped else rgb)
                if len(block) == PIXEL_BLOCK or number == len(camera.rows):
                    yield np.stack(block)
                    block = []
        except DecodeError as error:
            raise BadEpisode(f"{error}; {DAMAGED}") from None

    return RawCamera(blocks, camera.height, camera.width)


class VideoCameraWriter:
    """One video camera of one part."""

    encoding = "video"

    def __init__(self, folder: Path, camera: VideoCamera, named: bool) -> None:
        self.folder, self.swapped, self._named = folder, camera.swapped, named
        self.size = (camera.height, camera.width)
        self.writer = ArrayWriter(folder / "data", byte_array(), named=named)
        self.headers: list[VideoHeader] = []
        self._lengths: list[int] = []
        self._ranks: list[int] = []
        self._entries: list[int] = []
        self._header_of: list[int] = []
        self._runs: list[int] = []
        self._rows: list[NDArray[np.int64]] = []

    def check(self, name: str, camera: Camera) -> None:
        """BadEpisode when the camera cannot be appended to this part."""
        if not isinstance(camera, VideoCamera):
            found = f"camera {name}: holds {camera.encoding} frames, the part holds video"
            raise BadEpisode(f"{found}; convert each kind to a store of its own (--only, --exclude)")
        if camera.swapped != self.swapped:
            raise BadEpisode(f"camera {name}: red and blue are exchanged in some episodes of the part only")

    def append(self, spool: object) -> None:
        """Add an episode's packets, a VideoSpool."""
        assert isinstance(spool, VideoSpool)
        base, run = len(self._ranks), len(self._entries)
        for data in spool.read():
            self.writer.append_bytes(data)
            self._lengths.append(len(data))
        if spool.packets.header not in self.headers:
            self.headers.append(spool.packets.header)
        count = len(spool.packets.entries)
        self._ranks += [base + rank for rank in spool.packets.ranks]
        self._entries += [base + entry for entry in spool.packets.entries]
        self._header_of += [self.headers.index(spool.packets.header)] * count
        self._runs += [run] * count
        self._rows.append(spool.rows + base)

    def finish(self) -> CameraRecord:
        """Write what is left; returns the camera's record."""
        self.writer.finish()
        tables: dict[str, NDArray[Any]] = {
            "offset": np.asarray([0, *accumulate(self._lengths)], np.int64),
            "rank": np.asarray(self._ranks, np.int64),
            "entry": np.asarray([*self._entries, len(self._ranks)], np.int64),
            "header": np.asarray(self._header_of, np.int32),
            "run": np.asarray(self._runs, np.int64),
            "picture": np.concatenate(self._rows),
        }
        for name, values in tables.items():
            write_table(self.folder / name, values, self._named)
        return CameraRecord(
            encoding="video",
            height=self.size[0],
            width=self.size[1],
            channel_order="bgr" if self.swapped else "rgb",
            headers=tuple(VideoHeaderRecord.model_validate(header.to_json()) for header in self.headers),
        )
