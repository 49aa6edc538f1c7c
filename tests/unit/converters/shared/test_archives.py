"""Archives and compressed recordings among recordings are named, with the command that unpacks them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import r1lite_files as r1
import r1lite_reading as rd
import robotwin_reading as robotwin
from robotwin_files import write_task

from converters.shared.archives import above, command, is_archive, left_out
from converters.shared.galaxea_text import read_meta
from fwdata.errors import UsageError
from fwdata.manifest import load_manifest
from fwdata.pipeline.registry import load_converter


@pytest.mark.parametrize(
    ("name", "unpack"),
    [
        ("a.tar.gz", "find . -name '*.tar.gz' -execdir tar xf {} \\;"),
        ("rec.mcap.gz", "find . -name '*.mcap.gz' -execdir gunzip {} \\;"),
        ("pick.v2.HDF5.xz", "find . -name '*.HDF5.xz' -execdir unxz {} \\;"),
        ("episode_0.parquet.zst", "find . -name '*.parquet.zst' -execdir zstd -d {} \\;"),
    ],
)
def test_what_unpacks_it(name, unpack):
    assert is_archive(name) and command([f"some/folder/{name}"]) == unpack


@pytest.mark.parametrize("name", ["stats.json.gz", "notes.gz", "a.mcap", "a.hdf5.txt"])
def test_other_files_are_none(name):
    assert not is_archive(name)


def test_a_recording_beside_its_compressed_copy_is_unpacked():
    found = left_out(["a/x.mcap.gz", "a/y.mcap.gz"], above(["a/x.mcap"]))
    assert [(item.count, item.examples, item.asked) for item in found] == [
        (1, ("a/y.mcap.gz",), False),
        (1, ("a/x.mcap.gz",), True),
    ]


def test_compressed_recordings_are_counted(tmp_path):
    path = r1.McapWriter().write(tmp_path / "pick/a.mcap", r1.recording(frames=4))
    (tmp_path / "pick/b.mcap.gz").write_bytes(gzip.compress(path.read_bytes()))
    [left] = rd.converter().discover(tmp_path).left_out
    assert left.count == 1 and left.examples == ("pick/b.mcap.gz",) and "gunzip" in left.reason


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n",
            "is a Git LFS pointer",
        ),
        (b"<html><title>Log in</title></html>", "is an HTML page"),
        (b"", "is empty"),
    ],
)
def test_a_json_file_that_is_none_is_named_as_what_it_is(tmp_path: Path, content: bytes, told: str):
    path = tmp_path / "raw_data_meta.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"raw_data_meta.json {told}.*; or move it away to use folder names"):
        read_meta(path)


def test_downloads_that_did_not_end_are_counted(tmp_path):
    path = r1.McapWriter().write(tmp_path / "pick/a.mcap", r1.recording(frames=4))
    (tmp_path / "pick/b.mcap.part").write_bytes(path.read_bytes()[:500])
    path.with_name("C.MCAP").write_bytes(path.read_bytes())
    found = rd.converter().discover(tmp_path)
    assert [(left.reason, left.examples) for left in found.left_out] == [
        ("downloads that did not end; fetch them again", ("pick/b.mcap.part",))
    ]
    assert [(skip.source, skip.reason) for skip in found.skipped] == [
        ("pick/C.MCAP", "its ending is in capitals; rename it to .mcap")
    ]


def test_robotwin_files_of_other_names_are_counted(tmp_path):
    folder = write_task(tmp_path, "classic", "adjust_bottle", (0, 1, 2), num_frames=3)
    files = sorted(folder.rglob("episode*.hdf5"))
    files[2].rename(files[2].with_name("episode2.HDF5"))
    files[1].rename(files[1].with_name("traj_1.hdf5"))
    files[0].with_name("episode3.hdf5.crdownload").write_bytes(b"\x89HDF")
    found = {left.reason: left.count for left in robotwin.converter().discover(tmp_path).left_out}
    assert found == {
        "HDF5 files that are not called episode{N}.hdf5": 2,
        "downloads that did not end; fetch them again": 1,
    }
    files[0].rename(files[0].with_name("traj_0.hdf5"))
    with pytest.raises(UsageError, match=r"or give files such as .*episode2.HDF5 the names episode0\.hdf5, "):
        robotwin.converter().discover(tmp_path)


@pytest.mark.parametrize("source", ["libero", "robotwin", "r1lite", "lerobot"])
@pytest.mark.parametrize(
    ("name", "unpack"), [("set.zip", "unzip -q"), ("set.tar.gz", "tar xf"), ("a.mcap.gz", "gunzip")]
)
def test_an_archive_as_the_root_is_refused_with_what_unpacks_it(tmp_path, source, name, unpack):
    (tmp_path / name).write_bytes(b"PK")
    made = load_converter(load_manifest(source))
    with pytest.raises(UsageError, match=f"{name} is an archive; unpack it, in its folder: find .* {unpack}"):
        made.discover(tmp_path / name)
