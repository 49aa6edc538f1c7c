"""Archives among recordings: they are not read, but never left out without a word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from fwdata.api import LeftOut

_ARCHIVE = re.compile(
    r"(?P<stem>.+?)\.(?P<kind>zip|tar\.(?:gz|bz2|xz|zst|lz4)|tar|t(?:gz|bz2|xz)|7z|rar)"
    r"(?P<piece>\.(?:[0-9]{2,4}|part[\w-]+|[a-z]{2}))?",
    re.IGNORECASE,
)
_ONE = re.compile(
    r"(?P<stem>.+\.(?:mcap|bag|db3|hdf5|h5|parquet|mp4))\.(?P<kind>gz|bz2|xz|zst|zstd|lz4)", re.IGNORECASE
)
"""A recording that was compressed by itself."""
_UNFINISHED = re.compile(
    r".+\.(?:mcap|bag|db3|hdf5|h5|zip|tar|tar\.gz|tgz)\.(?:part|partial|incomplete|crdownload|download|aria2|tmp)",
    re.IGNORECASE,
)
"""A recording or archive whose download did not end."""
_UNPACK = {"gz": "gunzip", "bz2": "bunzip2", "xz": "unxz", "zst": "zstd -d", "zstd": "zstd -d", "lz4": "lz4 -d"}


def is_archive(name: str) -> bool:
    """Whether a file's name is that of a zip, tar, 7z or rar archive, a piece of one, or a compressed recording."""
    return _match(name) is not None


def is_set_aside(name: str) -> bool:
    """Whether a file is named in `left_out`: an archive, or a recording whose download did not end."""
    return is_archive(name) or _UNFINISHED.fullmatch(name) is not None


def _match(name: str) -> re.Match[str] | None:
    return _ONE.fullmatch(name) or _ARCHIVE.fullmatch(name)


def left_out(archives: Collection[str], folders: Collection[str]) -> tuple[LeftOut, ...]:
    """What to say about files of `is_set_aside` (paths relative to the root, POSIX).

    folders: recordings and the folders above them; an archive beside one of its name counts as unpacked.
    """
    unfinished = [path for path in archives if _UNFINISHED.fullmatch(path.rpartition("/")[2])]
    packed: list[str] = []
    unpacked: list[str] = []
    for path in sorted(set(archives) - set(unfinished)):
        match = _match(path)
        (unpacked if match and match["stem"] in folders else packed).append(path)
    found = []
    if unfinished:
        reason = "downloads that did not end; fetch them again"
        found.append(LeftOut(reason, len(unfinished), tuple(sorted(unfinished)[:2])))
    if packed:
        reason = f"archives that are not unpacked; unpack them: {command(packed)}"
        found.append(LeftOut(reason, len(packed), tuple(packed[:2])))
    if unpacked:
        reason = "archives beside a folder or recording of their name, taken as unpacked"
        found.append(LeftOut(reason, len(unpacked), tuple(unpacked[:2]), asked=True))
    return tuple(found)


NO_ENDING = "no ending"
"""How converters count files whose name has none."""


def instead(
    endings: Counter[str], archives: Sequence[str], ignored: Sequence[str], advice: str, skipped: Sequence[str] = ()
) -> str:
    """`(what lay in a folder without recordings); what to do`. endings: of its files; ignored: what was not entered;
    skipped: recordings that cannot be used, with the reason, which say more than endings."""
    parts = [
        f"{count} {'without an ending' if ending == NO_ENDING else ending}" for ending, count in endings.most_common(3)
    ]
    found = f"files found instead: {', '.join(parts)}" if parts else "the folder holds no files"
    found = skipped[0] if skipped else found
    archives = [path for path in archives if is_archive(path)]
    if archives:
        advice = f"unpack the archives first, in that folder: {command(archives)}"
    if ignored:
        found += f"; not entered: {ignored[0]}"
    if ignored and ignored[0].endswith("(a symbolic link)"):
        advice += ", the one that the link leads to, or a copy of it (cp -rL)"
    return f"({found}); {advice}"


def command(archives: Iterable[str]) -> str:
    """The command that unpacks archives, each where it lies; run in the root."""
    return "; ".join(dict.fromkeys(_command(path.rpartition("/")[2]) for path in archives))


def _command(name: str) -> str:
    match = _match(name)
    assert match is not None
    kind = match["kind"].lower()
    if match.re is _ONE:
        ending = ".".join(name.split(".")[-2:])
        return f"find . -name '*.{ending}' -execdir {_UNPACK[kind]} {{}} \\;"
    piece = match["piece"]
    if piece:
        whole = name[: -len(piece)]
        return f"cat {whole}.* > {whole}, then unpack {whole}"
    if kind == "zip":
        return "find . -name '*.zip' -execdir unzip -q {} \\;"
    if kind in ("7z", "rar"):
        return f"find . -name '*.{kind}' -execdir 7z x {{}} \\;"
    return f"find . -name '*.{match['kind']}' -execdir tar xf {{}} \\;"


def instead_of_root(root: Path) -> str | None:
    """What to say about an archive that is given as the root; None for other files."""
    if not is_archive(root.name):
        return None
    return f"{root} is an archive; unpack it, in its folder: {command([root.name])}, and give what it held"


def above(paths: Iterable[str]) -> set[str]:
    """These files and every folder on the way to them: `a`, `a/b` and `a/b/c.hdf5` for the last."""
    found: set[str] = set()
    for path in paths:
        found.add(path)
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found
