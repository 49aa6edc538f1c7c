"""Text caches of a store: embeddings of every distinct prompt, real token rows only.

One cache is `text/<name>-<fingerprint>/`, in parts of up to 128 prompts:

    data     float16 [rows, D]     token embeddings of all prompts of the part, one after another
    offset   int64 [P + 1]         first row of every prompt
    prompts/{data,offset}          the prompts as JSON strings
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import StoreError
from fwdata.store.array import ArrayWriter, ChunkedArray, write_documents, write_table
from fwdata.store.attempts import UnitAttempt, remove_folder, whole_digests
from fwdata.store.caches.identity import (
    TEXT_CODE_VERSION,
    Cache,
    check_cache_name,
    choose_cache,
    encode_command,
    find_caches,
    fingerprint,
    refuse_if_different,
    refuse_stale,
    text_settings,
)
from fwdata.store.files import LocalFiles, ensure_groups, write_group
from fwdata.store.layout import TEXT_PART, ArraySpec, part_name
from fwdata.store.metadata import COMPLETE, holds_record, names_dimensions, read_complete, write_record
from fwdata.store.records import JsonObject, TextCacheRecord, TextPartRecord

if TYPE_CHECKING:
    from fwdata.store.episode import StoreContents

EMBEDDING_ROWS = 32
"""Token rows per chunk of the embeddings."""


class TextCache(Cache[TextCacheRecord]):
    """Read access to one text cache. Thread-safe; picklable."""

    def __init__(self, store: StoreContents, record: TextCacheRecord) -> None:
        super().__init__(store, record)
        self._arrays: dict[tuple[int, str], ChunkedArray] = {}

    @property
    def encoder(self) -> str:
        """What `fwdata.encode.text.encoders.load_text_encoder` was given: "tiny", "umt5-xxl", a path or a hub id."""
        return self.record.encoder

    @property
    def max_tokens(self) -> int:
        """L: rows of an embedding, padding included."""
        return self.record.max_tokens

    @property
    def dim(self) -> int:
        """D: width of an embedding row."""
        return self.record.dim

    @cached_property
    def _parts(self) -> list[tuple[str, TextPartRecord]]:
        found = []
        for name in self._store.files.names(f"text/{self._key}"):
            record = read_complete(self._store.files, f"text/{self._key}/{name}", TextPartRecord)
            if record is not None:
                found.append((name, record))
        return found

    def _array(self, part: int, key: str) -> ChunkedArray:
        found = self._arrays.get((part, key))
        if found is None:
            name, record = self._parts[part]
            path = f"text/{self._key}/{name}/{key}"
            found = ChunkedArray(self._store.files, path, record.array_digest(key))
            self._arrays[part, key] = found
        return found

    @cached_property
    def _index(self) -> dict[str, tuple[int, int]]:
        """Prompt -> (part, position)."""
        index: dict[str, tuple[int, int]] = {}
        for part in range(len(self._parts)):
            offsets = self._array(part, "prompts/offset")
            bounds = offsets.rows(0, len(offsets))
            data = self._array(part, "prompts/data").rows(0, int(bounds[-1])).tobytes()
            for position in range(len(bounds) - 1):
                index[json.loads(data[int(bounds[position]) : int(bounds[position + 1])])] = (part, position)
        return index

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every cached prompt (template applied), in the order they were encoded."""
        return tuple(self._index)

    def parts(self) -> list[tuple[str, TextPartRecord, list[str]]]:
        """(name, record, prompts) of every complete part."""
        prompts: list[list[str]] = [[] for _ in self._parts]
        for prompt, (part, _) in self._index.items():
            prompts[part].append(prompt)
        return [(name, record, own) for (name, record), own in zip(self._parts, prompts, strict=True)]

    def tokens(self, prompt: str) -> NDArray[np.float16]:
        """float16 [n, D]: the real token rows of a prompt, given with or without the template."""
        found = self._index.get(prompt) or self._index.get(self._store.manifest.render_prompt(prompt))
        if found is None:
            raise StoreError(
                f"text cache {self.name!r} of {self._store.location} has no embedding of {prompt!r}; "
                f"add it with `{encode_command(self._store.location, self.record, self.name)}` (--instructions all "
                "for every wording)"
            )
        part, position = found
        low, high = self._array(part, "offset").rows(position, position + 2)
        return self._array(part, "data").rows(int(low), int(high))

    def embedding(self, prompt: str) -> NDArray[np.float16]:
        """float16 [L, D]: a prompt's embedding, zero rows past its length."""
        tokens = self.tokens(prompt)
        out = np.zeros((self.max_tokens, self.dim), np.float16)
        out[: len(tokens)] = tokens
        return out


@dataclass(frozen=True)
class TextSpec:
    """Encoder of a text cache."""

    encoder: str
    """Name that loads it again."""
    dim: int
    """D, width of an embedding."""
    max_tokens: int
    """L, tokens of an embedding."""


def open_texts(store: StoreContents, name: str | None) -> TextCache:
    """The text cache called `name`; see `Store.text`. StaleCache when it was made for another prompt template."""
    settings = text_settings(store.manifest)
    record = choose_cache(store.files, "text", TextCacheRecord, name, "encode-text", settings)
    refuse_stale("text cache", store.location, record, record.identity, settings)
    encoder = record.identity.get("encoder")
    code = encoder.get("code", TEXT_CODE_VERSION) if isinstance(encoder, dict) else None
    refuse_stale("text cache", store.location, record, {"code": code}, {"code": TEXT_CODE_VERSION})
    return TextCache(store, record)


def write_texts(
    store: StoreContents,
    name: str,
    identity: JsonObject,
    spec: TextSpec,
    prompts: Sequence[str],
    encode: Callable[[Sequence[str]], list[NDArray[np.float16]]],
    replace: bool,
    progress: Callable[[int], None],
) -> int:
    """Encode the prompts that the cache called `name` lacks; returns how many were encoded.

    Each part appears whole; a killed run continues with the next one. StaleCache when a cache of that name has another
    identity.
    """
    assert isinstance(store.files, LocalFiles)
    found = find_caches(store.files, "text", TextCacheRecord).get(name)
    if found is not None and replace:
        remove_folder(store.files.root, store.files.root / "text" / found.key())
    record = find_texts(store, name, identity, spec)
    begin_texts(store, record)
    parts = missing_texts(store, record, prompts)
    for part, own in parts:
        write_text_part(store.files.root, record.key(), part, own, encode, spec.dim, progress)
    return sum(len(own) for _, own in parts)


def find_texts(store: StoreContents, name: str, identity: JsonObject, spec: TextSpec) -> TextCacheRecord:
    """The cache called `name`, or the one to make; writes nothing. StaleCache when it has another identity."""
    check_cache_name(name)
    found = find_caches(store.files, "text", TextCacheRecord).get(name)
    if found is not None:
        advice = f"use --name NEW to keep both, or --replace to remove {name!r}"
        refuse_if_different("text cache", name, found.identity, identity, advice)
        return found
    return TextCacheRecord(
        name=name,
        fingerprint=fingerprint(identity),
        identity=identity,
        encoder=spec.encoder,
        dim=spec.dim,
        max_tokens=spec.max_tokens,
    )


def begin_texts(store: StoreContents, record: TextCacheRecord) -> None:
    """Write the metadata of a cache where they are missing."""
    assert isinstance(store.files, LocalFiles)
    root = store.files.root
    if not holds_record(store.files, f"text/{record.key()}", record):
        ensure_groups(root, root / "text")
        write_record(root / "text" / record.key(), record)


def missing_texts(
    store: StoreContents, record: TextCacheRecord, prompts: Sequence[str]
) -> list[tuple[str, tuple[str, ...]]]:
    """(part, prompts) of the parts that a cache lacks, in order."""
    refuse_stale("text cache", store.location, record, record.identity, text_settings(store.manifest))
    cache = TextCache(store, record)
    known = set(cache.prompts)
    missing = [p for p in dict.fromkeys(prompts) if p not in known]
    taken = {name for name, _ in cache._parts}
    free = (part_name(number) for number in itertools.count() if part_name(number) not in taken)
    return [(next(free), tuple(missing[i : i + TEXT_PART])) for i in range(0, len(missing), TEXT_PART)]


def write_text_part(
    root: Path,
    key: str,
    part: str,
    prompts: Sequence[str],
    encode: Callable[[Sequence[str]], list[NDArray[np.float16]]],
    dim: int,
    progress: Callable[[int], None],
) -> None:
    """Encode one part of a text cache. key: the cache's folder below `text`."""
    final, named = root / "text" / key / part, names_dimensions(LocalFiles(root))
    attempt = UnitAttempt.begin(final, final.parent, {})
    folder, spec = attempt.folder, ArraySpec("float16", (dim,), EMBEDDING_ROWS, EMBEDDING_ROWS * 128, "crc32c")
    writer = ArrayWriter(folder / "data", spec, named=named)
    offsets = [0]
    for prompt in prompts:
        writer.append(encode([prompt])[0])
        offsets.append(writer.rows)
        progress(1)
    writer.finish()
    write_table(folder / "offset", np.asarray(offsets, np.int64), named)
    write_documents(folder / "prompts", list(prompts), named)
    write_group(folder / "prompts")
    write_record(folder, TextPartRecord(state=COMPLETE, prompts=len(prompts), digests=whole_digests(folder)))
    attempt.commit()
