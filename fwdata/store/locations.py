"""Where a store lies: a local path, or a URL of an object store or web server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import UsageError, one_line

SCHEMES = ("s3", "gs", "hf", "http", "https", "memory")
"""Kinds of URL that stores are read from."""
READ_ONLY = ("hf", "http", "https")
"""Those that cannot be written."""

_HOST = re.compile(r"[^@:]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
"""Bucket, or host and port; another colon is that of a user and a secret, of which a slash may be part."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


@dataclass(frozen=True)
class StoreUrl:
    """A URL, in parts."""

    scheme: str
    """One of SCHEMES."""
    bucket: str
    """Bucket, or host and port of a web server, or `datasets/OWNER/NAME[@REVISION]` of the hub."""
    prefix: str
    """Place in the bucket, without slashes at its ends; "" for the bucket itself."""

    def __str__(self) -> str:
        return f"{self.scheme}://{'/'.join(part for part in (self.bucket, self.prefix) if part)}"

    @property
    def writable(self) -> bool:
        """Whether stores can be written there."""
        return self.scheme not in READ_ONLY


def parse_location(location: str | Path) -> StoreUrl | Path:
    """A URL or a local path. A URL that passed through `Path` (`s3:/bucket/x`) is one too.

    UsageError for an unknown kind of URL, one without a bucket, and one with credentials, which is not repeated.
    """
    text = str(location)
    found = _URL.fullmatch(text)
    if found is None:
        return Path(text)
    scheme, rest = found[1].lower(), found[2].strip("/")
    if scheme == "file":
        return Path("/" + rest)
    if scheme not in SCHEMES:
        raise UsageError(f"{scheme}:// is not a kind of storage that stores are read from; known: {', '.join(SCHEMES)}")
    if not _HOST.fullmatch(rest.partition("/")[0]) or "?" in rest or "#" in rest:
        raise UsageError(
            f"{scheme}://.. is not the address of a store: expected {scheme}://BUCKET/PATH; give credentials in the "
            "environment, not in the URL"
        )
    if any(part in {"", ".", ".."} for part in rest.split("/")) or not rest.isprintable():
        raise UsageError(f"{scheme}://{one_line(rest)} is not the address of a store: expected {scheme}://BUCKET/PATH")
    parts = rest.split("/")
    length = 1
    if scheme == "hf":
        parts = parts if parts[0] == "datasets" else ["datasets", *parts]
        length = 3
        if len(parts) < length:
            raise UsageError(f"{scheme}://{rest} names no repository; expected hf://datasets/OWNER/NAME/PATH")
    return StoreUrl(scheme, "/".join(parts[:length]), "/".join(parts[length:]))


def is_url(location: str | Path) -> bool:
    """Whether a location is a URL."""
    return isinstance(parse_location(location), StoreUrl)
