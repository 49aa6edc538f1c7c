"""Every error a user can cause, with the exit code its command ends with.

    FwdataError            1   unexpected
    ├── UsageError         2   wrong option, path or input folder
    │   ├── ManifestError  2   unknown or wrong key in a manifest or recipe
    │   ├── Contradicted   2   recordings that contradict what was decided about them
    │   └── MissingLibrary 2   a library of an extra that is not installed
    ├── BadEpisode         3   one recording cannot be converted; it is quarantined, the others go on
    ├── StoreError         2   a store, cache or episode that is absent, foreign or newer than this version
    │   ├── NewerStore     2   a store whose layout a later version wrote
    │   ├── StoreDamaged   4   a checksum, count or file does not hold
    │   └── StaleCache     4   a cache that was made from something else than what is asked for
    └── StoreBusy          2   another process writes to the same store

Messages are one sentence that says where, what was expected, what was found and what to do next.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import shlex
from collections.abc import Iterable, Iterator, Sequence

from fwdata.install import install_command as install_command
from fwdata.install import upgrade_command as upgrade_command

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_QUARANTINED = 3
EXIT_DAMAGED = 4
EXIT_INTERRUPTED = 130

INTERRUPTED = "interrupted; what is written is safe, run the same command again to continue"
"""What a command says after Ctrl-C."""


class FwdataError(Exception):
    """Base of all errors with a message meant for users."""

    exit_code = EXIT_UNEXPECTED


class UsageError(FwdataError, ValueError):
    """A wrong option, path or input folder."""

    exit_code = EXIT_USAGE


class ManifestError(UsageError):
    """A manifest or recipe with an unknown key or a wrong value."""


class Contradicted(UsageError):
    """Recordings that contradict what was decided about them."""

    def __init__(self, message: str, warnings: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.warnings = tuple(warnings)
        """What discovery warns about them, which may explain it; the command prints it before the error."""


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


class NewerStore(StoreError):
    """A store of a later version, whose layout this one does not know."""


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
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5) or [n for n in names if n.lower() == word.lower()]
    if close:
        return f"; did you mean {close[0]!r}?"
    if len(names) > MAX_LISTED:
        return f"; known are {len(names)}: {', '.join(names[:3])}, .."
    return f"; known: {', '.join(names)}" if names else ""


def hub_reason(error: BaseException) -> str:
    """What went wrong between here and the Hugging Face hub, and what to do: from the hub's answer, or from the lack of
    one, of an error or of what caused it."""
    from httpx import TransportError
    from huggingface_hub import constants, get_token

    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    answer = next((found for item in chain if (found := getattr(item, "response", None)) is not None), None)
    lost = next((item for item in chain if isinstance(item, TransportError)), None)
    if answer is None and lost is not None:
        told = one_line(str(lost)) or type(lost).__name__
        return f"{constants.ENDPOINT} cannot be reached ({told}); check the network and run the same command again"
    if type(error).__name__ == "LocalTokenNotFoundError":
        return "there is no token on this machine; log in with `hf auth login`, or set HF_TOKEN"
    if answer is None:
        return one_line(next(iter(str(error).strip().splitlines()), "").removesuffix(".")) or type(error).__name__
    about = one_line(next((found for item in chain if (found := getattr(item, "server_message", None))), ""))
    kind, wait = answer.headers.get("X-Error-Code", ""), answer.headers.get("Retry-After", "")
    return _hub_answer(answer.status_code, kind, about.removesuffix("."), wait, known=get_token() is not None)


def _hub_answer(status: int, kind: str, about: str, wait: str, *, known: bool) -> str:
    """The sentence for a status code. kind: the hub's name of the fault. about: what it says in words. wait: seconds it
    asks to wait, as text. known: whether a token was sent."""
    hidden = "it does not exist, or is private"
    login = "check the name, and log in with `hf auth login`"
    if known:
        hidden += " and the token may not see it"
        login = "check the name and whom `hf auth whoami` names"
    said = f": {about}" if about else ""
    if kind == "EntryNotFound":
        return f"it has no such file (404{said})"
    if kind == "GatedRepo":
        return f"access is not granted ({status}{said}); ask for it on its page, and log in with `hf auth login`"
    if kind == "RevisionNotFound":
        return f"it has no such revision (404{said})"
    if status == 401 and known and kind != "RepoNotFound":
        return f"the token was not accepted (401{said}); log in with `hf auth login`, or correct HF_TOKEN"
    if status in {401, 404}:
        return f"{hidden} ({status}{said}); {login}"
    if status == 403:
        return f"the token may not do this (403{said}); use a token with write access to that owner's repositories"
    if status == 429:
        when = f"in {wait} s" if wait.isdecimal() else "later"
        return f"too many requests (429{said}); run the same command again {when}"
    if status >= 500:
        return f"the hub is out of order ({status}{said}); run the same command again later"
    return f"it answered {status}{said}"


class _OneRetryLine(logging.Filter):
    """Of the lines that huggingface_hub logs for every retry, only how long the hub asks to wait."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if text.startswith("Rate limited. Waiting "):
            record.msg, record.args = f"the hub asks to wait: {text.split()[3].rstrip('.')} before the next try", ()
            return True
        return "thrown while requesting" not in text and not text.startswith("Retrying in ")


_ONE_RETRY_LINE = _OneRetryLine()


def quiet_retries() -> None:
    """Have huggingface_hub retry without a line for each time; its error says what went wrong in the end."""
    logging.getLogger("huggingface_hub.utils._http").addFilter(_ONE_RETRY_LINE)  # once, however often it is asked
