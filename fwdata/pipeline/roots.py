"""The folders and files that one conversion takes: their names, and what all of them hold together.

With one root, ids and sources are those the converter gives. With several, each root is discovered on its own and its
ids, sources, files and groups are prefixed by its name: the last parts of its path that tell it from the others. The
order in which roots are given does not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fwdata.api import Converter, Discovery, EpisodeRef, Json, LeftOut, Skipped
from fwdata.errors import UsageError, one_line


@dataclass(frozen=True)
class Root:
    """A folder (or file) of recordings."""

    path: Path
    """Where it is."""
    name: str
    """Unique among the roots."""
    prefix: str = ""
    """Put before its ids and sources."""


@dataclass(frozen=True)
class RootedRecording:
    """One recording of one root."""

    root: Root
    """The root it lies in."""
    ref: EpisodeRef
    """As its converter knows it."""

    @property
    def id(self) -> str:
        """The episode's id in the store."""
        return self.root.prefix + self.ref.id

    @property
    def source(self) -> str:
        """Where it is from, as the store and messages call it."""
        return self.root.prefix + self.ref.source

    def stored(self) -> EpisodeRef:
        """The reference as the store knows it."""
        prefix = self.root.prefix
        files = tuple(prefix + name for name in self.ref.files)
        entries = {prefix + name: digest for name, digest in self.ref.entries.items()}
        return replace(self.ref, id=self.id, source=self.source, files=files, group=self.group, entries=entries)

    @property
    def group(self) -> str:
        """Natural unit of storage."""
        return self.root.prefix + self.ref.group


@dataclass(frozen=True)
class CombinedDiscovery:
    """What all roots hold together; see `fwdata.api.Discovery`."""

    roots: tuple[Root, ...]
    """The roots, in order."""
    recordings: tuple[RootedRecording, ...]
    """Recordings to convert, in order."""
    skipped: tuple[Skipped, ...]
    """Recordings that cannot or must not be converted, with the reason."""
    decisions: dict[str, Json]
    """What the converter decided about each root; open JSON, stored and shown."""
    warnings: tuple[str, ...]
    """Sentences for the user."""
    left_out: tuple[LeftOut, ...] = ()
    """Recordings that were not taken although nothing is wrong with them, counted by reason."""
    exclude: tuple[str, ...] = ()
    """Names of recordings that were left out on request, besides them in `left_out`."""
    only: tuple[str, ...] = ()
    """Names of the recordings that alone were asked for; () for all."""


def name_roots(paths: Sequence[Path]) -> tuple[Root, ...]:
    """Roots sorted by name. UsageError for one that is absent, given twice, or inside another."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no folder {path} to convert")
        if any("\ud800" <= letter <= "\udfff" for letter in str(path.resolve())):
            raise UsageError(
                f"{str(path)!a}: the path is not UTF-8 text, which stores and lists of recordings need; rename "
                "the folder"
            )
    if len(paths) == 1:
        return (Root(paths[0], paths[0].resolve().name),)
    real = [path.resolve() for path in paths]
    for one, path in enumerate(real):
        for other, above in enumerate(real):
            if one != other and path.is_relative_to(above):
                what = "is given twice" if path == above else f"lies in {paths[other]}, which is given too"
                raise UsageError(f"{paths[one]} {what}; its recordings would count twice")
    depth = 1
    while max(Counter(_tail(path, depth) for path in real).values()) > 1:
        depth += 1
    names = [next(_tail(p, n) for n in range(1, depth + 1) if _is_own(real, p, n)) for p in real]
    return tuple(sorted((Root(p, n, f"{n}/") for p, n in zip(paths, names, strict=True)), key=lambda root: root.name))


def _tail(path: Path, depth: int) -> str:
    return "/".join(path.parts[1:][-depth:])


def _is_own(paths: Sequence[Path], path: Path, depth: int) -> bool:
    return sum(_tail(other, depth) == _tail(path, depth) for other in paths) == 1


def together(found: Sequence[tuple[Root, Discovery]]) -> CombinedDiscovery:
    """What all roots hold."""
    return CombinedDiscovery(
        tuple(root for root, _ in found),
        tuple(RootedRecording(root, ref) for root, discovery in found for ref in discovery.episodes),
        tuple(
            replace(skipped, source=root.prefix + skipped.source, reason=one_line(skipped.reason))
            for root, discovery in found
            for skipped in discovery.skipped
        ),
        _merged({root.name: _decided(discovery) for root, discovery in found}),
        tuple(_named(root, text) for root, discovery in found for text in discovery.warnings),
        tuple(
            replace(
                left,
                reason=_named(root, left.reason),
                examples=tuple(root.prefix + n for n in left.examples),
                names=tuple(root.prefix + n for n in left.names),
            )
            for root, discovery in found
            for left in discovery.left_out
        ),
    )


def discover(root: Root, converter: Converter) -> Discovery:
    """What one root holds. UsageError when the converter says so; with several roots it names the root."""
    try:
        return converter.discover(root.path)
    except UsageError as error:
        raise type(error)(_named(root, str(error))) from None


def _named(root: Root, text: str) -> str:
    return one_line(f"{root.name}: {text}" if root.prefix else text)


def _decided(discovery: Discovery) -> Mapping[str, Json]:
    """The decisions of a root as they are stored."""
    if not discovery.per_episode:
        return discovery.decisions
    return {**discovery.decisions, "per_episode": list(discovery.per_episode)}


def _merged(decisions: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    """Decisions that are the same for all roots, and by root's name those that differ."""
    if len(decisions) == 1:
        return dict(next(iter(decisions.values())))
    merged: dict[str, Json] = {}
    for key in dict.fromkeys(key for one in decisions.values() for key in one):
        values: dict[str, Json] = {name: one.get(key) for name, one in decisions.items()}
        first = next(iter(values.values()))
        merged[key] = first if all(value == first for value in values.values()) else values
    return merged
