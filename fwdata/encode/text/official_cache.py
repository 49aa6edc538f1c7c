"""Text embeddings as upstream keeps them: one torch file per distinct prompt, named by the prompt's digest.

    sha256(prompt with template, utf-8, hex) + ".t5_len128.wan22ti2v5b.pt"
    {"context": bfloat16 [128, 4096], "mask": bool [128]}    rows past the mask count as zero

The name does not depend on the dataset: a cache made from the v2.1 copy of a dataset serves its v3.0 copy.
Source: scripts/precompute_text_embeds.py and datasets/lerobot/robot_video_dataset.py of the official Fast-WAM code.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fwdata.errors import StoreDamaged, UsageError
from fwdata.store.caches.identity import TEXT_CODE_VERSION

SPEC = "fastwam-text:"
"""What `--encoder` takes before the folder."""
ENCODER = "umt5-xxl"
"""The encoder of every such file."""


def file_name(prompt: str, tokens: int = 128) -> str:
    """The file of a prompt (template applied). tokens: L, rows of an embedding."""
    return f"{hashlib.sha256(prompt.encode()).hexdigest()}.t5_len{tokens}.wan22ti2v5b.pt"


class OfficialTextCache:
    """A folder of such files in the place of a text encoder: it has the prompts that were encoded and no others."""

    name = ENCODER

    def __init__(self, folder: Path) -> None:
        """Raises UsageError for a folder without such files, StoreDamaged for a file that is not one."""
        self.folder = folder
        first = next(iter(sorted(folder.glob("*.t5_len*.wan22ti2v5b.pt"))), None) if folder.is_dir() else None
        if first is None:
            raise UsageError(f"{folder} holds no text embedding of upstream's; expected files named {file_name('..')}")
        context, _ = _read(first)
        self.max_tokens, self.dim = context.shape

    def identity(self) -> dict[str, object]:
        """See TextEncoder. The files do not say which weights made them: upstream's only are named so."""
        made_by = "files named t5 wan22ti2v5b"
        return {"name": self.name, "weights": made_by, "max_tokens": self.max_tokens, "code": TEXT_CODE_VERSION}

    def need(self, prompts: Sequence[str]) -> None:
        """UsageError when a prompt has no file."""
        missing = [prompt for prompt in prompts if not self._path(prompt).is_file()]
        if missing:
            raise UsageError(
                f"{self.folder} has no embedding of {len(missing)} of {len(prompts)} prompts, the first {missing[0]!r} "
                f"({self._path(missing[0]).name}); encode with --encoder umt5-xxl"
            )

    def encode(self, prompts: Sequence[str]) -> list[NDArray[np.float16]]:
        """See TextEncoder. Raises UsageError for a prompt without a file, StoreDamaged for a broken one."""
        self.need(prompts)
        return [self._rows(prompt) for prompt in prompts]

    def _path(self, prompt: str) -> Path:
        return self.folder / file_name(prompt, self.max_tokens)

    def _rows(self, prompt: str) -> NDArray[np.float16]:
        path = self._path(prompt)
        context, mask = _read(path)
        if context.shape != (self.max_tokens, self.dim):
            raise StoreDamaged(f"{path}: context has shape {tuple(context.shape)}, others {self.max_tokens, self.dim}")
        rows: NDArray[np.float16] = context[: int(mask.sum())].float().numpy().astype(np.float16)
        if not np.isfinite(rows).all():
            raise StoreDamaged(f"{path}: context holds values that are not finite in float16; encode the prompt again")
        return rows


def _read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(context [L, D], mask bool [L]) of one file, read without running code from it."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StoreDamaged(f"{path} cannot be read as plain tensors ({reason}); make it again") from None
    table = found if isinstance(found, dict) else {}
    context, mask = (
        value if isinstance(value := table.get(key), torch.Tensor) else None for key in ("context", "mask")
    )
    if (
        context is None
        or mask is None
        or context.ndim != 2
        or (mask.shape, mask.dtype) != (context.shape[:1], torch.bool)
    ):
        raise StoreDamaged(f"{path} is not a text embedding: expected context [L, D] and a bool mask [L]")
    length = int(mask.sum())
    if not 1 <= length <= len(mask) or not bool(mask[:length].all()):
        raise StoreDamaged(f"{path}: mask must cover the first rows of the embedding, at least one; make it again")
    return context, mask


def official_file(tokens: NDArray[np.float16], length: int) -> dict[str, torch.Tensor]:
    """The content of a file. tokens: float16 [n, D], the real rows; length: L, rows with padding."""
    context = torch.zeros(length, tokens.shape[1], dtype=torch.bfloat16)
    context[: len(tokens)] = torch.from_numpy(np.asarray(tokens, np.float32)).to(torch.bfloat16)
    return {"context": context, "mask": torch.arange(length) < len(tokens)}
