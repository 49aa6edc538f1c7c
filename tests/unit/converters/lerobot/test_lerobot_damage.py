"""What is wrong with LeRobot datasets in real downloads, and what is said about it."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures import run_convert
from lerobot_files import Recipe, edit_info, edit_table, frames, write_dataset, write_video
from lerobot_reading import converter, manifest, pixels, read_all, reason, refusal
from PIL import Image

from converters.lerobot.converter import choose_manifest
from fwdata.errors import UsageError

PARQUET = "data/chunk-000/episode_000000.parquet"
VIDEO = "videos/chunk-000/observation.images.head_rgb/episode_000000.mp4"
HEAD = "observation.images.head_rgb"
ARM = "observation.state.left_arm"


KINDS = {"root": Recipe(), "images": Recipe(pictures="png")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undamaged datasets by kind, written once."""
    folder = tmp_path_factory.mktemp("whole")
    return {name: write_dataset(folder / name, recipe) for name, recipe in KINDS.items()}


@pytest.fixture
def root(whole, tmp_path):
    return Path(shutil.copytree(whole["root"], tmp_path / "set"))


@pytest.fixture
def images(whole, tmp_path):
    return Path(shutil.copytree(whole["images"], tmp_path / "set"))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"codebase_version": "v1.6"}, ["codebase_version 'v1.6' is not supported, only v2.0, v2.1 and v3.0", "v2.1"]),
        ({"codebase_version": "v4.0"}, ["codebase_version 'v4.0' is not supported, only v2.0, v2.1 and v3.0 are"]),
        ({"codebase_version": None}, ["codebase_version None is not supported"]),
        ({"fps": 0}, ["fps must be a number above 0, found 0"]),
        ({"fps": "fast"}, ["fps must be a number", "'fast'"]),
        ({"fps": 10}, ["meta/info.json says 10 fps, manifest 'lerobot-r1lite' 15"]),
        ({"features": None}, ["features must be an object"]),
        ({"chunks_size": -1}, ["chunks_size must be a whole number, found -1"]),
        ({"data_path": "../x/{episode_index}.parquet"}, ["leads out of the dataset's folder"]),
        ({"data_path": "/etc/{episode_index}"}, ["leads out of the dataset's folder"]),
        ({"data_path": "data/{episode_index.__class__}"}, ["has the field 'episode_index.__class__'"]),
        ({"data_path": "data/{episode_index:0999999999d}"}, ["'0999999999d'"]),
        ({"data_path": "data/{episode_index"}, ["not a path template"]),
        ({"video_path": "v/{file_index}.mp4"}, ["codebase_version begins with v2", "is a template of v3"]),
        ({"features": {"../../x": {"dtype": "video", "shape": [1, 1, 3]}}}, ["feature '../../x' leads out"]),
        (
            {"features": {HEAD: {"dtype": "image", "shape": [9, 9, 3]}}},
            ["its cameras are none; listed without images", HEAD],
        ),
    ],
)
def test_info_json(root, changes, parts):
    edit_info(root, **changes)
    told = refusal(root)
    assert all(part in told for part in parts) and str(root) in told, told


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("meta/info.json", b"{", "meta/info.json is not valid JSON"),
        ("meta/info.json", b"[]", "must be an object, found list"),
        ("meta/info.json", b"\xff\xfe", "meta/info.json is not valid JSON"),
        ("meta/info.json", b"[" * 100_000, "meta/info.json is not valid JSON"),
        ("meta/tasks.jsonl", None, "meta/tasks.jsonl is missing, without which no instruction is known"),
        ("meta/episodes.jsonl", None, "; fetch it: hf download OWNER/NAME --repo-type dataset --local-dir "),
        ("meta/episodes.jsonl", b"", "is empty (0 bytes)"),
        ("meta/episodes.jsonl", b"no json\n", "line 1: not valid JSON"),
    ],
)
def test_metadata_files(root, name, content, part):
    (root / name).unlink() if content is None else (root / name).write_bytes(content)
    assert part in refusal(root)


def test_wrong_sizes_of_a_feature(root):
    """The tables are right about sizes, unless they differ among themselves; a shape that is none is an error."""
    info = json.loads((root / "meta/info.json").read_text())
    for shape in ([4], [10**6]):
        info["features"][ARM]["shape"] = shape
        edit_info(root, features=info["features"])
        (told,) = [w for w in converter().discover(root).warnings if ARM in w]
        assert f"{ARM} has 6 values in a row of {PARQUET}, meta/info.json says {shape[0]}; all are kept" in told
        assert read_all(root)[0].state.shape == (5, 14)
    info["features"][ARM]["shape"] = ["x"]
    edit_info(root, features=info["features"])
    assert "unknown" in refusal(root)


def test_damaged_lines_cost_their_episode_alone(root):
    path = root / "meta/episodes.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text("\n".join([first, "{", '{"episode_index": 3, "length": "x"}', "[1]", first, second]))
    found = converter().discover(root)
    assert [r.id for r in found.episodes] == ["episode_000000", "episode_000001"]
    assert [s.source for s in found.skipped] == [f"meta/episodes.jsonl line {n}" for n in (2, 3, 4)] + ["episode 0"]
    assert "not valid JSON" in found.skipped[0].reason and "'x'" in found.skipped[1].reason
    path.write_text(first)
    assert any("says 2 episodes, the metadata list 1" in w for w in converter().discover(root).warnings)


def test_a_task_that_the_table_lacks(root):
    (root / "meta/tasks.jsonl").write_text('{"task_index": 1, "task": "x"}\n{"task_index": 0}\n')
    assert "task_index is 0 at frame 0, which the dataset's task table does not have" in reason(root)
    assert any("tasks.jsonl line 2 is left out" in w for w in converter().discover(root).warnings)
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": " "}\n')
    assert "no row has an instruction text" in reason(root)
    (root / "meta/tasks.jsonl").write_text("")
    assert "task_index is 0 at frame 0, but the dataset's task table is empty" in reason(root)


@pytest.mark.parametrize("name", [PARQUET, VIDEO])
def test_missing_files_are_skipped_at_once(root, name):
    (root / name).unlink()
    found = converter().discover(root)
    assert [r.id for r in found.episodes] == ["episode_000001"]
    assert found.skipped[0].reason == f"{name} is missing; download it again"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", [PARQUET, VIDEO])
def test_truncated_files(root, name, share):
    data = (root / name).read_bytes()
    (root / name).write_bytes(data[: int(len(data) * share)])
    skipped = converter().discover(root).skipped
    told = skipped[0].reason if share == 0.0 else reason(root)
    assert told.startswith(f"{name} is empty (0 bytes)" if share == 0.0 else f"{name} cannot be read"), told


@pytest.mark.parametrize("name", [PARQUET, VIDEO, "meta/info.json", "meta/tasks.jsonl"])
def test_pointers_and_web_pages_are_named(root, name):
    """A pointer in the place of an episode's file leaves that one out at once; a large web page, when it is read."""
    oid = "sha256:" + "0" * 64
    (root / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid {oid}\nsize 1234\n")
    metadata = name.startswith("meta")
    told = refusal(root) if metadata else converter().discover(root).skipped[0].reason
    assert f"{name} is a Git LFS pointer of a file of 1234 bytes" in told and "git lfs pull" in told
    (root / name).write_text("<!DOCTYPE html><html><title>Log in</title>" + " " * 2000)
    assert f'{name} is an HTML page ("Log in")' in (refusal(root) if metadata else reason(root))


def test_video_bytes_damaged_inside(tmp_path):
    """The index is whole, the pictures are not."""
    root = write_dataset(tmp_path, Recipe(lengths=(40,), tasks=(0,)))
    data = bytearray((root / VIDEO).read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 6000 : start + 30000] = b"\0" * 24000
    (root / VIDEO).write_bytes(data)
    assert VIDEO in reason(root)


@pytest.mark.parametrize(
    ("key", "column", "parts"),
    [
        (ARM, None, [f"{PARQUET} has no column '{ARM}'"]),
        (ARM, pa.array([[0.0] * 5] * 5), [f"{ARM} has 5 numbers in a row, 6 are declared"]),
        (ARM, pa.array([[0.0] * 6] * 4 + [[0.0]]), [f"{ARM} has rows of 1 to 6 numbers, expected 6"]),
        (ARM, pa.array([[0.0] * 6] * 4 + [None]), [f"{ARM} has 1 row without values"]),
        (ARM, pa.array([[0.0] * 6] * 4 + [[None] * 6]), [f"{ARM} has 6 missing values"]),
        (ARM, pa.array(["x"] * 5), [f"{ARM} holds string, expected 6 numbers in a row"]),
        (ARM, pa.array([["x"] * 6] * 5), [f"{ARM} holds string, expected numbers"]),
        (ARM, pa.array([[0.0] * 5 + [np.nan]] * 5), ["state is not finite at frame 0, dimension left_joint_6"]),
        ("action.left_gripper", pa.array([1.0, np.inf, 1, 1, 1]), ["action is not finite at frame 1"]),
        ("episode_index", pa.array([0, 0, 0, 0, 3]), ["holds rows of episode 3, expected episode 0 alone"]),
        ("episode_index", pa.array([0.5] * 5), ["episode_index must be whole numbers, found fractions"]),
        ("frame_index", pa.array([0, 1, 3, 4, 5]), ["frame_index is 3 at row 2"]),
        ("task_index", pa.array([0, 0, 0, 0, 9]), ["task_index is 9 at frame 4"]),
    ],
)
def test_columns_that_contradict_the_metadata(root, key, column, parts):
    edit_table(root / PARQUET, key, column)
    told = reason(root)
    assert all(part in told for part in parts), told


def test_lists_of_every_kind_and_none(root):
    values = pq.read_table(root / PARQUET).column(ARM).to_pylist()
    good = read_all(root)[0].state
    for kind in (pa.list_view(pa.float64()), pa.large_list_view(pa.float64()), pa.large_list(pa.float64())):
        edit_table(root / PARQUET, ARM, pa.array(values, kind))
        assert np.array_equal(read_all(root)[0].state, good)
    edit_table(
        root / PARQUET,
        ARM,
        pa.array([dict(enumerate(map(str, row))) for row in values], pa.map_(pa.int64(), pa.string())),
    )
    assert f"{ARM} holds map<int64" in reason(root) and "expected 6 numbers in a row" in reason(root)


def test_numbers_beyond_float32_are_refused_or_said(root):
    found = np.full((5, 6), 0.5)
    found[:, 3] = 1.7e9 + np.arange(5) / 30
    edit_table(root / PARQUET, ARM, pa.array(found.tolist()))
    (told,) = (w for w in read_all(root)[0].warnings if "32-bit" in w)
    assert told.startswith("state dimension left_joint_4 is near 1.7e+09 and stored as 32-bit numbers, which round it")
    found[2, 3] = 1e300
    edit_table(root / PARQUET, ARM, pa.array(found.tolist()))
    assert "state is 1e+300 at frame 2, dimension left_joint_4: more than 32-bit numbers hold" in reason(root)


def test_doubled_column(root):
    table = pq.read_table(root / PARQUET)
    pq.write_table(table.append_column(ARM, table.column(ARM)), root / PARQUET)
    assert f"has 2 columns '{ARM}'" in reason(root)


@pytest.mark.slow
def test_rows_and_metadata_disagree(root):
    path = root / "meta/episodes.jsonl"
    path.write_text(path.read_text().replace('"length": 5', '"length": 6'))
    assert "holds 5 rows of episode 0, the metadata say 6" in reason(root)
    path.write_text(path.read_text().replace('"length": 6', '"length": 0'))
    assert "holds 5 rows of episode 0, the metadata say 0" in reason(root)


def test_a_table_that_miscounts_its_rows(root):
    data = (root / PARQUET).read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for at in range(footer, len(data)):  # the number of rows: field 3 of the footer, a whole number of 64 bits
        if data[at : at + 2] == b"\x16\x0a":
            (root / PARQUET).write_bytes(data[: at + 1] + b"\x0c" + data[at + 2 :])
            if pq.ParquetFile(root / PARQUET).metadata.num_rows == 6:
                break
    assert "holds 5 values of episode_index, its index lists 6" in reason(root)


def test_times_that_are_no_grid_are_told(root):
    edit_table(root / PARQUET, "timestamp", pa.array([0, 0.1, 0.2, 0.3, 9.0], pa.float32()))
    warnings = read_all(root)[0].warnings
    assert any("column timestamp is 9.000 s at frame 4, 15 fps put it at 0.267 s" in w for w in warnings)


@pytest.mark.parametrize("count", [4, 6])
def test_video_of_another_length(root, count):
    shots = np.resize(frames(Recipe(), HEAD, 0), (count, 24, 32, 3))
    write_video(root / VIDEO, shots, 15)
    assert f"{VIDEO} holds {count} frames, the episode has 5 rows" in reason(root)
    if count == 6:
        assert "nothing in the files tells which frames belong to them" in reason(root)
        assert "--extra-frames first, last or by-time" in reason(root, extra_frames="reject")
        for rule, kept in (("ignore", shots[:5]), ("first", shots[:5]), ("last", shots[1:]), ("by-time", shots[:5])):
            episode = read_all(root, extra_frames=rule)[0]
            assert np.array_equal(pixels(episode.cameras["head_rgb"]), kept)


def test_video_of_another_rate_or_size_is_told(root):
    write_video(root / VIDEO, np.resize(frames(Recipe(), HEAD, 0), (5, 48, 32, 3)), 30)
    warnings = read_all(root)[0].warnings
    assert any("runs at 30 frames/s, meta/info.json says 15" in w for w in warnings)
    assert any("is 48x32 pixels, meta/info.json says (24, 32)" in w for w in warnings)


def _replace_picture(root, data, frame=0):
    cells = pq.read_table(root / PARQUET).column(HEAD).to_pylist()
    cells[frame] = data if isinstance(data, dict) else {"bytes": data, "path": "p.png"}
    edit_table(root / PARQUET, HEAD, pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))


def _png(mode, size):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format="png")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "frame", "part"),
    [
        (None, 0, "head_rgb frame 0 holds no image, found only the path 'p.png'"),
        ({"bytes": None, "path": None}, 2, "head_rgb frame 2 holds no image, found no bytes; fetch the table"),
        (b"GIF89a", 0, "frame 0 is not a readable image (starts with 47 49 46 38); expected JPEG, PNG"),
        (b"\xff\xd8\xff\xe0", 0, "frame 0: JPEG of 4 bytes without a frame header"),
        (_png("RGB", (32, 24))[:50], 1, "frame 1 is damaged (starts with 89 50 4e 47)"),
        (_png("RGB", (32, 24)).replace(b"IDATx", b"IDATy"), 4, "frame 4 is damaged (starts with 89 50 4e 47)"),
        (_png("I;16", (32, 24)), 0, "frame 0 is an image of mode I;16, expected 8-bit colours"),
        (_png("RGB", (16, 24)), 3, "frame 3 is 24x16 pixels, frame 0 24x32"),
        (_png("1", (9000, 8)), 0, "frame 0 claims 8x9000 pixels"),
    ],
)
def test_pictures_in_parquet(images, data, frame, part):
    _replace_picture(images, data, frame)
    assert part in reason(images)


def test_jpeg_and_png_in_one_episode(tmp_path):
    root = write_dataset(tmp_path, Recipe(pictures="jpeg"))
    _replace_picture(root, _png("RGB", (32, 24)), 2)
    assert "frame 2 is not a JPEG (starts with 89 50 4e 47), frame 0 is" in reason(root)


def test_roots_that_are_no_dataset(root, tmp_path):
    for place in ("meta", "data/chunk-000"):
        assert f"holds no meta/info.json; the dataset's folder is {root}" in refusal(root / place)
    assert "is a file; give the dataset's folder" in refusal(root / "meta/info.json")
    (tmp_path / "empty").mkdir()
    assert "give a LeRobot dataset or a folder of several" in refusal(tmp_path / "empty")
    assert refusal(tmp_path / "none") == f"there is no folder {tmp_path / 'none'}"


def test_a_damaged_episode_is_quarantined_and_the_others_converted(root, tmp_path):
    (root / VIDEO).write_bytes(b"x" * 999)
    report = run_convert(root, tmp_path / "s.zarr", manifest())
    assert report.episodes == 1
    assert [(s, r.startswith(f"{VIDEO} cannot be read as video")) for s, r in report.quarantined] == [(PARQUET, True)]


@pytest.mark.parametrize("key", ["observation.state.left_arm", "action.right_gripper"])
def test_fractions_that_were_cast_to_whole_numbers(root, key):
    rows = pq.read_table(root / PARQUET).column(key).to_pylist()
    whole = [[int(n) for n in row] if isinstance(row, list) else int(row) for row in rows]
    edit_table(root / PARQUET, key, pa.array(whole))
    (found,) = [text for text in read_all(root)[0].warnings if "meta/info.json" in text]
    assert found == f"{key} holds int64, meta/info.json says float64: fractions may be lost"


def test_a_video_of_an_unknown_codec(root):
    data = (root / VIDEO).read_bytes()
    assert data.count(b"avc1") >= 1
    (root / VIDEO).write_bytes(data.replace(b"avc1", b"xxxx").replace(b"avcC", b"xxxC"))
    assert f"{VIDEO} is coded in a way that no decoder here knows" in reason(root)


@pytest.mark.parametrize("name", [PARQUET, VIDEO, "meta/info.json", "meta/tasks.jsonl", "data/chunk-000"])
def test_links_out_of_the_dataset_are_not_followed(root, tmp_path, name):
    away = tmp_path / "away"
    (root / name).rename(away)
    (root / name).symlink_to(away)
    if name not in (PARQUET, VIDEO):
        assert "is a link that leads out of the dataset's folder" in refusal(root)
        return
    assert f"{name} is a link that leads out" in converter().discover(root).skipped[0].reason
    (root / name).unlink()
    away.rename(root / "inside")
    (root / name).symlink_to(root / "inside")
    assert not converter().discover(root).skipped  # links inside it are fine


@pytest.mark.slow
def test_a_column_that_expands_to_more_than_a_readers_memory_costs_its_episode_alone(root, tmp_path):
    values = np.zeros(30_000_000, np.float32)  # equal numbers: some hundred bytes in the file
    lengths = np.array([0, len(values) - 24, *(6 * np.arange(4) + len(values) - 18)], np.int32)
    edit_table(root / PARQUET, "action.left_arm", pa.ListArray.from_arrays(lengths, pa.array(values)))
    assert (root / PARQUET).stat().st_size < 50_000
    report = run_convert(root, tmp_path / "s.zarr", manifest(), workers=1, memory=384 << 20)
    ((source, told),) = report.quarantined
    assert source == PARQUET and "memory" in told and report.episodes == 1


def test_an_incomplete_download_is_one_sentence(tmp_path):
    root = write_dataset(tmp_path / "set", Recipe(lengths=(5,) * 5, tasks=(0,) * 5))
    for episode in (1, 3, 4):
        (root / f"data/chunk-000/episode_00000{episode}.parquet").unlink()
    next(root.rglob("episode_000004.mp4")).unlink()
    found = converter().discover(root)
    assert [ref.hints["episode"] for ref in found.episodes] == [0, 2]
    [skip] = found.skipped
    assert skip.reason.startswith("incomplete download: 4 of 20 files are missing (data/chunk-000/episode_000001.par")
    assert "of 3 of 5 episodes; fetch them: hf download OWNER/NAME --repo-type dataset --local-dir " in skip.reason
    assert str(root) in skip.reason


def test_half_a_video_says_so_without_numbers(root):
    path = root / VIDEO
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told = reason(root)
    assert told.count(VIDEO) == 1 and "Errno" not in told
    assert "it ends before its index (moov), so the download or the recording broke off" in told
    path.write_bytes(bytes(range(256)) * 9)
    assert "it is truncated, damaged, or not a video" in reason(root)


def test_archives_beside_and_inside_datasets_are_named(tmp_path):
    root = write_dataset(tmp_path / "set", Recipe())
    for name in ("videos.zip", "set/more.tar.gz", "set/videos.tar"):
        (tmp_path / name).write_bytes(b"PK")
    packed = {left.reason: left for left in converter().discover(tmp_path).left_out}
    [told] = [left for reason, left in packed.items() if "not unpacked" in reason]
    assert (told.count, told.examples) == (2, ("set/more.tar.gz", "videos.zip"))
    assert "find . -name '*.zip' -execdir unzip -q {} \\;" in told.reason
    shutil.rmtree(root)
    with pytest.raises(UsageError, match=r"but 1 archive, such as videos.zip; unpack them first"):
        choose_manifest([tmp_path], {})
