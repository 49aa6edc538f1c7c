"""Files to and from a repository of the hub. What is there with the same bytes is not sent or fetched again."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fwdata.errors import UsageError, hub_reason, needed_for, one_line, quiet_retries
from fwdata.wording import counted

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

    quiet_retries()
    try:
        yield
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        HTTPError,
        ConnectionError,
    ) as error:
        raise UsageError(f"{where} on the hub: {hub_reason(error)}") from None


def reach(repo: str) -> None:
    """UsageError at once where the hub does not answer at all, before every later call tries five times."""
    with asking(repo):
        from huggingface_hub import constants, get_session

        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)


def need_login(repo: str) -> None:
    """UsageError where the hub does not answer, or does not know who pushes: before hours of work for it."""
    with asking(repo):
        from huggingface_hub import HfApi

        HfApi().whoami()


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

    _check_card(repo, kind, last["README.md"].decode())
    with asking(repo):
        HfApi().create_repo(repo, repo_type=kind, exist_ok=True, private=private)
    there, sent = listed(repo, kind), 0
    missing = {name: path for name, path in files.items() if not same(path, there.get(name))}
    done(len(files) - len(missing))
    for names in _portions(missing):
        operations = [CommitOperationAdd(name, str(missing[name])) for name in names]
        with asking(repo):
            HfApi().create_commit(repo, operations, commit_message=f"Add {counted(len(names), 'file')}", repo_type=kind)
        sent += len(names)
        done(len(names))
    operations = [CommitOperationAdd(name, data) for name, data in last.items()]
    with asking(repo):
        HfApi().create_commit(repo, operations, commit_message="Finish", repo_type=kind)
        if tag is not None:
            HfApi().create_tag(repo, tag=tag, repo_type=kind, exist_ok=True)
    return sent


def _check_card(repo: str, kind: RepoKind, text: str) -> None:
    """UsageError for a card that the hub would refuse once all files are there, as with an unknown licence."""
    from huggingface_hub import constants, get_session

    with asking(repo):
        body = {"repoType": kind, "content": text}
        answer = get_session().post(f"{constants.ENDPOINT}/api/validate-yaml", json=body)
    if answer.status_code != 400:
        return
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = "; ".join(item["message"] for item in answer.json()["errors"])
    raise UsageError(
        f"{repo}: the hub refuses the card: {one_line(text)}; give --license a name of "
        "https://huggingface.co/docs/hub/repositories-licenses; nothing was sent"
    )


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
