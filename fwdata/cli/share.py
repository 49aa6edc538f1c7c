"""`fwdata push` and `fwdata pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fwdata.console import emit_json, progress_bar
from fwdata.errors import UsageError
from fwdata.wording import counted

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Dataset repository on the hub.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(name="push")(push)
    app.command(name="pull")(pull)


def push(
    store: Annotated[Path, typer.Argument(help="The store.")],
    repo: Repository,
    license_name: Annotated[
        str | None,
        typer.Option("--license", help="Licence of the recordings, as the hub names it: apache-2.0, cc-by-4.0."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Caches alone: latents, text or stats; repeatable.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private where it is new.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a store, or its caches, to the hub with their identity and a card made from the store's metadata.

    A killed upload continues with the same command. Log in first: hf auth login.

    Example: fwdata push data/mybot.zarr me/mybot --license cc-by-4.0
    """
    from fwdata import open as open_store
    from fwdata.share.stores import push_store

    if license_name is None:
        raise UsageError("name the licence of the recordings with --license, such as apache-2.0 or cc-by-4.0")
    with progress_bar("pushing", "files") as bar:
        sent, identity = push_store(
            open_store(store), repo, license_name, only=tuple(only or ()), private=private,
            begin=bar.start, done=bar.advance,
        )  # fmt: skip
    _answer(repo, str(store), sent, len(identity.files), identity.fingerprint, as_json)


def pull(
    repo: Repository,
    out: Annotated[Path | None, typer.Argument(help="Folder of the store; must not exist yet.")] = None,
    into: Annotated[Path | None, typer.Option("--into", help="Local store to add the repository's caches to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a store from the hub, or the caches of one into a local store; every file is checked by its sha256.

    Caches that were made from other episodes are refused. A killed download continues with the same command.

    Example: fwdata pull me/mybot data/mybot.zarr
    """
    from fwdata.share.stores import pull_caches, pull_store

    if (out is None) == (into is None):
        raise UsageError("name a folder for the store, or a store for its caches with --into")
    with progress_bar("pulling", "files") as bar:
        if into is not None:
            fetched, identity = pull_caches(repo, into, begin=bar.start, done=bar.advance)
        else:
            assert out is not None
            fetched, identity = pull_store(repo, out, begin=bar.start, done=bar.advance)
    _answer(repo, str(into or out), fetched, len(identity.files), identity.fingerprint, as_json)


def _answer(repo: str, where: str, moved: int, files: int, fingerprint: str, as_json: bool) -> None:
    if as_json:
        from fwdata.cli.answers import TransferJson

        emit_json(TransferJson(repository=repo, store=where, moved=moved, files=files, fingerprint=fingerprint))
    else:
        print(f"{repo}: {counted(files, 'file')}, {moved} of them transferred now, fingerprint {fingerprint}")
