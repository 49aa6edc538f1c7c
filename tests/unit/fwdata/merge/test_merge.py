"""Merging stores: byte for byte, checked, resumable, and refusing what does not belong together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fixtures import (
    FakeVae,
    flip_bit,
    run_convert,
    save,
    stamps,
    toy_arrays,
    toy_manifest,
    tree,
    write_toy,
)
from robotwin_files import write_task

import fwdata
from fwdata.encode.latents import EncodeRequest, encode_latents
from fwdata.encode.prompts import encode_text
from fwdata.errors import StaleCache, StoreDamaged, UsageError
from fwdata.evidence.claims import Conventions, GripperClaim
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import EpisodeMeasurement
from fwdata.evidence.registry import find_detector
from fwdata.manifest import load_manifest
from fwdata.merge import MergeReport, MergeRequest, merge, plan_merge
from fwdata.report.inspect_store import describe
from fwdata.store import files
from fwdata.store.caches.stitched import materialise
from fwdata.store.change_view import change_view
from fwdata.store.compatibility import check_joinable
from fwdata.store.evidence import read_evidence, read_part_evidence, write_evidence
from fwdata.store.files import LocalFiles
from fwdata.store.verify import verify_store

torch.set_num_threads(1)
SETTINGS = ("clean", "randomized")
TASKS = {"a": {"push": [9, 5]}, "b": {"push": [7], "lift": [6, 4]}, "other": {"push": [3]}}
Made = tuple[Path, Path]


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, seed: int, **changes: object) -> Path:
    raw = write_toy(folder / f"raw_{name}", TASKS[name], seed)
    run_convert(raw, folder / f"{name}.zarr", toy_manifest(monkeypatch, **changes))
    return folder / f"{name}.zarr"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return make(tmp_path, monkeypatch, "a", 0), make(tmp_path, monkeypatch, "b", 10)


def run(stores: tuple[Path, ...], out: Path, **options: object) -> MergeReport:
    return merge(MergeRequest(tuple(map(str, stores)), out, **options))  # type: ignore[arg-type]


def add_caches(monkeypatch: pytest.MonkeyPatch, *stores: Path, stride: int = 4) -> None:
    monkeypatch.setattr("fwdata.encode.latents.load_vae", lambda spec, device, dtype: FakeVae())
    for path in stores:
        request = EncodeRequest(path, "fake", stride=stride)
        encode_latents(request, lambda frames: None, lambda first, windows, seconds: None)
        encode_text(path, "tiny")


def test_a_merged_store_holds_every_episode_bit_for_bit(made: Made, tmp_path: Path) -> None:
    report = run(made, tmp_path / "c.zarr")
    merged, inputs = fwdata.open(tmp_path / "c.zarr"), [fwdata.open(path) for path in made]
    before = [episode for store in inputs for episode in store.episodes]
    assert (report.episodes, report.frames) == (len(merged.episodes), merged.num_frames) == (5, 31)
    for old, new in zip(before, merged.episodes, strict=True):
        assert (old.task, old.instructions, old.metadata) == (new.task, new.instructions, new.metadata)
        assert np.array_equal(old.state(), new.state()) and np.array_equal(old.action(), new.action())
        assert np.array_equal(old.timestamps(), new.timestamps()) and np.array_equal(old.valid(), new.valid())
        for camera in merged.cameras:
            assert np.array_equal(old.frames(camera), new.frames(camera))
    assert merged.complete and not verify_store(tmp_path / "c.zarr").damaged
    stored = tree(tmp_path / "c.zarr")
    number = 0
    for path, store in zip(made, inputs, strict=True):
        for part in store.parts:
            own = {n: d for n, d in tree(path / "parts" / part.name).items() if n != "zarr.json"}
            assert own == {n: stored[f"parts/p{number:05d}/{n}"] for n in own}
            number += 1


def test_ids_are_prefixed_only_where_they_collide(made: Made, tmp_path: Path) -> None:
    report = run(made, tmp_path / "c.zarr")
    a, b = (fwdata.open(path) for path in made)
    ids = [episode.id for episode in fwdata.open(tmp_path / "c.zarr").episodes]
    assert ids[:2] == [e.id for e in a.episodes]
    assert set(ids[2:]) == {f"b/{e.id}" if e.id in ids[:2] else e.id for e in b.episodes}
    assert sum(i.startswith("b/") for i in ids) == 1 and len(set(ids)) == 5
    assert any("1 recording of" in note and "get new ids" in note for note in report.notes)


def test_what_inputs_left_out_and_decided_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make(tmp_path, monkeypatch, "a", 0)
    raw = write_toy(tmp_path / "raw_b", TASKS["b"], 10)
    (raw / "lift" / "take0.npz").write_bytes(b"damaged")
    run_convert(raw, tmp_path / "b.zarr", toy_manifest(monkeypatch))
    run((a, tmp_path / "b.zarr"), tmp_path / "c.zarr")
    found = describe(fwdata.open(tmp_path / "c.zarr"))
    assert [q["source"] for q in found["quarantined"]] == ["lift/take0.npz"]
    assert [(m.store, m.episodes, m.roots) for m in found["merged"]] == [
        ("a", 2, ("raw_a",)),
        ("b", 2, ("raw_b",)),
    ]
    assert found["decisions"]["cameras"] == list(fwdata.open(a).cameras)
    assert fwdata.open(tmp_path / "c.zarr").metadata["roots"] == ["raw_a", "raw_b"]


def test_counts_among_the_decisions_are_added_up(tmp_path: Path) -> None:
    paths = []
    for seed in (0, 1):
        write_task(tmp_path / f"raw{seed}", "classic", "click_bell", [seed], num_frames=4, setting=SETTINGS[seed])
        run_convert(tmp_path / f"raw{seed}", tmp_path / f"{seed}.zarr", load_manifest("robotwin-sample"))
        paths.append(tmp_path / f"{seed}.zarr")
    run((paths[0], paths[1]), tmp_path / "c.zarr")
    found = fwdata.open(tmp_path / "c.zarr").metadata["decisions"]
    assert found["embodiments"] == {"unknown": 2} and found["settings"] == {"clean": 1, "randomized": 1}
    assert found["instruction"].endswith("canonical is the first")


@pytest.mark.slow
def test_caches_of_equal_identity_come_along(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_caches(monkeypatch, *made)
    for path in made:
        materialise(path)
    run(made, tmp_path / "c.zarr")
    merged = fwdata.open(tmp_path / "c.zarr")
    latents, text = merged.latents(), merged.text()
    assert latents.complete and describe(merged)["stitched"]["materialised"]
    for number, old in enumerate(e for path in made for e in fwdata.open(path).episodes):
        cache = old._store.latents()
        new = merged.episodes[number]
        every = range(old.num_frames)
        assert np.array_equal(cache.first(old, every), latents.first(new, every))
        assert np.array_equal(cache.future(old, cache.starts(old)), latents.future(new, latents.starts(new)))
        assert np.array_equal(old._store.text().embedding(old.instruction), text.embedding(new.instruction))
        assert np.array_equal(old.stitched(), new.stitched())
    assert not verify_store(tmp_path / "c.zarr").damaged
    # encoding again finds nothing to do
    encoded = encode_text(tmp_path / "c.zarr", "tiny")
    assert encoded.encoded == 0 and encoded.prompts == len(text.prompts)


@pytest.mark.slow
def test_caches_that_differ_stay_behind_with_a_sentence(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_caches(monkeypatch, made[0], stride=4)
    add_caches(monkeypatch, made[1], stride=2)
    shutil.rmtree(made[1] / "text")
    notes = run(made, tmp_path / "c.zarr").notes
    assert any("latent cache 'default' is left out" in n and "has stride 2" in n and "has 4" in n for n in notes)
    assert any(f"text cache 'default' is left out: {made[1]} has none" in note for note in notes)
    assert not (tmp_path / "c.zarr" / "latents").exists()


@pytest.mark.slow
def test_an_unfinished_cache_stays_behind(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_caches(monkeypatch, *made)
    key = fwdata.open(made[1]).latents()
    (made[1] / "latents" / f"{key.name}-{key.fingerprint}" / "p00000" / "zarr.json").unlink()
    assert any("latent cache 'default' is left out" in note for note in run(made, tmp_path / "c.zarr").notes)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 2, 7, 20, 40])
def test_a_killed_merge_continues_to_equal_bytes(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    add_caches(monkeypatch, *made)
    run(made, tmp_path / "whole.zarr")
    writes = 0
    real: Callable[[Path, bytes], None] = files.write_atomic

    def dying(path: Path, data: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes > after:
            raise KeyboardInterrupt
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr("fwdata.store.files.write_atomic", dying)
        patch.setattr("fwdata.merge.run.write_atomic", dying)
        with pytest.raises(KeyboardInterrupt):
            run(made, tmp_path / "c.zarr")
    assert run(made, tmp_path / "c.zarr").files > 0
    assert tree(tmp_path / "c.zarr") == tree(tmp_path / "whole.zarr")
    before = stamps(tmp_path / "c.zarr")
    assert run(made, tmp_path / "c.zarr").files == 0
    assert stamps(tmp_path / "c.zarr") == before


def test_three_stores_and_merges_of_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    save(write_toy(tmp_path / "raw_c", {"push": [3]}, 30) / "push" / "take7.npz", toy_arrays(4, 31))
    run_convert(tmp_path / "raw_c", tmp_path / "c.zarr", toy_manifest(monkeypatch))
    run((*made, tmp_path / "c.zarr"), tmp_path / "flat.zarr")
    run(made, tmp_path / "ab.zarr")
    run((tmp_path / "ab.zarr", tmp_path / "c.zarr"), tmp_path / "nested.zarr")
    flat, nested = fwdata.open(tmp_path / "flat.zarr"), fwdata.open(tmp_path / "nested.zarr")
    assert [e.id for e in flat.episodes] == [e.id for e in nested.episodes]
    assert flat.fingerprint == nested.fingerprint
    assert [m["store"] for m in nested.metadata["merged"][0]["merged"]] == ["a", "b"]


def test_damage_in_an_input_is_found_while_copying(made: Made, tmp_path: Path) -> None:
    picture = next((made[1] / "parts").rglob("overhead/frames/c/0/0/0/0"))
    flip_bit(picture, np.random.default_rng(0))
    with pytest.raises(StoreDamaged, match=rf"{picture} is damaged; run `fwdata verify {made[1]}`"):
        run(made, tmp_path / "c.zarr")
    assert not fwdata.open(tmp_path / "c.zarr").complete


def test_the_same_recording_twice_is_refused(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tmp_path / "raw_a", tmp_path / "copy")
    run_convert(tmp_path / "copy", tmp_path / "copy.zarr", toy_manifest(monkeypatch))
    stores = (made[0], tmp_path / "copy.zarr")
    with pytest.raises(UsageError, match=r"is the same recording as .*one source file.*and 1 more.*--allow-duplicates"):
        run(stores, tmp_path / "c.zarr")
    arrays = toy_arrays(9, 0)
    arrays["overhead"] = arrays["overhead"] // 2  # another file, the same motion
    save(tmp_path / "copy" / "push" / "take0.npz", arrays)
    (tmp_path / "copy" / "push" / "take1.npz").unlink()
    run_convert(tmp_path / "copy", tmp_path / "rows.zarr", toy_manifest(monkeypatch))
    with pytest.raises(UsageError, match="equal state and action rows"):
        run((made[0], tmp_path / "rows.zarr"), tmp_path / "c.zarr")
    assert not (tmp_path / "c.zarr").exists()
    report = run(stores, tmp_path / "c.zarr", allow_duplicates=True)
    assert report.episodes == 4 and any(note.startswith("kept twice: ") for note in report.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fps": {"hz": 5}}, r"has fps 5.0, .*a\.zarr has 10"),
        ({"window": {"num_frames": 17, "action_horizon": 16}}, "has window.num_frames 17"),
        ({"normalisation": {"mode": "minmax"}}, "has normalisation.mode 'minmax'"),
        ({"units": {"state": "cm"}}, "has units.state 'cm'"),
        ({"split": {"val": 0.5}}, "has split.val 0.5"),
        ({"prompt": "do {task}"}, "has prompt 'do {task}'"),
    ],
)
def test_every_difference_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], words: str
) -> None:
    from fwdata.manifest import validate_model

    a = make(tmp_path, monkeypatch, "a", 0)
    data = {**toy_manifest(monkeypatch).model_dump(mode="json"), **changes}
    other = validate_model(type(toy_manifest(monkeypatch)), data, "test")
    run_convert(write_toy(tmp_path / "raw_b", TASKS["b"], 10), tmp_path / "b.zarr", other)
    with pytest.raises(UsageError, match=words):
        run((a, tmp_path / "b.zarr"), tmp_path / "c.zarr")
    assert not (tmp_path / "c.zarr").exists()


def test_options_must_be_equal_or_allowed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make(tmp_path, monkeypatch, "a", 0, options={"prefix": "one"})
    b = make(tmp_path, monkeypatch, "b", 10, options={"prefix": "two"})
    with pytest.raises(UsageError, match=r"has option prefix 'two', .* has 'one'; .*--allow-option NAME"):
        run((a, b), tmp_path / "c.zarr", allow_options=("other",))
    run((a, b), tmp_path / "c.zarr", allow_options=("prefix",))
    merged = fwdata.open(tmp_path / "c.zarr").metadata["merged"]
    assert [item["options"]["prefix"] for item in merged] == ["one", "two"]


def test_embodiments_and_widths_are_not_mixed() -> None:
    def store(name: str, robot: str, dims: int = 2) -> SimpleNamespace:
        names = tuple(f"joint{i}" for i in range(dims))
        return SimpleNamespace(
            location=name,
            fps=10.0,
            state_names=names,
            action_names=names,
            embodiments=frozenset({robot} - {""}),
            metadata={"manifest": {}},
        )

    check_joinable([store("a", "piper"), store("b", ""), store("c", "piper")])
    with pytest.raises(UsageError, match=r"must not share statistics, found franka \(c\), piper \(a\)"):
        check_joinable([store("a", "piper"), store("b", ""), store("c", "franka")])
    with pytest.raises(UsageError, match="b has 3 action_names, a has 2; b has 3 state_names, a has 2"):
        check_joinable([store("a", ""), store("b", "", 3)])


def test_an_output_that_is_something_else_is_refused(made: Made, tmp_path: Path, monkeypatch) -> None:
    a, b = made
    with pytest.raises(UsageError, match="at least two stores"):
        run((a,), tmp_path / "c.zarr")
    with pytest.raises(UsageError, match="is one of the stores to merge"):
        run(made, a)
    other = make(tmp_path, monkeypatch, "other", 50)
    with pytest.raises(UsageError, match="was not made by merging"):
        run((b, other), a)
    run(made, tmp_path / "c.zarr")
    with pytest.raises(StaleCache, match=r"was merged from a \(fingerprint .* \+ b \(.*now asked for is b"):
        run((b, a), tmp_path / "c.zarr")
    with pytest.raises(UsageError, match="was made by `fwdata merge`"):
        run_convert(tmp_path / "raw_a", tmp_path / "c.zarr", toy_manifest(monkeypatch))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not an fwdata store"):
        run(made, tmp_path / "full")


def test_a_plan_writes_nothing(made: Made, tmp_path: Path) -> None:
    before = stamps(tmp_path)
    plan = plan_merge(MergeRequest(tuple(map(str, made)), tmp_path / "c.zarr"))
    assert (plan.episodes, plan.frames) == (5, 31) and plan.files > 0
    assert stamps(tmp_path) == before


def test_verdicts_and_the_view_come_along(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in made:
        change_view(path, {"split.val": 0.4})
    record = read_evidence(LocalFiles(made[1]))
    assert record is not None
    why = {"duplicate_episodes": "the same take on purpose"}
    write_evidence(made[1], record.measured_first, (), record.verdicts(), why, record.parts)
    out = tmp_path / "m.zarr"
    run(made, out)
    merged = fwdata.open(out)
    found = read_evidence(merged.files)
    assert found is not None and list(found.parts) == [part.name for part in merged.parts]
    assert found.accepted() == why
    for part in merged.parts:
        told = {m.episode: m for m in read_part_evidence(merged.files, part.name)}
        assert sorted(told) == sorted(episode.id for episode in part.record.episodes)
    both = [read_evidence(LocalFiles(path)) for path in made]
    for detector in ("camera_content", "instruction_ending"):
        counts = [
            sum(v.episodes_for + v.against + v.abstained for v in r.verdicts() if v.detector == detector)
            for r in (*both, found)
            if r is not None
        ]
        assert counts[0] + counts[1] == counts[2] > 0
    assert describe(merged)["evidence"] and verify_store(out).damaged == []
    assert merged.view.record.set == {"split.val": 0.4} and merged.manifest.split.val == 0.4
    assert change_view(out, {}, ["split.val"])[1].manifest.split.val == merged.view.converted.split.val
    before = stamps(out)
    assert run(made, out).files == 0 and stamps(out) == before  # and what the view was changed to stays


def test_an_input_that_was_not_measured_is_named(made: Made, tmp_path: Path) -> None:
    shutil.rmtree(made[0] / "evidence")
    notes = run(made, tmp_path / "m.zarr").notes
    assert [f"conventions of {made[0]} were not measured; `fwdata doctor {made[0]}` does"] == [
        n for n in notes if "conv" in n
    ]
    assert verify_store(tmp_path / "m.zarr").damaged == []


def test_grippers_of_two_scales_are_found_when_stores_are_merged() -> None:
    detector = find_detector("gripper_scale")
    stored = []
    for number, (scale, top) in enumerate((("unit", 1.0), ("percent", 100.0))):
        rows = np.tile(np.linspace(0, top, 40, dtype=np.float32)[:, None], (1, 1))
        claims = Conventions(grippers=(GripperClaim("gripper", 0, (0,), (), 1, scale, scale),))
        names = ("gripper",)
        seen = EpisodeInput("e", f"s{number}/set", rows, rows, names, names, np.arange(40) / 20, 20, claims=claims)
        measured = EpisodeMeasurement(seen.id, seen.group, detector.measure(seen))
        assert {v.verdict for v in measured.verdicts} == {"confirmed"}
        stored.append(EpisodeMeasurement.from_json(measured.to_json()))
    subjects = {v.subject: v for v in detector.pool(stored)}
    assert "several scales: s0/set 0 .. 1, s1/set 0 .. 100" in subjects["gripper state across data sets"].measured
