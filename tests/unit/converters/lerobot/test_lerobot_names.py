"""Files of LeRobot datasets under other names than the patterns say, packed, or not in the metadata at all."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_files import Recipe, edit_info, write_dataset
from lerobot_reading import converter, read_all, refusal

from converters.lerobot.numbered import numbered_videos
from converters.lerobot.tree import Tree, tree_of
from fwdata.cli import main
from fwdata.errors import UsageError

RECIPE = Recipe(lengths=(5, 7, 6), tasks=(0, 1, 0))


def renamed(root: Path, first: int = 0) -> Path:
    """The tables and videos of a dataset as its pattern does not say: numbered from `first`."""
    for path in [p for p in root.rglob("episode_*") if p.suffix in (".parquet", ".mp4")]:
        number = int(path.stem.removeprefix("episode_")) + first
        path.rename(path.with_name(f"take {number}{path.suffix.upper()}"))
    return root


@pytest.mark.slow
def test_files_are_found_by_the_numbers_in_their_names(tmp_path):
    right = read_all(write_dataset(tmp_path / "a", RECIPE))
    found = read_all(renamed(write_dataset(tmp_path / "b", RECIPE)))
    for one, other in zip(right, found, strict=True):
        assert np.array_equal(one.state, other.state)
        for name, camera in one.cameras.items():
            packets = zip(camera.packets(), other.cameras[name].packets(), strict=True)
            assert all(a.data == b.data for a, b in packets)


@pytest.mark.parametrize("how", ["from 1", "one more"])
def test_numbers_that_may_count_otherwise_are_not_taken(tmp_path, how):
    root = renamed(write_dataset(tmp_path, RECIPE), first=1 if how == "from 1" else 0)
    if how == "one more":
        for path in list(root.rglob("take 2.*")):
            shutil.copy(path, path.with_name(f"take 3{path.suffix}"))
    assert "files are missing" in refusal(root)


def test_cameras_whose_names_contain_each_other():
    keys = ("observation.images.wrist", "observation.images.left_wrist")
    paths = [f"{name}_{n}.mp4" for name in ("wrist", "left_wrist") for n in (0, 1)]
    tree = Tree(Path(), frozenset(paths), {}, (), (), ())
    entries = [_Entry(n) for n in (0, 1)]
    found = numbered_videos(entries, keys, tree)
    assert found == {(n, key): f"{key.rpartition('.')[2]}_{n}.mp4" for n in (0, 1) for key in keys}


class _Entry:
    """An episode of which nothing is where the metadata say."""

    def __init__(self, index: int) -> None:
        self.index, self.videos = index, dict[str, object]()


def test_a_packed_folder_is_named_where_files_are_missing(tmp_path):
    root = write_dataset(tmp_path / "set", RECIPE)
    shutil.make_archive(str(root / "videos"), "zip", root / "videos")
    shutil.rmtree(root / "videos")
    assert "or unpack the 1 archive there, such as videos.zip, in that folder: find" in refusal(root)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_episodes_that_the_metadata_do_not_list_are_counted(tmp_path, version):
    root = write_dataset(tmp_path, Recipe(version, lengths=(5, 7, 6), tasks=(0, 1, 0)))
    assert not converter().discover(root).left_out
    if version == "v3.0":
        for path in root.glob("meta/episodes/*/*"):
            pq.write_table(pq.read_table(path).slice(0, 1), path)
    else:
        lines = (root / "meta/episodes.jsonl").read_text().splitlines(keepends=True)
        (root / "meta/episodes.jsonl").write_text(lines[0])
    edit_info(root, total_episodes=1, total_frames=5)
    [left] = converter().discover(root).left_out
    assert (left.count, left.reason) == (
        2,
        "episodes that tables hold and the metadata do not list; --recover reads them",
    )
    assert left.examples[0].endswith("#episode_000001")
    assert not converter(recover=True).discover(root).left_out


def test_a_torn_table_of_no_listed_episode_is_reported(tmp_path):
    root = write_dataset(tmp_path, Recipe("v3.0"))
    (root / "data/chunk-000/file-001.parquet").write_bytes(b"PAR1" + bytes(500))
    [warning] = converter().discover(root).warnings
    assert "file-001.parquet cannot be read: it has no Parquet footer" in warning
    assert warning.endswith("the metadata list no episode of it")


def test_what_to_do_where_the_metadata_are_missing(tmp_path):
    root = write_dataset(tmp_path / "set", RECIPE)
    info = json.loads((root / "meta/info.json").read_text())
    edit_info(root, codebase_version=None)
    assert "write the version that the files have to it" in refusal(root)
    (root / "meta/info.json").write_text(json.dumps([info]))
    assert refusal(root).endswith("must be an object, found list; download it again")
    (root / "meta/info.json").unlink()
    with pytest.raises(UsageError, match=r"holds no meta/info\.json; fetch it: hf download OWNER/NAME"):
        converter().discover(root)


def test_an_empty_list_of_episodes_is_named(tmp_path):
    root = write_dataset(tmp_path / "set", RECIPE)
    (root / "meta/episodes.jsonl").write_bytes(b"")
    assert "meta/episodes.jsonl is empty (0 bytes); download it again, or add --recover" in refusal(root)
    assert len(read_all(root, recover=True)) == len(RECIPE.lengths)


def test_doctor_names_the_source_of_recordings(tmp_path, monkeypatch, capsys):
    root = write_dataset(tmp_path, RECIPE)
    monkeypatch.setattr(sys, "argv", ["fwdata", "doctor", str(root)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"fwdata doctor {root} --source lerobot" in capsys.readouterr().err


def test_a_hubs_cache_of_another_name(tmp_path):
    plain, cache = write_dataset(tmp_path / "plain", RECIPE), tmp_path / "copied"
    (cache / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in plain.rglob("*") if p.is_file())):
        link = cache / "snapshots/abc" / path.relative_to(plain)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(cache / "blobs" / str(number))
        link.symlink_to(cache / "blobs" / str(number))
    assert len(tree_of(cache / "snapshots/abc").paths) == 12
    assert len(read_all(cache)) == len(read_all(cache / "snapshots/abc")) == 3


def test_datasets_inside_a_dataset_are_named(tmp_path):
    root = write_dataset(tmp_path / "set", RECIPE)
    write_dataset(root / "data/more", RECIPE)
    found = converter().discover(tmp_path)
    assert len(found.episodes) == 3
    assert found.warnings == ("set: 1 dataset in its folder is not entered, such as set/data/more; give them by name",)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_an_instruction_that_is_given_needs_no_table_of_tasks(tmp_path, version):
    root = write_dataset(tmp_path, Recipe(version))
    next(root.glob("meta/tasks*")).unlink()
    assert "or give the instruction with --task" in refusal(root)
    assert [e.instructions[0] for e in read_all(root, task="pick it up", instruction="coarse")] == ["pick it up"] * 2
