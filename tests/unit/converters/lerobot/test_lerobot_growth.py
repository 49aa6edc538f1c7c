"""A v3.0 dataset whose shared table and videos grow with every episode: older episodes do not change by that."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import lerobot_files as lr
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures import run_convert, stamps, tree

import fwdata
from fwdata.errors import StoreDamaged
from fwdata.manifest import load_manifest
from fwdata.pipeline.estimate import dry_run
from fwdata.pipeline.repair import RepairRequest, assess, misfits, repair
from fwdata.pipeline.request import ConvertRequest
from fwdata.store.verify import verify_store

FIRST = lr.Recipe("v3.0", lengths=(5, 7), tasks=(0, (0, 0, 0, 1, 1, 1, 1)), cameras=lr.R1LITE_CAMERAS)
pytestmark = pytest.mark.slow

GROWN = replace(FIRST, lengths=(5, 7, 6), tasks=(*FIRST.tasks, 0))
MANIFEST = load_manifest("lerobot-r1lite")


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset of three episodes, and the store that was made when it held the first two."""
    raw, out = tmp_path / "raw", tmp_path / "s.zarr"
    assert not run_convert(lr.write_dataset(raw, FIRST), out, MANIFEST, evidence=False).changed
    lr.write_dataset(raw, GROWN)
    return raw, out


def test_episodes_that_join_change_no_other(grown: tuple[Path, Path]) -> None:
    raw, out = grown
    before = tree(out / "parts/p00000")
    assert not dry_run(ConvertRequest("lerobot", (raw,), out, MANIFEST, 1, evidence=False)).changed
    report = run_convert(raw, out, MANIFEST, evidence=False)
    assert not report.changed and [e.num_frames for e in fwdata.open(out).episodes] == [5, 7, 6]
    assert tree(out / "parts/p00000") == before
    seen = stamps(out)
    assert not run_convert(raw, out, MANIFEST, evidence=False, update=True).changed
    assert stamps(out) == seen, "files that were compared once are not compared again"


@pytest.mark.parametrize("what", ["row", "frame", "text"])
def test_what_changed_in_a_file_that_grew_is_changed(grown: tuple[Path, Path], what: str) -> None:
    raw, out = grown
    if what == "row":
        values = lr.rows(FIRST, "action.left_arm", 1)
        values[-1, -1] += 1e-6
        lr.write_dataset(raw, replace(GROWN, values={("action.left_arm", 1): values}))
    elif what == "frame":
        key = lr.R1LITE_CAMERAS[1]
        shown = np.concatenate([lr.frames(GROWN, key, episode) for episode in range(3)])
        shown[11, 8, 8, 0] ^= 1
        lr.write_video(raw / lr.V3_VIDEO.format(video_key=key, chunk_index=0, file_index=0), shown, GROWN.fps)
    else:
        path = raw / "meta/tasks.parquet"
        texts = pa.array(["pick up the cup", "close the drawer"])
        pq.write_table(pq.read_table(path).set_column(1, "task", texts), path)
    report = run_convert(raw, out, MANIFEST, evidence=False)
    assert [item.id for item in report.changed] == ["episode_000001"]
    run_convert(raw, out, MANIFEST, evidence=False, update=True)
    assert not run_convert(raw, out, MANIFEST, evidence=False).changed


def damage(store: Path) -> None:
    for path in (store / "parts/p00000/lowdim/state/c").rglob("*"):
        if path.is_file():
            path.write_bytes(b"x")


def test_a_store_is_repaired_from_a_dataset_that_grew(grown: tuple[Path, Path]) -> None:
    raw, out = grown
    whole = tree(out / "parts")
    damage(out)
    request = RepairRequest(out, (raw,), workers=0)
    assert misfits(request, assess(verify_store(out))) == ()
    assert repair(request).left.findings == [] and tree(out / "parts") == whole
    assert not run_convert(raw, out, MANIFEST, evidence=False).changed
    assert repair(request).left.findings == []  # nothing is damaged: the recordings are compared alone


@pytest.mark.parametrize("damaged", [True, False])
def test_a_store_is_not_repaired_from_other_content(grown: tuple[Path, Path], damaged: bool) -> None:
    raw, out = grown
    lr.write_dataset(raw, replace(GROWN, values={("action.left_arm", 1): lr.rows(FIRST, "action.left_arm", 1) + 1}))
    if damaged:
        damage(out)
    before, request = tree(out), RepairRequest(out, (raw,), workers=0)
    found = misfits(request, assess(verify_store(out)))
    assert len(found) == 1 and "p00000: data/chunk-000/file-000.parquet, videos/" in found[0]
    with pytest.raises(StoreDamaged, match=r"was converted from other recordings .* and so did what was converted"):
        repair(request)
    assert tree(out) == before


@pytest.mark.parametrize("lost", ["plan", "parts/p00000"])
@pytest.mark.parametrize("episodes", [None, 1])
def test_what_a_store_lost_itself_is_made_again_from_a_dataset_that_grew(
    tmp_path: Path, lost: str, episodes: int | None
) -> None:
    raw, out = lr.write_dataset(tmp_path / "raw", FIRST), tmp_path / "s.zarr"
    run_convert(raw, out, MANIFEST, evidence=False, part_episodes=episodes)
    whole = tree(out / "parts")
    (out / lost / "zarr.json").unlink()
    corrected = {("action.left_arm", 0): lr.rows(FIRST, "action.left_arm", 0) + 1}
    lr.write_dataset(raw, replace(GROWN, values=corrected))
    before, request = tree(out), RepairRequest(out, (raw,), workers=0)
    told = "so did what was converted of it" if lost == "plan" else r"1 of the \d+ files left of it do not agree"
    assert re.search(told, misfits(request, assess(verify_store(out)))[0])
    with pytest.raises(StoreDamaged, match=told):  # what is left of the part is not what these recordings make
        repair(request)
    assert tree(out) == before
    lr.write_dataset(raw, GROWN)
    assert repair(request).left.findings == []
    made = tree(out / "parts")
    assert [name for name in whole if made[name] != whole[name]] in ([], ["p00000/zarr.json"])
    assert not run_convert(raw, out, MANIFEST, evidence=False).changed
    assert [e.num_frames for e in fwdata.open(out).episodes] == [5, 7, 6]
