"""Identity of a cache: every setting that can change a bit of it, its fingerprint, and how two of them differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fwdata.errors import StaleCache, StoreDamaged, StoreError, UsageError, did_you_mean, quoted
from fwdata.store.files import Files, json_digest
from fwdata.store.metadata import read_record
from fwdata.store.records import CacheRecord, JsonObject, LatentCacheRecord, TextCacheRecord

LISTED = 5
"""Differences that a message names; the others are counted."""

if TYPE_CHECKING:
    from fwdata.manifest import Manifest
    from fwdata.store.episode import StoreContents


LATENT_CODE_VERSION = 1
"""Raised whenever `fwdata.encode.latents` can change a latent's bits; part of every latent cache's identity."""

TEXT_CODE_VERSION = 1
"""Raised whenever an encoder's rows can change for the same prompt and weights; part of every text cache's identity."""


def latent_settings(manifest: Manifest) -> JsonObject:
    """What a latent cache's identity must hold besides the VAE and the stride, for a store with this manifest."""
    from fwdata.images.stitch import stitch_identity

    return {
        "stitch": stitch_identity(manifest.stitch),
        "window": manifest.window.model_dump(),
        "storage_dtype": "float16",
        "code": LATENT_CODE_VERSION,
    }


def text_settings(manifest: Manifest) -> JsonObject:
    """What a text cache's identity must hold besides the encoder, for a store with this manifest."""
    return {"prompt": manifest.prompt, "storage_dtype": "float16"}


def encode_command(store: str, record: CacheRecord, name: str) -> str:
    """The command that makes a cache as this one under a name: with its encoder and stride. store: path or URL."""
    if isinstance(record, LatentCacheRecord):
        encoder = f"--vae {quoted(record.vae)} --stride {record.stride}"
        return f"fwdata encode-latents {quoted(store)} --name {quoted(name)} {encoder}"
    assert isinstance(record, TextCacheRecord)
    return f"fwdata encode-text {quoted(store)} --name {quoted(name)} --encoder {quoted(record.encoder)}"


def refuse_stale(
    kind: str, store: str, record: CacheRecord, identity: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """StaleCache with the differences named, unless a cache's identity holds what this store and version make now."""
    name = record.name
    again, beside = encode_command(store, record, name), encode_command(store, record, "NEW")
    advice = f"make it again with `{again} --replace`, or one beside it with `{beside}`"
    refuse_if_different(kind, name, {key: identity.get(key) for key in settings}, settings, advice)


def unlike(identity: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Every setting of the current view and version that a cache's identity does not hold; empty for one that fits."""
    return differences({key: identity.get(key) for key in settings}, settings)


def fingerprint(identity: Mapping[str, Any]) -> str:
    """First 12 hex digits of the sha256 of the identity's canonical JSON."""
    return json_digest(dict(identity))[:12]


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, Mapping) and value:
        flat: dict[str, object] = {}
        for key, item in value.items():
            flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}


def differing(have: Mapping[str, Any], want: Mapping[str, Any]) -> list[tuple[str, object, object]]:
    """(dotted key, value in `have`, value in `want`) of every setting that differs, sorted by key."""
    left, right = _flat(have), _flat(want)
    keys = sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]  # empty, the other is not
    return [(key, left.get(key), right.get(key)) for key in keys]


def differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> list[str]:
    """`"vae.weights is 1f0c.., asked for 77ab.."` for every setting that differs."""
    return [f"{key} is {_show(old)}, asked for {_show(new)}" for key, old, new in differing(have, want)]


def listed(differ: Sequence[str]) -> str:
    """Differences in one sentence: the first five, the others counted."""
    more = len(differ) - LISTED
    return "; ".join([*differ[:LISTED], *([f"and {more} more"] if more > 0 else [])])


def _show(value: object) -> str:
    text = str(value) or "''"
    return f"{text[:12]}.." if len(text) > 40 else text


def refuse_if_different(kind: str, name: str, have: Mapping[str, Any], want: Mapping[str, Any], advice: str) -> None:
    """StaleCache with the differences named, unless both identities are equal."""
    found = differences(have, want)
    if found:
        raise StaleCache(f"{kind} {name!r} does not match: {listed(found)}; {advice}")


def check_cache_name(name: str) -> None:
    """UsageError unless the name can be part of a folder's name: letters, digits, '.', '_' and '-'."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"--name {name!r} must be letters, digits, '.', '_' and '-', and begin with a letter or digit")


def find_caches[R: CacheRecord](files: Files, group: str, model: type[R]) -> dict[str, R]:
    """Caches of a group ("latents" or "text") by name.

    Of two latent caches of one name, which a refinement leaves that was killed at its end, the finer one counts.
    """
    found: dict[str, R] = {}
    for key in files.names(group):
        record = read_record(files, f"{group}/{key}", model)
        if record is not None:
            if key != record.key():
                raise StoreDamaged(
                    f"{files.location}/{group}/{key} holds another cache's metadata; the store is damaged"
                )
            other = found.get(record.name)
            if other is None or record.count_setting("stride") < other.count_setting("stride"):
                found[record.name] = record
    return found


def choose_cache[R: CacheRecord](
    files: Files, group: str, model: type[R], name: str | None, command: str, settings: JsonObject
) -> R:
    """The cache called `name`; without a name the only one that fits `settings`, or "default".

    Where none fits, one that does not is returned: the caller refuses it and names what differs.
    """
    caches = find_caches(files, group, model)
    kind, small = ("latent", "--vae tiny") if group == "latents" else ("text", "--encoder tiny")
    if not caches:
        raise StoreError(
            f"{files.location} has no {kind} cache; make one with `fwdata {command} {quoted(files.location)}`, "
            f"with {small} for recipe tiny"
        )
    if name is None:
        fitting = [n for n, record in caches.items() if not unlike(record.identity, settings)]
        among = fitting or list(caches)
        name = "default" if "default" in among else among[0]
        if len(fitting) > 1 and name != "default":
            raise StoreError(f"{files.location} has the {kind} caches {sorted(fitting)}; name the one you want")
    if name not in caches:
        raise StoreError(f"{files.location} has no {kind} cache {name!r}{did_you_mean(name, caches)}")
    return caches[name]


class Cache[R: CacheRecord]:
    """What every cache of a store has: a name, an identity, and its fingerprint. Thread-safe; picklable."""

    def __init__(self, store: StoreContents, record: R) -> None:
        self._store, self.record = store, record
        self._key = record.key()

    def __reduce__(self) -> tuple[type[Cache[R]], tuple[StoreContents, R]]:
        return type(self), (self._store, self.record)

    @property
    def name(self) -> str:
        """Name given with `--name`."""
        return self.record.name

    @property
    def fingerprint(self) -> str:
        """12 hex digits: digest of the identity."""
        return self.record.fingerprint

    @property
    def identity(self) -> JsonObject:
        """Every setting that can change a bit of the cache."""
        return dict(self.record.identity)
