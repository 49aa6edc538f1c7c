"""Files of LeRobot datasets that are not where the metadata say, and cameras and values that are not as they say."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import R1LITE_CAMERAS, Recipe, edit_info, edit_table, frames, write_dataset, write_video
from lerobot_reading import converter, joined, pixels, read_all, refusal
from PIL import Image

from converters.lerobot import choose_manifest

HEAD, LEFT, RIGHT = R1LITE_CAMERAS
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
SHARED = Recipe(version="v3.0", lengths=(5, 7, 6), tasks=(0, 1, 0))
PLAIN = {"fps": 30, "robot": "x", "vectors": {"observation.state": 3, "action": 3}, "pictures": "png"}


def edit_episodes(root: Path, episode: int, **changes: object) -> None:
    """Change columns of one row of the v3.0 table of episodes; a value None is null."""
    table = pq.read_table(root / EPISODES)
    rows = table.to_pylist()
    rows[episode] |= changes
    pq.write_table(pa.Table.from_pylist(rows, table.schema), root / EPISODES)


def check(root: Path, recipe: Recipe, warning: str = "") -> None:
    """All episodes are read, each with its own rows and images."""
    found = read_all(root)
    assert len(found) == len(recipe.lengths)
    for number, episode in enumerate(found):
        assert np.array_equal(episode.state, joined(recipe, number, "observation.state"))
        assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(recipe, HEAD, number))
    warnings = converter().discover(root).warnings
    assert any(warning in text for text in warnings) if warning else not warnings, warnings


@pytest.mark.parametrize("label", [8, 11.25, 25, 30])
@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize("lengths", [(5, 7, 6), (24, 4, 40, 9), (12, 12, 12, 12)])
def test_places_in_a_video_do_not_depend_on_a_wrong_label(tmp_path, label, lengths, version):
    """The rate of info.json alone was changed, which option rate overrules: times of places are as they were."""
    recipe = Recipe(version=version, lengths=lengths, tasks=(0,) * len(lengths))
    root = write_dataset(tmp_path, recipe)
    edit_info(root, fps=label)
    for number, episode in enumerate(read_all(root, rate=15.0)):
        assert np.array_equal(episode.state, joined(recipe, number, "observation.state"))
        assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(recipe, HEAD, number))


def split_tables(root: Path) -> None:
    """Move the rows of the second and third episode to another table, and leave the metadata as they are."""
    first = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(first)
    pq.write_table(table.slice(0, 5), first)
    (root / "data/chunk-001").mkdir()
    pq.write_table(table.slice(5), root / "data/chunk-001/file-000.parquet")


def test_rows_are_found_by_episode_index(tmp_path):
    """The table that the metadata name holds other episodes, or is absent."""
    root = write_dataset(tmp_path, SHARED)
    check(root, SHARED)
    split_tables(root)
    told = (
        "tables of 2 episodes are not where the metadata say, and were found by the column episode_index (episode 1: "
    )
    check(root, SHARED, told + "data/chunk-001/file-000.parquet instead of data/chunk-000/file-000.parquet)")
    for episode in range(3):
        edit_episodes(root, episode, **{"data/file_index": 9})
    check(root, SHARED, "tables of 3 episodes")


TABLE, COPY = "data/chunk-000/file-000.parquet", "data/chunk-000/file-001.parquet"


def test_rows_that_two_tables_hold_alike_are_read_from_one(tmp_path):
    root = write_dataset(tmp_path, SHARED)
    shutil.copy(root / TABLE, root / COPY)
    check(root, SHARED, f"rows of 3 episodes are in two tables and alike; one is read (episode 0: {TABLE} and {COPY})")
    edit_episodes(root, 1, **{"data/file_index": 7})
    check(root, SHARED, "rows of 3 episodes are in two tables and alike")


def test_rows_that_two_tables_hold_differently_are_read_from_the_one_that_is_named(tmp_path):
    root = write_dataset(tmp_path, SHARED)
    other_rows(root)
    check(root, SHARED, f"(episode 0: {TABLE} as the metadata say, {COPY} differs)")
    edit_episodes(root, 1, **{"data/file_index": 7})
    found = converter().discover(root)
    assert [ref.hints["episode"] for ref in found.episodes] == [0, 2]
    [skip] = found.skipped
    assert f"rows of episode 1 are in {TABLE} and {COPY}, which differ" in skip.reason and "file-007" in skip.reason
    assert "incomplete" not in skip.reason and found.decisions["datasets"]["dataset"]["left_out"]


def test_the_whole_rows_of_an_episode_are_read_and_parts_are_refused(tmp_path):
    root = write_dataset(tmp_path, SHARED)
    table = pq.read_table(root / TABLE)
    pq.write_table(table.slice(7), root / TABLE)  # what is left of episodes 0 and 1, and episode 2
    pq.write_table(table.slice(0, 12), root / COPY)
    check(root, SHARED, f"(episode 1: {COPY}, of {TABLE} (5) and {COPY} (7))")
    pq.write_table(table.slice(0, 7), root / COPY)
    found = converter().discover(root)
    assert [ref.hints["episode"] for ref in found.episodes] == [0, 2]
    assert f"rows of episode 1 are in {TABLE} (5) and {COPY} (2), the metadata say 7" in found.skipped[0].reason


def other_rows(root: Path) -> None:
    """A second table with the same episodes and other numbers."""
    table = pq.read_table(root / TABLE)
    name = "observation.state.left_arm"
    column = table.schema.get_field_index(name)
    values = pa.array([[x + 1 for x in row] for row in table[name].to_pylist()], table.schema.field(name).type)
    pq.write_table(table.set_column(column, table.schema.field(name), values), root / COPY)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize(
    ("old", "new"),
    [("videos", "video"), ("videos", "videos_h264"), ("data/chunk-000", "data/chunk-007"), ("data", "tables")],
)
def test_files_are_found_where_they_lie(tmp_path, version, old, new):
    recipe = Recipe(version=version)
    root = write_dataset(tmp_path, recipe)
    (root / old).rename(root / new)
    check(root, recipe, "are not where the metadata say, and were found by")


def test_path_patterns_that_name_other_folders(tmp_path):
    """A pattern with one folder per episode, where all lie in the first; another container."""
    root = write_dataset(tmp_path, Recipe())
    edit_info(
        root,
        data_path="data/chunk-{episode_index:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_index:03d}/{video_key}/episode_{episode_index:06d}.mkv",
    )
    check(root, Recipe(), "videos of 2 episodes are not where the metadata say")


def test_a_file_that_could_be_several_is_not_taken(tmp_path):
    root = write_dataset(tmp_path, Recipe())
    edit_info(root, video_path="v/{video_key}/episode_{episode_index:06d}.mp4")
    check(root, Recipe(), "videos of 2 episodes")
    shutil.copytree(root / "videos", root / "copy")
    assert "incomplete download: 6 of 8 files are missing" in refusal(root)


def test_a_linked_folder_of_videos(tmp_path):
    """Links that stay in the dataset are followed, links out of it are not."""
    root = write_dataset(tmp_path / "set", Recipe())
    (root / "videos").rename(root / "real")
    (root / "videos").symlink_to("real")
    (root / "loop").symlink_to(".")
    check(root, Recipe())
    root = write_dataset(tmp_path / "other", Recipe())
    (root / "videos").rename(tmp_path / "real")
    (root / "videos").symlink_to(tmp_path / "real")
    assert ": videos is a link that leads out of the dataset's folder" in refusal(root)
    (root / "videos").unlink()
    (tmp_path / "real").rename(root / "videos")
    place = Path(VIDEO).parent  # of one camera, which is not one without images
    (root / place).rename(tmp_path / "camera")
    (root / place).symlink_to(tmp_path / "camera")
    assert f": {place} is a link that leads out of the dataset's folder" in refusal(root)


VIDEO = "videos/chunk-000/observation.images.head_rgb/episode_000000.mp4"


@pytest.mark.parametrize("name", ["meta/tasks.jsonl", "data/chunk-000/episode_000000.parquet", VIDEO])
@pytest.mark.parametrize("up", [3, 5])
def test_content_of_git_annex_that_was_not_fetched(tmp_path, name, up):
    """Links into the repository's own folder, which may lie above the dataset's."""
    root = write_dataset(tmp_path / "set", Recipe(lengths=(5,)))
    (root / name).unlink()
    (root / name).symlink_to("../" * up + ".git/annex/objects/Xx/Yy/SHA256E-s1--ab")
    told = refusal(root)
    assert f"{name} is a link of git-annex to content that is not here; fetch it: git annex get '{name}'" in told


@pytest.mark.slow
@pytest.mark.parametrize("entrance", ["snapshot", "repository", "link"])
def test_the_hubs_cache_of_links(tmp_path, entrance):
    """Every file is a link to a numbered one, videos one to a folder of the cache, and the way there may be one."""
    source = write_dataset(tmp_path / "source", SHARED)
    cache = tmp_path / "hub/datasets--someone--set"
    snapshot = cache / "snapshots/0123abcd"
    for number, path in enumerate(sorted(p for p in source.rglob("*") if p.is_file())):
        blob, target = cache / f"blobs/{number:040x}", snapshot / path.relative_to(source)
        blob.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, blob)
        target.symlink_to(blob)
    (snapshot / "videos").rename(cache / "videos")
    (snapshot / "videos").symlink_to("../../videos")
    (tmp_path / "link").symlink_to(snapshot)
    check({"snapshot": snapshot, "repository": cache, "link": tmp_path / "link"}[entrance], SHARED)


def drop_camera(root: Path, version: str) -> None:
    if version == "images":
        for path in sorted(root.glob("data/*/*.parquet")):
            edit_table(path, "side", None)
    else:
        shutil.rmtree(next(p for p in root.rglob("side") if p.is_dir()))


@pytest.mark.parametrize("version", ["v2.1", "v3.0", "images"])
def test_a_camera_without_files_is_left_out(tmp_path, version):
    recipe = Recipe(version="v2.1" if version == "images" else version, cameras=("side", "top"), **PLAIN)
    if version != "images":
        recipe = Recipe(**{**vars(recipe), "pictures": "video"})
    root = write_dataset(tmp_path, recipe)
    assert choose_manifest([root], {}).cameras == ("side", "top")
    drop_camera(root, version)
    chosen = choose_manifest([root], {})
    assert chosen.cameras == ("top",)
    found = converter_of(chosen).discover(root)
    assert len(found.episodes) == 2 and not found.skipped
    (told,) = [w for w in found.warnings if "side" in w]
    assert "camera side is listed in meta/info.json and has no images; it is left out" in told


def test_a_camera_that_only_some_episodes_lack_costs_those(tmp_path):
    root = write_dataset(tmp_path, Recipe())
    next(root.rglob(f"{HEAD}/episode_000001.mp4")).unlink()
    found = converter().discover(root)
    assert [ref.hints["episode"] for ref in found.episodes] == [0] and "is missing" in found.skipped[0].reason


@pytest.mark.parametrize("files", ["whole", "a frame less", "none"])
@pytest.mark.parametrize("how", ["null", "no columns"])
def test_video_columns_without_values(tmp_path, how, files):
    """A camera without places is there where its videos have the frames of all episodes; else it is left out."""
    recipe = Recipe(version="v3.0", cameras=("side", "top"), **{**PLAIN, "pictures": "video"})
    root = write_dataset(tmp_path, recipe)
    table = pq.read_table(root / EPISODES)
    for name in [n for n in table.schema.names if n.startswith("videos/side/")]:
        edit_table(root / EPISODES, name, pa.nulls(2, table.schema.field(name).type) if how == "null" else None)
    video = next(root.rglob("videos/side/*/file-000.mp4"))
    if files == "none":
        shutil.rmtree(root / "videos/side")
    elif files == "a frame less":
        write_video(video, np.concatenate([frames(recipe, "side", e) for e in (0, 1)])[:-1], 30)
    chosen = choose_manifest([root], {})
    assert chosen.cameras == (("side", "top") if files == "whole" else ("top",))
    found = converter_of(chosen).discover(root)
    assert len(found.episodes) == 2
    (told,) = [text for text in found.warnings if "side" in text]
    assert {
        "whole": "the metadata give no place of camera side for 2 episodes; its videos have exactly the frames",
        "a frame less": "the metadata give no place of any episode in the 1 video of camera side; it is left out",
        "none": "camera side is listed in meta/info.json and has no images; it is left out",
    }[files] in told
    if files == "whole":
        for number, ref in enumerate(found.episodes):
            shown = pixels(converter_of(chosen).read(root, ref).cameras["side"])
            assert np.array_equal(shown, frames(recipe, "side", number))


def test_the_place_of_one_episode_is_counted_from_the_others(tmp_path):
    root = write_dataset(tmp_path / "set", SHARED)
    edit_episodes(root, 1, **{f"videos/{HEAD}/{name}": None for name in ("file_index", "from_timestamp")})
    check(root, SHARED, f"the metadata give no place of camera {HEAD} for 1 episode")
    edit_episodes(root, 2, **{f"videos/{HEAD}/from_timestamp": 11 / 15})  # not where the counts put it
    assert [skip.source for skip in converter().discover(root).skipped] == [
        "data/chunk-000/file-000.parquet#episode_000001"
    ]


@pytest.mark.parametrize("key", ["observation.images.depth", "observation.images.head_depth", "cam_depth_0"])
def test_depth_is_not_a_colour_camera(tmp_path, key):
    root = write_dataset(tmp_path, Recipe(cameras=("top", key), **PLAIN))
    assert choose_manifest([root], {}).cameras == ("top",)


@pytest.mark.parametrize(
    "info", [{"video.is_depth_map": True}, {"video.pix_fmt": "gray16le"}, {"video.pix_fmt": "gray"}]
)
def test_depth_by_its_flag_or_format(tmp_path, info):
    root = write_dataset(tmp_path, Recipe(cameras=("top", "side"), **PLAIN))
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["side"]["info"] = info
    edit_info(root, features=features)
    colour = info.get("video.pix_fmt") == "gray"
    assert choose_manifest([root], {}).cameras == (("top", "side") if colour else ("top",))


def test_cameras_of_an_export_are_cameras_whatever_their_format(tmp_path):
    """A store holds no distances; LeRobot's writer says the format of a grey camera of 10 bits that was copied."""
    root = write_dataset(tmp_path, Recipe(cameras=("top", "side"), **PLAIN))
    features = json.loads((root / "meta/info.json").read_text())["features"]
    for key in ("top", "side"):
        features[key]["info"] = {"video.pix_fmt": "gray10le"}
    (root / "meta/fwdata.json").write_text("{}")
    edit_info(root, features=features)
    assert choose_manifest([root], {}).cameras == ("top", "side")


@pytest.mark.parametrize(("form", "mode", "colour"), [("png", "I;16", False), ("tiff", "F", False), ("png", "L", True)])
def test_images_of_more_than_8_bits_in_grey_are_distances(tmp_path, form, mode, colour):
    """Called and sized as a camera's; an 8-bit grey image may be one of light."""
    root = write_dataset(tmp_path, Recipe(cameras=("top", "side"), **PLAIN))
    buffer = io.BytesIO()
    Image.new(mode, (32, 24), 200).save(buffer, format=form)
    for path in (root / "data").rglob("*.parquet"):
        cells = [{"bytes": buffer.getvalue(), "path": "x"}] * pq.read_metadata(path).num_rows
        edit_table(path, "side", pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    chosen = choose_manifest([root], {})
    assert chosen.cameras == (("top", "side") if colour else ("top",))
    told = "side: distances by name or format, not colours; left out"
    assert any(told in text for text in converter_of(chosen).discover(root).warnings) != colour


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("pixels_as", "colour"), [("gray12le", False), ("gray", True)])
def test_videos_of_more_than_8_bits_in_grey_are_distances(tmp_path, pixels_as, colour, channels):
    """Without a word about it in info.json, also where that says three channels, as of every other camera."""
    recipe = Recipe(cameras=("top", "side"), **{**PLAIN, "pictures": "video"})
    root = write_dataset(tmp_path, recipe)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["side"]["shape"] = [24, 32, channels]
    edit_info(root, features=features)
    for index, path in enumerate(sorted((root / "videos").rglob("side/*.mp4"))):
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx265", rate=30, options={"x265-params": "log-level=0"})
            stream.width, stream.height, stream.pix_fmt = 32, 24, pixels_as
            for picture in frames(recipe, "side", index):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels_as)))
            file.mux(stream.encode())
    assert choose_manifest([root], {}).cameras == (("top", "side") if colour else ("top",))


def converter_of(manifest):
    from converters.lerobot import Converter

    return Converter(manifest)


@pytest.mark.parametrize("declared", [30, 28])
def test_more_values_than_names_are_kept_and_reported(tmp_path, declared):
    names = [f"joint_{i}.pos" for i in range(28)]
    recipe = Recipe(
        cameras=("top",),
        **{**PLAIN, "vectors": {"observation.state": 30, "action": 30}},
        names={"observation.state": names, "action": names},
    )
    root = write_dataset(tmp_path, recipe)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    for key in ("observation.state", "action"):
        features[key]["shape"] = [declared]
    edit_info(root, features=features)
    made = converter_of(choose_manifest([root], {}))
    found = made.discover(root)
    warnings = " / ".join(found.warnings)
    assert "observation.state has 30 values and 28 names; the others are called state_28, state_29" in warnings
    assert ("meta/info.json says 28" in warnings) == (declared == 28)
    episode = made.read(root, found.episodes[0])
    assert episode.state.shape[1] == 30 and tuple(episode.state_names[-3:]) == ("joint_27.pos", "state_28", "state_29")


def test_episodes_left_out_are_counted_by_kind(tmp_path):
    root = write_dataset(tmp_path / "raw/set", Recipe(lengths=(4, 5, 6, 7), tasks=(0, 0, 0, 0)))
    next(root.rglob(f"{HEAD}/episode_000001.mp4")).unlink()
    (root / "data/chunk-000/episode_000000.parquet").write_bytes(b"")
    found = converter(max_episodes=1).discover(tmp_path / "raw")
    assert (
        "set: 1 of 4 episodes is read, the others left out (files missing or without content: 2, beyond option "
        "max_episodes: 1)" in (found.warnings)
    )
    counts = {"files missing or without content": 2, "beyond option max_episodes": 1}
    assert found.decisions["datasets"]["set"]["left_out"] == counts


def test_linked_datasets_are_said(tmp_path):
    write_dataset(tmp_path / "raw/set", Recipe())
    write_dataset(tmp_path / "elsewhere", Recipe())
    (tmp_path / "raw/more").symlink_to(tmp_path / "elsewhere")
    found = converter().discover(tmp_path / "raw")
    assert len(found.episodes) == 2
    assert found.warnings == ("1 linked dataset is not entered, such as more; give them by name",)
    (tmp_path / "links").mkdir()
    (tmp_path / "links/set").symlink_to(tmp_path / "elsewhere")
    assert f"1 linked dataset, such as set, is not entered: give {tmp_path}/links/set itself" in refusal(
        tmp_path / "links"
    )
