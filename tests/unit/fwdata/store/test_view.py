"""The view of a store: shown with its origins, changed in place, and what becomes of caches made under another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from fault.stores import full_store, quick
from fixtures import PLUGINS, run_convert, stamps, toy_manifest, toy_store, tree, write_toy
from old_stores import unpack
from typer.testing import CliRunner

import fwdata
from fwdata.cli import app
from fwdata.encode.latents import EncodeRequest, encode_latents
from fwdata.encode.prompts import encode_text
from fwdata.errors import ManifestError, StaleCache, StoreBusy, StoreDamaged, StoreError, UsageError
from fwdata.manifest import load_manifest
from fwdata.merge.plan import MergeRequest
from fwdata.merge.run import merge
from fwdata.store.caches.stats import save_statistics
from fwdata.store.change_view import change_view
from fwdata.store.files import write_lock
from fwdata.store.verify import verify_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_store(tmp_path_factory.mktemp("view"))


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "toy.zarr")
    return tmp_path / "toy.zarr"


def origins(path: Path) -> dict[str, str]:
    return {setting.key: setting.origin for setting in fwdata.open(path).view.settings}


def encode(path: Path, name: str = "default") -> None:
    with quick():
        encode_latents(EncodeRequest(path, "fake", name, stride=2), lambda count: None, lambda *values: None)


def test_every_value_says_where_it_comes_from(store: Path) -> None:
    found = origins(store)
    assert found["split.val"] == found["stitch.size"] == found["description"] == "manifest"
    assert found["window.num_frames"] == found["prompt"] == found["normalisation.mode"] == "default"
    change_view(store, {"split.val": 0.5})
    assert origins(store)["split.val"] == "set"


def test_a_value_set_is_what_the_reader_uses_and_changes_no_other_byte(store: Path) -> None:
    before = tree(store)
    change_view(store, {"split.val": 0.5, "stitch.size": [64, 128], "prompt": "do {task}"})
    opened = fwdata.open(store)
    assert opened.manifest.split.val == 0.5 and opened.metadata["manifest"]["split"]["val"] == 0.5
    assert opened.manifest.stitch.camera_size == (64, 64), "the size of the cameras follows"
    assert opened.episodes[0].stitched([0]).shape == (1, 64, 128, 3)
    assert sum(e.split == "val" for e in opened.episodes) == 3  # 5 - int(5 * 0.5)
    after = tree(store)
    assert {k for k in after if after[k] != before.get(k)} == {"view/zarr.json"}
    assert verify_store(store).damaged == []
    change_view(store, {}, ["split.val", "stitch.size", "prompt"])
    assert tree(store) == before


def test_nothing_is_written_where_nothing_changes_or_for_a_dry_run(store: Path) -> None:
    change_view(store, {"split.seed": 7})
    before = stamps(store)
    change_view(store, {"split.seed": 7})
    old, new = change_view(store, {"split.seed": 8}, dry_run=True)
    assert (old.manifest.split.seed, new.manifest.split.seed) == (7, 8)
    assert stamps(store) == before


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"fps.hz": 5}, UsageError, "fps.hz belongs to the source"),
        ({"options.prefix": "x"}, UsageError, "options.prefix belongs to the source"),
        ({"split.vall": 5}, UsageError, "no key 'split.vall'; did you mean 'split.val'"),
        ({"split": {"val": 0.1}}, UsageError, "no key 'split'"),
        ({"split.val": 2}, ManifestError, "split.val: must be less than 1, found 2"),
        ({"stitch.size": [48, 96]}, ManifestError, "must be a multiple of 32"),
        ({"stitch.size": [64, 96], "stitch.camera_size": [64, 64]}, ManifestError, "differs from size"),
        ({"stitch.cameras": ["head"]}, ManifestError, r"stitch.cameras names \['head'\]"),
        ({"window.num_frames": 30}, ManifestError, "multiple of video_stride"),
        ({"normalisation.delta_actions": [60]}, ManifestError, "must be dimensions of the action, 0 to 1, found 60"),
    ],
)
def test_what_does_not_fit_is_refused(
    store: Path, values: dict[str, object], error: type[UsageError], words: str
) -> None:
    before = stamps(store)
    with pytest.raises(error, match=words):
        change_view(store, values)
    with pytest.raises(UsageError, match=r"--unset split\.val: not set"):
        change_view(store, {}, ["split.val"])
    assert stamps(store) == before


def test_sizes_follow_the_layout_and_the_cameras(store: Path) -> None:
    for values, sizes in (
        ({"stitch.layout": "vertical"}, ((32, 32), (64, 32))),
        ({"stitch.cameras": ["wrist"]}, ((32, 32), (32, 32))),
        ({"stitch.camera_size": [64, 32]}, ((64, 32), (64, 64))),
        ({"stitch.layout": "vertical", "stitch.size": [64, 64]}, ((32, 64), (64, 64))),
    ):
        _, view = change_view(store, values, dry_run=True)
        assert (view.manifest.stitch.camera_size, view.manifest.stitch.size) == sizes, values


def test_a_size_that_was_set_gives_way_to_the_one_set_now(store: Path) -> None:
    """Either size decides the other, whichever was set last; the layout and the cameras decide the stitched size."""
    for values, sizes in (
        ({"stitch.size": [64, 128]}, ((64, 64), (64, 128))),
        ({"stitch.camera_size": [32, 64]}, ((32, 64), (32, 128))),
        ({"stitch.size": [64, 64]}, ((64, 32), (64, 64))),
        ({"stitch.layout": "vertical"}, ((32, 64), (64, 64))),
        ({"stitch.cameras": ["wrist"]}, ((64, 64), (64, 64))),
    ):
        _, view = change_view(store, values)
        assert (view.manifest.stitch.camera_size, view.manifest.stitch.size) == sizes, values


def test_a_store_that_is_written_to_is_not_changed(store: Path) -> None:
    with write_lock(store), pytest.raises(StoreBusy):
        change_view(store, {"split.val": 0.5})
    with pytest.raises(StoreError, match="no store at"):
        change_view(store.parent / "none", {"split.val": 0.5})
    assert not (store.parent / "none").exists()


def test_a_record_that_is_lost_or_wrong_is_damage(store: Path) -> None:
    (store / "view/zarr.json").unlink()
    with pytest.raises(StoreDamaged, match=r"view/zarr\.json is missing"):
        _ = fwdata.open(store).manifest
    assert [f.key for f in verify_store(store).findings] == ["view/zarr.json"]


def test_caches_of_another_view_are_refused_by_name_and_live_beside_those_of_this_one(store: Path) -> None:
    first = fwdata.open(store).latents().fingerprint
    change_view(store, {"stitch.size": [64, 128]})
    with pytest.raises(StaleCache, match=r"stitch\.size is \[32, 64\], asked for \[64, 128\]") as caught:
        fwdata.open(store).latents()
    assert f"fwdata encode-latents {store} --name NEW" in str(caught.value)
    with pytest.raises(StaleCache, match="use --name NEW to keep both"):
        encode(store)
    encode(store, "large")
    opened = fwdata.open(store)
    assert opened.latents().name == "large" and opened.latents().shape == (3, 4, 8)
    with pytest.raises(StaleCache, match=r"stitch\.size"):
        opened.latents("default")
    change_view(store, {}, ["stitch.size"])
    assert fwdata.open(store).latents().fingerprint == first
    assert verify_store(store).damaged == []


@pytest.mark.slow
def test_text_of_another_prompt_is_refused_and_chosen_by_the_view(store: Path) -> None:
    change_view(store, {"prompt": "do {task}"})
    with pytest.raises(StaleCache, match=r"prompt is A video reco\.\., asked for do {task}"):
        fwdata.open(store).text()
    encode_text(store, "tiny", name="short")
    assert fwdata.open(store).text().name == "short"
    assert all(prompt.startswith("do ") for prompt in fwdata.open(store).text().prompts)


def test_statistics_of_another_split_are_refused_with_the_key(store: Path) -> None:
    change_view(store, {"split.val": 0.5})
    with pytest.raises(StaleCache, match=r"split\.val is 0\.25, asked for 0\.5; run `fwdata stats"):
        fwdata.open(store).stats()


def test_a_conversion_run_again_with_another_view_changes_the_view_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [3, 4, 2]})
    text = yaml.safe_load((PLUGINS / "toy.yaml").read_text())
    text |= {"description": "new", "split": {"val": 0.5}, "stitch": {"layout": "vertical", "camera_size": [32, 32]}}
    text |= {"name": "renamed"}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(text))
    save_statistics(fwdata.open(path), fwdata.open(path).stats())
    before = tree(path)
    manifest = load_manifest(str(tmp_path / "new.yaml"))
    change_view(path, {"split.val": 0.4})
    report = run_convert(tmp_path / "raw", path, manifest)
    assert report.new_episodes == 0
    assert "stitch.size: [32, 64] -> [64, 32]" in report.view_changes
    refused = [line for line in report.warnings if "those made under another view are refused" in line]
    assert len(refused) == 1 and "stitch.size" in refused[0] and "stats of" in refused[0]
    assert any("split.val stays 0.4" in text for text in report.warnings)
    after = tree(path)
    assert {k for k in after if after[k] != before.get(k)} == {"view/zarr.json"}
    found = fwdata.open(path).manifest
    assert (found.description, found.split.val, found.stitch.size) == ("new", 0.4, (64, 32))
    assert origins(path)["split.val"] == "set" and origins(path)["stitch.size"] == "default"
    before_again = stamps(path)
    assert run_convert(tmp_path / "raw", path, manifest).view_changes == []
    assert stamps(path) == before_again


def test_a_default_manifest_does_not_change_the_view_that_another_manifest_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [3, 4]}, name="mine")
    text = yaml.safe_load((PLUGINS / "toy.yaml").read_text()) | {"split": {"val": 0.5}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(text))
    default = load_manifest(str(tmp_path / "toy.yaml"))
    before = tree(path)
    report = run_convert(tmp_path / "raw", path, default, named=False)
    assert report.view_changes == [] and tree(path) == before
    assert any("made with manifest 'mine'" in text and "--manifest toy" in text for text in report.warnings)
    assert "split.val: 0.25 -> 0.5" in run_convert(tmp_path / "raw", path, default).view_changes


def test_a_part_added_later_is_read_with_the_manifest_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [3]})
    write_toy(tmp_path / "raw", {"b": [2]})
    changed = load_manifest("toy").model_copy(update={"description": "other"})
    assert run_convert(tmp_path / "raw", path, changed).new_episodes == 1
    assert fwdata.open(path).metadata["manifest"]["description"] == "other"


def test_options_at_their_default_are_equal_to_options_not_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [3]})
    stated = toy_manifest(monkeypatch, options={"prefix": ""})
    assert run_convert(tmp_path / "raw", path, stated).new_episodes == 0
    with pytest.raises(StaleCache, match=r"fps\.hz is 10\.0, asked for 20\.0"):
        run_convert(tmp_path / "raw", path, stated.model_copy(update={"fps": stated.fps.model_copy(update={"hz": 20})}))


def test_an_old_store_has_a_view_too(tmp_path: Path) -> None:
    path = unpack("v1-raw", tmp_path)
    before = tree(path)
    assert set(origins(path).values()) <= {"manifest", "default"}
    change_view(path, {"description": "mine"})
    assert fwdata.open(path).manifest.description == "mine"
    assert {k for k, v in tree(path).items() if before.get(k) != v} == {"view/zarr.json"}
    assert verify_store(path).damaged == []


def test_the_command_shows_and_changes(store: Path) -> None:
    run = CliRunner().invoke
    shown = run(app, ["view", str(store)])
    assert shown.exit_code == 0 and "set later" not in shown.output
    assert "latents default: fits" in shown.output and "statistics stats: fits" in shown.output
    done = run(app, ["view", str(store), "--set", "stitch.size=[64,128]", "--set", "split.val=0.5", "--json"])
    found = json.loads(done.stdout)
    assert {c["key"] for c in found["changed"]} == {"split.val", "stitch.camera_size", "stitch.size"}
    assert found["origin"]["stitch.camera_size"] == "set" and found["view"]["split"]["val"] == 0.5
    assert {c["kind"]: c["fits"] for c in found["caches"]} == {
        "latents": False,
        "text": True,
        "statistics": False,
        "stitched": False,
    }
    inspected = run(app, ["inspect", str(store)])
    assert "made under another view: stitch.camera_size is [32, 32], asked for [64, 64]" in inspected.output
    back = run(app, ["view", str(store), "--unset", "stitch.size", "--dry-run"])
    assert "would change stitch.size: [64, 128] -> [32, 64]" in back.output
    assert fwdata.open(store).manifest.stitch.size == (64, 128)


def test_a_merged_store_has_the_view_that_its_inputs_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = toy_manifest(monkeypatch)
    stores = []
    for number in (1, 2):
        run_convert(write_toy(tmp_path / f"raw{number}", {"a": [3]}, number), tmp_path / f"s{number}.zarr", manifest)
        stores.append(str(tmp_path / f"s{number}.zarr"))
    change_view(Path(stores[0]), {"split.val": 0.5})
    with pytest.raises(UsageError, match="split"):
        merge(MergeRequest(tuple(stores), tmp_path / "out.zarr"))
    change_view(Path(stores[1]), {"split.val": 0.5})
    merge(MergeRequest(tuple(stores), tmp_path / "out.zarr"))
    assert fwdata.open(tmp_path / "out.zarr").manifest.split.val == 0.5
    assert verify_store(tmp_path / "out.zarr").damaged == []


def test_a_printed_view_is_a_manifest_that_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = toy_store(tmp_path, monkeypatch, {"a": [3]})
    change_view(store, {"split.val": 0.5})
    said = json.loads(CliRunner().invoke(app, ["view", str(store), "--json"]).stdout)
    (path := tmp_path / "mine.yaml").write_text(json.dumps({"name": said["name"], **said["source"], **said["view"]}))
    assert load_manifest(str(path)).model_dump() == fwdata.open(store).manifest.model_dump()
