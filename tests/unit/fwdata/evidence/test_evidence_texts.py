"""What is found in instructions: slips, endings, other tasks' texts, placeholders and garbled ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from evidence_episodes import changed, clean_set, pooled, told, with_claims

from converters.libero.published import TEXTS
from converters.robotwin.paths import TASKS
from fwdata.evidence.detectors.garbled import garbled
from fwdata.evidence.detectors.placeholders import is_placeholder
from fwdata.evidence.detectors.text import near_misses
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement
from fwdata.evidence.registry import find_detector


def test_a_typo_in_an_instruction_is_found_and_other_instructions_are_not() -> None:
    texts = ["put the red block into the box", "put the red block into the bag", "open the top drawer of the cabinet"]
    episodes = [changed(e, instruction=texts[i % 3], thumbnails={}) for i, e in enumerate(clean_set())]
    assert pooled("instruction_typos", episodes)[""].verdict == "confirmed"
    for wrong in (
        "put the red blockk into the box",
        "put the red blcok into the box",
        "put the red block into the bxo",
    ):
        typo = changed(episodes[0], id="typo", instruction=wrong)
        verdict = pooled("instruction_typos", [*episodes, typo])[""]
        assert (verdict.verdict, verdict.episodes) == ("contradicted", ("typo",)), wrong
    assert near_misses(["open the left drawer", "open the front drawer", "open drawer 10", "open drawer 11"]) == []


def test_an_instruction_that_is_written_in_another_way_is_found() -> None:
    text = "put the red block into box 1.5 and close it"
    episodes = [changed(e, instruction=text, thumbnails={}) for e in clean_set()]
    for wrong in (
        "Put the red block into box 1.5, and close it.",
        "put  the red-block into box 1.5 and close it",
        "PUT THE RED_BLOCK INTO BOX 1.5 AND CLOSE IT!",
    ):
        verdict = pooled("instruction_typos", [*episodes, changed(episodes[0], id="other", instruction=wrong)])[""]
        assert (verdict.verdict, verdict.episodes) == ("contradicted", ("other",)), wrong
        assert verdict.measured == "1 pair that differs in case, punctuation or spaces alone"
    for meant in (text.replace("1.5", "15"), text.replace("1.5", "-1.5")):
        others = [*episodes, changed(episodes[0], id="other", instruction=meant)]
        assert pooled("instruction_typos", others)[""].verdict == "confirmed", meant
    free = [changed(e, instruction=f"do {i // 2}{'.' * (i % 2)} now", thumbnails={}) for i, e in enumerate(episodes)]
    assert pooled("instruction_typos", free)[""].verdict == "confirmed"  # worded freely


@pytest.mark.parametrize(
    ("one", "other"),
    [("press the + button", "press the - button"), ("move to +x", "move to -x"), ("दूध का कप", "दूध कि कप")],
)
def test_signs_and_vowels_that_are_meant_are_no_punctuation(one: str, other: str) -> None:
    episodes = [changed(e, instruction=(one, other)[i % 4 == 0], thumbnails={}) for i, e in enumerate(clean_set() * 2)]
    assert pooled("instruction_typos", episodes)[""].verdict == "confirmed"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Pick up the cup.", "Pick up the cup"),
        ("write X on the board", "write x on the board"),
        ("press the US key", "press the us key"),
    ],
)
def test_two_ways_of_writing_that_are_as_frequent_are_meant(one: str, other: str) -> None:
    episodes = [changed(e, instruction=(one, other)[i % 2], thumbnails={}) for i, e in enumerate(clean_set())]
    assert pooled("instruction_typos", episodes)[""].verdict == "confirmed"
    episodes = [changed(e, instruction=one if i > 1 else other) for i, e in enumerate(episodes)]
    assert pooled("instruction_typos", episodes)[""].episodes == ("episode_0", "episode_1")


def test_a_name_that_none_of_its_texts_says_tells_no_other_task() -> None:
    """A place where the other folder's task is done, too."""
    texts = {"pick_red_cube": ["pick the red cube"], "kitchen_left": ["pick the red cube", "wipe the left side"]}
    episodes = [
        changed(e, id=f"{group} {i}", group=group, instruction=said[i % len(said)], thumbnails={})
        for group, said in texts.items()
        for i, e in enumerate(clean_set())
    ]
    assert by_task(episodes)[""].verdict == "confirmed"


def test_a_small_word_that_is_missing_or_twice_is_found_where_it_is_rare() -> None:
    text, free = "pick up the block and put it into the box", "pick up block and put it into the box"
    episodes = [changed(e, instruction=text, thumbnails={}) for e in clean_set()]
    for wrong in (free, "pick up the block and and put it into the box"):
        verdict = pooled("instruction_typos", [*episodes, changed(episodes[0], id="typo", instruction=wrong)])[""]
        assert (verdict.verdict, verdict.episodes) == ("contradicted", ("typo",)), wrong
        assert "a word too few or twice" in verdict.measured
    for meant in ("pick up the red block and put it into the box", "pick up the block and put it into box two"):
        others = [*episodes, changed(episodes[0], id="other", instruction=meant)]
        assert pooled("instruction_typos", others)[""].verdict == "confirmed", meant
    for count in (1, len(episodes)):  # however often, and without a text that has it once
        wrong = "put the cup on the the tray"
        typos = [changed(e, id=f"typo_{i}", instruction=wrong) for i, e in enumerate(episodes[:count])]
        verdict = pooled("instruction_typos", [*episodes[count:], *typos])[""]
        assert (verdict.verdict, verdict.against) == ("contradicted", count)
        assert verdict.detail == "'put the cup on the tray' and 'put the cup on the the tray'"
    half = [changed(e, instruction=(text, free)[i % 2]) for i, e in enumerate(episodes)]  # worded freely
    assert pooled("instruction_typos", half)[""].verdict == "confirmed"


def by_task(episodes: Sequence[EpisodeInput]) -> dict[str, DatasetVerdict]:
    """What h10 says, whose traces are those of h2."""
    traced = [EpisodeMeasurement(e.id, e.group, (), find_detector("instruction_typos").trace(e)) for e in episodes]
    return {verdict.subject: verdict for verdict in find_detector("instruction_task").pool(traced)}


def test_the_text_of_another_task_is_found_where_groups_have_words_of_their_own() -> None:
    texts = {"hammer": "Beat the block with the {} hammer.", "bell": "Click the {} bell once.", "mug": "{} things"}
    colours = ["red", "blue", "steel", "small", "old", "heavy"]
    episodes = [
        changed(e, id=f"{task} {i}", group=task, instruction=text.format(colours[i % 6]), thumbnails={})
        for task, text in texts.items()
        for i, e in enumerate(clean_set()[:6])
    ]
    assert by_task(episodes)[""].verdict == "confirmed"
    assert "" not in by_task(episodes[:6])
    for place, other in ((2, 8), (11, 1)):
        wrong = list(episodes)
        wrong[place] = changed(episodes[place], instruction=episodes[other].instruction)
        found = by_task(wrong)[""]
        assert (found.action, found.episodes) == ("warn", (episodes[place].id,))
    mixed = [changed(e, instruction=episodes[8].instruction) if i < 2 else e for i, e in enumerate(episodes)]
    unnamed = [changed(e, group=f"session {len(e.group)}") for e in mixed]
    assert by_task(unnamed)[""].verdict == "confirmed"  # a group of two tasks
    assert by_task(mixed)[""].episodes == ("hammer 0", "hammer 1")  # one of which is the other group's name


def test_texts_of_another_task_are_found_by_the_names_of_groups() -> None:
    """Names as of RoboTwin's tasks, whose texts are worded freely."""
    texts = {
        "press_red_button/arm/clean": ["Press the red button.", "Push the button that is red", "Use it on the red one"],
        "press_blue_button/arm/clean": ["Press the blue button.", "Push the button that is blue", "Press it, the blue"],
        "stack_bowls_two/arm/clean": ["Stack the two bowls", "stack two bowls with care", "One bowl into the other"],
    }

    def episodes(swapped: int) -> list[EpisodeInput]:
        own = [(task, i, text) for task, some in texts.items() for i, text in enumerate(some * 3)]
        turned = dict(zip(texts, list(texts)[1::-1], strict=False))
        return [
            changed(
                clean_set()[0],
                id=f"{task} {i}",
                group=task,
                instruction=texts[turned[task]][i % 3] if i < swapped and task in turned else text,
                thumbnails={},
            )
            for task, i, text in own
        ]

    assert by_task(episodes(0))[""].verdict == "confirmed"
    assert by_task(episodes(4))[""].episodes == tuple(e.id for e in episodes(4) if int(e.id[-1]) < 4)[:8]
    rooms = [changed(e, group="red room" if i < 9 else "blue room") for i, e in enumerate(episodes(0)[:9] * 2)]
    assert by_task(rooms)[""].verdict == "confirmed"  # names that say nothing of what is done


def test_an_object_of_another_task_that_own_texts_mention_is_no_other_task() -> None:
    texts = {
        "place_red_cup": ["place the red cup next to the blue bowl"] * 6 + ["put the crimson mug by the blue bowl"] * 3,
        "place_blue_bowl": ["place the blue bowl on the table"] * 9,
    }
    episodes = [
        changed(clean_set()[0], id=f"{task} {i}", group=task, instruction=text, thumbnails={})
        for task, some in texts.items()
        for i, text in enumerate(some)
    ]
    assert by_task(episodes)[""].verdict == "confirmed"


def test_free_wording_with_a_common_word_of_another_task_is_no_other_task() -> None:
    """One text without a word of its own task's has the single word, "place", that most texts of another share."""
    hammer = ["Beat the block with it"] * 9 + ["Use the tool, then place it aside"]
    shelf = [f"place {word}" for word in ["cup", "can", "mug", "pot", "pan", "box", "jar", "lid", "bag", "tin"]]
    episodes = [
        changed(clean_set()[0], id=f"{task} {i}", group=task, instruction=text, thumbnails={})
        for task, texts in (("hammer", hammer), ("shelf", shelf))
        for i, text in enumerate(texts)
    ]
    assert by_task(episodes)[""].verdict == "confirmed"
    wrong = [changed(e, instruction="place cup") if e.id == "hammer 9" else e for e in episodes]
    assert by_task(wrong)[""].episodes == ("hammer 9",)


ENDINGS = ["table 14", "light 1", "view 0 0 100 2 352 initstate 0", "noise 3", "add 20", "language 2", "level2 1", "7"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_suffix_of_a_perturbed_file_never_ends_an_instruction(ending: str) -> None:
    episode = with_claims(clean_set()[0], layout="libero")
    assert told("instruction_ending", episode)[""].verdict == "confirmed"
    wrong = told("instruction_ending", changed(episode, instruction=f"put the bowl on the plate {ending}"))[""]
    assert (wrong.verdict, wrong.action) == ("contradicted", "stop")
    other = with_claims(changed(episode, instruction=f"put it on the plate {ending}"), layout=None)
    assert told("instruction_ending", other)[""].action == "warn"


@pytest.mark.parametrize(
    "text", ["put the cup on table 2", "put block 1 on block 2", "Turn on light 1", "go to level 3"]
)
def test_a_number_that_belongs_to_the_sentence_is_no_suffix(text: str) -> None:
    episode = with_claims(changed(clean_set()[0], instruction=text), layout="libero")
    assert told("instruction_ending", episode)[""].verdict == "confirmed"


NOT_WRITTEN = [
    "TODO",
    "test",
    "Test 3",
    "task_0",
    "dummy task",
    "<your task description here>",
    "None",
    "N/A",
    "...",
    "7",
]
NOT_WRITTEN += ["xxx", "TODO: write this", "Insert the instruction", "asdf", "\u6d4b\u8bd5"]


@pytest.mark.parametrize("text", NOT_WRITTEN)
def test_a_placeholder_is_no_instruction(text: str) -> None:
    episodes = [changed(e, instruction=text, thumbnails={}) for e in clean_set()[:2]]
    found = pooled("instruction_placeholder", episodes)[""]
    assert (found.verdict, found.action, found.against) == ("contradicted", "warn", 2)


def test_no_published_instruction_is_a_placeholder() -> None:
    seen = [*TEXTS, *(name.replace("_", " ") for name in TASKS)]
    others = ["run to the door", "test the switch", "put the sample into the tray", "write the text", "pick", "wave"]
    others += ["put the label on the box", "open task drawer 2", "empty", "\u62ff\u8d77\u676f\u5b50"]
    others.append("\U0001f34e \U0001f963")
    assert len(seen) >= 150 and not [text for text in [*seen, *others] if is_placeholder(text)]


GARBLED = {
    "put the r\u00c3\u00b6d bowl on the plate": "read as cp1252: it is 'put the r\u00f6d bowl",
    "lift it \u00e2\u20ac\u201d slowly": "read as cp1252",
    "\u93b6\u5b2e\u6363\u6d93": "",  # cut inside of a character: nothing tells
    "put the bowl\x00 on": "control characters",
    "\ufeffput the bowl on": "control characters",
    "put the \ufffd bowl": "U+FFFD",
    "put the &quot;red&quot; bowl": "an entity of HTML",
    "<p>put the bowl</p>": "a tag of HTML",
    "put%20the%20bowl": "an escape of a URL",
    "put the r\\u00f6d bowl": "an escape that was not read",
    "b'put the bowl'": "an object as a program prints it",
    "['put the bowl']": "an object as a program prints it",
    '{"task": "put the bowl"}': "an object as a program prints it",
    "????? ???": "question marks",
}


@pytest.mark.parametrize("text", GARBLED)
def test_a_garbled_instruction_is_named(text: str) -> None:
    assert GARBLED[text] in garbled(text) and bool(GARBLED[text]) == bool(garbled(text))
    found = pooled("instruction_garbled", [changed(e, instruction=text, thumbnails={}) for e in clean_set()[:2]])[""]
    assert found.verdict == ("contradicted" if GARBLED[text] else "confirmed")
    assert found.action == ("warn" if GARBLED[text] else "note")


def test_texts_of_any_language_are_not_garbled() -> None:
    seen = [*TEXTS, *(name.replace("_", " ") for name in TASKS)]
    others = [
        "Prends la tasse \u00e0 caf\u00e9 \u00ab rouge \u00bb, s'il te pla\u00eet",
        "\u00d6ffne die T\u00fcr um 45\u00b0",
        "na\u00efve",
    ]
    others += [
        "\u628a\u676f\u5b50\u653e\u5230\u76d8\u5b50\u4e0a",
        "\u8054\u901a",
        "\u30d6\u30ed\u30c3\u30af\u3092\u6301\u3061\u4e0a\u3052\u308b",
        "\u043f\u043e\u0434\u043d\u0438\u043c\u0438",
    ]
    others += [
        'put "a" next to "b"',
        "fill it by 50%",
        "R&D box; salt & pepper",
        "is it open? then close it",
        "move x<y to (b)",
    ]
    others += [
        "pick 'a' or 'b'",
        "C:\\new",
        "what is this???",
        "\U0001f34e \U0001f963",
        "[left] pick, [right] place",
        "step 1:\nlift\tit",
    ]
    assert not [text for text in [*seen, *others] if garbled(text)]
