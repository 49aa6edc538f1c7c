"""Instructions that nobody wrote (h11): "TODO", "test", what a form or a recorder puts in their place."""

from __future__ import annotations

import re
from unicodedata import category

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict

_LISTED = """
todo, to do, tbd, tba, fixme, n a, na, nan, nil, none, null, undefined, unknown, unnamed, untitled, blank, default,
placeholder, dummy, debug, foo, foobar, foo bar, asdf, asdfgh, qwerty, abc, abcd, hello, hello world, lorem ipsum,
text, label, language, prompt, annotation, description, instruction, instructions, no task, no instruction,
no description, no prompt, no text, not set, not specified, not available, unspecified, language instruction,
task description, task name, instruction text,
测试, 待定, 任务, 任务描述, 指令, 无, 未知
"""
_WORDS = frozenset(word.strip() for word in _LISTED.split(","))
"""Whole texts, in small letters and without punctuation; the last ones are Chinese for test, undecided, task, ..."""
_COUNTED = (
    r"(?:(?:my|new|some|a|the|unknown|dummy|default|sample|example|test|demo) )?"
    r"(?:todo|tests?|testing|tasks?|dummy|debug|demo|example|sample|trial|episode|recording)"
    r"(?: (?:task|episode|instruction|prompt|recording))?(?: ?(?:\d+|one))?"
)
"""A word for any recording alone, with or without a number: "test 2", "dummy task", "episode_12"; at most 4 words."""
_ASKED = (
    r"(?:(?:please )?(?:insert|enter|add|write|type|fill in|describe|specify|replace) )?(?:your|the|a|an|this|here|my) "
    r"(?:own )?(?:language )?(?:task|instruction|prompt|description)(?: (?:task|instruction|prompt|description))*"
    r"(?: (?:here|goes here))?"
)
"""What a form asks for: "your task description here", "insert the instruction"; with one of the words `_ASKED_FOR`."""
_ASKED_FOR = ("task", "instruction", "prompt", "description")
_BEGUN = r"(?:todo|fixme|tbd) ?:|lorem ipsum"
_FEW_SIGNS = r"\d*|[a-z]|([a-z])\1+"
"""Nothing, a number, one letter, or one letter again and again."""


def is_placeholder(text: str) -> bool:
    """Whether a whole text stands for an instruction that nobody wrote; a sentence with such a word in it does not."""
    words = " ".join(re.findall(r"[^\W_]+", text.lower()))
    if not text.strip() or (not words and any(category(sign) == "So" for sign in text)):
        return False  # a converter says that there is none; pictures say something
    if words in _WORDS or re.match(_BEGUN, text.strip().lower()):
        return True
    few = words.count(" ") < 4  # patterns that cannot fit are not made, which takes 1 ms
    asked = any(word in words for word in _ASKED_FOR)
    return any(fits and re.fullmatch(p, words) for p, fits in ((_COUNTED, few), (_FEW_SIGNS, few), (_ASKED, asked)))


class InstructionPlaceholder(Detector):
    """h11: the instruction is a placeholder."""

    name, code, question, action = "instruction_placeholder", "h11", "written instruction", "warn"
    advice = "write the instruction into the recordings, or leave the episodes out (--exclude)"
    min_rows = 1
    word = "expected"
    min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict."""
        if not episode.instruction:
            return ()
        wrong = is_placeholder(episode.instruction)
        return (
            self.verdict(
                "contradicted" if wrong else "confirmed",
                f"the text is {episode.instruction[:60]!r}" if wrong else "",
                n=1,
                decided="a sentence that was written",
                measured="a placeholder" if wrong else "a sentence that was written",
            ),
        )


DETECTORS = (InstructionPlaceholder(),)
