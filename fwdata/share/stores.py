"""`fwdata push` and `fwdata pull`: whole stores, or the caches of one, with an identity that is compared on arrival.

In a repository: the files of the store at their own paths, README.md, and fwdata.json, written last: its fingerprint
and sha256 of every file. A repository without it was never wholly pushed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from fwdata.errors import StaleCache, StoreDamaged, UsageError, quoted
from fwdata.io import shared_folder_lock
from fwdata.share.card import store_card
from fwdata.share.hub import check_repository, fetch_file, holds, need_login, reach, send
from fwdata.store.files import LocalFiles, file_sha256, write_lock
from fwdata.store.reader import Store, open_store
from fwdata.store.verify import verify_store
from fwdata.validation import Model, validate_model

IDENTITY = "fwdata.json"
"""Name of the identity in a repository."""
CACHES = ("latents", "text", "stats")
"""Groups of a store that can be pushed and pulled alone."""

type Advance = Callable[[int], None]
"""Called with the number of files that are done since."""
type Begin = Callable[[int], None]
"""Called once with the number of files in all."""


class PushedStore(Model):
    """fwdata.json: what a repository holds."""

    version: int = 1
    """Of this record."""
    name: str
    """Name of the store's folder."""
    fingerprint: str
    """Of the store's episodes; a cache fits only a store with the same one."""
    whole: bool
    """Whether the recordings are there too, not only caches."""
    files: dict[str, str]
    """sha256 by path."""


def push_store(
    store: Store,
    repo: str,
    license_name: str,
    *,
    only: tuple[str, ...] = (),
    private: bool = False,
    begin: Begin = lambda _: None,
    done: Advance = lambda _: None,
) -> tuple[int, PushedStore]:
    """Upload a local store, or the caches named in `only`, to dataset repository `repo`.

    Caches join those of the same episodes that the repository holds. Returns how many files were sent, and the
    identity. The same call continues after a kill. UsageError for a URL, an unfinished store, caches that are not
    there, and caches for a repository that holds other episodes; StoreDamaged before anything is sent.
    """
    check_repository(repo)
    if not isinstance(store.files, LocalFiles):
        raise UsageError(f"{store.location} is a URL; fwdata push uploads local stores only")
    if not store.complete:
        raise UsageError(f"{store.location} is not wholly converted yet; run the same `fwdata convert` again first")
    root = store.files.root
    for name in only:
        if name not in CACHES or not (root / name).is_dir():
            raise UsageError(f"--only {name}: {root} has no such caches; known: {', '.join(CACHES)}")
    need_login(repo)
    with shared_folder_lock(root):
        _refuse_damaged(root, only)
        paths = sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))
        names = {path.relative_to(root).as_posix(): path for path in paths}
        chosen = {name: path for name, path in names.items() if not only or name.split("/")[0] in only}
        begin(len(chosen))
        digests = {name: file_sha256(path) for name, path in chosen.items()}
        identity = PushedStore(name=root.name, fingerprint=store.fingerprint, whole=not only, files=digests)
        if only:
            identity = _joined(repo, identity, only)
        groups = sorted({name.split("/")[0] for name in identity.files if "/" in name})
        last = {
            "README.md": store_card(store, repo, license_name, groups, whole=identity.whole),
            IDENTITY: json.dumps(identity.model_dump(mode="json"), indent=1).encode(),
        }
        return send(repo, "dataset", chosen, last, done, private=private), identity


def _refuse_damaged(root: Path, only: tuple[str, ...]) -> None:
    """StoreDamaged where bytes that are to be pushed are not those that were written."""
    found = [item for item in verify_store(root).findings if not only or item.key.split("/")[0] in only]
    if found:
        more = f"; {len(found)} files in all, see `fwdata verify {quoted(root)}`" if len(found) > 1 else ""
        raise StoreDamaged(
            f"{root}/{found[0].key} {found[0].problem}{more}; nothing was pushed; rebuild with `fwdata repair "
            f"{quoted(root)}`"
        )


def _joined(repo: str, pushed: PushedStore, only: tuple[str, ...]) -> PushedStore:
    """Caches together with what the repository holds of the same episodes. UsageError where it holds others."""
    if not holds(repo, "dataset", IDENTITY):
        return pushed
    there = read_identity(repo)
    if there.fingerprint != pushed.fingerprint:
        raise UsageError(
            f"{repo} holds other episodes: fingerprint {there.fingerprint}, those of {pushed.name} have "
            f"{pushed.fingerprint}; push the caches to another repository"
        )
    kept = {name: digest for name, digest in there.files.items() if name.split("/")[0] not in only}
    return there.model_copy(update={"files": {**kept, **pushed.files}})


def read_identity(repo: str) -> PushedStore:
    """fwdata.json of a repository. UsageError where it is not one, or was never wholly pushed."""
    check_repository(repo)
    reach(repo)
    with tempfile.TemporaryDirectory() as folder:
        text = fetch_file(repo, "dataset", IDENTITY, Path(folder)).read_bytes()
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{repo}/{IDENTITY} is not valid JSON: {error}") from None
    return validate_model(PushedStore, data, f"{repo}/{IDENTITY}")


def pull_store(
    repo: str, out: Path, *, begin: Begin = lambda _: None, done: Advance = lambda _: None
) -> tuple[int, PushedStore]:
    """Download a store to `out`; returns how many files were fetched, and the identity.

    Files come to a hidden folder beside it, which a killed call leaves for the same call to go on with; it is renamed
    when every sha256 is right. UsageError where `out` exists or the repository holds caches alone.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; name another folder, or pull caches into it with --into {out}")
    identity = read_identity(repo)
    if not identity.whole:
        raise UsageError(f"{repo} holds caches alone: pull them into their store with --into STORE")
    partial = out.with_name(f".{out.name}.pull")
    partial.mkdir(parents=True, exist_ok=True)
    fetched = _fetch(repo, identity, partial, begin, done)
    open_store(partial)  # says what is wrong before it has its name
    partial.rename(out)
    return fetched, identity


def pull_caches(
    repo: str, store: Path, *, begin: Begin = lambda _: None, done: Advance = lambda _: None
) -> tuple[int, PushedStore]:
    """Download the caches of a repository into a local store; returns how many files were fetched, and the identity.

    StaleCache where they were made from other episodes. UsageError where the store has another cache of such a name
    already; the same bytes are kept, so that the same call continues after a kill.
    """
    opened = open_store(store)
    identity = read_identity(repo)
    if identity.fingerprint != opened.fingerprint:
        raise StaleCache(
            f"the caches of {repo} were made from other episodes: fingerprint {identity.fingerprint}, {store} has "
            f"{opened.fingerprint}"
        )
    wanted = {name: sha for name, sha in identity.files.items() if name.split("/")[0] in CACHES and "/" in name}
    units = sorted({"/".join(name.split("/")[: 1 if name.startswith("stats/") else 2]) for name in wanted})
    units = [unit for unit in units if unit.split("/")[-1] != "zarr.json"]
    there = [unit for unit in units if (store / unit).exists()]
    for unit in there:
        if not _holds(store, unit, wanted):
            raise UsageError(f"{store} has {unit} already; remove it first to take that of {repo}")
    units = [unit for unit in units if unit not in there]
    wanted = {name: sha for name, sha in wanted.items() if not any(name.startswith(f"{unit}/") for unit in there)}
    partial = store.with_name(f".{store.name}.pull")
    partial.mkdir(exist_ok=True)
    fetched = _fetch(repo, identity.model_copy(update={"files": wanted}), partial, begin, done)
    with write_lock(store):
        for unit in units:
            (store / unit).parent.mkdir(exist_ok=True)
            group = partial / unit.split("/")[0] / "zarr.json"
            if "/" in unit and group.is_file() and not (store / unit).parent.joinpath("zarr.json").exists():
                shutil.copyfile(group, (store / unit).parent / "zarr.json")
            (partial / unit).rename(store / unit)
    shutil.rmtree(partial)
    return fetched, identity


def _holds(store: Path, unit: str, wanted: dict[str, str]) -> bool:
    """Whether a store has exactly the files of a cache that a repository lists."""
    found = {path.relative_to(store).as_posix(): path for path in (store / unit).rglob("*") if path.is_file()}
    names = {name for name in wanted if name.startswith(f"{unit}/")}
    return found.keys() == names and all(file_sha256(path) == wanted[name] for name, path in found.items())


def _fetch(repo: str, identity: PushedStore, folder: Path, begin: Begin, done: Advance) -> int:
    """Every file of an identity that the folder lacks. StoreDamaged for bytes that are not those that were pushed."""
    begin(len(identity.files))
    _drop_others(folder, identity)
    fetched = 0
    for name, digest in identity.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{repo} names a file outside of the store: {name}")
        if not path.is_file() or file_sha256(path) != digest:
            path.unlink(missing_ok=True)
            fetch_file(repo, "dataset", name, folder)
            fetched += 1
            if file_sha256(path) != digest:
                raise StoreDamaged(f"{repo}/{name} is damaged: its sha256 is not the one that was pushed")
        done(1)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return fetched


def _drop_others(folder: Path, identity: PushedStore) -> None:
    """Remove what an earlier call fetched of another repository, or of an older state of this one."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        name = path.relative_to(folder).as_posix()
        if name.startswith(".cache") or name in identity.files:
            continue
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()
