"""What a dry run says of the recordings that it looks at: as far as they go, what the conversion says."""

from __future__ import annotations

from pathlib import Path

import lerobot_files as lr
import pytest
from fixtures import run_convert, toy_manifest, write_toy

from fwdata.errors import UsageError
from fwdata.manifest import load_manifest
from fwdata.pipeline import evidence
from fwdata.pipeline.estimate import dry_run
from fwdata.pipeline.request import ConvertRequest

MANIFEST = load_manifest("lerobot-r1lite")


def request_of(raw: Path, out: Path, **changes: object) -> ConvertRequest:
    return ConvertRequest("lerobot", (raw,), out, MANIFEST, 0, **changes)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("measured", [True, False])
def test_a_video_that_the_conversion_refuses_is_told(tmp_path: Path, measured: bool) -> None:
    raw = lr.write_dataset(tmp_path / "raw", lr.Recipe(lengths=(5, 7, 6), tasks=(0, 1, 0)))
    video = next(raw.rglob(f"{lr.R1LITE_CAMERAS[1]}/episode_000001.mp4"))
    video.write_bytes(video.read_bytes()[:200])
    request = request_of(raw, tmp_path / "s.zarr", evidence=measured)
    found = dry_run(request)
    report = run_convert(raw, tmp_path / "o.zarr", MANIFEST, evidence=measured)
    assert found.skipped == tuple(report.quarantined) and len(found.skipped) == 1
    assert found.looked_at == 3 and {text for _, text in found.warnings} == {
        "5 rows are fewer than a window of 33; windows are padded",
        "6 rows are fewer than a window of 33; windows are padded",
    }
    with pytest.raises(UsageError, match="episode_000001"):
        dry_run(request_of(raw, tmp_path / "s.zarr", evidence=measured, on_error="fail"))
    assert not (tmp_path / "s.zarr").exists()


def test_it_reads_a_share_of_many_or_large_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_toy(tmp_path / "raw", {"a": [3] * 12})
    request = ConvertRequest("toy", (raw,), tmp_path / "s.zarr", toy_manifest(monkeypatch), 0)
    assert dry_run(request).looked_at == 12
    monkeypatch.setattr(evidence, "DRY_ROWS", 7)
    assert 7 <= dry_run(request).looked_at < 12
    monkeypatch.setattr(evidence, "DRY_BYTES", 1)
    assert dry_run(request).looked_at == 5
