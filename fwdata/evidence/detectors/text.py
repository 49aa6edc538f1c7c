"""Instructions: near-misses (h2), endings of a perturbed file's name (h3), and another task's text (h10)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, TextTrace, Verdict
from fwdata.wording import counted, verb

SIMILAR, MIN_LETTERS = 0.8, 3
MAX_TEXTS = 2000
"""Distinct texts that are compared pairwise; beyond, only the most frequent ones."""

_ENDING = r"[ _](?:(?:table|light|noise|add|language|level\w*|sample|initstate)[ _]?\d+|view(?:[ _]\d+)+|\d+)\s*$"


_GOES_ON = frozenset("a an at for from in into of off on onto out over the to under up with".split())  # noqa: SIM905
"""Words that no sentence ends in: a name with a number behind them belongs to it (`on table 2`)."""
_NUMBER = re.compile(r"\b\d+\b")


class InstructionNearMisses(Detector):
    """h2: instructions that differ in one similar word or in nothing but case, punctuation and spaces, and rare ones
    that lack a small word of another's or have one twice, are one instruction with a typo."""

    name, code, question, action = "instruction_typos", "h2", "instructions", "warn"
    advice = "correct the text in the recordings"
    min_rows = 1
    word = "expected"
    compares = True

    def trace(self, episode: EpisodeInput) -> tuple[TextTrace, ...]:
        """The canonical instruction."""
        return (TextTrace(episode.instruction),) if episode.instruction else ()

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict; its episodes carry the rarer text of every pair."""
        read = [(m.episode, trace.text) for m in episodes for trace in m.traces if isinstance(trace, TextTrace)]
        if not read:
            return ()
        counts = Counter(text for _, text in read)
        common = dict(counts.most_common(MAX_TEXTS))
        missing, written = lost_words(common), same_words(common)
        alike = {frozenset(pair) for pair in written}
        pairs = [pair for pair in near_misses(list(common)) if frozenset(pair) not in alike]
        kinds = ["in one similar word"] * bool(pairs) + ["in a word too few or twice"] * bool(missing)
        kinds += ["in case, punctuation or spaces alone"] * bool(written)
        rare = {min(pair, key=lambda text: counts[text]) for pair in pairs} | {text for _, text in missing + written}
        pairs += missing + written
        differ = f"{counted(len(pairs), 'pair')} that {verb(len(pairs), 'differs', 'differ')} {' or '.join(kinds)}"
        examples = ", ".join(f"{one!r} and {other!r}" for one, other in pairs[:2])
        affected = [episode for episode, text in read if text in rare]
        return (
            DatasetVerdict(
                self.name,
                "contradicted" if pairs else "confirmed",
                value=float(len(pairs)),
                episodes_for=len(read) - len(affected),
                against=len(affected),
                action="warn" if pairs else "note",
                decided="instructions as recorded",
                measured=differ if pairs else "no near-misses",
                detail=examples,
                episodes=tuple(affected[:MAX_LISTED]),
            ),
        )


def same_words(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of a text that is there several times and a rarer one of the same words, written in another way.

    Two ways that are there as often are meant (`write X`, `write x`), or worded freely. Signs beside a digit are kept,
    `1.5` is not `15`, and those that may be what is meant: `the + button`.
    """
    by_words: dict[str, str] = {}
    found = []
    for text in sorted(counts, key=lambda text: -counts[text]):
        words = " ".join(_SIGNS.sub(" ", text.casefold().replace("'", "")).split())
        common = by_words.setdefault(words, text)
        if common != text and counts[common] >= max(REPEATED, OFTENER * counts[text]) and words:
            found.append((common, text))
    return found


_PUNCTUATION = r"[.,;:!?\"()\[\]`\u2018-\u201d\u2026\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f]"
_SIGNS = re.compile(rf"{_PUNCTUATION}+(?=\s|$)|(?<!\d){_PUNCTUATION}+(?!\d)|(?<=[^\W\d])[-/](?=[^\W\d])|_")
"""Punctuation that is left out: behind a word, within a word that is not a number, and a dash between two words."""

REPEATED, OFTENER = 3, 2
"""Episodes that share a text, and how much oftener it is, from which on another way of writing it is a slip."""


def near_misses(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of distinct texts with the same number of words of which one differs, and is similar."""
    by_length: dict[int, list[tuple[str, list[str]]]] = {}
    for text in dict.fromkeys(texts):
        words = text.lower().split()
        by_length.setdefault(len(words), []).append((text, words))
    return [
        (one, other)
        for group in by_length.values()
        for (one, a), (other, b) in combinations(group, 2)
        if _one_typo(a, b)
    ]


def lost_words(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of a common text and a rare one without one of its small words, or with one of its words twice.

    Only rare ones: where texts are worded freely, both are meant. What no sentence has twice in a row (`the the`) is a
    mistake however often it is there.
    """
    words = {text: tuple(text.lower().split()) for text in counts}
    by_words: dict[tuple[str, ...], str] = {}
    for text in sorted(counts, key=lambda text: -counts[text]):
        by_words.setdefault(words[text], text)
    found = []
    for longer, those in words.items():
        for place, word in enumerate(those):
            shorter = by_words.get(those[:place] + those[place + 1 :])
            twice = place > 0 and those[place - 1] == word
            if twice and word in NEVER_TWICE:
                found.append((shorter or " ".join(those[:place] + those[place + 1 :]), longer))
            if shorter is None or not (word in SMALL or twice):
                continue
            rare, common = sorted((longer, shorter), key=lambda text: counts[text])
            if counts[rare] <= SELDOM * counts[common] and (not twice or rare == longer):
                found.append((common, rare))
    return list(dict.fromkeys(found))


SMALL, SELDOM = frozenset({"it", "the", "a", "an"}), 0.2
"""Words that are left out by mistake without another meaning, and how seldom a text with a mistake is beside the right
one."""

NEVER_TWICE = frozenset({"the", "a", "an", "and", "of", "to", "with", "into", "from", "at"})
"""Words that no sentence has twice in a row."""


def _one_typo(one: Sequence[str], other: Sequence[str]) -> bool:
    different = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    if len(different) != 1 or any(c.isdigit() for c in "".join(different[0])):
        return False
    shorter = min(map(len, different[0]))
    if shorter >= MIN_LETTERS and _letters_exchanged(*different[0]):
        return True
    return shorter > MIN_LETTERS and SequenceMatcher(None, *different[0]).ratio() > SIMILAR


def _letters_exchanged(one: str, other: str) -> bool:
    """Whether two neighbouring letters changed places: "tabel" is as close to "table" as to many a true word."""
    off = [index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    if len(one) != len(other) or len(off) != 2 or off[1] != off[0] + 1:
        return False
    return one[off[0]] == other[off[1]] and one[off[1]] == other[off[0]]


class InstructionEnding(Detector):
    """h3: an instruction that ends in a number or in the suffix of a perturbed copy."""

    name, code, question, action = "instruction_ending", "h3", "instruction text", "stop"
    advice = "correct the text in the recordings, or leave the episodes out (--exclude)"
    min_rows = 1
    word = "expected"
    min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict."""
        if not episode.instruction:
            return ()
        ending = _added(episode.instruction)
        return (
            self.verdict(
                "contradicted" if ending else "confirmed",
                f"ends in {ending!r}" if ending else "",
                n=1,
                decided="a sentence",
                measured="a file name's suffix in the instruction" if ending else "a sentence",
                action="stop" if episode.claims.layout == "libero" else "warn",
            ),
        )


def _added(text: str) -> str:
    """The ending of a text that no sentence has; "" for one without, and where the sentence would not be one without
    it (`put the cup on table 2`, `put block 1 on block 2`)."""
    found = re.search(_ENDING, text, re.IGNORECASE) if text.rstrip()[-1:].isdecimal() else None
    if found is None:
        return ""
    before, ending = text[: found.start()].replace("_", " "), found.group().strip(" _")
    belongs = before.split()[-1:] and before.split()[-1].lower() in _GOES_ON
    return "" if belongs or (ending.isdigit() and _NUMBER.search(before)) else ending


class OtherTask(Detector):
    """h10: no episode has the words of another group's instructions or name, and none of its own."""

    name, code, question, action = "instruction_task", "h10", "instructions of every group", "warn"
    advice = "correct the text in the recordings, or leave the episodes out (--exclude)"
    min_rows = 1
    word = "expected"
    compares = True

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict for several groups of at least 5 episodes; its traces are h2's."""
        groups: dict[str, list[tuple[str, frozenset[str]]]] = {}
        for measurement in episodes:
            for trace in (t for t in measurement.traces if isinstance(t, TextTrace)):
                groups.setdefault(measurement.group, []).append((measurement.episode, words_of(trace.text)))
        groups = {name: members for name, members in groups.items() if len(members) >= FEWEST}
        if len(groups) < 2:
            return ()
        wrong = {
            name: (group, other)
            for group in groups
            for name, other in (_named_as_others(group, groups) | _of_others(group, groups)).items()
        }
        total, first = sum(map(len, groups.values())), next(iter(wrong), "")
        return (
            DatasetVerdict(
                self.name,
                "contradicted" if wrong else "confirmed",
                value=float(len(wrong)),
                episodes_for=total - len(wrong),
                against=len(wrong),
                action="warn" if wrong else "note",
                decided=OF_ITS_GROUP,
                measured="the words of another group's" if wrong else OF_ITS_GROUP,
                detail=f"{first} of {wrong[first][0]} has those of {wrong[first][1]}" if wrong else "",
                episodes=tuple(wrong)[:MAX_LISTED],
            ),
        )


FEWEST, COMMON, RARE, TELLING = 5, 0.7, 0.1, 2
"""Episodes of a group, the share of them that has a word which is the group's own, that of exceptions, and the words
that tell a group whose texts are worded freely: a single one, such as "place", is found in texts of many tasks."""

OF_ITS_GROUP = "the words of its group's instructions"


def words_of(text: str) -> frozenset[str]:
    """The words of a text, lower-case, without punctuation."""
    return frozenset(re.findall(r"[^\W_]+", text.lower()))


type _Groups = Mapping[str, Sequence[tuple[str, frozenset[str]]]]
"""(episode, words of its instruction) of the episodes of every group."""


def _named_as_others(group: str, groups: _Groups) -> dict[str, str]:
    """Group whose name's words it has, by episode, of those without any word of their own group's name.

    Where names say what half of the texts do, as those of tasks (`press_red_button`): TELLING words of the other's that
    its own does not have, or one and the very words of a text there. A name that no text of its own says, as that of a
    place, tells nothing.
    """
    found: dict[str, str] = {}
    for name in groups:
        mine, others = words_of(group) - words_of(name), words_of(name) - words_of(group)
        named = sum(others <= words for _, words in groups[name]) if others else 0
        foreign = {episode: words for episode, words in groups[group] if not mine & words}
        if not mine or not any(mine <= words for _, words in groups[group]):
            continue
        if 2 * named < len(groups[name]) or 2 * len(foreign) > len(groups[group]):
            continue
        mentioned = sum(others <= words for episode, words in groups[group] if episode not in foreign)
        if mentioned > RARE * len(groups[group]):  # place_red_cup: "next to the blue bowl" says nothing of another task
            continue
        there = [words for _, words in groups[name]] if len(others) < TELLING else list(foreign.values())
        found |= {episode: name for episode, words in foreign.items() if others <= words and words in there}
    return found


def _of_others(group: str, groups: _Groups) -> dict[str, str]:
    """Group whose words it has, by episode, of those without any word that is their own group's and not that one's.

    They have all words that are the other's, which are rare here: at least TELLING, or the very words of a text there.
    """
    texts = {name: [words for _, words in members] for name, members in groups.items()}
    common = {name: _words_of_most(each, COMMON) for name, each in texts.items()}
    usual = _words_of_most(texts[group], RARE)
    pairs = [(n, common[group] - common[n], common[n] - common[group]) for n in groups if n != group]
    found = {
        episode: name
        for episode, words in groups[group]
        for name, own, others in pairs
        if own and others and not own & words and others <= words and not others & usual
        if len(others) >= TELLING or words in texts[name]
    }
    return found if len(found) <= max(1, RARE * len(groups[group])) else {}


def _words_of_most(texts: Sequence[frozenset[str]], share: float) -> frozenset[str]:
    counts = Counter(word for words in texts for word in words)
    return frozenset(word for word, count in counts.items() if count > 1 and count >= share * len(texts))


DETECTORS = (InstructionNearMisses(), InstructionEnding(), OtherTask())
