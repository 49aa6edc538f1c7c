"""What every command does with a store of recorded video: merge, stitch, encode, preview, verify, repair, inspect."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from fixtures import FakeVae, flip_bit, killed, run_convert, tree
from raw_metadata import read_attributes, write_attributes
from video_stores import video_manifest, video_store, write_recording

import fwdata
from fwdata.encode.latents import EncodeRequest, encode_latents, latent_identity
from fwdata.images.stitch import stitch
from fwdata.images.video import decoder_version
from fwdata.merge import MergeRequest, merge
from fwdata.pipeline.estimate import dry_run
from fwdata.pipeline.repair import RepairRequest, repair
from fwdata.pipeline.request import ConvertRequest
from fwdata.report.inspect_store import describe
from fwdata.report.preview import write_preview
from fwdata.store.caches.stitched import materialise
from fwdata.store.verify import verify_store

FRAMES = 40


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two episodes of one clip, at tmp_path/s.zarr; the recordings in tmp_path/raw."""
    (tmp_path / "raw/task").mkdir(parents=True)
    write_clip(tmp_path / "raw/task/c.mp4", moving(FRAMES), gop=12, matrix=1)
    video_store(
        tmp_path / "raw",
        tmp_path / "s.zarr",
        monkeypatch,
        {"a": ("c.mp4", range(3, 16)), "b": ("c.mp4", range(16, 38))},
    )
    return tmp_path / "s.zarr"


def test_merging_with_a_plain_store_gives_the_newer_layout(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "raw/task/c.mp4", moving(FRAMES, seed=5), gop=12)
    video_store(tmp_path / "raw", tmp_path / "t.zarr", monkeypatch, {"c": ("c.mp4", range(9))})
    plain = {**read_attributes(tmp_path / "t.zarr"), "layout_version": 1}
    write_attributes(tmp_path / "t.zarr", plain)  # as of a store that holds pixels only
    for number, inputs in enumerate([(store, tmp_path / "t.zarr"), (tmp_path / "t.zarr", store)]):
        out = tmp_path / f"m{number}.zarr"
        merge(MergeRequest(tuple(map(str, inputs)), out, allow_duplicates=True))
        merged = fwdata.open(out)
        assert merged.layout_version == 2 and verify_store(out).damaged == []
        before = [e for path in inputs for e in fwdata.open(path).episodes]
        for old, new in zip(before, merged.episodes, strict=True):
            assert np.array_equal(old.frames("wrist"), new.frames("wrist"))


@pytest.mark.slow
def test_an_update_reads_the_episodes_of_a_part_of_video_again(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, manifest = tmp_path / "raw", video_manifest(monkeypatch)
    shutil.copytree(store, tmp_path / "old.zarr")
    write_clip(raw / "task/d.mp4", moving(FRAMES, seed=7), gop=6)
    write_recording(raw / "task", "a", "d.mp4", range(5, 14))
    before = tree(store)
    assert [item.source for item in run_convert(raw, store, manifest).changed] == ["task/a.json"]
    assert tree(store) == before
    report = run_convert(raw, store, manifest, update=True)
    assert report.changed == [] and verify_store(store).damaged == []
    assert [part.name for part in fwdata.open(store).parts] == ["p00000-1"]
    run_convert(raw, tmp_path / "new.zarr", manifest)
    made = {name.replace("-1/", "/"): digest for name, digest in tree(store).items() if not name.startswith("plan")}
    assert made.items() <= tree(tmp_path / "new.zarr").items()
    first, second = fwdata.open(store).episodes
    assert np.array_equal(first.frames("wrist"), ffmpeg_rgb(raw / "task/d.mp4")[5:14])
    assert np.array_equal(second.frames("wrist"), ffmpeg_rgb(raw / "task/c.mp4")[16:38])
    for at_write in (1, 12, 25, 38):
        out = tmp_path / f"k{at_write}.zarr"
        shutil.copytree(tmp_path / "old.zarr", out)
        assert killed(lambda out=out: run_convert(raw, out, manifest, update=True), at_write)
        assert [e.num_frames for e in fwdata.open(out).episodes] in ([13, 22], [9, 22])
        run_convert(raw, out, manifest, update=True)
        assert tree(out) == tree(store), at_write


def test_stitching_encoding_and_preview_read_the_decoded_images(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = fwdata.open(store)
    shown = ffmpeg_rgb(tmp_path / "raw/task/c.mp4")[16:38]
    expected = stitch(dict.fromkeys(opened.cameras, shown), opened.manifest.stitch)
    assert np.array_equal(opened.episodes[1].stitched(), expected)
    materialise(store)
    assert np.array_equal(fwdata.open(store).episodes[1].stitched([4, 2]), expected[[4, 2]])
    monkeypatch.setattr("fwdata.encode.latents.load_vae", lambda spec, device, dtype: FakeVae())
    encode_latents(EncodeRequest(store, "fake", stride=4), lambda frames: None, lambda first, windows, seconds: None)
    opened = fwdata.open(store)
    first = opened.latents().first(opened.episodes[1], [5])
    assert np.array_equal(first[0], FakeVae().encode(expected[5:6])[:, 0])
    assert write_preview(opened, tmp_path / "page", 2).stat().st_size > 1000


def test_latents_of_video_name_what_decoded_it(store: Path) -> None:
    identity = latent_identity(fwdata.open(store), {}, 1)
    assert identity["video"] == {"colour": 1, "decoder": decoder_version()}


def test_inspect_and_dry_run_say_video(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = describe(fwdata.open(store))
    assert found["layout_version"] == 2
    assert found["cameras"]["wrist"] == {"height": 64, "width": 96, "encoding": "video", "channel_order": "rgb"}
    request = ConvertRequest("toyvideo", (tmp_path / "raw",), tmp_path / "new.zarr", video_manifest(monkeypatch), 0)
    assert dry_run(request).episodes == 2


@pytest.mark.slow
def test_every_damaged_file_of_a_video_part_is_found_and_rebuilt(store: Path, tmp_path: Path) -> None:
    whole = tree(store)
    rng = np.random.default_rng(1)
    for name in ("data", "offset", "rank", "entry", "header", "run", "picture"):
        [*files] = (store / "parts/p00000/cameras/wrist" / name).rglob("0")
        assert files, name
        flip_bit(files[0], rng)
        assert [n for n in verify_store(store).findings if f"wrist/{name}" in n.key]
        with pytest.raises(fwdata.errors.StoreDamaged):
            for episode in fwdata.open(store).episodes:
                episode.frames("wrist")
        report = repair(RepairRequest(store, (tmp_path / "raw",), workers=0))
        assert report.left.findings == [] and tree(store) == whole
