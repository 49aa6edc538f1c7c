"""HDF5 recordings whose values are packed by filters that are absent, or lie elsewhere in the same file."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from libero_files import write_file
from libero_reading import FILE, converter, pixels, read_one, reason

from converters.shared import hdf5
from converters.shared.hdf5 import find
from fwdata.errors import BadEpisode

KEY = "data/demo_0/obs/agentview_rgb"


def _filtered(path, code):
    """The pictures under an optional filter: written as they are, as by a writer whose filter gave up."""
    with h5py.File(path, "r+") as file:
        stored = file[KEY][()]
        del file[KEY]
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((2, *stored.shape[1:]))
        created.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(stored.shape)
        node = h5py.h5d.create(file["data/demo_0/obs"].id, b"agentview_rgb", h5py.h5t.STD_U8LE, space, created)
        for first in range(0, len(stored), 2):
            node.write_direct_chunk((first, 0, 0, 0), stored[first : first + 2].tobytes())


@pytest.mark.parametrize(("code", "called"), [(32001, "blosc"), (32015, "zstd"), (32999, "unknown")])
def test_a_missing_filter_is_named_with_its_package(tmp_path, monkeypatch, code, called):
    monkeypatch.setattr("h5py.h5z.filter_avail", lambda found: found != code)  # whatever is installed here
    write_file(tmp_path / FILE, [0])
    _filtered(tmp_path / FILE, code)
    found = reason(tmp_path)
    assert f"{KEY} is not damaged, but packed by HDF5 filter {code} ({called})" in found
    assert "pip install hdf5plugin" in found and "HDF5_PLUGIN_PATH" in found and "truncated" not in found


def test_a_filter_that_no_package_brings_comes_with_another_cure(tmp_path, monkeypatch):
    monkeypatch.setattr("h5py.h5z.filter_avail", lambda found: found != 305)
    write_file(tmp_path / FILE, [0])
    _filtered(tmp_path / FILE, 305)
    found = reason(tmp_path)
    assert "filter 305 (lzo)" in found and "h5repack -f NONE" in found and "pip install" not in found


def test_filters_of_hdf5_itself_are_read(tmp_path):
    written = write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        stored = file[KEY][()]
        del file[KEY]
        file.create_dataset(KEY, data=stored, chunks=(2, *stored.shape[1:]), compression="gzip", shuffle=True)
    assert np.array_equal(pixels(read_one(tmp_path), "image"), written[0].pictures["image"])


@pytest.mark.parametrize("source", ["whole", "absent", "virtual"])
def test_virtual_datasets_within_the_file(tmp_path, source):
    written = write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file.move(KEY, "parts")
        shape = file["parts"].shape
        layout = h5py.VirtualLayout(shape, "u1")
        layout[:] = h5py.VirtualSource(".", "parts" if source != "absent" else "nowhere", shape)
        file.create_virtual_dataset(KEY if source != "virtual" else "between", layout)
        if source == "virtual":
            outer = h5py.VirtualLayout(shape, "u1")
            outer[:] = h5py.VirtualSource(".", "between", shape)
            file.create_virtual_dataset(KEY, outer)
    if source == "whole":
        assert np.array_equal(pixels(read_one(tmp_path), "image"), written[0].pictures["image"])
    else:
        assert "virtual dataset of datasets that are absent or virtual themselves" in reason(tmp_path)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132735\n",
            "is a Git LFS pointer of a file",
        ),
        (b"<!DOCTYPE html><html><title>Sign in</title>" + b" " * 2000, 'is an HTML page ("Sign in")'),
        (b"", "is empty (0 bytes)"),
        (b"\x89HDF\r\n\x1a\n" + b"\1" * 3000, "cannot be read as HDF5 (truncated, damaged or still being written)"),
    ],
)
def test_files_that_are_no_hdf5_are_named_as_what_they_are(tmp_path, data, part):
    write_file(tmp_path / FILE, [0])
    other = tmp_path / "libero_goal" / "put_the_bowl_on_the_plate_demo.hdf5"
    other.write_bytes(data)
    (skipped,) = converter().discover(tmp_path).skipped
    assert part in skipped.reason and other.name in skipped.reason


def test_plain_links_and_others_lead_to_the_same_objects(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data/demo_0/actions"] = np.arange(6)
        file["again"] = h5py.SoftLink("/data/demo_0")
        file["data/up"] = h5py.SoftLink("/again/actions")
        file["nowhere"] = h5py.SoftLink("/absent")
        file["données/x"] = np.arange(3)
        file["type"] = np.dtype("float32")
        for key in ("data/demo_0/actions", "/data/demo_0/actions/", "again/actions", "data/up", "données/x"):
            assert isinstance(find(file, key), h5py.Dataset), key
        assert find(file, "again") == find(file, "data/demo_0") == file["data/demo_0"]
        for key in ("nowhere", "nowhere/x", "data/demo_1", "data/demo_0/actions/x", "absent/x"):
            assert find(file, key) is None, key
        by_plain, found = hdf5._by_plain_links(file, "data/demo_0/actions")
        assert by_plain and found == file["data/demo_0/actions"]
        assert [hdf5._by_plain_links(file, key)[0] for key in ("again", "data/up", "données", "type")] == [False] * 4
        assert hdf5._by_plain_links(file, "data/demo_1") == (True, None)


def test_an_open_file_follows_every_link_once_and_refuses_as_often_as_asked(tmp_path, monkeypatch):
    path, asked = tmp_path / "a.hdf5", []
    with h5py.File(path, "w") as file:
        for number in range(4):
            file[f"data/demo_{number}/obs/x"] = np.arange(number + 1)
        file["data/away"] = h5py.ExternalLink("b.hdf5", "/x")
        file["data/soft"] = h5py.SoftLink("/data/demo_2")
    before = h5py.h5o.open
    monkeypatch.setattr("h5py.h5o.open", lambda *place, **more: asked.append(place[1]) or before(*place, **more))
    monkeypatch.setattr(hdf5, "KEPT_NODES", 6)
    with hdf5.open_recording(path) as file:
        for _ in range(3):
            assert find(file, "data/demo_0/obs/x").shape == (1,) and find(file, "data/demo_0/obs/y") is None
        assert asked == [b"/", b"data", b"demo_0", b"obs", b"x"]
        for number in (1, 2, 3, 1):  # more than are kept
            assert find(file, f"data/demo_{number}/obs/x").shape == (number + 1,)
        assert max(len(opened.nodes) for opened in hdf5._opened.values()) <= 6
        for _ in range(2):
            assert find(file, "data/soft/obs/x").shape == (3,)
            with pytest.raises(BadEpisode, match="external link to"):
                find(file, "data/away/x")
        with hdf5.open_recording(path) as again:
            assert find(again, "data/demo_0").file == again
    assert not hdf5._opened
