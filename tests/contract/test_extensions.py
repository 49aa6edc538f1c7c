"""Every kind of extension is one file outside of the package, and every command then takes its name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures import PLUGINS, write_toy
from paths import ROOT, SUPPORT

import fwdata
from fwdata.errors import UsageError
from fwdata.images.layouts import find_layout
from fwdata.manifest import ManifestError, load_manifest
from fwdata.plugins import LAYOUTS, TRACKERS, VAES

ONES = np.ones((32, 32, 3), np.uint8)
PATH = """
import importlib, sys

def command(program, *arguments):
    sys.argv = [program, *arguments]
    try:
        importlib.import_module(program + ".cli").main()
    except SystemExit as end:
        assert end.code == 0, (arguments, end.code)

raw, store, run = sys.argv[1:]
command("fwdata", "convert", "toy", raw, "--out", store, "--no-evidence", "--workers", "1")
command("fwdata", "view", store, "--set", "stitch.layout=framed")
command("fwdata", "stats", store)
command("fwdata", "encode-text", store, "--encoder", "letters")
command("fwdata", "encode-latents", store, "--vae", "means", "--device", "cpu")
small = ("optim.steps=2", "optim.batch_size=2", "data.workers=0", "validation.windows=2", "validation.steps=1")
chosen = ("model.variant=drafted", "trackers=[lines]", "validation.pictures=0", "eval_every=2", "log_every=1", *small)
command("fwtrain", "run", store, "--recipe", "tiny", "--out", run, "--threads", "1", "--device", "cpu",
        *(word for key in chosen for word in ("--set", key)))
command("fwtrain", "predict", run, "--store", store, "--steps", "1", "--threads", "1")
command("fwtrain", "eval", run, "--env", "plane", "--suite", "one", "--threads", "1")
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside of the package with one extension of every kind."""
    folder = shutil.copytree(SUPPORT / "extension_plugin", tmp_path / "plugins")
    for file in PLUGINS.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    monkeypatch.setenv("FWDATA_PLUGINS", str(folder))
    return folder


def test_every_loader_takes_the_name_of_a_file(plugins: Path, tmp_path: Path) -> None:
    from fwdata.encode.text.encoders import load_text_encoder
    from fwdata.encode.vae.wan import load_vae
    from fwdata.envs.benchmarks import benchmark_names, load_benchmark
    from fwtrain import variants
    from fwtrain.recipe import load_recipe
    from fwtrain.train.folder import RunFolder
    from fwtrain.train.trackers import check_installed, open_tracker

    assert load_text_encoder("letters").encode(["ab"])[0].shape == (2, 8)
    vae = load_vae("means")
    assert vae.spec == "means" and vae.encode(np.zeros((5, 32, 64, 3), np.uint8)).shape == (3, 2, 2, 4)
    assert np.array_equal(vae.submit([np.ones((1, 32, 32, 3), np.uint8)]).result()[0], vae.encode_first(ONES))
    assert load_benchmark("plane").robot.state == 2 and benchmark_names() == ["libero", "plane"]
    try:
        variants.register_plugins()
        recipe = load_recipe("tiny", ["model.variant=drafted", "trackers=[lines]"])
    finally:
        del variants.VARIANTS["drafted"]
    check_installed(recipe)
    open_tracker("lines", RunFolder(tmp_path), recipe).close()
    assert (tmp_path / "lines.txt").read_text().endswith(" with drafted\n")
    with pytest.raises(UsageError, match=r"no VAE 'mens'.*did you mean 'means'"):
        load_vae("mens")
    with pytest.raises(ManifestError, match=r"trackers.0: must be 'wandb', 'trackio' or 'lines', found 'line'"):
        load_recipe("tiny", ["trackers=[line]"])


@pytest.mark.slow
def test_one_file_of_each_kind_goes_the_whole_path(plugins: Path, tmp_path: Path) -> None:
    raw, store, run = write_toy(tmp_path / "raw", {"a": [12, 9], "b": [8, 7]}), tmp_path / "s.zarr", tmp_path / "run"
    line = [sys.executable, "-c", PATH, str(raw), str(store), str(run)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    opened = fwdata.open(store)
    assert opened.source == "toy" and opened.stitch_layout == "framed"
    image = opened.episodes[0].stitched([0])[0]
    assert image.shape == (64, 96, 3) and not image[:16].any() and image[16:48, 16:48].any()
    latents = opened.latents()
    assert latents.vae == "means" and latents.shape == (3, 4, 6)
    assert latents.record.identity["stitch"]["tiles"] == [[16, 16, 32, 32], [16, 48, 32, 32]]
    assert opened.text().dim == 8
    lines = (run / "lines.txt").read_text().splitlines()
    assert lines[0].startswith("run run-") and lines[0].endswith("with drafted")
    assert any(line.startswith("train 2 loss ") for line in lines) and any(line.startswith("val 2 ") for line in lines)
    summary = run / "eval/result.json"
    assert json.loads(summary.read_text())["trials"] == 2


def test_an_extension_of_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SUPPORT / "extension_plugin/layouts/framed.py", tmp_path / "framed_package.py")
    about = tmp_path / "framed-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: framed\nVersion: 0.1\n")
    entries = "boxed = framed_package\nitself = framed_package:LAYOUT\nabsent = no_such_package\nbare = json\n"
    (about / "entry_points.txt").write_text(f"[fwdata.layouts]\n{entries}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_layout("boxed") is find_layout("itself") and "boxed" in LAYOUTS.names()
    with pytest.raises(UsageError, match=r"entry point absent = 'no_such_package' of group fwdata\.layouts: No module"):
        find_layout("absent")
    with pytest.raises(UsageError, match=r"entry point bare = 'json' of group fwdata\.layouts has no LAYOUT"):
        find_layout("bare")


def test_unknown_names_list_what_there_is(plugins: Path) -> None:
    (plugins / "mine.yaml").write_text((plugins / "toy.yaml").read_text().replace("horizontal", "frame"))
    with pytest.raises(ManifestError, match="must be 'horizontal', 'vertical', 'robotwin' or 'framed', found 'frame'"):
        load_manifest("mine")
    assert VAES.names() == ["means"] and TRACKERS.names() == ["lines"]
    (plugins / "trackers/empty.py").write_text("")
    with pytest.raises(UsageError, match=r"trackers/empty\.py has no open_sink, which a tracker needs"):
        TRACKERS.load("empty")


def test_a_layout_must_put_every_camera_inside_of_the_image(plugins: Path) -> None:
    text = (plugins / "layouts/framed.py").read_text()
    (plugins / "layouts/outside.py").write_text(text.replace("BORDER + i * width", "BORDER + 32 + i * width"))
    (plugins / "layouts/short.py").write_text(text.replace("for i in range(cameras)]", "for i in range(1)]"))
    for name, message in (("outside", "is not inside"), ("short", "has 1 tiles for 2 cameras")):
        (plugins / "mine.yaml").write_text(
            (plugins / "toy.yaml").read_text().replace("horizontal", name).replace("  size: [32, 64]\n", "")
        )
        with pytest.raises(ManifestError, match=f"layout '{name}'.* {message}"):
            load_manifest("mine")
