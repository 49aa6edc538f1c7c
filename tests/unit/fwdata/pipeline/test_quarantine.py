"""Bad recordings: left out with a reason while the others go on, and tried again after they are fixed."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures import (
    killed,
    run_convert,
    save,
    toy_arrays,
    toy_manifest,
    tree,
    write_toy,
)

import fwdata
from fwdata.api import BadEpisode, EpisodeRef, Skipped
from fwdata.errors import UsageError
from fwdata.manifest import Manifest
from fwdata.merge import MergeRequest, merge
from fwdata.pipeline.discover import find_recordings
from fwdata.pipeline.registry import load_converter
from fwdata.store.sources import SourceFile, source_files
from fwdata.store.verify import verify_store


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    return toy_manifest(monkeypatch)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "raw", {"a": [3, 4], "b": [5], "c": [2, 2, 2]})


def spoil(raw: Path, name: str, **changes: object) -> None:
    arrays = {**toy_arrays(4, 0), **changes}
    save(raw / name, {k: v for k, v in arrays.items() if v is not None})


BAD: list[tuple[str, dict[str, object], str]] = [
    ("truncated", {}, "cannot be read"),
    (
        "short camera",
        {"wrist": np.zeros((3, 32, 32, 3), np.uint8)},
        "camera wrist: holds 3 frames, state and action hold 4",
    ),
    (
        "long camera",
        {"wrist": np.zeros((5, 32, 32, 3), np.uint8)},
        "camera wrist: holds more frames than the 4 rows of state and action",
    ),
    (
        "huge picture",
        {"wrist": np.zeros((4, 1 << 14, 1 << 13, 0), np.uint8)},
        "images of 16384x8192 pixels; between 1",
    ),
    ("no frames", {"state": np.zeros((0, 2), np.float32), "action": np.zeros((0, 2), np.float32)}, "no frame"),
    ("no text", {"text": np.array(" ")}, "no instruction text"),
    ("endless text", {"text": np.array("a" * 10_001)}, "characters; at most 10000 are taken"),
    ("not finite", {"state": np.full((4, 2), np.nan, np.float32)}, "state is not finite at frame 0, dimension x"),
    ("wrong type", {"state": np.zeros((4, 2), np.complex64)}, "state must be 2-D float32, found 2-D complex64"),
    ("missing array", {"wrist": None}, "array 'wrist' is missing"),
    (
        "other size",
        {"wrist": np.zeros((4, 16, 16, 3), np.uint8)},
        "camera wrist: frames are 16x16, the part holds 32x32",
    ),
    ("other rows", {"action": np.zeros((3, 2), np.float32)}, "action has 3 rows, state has 4"),
    ("dimensions", {"action": np.zeros((4, 3), np.float32)}, "3 dimensions, but 2 names"),
    ("float frames", {"wrist": np.zeros((4, 32, 32, 3))}, "expected uint8"),
]


@pytest.mark.parametrize(("changes", "reason"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_recording_is_left_out_with_its_reason(
    tmp_path: Path, raw: Path, manifest: Manifest, changes: dict[str, object], reason: str
) -> None:
    spoil(raw, "a/take1.npz", **changes)
    if not changes:
        path = raw / "a" / "take1.npz"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = run_convert(raw, tmp_path / "s.zarr", manifest)
    ((source, found),) = report.quarantined
    assert source == "a/take1.npz" and reason in found and "\n" not in found
    store = fwdata.open(tmp_path / "s.zarr")
    assert store.quarantined == [{"source": source, "reason": found}]
    assert [e.id for e in store.episodes] == ["a/take0", "b/take0", "c/take0", "c/take1", "c/take2"]
    assert np.array_equal(store.episodes[0].frames("wrist"), toy_arrays(3, 0)["wrist"])
    with pytest.raises(UsageError, match=r"^a/take1\.npz: "):
        run_convert(raw, tmp_path / "t.zarr", manifest, on_error="fail")
    assert verify_store(tmp_path / "s.zarr").damaged == []


def test_a_bad_first_recording_does_not_decide_the_names(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    (raw / "a" / "take0.npz").write_bytes(b"")
    report = run_convert(raw, tmp_path / "s.zarr", manifest)
    assert report.episodes == 5 and fwdata.open(tmp_path / "s.zarr").state_names == ("x", "y")
    assert run_convert(raw, tmp_path / "s.zarr", manifest).quarantined == report.quarantined
    with pytest.raises(UsageError, match=r"a/take0\.npz"):
        run_convert(raw, tmp_path / "t.zarr", manifest, on_error="fail")


def test_on_error_fail_stops_for_what_discovery_found_damaged_not_for_what_it_left_out_on_purpose(
    tmp_path: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = [Skipped("a/copy.npz", "the same as a/take0.npz", damaged=False)]
    find = find_recordings
    monkeypatch.setattr(
        "fwdata.pipeline.run.find_recordings", lambda *given: replace(find(*given), skipped=tuple(skipped))
    )
    assert run_convert(raw, tmp_path / "s.zarr", manifest, on_error="fail").quarantined == [
        ("a/copy.npz", "the same as a/take0.npz")
    ]
    skipped.append(Skipped("b/cut.npz", "it is empty"))
    with pytest.raises(UsageError, match=r"^b/cut\.npz: it is empty$"):
        run_convert(raw, tmp_path / "t.zarr", manifest, on_error="fail")
    assert not (tmp_path / "t.zarr").exists()
    assert len(run_convert(raw, tmp_path / "t.zarr", manifest).quarantined) == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("depth"), "KeyError: 'depth'"),
        (BadEpisode("no type\n  '\x1b[2J\0'\n"), "no type '\\x1b[2J\\x00'"),
        (BadEpisode("long " + "y" * 10**6), "long " + "y" * 992 + " .."),
    ],
    ids=["unforeseen", "of several lines", "long"],
)
def test_any_error_in_a_converter_costs_one_recording_and_one_line(
    tmp_path: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    converter = type(load_converter(manifest))
    read = converter.read

    def broken(self: object, root: Path, ref: object) -> object:
        if ref.source == "a/take0.npz":  # type: ignore[attr-defined]
            raise error
        return read(self, root, ref)  # type: ignore[arg-type]

    class Broken(converter):  # type: ignore[misc,valid-type]
        pass

    Broken.read = broken
    monkeypatch.setattr("fwdata.pipeline.part.load_converter", lambda manifest: Broken(manifest))
    report = run_convert(raw, tmp_path / "s.zarr", manifest)
    assert report.quarantined == [("a/take0.npz", reason)] and report.episodes == 5


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_a_failure_of_the_machine_is_no_recordings_fault(
    tmp_path: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    out = tmp_path / "s.zarr"

    def failing(root: Path, ref: EpisodeRef, prefix: str) -> tuple[SourceFile, ...]:
        if ref.source == "b/take0.npz":
            raise error
        return source_files(root, ref, prefix)

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr("fwdata.pipeline.part.source_files", failing)
        run_convert(raw, out, manifest)
    report = run_convert(raw, out, manifest)
    assert report.episodes == 6 and report.quarantined == []


def test_metadata_that_is_no_json_is_the_recordings_fault(
    tmp_path: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    converter = type(load_converter(manifest))

    class Odd(converter):  # type: ignore[misc,valid-type]
        def read(self, root: Path, ref: object) -> object:
            episode = super().read(root, ref)
            return replace(episode, metadata={"gain": float("nan")}) if ref.source == "b/take0.npz" else episode  # type: ignore[attr-defined]

    monkeypatch.setattr("fwdata.pipeline.part.load_converter", lambda manifest: Odd(manifest))
    report = run_convert(raw, tmp_path / "s.zarr", manifest)
    assert [s for s, _ in report.quarantined] == ["b/take0.npz"] and "plain JSON" in report.quarantined[0][1]


def test_nothing_readable_is_one_sentence_and_can_be_fixed(tmp_path: Path, manifest: Manifest) -> None:
    raw = tmp_path / "raw" / "a"
    raw.mkdir(parents=True)
    for i in range(5):
        (raw / f"take{i}.npz").write_bytes(b"")
    with pytest.raises(UsageError, match="none of the 5 recordings") as caught:
        run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest)
    assert len(str(caught.value)) < 600
    shutil.rmtree(raw)
    write_toy(tmp_path / "raw", {"z": [3]})
    report = run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest)
    assert report.episodes == 1 and report.quarantined == []


def test_recordings_that_vanish_before_their_turn_are_listed(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    out = tmp_path / "s.zarr"
    assert killed(lambda: run_convert(raw, out, manifest), 40)
    (raw / "c" / "take1.npz").unlink()
    report = run_convert(raw, out, manifest)
    assert report.quarantined == [("c/take1.npz", "the recording is no longer in the folder")]


def test_mended_recordings_are_converted_when_asked_for(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    out = tmp_path / "s.zarr"
    whole = (raw / "a" / "take1.npz").read_bytes()
    (raw / "a" / "take1.npz").write_bytes(whole[:100])
    (raw / "c" / "take0.npz").write_bytes(b"")
    first = run_convert(raw, out, manifest)
    assert [source for source, _ in first.quarantined] == ["a/take1.npz", "c/take0.npz"]
    kept = {name: digest for name, digest in tree(out).items() if name.startswith("parts/")}
    (raw / "a" / "take1.npz").write_bytes(whole)
    assert run_convert(raw, out, manifest).quarantined == first.quarantined
    report = run_convert(raw, out, manifest, retry=True)
    assert [source for source, _ in report.quarantined] == ["c/take0.npz"] and report.new_episodes == 1
    store = fwdata.open(out)
    assert [e.id for e in store.episodes] == ["a/take0", "b/take0", "c/take1", "c/take2", "a/take1"]
    assert np.array_equal(store.episodes[4].frames("wrist"), toy_arrays(4, 1)["wrist"])
    assert [item["source"] for item in store.quarantined] == ["c/take0.npz"]
    assert kept.items() <= tree(out).items() and verify_store(out).damaged == []
    assert [(row.source, row.outcome) for row in report.rows].count(("a/take1.npz", "converted")) == 1
    assert len(report.rows) == 6


def test_a_part_made_anew_leaves_a_second_try_where_it_is(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    """`fwdata verify` says of a lost part to convert again: a fixed recording of it stood in the store twice then."""
    out = tmp_path / "s.zarr"
    whole = (raw / "a" / "take1.npz").read_bytes()
    (raw / "a" / "take1.npz").write_bytes(b"")
    run_convert(raw, out, manifest)
    (raw / "a" / "take1.npz").write_bytes(whole)
    run_convert(raw, out, manifest, retry=True)
    names = ["a/take0", "b/take0", "c/take0", "c/take1", "c/take2", "a/take1"]
    files = {name: digest for name, digest in tree(out).items() if name.startswith("parts/") and "/c/" in name}
    for lost in (["p00000"], ["p00003"], ["p00000", "p00003"]):
        for name in lost:
            shutil.rmtree(out / "parts" / name)
        run_convert(raw, out, manifest)
        assert [e.id for e in fwdata.open(out).episodes] == names and verify_store(out).damaged == []
        assert files.items() <= tree(out).items() and fwdata.open(out).quarantined == []
        run_convert(raw, out, manifest, retry=True)
        assert [e.id for e in fwdata.open(out).episodes] == names


@pytest.mark.slow
def test_a_killed_second_try_is_continued_not_planned_twice(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    out = tmp_path / "s.zarr"
    whole = (raw / "a" / "take1.npz").read_bytes()
    (raw / "a" / "take1.npz").write_bytes(b"")
    run_convert(raw, out, manifest)
    (raw / "a" / "take1.npz").write_bytes(whole)
    shutil.copytree(out, tmp_path / "t.zarr")
    run_convert(raw, tmp_path / "t.zarr", manifest, retry=True)
    at_write = 1
    while True:
        again = shutil.copytree(out, tmp_path / f"k{at_write}.zarr")
        if not killed(lambda again=again: run_convert(raw, again, manifest, retry=True), at_write):  # type: ignore[misc]
            break
        assert run_convert(raw, again, manifest, retry=True).quarantined == []
        assert tree(again) == tree(tmp_path / "t.zarr"), f"killed at write {at_write}"
        at_write += 2
    assert at_write > 6


def test_a_store_with_second_tries_can_be_merged(tmp_path: Path, raw: Path, manifest: Manifest) -> None:
    whole = (raw / "a" / "take1.npz").read_bytes()
    (raw / "a" / "take1.npz").write_bytes(b"")
    run_convert(raw, tmp_path / "s.zarr", manifest)
    run_convert(write_toy(tmp_path / "more", {"a": [6, 7]}, 50), tmp_path / "t.zarr", manifest)
    (raw / "a" / "take1.npz").write_bytes(whole)
    run_convert(raw, tmp_path / "s.zarr", manifest, retry=True)
    merge(MergeRequest((str(tmp_path / "t.zarr"), str(tmp_path / "s.zarr")), tmp_path / "m.zarr"))
    merged = fwdata.open(tmp_path / "m.zarr")
    assert [e.id for e in merged.episodes] == [
        *("a/take0", "a/take1", "s/a/take0", "b/take0", "c/take0", "c/take1", "c/take2", "s/a/take1")
    ]
    assert merged.quarantined == [] and verify_store(tmp_path / "m.zarr").damaged == []
