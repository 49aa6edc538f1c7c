"""Embeddings of instructions for a policy: kept in the run's folder, so that each is computed once in its life."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwdata.io import write_atomic
from fwtrain.errors import RunMismatch
from fwtrain.train.folder import RunInfo

if TYPE_CHECKING:
    from fwdata.encode.text.encoders import TextEncoder

FOLDER = "prompts"
"""Folder of a run that holds embeddings: sha256 of the rows, then float16 [n, Dt], one file per prompt and encoder."""

ENCODER_MEMORY = 14 << 30
"""Free memory of a GPU below which umt5-xxl (11 GB in bfloat16) stays on the CPU."""

HOW = ("device", "lengths")
"""Keys of an encoder's identity that change the last bits of its rows and not what they mean."""


class PaddedEncoder:
    """The text encoder that a run's text cache was made with, its token rows padded with zeros to [L, Dt].

    It is loaded when a prompt is asked for that is not kept yet. device: of the policy; kept: folder of embeddings,
    None keeps none. Raises RunMismatch, then, for another encoder than the run's.
    """

    def __init__(self, info: RunInfo, device: torch.device | None = None, kept: Path | None = None) -> None:
        self._info, self._device, self._kept = info, device or torch.device("cpu"), kept
        self._encoder: TextEncoder | None = None
        self._identity = json.dumps(_meaning(info.text.identity["encoder"]), sort_keys=True)

    def embedding(self, prompt: str) -> NDArray[Any]:
        """float16 [L, Dt] of a full prompt."""
        tokens = self._read(prompt)
        if tokens is None:
            tokens = self._loaded().encode([prompt])[0]
            self._write(prompt, tokens)
        rows = np.zeros(self._info.text_shape, tokens.dtype)
        rows[: len(tokens)] = tokens
        return rows

    def _loaded(self) -> TextEncoder:
        from fwdata.encode.text.encoders import load_text_encoder

        if self._encoder is None:
            text = self._info.text
            encoder = load_text_encoder(text.spec, device=str(text_device(self._device)))
            if _meaning(encoder.identity()) != _meaning(text.identity["encoder"]):
                raise RunMismatch(
                    f"text encoder {text.spec!r} is not the one the run's text was encoded with; "
                    "restore its files or train again"
                )
            self._encoder = encoder
        return self._encoder

    def _path(self, prompt: str) -> Path | None:
        if self._kept is None:
            return None
        return self._kept / hashlib.sha256(f"{self._identity}\n{prompt}".encode()).hexdigest()

    def _read(self, prompt: str) -> NDArray[np.float16] | None:
        """The kept rows; None where there are none, or other bytes than were written."""
        path = self._path(prompt)
        data = path.read_bytes() if path is not None and path.is_file() else b""
        rows, width = data[32:], self._info.text_shape[1]
        if not rows or hashlib.sha256(rows).digest() != data[:32] or len(rows) % (2 * width):
            return None
        return np.frombuffer(rows, np.float16).reshape(-1, width)

    def _write(self, prompt: str, tokens: NDArray[np.float16]) -> None:
        path = self._path(prompt)
        if path is not None:
            rows = np.ascontiguousarray(tokens, np.float16).tobytes()
            with contextlib.suppress(OSError):  # a run that cannot be written serves all the same
                write_atomic(path, hashlib.sha256(rows).digest() + rows)


def text_device(device: torch.device) -> torch.device:
    """The policy's device where the text encoder fits beside it, else the CPU."""
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] >= ENCODER_MEMORY:
        return device
    return torch.device("cpu")


def _meaning(identity: object) -> dict[str, object]:
    """An encoder's identity without what does not change the meaning of its rows."""
    assert isinstance(identity, dict)
    return {key: value for key, value in identity.items() if key not in HOW}
