"""An exported LeRobot dataset on the hub, as lerobot finds it: tagged with the version of its format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import yaml

from fwdata.errors import UsageError, quoted
from fwdata.share.hub import send


def push_exported(
    folder: Path, repo: str, license_name: str, begin: Callable[[int], None], done: Callable[[int], None]
) -> None:
    """`push_lerobot` of what was exported just now; its error says that the dataset is here, and how to send it."""
    try:
        push_lerobot(folder, repo, license_name, begin, done)
    except UsageError as error:
        raise UsageError(
            f"{error}; the dataset is complete in {folder}: upload it with "
            f"`hf upload {repo} {quoted(folder)} --repo-type dataset`"
        ) from None


def push_lerobot(
    folder: Path,
    repo: str,
    license_name: str,
    begin: Callable[[int], None] = lambda _: None,
    done: Callable[[int], None] = lambda _: None,
    *,
    private: bool = False,
) -> int:
    """Upload a dataset folder to `repo`; returns how many files were sent. What is there already is not sent again."""
    info = json.loads((folder / "meta" / "info.json").read_text(encoding="utf-8"))
    head = {
        "license": license_name,
        "task_categories": ["robotics"],
        "tags": ["LeRobot"],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }
    counts = f"{info['total_episodes']:,} episodes, {info['total_frames']:,} frames at {info['fps']} Hz"
    text = f"# {repo.split('/')[-1]}\n\nA LeRobot {info['codebase_version']} dataset of {counts}, exported by fwdata.\n"
    card = ("---\n" + yaml.safe_dump(head, sort_keys=False) + "---\n\n" + text).encode()
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "README.md" and not p.name.startswith("."))
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    begin(len(files))
    return send(repo, "dataset", files, {"README.md": card}, done, private=private, tag=info["codebase_version"])
