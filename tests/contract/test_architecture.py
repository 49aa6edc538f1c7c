"""Which module may import which: read from the source, and checked in a fresh process for what start-up costs."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from syntax import nodes, tree

CONVERTER_MAY = ("fwdata.api", "fwdata.manifest", "fwdata.errors", "fwdata.wording", "fwdata.images", "fwdata.envs")
TRAINING_MAY = (
    *(
        "fwdata.manifest",
        "fwdata.window",
        "fwdata.window_batches",
        "fwdata.normalise",
        "fwdata.errors",
        "fwdata.wording",
    ),
    *(
        "fwdata.images",
        "fwdata.share",
        "fwdata.envs",
        "fwdata.encode",
        "fwdata.report",
        "fwdata.io",
        "fwdata.console",
        "fwdata.plugins",
    ),
)
"""Besides `fwdata` itself, which offers the public reader."""
PROJECT = {"converters", "fwdata", "fwtrain"}
MODELS = {"torch", "torchvision", "diffusers", "transformers", "lerobot"}
HEAVY = (*sorted(MODELS), "zarr", "h5py", "av", "numpy", "simplejpeg", "pydantic", "rich")


def sources(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    """The name a file is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def origin(node: ast.ImportFrom, path: Path) -> str:
    """What `from .. import` in a file imports from, as an absolute name."""
    base = node.module or ""
    if not node.level:
        return base
    package = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
    return ".".join([*package, *([base] if base else [])])


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names a file imports anywhere, `from a import b` as `a` and `a.b`."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = origin(node, path)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(found)


def within(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(f"{package}.")


def test_converters_know_the_contract_and_their_format_only() -> None:
    for name, imported in edges().items():
        if within(name, "converters"):
            own = (".".join(name.split(".")[:2]), "converters.shared")
            wrong = [n for n in imported if not any(within(n, allowed) for allowed in (*CONVERTER_MAY, *own))]
            assert not wrong, f"{name} imports {wrong}"
    for path in sources("converters"):
        assert not {n.split(".")[0] for n in imports(path)} & (MODELS | {"zarr"}), path


def test_training_imports_a_written_list_of_the_data_engine() -> None:
    for name, imported in edges().items():
        if within(name, "fwtrain"):
            wrong = [n for n in imported if not within(n, "fwtrain") and n != "fwdata"]
            assert all(any(within(n, allowed) for allowed in TRAINING_MAY) for n in wrong), f"{name} imports {wrong}"


def test_what_is_private_to_a_package_is_imported_nowhere_else() -> None:
    for path in sources("converters", "fwdata", "fwtrain"):
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom):
                for full in (f"{origin(node, path)}.{alias.name}".split(".") for alias in node.names):
                    private = [i for i, part in enumerate(full) if part.startswith("_") and not part.startswith("__")]
                    home = ".".join(full[: private[0]]) if private else ""
                    crosses = private and full[0] in PROJECT and not within(dotted(path), home)
                    assert not crosses, f"{path} imports {'.'.join(full)}"


def test_fwdata_never_imports_training_and_few_modules_torch() -> None:
    for path in sources("fwdata"):
        found = imports(path)
        if path.parent.name != "quickstart":  # runs both commands, as a user would
            assert not [n for n in found if within(n, "fwtrain")], path
        if not {"encode", "encode.py", "export", "dataset.py"} & set(path.parts):
            assert not [n for n in found if n.split(".")[0] in MODELS], path
        if path.stem != "array" and path.parent.name != "bench":  # reading foreign codecs; comparing with it
            assert not [n for n in found if within(n, "zarr")], path


def test_training_reads_stores_through_the_public_reader() -> None:
    for path in sources("fwtrain"):
        for imported in imports(path):
            assert imported.split(".")[0] not in {"zarr", "h5py", "converters"}, f"{path} imports {imported}"
            assert not within(imported, "fwdata.pipeline"), f"{path} imports {imported}"


def test_the_store_knows_neither_converters_nor_pipeline() -> None:
    for path in sources("fwdata/store"):
        for imported in imports(path):
            assert not any(within(imported, n) for n in ("converters", "fwdata.pipeline", "fwdata.cli")), path


def test_no_module_reads_pickles_or_evaluates_text() -> None:
    modules = ("pickle", "marshal", "dill", "cloudpickle")
    forbidden = {"eval", "exec", *(f"{m}.{f}" for m in modules for f in ("load", "loads", "Unpickler"))}
    for path in sources("fwdata", "fwtrain", "converters"):
        calls = [ast.unparse(n.func) for n in nodes(path) if isinstance(n, ast.Call)]
        assert not forbidden & {*calls, *imports(path)}, path


def test_a_class_name_means_one_thing() -> None:
    homes: dict[str, set[Path]] = {}
    for path in sources("converters", "fwdata", "fwtrain"):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, set()).add(path.relative_to(ROOT))
    twice = {name: sorted(map(str, paths)) for name, paths in homes.items() if len(paths) > 1}
    assert not twice, f"rename all but one of {twice}"


@functools.cache
def edges() -> dict[str, set[str]]:
    """Module -> modules of the project that it imports anywhere, for types and inside functions too."""
    paths = {dotted(path): path for path in sources("converters", "fwdata", "fwtrain")}
    found: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for node in nodes(path):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = origin(node, path)
                full = [f"{base}.{alias.name}" for alias in node.names]
                found[name] |= {inner if inner in paths else base for inner in full}
    return {name: {n for n in imported if n in paths} - {name} for name, imported in found.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, waiting = set(), [*graph[start]]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(graph[name])
        reach[start] = seen
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]}
    return sorted(map(list, groups))


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(edges()) == []


@pytest.mark.slow
def test_tests_share_through_support_and_not_through_each_other() -> None:
    for path in sources("tests"):
        if "data" not in path.parts and path.name != "guided.py":  # fuzzes with the tables of test_recordings
            shared = [n for n in imports(path) for part in n.split(".") if part.startswith("test_")]
            assert not shared, f"{path} imports {shared}; move what is shared to tests/support"


def loaded(code: str) -> set[str]:
    """Which of the heavy libraries a fresh process has loaded after running `code`."""
    program = f"{code}\nimport sys, json; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import fwdata; fwdata.open; import fwdata.cli", set()),
        ("import fwdata.store.caches.stats, fwdata.images.stitch, converters.robotwin", {"numpy", "pydantic", "h5py"}),
    ],
)
def test_start_up_loads_no_heavy_library(code: str, allowed: set[str]) -> None:
    assert loaded(code) <= allowed


@pytest.mark.slow
def test_reading_a_store_needs_neither_torch_nor_zarr(tmp_path: Path) -> None:
    from fixtures import robotwin_store

    path = robotwin_store(tmp_path, episodes=1)
    read = f"import fwdata; e = fwdata.open({str(path)!r}).episodes[0]; e.stitched(); e.state(); e.metadata"
    assert loaded(read) <= {"numpy", "pydantic", "simplejpeg"}


def test_raw_attributes_are_read_and_written_in_one_place() -> None:
    """Everything else reads typed records (`fwdata.store.records`)."""
    home = {ROOT / "fwdata/store/metadata.py", ROOT / "fwdata/store/codec.py", ROOT / "fwdata/store/layout.py"}
    for path in sources("fwdata", "fwtrain"):
        for node in nodes(path):
            if isinstance(node, ast.Subscript):
                assert not ast.unparse(node.value).endswith("attributes"), f"{path}:{node.lineno}"
            if isinstance(node, ast.Compare):
                assert "'complete'" not in ast.unparse(node), f"{path}:{node.lineno} checks a state by hand"
        if path not in home:
            assert "fwdata.store.layout.ROOT_KEY" not in imports(path), path


def test_safetensors_files_are_opened_and_written_in_one_place() -> None:
    for path in sources("fwdata", "fwtrain"):
        if path != ROOT / "fwdata/encode/tensor_files.py":
            found = {name for name in imports(path) if within(name, "safetensors")}
            assert found <= {"safetensors", "safetensors.SafetensorError"}, f"{path} imports {found}"


def test_environments_are_played_in_one_place() -> None:
    """Every world goes through `fwdata.envs.play`, and every policy through `ClosedLoop`."""
    stepping = {
        path.relative_to(ROOT).as_posix()
        for path in sources("fwdata", "fwtrain")
        for node in nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"env.step", "item.env.step", "seat.player.run"}
    }
    assert stepping == {"fwdata/envs/play.py", "fwdata/envs/sample/env.py", "fwtrain/infer/closed_loop.py"}
