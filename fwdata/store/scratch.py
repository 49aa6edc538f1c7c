"""Where data of stores behind URLs are kept on this machine, and how much of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fwdata.errors import UsageError

FOLDER_VARIABLE = "FWDATA_CACHE"
"""Environment variable: folder for shards of stores behind URLs and for what is written to them."""
SIZE_VARIABLE = "FWDATA_CACHE_SIZE"
"""Environment variable: most bytes that are kept of them, such as 200GB; 0: no shards are kept."""
DEFAULT_SIZE = "50GB"
"""Where the variable is not set."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def scratch_folder() -> Path:
    """The folder; it need not exist."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "fwdata"


def cache_bytes() -> int:
    """The bound in bytes. UsageError for a value that is not a size."""
    text = os.environ.get(SIZE_VARIABLE, DEFAULT_SIZE)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if found is None:
        raise UsageError(f"{SIZE_VARIABLE} takes a size such as 200GB, found {text!r}")
    return int(float(found[1]) * _UNITS[found[2]])
