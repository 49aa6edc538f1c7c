"""The documentation: every block is run here or says what it needs, links lead somewhere, and the site builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path

import pytest
import yaml
from doc_blocks import DocBlock, doc_blocks
from hub_server import hub_server
from paths import ROOT

RUN = ("run", "run-in-repository", "run-with-hub")


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


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(executed()))
def test_the_blocks_of_a_page_run_one_after_another(page: str, tmp_path: Path):
    """Blocks with a hub talk to one on this machine, as the hub's own library lets a user name one."""
    for name in ("fwdata", "fwtrain"):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
        script.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    work = tmp_path / "work"
    work.mkdir()
    blocks = executed()[page]
    with hub_server() if any(block.mark == "run-with-hub" for block in blocks) else nullcontext() as hub:
        if hub is not None:
            environment |= {
                "HF_ENDPOINT": hub.address,
                "HF_TOKEN": "hf_test",
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(tmp_path / "hf"),
            }
        run_blocks(blocks, work, environment)


def run_blocks(blocks: list[DocBlock], work: Path, environment: dict[str, str]) -> None:
    """Run blocks of a page in order, in one folder; a failure shows the block and what it printed."""
    for block in blocks:
        program = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
        where = ROOT if block.mark == "run-in-repository" else work
        done = subprocess.run(
            [*program, block.text], cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (
            f"{block.page}:{block.line}\n{block.text}\n{done.stdout[-800:]}\n{done.stderr[-2000:]}"
        )


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
