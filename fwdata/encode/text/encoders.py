"""Prompts to rows of numbers for cross attention: the embedded `tiny` encoder, and the loader of all encoders.

Every encoder cleans a prompt as Wan does (ftfy, HTML entities twice, whitespace), encodes one prompt at a time so that
its bits depend on nothing else, and returns only the real rows; whoever pads them uses zero rows (Fast-WAM's rule).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fwdata.encode.hub import is_hub_id, unknown
from fwdata.encode.text.prompt_cleaning import clean_prompt
from fwdata.errors import UsageError
from fwdata.plugins import TEXT_ENCODERS
from fwdata.store.caches.identity import TEXT_CODE_VERSION


class TextEncoder(Protocol):
    """What every text encoder offers.

    name: "tiny" or "umt5-xxl" (or "umt5" for other sizes); dim: width of a row; max_tokens: longest prompt in rows.
    """

    name: str
    dim: int
    max_tokens: int

    def identity(self) -> dict[str, object]:
        """JSON values that say which rows this encoder makes: a cache with another identity must not be used."""

    def encode(self, prompts: Sequence[str]) -> list[NDArray[np.float16]]:
        """For each prompt its rows, float16 [n_tokens, dim], 1 <= n_tokens <= max_tokens."""


@runtime_checkable
class LimitedTextEncoder(TextEncoder, Protocol):
    """A text encoder that does not have every prompt."""

    def need(self, prompts: Sequence[str]) -> None:
        """UsageError when a prompt cannot be encoded; asked before anything is written."""


class PluginTextEncoder:
    """A text encoder of a plug-in, whose rows are checked before they are stored."""

    def __init__(self, spec: str, made: TextEncoder) -> None:
        self._spec, self._made = spec, made
        self.name, self.dim, self.max_tokens = made.name, made.dim, made.max_tokens

    def identity(self) -> dict[str, object]:
        """See TextEncoder."""
        return self._made.identity()

    def need(self, prompts: Sequence[str]) -> None:
        """See LimitedTextEncoder; also tries the first prompt."""
        if isinstance(self._made, LimitedTextEncoder):
            self._made.need(prompts)
        self.encode(prompts[:1])

    def encode(self, prompts: Sequence[str]) -> list[NDArray[np.float16]]:
        """See TextEncoder. UsageError for rows of another type or shape, or that are not finite."""
        rows = self._made.encode(prompts)
        if len(rows) != len(prompts):
            raise UsageError(f"text encoder {self._spec!r}: {len(rows)} results for {len(prompts)} prompts")
        for prompt, own in zip(prompts, rows, strict=True):
            shape = tuple(getattr(own, "shape", ()))
            found = f"{getattr(own, 'dtype', type(own).__name__)} {list(shape)}"
            fits = len(shape) == 2 and 1 <= shape[0] <= self.max_tokens and shape[1] == self.dim
            if not fits or own.dtype != np.float16:
                raise UsageError(
                    f"text encoder {self._spec!r}: encode must return float16 [1 to {self.max_tokens} tokens, "
                    f"{self.dim}] for a prompt, found {found} for {prompt!r}"
                )
            if not np.isfinite(own).all():
                raise UsageError(f"text encoder {self._spec!r}: the rows of {prompt!r} are not finite")
        return rows


def load_text_encoder(
    spec: str, *, device: str = "cpu", dtype: Literal["bfloat16", "float32"] = "bfloat16", short: bool = False
) -> TextEncoder:
    """Load a text encoder by name.

    spec: "tiny" (embedded, no weights), "umt5-xxl" (hub id Wan-AI/Wan2.2-TI2V-5B-Diffusers), a local folder (with
    text_encoder/ and tokenizer/, or both in one; or the original Wan2.2-TI2V-5B folder), the original
    models_t5_umt5-xxl-enc-bf16.pth with its tokenizer in google/umt5-xxl beside it, a hub id of any of these such as
    google/umt5-xxl, of which no other file is downloaded, or fastwam-text:FOLDER for embeddings that upstream's script
    made (see `fwdata.encode.text.official_cache`), or the name of `text_encoders/NAME.py` in FWDATA_PLUGINS or of an
    entry point of `fwdata.text_encoders`, whose `load(device)` makes a TextEncoder (see `fwdata.plugins`).
    device, dtype: of the computation (not of tiny). short: pad prompts to 16, 32, 64 or 128 tokens instead of 128,
    which is part of the identity.

    Raises UsageError when the encoder cannot be found or downloaded.
    """
    if spec == "tiny":
        return TinyText()
    if spec in TEXT_ENCODERS.names():
        return PluginTextEncoder(spec, TEXT_ENCODERS.load(spec)(device))
    if spec.startswith("fastwam-text:"):
        from fwdata.encode.text.official_cache import SPEC, OfficialTextCache

        return OfficialTextCache(Path(spec.removeprefix(SPEC)))
    if spec != "umt5-xxl" and not Path(spec).exists() and not is_hub_id(spec):
        raise unknown("text encoder", spec, ["tiny", "umt5-xxl", *TEXT_ENCODERS.names()])
    if dtype not in ("bfloat16", "float32"):
        raise UsageError(f"text encoder dtype must be 'bfloat16' or 'float32', found {dtype!r}")
    from fwdata.encode.text.umt5 import MAX_TOKENS, SHORT_LENGTHS, load_umt5

    return load_umt5(spec, device, dtype, SHORT_LENGTHS if short else (MAX_TOKENS,))


class TinyText:
    """Rows from hashes: no weights, no training, the same on every machine.

    A row stands for one word (letters and digits, lower case; an inner apostrophe belongs to it). It is the sum of
    - the word's own random vector, weight 1;
    - the mean vector of its character trigrams, weight 0.5, so that "press" and "pressing" are related;
    - the vector of the pair (previous word, word), weight 0.5, so that order matters;
    - a sinusoid of the row number, weight 0.25;
    scaled to root-mean-square 1. A vector is the BLAKE2b digest of its text read as `dim` bytes, mapped to mean 0 and
    variance 1. Two different words have a cosine of 0 +- 0.13, so another colour or verb is plainly another row.
    Words past `max_tokens` are dropped; an empty prompt is one row of its own. Cost: 0.1 ms for a word seen first,
    then a few microseconds.
    """

    name = "tiny"
    dim = 64
    max_tokens = 32

    def __init__(self) -> None:
        self._position = _sinusoids(self.max_tokens, self.dim)
        self._vectors: dict[str, NDArray[np.float64]] = {}

    def identity(self) -> dict[str, object]:
        """See TextEncoder."""
        weights = hashlib.sha256(_vector("w:press", self.dim).astype("<f8").tobytes()).hexdigest()
        return {"name": self.name, "weights": weights, "max_tokens": self.max_tokens, "code": TEXT_CODE_VERSION}

    def encode(self, prompts: Sequence[str]) -> list[NDArray[np.float16]]:
        """See TextEncoder."""
        return [self._rows(prompt) for prompt in prompts]

    def _rows(self, prompt: str) -> NDArray[np.float16]:
        words = re.findall(r"\w+(?:'\w+)*", clean_prompt(prompt).lower())[: self.max_tokens] or [""]
        rows = np.empty((len(words), self.dim))
        for i, word in enumerate(words):
            marked = f"<{word}>"
            grams = [self._lookup("g:" + marked[k : k + 3]) for k in range(max(len(marked) - 2, 1))]
            pair = self._lookup(f"p:{words[i - 1] if i else ''} {word}")
            rows[i] = self._lookup("w:" + word) + 0.5 * np.mean(grams, axis=0) + 0.5 * pair
        rows += 0.25 * self._position[: len(words)]
        rows /= np.sqrt(np.mean(rows**2, axis=1, keepdims=True))
        return rows.astype(np.float16)

    def _lookup(self, text: str) -> NDArray[np.float64]:
        if text not in self._vectors:
            self._vectors[text] = _vector(text, self.dim)
        return self._vectors[text]


def _vector(text: str, dim: int) -> NDArray[np.float64]:
    """float64 [dim <= 64]: digest bytes as values of mean 0 and variance 1."""
    digest = hashlib.blake2b(text.encode(), digest_size=dim, person=b"fwdata-tinytext").digest()
    return (np.frombuffer(digest, np.uint8).astype(np.float64) - 127.5) / 73.9


def _sinusoids(count: int, dim: int) -> NDArray[np.float64]:
    """float64 [count, dim]: variance about 1 per row."""
    angle = np.arange(count)[:, None] * 100.0 ** (-np.arange(dim // 2) / (dim // 2))
    rows: NDArray[np.float64] = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    rows *= np.sqrt(2.0)
    return rows
