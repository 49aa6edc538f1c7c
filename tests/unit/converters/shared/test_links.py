"""Links in folders of recordings, and in snapshots of the hub's cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from converting import SourceReading
from libero_files import write_file
from libero_reading import FILE, converter, read_one
from r1lite_files import recording, write_recording
from robotwin_files import write_episode

from fwdata.api import UsageError
from fwdata.pipeline.roots import name_roots


def _snapshot(folder: Path, blob: Path) -> Path:
    """`folder/snapshots/0123abcd` with a task file that links to a blob."""
    root = folder / "snapshots" / "0123abcd"
    link = root / FILE
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    return root


def test_a_snapshot_links_to_the_blobs_of_its_own_dataset(tmp_path):
    cache = tmp_path / "datasets--owner--name"
    write_file(cache / "blobs" / "aaaa", [0])
    root = _snapshot(cache, Path("../../../blobs/aaaa"))
    assert read_one(root).instructions == ("turn on the stove",)
    assert read_one(cache).instructions == ("turn on the stove",)


@pytest.mark.parametrize("place", ["datasets--owner--other/blobs/aaaa", "blobs/aaaa"])
def test_a_snapshot_does_not_link_elsewhere(tmp_path, place):
    write_file(tmp_path / place, [0])
    root = _snapshot(tmp_path / "datasets--owner--name", tmp_path / place)
    with pytest.raises(
        UsageError, match=r"a symbolic link.*the one that the link leads to, or a copy of it \(cp -rL\)"
    ):
        converter().discover(root)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("../../../blobs/absent", "a link to a file that is not here; download or copy it again"),
        ("../../.git/annex/objects/Xx/Yy/SHA256E-s1--ab.hdf5", "fetch it: git annex get '"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_a_link_to_content_that_was_not_fetched_says_so(tmp_path, target, told, beside):
    root = _snapshot(tmp_path / "datasets--owner--name", Path(target))
    if beside:
        write_file(root / "libero_goal" / "put_the_bowl_on_the_plate_demo.hdf5", [0])
        assert any(told in warning for warning in converter().discover(root).warnings)
    else:
        with pytest.raises(UsageError) as caught:
            converter().discover(root)
        assert told in str(caught.value)


def test_files_without_an_ending_are_called_so(tmp_path):
    (tmp_path / "task_demo").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"\(files found instead: 1 without an ending\)"):
        converter().discover(tmp_path)


def test_a_link_that_was_stored_as_text_is_named(tmp_path):
    path = tmp_path / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"../../../blobs/aaaa")
    with pytest.raises(UsageError, match=r"is the text of a symbolic link to ../../../blobs/aaaa.*cp -rL.*hf download"):
        converter().discover(tmp_path)


@pytest.mark.parametrize("source", ["libero", "robotwin", "r1lite"])
@pytest.mark.parametrize("odd", [b"a\xff", b"a\nb"])
def test_names_that_no_list_can_hold_are_left_out(tmp_path, source, odd):
    """A line break in an id would part it in two where recordings are listed, and a store holds UTF-8 alone."""
    make = {
        "libero": lambda: tmp_path / FILE if write_file(tmp_path / FILE, [0]) else tmp_path,
        "robotwin": lambda: write_episode(tmp_path / "click_bell" / "demo_clean" / "data" / "episode0.hdf5").path,
        "r1lite": lambda: write_recording(tmp_path, recording()),
    }
    path = make[source]()
    folder = tmp_path / os.fsdecode(odd)
    folder.mkdir()
    (folder / path.name).hardlink_to(path)
    found = SourceReading(source).converter().discover(tmp_path)
    assert len(found.episodes) == 1 and all(ref.id.isprintable() for ref in found.episodes)
    (said,) = [text for text in found.warnings if "not followed" in text]
    assert said.isprintable() and "its name" in said


def test_a_root_whose_name_is_not_text_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"r\xff")
    folder.mkdir()
    with pytest.raises(UsageError, match="not UTF-8 text"):
        name_roots([folder])
