"""Instructions that are not as somebody wrote them (h12): read in another encoding, escaped, printed as an object."""

from __future__ import annotations

import re
from unicodedata import category

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict

_ESCAPES = r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[nrt](?![a-zA-Z])"
_ENTITY = r"&(?:amp|quot|lt|gt|apos|nbsp|#\d{1,6}|#x[0-9a-fA-F]{1,5});"
_PERCENT = r"[^\s%]+%(?:20|[C-Fc-f][0-9A-Fa-f]%)[^\s]*"
_PRINTED = r"""(?s)b?(['"]).+\1|\[\s*b?(['"]).*\2\s*,?\s*\]|\{.*:.*\}|(?:tensor|array|bytes|dict)\(.*\)"""
_TAG = r"(?i)</?(?:p|b|i|br|div|span|html|body|td|li)\b[^<>]*>"
_ASKED = r"\?(?:\s*\?){2,}"
_SIGNS = frozenset("\\&%<'\"[{(?")
"""One of these is in all that the patterns find: they are not made for texts without, as making them takes 1 ms."""

_ENCODINGS = ("cp1252", "latin-1", "gb18030")
"""Those that bytes of UTF-8 are most often read in by mistake."""

AS_WRITTEN = "a text as it was written"


def garbled(text: str) -> str:
    """What shows that a text is not as it was written; "" where nothing does."""
    if text.isascii() and text.isprintable() and not _SIGNS.intersection(text):
        return ""
    if "\ufffd" in text:
        return "a character that could not be read (U+FFFD)"
    if any(sign == "\ufeff" or (category(sign) == "Cc" and sign not in "\t\n\r") for sign in text):
        return "control characters"
    if wrong := _read_otherwise(text):
        return wrong
    for pattern, what in (
        (_ESCAPES, "an escape that was not read"),
        (_ENTITY, "an entity of HTML"),
        (_TAG, "a tag of HTML"),
        (_PERCENT, "an escape of a URL"),
    ):
        if found := re.search(pattern, text):
            return f"{what}, {found[0][:20]!r}"
    if re.fullmatch(_PRINTED, text.strip()):
        return "an object as a program prints it"
    asked = re.search(_ASKED, text)
    if asked and 2 * len(asked[0]) > len(text.strip()):
        return "question marks for letters that were lost"
    return ""


def _read_otherwise(text: str) -> str:
    """Whether a text is UTF-8 that was read in another encoding, and which text it is."""
    if text.isascii():
        return ""
    for encoding in _ENCODINGS:
        try:
            read = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        if encoding != "gb18030" or any("\u4e00" <= sign <= "\u9fff" for sign in read):
            return f"UTF-8 that was read as {encoding}: it is {read[:40]!r}"
    return ""


class InstructionGarbled(Detector):
    """h12: the instruction has letters, escapes or brackets that nobody wrote."""

    name, code, question, action = "instruction_garbled", "h12", "letters of the instruction", "warn"
    advice = "write the instruction into the recordings as it was meant, or leave the episodes out (--exclude)"
    min_rows = 1
    word = "expected"
    min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict."""
        if not episode.instruction:
            return ()
        wrong = garbled(episode.instruction)
        return (
            self.verdict(
                "contradicted" if wrong else "confirmed",
                f"{wrong} in {episode.instruction[:60]!r}" if wrong else "",
                n=1,
                decided=AS_WRITTEN,
                measured="a garbled one" if wrong else AS_WRITTEN,
            ),
        )


DETECTORS = (InstructionGarbled(),)
