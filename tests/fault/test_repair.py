"""`fwdata repair` rebuilds what is damaged, and ends with the bytes that were there before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures import run_convert, save, stamps, toy_arrays, toy_manifest, toy_store, tree, write_toy
from paths import SUPPORT

import fwdata
from fault.child import Trap, run_command
from fault.damage import Kind, damaged
from fault.stores import full_store, quick
from fwdata.cli import main
from fwdata.errors import EXIT_DAMAGED, StoreDamaged, StoreError, UsageError
from fwdata.pipeline import rebuild as rebuilding
from fwdata.pipeline.repair import RepairRequest, assess, repair
from fwdata.pipeline.request import ConvertRequest
from fwdata.store.caches.stitched import materialise
from fwdata.store.evidence import read_evidence
from fwdata.store.files import LocalFiles
from fwdata.store.verify import verify_store

COUNTS: dict[Kind, int] = {"flip": 12, "truncate": 6, "delete": 6, "swap": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with quick() as patch:
        patch.setenv("FWDATA_PLUGINS", str(SUPPORT / "toy_plugin"))
        folder = tmp_path_factory.mktemp("repair")
        full_store(folder)
        yield folder


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder / "toy.zarr", tmp_path / "toy.zarr")
    return tmp_path / "toy.zarr"


def fixed(store: Path, folder: Path) -> None:
    report = repair(RepairRequest(store, (folder / "raw",), workers=0))
    assert report.left.findings == [], report.left.damaged


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
def test_damage_is_rebuilt_to_the_same_bytes(store: Path, folder: Path, kind: Kind) -> None:
    rng, whole = np.random.default_rng(len(kind)), tree(store)
    rebuilt = 0
    for _ in range(COUNTS[kind]):
        with damaged(store, kind, rng) as damage:
            beyond = {"zarr.json"} | {f"{p.relative_to(store)}/zarr.json" for p in store.glob("[lt]*/*")}
            if beyond & set(damage.files):  # the settings themselves: covered below
                continue
            fixed(store, folder)
            assert tree(store) == whole, damage
            rebuilt += 1
    assert rebuilt > COUNTS[kind] // 2


def test_pixels_of_an_earlier_layout_are_written_again_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("fwdata.pipeline.run.new_layout", lambda encodings: 1)
        store = toy_store(tmp_path, monkeypatch, {"a": [20], "b": [5]})
    materialise(store)
    whole, frames = tree(store), store / "parts/p00000/cameras/wrist/frames"
    stitched = store / "parts/p00001/frames/stitched"
    assert not any("transpose" in (array / "zarr.json").read_text() for array in (frames, stitched))
    (frames / "c/0/0/0/0").write_bytes(b"")
    (stitched / "c/0/0/0/0").unlink()
    fixed(store, tmp_path)
    assert tree(store) == whole
    shutil.rmtree(store / "parts/p00001")  # as a conversion that was ended before it
    run_convert(tmp_path / "raw", store, toy_manifest(monkeypatch))
    materialise(store)
    assert tree(store) == whole


def test_an_undamaged_store_is_left_alone(store: Path, folder: Path) -> None:
    before = stamps(store)
    report = repair(RepairRequest(store, (folder / "raw",)))
    assert report.damage.steps() == [] and stamps(store) == before


def test_only_what_is_damaged_is_written(store: Path, folder: Path) -> None:
    before = stamps(store)
    (next((store / "latents").glob("*/p00001/first/c/0/0/0/0"))).unlink()
    fixed(store, folder)
    after = stamps(store)
    changed = {key for key in after if key in before and after[key] != before[key]}
    assert changed and all(key.split("/")[0] == "latents" for key in changed)


@pytest.mark.slow
def test_a_lost_folder_of_any_kind_is_rebuilt(store: Path, folder: Path) -> None:
    whole = tree(store)
    for pattern in ("parts/p00001", "parts/p00002/frames", "latents/*/p00000", "text/*/p00000", "plan"):
        for path in store.glob(pattern):
            shutil.rmtree(path)
        fixed(store, folder)
        assert tree(store) == whole, pattern


@pytest.mark.parametrize("text", ["", '{"attributes": {', "[]", "\0" * 4096])
def test_a_plan_that_is_no_record_is_made_again(store: Path, folder: Path, text: str) -> None:
    whole = tree(store)
    (store / "plan" / "zarr.json").write_text(text)
    fixed(store, folder)
    assert tree(store) == whole


def test_workers_find_the_groups_that_they_share(store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(store, "parts/p00000/lowdim", "parts/p00002/lowdim")
    found, convert = [], rebuilding.convert_part

    def look(request: ConvertRequest, *arguments: Any, **named: Any) -> object:
        found.append((request.out / "sources" / "zarr.json").is_file())
        return convert(request, *arguments, **named)

    monkeypatch.setattr(rebuilding, "convert_part", look)
    fixed(store, folder)
    assert found == [True, True], "two workers that write it at once take each other's temporary file away"


@pytest.mark.slow
def test_a_killed_repair_continues(store: Path, folder: Path) -> None:
    whole = tree(store)
    argv = ["fwdata", "repair", store, "--from", folder / "raw", "--workers", "0"]
    broken = ("parts/p00001/lowdim/state/c/0/0", "stats/zarr.json")
    for key in broken:
        (store / key).unlink()
    counted = run_command(main, argv, Trap())
    assert counted.code == 0 and tree(store) == whole, counted.output
    for n in np.random.default_rng(3).integers(1, counted.operations, 5).tolist():
        for key in broken:
            (store / key).unlink()
        assert run_command(main, argv, Trap(n)).code == -9
        again = run_command(main, argv)
        assert again.code == 0, again.output
        left = {k: v for k, v in tree(store).items() if not k.startswith("stats/")}
        assert left == {k: v for k, v in whole.items() if not k.startswith("stats/")}
        if not (store / "stats" / "zarr.json").exists():
            assert run_command(main, ["fwdata", "stats", store]).code == 0
        assert tree(store) == whole


def test_what_is_needed_is_asked_for(store: Path, folder: Path, tmp_path: Path) -> None:
    (store / "parts" / "p00000" / "zarr.json").unlink()
    with pytest.raises(UsageError, match="is damaged; give the recordings it came from with --from RAW"):
        repair(RepairRequest(store))
    said = run_command(main, ["fwdata", "repair", store, "--dry-run"])
    assert said.code == 0 and "give them with --from RAW" in said.output


STATE = "parts/p00002/lowdim/state/c/0/0"
LOSSES = {
    "data": (STATE,),
    "metadata": ("parts/p00002/zarr.json",),
    "metadata and data": ("parts/p00002/zarr.json", STATE),
    "a part": ("parts/p00002",),
    "a part and its latents": ("parts/p00002", "latents"),
    "the plan and data": ("plan/zarr.json", STATE),
}


def lose(store: Path, *keys: str) -> None:
    for key in keys:
        path = store / key
        if path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path)


def other_take(raw: Path) -> None:
    """Another recording of the same name and size."""
    save(raw / "push" / "take0.npz", toy_arrays(3, 99))


def longer_take(raw: Path) -> None:
    save(raw / "push" / "take0.npz", toy_arrays(4, 99))


def no_take(raw: Path) -> None:
    (raw / "push" / "take0.npz").unlink()


def other_task(raw: Path) -> None:
    (raw / "push").rename(raw / "pull")


def other_dataset(raw: Path) -> None:
    shutil.rmtree(raw)
    write_toy(raw, {"fold": [3, 4]})


def nothing(raw: Path) -> None:
    shutil.rmtree(raw)
    raw.mkdir()


@pytest.mark.slow
@pytest.mark.parametrize("change", [other_take, longer_take, no_take, other_task, other_dataset, nothing])
@pytest.mark.parametrize("loss", LOSSES)
def test_other_recordings_change_no_byte(
    store: Path, folder: Path, tmp_path: Path, loss: str, change: Callable[[Path], None]
) -> None:
    whole = tree(store)
    lose(store, *LOSSES[loss])
    shutil.copytree(folder / "raw", tmp_path / "other")
    change(tmp_path / "other")
    if loss == "a part and its latents":  # of this part the plan alone is left, and it knows names and sizes
        lose(store, "parts/p00000/frames", "parts/p00001/frames")
        if change is other_take:
            return
    before = tree(store)
    with pytest.raises((StoreDamaged, UsageError)) as refused:
        repair(RepairRequest(store, (tmp_path / "other",), workers=0))
    assert tree(store) == before, refused.value
    assert not list(store.glob(".*"))
    if loss != "a part and its latents":
        fixed(store, folder)
        assert tree(store) == whole


def test_other_recordings_are_not_taken_for_a_part_of_which_nothing_is_left(
    store: Path, folder: Path, tmp_path: Path
) -> None:
    """Names and sizes are all that is known of it (its record in `sources` is lost, too, as in stores of earlier
    releases that tells no sha256): what other parts recorded of theirs decides."""
    whole = tree(store)
    lose(
        store,
        "sources/p00002",
        "parts/p00002",
        "latents",
        "parts/p00000/frames",
        "parts/p00001/frames",
        "evidence/p00002",
    )
    before, other = tree(store), tmp_path / "other"
    shutil.copytree(folder / "raw", other)
    takes = sorted(other.rglob("*.npz"))
    for number, path in enumerate(takes):
        rows = len(np.load(path)["state"])
        size = path.stat().st_size
        save(path, toy_arrays(rows, 100 + number))
        assert path.stat().st_size == size
    argv = ["fwdata", "repair", store, "--workers", "0", "--from", other]
    for more in (["--dry-run"], []):
        said = run_command(main, [*argv, *more])
        assert said.code == EXIT_DAMAGED and "differs: it has sha256" in said.output
        assert tree(store) == before and not list(store.glob(".*"))
    one = next(path for path in takes if path.parent.name != "push")
    shutil.copy(folder / "raw" / one.relative_to(other), one)  # one that is as it was tells that it is the collection
    assert run_command(main, [*argv, "--dry-run"]).code == 0
    said = run_command(main, ["fwdata", "repair", store, "--workers", "0", "--from", folder / "raw"])
    kept = [key for key in whole if key.startswith("parts/p00002/") and not key.startswith("parts/p00002/frames")]
    assert [tree(store).get(key) for key in kept] == [whole[key] for key in kept], said.output


@pytest.mark.parametrize("loss", ["a part", "metadata"])
def test_one_recording_that_changed_is_found_though_its_part_is_lost(
    store: Path, folder: Path, tmp_path: Path, loss: str
) -> None:
    """Its name and size are as they were, no cache knows the part, and all other recordings are as they were."""
    lose(store, *LOSSES[loss], "latents", *(f"parts/p0000{part}/frames" for part in (0, 1)))
    shutil.copytree(folder / "raw", tmp_path / "other")
    other_take(tmp_path / "other")
    before = tree(store)
    argv = ["fwdata", "repair", store, "--workers", "0", "--from", tmp_path / "other"]
    for more in (["--dry-run"], []):
        said = run_command(main, [*argv, *more])
        assert said.code == EXIT_DAMAGED and "push/take0.npz differs: it has sha256" in said.output
        assert tree(store) == before and not list(store.glob(".*"))
    assert run_command(main, [*argv[:-1], folder / "raw", "--dry-run"]).code == 0


@pytest.mark.slow
def test_a_dry_run_names_the_recordings_that_do_not_fit(store: Path, folder: Path, tmp_path: Path) -> None:
    lose(store, STATE)
    shutil.copytree(folder / "raw", tmp_path / "other")
    other_take(tmp_path / "other")
    before = stamps(store)
    argv = ["fwdata", "repair", store, "--dry-run", "--workers", "0", "--from"]
    said = run_command(main, [*argv, tmp_path / "other"])
    assert said.code == EXIT_DAMAGED
    assert "the recordings given do not fit: p00002: push/take0.npz differs: it has sha256" in said.output
    as_json = run_command(main, [*argv, tmp_path / "other", "--json"])
    assert len(json.loads(as_json.output)["unfit"]) == 1 and as_json.code == EXIT_DAMAGED
    fits = run_command(main, [*argv, folder / "raw", "--json"])
    assert json.loads(fits.output)["unfit"] == [] and fits.code == 0
    assert stamps(store) == before


def test_new_recordings_are_not_added(store: Path, folder: Path, tmp_path: Path) -> None:
    whole = tree(store)
    lose(store, STATE)
    shutil.copytree(folder / "raw", tmp_path / "more")
    save(tmp_path / "more" / "push" / "take7.npz", toy_arrays(3, 99))
    report = repair(RepairRequest(store, (tmp_path / "more",), workers=0))
    assert report.left.findings == [] and tree(store) == whole


@pytest.mark.slow
def test_a_cache_that_cannot_be_made_leaves_everything_as_it_was(
    store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tree(store)

    def absent(spec: str, **_: object) -> None:
        raise UsageError(f"VAE {spec!r} cannot be found")

    lose(
        store,
        STATE,
        "parts/p00001/frames",
        "stats/zarr.json",
        next(store.glob("text/*/p00000")).relative_to(store).as_posix(),
    )
    for first in store.glob("latents/*/p00001/first/c/0/0/0/0"):
        first.write_bytes(b"damaged")
    before = tree(store)
    with monkeypatch.context() as patch:
        patch.setattr("fwdata.encode.latents.load_vae", absent)
        with pytest.raises(UsageError, match="cannot be found"):
            repair(RepairRequest(store, (folder / "raw",), workers=0))
    assert tree(store) == before
    fixed(store, folder)
    assert tree(store) == whole


def test_what_a_killed_repair_left_is_removed(store: Path, folder: Path) -> None:
    whole = tree(store)
    (store / ".repair.tmp" / "aside").mkdir(parents=True)
    (store / ".repair.tmp" / "aside" / "0").write_bytes(b"x")
    fixed(store, folder)
    assert tree(store) == whole


@pytest.mark.parametrize("kind", ["latents", "text"])
def test_a_cache_that_was_never_finished_is_left_as_it_is(store: Path, folder: Path, kind: str) -> None:
    """Nothing records what began it; it must not keep the damage from being repaired that stopped it."""
    whole = tree(store)
    begun = store / kind / "default-0123456789ab" / ".attempt-5bce98f7-p00000"
    begun.mkdir(parents=True)
    files = sorted(path for path in store.glob("parts/p00000/cameras/*/*/c/**/*") if path.is_file())
    files[0].write_bytes(b"")
    report = repair(RepairRequest(store, (folder / "raw",), workers=0))
    assert [found.key for found in report.left.findings] == [f"{kind}/default-0123456789ab/p00000"]
    assert "run the command that writes it again" in report.left.damaged[0]
    assert begun.is_dir() and tree(store) == whole


def test_settings_and_strange_files_are_named(store: Path, folder: Path) -> None:
    (store / "notes.txt").write_text("mine")
    assert [f.key for f in assess(verify_store(store)).beyond] == ["notes.txt"]
    report = repair(RepairRequest(store, (folder / "raw",)))
    assert [f.key for f in report.left.findings] == ["notes.txt"] and (store / "notes.txt").read_text() == "mine"
    (store / "notes.txt").unlink()
    root = store / "zarr.json"
    data = root.read_bytes()
    root.write_bytes(data.replace(b'"fps": 10', b'"fps": 11'))
    with pytest.raises(StoreDamaged, match=r"delete .*zarr\.json and run the same `fwdata convert` again"):
        repair(RepairRequest(store, (folder / "raw",)))
    root.unlink()
    with pytest.raises(StoreError):
        fwdata.open(store)
    done = run_command(main, ["fwdata", "convert", "toy", folder / "raw", "--out", store, "--workers", "0"])
    assert done.code == 0 and root.read_bytes() == data, done.output


@pytest.mark.slow
def test_the_command_says_what_it_would_do(store: Path, folder: Path) -> None:
    (next((store / "text").glob("*/p00000/data/c/0/0"))).write_bytes(b"")
    said = run_command(main, ["fwdata", "repair", store, "--dry-run", "--json"])
    assert said.code == 0
    assert json.loads(said.output)["steps"][0].startswith("encode text again: default-")
    assert verify_store(store).findings
    done = run_command(main, ["fwdata", "repair", store, "--workers", "0"])
    assert done.code == 0 and verify_store(store).findings == [], done.output


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["evidence/p00001/zarr.json", "evidence/zarr.json", "view/zarr.json"])
@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_verdicts_and_the_view_are_made_again(store: Path, folder: Path, lost: str, how: str) -> None:
    argv = ["convert", "toy", folder / "raw", "--out", store.parent / "e.zarr", "--workers", "0"]
    path = store.parent / "e.zarr"
    assert run_command(main, ["fwdata", *argv]).code == 0
    whole, record = tree(path), read_evidence(LocalFiles(path))
    assert record is not None
    if how == "deleted":
        (path / lost).unlink()
    else:
        text = (path / lost).read_text()
        (path / lost).write_text(text.replace('"sha256"', '"sha257"', 1))
    report = repair(RepairRequest(path))
    assert len(report.damage.steps()) == 1 and report.left.findings == [], report.left.damaged
    again = read_evidence(LocalFiles(path))
    assert again is not None
    told = [{(v.detector, v.subject): v.verdict for v in r.verdicts()} for r in (record, again)]
    assert told[0] == told[1]
    assert {key for key, digest in tree(path).items() if whole.get(key) != digest} <= {lost, "evidence/zarr.json"}
    assert repair(RepairRequest(path)).damage.steps() == []


@pytest.mark.slow
@pytest.mark.parametrize("change", [other_take, longer_take, no_take])
def test_a_folder_that_does_not_fit_an_undamaged_store_is_named(
    store: Path, folder: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(folder / "raw", wrong)
    change(wrong)
    before = stamps(store)
    for extra in ([], ["--dry-run"]):
        said = run_command(main, ["fwdata", "repair", store, "--from", wrong, "--workers", "0", *extra])
        assert said.code == EXIT_DAMAGED and stamps(store) == before
        assert "differs: it has" in said.output or "is missing from the recordings given" in said.output
        assert "differs: it is missing" not in said.output


STATE_OF_PART = "/lowdim/state/c/0/0"


@pytest.mark.parametrize(
    ("lost", "retried"), [(STATE_OF_PART, False), (STATE_OF_PART, True), ("/zarr.json", True), ("", True)]
)
def test_a_recording_mended_since_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str, retried: bool
) -> None:
    """Converted again with its part it was there twice, or the repair was refused for it: as another version's work."""
    raw, manifest, path = (
        write_toy(tmp_path / "raw", {"a": [3, 4], "b": [2]}),
        toy_manifest(monkeypatch),
        tmp_path / "s",
    )
    whole = (raw / "a" / "take1.npz").read_bytes()
    (raw / "a" / "take1.npz").write_bytes(b"?" * len(whole))
    run_convert(raw, path, manifest)
    (raw / "a" / "take1.npz").write_bytes(whole)
    if retried:
        run_convert(raw, path, manifest, retry=True)
    before, names = tree(path), [episode.id for episode in fwdata.open(path).episodes]
    for name in ("p00000", "p00002") if retried else ("p00000",):
        lose(path, f"parts/{name}{lost}")
        assert repair(RepairRequest(path, (raw,), workers=0)).left.findings == []
        assert [episode.id for episode in fwdata.open(path).episodes] == names and fwdata.open(path).complete
        if lost == STATE_OF_PART:
            assert tree(path) == before
        assert len(fwdata.open(path).quarantined) == (not retried)
