"""LIBERO instructions: file name, problem_info and BDDL."""

from __future__ import annotations

import json

import numpy as np
import pytest
from libero_files import write_file
from libero_reading import FILE, TASK, converter, read_one, reason

from converters.libero.paths import suite_of_task
from converters.libero.published import LIBERO_90, SUITE_OF_TASK
from converters.libero.task_name import parse_task, split_task, unmarked


def test_problem_info_beside_the_file_name(tmp_path):
    write_file(tmp_path / FILE, [0, 1], text="Turn the stove on")
    made = converter()
    assert any("problem_info has another instruction" in text for text in made.discover(tmp_path).warnings)
    episode = read_one(tmp_path)
    assert episode.instructions == ("turn on the stove",) and episode.metadata["instruction_source"] == "file name"
    assert episode.metadata["instruction_problem_info"] == "Turn the stove on"
    other = read_one(tmp_path, instruction="problem_info")
    assert other.instructions == ("Turn the stove on",) and other.metadata["instruction_source"] == "problem_info"
    assert other.task == TASK


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"turn it on"', "turn it on"),
        (list("turn it on"), "turn it on"),
        (["turn", "it", "on"], "turn it on"),
        (3, None),
        ("", None),
    ],
)
def test_spellings_of_problem_info(tmp_path, value, expected):
    info = json.dumps({"language_instruction": value})
    write_file(tmp_path / FILE, [0], attributes={"problem_info": info.encode()})
    assert read_one(tmp_path).metadata["instruction_problem_info"] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet", "close the top drawer of the cabinet"),
        (
            "LIVING_ROOM_SCENE2_pick_up_the_butter_and_put_it_in_the_basket",
            "pick up the butter and put it in the basket",
        ),
        ("STUDY_SCENE1_pick_up_the_book", "pick up the book"),
        ("turn_on_the_stove", "turn on the stove"),
    ],
)
def test_instruction_of_a_file_name(tmp_path, name, expected):
    write_file(tmp_path / f"{name}_demo.hdf5", [0], "openvla")
    episode = read_one(tmp_path)
    assert episode.instructions == (expected,) and episode.task == name
    scene = name[: name.index("_", name.index("SCENE"))] if "SCENE" in name else None
    assert episode.metadata["scene"] == scene


def test_file_names_that_do_not_follow_the_pattern(tmp_path):
    path = tmp_path / "Recording 7.hdf5"
    bddl = "(define (problem X)\n  (:domain robosuite)\n  (:language Push the plate)\n (:init))"
    write_file(path, [0], text="push it", attributes={"bddl_file_content": bddl})
    assert read_one(tmp_path).instructions == ("push it",)
    write_file(path, [0], attributes={"problem_info": "no json {", "bddl_file_content": bddl})
    assert read_one(tmp_path).instructions == ("Push the plate",)
    assert read_one(tmp_path).metadata["instruction_source"] == "bddl"
    write_file(path, [0], "openvla")
    assert "Recording 7.hdf5 tells no instruction" in reason(tmp_path)


@pytest.mark.parametrize(
    "info",
    [
        str({"problem_name": "x", "language_instruction": "push it", "more": (1, None)}),
        str({"language_instruction": ["push", "it"]}),
        json.dumps({"language": "push it"}),
    ],
)
def test_problem_info_as_python_prints_it(tmp_path, info):
    write_file(tmp_path / "mine" / "recording.hdf5", [0], attributes={"problem_info": info})
    assert read_one(tmp_path).instructions == ("push it",)


@pytest.mark.parametrize(
    "info", ["{" * 9000, "{__import__('os'): 1}", "{'language_instruction': f()}", "{1:[]}", "{[]: 1}"]
)
def test_hostile_objects_tell_nothing(tmp_path, info):
    write_file(tmp_path / FILE, [0], attributes={"problem_info": info})
    assert read_one(tmp_path).instructions == ("turn on the stove",)


def test_hostile_json_tells_nothing(tmp_path):
    deep = "[" * 60_000
    write_file(tmp_path / FILE, [0], attributes={"problem_info": deep, "env_args": '{"env_kwargs": 3}'})
    assert read_one(tmp_path).instructions == ("turn on the stove",)


BOWL = "pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate"
PERTURBED = (
    *("_table_14", "_tb_3", "_light_1", "_light_02", "_add_20", "_noise_38", "_level1_sample2", "_level_3", "_7"),
    *("_view_0_0_100_2_352_initstate_0", "_view_43_0_100_0_0_initstate_0_noise_38", "_view_0_-15_1.5_initstate_4"),
)


@pytest.mark.parametrize("suffix", PERTURBED)
@pytest.mark.parametrize("task", [BOWL, "KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet", "stack_the_red_cups"])
def test_perturbations_never_end_in_the_instruction(tmp_path, task, suffix):
    place = "libero_90" if task.startswith("KITCHEN") else "libero_spatial"
    write_file(tmp_path / place / f"{task}{suffix}_demo.hdf5", [0], "openvla")
    made = converter()
    told = [text for text in made.discover(tmp_path).warnings if "ends in a perturbation or number" in text]
    assert len(told) == 1 and f"({suffix})" in told[0]
    episode = read_one(tmp_path)
    assert episode.instructions == (task.removeprefix("KITCHEN_SCENE10_").replace("_", " "),)
    assert episode.metadata["perturbation"] == suffix and episode.task == task + suffix


@pytest.mark.parametrize("before", ["3_", "07_", "task_12_", "task5_", "libero_goal_2_"])
@pytest.mark.parametrize("info", [None, "the name", "the text"])
@pytest.mark.parametrize("suffix", ["", "_light_4"])
def test_numbers_never_start_the_instruction(tmp_path, before, info, suffix):
    """Files that are numbered by their task's place in a suite, and texts that were made from such names."""
    name, text = f"{before}{BOWL}{suffix}", BOWL.replace("_", " ")
    inside = {None: None, "the name": name.replace("_", " "), "the text": text}[info]
    held = None if inside is None else json.dumps({"language_instruction": inside})
    write_file(tmp_path / "libero_spatial" / f"{name}_demo.hdf5", [0], "openvla", attributes={"problem_info": held})
    warnings = converter().discover(tmp_path).warnings
    (told,) = [each for each in warnings if "perturbation or number, which is not part of the instruction" in each]
    assert f"({before}" in told and not any("another instruction" in each for each in warnings)
    for preference in ("file_name", "problem_info"):
        assert read_one(tmp_path, instruction=preference).instructions == (text,)


@pytest.mark.parametrize("scene", ["STUDY_SCENE7", "OFFICE_SCENE2"])
def test_a_scene_of_ones_own_before_a_published_text_stays_a_scene(tmp_path, scene):
    write_file(tmp_path / "mine" / f"{scene}_turn_on_the_stove_demo.hdf5", [0])
    assert not any("starts or ends in" in each for each in converter().discover(tmp_path).warnings)
    episode = read_one(tmp_path)
    assert (episode.metadata["scene"], episode.instructions) == (scene, ("turn on the stove",))


def test_a_text_in_a_file_of_another_name_does_not_start_with_its_number(tmp_path):
    info = json.dumps({"language_instruction": f"4 {BOWL.replace('_', ' ')}"})
    write_file(tmp_path / "mine" / "recording.hdf5", [0], attributes={"problem_info": info})
    assert any("starts with a number" in each for each in converter().discover(tmp_path).warnings)
    assert read_one(tmp_path).instructions == (BOWL.replace("_", " "),)


@pytest.mark.parametrize(
    ("name", "named"),
    [("2_cups_on_the_plate", "2"), ("task4_push_the_cup", "task4"), ("put_2_cups_on_the_plate", None)],
)
def test_a_number_before_a_text_of_ones_own_may_count_objects(tmp_path, name, named):
    write_file(tmp_path / "mine" / f"{name}_demo.hdf5", [0])
    told = [each for each in converter().discover(tmp_path).warnings if "may be a mark on the file alone" in each]
    assert len(told) == bool(named) and all(f"({named})" in each for each in told)
    assert read_one(tmp_path).instructions == (name.replace("_", " "),)


def test_a_text_made_from_a_perturbed_name_counts_as_the_name(tmp_path):
    spelt = f"{BOWL} table 14".replace("_", " ")
    write_file(tmp_path / "libero_spatial" / f"{BOWL}_table_14_demo.hdf5", [0], text=spelt)
    assert not any("another instruction" in text for text in converter().discover(tmp_path).warnings)
    for preference in ("file_name", "problem_info"):
        assert read_one(tmp_path, instruction=preference).instructions == (BOWL.replace("_", " "),)


@pytest.mark.parametrize("suffix", ["_texture_2", "_robot_init_3", "_bg4", "_moved_1_camera_7"])
@pytest.mark.parametrize("task", [BOWL, "KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet"])
def test_perturbations_of_unknown_names_never_end_in_the_instruction(task, suffix):
    found = parse_task(task + suffix)
    assert (found.published, found.dropped, found.rewritten) == (True, suffix, False)
    assert found.words == parse_task(task).words
    longer = parse_task(f"{BOWL}_and_then_close_the_top_drawer_2")  # a task of one's own
    assert not longer.published and longer.words.endswith("close the top drawer")


@pytest.mark.parametrize("suffix", ["_language_5", "_language_5_view_0_0_100_0_0_initstate_0"])
def test_a_rewritten_instruction_is_taken_from_the_file_or_refused(tmp_path, suffix):
    path = tmp_path / "libero_spatial" / f"{BOWL}{suffix}_demo.hdf5"
    write_file(path, [0], text="Kindly move the dark bowl onto the plate")
    assert read_one(tmp_path).instructions == ("Kindly move the dark bowl onto the plate",)
    for kind, spelt in (("openvla", None), ("raw", f"{BOWL}{suffix}".replace("_", " "))):
        write_file(path, [0], kind, text=spelt)
        assert "was rewritten, and the file has neither problem_info nor BDDL" in reason(tmp_path)
    write_file(path, [0], text=f"{BOWL.replace('_', ' ').capitalize()}.")  # what was said before it was rewritten
    assert "take the one that it has (--instruction problem_info)" in reason(tmp_path)
    [text] = read_one(tmp_path, instruction="problem_info").instructions
    assert text.lower() == f"{BOWL.replace('_', ' ')}."


@pytest.mark.parametrize(
    ("place", "task", "expected"),
    [
        ("libero_goal", "turn_on_the_stove", "turn on the stove"),
        ("libero_goal_no_noops", "turn_on_the_stove", "turn on the stove"),
        ("libero_goal_lan", "turn_on_the_stove", "Say it otherwise"),
        ("libero_goal_semantic_ood", "turn_on_the_stove", "Say it otherwise"),
        ("libero_goal_language", "turn_on_the_stove", "Say it otherwise"),
        ("LIBERO-Goal-paraphrased_v2", "turn_on_the_stove", "Say it otherwise"),
        ("libero_goal_256_landscape", "turn_on_the_stove", "turn on the stove"),
        ("mine", "fold_the_towel", "Say it otherwise"),
        ("libero_90", "KITCHEN_SCENE3_turn_on_the_stove", "turn on the stove"),
        ("libero_90", "KITCHEN_SCENE3_fold_the_towel", "Say it otherwise"),
    ],
)
def test_outside_the_published_tasks_the_recorded_text_counts(tmp_path, place, task, expected):
    write_file(tmp_path / place / f"{task}_demo.hdf5", [0], text="Say it otherwise")
    assert read_one(tmp_path).instructions == (expected,)
    named = task.removeprefix("KITCHEN_SCENE3_").replace("_", " ")
    assert read_one(tmp_path, instruction="file_name_always").instructions == (named,)


def test_a_number_that_may_belong_to_the_text_is_not_guessed_away(tmp_path):
    path = tmp_path / "mine" / "put_block_1_on_block_2_demo.hdf5"
    write_file(path, [0], "openvla")
    assert "the number at its end may belong to the text" in reason(tmp_path)
    write_file(path, [0], text="put block 1 on block 2")
    assert read_one(tmp_path).instructions == ("put block 1 on block 2",)
    path.unlink()
    path = tmp_path / "mine" / "put_block_1_on_block_2_noise_4_demo.hdf5"
    write_file(path, [0], "openvla")
    assert "the number at its end may belong to the text" in reason(tmp_path)
    write_file(path, [0])  # its text is made from the file's name
    assert read_one(tmp_path).instructions == ("put block 1 on block 2",)


def test_all_published_tasks_spell_their_own_text():
    assert len(LIBERO_90) == 90 and len(SUITE_OF_TASK) == 40
    for task in (*LIBERO_90, *SUITE_OF_TASK):
        found = parse_task(task)
        assert found.published and not found.dropped and found.words == split_task(task)[1].replace("_", " ")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("put_the_can_on_table_2", "put the can on table"),
        ("turn_off_the_light_1", "turn off the light"),
        ("put_the_can_on_the_shelf_table_2", "put the can on the shelf"),
    ],
)
def test_a_text_of_ones_own_is_not_cut_in_the_middle_of_a_sentence(task, words):
    assert parse_task(task).words == words


@pytest.mark.parametrize(
    "suffix", ["_background3", "_camera_2", "_v3", "_seed_7", "_robot_init_4", "_episode_12", "_init_state_5_bg2"]
)
def test_marks_of_copies_never_end_in_a_text_of_ones_own(suffix):
    found = parse_task(f"stack_the_red_cups{suffix}")
    assert (found.words, found.dropped) == ("stack the red cups", suffix)
    assert parse_task(f"put_the_cup_near{suffix}").words.startswith("put the cup near")


def test_a_word_with_a_number_at_the_end_of_a_name_is_named(tmp_path):
    path = tmp_path / "mine" / "press_button7_demo.hdf5"
    for kind, text, told in (("openvla", None, True), ("raw", None, True), ("raw", "Press the button", False)):
        write_file(path, [0], kind, text=text)
        assert any("(button7)" in said for said in converter().discover(tmp_path).warnings) == told


def test_a_perturbed_task_in_the_folder_of_another_suite_is_named(tmp_path):
    write_file(tmp_path / "libero_spatial" / "turn_on_the_stove_tb_12_demo.hdf5", [0])
    assert any("another suite" in said and "(libero_goal)" in said for said in converter().discover(tmp_path).warnings)


@pytest.mark.parametrize("mark", ["_copy", "_failed", "_no_noops", "_texture", "_left"])
@pytest.mark.parametrize("task", [BOWL, "KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet"])
def test_a_mark_without_a_number_never_ends_in_the_instruction(tmp_path, task, mark):
    path = tmp_path / "libero_spatial" / f"{task}{mark}_demo.hdf5"
    write_file(path, [0], "openvla")
    assert f"{mark} follows the text of a published task" in reason(tmp_path)
    spelt = f"{task}{mark}".removeprefix("KITCHEN_SCENE10_").replace("_", " ")
    assert read_one(tmp_path, instruction="file_name_always").instructions == (spelt,)
    write_file(path, [0], text="say it otherwise")
    assert read_one(tmp_path).instructions == ("say it otherwise",)


def test_a_sentence_that_goes_on_after_a_published_task_is_kept(tmp_path):
    write_file(tmp_path / "mine" / "turn_on_the_stove_and_fold_the_towel_demo.hdf5", [0], "openvla")
    assert read_one(tmp_path).instructions == ("turn on the stove and fold the towel",)


@pytest.mark.parametrize("suffix", [*PERTURBED, "_copy", "_failed_2"])
@pytest.mark.parametrize("written", [str, lambda text: text.replace("_", " "), lambda text: f"{text}_demo"])
def test_a_recorded_text_never_ends_in_a_mark_whatever_the_file_is_called(tmp_path, suffix, written):
    """The text inside was made from a marked name, and the file was renamed or is of another suite."""
    path, text = tmp_path / "libero_spatial_lan" / "episode_file.hdf5", written(f"{BOWL}{suffix}")
    bddl = f"(define (problem X) (:language {text}))"
    for attributes in ({}, {"problem_info": None, "bddl_file_content": bddl}):
        write_file(path, [0], text=text, attributes=attributes)
        for preference in ("file_name", "problem_info"):
            assert read_one(tmp_path, instruction=preference).instructions == (BOWL.replace("_", " "),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("KITCHEN_SCENE3_turn_on_the_stove_table_14", "turn on the stove"),
        ("fold the towel view 0 0 100 2 352 initstate 0", "fold the towel"),
        ("fold the towel light 1", "fold the towel"),
        ("Fold the towel (table 3)", "Fold the towel"),
        ("kitchen scene10 close the top drawer of the cabinet", "close the top drawer of the cabinet"),
        ("turn on the stove language 3", None),
        ("fold the towel language 3", None),
        ("Turn on light 1", "Turn on light 1"),
        ("put the cup on table 2", "put the cup on table 2"),
        ("put block 1 on block 2", "put block 1 on block 2"),
        ("press the button of the machine version 2", "press the button of the machine version 2"),
        ("turn on the stove light", "turn on the stove light"),
        ("turn on the stove and fold the towel", "turn on the stove and fold the towel"),
        ("turn on the stove 2 times", "turn on the stove 2 times"),
        ("Turn on the stove.", "Turn on the stove."),
    ],
)
def test_only_marks_are_left_out_of_a_recorded_text(text, expected):
    assert unmarked(text) == expected


def test_published_texts_are_never_shortened():
    for task in (*LIBERO_90, *SUITE_OF_TASK):
        text = split_task(task)[1].replace("_", " ")
        assert unmarked(text) == text


def test_a_recorded_text_that_was_rewritten_is_asked_for(tmp_path):
    write_file(tmp_path / "mine" / "recording.hdf5", [0], text=f"{BOWL} language 5".replace("_", " "))
    assert "recording.hdf5 tells no instruction" in reason(tmp_path)


def test_a_scene_in_small_letters_is_no_part_of_the_instruction(tmp_path):
    task = "kitchen_scene3_turn_on_the_stove_and_put_the_moka_pot_on_it"
    write_file(tmp_path / "mine" / f"{task}_light_2_demo.hdf5", [0], "openvla")
    episode = read_one(tmp_path)
    assert episode.instructions == ("turn on the stove and put the moka pot on it",)
    assert episode.metadata["scene"] == "KITCHEN_SCENE3"
    assert suite_of_task(task) is None, "it is part of the names of episodes, which stay"


@pytest.mark.parametrize("attributes", [{}, {"problem_info": None, "bddl_file_content": "(:language set the light 3)"}])
def test_a_text_that_is_cut_is_named_where_the_files_name_does_not_tell(tmp_path, attributes):
    attributes = {k: v and v.replace("light 3", "lamp light 3") for k, v in attributes.items()}
    write_file(tmp_path / "mine" / "set_it_demo.hdf5", [0], text="set the lamp light 3", attributes=attributes)
    assert read_one(tmp_path).instructions == ("set the lamp",)
    (told,) = [text for text in converter().discover(tmp_path).warnings if "'set the lamp'" in text]
    assert "ends in the name of a perturbation" in told and "'set the lamp light 3'" in told


def test_a_text_made_from_a_name_that_goes_on_after_a_published_task_is_named(tmp_path):
    path = tmp_path / "libero_spatial" / f"{BOWL}_camera_far_demo.hdf5"
    write_file(path, [0])  # its problem_info spells the file's name
    assert read_one(tmp_path).instructions == (f"{BOWL} camera far".replace("_", " "),)
    assert [
        text for text in converter().discover(tmp_path).warnings if "may be a mark" in text and "_camera_far" in text
    ]
    write_file(path, [0], text="Move the bowl")
    assert not [text for text in converter().discover(tmp_path).warnings if "may be a mark" in text]


INFO = json.dumps({"language_instruction": "push the röd bowl"}, ensure_ascii=False)


@pytest.mark.parametrize(
    "info",
    [
        np.void(INFO.encode()),
        np.void(INFO.encode("utf-16")),
        np.frombuffer(INFO.encode(), np.uint8),
        "\ufeff" + INFO,
        json.dumps(INFO),
        json.dumps({"problem_info": json.loads(INFO)}),
    ],
)
def test_problem_info_in_any_form(tmp_path, info):
    write_file(tmp_path / "mine" / "recording.hdf5", [0], attributes={"problem_info": info})
    assert read_one(tmp_path).instructions == ("push the röd bowl",)


@pytest.mark.parametrize(
    "info", [INFO[:-4], np.void(INFO.encode("latin-1")), '{"language_instruction": "push \\ud83d"}']
)
def test_problem_info_that_cannot_be_read_is_named(tmp_path, info):
    write_file(tmp_path / FILE, [0], attributes={"problem_info": info})
    (said,) = (text for text in converter().discover(tmp_path).warnings if "problem_info" in text)
    assert "cannot be read, or tells no instruction" in said and "the file name's 'turn on the stove'" in said
    assert read_one(tmp_path).instructions == ("turn on the stove",)


@pytest.mark.parametrize(
    ("name", "text", "mark"),
    [
        ("turn_on_the_stove_texture_A", "turn on the stove texture A", " texture A"),
        ("turn_on_the_stove-view-3", "turn on the stove-view-3", "-view-3"),
        ("turn_on_the_stove_and_Wait", "turn on the stove and Wait", None),
        ("turn_on_the_stove_B", "turn on the left stove", None),
        ("Recording_7", "turn on the stove slowly", None),
    ],
)
def test_a_text_that_spells_a_name_of_other_signs_is_named(tmp_path, name, text, mark):
    info = json.dumps({"language_instruction": text})
    write_file(tmp_path / f"{name}_demo.hdf5", [0], attributes={"problem_info": info})
    said = [each for each in converter().discover(tmp_path).warnings if "may be a mark on the file alone" in each]
    assert len(said) == bool(mark) and all(f"({mark})" in each for each in said)
