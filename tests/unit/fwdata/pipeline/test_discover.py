"""Looking for recordings is supervised: a file that a library crashes on, or never returns from, costs itself alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures import PLUGINS, run_convert, write_toy
from libero_files import write_file
from paths import DATA, ROOT

from fwdata.errors import FwdataError, UsageError
from fwdata.manifest import Manifest, load_manifest
from fwdata.pipeline.choose import manifest_for
from fwdata.pipeline.request import WORKER_MEMORY
from fwdata.pipeline.workers import WorkerPool

LIBRARY = """
import os, signal, time, h5py
from converters.libero import *
whole = h5py.h5f.open

def harmed(name, *args, **more):  # a library that a file's bytes crash, or send round in circles
    if b"stove" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"wine" in name:
        time.sleep(600)
    return whole(name, *args, **more)

h5py.h5f.open = harmed
"""

WALK = """
import os, signal, sys, time
sys.path.insert(0, {plugins!r})
from toy import *
from toy import Converter as Toy

class Converter(Toy):
    def discover(self, root):
        {harm}
        return super().discover(root)

def choose_manifest(roots, options):
    os.kill(os.getpid(), signal.SIGABRT)
"""


def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, manifest: str) -> Manifest:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / f"{name}.py").write_text(code)
    (plugins / f"{name}.yaml").write_text(manifest)
    monkeypatch.setenv("FWDATA_PLUGINS", str(plugins))
    return load_manifest(name)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("turn_on_the_stove", "the reader crashed (SIGSEGV) twice while opening this file"),
        pytest.param(
            "put_the_wine_bottle_on_the_rack",
            "the reader took longer than 5 s twice while opening this file",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_file_that_ends_its_readers_is_skipped_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, reason: str
) -> None:
    text = (ROOT / "manifests" / "libero.yaml").read_text()
    manifest = plugin(tmp_path, monkeypatch, "hdf", LIBRARY, text.replace("libero", "hdf"))
    for name in (task, "put_the_bowl_on_the_plate"):
        write_file(tmp_path / "raw" / "libero_goal" / f"{name}_demo.hdf5", [0])
    bad = f"libero_goal/{task}_demo.hdf5"
    seconds = 5.0 if "longer" in reason else 300.0  # a busy machine must not take it for the good file
    report = run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest, workers=1, episode_seconds=seconds)
    assert (report.episodes, len(report.quarantined)) == (1, 1)
    ((source, why),) = report.quarantined
    assert source == bad and why == f"{task}_demo.hdf5 is left out: {reason}"


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"crashed \(SIGSEGV\)"),
        pytest.param("time.sleep(600)", "took longer than 6 s", marks=pytest.mark.slow),
    ],
)
def test_a_walk_that_ends_its_readers_is_one_sentence_with_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str, why: str
) -> None:
    code = WALK.format(plugins=str(PLUGINS), harm=harm)
    manifest = plugin(tmp_path, monkeypatch, "walk", code, (PLUGINS / "toy.yaml").read_text().replace("toy", "walk"))
    monkeypatch.syspath_prepend(str(PLUGINS))
    raw = write_toy(tmp_path / "raw", {"a": [3]})
    with pytest.raises(FwdataError, match=rf"{why} twice while looking for recordings below {raw};"):
        run_convert(raw, tmp_path / "s.zarr", manifest, workers=1, episode_seconds=0.5 if "longer" in why else 300.0)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.slow
def test_a_choice_of_the_manifest_that_ends_its_readers_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = WALK.format(plugins=str(PLUGINS), harm="pass")
    plugin(tmp_path, monkeypatch, "walk", code, (PLUGINS / "toy.yaml").read_text().replace("toy", "walk"))
    monkeypatch.syspath_prepend(str(PLUGINS))
    raw = write_toy(tmp_path / "raw", {"a": [3]})
    ends = rf"crashed \(SIGABRT\) twice while looking for recordings below {raw};"
    with WorkerPool(1, WORKER_MEMORY) as pool, pytest.raises(FwdataError, match=ends):
        manifest_for("walk", None, {}, [raw], pool)


@pytest.mark.parametrize(
    ("source", "recordings"), [("lerobot", "robotwin"), ("r1lite", "lerobot_v21"), ("robotwin", "libero")]
)
def test_recordings_of_another_source_are_named_with_the_command(tmp_path: Path, source: str, recordings: str) -> None:
    def find() -> None:
        run_convert(raw, tmp_path / "s.zarr", manifest_for(source, None, {}, [raw]))

    raw, other = DATA / recordings, recordings.removesuffix("_v21")
    with pytest.raises(
        UsageError, match=rf"; source {other} reads it: fwdata convert {other} {raw} --out STORE$"
    ) as told:
        find()
    assert "give" not in str(told.value), "what the named source wants would not help"
    raw = tmp_path
    with pytest.raises(UsageError) as error:
        find()
    assert "reads it" not in str(error.value) and not (tmp_path / "s.zarr").exists()
