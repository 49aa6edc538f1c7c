"""Which container a file is, by its first bytes or its ending."""

from __future__ import annotations

from pathlib import Path

FORMATS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov"), "mp4"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    ".avi": "avi",
    ".ts": "mpegts",
    **dict.fromkeys((".mpg", ".mpeg"), "mpeg"),
}
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx"})
TS_PACKET = 188
"""Bytes of a packet of a transport stream."""


def form_of(path: Path) -> str | None:
    """The container of a file as FFmpeg calls it: by its first bytes, where these tell, as datasets hold MKV and AVI
    called .mp4; else by its ending; None for an ending that no video has."""
    named = FORMATS.get(path.suffix.lower())
    try:
        with path.open("rb") as file:
            head = file.read(TS_PACKET + 1)
    except OSError:
        return named
    if named is None or head[4:8] in _BOXES:
        return named and "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"\0\0\1\xba":
        return "mpeg"
    return "mpegts" if head[:1] == head[TS_PACKET:] == b"G" else named
