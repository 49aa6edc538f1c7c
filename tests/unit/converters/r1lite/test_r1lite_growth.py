"""A folder of R1 Lite recordings that grows: its json file changes with every recording, older recordings do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import r1lite_files as r1
from fixtures import run_convert, tree

import fwdata
from fwdata.errors import StoreDamaged
from fwdata.manifest import load_manifest
from fwdata.pipeline.repair import RepairRequest, repair
from fwdata.pipeline.results import ConvertReport

FIRST, SECOND = "take_a", "take_b"


def _add(root: Path, entries: list[dict[str, Any]], name: str) -> None:
    path = r1.McapWriter().write(root / name / f"{name}.mcap", r1.recording(frames=34))
    entry = {"name": path.name, "path": f"{name}/{path.name}", "robotType": "R1Lite"}
    entries.append({**entry, "annotations": [r1.annotation("抓取@pick it up", 0.0, 9.0)]})


def _convert(root: Path, entries: list[dict[str, Any]], out: Path, **more: Any) -> ConvertReport:
    r1.write_meta(root, entries)
    return run_convert(root, out, load_manifest("r1lite"), evidence=False, **more)


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, list[dict[str, Any]], Path]:
    """A folder of two recordings, its json's entries, and the store that was made when it held the first alone."""
    root, out = tmp_path / "raw", tmp_path / "s.zarr"
    entries: list[dict[str, Any]] = []
    _add(root, entries, FIRST)
    assert not _convert(root, entries, out).changed
    _add(root, entries, SECOND)
    return root, entries, out


def test_a_recording_that_joins_changes_no_other(grown) -> None:
    root, entries, out = grown
    entries.reverse()  # the older one has another place in the file, too
    report = _convert(root, entries, out)
    assert not report.changed and [e.id for e in fwdata.open(out).episodes] == [FIRST, SECOND]
    assert not _convert(root, entries, out).changed
    assert not _convert(root, entries, out, update=True).changed


def test_another_text_of_a_recording_changes_it_alone(grown) -> None:
    root, entries, out = grown
    _convert(root, entries, out)
    entries[0]["annotations"][0]["text"] = "放下@put it down"
    report = _convert(root, entries, out)
    assert [item.id for item in report.changed] == [FIRST]
    report = _convert(root, entries, out, update=True)
    assert [e.instruction for e in fwdata.open(out).episodes] == ["put it down", "pick it up"]
    assert not _convert(root, entries, out).changed


def test_a_store_is_repaired_from_a_folder_that_grew(grown) -> None:
    root, entries, out = grown
    r1.write_meta(root, entries)
    whole = tree(out / "parts")
    (out / "parts/p00000/lowdim/state/c/0/0").write_bytes(b"x")
    assert repair(RepairRequest(out, (root,), workers=0)).left.findings == [] and tree(out / "parts") == whole
    entries[0]["annotations"][0]["text"] = "放下@put it down"
    r1.write_meta(root, entries)
    (out / "parts/p00000/lowdim/state/c/0/0").write_bytes(b"x")
    before = tree(out)
    with pytest.raises(StoreDamaged, match=r"raw_data_meta\.json changed, and so did what was converted of it"):
        repair(RepairRequest(out, (root,), workers=0))
    assert tree(out) == before
