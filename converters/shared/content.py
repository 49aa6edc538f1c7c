"""Files that do not hold what their name says: pointers, web pages and empty files, recognised by their bytes.

A dataset that was cloned without Git LFS, downloaded without permission, or whose download broke off leaves such files
behind. Every format library calls them damaged; what helps is the command that fetches the content.
"""

from __future__ import annotations

import re
from pathlib import Path

HEAD_BYTES = 1024
"""Bytes that are read of a file."""

_LFS = b"version https://git-lfs.github.com/spec/"
_XET = (b"# xet version", b"version https://xethub.com/")
_ANNEX = (b"/annex/objects/", b".git/annex/objects/")
_LINK = re.compile(rb"((?:\.\./)+[\w./+-]+)\s*")
_PACKED = {
    b"\x28\xb5\x2f\xfd": ("zstd -d", ".zst"),
    b"\x1f\x8b\x08": ("gunzip", ".gz"),
    b"\xfd7zXZ\0": ("unxz", ".xz"),
    b"BZh": ("bunzip2", ".bz2"),
    b"\x04\x22\x4d\x18": ("lz4 -d", ".lz4"),
}
"""First bytes of compressed files -> (what unpacks them, the ending that it asks for)."""

_BLANK = b"\xef\xbb\xbf \t\r\n"
"""What editors put before a text."""
_TAR = b"ustar", 257
"""A tar archive's mark, and where it stands."""
_ZIP = b"PK\x03\x04"
_REPLY = re.compile(
    rb"""(?is) \{\s*"(error|message|detail)"\s*:[\x20-\x7e\s]*\}
    | [\w\x20.,:-]{0,40}
      (not\ found|access\ denied|unauthorized|forbidden|invalid\ username\ or\ password|too\ many\ requests|rate\ limit
      |service\ unavailable|bad\ gateway|internal\ server\ error)
      [\w\x20.!]{0,20}""",
    re.VERBOSE,
)
"""Replies of servers that were saved in a file's place."""

_PAGE = re.compile(rb"(<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(!doctype\s+html|html|head|body|script|meta)\b", re.I | re.S)
"""How web pages begin, behind comments."""

_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


def not_content(path: Path, name: str) -> str | None:
    """Why a file is not the recording that its name says, as a sentence that ends in what to do; None otherwise.

    name: how the message calls the file. Also None for what cannot be opened: the reader's own message is better. A
    pipe or device is never opened: that could wait for ever. Reads the first 1024 bytes.
    """
    try:
        if not path.is_file():
            return f"{name} is not a regular file" if path.exists() else None
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return None
    return described(head, name)


def described(head: bytes, name: str) -> str | None:
    """The same of a file's first bytes, all of them where it has fewer than `HEAD_BYTES`."""
    if not head:
        return f"{name} is empty (0 bytes): a download or copy broke off, or its writer was killed; fetch it again"
    if head.lstrip(_BLANK).startswith(_LFS):
        size = re.search(rb"^size (\d+)", head, re.MULTILINE)
        found = f" of a file of {int(size[1])} bytes" if size else ""
        return (
            f"{name} is a Git LFS pointer{found}, not its content; fetch the content: git lfs install && git lfs pull "
            f"--include '{name}' in the cloned repository (all files: without --include), or download the dataset with "
            "`hf download`"
        )
    if head.startswith(_XET):
        return f"{name} is a Git Xet pointer, not its content; fetch the content: git xet checkout, or `hf download`"
    if len(head) < HEAD_BYTES and head.startswith(_ANNEX):
        which = f"'{name}'" if "/" in name else f"--include='*{name}'"  # which lies in any folder
        return f"{name} is a git-annex pointer, not its content; fetch the content: git annex get {which}"
    link = _LINK.fullmatch(head) if len(head) < HEAD_BYTES else None
    if link is not None:
        return (
            f"{name} is the text of a symbolic link to {link[1].decode()}, not its content: a copy or an archive "
            "without links left it; copy with `cp -rL`, or download again with `hf download OWNER/NAME --repo-type "
            "dataset --local-dir FOLDER`"
        )
    text = head.lstrip(_BLANK)
    if _PAGE.match(text):
        return (
            f"{name} is an HTML page{_title(text)}, not its content: a login or error page that was saved by the "
            "download; log in (hf auth login, or the token of its site) and download it again"
        )
    if text[:5].lower() == b"<?xml" and (b"<Error>" in text or b"<Code>" in text):
        code = re.search(rb"<Code>(\w+)</Code>", text)
        found = f" {code[1].decode()}" if code else ""
        return f"{name} is an error reply{found} of the download's server, not its content; download it again"
    reply = _reply(head)
    if reply is not None:
        return (
            f"{name} is a text of {len(head)} bytes ('{reply}'), not its content: a reply of the download's server was "
            "saved in its place; check the address, log in (hf auth login) and download it again"
        )
    if head.startswith(_ZIP):
        return f"{name} is a ZIP archive; unpack it: mv '{name}' '{name}.zip' && unzip '{name}.zip'"
    if head.startswith(*_TAR):
        return f"{name} is a tar archive; unpack it: mv '{name}' '{name}.tar' && tar xf '{name}.tar'"
    packed = next((packer for magic, packer in _PACKED.items() if head.startswith(magic)), None)
    if packed is not None:
        tool, ending = packed
        return f"{name} is compressed as a whole; unpack it: mv '{name}' '{name}{ending}' && {tool} '{name}{ending}'"
    if not head.strip(b"\0"):
        return f"{name} begins with {len(head)} zero bytes: space was reserved for it and never written; fetch it again"
    return None


def _reply(head: bytes) -> str | None:
    """The short text that a whole file is, in one line, such as `Entry not found` or an error in JSON; None for others,
    data in lines of JSON or YAML among them."""
    match = _REPLY.fullmatch(head.strip()) if len(head) < HEAD_BYTES else None
    text = " ".join(match[0].decode().split()) if match else ""
    return (f"{text[:57]}.." if len(text) > 60 else text) or None


def _title(page: bytes) -> str:
    """` ("Sign in")`, where the page has a title."""
    match = _TITLE.search(page.decode("utf-8", "replace"))
    title = " ".join(match[1].split())[:60] if match else ""
    return f' ("{title}")' if title else ""
