"""Single recordings that a conversion leaves out (`--exclude`), or takes alone (`--only`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from fwdata.api import EpisodeRef, LeftOut, Skipped
from fwdata.errors import UsageError, did_you_mean
from fwdata.pipeline.plan import read_plan
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import CombinedDiscovery, Root, RootedRecording

EXAMPLES = 2


def pick_recordings(request: ConvertRequest, found: CombinedDiscovery) -> CombinedDiscovery:
    """What the roots hold without the recordings that are left out.

    A request without a choice follows the one recorded in the store's plan. UsageError for a name that no recording
    has, when nothing is left, and for recordings that the store has planned already.
    """
    plan = read_plan(request.out)
    given = bool(request.exclude or request.only)
    exclude, only = names_asked(request)
    if not exclude and not only:
        return found
    if given:
        _check_names(exclude, only, found)
    dropped = [r for r in found.recordings if _named(r, exclude) or (only and not _named(r, only))]
    names = {r.id for r in dropped}
    unread = [s for s in found.skipped if _means(s, exclude) or (only and not _means(s, only))]
    kept = tuple(r for r in found.recordings if r.id not in names)
    if not kept:
        meant = next((s for s in found.skipped if s not in unread), None) if only else None
        if meant is not None:
            raise UsageError(f"--only: {meant.source} cannot be converted: {meant.reason}")
        raise UsageError(f"--exclude and --only leave none of the {len(found.recordings)} recordings found")
    planned = {e.id for part in (plan.parts if plan else ()) for e in part.episodes}
    held = sorted(names & planned)
    if given and held:
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        raise UsageError(f"{request.out} holds {held[0]!r}{more} already; convert to another --out to leave it out")
    left = _counted(
        {
            "recordings that --exclude names": [
                *(r.id for r in dropped if _named(r, exclude)),
                *(s.source for s in unread if _means(s, exclude)),
            ],
            "recordings that --only does not name": [
                *(r.id for r in dropped if not _named(r, exclude)),
                *(s.source for s in unread if not _means(s, exclude)),
            ],
        }
    )
    skipped = tuple(s for s in found.skipped if s not in unread)
    return replace(
        found, recordings=kept, skipped=skipped, left_out=(*found.left_out, *left), exclude=exclude, only=only
    )


def _counted(names: Mapping[str, Sequence[str]]) -> tuple[LeftOut, ...]:
    """One count for each reason that has recordings. names: reason -> ids or sources."""
    return tuple(
        LeftOut(reason, len(told), tuple(told[:EXAMPLES]), asked=True) for reason, told in names.items() if told
    )


def names_asked(request: ConvertRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(What is left out, what is taken alone), as asked for or else as the store's plan has it."""
    if request.exclude or request.only:
        return request.exclude, request.only
    plan = read_plan(request.out)
    return (plan.exclude, plan.only) if plan is not None else ((), ())


def is_picked(root: Root, exclude: Sequence[str], only: Sequence[str], ref: EpisodeRef) -> bool:
    """Whether a recording of a root is taken."""
    recording = RootedRecording(root, ref)
    return not _named(recording, exclude) and (not only or _named(recording, only))


def _named(recording: RootedRecording, names: Sequence[str]) -> bool:
    """Whether a recording is meant by one of the names: its id, its source, its file, or a pattern of one of them."""
    return _any((recording.id, recording.source, recording.source.partition("#")[0]), names)


def _means(skipped: Skipped, names: Sequence[str]) -> bool:
    """Whether one of the names means a recording that cannot be read: its source, its file, or what is in its file."""
    file, _, inside = skipped.source.partition("#")
    within = not inside and any(name.startswith(f"{file}#") for name in names)
    return within or _any((skipped.source, file, inside), names)


def _any(own: Sequence[str], names: Sequence[str]) -> bool:
    return any(name in own or any(text and fnmatchcase(text, name) for text in own) for name in names)


def _among(name: str, left: LeftOut) -> bool:
    """Whether a name means a recording that was left out: its source, its file, what is in it, or the end of its id."""
    for source in left.names:
        file, _, inside = source.partition("#")
        if _any((source, file, inside), (name,)):
            return True
        folder, _, last = name.rpartition("/")
        if inside and last == inside and folder.rpartition("/")[2] in file:
            return True
    return False


def _check_names(exclude: Sequence[str], only: Sequence[str], found: CombinedDiscovery) -> None:
    for name in (*exclude, *only):
        named = any(_named(recording, (name,)) for recording in found.recordings)
        if not named and not any(_means(skipped, (name,)) for skipped in found.skipped):
            left = next((left for left in found.left_out if _among(name, left)), None)
            if left is not None and name not in only:
                continue  # it is left out already
            if left is not None:
                raise UsageError(f"--only: {name!r} is one of {left.count} {left.reason}, which are left out")
            raise UsageError(f"--exclude or --only: no recording is called {name!r}{_instead(name, found)}")


def _instead(name: str, found: CombinedDiscovery) -> str:
    """What the user may have meant: a pattern for recordings that end so, the closest id or source, or some ids."""
    sources, ids = [r.source for r in found.recordings], [r.id for r in found.recordings]
    ending = [each for each in sources if each.partition("#")[0].endswith(f"/{name}") or each.endswith(f"/{name}")]
    if ending:
        return f"; {len(ending)} end in it, such as {ending[0]}: name one of them whole, or '*{name}*' for all"
    close = did_you_mean(name, [*ids, *sources])
    return close if "did you mean" in close else did_you_mean(name, ids)
