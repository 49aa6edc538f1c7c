"""What upstream released, and which action shift a checkpoint was trained with: nothing in the file itself says so.

An official file is known by its name and its size, or by its SHA-256 when it was renamed. Folders of ours and of
lerobot, and files that `fwtrain export fastwam` wrote, record their shifts.
Sources: the model page yuanty/fastwam on Hugging Face; configs/model/*.yaml of upstream before and since August 2026.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACTION_SHIFT, OLDER_ACTION_SHIFT = 1.0, 5.0
"""Time shift of the action stream: what upstream trains with since August 2026, and before. What was recorded without
one is of the older kind."""

HASH_BLOCK = 1 << 24


@dataclass(frozen=True)
class Released:
    """One released checkpoint."""

    file: str
    """Its name on the model page."""
    variant: str
    """The variant it was trained as."""
    action_shift: float
    """Time shift of the action stream it was trained with."""
    size: int | None = None
    """Bytes; None where they are not known, and the name alone decides."""
    sha256: str | None = None
    """Hexadecimal digest of the whole file; None where it is not known."""


RELEASED = (
    Released(
        "libero_uncond_2cam224.pt",
        "fastwam",
        OLDER_ACTION_SHIFT,
        12_041_735_140,
        "1000437cfcf55c000094f79a2600634c502bcb5b492476b94bf8509883a49579",
    ),
    Released("robotwin_uncond_3cam_384.pt", "fastwam", OLDER_ACTION_SHIFT),
    Released(
        "libero_optional_idm_2cam224.pt",
        "optional-idm",
        ACTION_SHIFT,
        12_041_735_545,
        "26b4efffded221b9a303ca8f2cddb9999c8b7524e2751c855c74a986242ce8b4",
    ),
)
"""Every released checkpoint that is known here."""


@dataclass(frozen=True)
class Origin:
    """What is known of the training of a checkpoint."""

    action_shift: float
    """Time shift of the action stream."""
    variant: str | None
    """The variant; None where it is not recorded."""
    told_by: str
    """What says so, for messages."""
    video_shift: float | None = None
    """Time shift of the video stream; None where it is not recorded."""
    tokens: int | None = None
    """Token rows of a prompt, which attention counts; None where they are not recorded: 128, as published."""


def origin_of(path: Path) -> Origin | None:
    """What a checkpoint file or folder was trained with; None where nothing says so.

    A file of the size of a released one under another name is read once whole, for its digest.
    """
    if path.is_dir():
        return _of_folder(path)
    known = released(path)
    if known is not None:
        return Origin(known.action_shift, known.variant, f"it is the released {known.file}")
    return _of_folder(path.parent) if path.suffix == ".safetensors" else None


def released(path: Path) -> Released | None:
    """The released checkpoint that a file is, by name and size, or by digest."""
    size = path.stat().st_size
    for item in RELEASED:
        if item.size is None:
            if path.name == item.file:
                return item
        elif size == item.size and (path.name == item.file or _sha256(path) == item.sha256):
            return item
    return None


def _of_folder(folder: Path) -> Origin | None:
    """From the config.json of our folders (`schedule`) and of lerobot's (`action_scheduler`)."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = (("schedule", "action_shift"), ("schedule", "video_shift"), "context_len")
    lerobots = (("action_scheduler", "train_shift"), ("video_scheduler", "train_shift"), "tokenizer_max_len")
    for action, video, tokens in (ours, lerobots):
        shift = _number(_table(config, action[0]).get(action[1]))
        if shift is not None:
            variant, rows = config.get("variant"), _number(config.get(tokens))
            return Origin(
                shift,
                variant if isinstance(variant, str) else None,
                f"{path} says so",
                _number(_table(config, video[0]).get(video[1])),
                None if rows is None else int(rows),
            )
    return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _table(config: Any, key: str) -> dict[str, object]:
    found = config.get(key) if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
