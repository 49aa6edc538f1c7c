"""R1 Lite failure catalogue, lines 10 to 13: files that are cut, damaged or absurd."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import r1lite_files as r1
import r1lite_reading as rd
from r1lite_reading import read_sent, write_sent

from fwdata.api import BadEpisode


@pytest.fixture(scope="module")
def sent():
    return r1.recording()


# 10, 11: truncated and damaged MCAP


@pytest.mark.parametrize("compression", ["zstd", "lz4", ""])
@pytest.mark.parametrize("share", [0.95, 0.7])
def test_truncated_mcap(tmp_path, sent, compression, share):
    whole = read_sent(tmp_path, sent)
    path = write_sent(tmp_path / "cut", sent, compression=compression)
    tmp_path = path.parent
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    found = rd.reason(tmp_path, task="t")
    assert "x.mcap is truncated" in found and "head frames may be recovered with --recover" in found
    promised = int(found.split("; ")[1].split()[0])
    episode = rd.read_one(tmp_path, task="t", recover=True)
    rows = len(episode.state)
    assert share * 36 - 8 < rows <= promised <= 36 and (promised < 36 or share > 0.9)
    assert np.array_equal(episode.state, whole.state[:rows])  # nothing is held: all topics cover the last row
    assert np.array_equal(episode.action, whole.action[:rows])
    assert rd.buffers(episode, "head_rgb") == rd.buffers(whole, "head_rgb")[:rows]
    assert episode.metadata["recovered"] is True and rd.warned(episode, "recovered from a truncated file")


def test_recording_that_lost_only_its_end_mark(tmp_path, sent):
    whole = read_sent(tmp_path, sent)
    path = write_sent(tmp_path / "cut", sent)
    path.write_bytes(path.read_bytes()[:-8])
    assert "36 head frames may be recovered" in rd.reason(path.parent, task="t")
    episode = rd.read_one(path.parent, task="t", recover=True)
    assert 35 <= len(episode.state) <= 36 and np.array_equal(episode.state, whole.state[: len(episode.state)])


def test_what_recovering_does_not_read_either_is_not_promised(tmp_path, sent):
    """One arm's topic is not there: what is left of the file has head frames, and no state."""
    path = write_sent(tmp_path / "cut", [each for each in sent if each.topic != r1.ARM["left"]])
    path.write_bytes(path.read_bytes()[:-8])
    told = rd.reason(path.parent, task="t")
    assert "x.mcap is truncated" in told and "; --recover does not read it either: " in told
    assert told.partition("either: ")[2] == rd.reason(path.parent, task="t", recover=True)


def test_nothing_recoverable(tmp_path, sent):
    path = write_sent(tmp_path, sent, chunk_bytes=10**9)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 10])
    assert "nothing of its head camera is recoverable" in rd.reason(tmp_path, task="t")
    assert "needed topics are absent" in rd.reason(tmp_path, task="t", recover=True)


@pytest.mark.parametrize("compression", ["zstd", "lz4", ""])
def test_damaged_chunk(tmp_path, sent, compression):
    writer = r1.McapWriter(compression, 20_000)
    path = writer.write(tmp_path / "x.mcap", sent)
    whole = rd.read_one(tmp_path, task="t")
    data = bytearray(path.read_bytes())
    middle = writer.chunk_offsets[len(writer.chunk_offsets) // 2]
    data[middle + 4000] ^= 0xFF
    path.write_bytes(data)
    found = rd.reason(tmp_path, task="t")
    assert f"x.mcap is damaged: the chunk at byte {middle}" in found and "recover" in found
    episode = rd.read_one(tmp_path, task="t", recover=True)
    assert rd.warned(episode, "1 chunk was skipped") and episode.metadata["recovered"] is True
    assert len(episode.state) < len(whole.state)
    assert not episode.valid.all()  # the pause is longer than 0.25 s


def test_absurd_sizes_are_refused(tmp_path, sent):
    from converters.r1lite import mcap

    writer = r1.McapWriter("zstd")
    path = writer.write(tmp_path / "x.mcap", sent)
    data = bytearray(path.read_bytes())
    start = writer.chunk_offsets[1] + 9 + 16
    data[start : start + 8] = (2**40).to_bytes(8, "little")
    path.write_bytes(data)
    assert f"at most {mcap.MAX_RECORD >> 20} are read" in rd.reason(tmp_path, task="t")
    bomb = r1.zstd.compress(bytes(50_000_000))
    with pytest.raises(BadEpisode, match="another size"):
        (tmp_path / "x.mcap").write_bytes(_chunk_file(bomb, 1000))
        rd.reason(tmp_path, task="t")
        list(mcap.read_messages(tmp_path / "x.mcap", {"/a"}))


def _chunk_file(packed, claimed):
    chunk = struct.pack("<QQQI", 0, 0, claimed, 0) + struct.pack("<I", 4) + b"zstd" + struct.pack("<Q", len(packed))
    body = b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, len(chunk) + len(packed)) + chunk + packed
    return body + struct.pack("<BQQQI", 2, 20, 0, 0, 0) + b"\x89MCAP0\r\n"


@pytest.mark.parametrize(
    ("content", "part"), [(b"", "x.mcap is empty"), (b"text" * 99, "is no MCAP file (wrong first bytes)")]
)
def test_files_that_are_no_mcap(tmp_path, content, part):
    (tmp_path / "x.mcap").write_bytes(content)
    assert part in rd.reason(tmp_path, task="t")


@pytest.mark.parametrize("seed", range(12))
def test_any_flipped_byte_gives_rows_or_one_sentence(tmp_path, sent, seed):
    path = write_sent(tmp_path, sent[: len(sent) // 3], compression=["zstd", ""][seed % 2], crc=seed % 3 != 0)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), 3):
        data[place] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    for recover in (False, True):
        try:
            episode = rd.read_one(tmp_path, task="t", recover=recover, check_rate=False)
            assert all(len(rd.buffers(episode, name)) == len(episode.state) for name in episode.cameras)
        except BadEpisode as error:
            assert "\n" not in str(error)


# 12, 13: ROS 1 index, metadata.yaml


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_cut_bag(tmp_path, sent, share):
    path = r1.write_bag(tmp_path / "x.bag", sent, "lz4")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "x.bag cannot be read" in (found := rd.reason(tmp_path, task="t")) and "rosbag reindex" in found


@pytest.mark.parametrize("seed", range(6))
def test_damaged_bag(tmp_path, sent, seed):
    path = r1.write_bag(tmp_path / "x.bag", sent[: len(sent) // 3], ["lz4", "bz2", ""][seed % 3])
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 40] = np.random.default_rng(seed).bytes(40)
    path.write_bytes(data)
    try:
        episode = rd.read_one(tmp_path, task="t")
        assert all(len(rd.buffers(episode, name)) == len(episode.state) for name in episode.cameras)
    except BadEpisode as error:
        assert "\n" not in str(error)


@pytest.mark.slow
def test_damaged_db3(tmp_path, sent):
    r1.write_db3(tmp_path / "x", sent)
    path = tmp_path / "x" / "x.db3"
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    assert "x.db3 cannot be read" in rd.reason(tmp_path, task="t")
    path.write_bytes(b"no database")
    assert "x.db3 cannot be read" in rd.reason(tmp_path, task="t")


def test_active_bags_are_left_out_with_advice(tmp_path, sent):
    write_sent(tmp_path, sent)
    (tmp_path / "y.bag.active").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "z.db3.zstd").write_bytes(b"")
    skipped = {s.source: s.reason for s in rd.converter(task="t").discover(tmp_path).skipped}
    assert "rosbag reindex y.bag.active" in skipped["y.bag.active"]
    assert "unpack it" in skipped["z.db3.zstd"]
    (tmp_path / "y.bag.active").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "z.db3.zstd").write_bytes(b"<!doctype html><title>Sign in</title>")
    skipped = {s.source: s.reason for s in rd.converter(task="t").discover(tmp_path).skipped}
    assert "git lfs pull --include 'y.bag.active'" in skipped["y.bag.active"]
    assert 'z.db3.zstd is an HTML page ("Sign in")' in skipped["z.db3.zstd"]


@pytest.mark.parametrize("metadata", [None, "relative_file_paths: [other.mcap]", ": no yaml ["])
def test_metadata_yaml_does_not_matter(tmp_path, sent, metadata):
    path = r1.write_recording(tmp_path, sent)
    if metadata is not None:
        (path.parent / "metadata.yaml").write_text(metadata)
    assert len(rd.read_one(tmp_path).state) == 36


@pytest.mark.parametrize("compression", ["bz2", "lz4"])
def test_a_bag_that_unpacks_to_more_than_is_plausible(tmp_path, sent, monkeypatch, compression):
    """rosbags itself unpacks whatever the bytes claim."""
    r1.write_bag(tmp_path / "x.bag", sent, compression)
    whole = rd.read_one(tmp_path, task="x")
    monkeypatch.setattr("converters.r1lite.mcap.MAX_RECORD", 20_000)
    assert "compressed data unpack to more than 0 MiB" in rd.reason(tmp_path, task="x")
    monkeypatch.setattr("converters.r1lite.mcap.MAX_RECORD", 256 << 20)
    assert len(rd.read_one(tmp_path, task="x").state) == len(whole.state)


def test_a_bag_whose_definition_lacks_a_part(tmp_path, sent):
    path = r1.write_bag(tmp_path / "x.bag", sent)
    path.write_bytes(path.read_bytes().replace(b"MSG: std_msgs/Header", b"MSG: std_msgs/HeadeX"))
    assert "cannot be decoded ('std_msgs/msg/Header')" in rd.reason(tmp_path, task="t")
