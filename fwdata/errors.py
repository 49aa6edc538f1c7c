"""Every error a user can cause, with the exit code its command ends with.

    FwdataError            1   unexpected
    ├── UsageError         2   wrong option, path or input folder
    │   ├── ManifestError  2   unknown or wrong key in a manifest or recipe
    │   └── MissingLibrary 2   a library of an extra that is not installed
    ├── BadEpisode         3   one recording cannot be converted; it is quarantined, the others go on
    ├── StoreError         2   a store, cache or episode that is absent, foreign or newer than this version
    │   ├── StoreDamaged   4   a checksum, count or file does not hold
    │   └── StaleCache     4   a cache that was made from something else than what is asked for
    └── StoreBusy          2   another process writes to the same store

Messages are one sentence that says where, what was expected, what was found and what to do next.
"""

from __future__ import annotations

import contextlib
import difflib
import shlex
from collections.abc import Iterable, Iterator

from fwdata.install import install_command as install_command

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_QUARANTINED = 3
EXIT_DAMAGED = 4
EXIT_INTERRUPTED = 130


class FwdataError(Exception):
    """Base of all errors with a message meant for users."""

    exit_code = EXIT_UNEXPECTED


class UsageError(FwdataError, ValueError):
    """A wrong option, path or input folder."""

    exit_code = EXIT_USAGE


class ManifestError(UsageError):
    """A manifest or recipe with an unknown key or a wrong value."""


EXTRAS = {
    **dict.fromkeys(("h5py", "rosbags", "apsw", "lz4", "pyarrow", "huggingface_hub", "httpx"), "convert"),
    **dict.fromkeys(("torch", "transformers", "ftfy", "safetensors", "tensorboard"), "train"),
    **dict.fromkeys(("lerobot", "datasets"), "lerobot"),
    **dict.fromkeys(("websockets", "msgpack"), "client"),
    **dict.fromkeys(("zarr", "diffusers"), "bench"),
    **dict.fromkeys(("wandb", "trackio"), "track"),
    "av": "video",
    "obstore": "cloud",
    "decord": "decord",
    "ray": "ray",
    "peft": "lora",
    "rerun": "rerun",
}
"""Library -> the smallest extra of this package that brings it."""


class MissingLibrary(UsageError):
    """A library that is not part of the base install."""

    @classmethod
    def of(cls, error: ImportError, what: str = "this command") -> MissingLibrary:
        """The sentence for an import that failed. what: what needs the library."""
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            return cls(f"{what} needs a library that is not installed ({error}); install it with pip")
        return cls(f"{what} needs {library}, which is not installed; run: {install_command(EXTRAS[library])}")


@contextlib.contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Put around imports of libraries of an extra: MissingLibrary where one is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingLibrary.of(error, what) from None


class BadEpisode(FwdataError, ValueError):
    """One recording cannot be converted. `str(error)` is the reason kept in the quarantine list."""

    exit_code = EXIT_QUARANTINED


class StoreError(FwdataError, ValueError):
    """A store, cache or episode that is absent, foreign, or newer than this version."""

    exit_code = EXIT_USAGE


class StoreDamaged(StoreError):
    """Stored bytes that do not match their checksum, count or shape, or are missing."""

    exit_code = EXIT_DAMAGED


class StaleCache(StoreError):
    """A cache made from other inputs or settings than those asked for."""

    exit_code = EXIT_DAMAGED


class StoreBusy(FwdataError):
    """Another process is writing to the same store."""

    exit_code = EXIT_USAGE


MAX_REASON = 1000
"""Characters of a reason that are kept: damaged files can hold texts of any length."""


def one_line(text: str) -> str:
    """A message that may quote a damaged file, as one line: white space collapsed, control characters escaped, cut at
    `MAX_REASON`."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text[: 2 * MAX_REASON].split()))
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 3]} .."


MAX_LISTED = 12
"""Known names that a message lists in full."""


def quoted(word: object) -> str:
    """A path or name as a word of a command to copy: quoted where a shell would take it apart."""
    return shlex.quote(str(word))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest known word, else the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    if len(names) > MAX_LISTED:
        return f"; known are {len(names)}: {', '.join(names[:3])}, .."
    return f"; known: {', '.join(names)}" if names else ""
