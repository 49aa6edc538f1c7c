"""Text, seeds, scenes and videos beside RoboTwin recordings."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from robotwin_files import (
    SEEN,
    encode,
    picture,
    write_task,
    write_video,
)
from robotwin_reading import TASK, colours, read_all, read_one, reason, recording, replace


def test_instructions_are_cleaned(tmp_path):
    texts = ["  Hit it. ", "Hit\nit.", "", "打它@Hit the block", "a@b@c", 5, "Hit it."]
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "instructions" / "episode0.json").write_text(json.dumps({"seen": texts, "unseen": ["New.", "New."]}))
    episode = read_one(tmp_path)
    assert episode.instructions == ("Hit it.", "Hit the block")
    assert episode.metadata["instructions_unseen"] == ["New."]
    assert sum("dropped" in w for w in episode.warnings) == 2


@pytest.mark.parametrize(
    "content",
    [None, "{", "[]", '{"seen": []}', '{"seen": [""]}', '{"seen": 3}', '{"unseen": ["a"]}', "\udcff", "[" * 99999],
)
def test_without_usable_text_the_task_name_is_taken(tmp_path, content):
    folder = write_task(tmp_path, "archive", TASK, [0])
    path = folder / "instructions" / "episode0.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    episode = read_one(tmp_path)
    assert episode.instructions == ("beat block hammer",) and episode.metadata["instruction_fallback"] is True
    assert any("the task's name 'beat block hammer' is used" in w for w in episode.warnings)


def test_last_episode_of_an_interrupted_collection(tmp_path):
    write_task(tmp_path, "archive", TASK, [0, 1], seen=None)
    first, last = read_all(tmp_path)
    assert not any("last episode" in w for w in first.warnings) and any("last episode" in w for w in last.warnings)
    assert not any("last episode" in w for e in read_all(tmp_path, max_episodes_per_task=1) for w in e.warnings)


@pytest.mark.parametrize("stored", [[""], [], ["[broken"], ["[]"]])
def test_empty_text_inside_v1_files(tmp_path, stored):
    folder = write_task(tmp_path, "v1-archive", TASK, [0], variant="converted")
    with recording(folder) as file:
        del file["instructions"], file["instruction"]
        file.create_dataset("instructions", data=stored, dtype=h5py.string_dtype())
    episode = read_one(tmp_path)
    assert episode.instructions == ("beat block hammer",) and episode.metadata["instruction_fallback"] is True


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        ({"seen": ["Hit it.", "Beat it."], "unseen": ["Never."]}, ("Hit it.", "Beat it.")),
        ({"instruction": "Hit it."}, ("Hit it.",)),
        ({"other": "Hit it."}, ("beat block hammer",)),
    ],
)
def test_an_object_inside_v1_files_tells_its_text(tmp_path, stored, seen):
    folder = write_task(tmp_path, "v1-archive", TASK, [0])
    with recording(folder) as file:
        del file["instructions"]
        file["instructions"] = json.dumps(stored)
    assert read_one(tmp_path).instructions == seen


def test_text_inside_the_recording_wins_over_a_shifted_file(tmp_path):
    folder = write_task(tmp_path, "v1", TASK, [0])
    (folder / "instruction" / "episode_0000000.json").write_text('{"seen": ["Other."], "unseen": ["New."]}')
    episode = read_one(tmp_path)
    assert episode.instructions == tuple(dict.fromkeys(SEEN)) and episode.metadata["instructions_unseen"] == ["New."]
    assert any("differ from instruction/episode_0000000.json" in w for w in episode.warnings)


def test_canonical_instruction_by_seed(tmp_path):
    texts = [f"Variant {i}." for i in range(40)]
    write_task(tmp_path, "archive", TASK, [0, 1, 2], seen=texts)
    picks = [episode.instructions for episode in read_all(tmp_path, instruction="seeded")]
    assert picks == [episode.instructions for episode in read_all(tmp_path, instruction="seeded")]
    assert len({pick[0] for pick in picks}) > 1
    assert all(sorted(pick) == sorted(texts) for pick in picks)


@pytest.mark.parametrize(("content", "part"), [("7", "1 seeds, none for episode 1"), ("7 x", "not a number")])
def test_seeds_that_do_not_fit(tmp_path, content, part):
    folder = write_task(tmp_path, "archive", TASK, [1])
    (folder / "seed.txt").write_text(content)
    episode = read_one(tmp_path)
    assert episode.metadata["seed"] is None and any(part in w for w in episode.warnings)


@pytest.mark.parametrize(
    ("scenes", "part"),
    [
        ({"episode_0": {"info": {"{a}": "right"}}}, "speak of the left arm, scene_info.json of the right one"),
        ({"episode_1": {"info": {"{a}": "left"}}}, "no entry episode_0"),
        ([], "expected an object, found list"),
    ],
)
def test_shifted_scene_info_is_a_warning(tmp_path, scenes, part):
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "scene_info.json").write_text(json.dumps(scenes))
    episode = read_one(tmp_path)
    assert any(part in w for w in episode.warnings), episode.warnings


# Colours against the video


def test_a_video_that_contradicts_the_marker_stops_the_episode(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0], video=True)
    images = np.stack([picture("head_camera", t, (48, 64)) for t in range(6)])
    standard = np.array([encode(np.ascontiguousarray(image[..., ::-1])) for image in images])  # rewritten, no marker
    with recording(folder) as file:
        replace(file, "observation/head_camera/rgb", standard)
    assert "episode0.mp4 contradicts the colours of head_camera" in reason(tmp_path)
    assert "--colour rgb reads it as the video" in reason(tmp_path)
    episode = read_one(tmp_path, colour="rgb")
    assert np.median(np.abs(colours(episode.cameras["head_camera"]).astype(int) - images[:-1])) <= 3
    assert episode.metadata["colour_check"]["verdict"] == "agrees"
    forced = read_one(tmp_path, colour="swapped")
    assert any("forced by option colour" in w for w in forced.warnings)


def test_a_video_that_is_a_pointer_is_called_one(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "video").mkdir()
    (folder / "video" / "episode0.mp4").write_text("version https://git-lfs.github.com/spec/v1\nsize 99\n")
    assert any("episode0.mp4 is a Git LFS pointer of a file of 99 bytes" in w for w in read_one(tmp_path).warnings)


@pytest.mark.parametrize("kind", ["junk", "other size", "grey"])
def test_a_video_that_tells_nothing(tmp_path, kind):
    folder = write_task(tmp_path, "archive", TASK, [0])
    path = folder / "video" / "episode0.mp4"
    if kind == "junk":
        path.parent.mkdir()
        path.write_bytes(b"junk" * 99)
    else:
        write_video(path, np.full((2, *((96, 64) if kind == "other size" else (48, 64)), 3), 90, np.uint8))
    episode = read_one(tmp_path)
    verdict = episode.metadata["colour_check"]["verdict"]
    assert verdict == ("not coloured enough" if kind == "grey" else "not checked")
    assert any("colours are not checked" in w for w in episode.warnings) is (kind != "grey")


def test_templates_that_were_never_filled_in_are_not_instructions(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    path = folder / "instructions" / "episode0.json"
    path.write_text(json.dumps({"seen": ["Use {a} to lift {A}.", "Lift it."], "unseen": ["Move {A}."]}))
    episode = read_one(tmp_path)
    assert episode.instructions == ("Lift it.",) and episode.metadata["instructions_unseen"] == []
    assert any("'Use {a} to lift {A}.' is a template, {a} is not filled in; dropped" in w for w in episode.warnings)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><title>Sign in</title>", 'is an HTML page ("Sign in")'),
        (b"", "is empty (0 bytes)"),
    ],
)
def test_a_file_of_instructions_without_its_content_is_named(tmp_path, content, part):
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "instructions" / "episode0.json").write_bytes(content)
    assert any(part in w for w in read_one(tmp_path).warnings)


@pytest.mark.parametrize("name", [f"instructions/{TASK}.json", "instructions.json", f"{TASK}/instruction.json"])
def test_a_file_with_the_text_of_a_whole_task_is_named(tmp_path, name):
    write_task(tmp_path, "archive", TASK, [0], seen=None)
    assert not any("is not read" in text for text in read_one(tmp_path).warnings)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"instruction": "Hit the block."}')
    told = [text for text in read_one(tmp_path).warnings if "is not read: a text belongs to one episode" in text]
    assert len(told) == 1 and told[0].startswith(name)
