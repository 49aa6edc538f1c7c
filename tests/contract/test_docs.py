"""The documentation: every block is run here or says what it needs, links lead somewhere, and the site builds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from urllib.request import Request, urlopen

import obstore
import pytest
import yaml
from doc_blocks import DocBlock, doc_blocks
from doc_runs import NEEDS, PREPARED, free_port, programs, smaller
from hub_server import hub_server
from obstore.store import S3Store
from paths import ROOT
from warm import WarmPrograms

SMALL = ("run-small", "run-with-bucket")
"""Marks of blocks in which published weights and sizes are replaced; see `doc_runs.SMALLER`."""
RUN = ("run", "run-in-repository", "run-with-hub", *SMALL)


def test_every_block_is_run_or_says_what_it_needs():
    without = [f"{block.page}:{block.line}" for block in doc_blocks() if block.mark is None]
    assert not without, f"put <!-- run -->, <!-- shown --> or <!-- needs: .. --> above: {', '.join(without)}"


def test_every_page_is_in_the_navigation_and_the_other_way_round():
    def pages(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [page for item in (node.values() if isinstance(node, dict) else node) for page in pages(item)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def executed() -> dict[str, list[DocBlock]]:
    """Blocks that are run, by page, in order."""
    found = [block for block in doc_blocks() if block.mark in RUN]
    return {page: list(blocks) for page, blocks in groupby(found, key=lambda block: block.page)}


def test_what_blocks_need_is_not_on_a_test_machine():
    """Hardware, simulators, other machines or downloads: no block is left out for want of recordings, a run or time."""
    needed = {f"{b.page}:{b.line}": set(b.mark.removeprefix("needs: ").split(", ")) for b in doc_blocks() if b.needs}
    assert not {where: needs for where, needs in needed.items() if needs - NEEDS}
    assert len(needed) < len([block for block in doc_blocks() if block.mark in RUN])


def empty_bucket(endpoint: str) -> None:
    """Make the bucket that pages write to, or remove what the page before left in it."""
    urlopen(Request(f"{endpoint}/bucket", method="PUT")).close()
    store = S3Store("bucket", endpoint=endpoint, client_options={"allow_http": True})
    for objects in obstore.list(store):
        obstore.delete(store, [found["path"] for found in objects])


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(executed()))
def test_the_blocks_of_a_page_run_one_after_another(
    page: str, tmp_path: Path, warm: WarmPrograms, request: pytest.FixtureRequest
):
    """Blocks with a hub or a bucket talk to one on this machine, as their own libraries let a user name one."""
    blocks, marks = executed()[page], {block.mark for block in executed()[page]}
    if "run-with-bucket" in marks:
        empty_bucket(request.getfixturevalue("s3").endpoint)
    commands, work = programs(tmp_path / "bin", warm), tmp_path / "work"
    work.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(work),
    }
    port = free_port()
    try:
        with hub_server() if "run-with-hub" in marks else nullcontext() as hub:
            if hub is not None:
                environment |= {
                    "HF_ENDPOINT": hub.address,
                    "HF_TOKEN": "hf_test",
                    "HF_HUB_DISABLE_XET": "1",
                    "HF_HUB_OFFLINE": "0",
                    "HF_HOME": str(tmp_path / "hf"),
                }
            run_text(PREPARED.get(page, ""), "", page, work, environment)
            for block in blocks:
                text = smaller(block.text, port) if block.mark in SMALL else block.text
                where = ROOT if block.mark == "run-in-repository" else work
                run_text(text, block.language, f"{page}:{block.line}", where, environment)
    finally:
        if (commands / "server.pid").exists():
            os.kill(int((commands / "server.pid").read_text()), signal.SIGTERM)


def run_text(text: str, language: str, name: str, where: Path, environment: dict[str, str]) -> None:
    """Run a block in a folder; a failure shows the block and what it printed."""
    program = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
    done = subprocess.run([*program, text], cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name}\n{text}\n{done.stdout[-800:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path):
    pytest.importorskip("material", reason="needs the dependency group docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="https?://(?!www\.w3\.org)[^"]+\.(?:js|css|woff2?)', page)


def test_every_command_prints_json():
    import typer.main

    from fwdata import cli as data_cli
    from fwtrain import cli as train_cli

    def commands(node: typer.main.TyperCommand, path: str) -> list[tuple[str, set[str]]]:
        below = getattr(node, "commands", None)
        if below is None:
            return [(path, {option for parameter in node.params for option in parameter.opts})]
        return [found for name, item in below.items() for found in commands(item, f"{path} {name}")]

    every = [
        found
        for name, cli in (("fwdata", data_cli), ("fwtrain", train_cli))
        for found in commands(typer.main.get_command(cli.app), name)  # type: ignore[arg-type]
    ]
    assert len(every) > 35 and not [name for name, options in every if "--json" not in options]
