"""Files to and from a repository of the hub. What is there with the same bytes is not sent or fetched again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fwdata.errors import UsageError, needed_for

type RepoKind = Literal["dataset", "model"]
"""Kind of a repository."""

COMMIT_FILES, COMMIT_BYTES = 200, 2_000_000_000
"""Most files and bytes of one commit: what a killed upload loses."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    size: int
    """Bytes."""
    digest: str
    """sha256 of a large file, git's sha1 of a small one."""


def check_repository(name: str) -> None:
    """UsageError unless a name is that of a repository, before anything is read, written or sent."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise UsageError(f"{name!r} does not name a repository of the hub: expected OWNER/NAME, such as me/mybot")


@contextmanager
def asking(where: str) -> Iterator[None]:
    """UsageError with one sentence for whatever goes wrong between here and the hub."""
    with needed_for("the hub"):
        from httpx import HTTPError
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            LocalTokenNotFoundError,
        )

    try:
        yield
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, LocalTokenNotFoundError, HTTPError) as error:
        reason = _reason(str(error)) or type(error).__name__
        raise UsageError(
            f"{where} on the hub: {reason}; log in with `hf auth login`, check the name and the network, and run "
            "the same command again: it continues"
        ) from None


def _reason(text: str) -> str:
    """The first line that says more than a status code, as in "404 Client Error.", without its full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    bare = len(lines) > 1 and re.match(r"\d{3} (Client|Server) Error\b", lines[0])
    return (lines[1] if bare else lines[0]).removesuffix(".") if lines else ""


def listed(repo: str, kind: RepoKind) -> dict[str, RemoteFile]:
    """Files of a repository by path."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with asking(repo):
        tree = list(HfApi().list_repo_tree(repo, recursive=True, repo_type=kind))
    files = [item for item in tree if isinstance(item, RepoFile)]
    return {file.path: RemoteFile(file.size, file.lfs.sha256 if file.lfs else file.blob_id) for file in files}


def holds(repo: str, kind: RepoKind, name: str) -> bool:
    """Whether there is such a repository, and it has the file."""
    from huggingface_hub import HfApi

    with asking(repo):
        return HfApi().file_exists(repo, name, repo_type=kind)


def same(path: Path, remote: RemoteFile | None) -> bool:
    """Whether a local file has the bytes of a remote one."""
    size = path.stat().st_size
    if remote is None or remote.size != size:
        return False
    if len(remote.digest) == 64:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == remote.digest
    return hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest() == remote.digest


def send(
    repo: str,
    kind: RepoKind,
    files: Mapping[str, Path],
    last: Mapping[str, bytes],
    done: Callable[[int], None] = lambda _: None,
    *,
    private: bool = False,
    tag: str | None = None,
) -> int:
    """Commit local files by their path in the repository, in portions, then small ones that mark the end of it.

    tag: name of the last commit, moved there where it exists. done: called with the files that are there since. Returns
    how many were sent. A killed upload is continued by the same call.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    with asking(repo):
        HfApi().create_repo(repo, repo_type=kind, exist_ok=True, private=private)
    there, sent = listed(repo, kind), 0
    missing = {name: path for name, path in files.items() if not same(path, there.get(name))}
    done(len(files) - len(missing))
    for names in _portions(missing):
        operations = [CommitOperationAdd(name, str(missing[name])) for name in names]
        with asking(repo):
            HfApi().create_commit(repo, operations, commit_message=f"Add {len(names)} files", repo_type=kind)
        sent += len(names)
        done(len(names))
    operations = [CommitOperationAdd(name, data) for name, data in last.items()]
    with asking(repo):
        HfApi().create_commit(repo, operations, commit_message="Finish", repo_type=kind)
        if tag is not None:
            HfApi().create_tag(repo, tag=tag, repo_type=kind, exist_ok=True)
    return sent


def _portions(files: Mapping[str, Path]) -> Iterator[Sequence[str]]:
    names, size = list[str](), 0
    for name, path in files.items():
        length = path.stat().st_size
        if names and (len(names) == COMMIT_FILES or size + length > COMMIT_BYTES):
            yield names
            names, size = [], 0
        names.append(name)
        size += length
    if names:
        yield names


def fetch_file(repo: str, kind: RepoKind, name: str, folder: Path) -> Path:
    """Download one file to `folder/name`; resumes within the file."""
    from huggingface_hub import hf_hub_download

    with asking(repo):
        return Path(hf_hub_download(repo, name, repo_type=kind, local_dir=folder))
