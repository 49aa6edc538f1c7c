"""Opening a store of many parts: every record checked, in bounded time."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from old_stores import unpack
from raw_metadata import read_attributes, write_attributes

import fwdata
from fwdata.errors import StoreDamaged
from fwdata.store.files import plan_digest, write_group
from fwdata.store.metadata import write_record
from fwdata.store.records import (
    CameraRecord,
    EpisodeRecord,
    FileRecord,
    PartRecord,
    PlannedEpisodeRecord,
    PlannedPartRecord,
    PlanRecord,
)

CAMERAS = ("head", "left", "right")
ARRAYS = (
    *("lowdim/state", "lowdim/action", "lowdim/timestamp_ns", "lowdim/valid", "details/data", "details/offset"),
    *(f"cameras/{camera}/{name}" for camera in CAMERAS for name in ("data", "offset", "swapped")),
)


def digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()


def episode(part: int, i: int) -> EpisodeRecord:
    name = f"task{part:04d}/aloha-agilex_clean_50/data/episode{i}.hdf5"
    texts = f"task{part:04d}/aloha-agilex_clean_50/instructions/episode{i}.json"
    files = tuple(FileRecord(path=p, bytes=10_000_000 + i, sha256=digest(p)) for p in (name, texts))
    text = f"grab bottle {i} and place it upright on table {part}"
    return EpisodeRecord(
        id=f"{part}/{i}", source=name, task=str(part), instruction=text, start=i * 200, length=200, files=files
    )


def metadata_of(path: Path, parts: int, episodes: int) -> Path:
    """The metadata of a large store, without its rows."""
    store = fwdata.open(unpack("v1-jpeg", path.parent))
    write_record(path, store.record)
    write_group(path / "parts")
    plan = []
    for number in range(parts):
        found = tuple(episode(number, i) for i in range(episodes))
        planned = tuple(PlannedEpisodeRecord(id=e.id, source=e.source, bytes=100) for e in found)
        plan.append(PlannedPartRecord(name=f"p{number:05d}", group=f"task{number}", episodes=planned))
        digests = {
            f"{array}/{file}": digest(number, array, file) for array in ARRAYS for file in ("zarr.json", "c/0/0")
        }
        digests |= {f"cameras/{c}/data/c/{i}": digest(number, c, i) for c in CAMERAS for i in range(20)}
        camera = CameraRecord(encoding="jpeg", height=240, width=320, channel_order="rgb")
        record = PartRecord(
            state="complete",
            digests=digests,
            group=f"task{number}",
            frames=200 * episodes,
            plan=plan_digest(plan[-1].sizes()),
            episodes=found,
            quarantined=(),
            cameras=dict.fromkeys(CAMERAS, camera),
        )
        write_record(path / "parts" / plan[-1].name, record)
    write_record(path / "plan", PlanRecord(parts=tuple(plan), skipped=(), warnings=()))
    return path


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """Generations of the garbage collections that happen in a test."""
    found: list[int] = []

    def seen(phase: str, info: dict[str, int]) -> None:
        found.append(info["generation"])

    gc.callbacks.append(seen)
    yield found
    gc.callbacks.remove(seen)


def test_parts_are_read_without_collecting_garbage_between_them(tmp_path: Path, collections: list[int]) -> None:
    path = metadata_of(tmp_path / "large.zarr", 12, 25)
    store = fwdata.open(path)
    collections.clear()
    assert len(store.episodes) == 300 and gc.isenabled()
    assert len(collections) <= 4  # those of enabling it again; one for every 700 records otherwise
    assert store.episodes[299].num_frames == 200


def test_garbage_is_collected_again_after_a_damaged_part(tmp_path: Path) -> None:
    path = metadata_of(tmp_path / "large.zarr", 2, 2)
    part = path / "parts/p00001"
    attributes = read_attributes(part)
    del attributes["episodes"][1]["length"]
    write_attributes(part, attributes)
    with pytest.raises(StoreDamaged, match=r"parts/p00001/zarr.json: field 'episodes.1.length' is missing"):
        len(fwdata.open(path).episodes)
    assert gc.isenabled()


@pytest.mark.slow
def test_a_store_of_27_500_episodes_opens_and_prints_its_cpu_time(tmp_path: Path) -> None:
    path = metadata_of(tmp_path / "large.zarr", 1_100, 25)
    best = 9.0
    for _ in range(2):
        began = time.process_time()
        assert len(fwdata.open(path).episodes) == 27_500
        best = min(best, time.process_time() - began)
    print(f"27,500 episodes opened in {best:.2f} s of CPU")  # with -s; the figure of docs/benchmarks.md
