"""LeRobot datasets on the hub: downloaded into its usual cache, only what a conversion reads, and continued if cut."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from converters.shared.links import SNAPSHOT
from fwdata.errors import UsageError, hub_reason, quiet_retries


def download(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Folder of a snapshot with the files that match; what is there already is not downloaded again.

    Raises UsageError with one sentence when the hub cannot be reached, or has no such dataset or revision.
    """
    import httpx
    from huggingface_hub import snapshot_download

    quiet_retries()
    try:
        found = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=list(patterns))
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        at = f" at revision {revision!r}" if revision else ""
        raise UsageError(
            f"there is no folder {name}, and the dataset of that name{at} cannot be fetched from the hub: "
            f"{hub_reason(error)}; or download it elsewhere "
            f"(hf download {name} --repo-type dataset --local-dir {name.rpartition('/')[2]}) and give its folder"
        ) from None
    return Path(found)


def fetch_command(folder: Path) -> str:
    """The command that downloads what is missing in a dataset folder, and leaves what is there."""
    origin = provenance(folder)
    if origin is not None:
        return f"hf download {origin[0]} --repo-type dataset --revision {origin[1]}"
    return f"hf download OWNER/NAME --repo-type dataset --local-dir {shlex.quote(str(folder))}"


def provenance(folder: Path) -> tuple[str, str] | None:
    """(OWNER/NAME, commit) of a folder inside the hub's cache: `datasets--OWNER--NAME/snapshots/COMMIT`."""
    for start in (folder.absolute(), folder.resolve()):
        for place in (start, *start.parents):
            match = SNAPSHOT.fullmatch(place.parent.parent.name)
            if match and place.parent.name == "snapshots":
                return f"{match['owner']}/{match['name']}", place.name
    return None


def is_outdated(folder: Path) -> bool:
    """Whether a folder is a snapshot in the hub's cache beside the one that its main branch names."""
    if folder.parent.name != "snapshots":
        return False
    try:
        main = (folder.parent.parent / "refs/main").read_text().strip()
    except (OSError, UnicodeError):
        return False
    return main != folder.name and (folder.parent / main).is_dir()
