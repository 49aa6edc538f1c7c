"""Recordings and converters that changed since a store was converted: reported, and converted again when asked for."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fault.stores import quick
from fixtures import (
    PLUGINS,
    killed,
    run_convert,
    save,
    stamps,
    toy_arrays,
    toy_manifest,
    tree,
    write_toy,
)
from old_stores import unpack
from robotwin_files import write_task
from typer.testing import CliRunner

import fwdata
from fwdata.cli import app
from fwdata.encode.latents import EncodeRequest, encode_latents
from fwdata.errors import StaleCache, StoreDamaged, StoreError, UsageError
from fwdata.manifest import Manifest, load_manifest
from fwdata.pipeline import plan as plan_module
from fwdata.pipeline.estimate import dry_run
from fwdata.pipeline.repair import RepairRequest, repair
from fwdata.pipeline.request import ConvertRequest
from fwdata.report.inspect_store import describe
from fwdata.store.caches.stats import compute_statistics, save_statistics
from fwdata.store.files import LocalFiles
from fwdata.store.sources import read_sources
from fwdata.store.verify import verify_store

TASKS = {"a": [3, 4, 2], "b": [5]}


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    return toy_manifest(monkeypatch)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "raw", TASKS)


@pytest.fixture
def store(tmp_path: Path, raw: Path, manifest: Manifest) -> Path:
    run_convert(raw, tmp_path / "toy.zarr", manifest)
    return tmp_path / "toy.zarr"


def rewrite(path: Path, frames: int, seed: int) -> None:
    """Other bytes under the same name, at another time."""
    before = path.stat().st_mtime_ns
    save(path, toy_arrays(frames, seed))
    os.utime(path, ns=(before + 10**9, before + 10**9))


def converter(folder: Path, monkeypatch: pytest.MonkeyPatch, version: int, change: tuple[str, str] = ("", "")) -> None:
    """Make the toy converter's next version the one that is installed; it notes every recording it reads."""
    folder.mkdir(exist_ok=True)
    text = (PLUGINS / "toy.py").read_text().replace(*change)
    text = text.replace('"""Reads the format above."""', f'"""Reads the format above."""\n\n    version = {version}')
    noting = f"log = Path({str(folder / 'read.txt')!r}); log.write_text(log.read_text() + ref.id + ' ')"
    (folder / "read.txt").write_text("")
    text = text.replace("        arrays = self._arrays(", f"        {noting}\n        arrays = self._arrays(", 1)
    (folder / "toy.py").write_text(text)
    shutil.copy(PLUGINS / "toy.yaml", folder)
    monkeypatch.setenv("FWDATA_PLUGINS", str(folder))


def states(path: Path) -> dict[str, bytes]:
    return {e.id: e.state().tobytes() for e in fwdata.open(path).episodes}


def renamed(files: dict[str, str]) -> dict[str, str]:
    """A tree with every part under the name of its first generation."""
    return {key.replace("-1/", "/"): value for key, value in files.items() if key != "plan/zarr.json"}


def test_changed_recordings_are_listed_and_nothing_is_touched(store: Path, raw: Path, manifest: Manifest) -> None:
    rewrite(raw / "a/take1.npz", 4, 99)
    rewrite(raw / "b/take0.npz", 6, 98)
    before = stamps(store)
    report = run_convert(raw, store, manifest)
    assert [item.source for item in report.changed] == ["a/take1.npz", "b/take0.npz"]
    assert "sha256" in report.changed[0].files[0] and "bytes, recorded are" in report.changed[1].files[0]
    assert stamps(store) == before


def test_time_alone_changes_nothing_and_is_compared_once(
    store: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(raw / "a/take0.npz")
    assert run_convert(raw, store, manifest).changed == []
    monkeypatch.setattr("fwdata.pipeline.changes.file_sha256", lambda path: pytest.fail("read again"))
    before = stamps(store)
    assert run_convert(raw, store, manifest).changed == []
    assert stamps(store) == before


def test_update_converts_exactly_those_again_and_the_store_is_as_if_new(
    tmp_path: Path, store: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(raw / "a/take1.npz", 7, 99)
    converter(tmp_path / "plugins", monkeypatch, 1)
    report = run_convert(raw, store, manifest, update=True)
    assert (tmp_path / "plugins/read.txt").read_text().split() == ["a/take1"]
    assert (report.updated, report.changed, report.new_episodes) == (["a/take1.npz"], [], 1)
    assert sorted(p.name for p in (store / "parts").glob("p*")) == ["p00000-1", "p00001"]
    assert verify_store(store).damaged == []
    run_convert(raw, tmp_path / "new.zarr", manifest)
    assert renamed(tree(store)) == renamed(tree(tmp_path / "new.zarr"))
    assert [e.id for e in fwdata.open(store).episodes] == ["a/take0", "a/take1", "a/take2", "b/take0"]
    before = stamps(store)
    assert run_convert(raw, store, manifest).changed == [] and stamps(store) == before
    rewrite(raw / "a/take1.npz", 3, 97)
    run_convert(raw, store, manifest, update=True)
    assert sorted(p.name for p in (store / "parts").glob("p*")) == ["p00000-2", "p00001"]


@pytest.mark.slow
def test_an_update_killed_anywhere_leaves_the_old_or_the_new_and_completes(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, plan_size = write_toy(tmp_path / "raw", {"a": [2, 3], "b": [2]}), 1
    monkeypatch.setattr(plan_module, "PART_EPISODES", plan_size)
    run_convert(raw, tmp_path / "old.zarr", manifest)
    old = states(tmp_path / "old.zarr")
    rewrite(raw / "a/take1.npz", 4, 99)
    rewrite(raw / "b/take0.npz", 3, 98)
    run_convert(raw, tmp_path / "new.zarr", manifest)
    new, at_write = states(tmp_path / "new.zarr"), 1
    while True:
        out = tmp_path / f"k{at_write}.zarr"
        shutil.copytree(tmp_path / "old.zarr", out)
        if not killed(lambda out=out: run_convert(raw, out, manifest, update=True), at_write):
            break
        assert states(out) in (old, new), at_write
        run_convert(raw, out, manifest, update=True)
        assert renamed(tree(out)) == renamed(tree(tmp_path / "new.zarr")), at_write
        shutil.rmtree(out)
        at_write += 5
    assert at_write > 20 and states(out) == new


def test_what_an_ended_update_made_is_used_only_for_the_same_files(
    store: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(raw / "b/take0.npz", 5, 99)
    monkeypatch.setattr("fwdata.pipeline.run.switch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_convert(raw, store, manifest, update=True)
    assert (store / "parts/p00001-1/zarr.json").is_file() and len(fwdata.open(store).episodes) == 4
    monkeypatch.undo()
    manifest = toy_manifest(monkeypatch)
    rewrite(raw / "b/take0.npz", 5, 98)
    run_convert(raw, store, manifest, update=True)
    assert fwdata.open(store).episodes[3].state().tobytes() == toy_arrays(5, 98)["state"].tobytes()


def test_files_set_back_after_an_ended_update_leave_nothing_behind(
    store: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, kept = tree(store), (raw / "b/take0.npz").read_bytes()
    rewrite(raw / "b/take0.npz", 5, 99)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fwdata.pipeline.run.switch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run_convert(raw, store, manifest, update=True)
    (raw / "b/take0.npz").write_bytes(kept)
    assert run_convert(raw, store, manifest).changed == []
    assert tree(store) == before


def test_an_update_that_cannot_read_the_store_leaves_nothing(store: Path, raw: Path, manifest: Manifest) -> None:
    """The rows that did not change are copied from the store, of which a chunk is damaged."""
    rewrite(raw / "a" / "take1.npz", 4, 9)
    [chunk] = (path for path in (store / "parts/p00000/lowdim/state/c").rglob("*") if path.is_file())
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    before = tree(store)
    with pytest.raises(StoreDamaged):
        run_convert(raw, store, manifest, update=True)
    assert tree(store) == before and not list(store.rglob(".attempt-*"))


def test_caches_of_untouched_parts_stay_and_the_same_command_renews_the_others(
    store: Path, raw: Path, manifest: Manifest
) -> None:
    def encode() -> int:
        with quick():
            return encode_latents(EncodeRequest(store, "fake"), lambda count: None, lambda *values: None).first

    assert encode() == 14
    opened = fwdata.open(store)
    save_statistics(opened, compute_statistics(opened))
    rewrite(raw / "b/take0.npz", 6, 99)
    run_convert(raw, store, manifest, update=True)
    opened = fwdata.open(store)
    assert opened.latents().first(opened.episodes[0], [0]).shape[0] == 1
    with pytest.raises(StoreError, match=r"lacks p00001-1 .*complete it with `fwdata encode-latents"):
        opened.latents().first(opened.episodes[3], [0])
    with pytest.raises(StaleCache, match="made from other episodes"):
        opened.stats()
    assert not list(store.glob("latents/*/p00001"))
    assert encode() == 6
    assert fwdata.open(store).latents().complete and verify_store(store).damaged == []


def test_jpeg_buffers_that_did_not_change_are_copied_byte_for_byte(tmp_path: Path) -> None:
    write_task(tmp_path / "rt", "classic", "click_bell", range(3), num_frames=5)
    manifest, out = load_manifest("robotwin-sample"), tmp_path / "rt.zarr"
    run_convert(tmp_path / "rt", out, manifest)
    text = next((tmp_path / "rt").rglob("instructions/episode1.json"))
    text.write_text(json.dumps({"seen": ["ring the bell twice"], "unseen": ["ring it"]}))
    report = run_convert(tmp_path / "rt", out, manifest, update=True)
    assert len(report.updated) == 1 and "instructions/episode1.json" not in report.quarantined
    run_convert(tmp_path / "rt", tmp_path / "new.zarr", manifest)
    assert renamed(tree(out)) == renamed(tree(tmp_path / "new.zarr"))
    assert fwdata.open(out).episodes[1].instructions[0] == "ring the bell twice"


def test_a_recording_that_cannot_be_read_any_more_replaces_its_old_version(
    store: Path, raw: Path, manifest: Manifest
) -> None:
    (raw / "a/take1.npz").write_bytes(b"damaged")
    with pytest.raises(UsageError, match="take1"):
        run_convert(raw, store, manifest, update=True, on_error="fail")
    assert len(fwdata.open(store).episodes) == 4
    report = run_convert(raw, store, manifest, update=True)
    assert [source for source, _ in report.quarantined] == ["a/take1.npz"]
    assert [e.id for e in fwdata.open(store).episodes] == ["a/take0", "a/take2", "b/take0"]
    assert verify_store(store).damaged == []


def test_recordings_that_are_gone_stay_in_a_part_that_is_updated(store: Path, raw: Path, manifest: Manifest) -> None:
    (raw / "a/take0.npz").unlink()
    rewrite(raw / "a/take1.npz", 4, 99)
    run_convert(raw, store, manifest, update=True)
    assert [e.id for e in fwdata.open(store).episodes] == ["a/take0", "a/take1", "a/take2", "b/take0"]


def test_a_store_of_an_older_converter_is_left_as_it_is_until_asked(
    tmp_path: Path, store: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter(tmp_path / "plugins", monkeypatch, 2, ('self.prefix + str(arrays["text"])', 'str(arrays["text"])[::-1]'))
    write_toy(raw, {"c": [2]})
    before = stamps(store)
    report = run_convert(raw, store, manifest)
    assert "was made by version 1 of converter 'toy', installed is version 2" in report.outdated
    assert "--update" in report.outdated and stamps(store) == before
    with pytest.raises(UsageError, match=r"holds b/take0\.npz, which .* no longer has"):
        (raw / "b/take0.npz").rename(tmp_path / "aside.npz")
        run_convert(raw, store, manifest, update=True)
    assert stamps(store) == before
    (tmp_path / "aside.npz").rename(raw / "b/take0.npz")
    report = run_convert(raw, store, manifest, update=True)
    assert len(report.updated) == 4 and report.new_episodes == 5 and not report.outdated
    opened = fwdata.open(store)
    assert all(e.instruction.endswith("evom") for e in opened.episodes)
    assert {read_sources(opened.files, part.name).version for part in opened.parts} == {2}
    assert verify_store(store).damaged == [] and not run_convert(raw, store, manifest).outdated
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    with pytest.raises(UsageError, match="was made by version 2 of converter 'toy', installed is version 1"):
        run_convert(raw, store, manifest)


def test_a_version_with_other_names_is_refused(
    tmp_path: Path, store: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter(tmp_path / "plugins", monkeypatch, 2, ('NAMES = ("x", "y")', 'NAMES = ("x", "z")'))
    before = stamps(store)
    with pytest.raises(UsageError, match="other state or action names"):
        run_convert(raw, store, manifest, update=True)
    assert stamps(store) == before


def test_a_store_of_an_earlier_release_is_compared_by_size_until_it_is_updated(
    tmp_path: Path, manifest: Manifest
) -> None:
    path = unpack("v1-raw", tmp_path)
    raw = write_toy(tmp_path / "raw", {"push": [5, 3], "lift": [4]})  # what it was converted from
    before = stamps(path)
    assert run_convert(raw, path, manifest).changed == [] and stamps(path) == before
    (raw / "lift/take0.npz").write_bytes((raw / "lift/take0.npz").read_bytes()[::-1])
    assert run_convert(raw, path, manifest).changed == [] and stamps(path) == before, "the size is the same"
    write_toy(raw, {"lift": [4]}, seed=2)
    parts = {k: v for k, v in tree(path).items() if k.startswith(("parts/", "latents/", "text/"))}
    write_toy(raw, {"new": [2]})
    assert run_convert(raw, path, manifest).new_episodes == 1
    assert parts.items() <= tree(path).items()
    assert not {"sources", "view"} & {f.key.partition("/")[0] for f in verify_store(path).findings}
    save(raw / "push/take1.npz", toy_arrays(3, 99))
    report = run_convert(raw, path, manifest, update=True)
    assert report.updated == ["push/take1.npz"]
    assert read_sources(fwdata.open(path).files, "p00000").mtime_ns, "times are recorded from now on"
    gone = parts.keys() - tree(path).keys()
    assert gone == {key for key in parts if "/p00001/" in key and not key.startswith("text/")}


def test_the_command_exits_with_3_until_the_store_is_updated(tmp_path: Path, store: Path, raw: Path) -> None:
    rewrite(raw / "a/take2.npz", 2, 99)
    run = CliRunner().invoke
    command = ["convert", "toy", str(raw), "--out", str(store), "--workers", "0", "--json"]
    first = run(app, command)
    assert first.exit_code == 3 and json.loads(first.stdout)["changed"][0]["source"] == "a/take2.npz"
    assert "changed: a/take2.npz: a/take2.npz: " in first.stderr
    second = run(app, [*command, "--update"])
    assert second.exit_code == 0 and json.loads(second.stdout)["updated"] == ["a/take2.npz"]
    assert run(app, command).exit_code == 0
    assert np.array_equal(fwdata.open(store).episodes[2].state(), toy_arrays(2, 99)["state"])


def test_workers_update_too(store: Path, raw: Path, manifest: Manifest) -> None:
    rewrite(raw / "a/take1.npz", 4, 99)
    assert run_convert(raw, store, manifest, workers=2, update=True).updated == ["a/take1.npz"]
    assert verify_store(store).damaged == []


def test_a_dry_run_and_inspect_say_what_changed(
    tmp_path: Path, store: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ConvertRequest("toy", (raw,), store, manifest, workers=0)
    assert (dry_run(request).changed, dry_run(request).outdated) == ((), "")
    rewrite(raw / "a/take2.npz", 2, 99)
    renewed = dry_run(replace(request, update=True))
    assert (dry_run(request).pending_parts, renewed.pending_parts) == (0, 1) and renewed.expected_seconds > 0
    converter(tmp_path / "plugins", monkeypatch, 3)
    before = stamps(store)
    assert dry_run(replace(request, update=True)).pending_parts == 2
    found = dry_run(request)
    assert [item.source for item in found.changed] == ["a/take2.npz"] and "installed is version 3" in found.outdated
    assert stamps(store) == before
    assert describe(fwdata.open(store))["converter"] == {"versions": [1], "installed": 3, "outdated": True}
    said = CliRunner().invoke(app, ["inspect", str(store)]).output
    assert "made by version 1 of its converter, installed is version 3" in said
    monkeypatch.delenv("FWDATA_PLUGINS")
    assert describe(fwdata.open(store))["converter"] == {"versions": [1], "installed": None, "outdated": False}


def test_a_new_conversion_imports_the_converter_in_its_workers_alone(
    tmp_path: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins").mkdir()
    guard = f"import os\nassert os.getpid() != {os.getpid()}, 'imported by the parent'\n"
    text = (PLUGINS / "toy.py").read_text().replace("import zipfile\n", f"{guard}import zipfile\n", 1)
    (tmp_path / "plugins/toy.py").write_text(text)
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "plugins"))
    assert run_convert(raw, tmp_path / "s.zarr", manifest, workers=1).new_episodes == 4


@pytest.mark.parametrize("mended_by", ["convert", "repair"])
def test_a_lost_record_of_a_part_leaves_the_version_of_the_others(
    tmp_path: Path, raw: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, mended_by: str
) -> None:
    """The store was said to be of version 1, grew no more, and `fwdata verify` advised the conversion that said so."""
    converter(tmp_path / "plugins", monkeypatch, 2)
    out = tmp_path / "s.zarr"
    run_convert(raw, out, manifest)
    if mended_by == "convert":
        shutil.rmtree(out / "sources" / "p00000")
    else:
        (out / "sources" / "p00000" / "zarr.json").write_text("{")
        repair(RepairRequest(out))
    save(raw / "b" / "take1.npz", toy_arrays(3, 5))
    report = run_convert(raw, out, manifest)
    assert (report.outdated, report.new_episodes) == ("", 1)
    assert verify_store(out).damaged == [] and read_sources(LocalFiles(out), "p00000").version == 2


@pytest.mark.parametrize("update", [True, False])
def test_verdicts_that_cannot_be_read_refuse_before_anything_is_written(
    store: Path, raw: Path, manifest: Manifest, update: bool
) -> None:
    """They are pooled at the end: parts were replaced, or added, by then."""
    record = store / "evidence" / "p00000" / "zarr.json"
    damaged = bytearray(record.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    record.write_bytes(damaged)
    save(raw / "b" / ("take0.npz" if update else "take9.npz"), toy_arrays(6, 77))
    before = tree(store)
    with pytest.raises(StoreError, match="evidence/p00000"):
        run_convert(raw, store, manifest, update=update)
    assert tree(store) == before
    record.unlink()  # as lost: what it held is not pooled any more
    run_convert(raw, store, manifest, update=update)
    assert len(fwdata.open(store).episodes) == (4 if update else 5)
