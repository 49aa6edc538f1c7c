"""The card of a store on the hub, made from its metadata alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from fwdata.console import human_bytes, human_time
from fwdata.errors import quoted
from fwdata.evidence.records import DatasetVerdict
from fwdata.evidence.sentences import line
from fwdata.report.inspect_store import describe
from fwdata.store.reader import Store

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The hub's size categories, by episodes."""


def store_card(store: Store, repo: str, license_name: str, groups: Sequence[str], *, whole: bool = True) -> bytes:
    """README.md: licence, counts, conventions with their evidence, caches with their fingerprints, and how to pull.

    groups: folders of the store that are in the repository. whole: whether the recordings are, too. Same store, same
    bytes.
    """
    found = describe(store)
    episodes = len(store.episodes)
    category = next((name for most, name in SIZES if episodes < most), "n>1M")
    head = {
        "license": license_name,
        "task_categories": ["robotics"],
        "tags": ["robotics", "fwdata", "zarr", store.source],
        "size_categories": [category],
    }
    name = Path(store.location).name
    lines = [
        f"# {name}",
        "",
        f"An fwdata store of {episodes:,} episodes, {store.num_frames:,} frames "
        f"({human_time(store.num_frames / store.fps)} at {store.fps:.4g} Hz), converted from {store.source} files.",
        "",
        "```sh",
        f"fwdata pull {repo} {'' if whole else '--into '}{quoted(name)}",
        "```",
        "",
        "Every file is checked against its sha256 when it is pulled.",
        "",
        "| | |",
        "|---|---|",
        f"| fingerprint | `{store.fingerprint}` |",
        f"| cameras | {', '.join(store.cameras)} |",
        f"| state | {', '.join(store.state_names)} |",
        f"| action | {', '.join(store.action_names)} |",
        f"| tasks | {len(found['tasks'])} |",
        f"| held out for validation | {len(store.val_indices)} episodes |",
        f"| size | {human_bytes(found['bytes'] or 0)} |",
        f"| in this repository | {', '.join(groups)} |",
        *[f"| units of {key} | {text} |" for key, text in store.manifest.units.items()],
        "",
        "## Conventions and their evidence",
        "",
        *[f"- {line(DatasetVerdict.from_json(item))}" for item in found["evidence"]],
        "",
        "## Caches",
        "",
        "| cache | made with | covers | fingerprint |",
        "|---|---|---|---|",
        *[
            f"| latents {c['name']} | {c['vae']} | {c['windows']:,} windows, stride {c['stride']} | "
            f"`{c['fingerprint']}` |"
            for c in found["latents"]
        ],
        *[f"| text {c['name']} | {c['encoder']} | {c['prompts']:,} prompts | |" for c in found["text"]],
    ]
    return ("---\n" + yaml.safe_dump(head, sort_keys=False) + "---\n\n" + "\n".join(lines) + "\n").encode()
