"""No code from data, and no path out of its root: what SECURITY.md promises, read from the source and tried."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import lerobot_files
import pytest
import r1lite_files
from fixtures import run_convert, toy_manifest, tree, write_toy
from libero_files import write_file as write_libero
from paths import ROOT, SUPPORT
from robotwin_files import write_task
from syntax import nodes

from fwdata.cli import main
from fwdata.errors import FwdataError, ManifestError, UsageError
from fwdata.manifest import load_manifest
from fwdata.pipeline.registry import load_converter

SOURCES = sorted(p for folder in ("fwdata", "fwtrain", "converters") for p in (ROOT / folder).rglob("*.py"))
FORBIDDEN = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "compile": "makes code from text",
    "__import__": "imports by text",
    "pickle.load": "runs code from data",
    "pickle.loads": "runs code from data",
    "pickle.Unpickler": "runs code from data",
    "yaml.load": "makes objects from data",
    "yaml.unsafe_load": "makes objects from data",
    "yaml.full_load": "makes objects from data",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "marshal.loads": "reads code",
    "shelve.open": "unpickles",
    "dill.load": "runs code from data",
    "joblib.load": "unpickles",
}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Every call in a file, by its dotted name."""
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Call):
            found.append((ast.unparse(node.func), node))
    return found


def keyword(call: ast.Call, name: str) -> Any:
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_code_from_data(path: Path) -> None:
    for name, call in calls(path):
        where = f"{path.name}:{call.lineno}: {name}"
        assert name not in FORBIDDEN, f"{where} {FORBIDDEN[name]}"
        if name in {"torch.load", "np.load", "numpy.load"}:
            safe = keyword(call, "weights_only") is True or keyword(call, "allow_pickle") is False
            assert safe, f"{where} may unpickle; say weights_only=True or allow_pickle=False"
        assert keyword(call, "shell") is not True, f"{where} runs a shell"
        assert keyword(call, "trust_remote_code") is not True, f"{where} runs code from a hub"


@pytest.mark.parametrize("name", ["../up", "a/b", "/abs", "..", ".hidden", "", "a\\b", "a\0b"])
def test_a_camera_name_is_no_path(name: str, tmp_path: Path) -> None:
    text = (SUPPORT / "toy_plugin" / "toy.yaml").read_text(encoding="utf-8")
    path = tmp_path / "evil.yaml"
    path.write_text(text.replace("overhead", repr(name).replace("'", '"')), encoding="utf-8")
    with pytest.raises(ManifestError):
        load_manifest(str(path))


@pytest.mark.parametrize("name", ["../toy", "/etc/passwd", "toy/../../x", "..", "a.b/c"])
def test_a_manifest_names_no_converter_elsewhere(name: str, tmp_path: Path) -> None:
    text = (SUPPORT / "toy_plugin" / "toy.yaml").read_text(encoding="utf-8")
    path = tmp_path / "evil.yaml"
    path.write_text(text.replace("converter: toy", f"converter: {name}"), encoding="utf-8")
    with pytest.raises(UsageError):
        load_manifest(str(path))


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(f'!!python/object/apply:os.system ["touch {tmp_path}/owned"]\n', encoding="utf-8")
    with pytest.raises(FwdataError):
        load_manifest(str(path))
    assert not (tmp_path / "owned").exists()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["parts/p00000/frames", "parts/p00000", "stats", "text", "plan"])
def test_nothing_is_written_through_links_out_of_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A store received from elsewhere may hold symbolic links; adding to it must not write where they lead."""
    raw = write_toy(tmp_path / "raw", {"a": [3]})
    out = tmp_path / "toy.zarr"
    manifest = toy_manifest(monkeypatch)
    run_convert(raw, out, manifest)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    victim = out / part
    if victim.is_dir():
        victim.rename(tmp_path / "moved")
    elif victim.exists():
        victim.unlink()
    victim.symlink_to(outside)
    before = tree(outside)
    for command in (
        ["stitch", out],
        ["stats", out],
        ["encode-text", out, "--encoder", "tiny"],
        ["convert", "toy", raw, "--out", out],
    ):
        with pytest.raises(SystemExit) as ended:
            monkeypatch.setattr("sys.argv", ["fwdata", *map(str, command)])
            main()
        assert ended.value.code not in {0, None}
    assert tree(outside) == before


def test_a_loop_of_links_and_a_pipe_are_left_out_and_told(tmp_path: Path) -> None:
    tasks = ("open_the_middle_drawer_of_the_cabinet", "push_the_plate_to_the_front_of_the_stove", "turn_on_the_stove")
    sources = {
        "libero": lambda root: [write_libero(root / "libero_goal" / f"{task}_demo.hdf5", [0]) for task in tasks],
        "robotwin-sample": lambda root: write_task(root, "classic", "click_bell", [0, 1, 2]),
        "r1lite": lambda root: [r1lite_files.write_bag(root / f"{n}.bag", r1lite_files.recording(3)) for n in "abc"],
    }
    for name, write in sources.items():
        write(tmp_path / name)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.suffix in {".hdf5", ".bag"})
        for path in files[:2]:
            path.unlink()
        files[0].symlink_to(files[0])
        os.mkfifo(files[1])
        manifest = load_manifest(name)
        found = load_converter(manifest).discover(tmp_path / name)
        told = "; ".join(found.warnings)
        assert len(found.episodes) == 1 and files[0].name in told and "2 entries" in told, (name, told)
    dataset = lerobot_files.write_dataset(tmp_path / "set", lerobot_files.Recipe())
    (dataset / "meta" / "tasks.jsonl").unlink()
    (dataset / "meta" / "tasks.jsonl").symlink_to(dataset / "meta" / "tasks.jsonl")
    with pytest.raises(UsageError, match=r"tasks.jsonl is a link that leads out of the dataset's folder or nowhere"):
        load_converter(load_manifest("lerobot-r1lite")).discover(dataset)
