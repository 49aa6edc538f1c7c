"""Fetching model files from the model hub, with one clear sentence when that cannot be done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from fwdata.errors import UsageError, did_you_mean, hub_reason, quiet_retries

WAN22_DIFFUSERS_ID = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
"""Wan2.2-TI2V-5B as diffusers lays it out: vae/, text_encoder/, tokenizer/."""

WAN22_ORIGINAL_ID = "Wan-AI/Wan2.2-TI2V-5B"
"""The original release: the video expert's shards, Wan2.2_VAE.pth, the text encoder's .pth and google/umt5-xxl/."""


def is_hub_id(spec: str) -> bool:
    """Whether the text has the form "owner/name"."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", spec) is not None


def fetch(hub_id: str, patterns: list[str], what: str) -> Path:
    """Local folder with the repository's files that match the patterns; nothing is downloaded twice.

    what: how messages begin, such as "VAE 'wan2.2'". Raises UsageError without a local copy and a network.
    """
    from huggingface_hub import snapshot_download

    with _asking(hub_id, what):
        return Path(snapshot_download(hub_id, allow_patterns=patterns))


def file_names(hub_id: str, what: str) -> list[str]:
    """Paths of a repository's files, sorted; without a network those of its local copy. Errors as of `fetch`."""
    from huggingface_hub import list_repo_files

    with suppress(UsageError), _asking(hub_id, what):
        return sorted(list_repo_files(hub_id))
    return files_below(fetch(hub_id, [], what))


def files_below(folder: Path) -> list[str]:
    """POSIX paths of all files below a folder, sorted: what `file_names` says of a repository."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def matching(names: Iterable[str], *patterns: str) -> list[str]:
    """The names that match one of the patterns; `*` does not cross a folder. Half-precision copies are left out."""
    found = [n for n in names if any(n.count("/") == p.count("/") and fnmatchcase(n, p) for p in patterns)]
    return [name for name in found if ".fp16" not in name]


def is_cached(hub_id: str, name: str) -> bool:
    """Whether a file of a repository was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, name), str)


@contextmanager
def _asking(hub_id: str, what: str) -> Iterator[None]:
    """UsageError with one sentence for whatever goes wrong between here and the hub."""
    from httpx import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    quiet_retries()
    try:
        yield
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        raise UsageError(
            f"{what}: cannot fetch {hub_id} from the model hub: {hub_reason(error)}; or give a local folder instead"
        ) from None


def unknown(what: str, spec: str, names: list[str]) -> UsageError:
    """The error for a spec that is neither a known name, nor an existing path, nor a hub id."""
    return UsageError(
        f"no {what} {spec!r}: expected {', '.join(map(repr, names))}, an existing path or a hub id "
        f"(owner/name){did_you_mean(spec, names)}"
    )
