"""The `fwdata` command: exit codes, one-sentence errors, and JSON alone on stdout."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from commands import Command, Ran
from fixtures import (
    PLUGINS,
    flip_bit,
    stamps,
    toy_store,
    tree,
    write_toy,
)
from libero_files import write_file

import fwdata
from fwdata.cli import app
from fwdata.store.files import write_lock


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "raw", {"a": [3, 4], "b": [5]})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return toy_store(tmp_path, monkeypatch, {"a": [3, 4], "b": [5]})


def commands() -> dict[str, Any]:
    """Every command of the app by its full name, nested ones included."""
    found: dict[str, Any] = {}

    def walk(prefix: str, command: Any) -> None:
        children = getattr(command, "commands", None)
        if children is None:
            found[prefix] = command
        for name, child in (children or {}).items():
            walk(f"{prefix} {name}".strip(), child)

    walk("", typer.main.get_command(app))
    return found


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_has_help_with_an_example(name: str, run: Command) -> None:
    ran = run(*name.split(), "--help")
    assert ran.code == 0 and ran.err == ""
    assert "Example:" in ran.out and f"fwdata {name}" in " ".join(ran.out.split())


def test_the_documented_commands_exist() -> None:
    assert {
        *("convert", "inspect", "stitch", "stats", "encode-text", "encode-latents", "verify", "preview"),
        *("quickstart", "sample"),
    } <= set(commands())


def test_convert_reports_and_repeats(run: Command, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    ran = run("convert", "toy", raw, "--out", out, "--workers", 0, "--json")
    assert ran.code == 0
    assert "stop" not in {verdict["action"] for verdict in ran.json["evidence"]}
    assert {key: value for key, value in ran.json.items() if key != "evidence"} | {"seconds": 0} == {
        "out": str(out),
        "episodes": 3,
        "frames": 12,
        "new_episodes": 3,
        "new_frames": 12,
        "seconds": 0,
        "quarantined": [],
        "warnings": [],
        "recordings": [
            {"source": f"{name}.npz", "outcome": "converted", "frames": n, "reason": "", "warnings": [], "new": True}
            for name, n in (("a/take0", 3), ("a/take1", 4), ("b/take0", 5))
        ],
        "changed": [],
        "outdated": None,
        "updated": [],
        "view_changed": [],
        "left_out": [],
        "warning_kinds": [],
    }
    before = stamps(out)
    again = run("convert", "toy", raw, "--out", out, "--workers", 0)
    assert again.code == 0 and "3 episodes, 12 frames" in again.out and stamps(out) == before


def test_convert_with_bad_recordings_ends_with_3(run: Command, raw: Path, tmp_path: Path) -> None:
    (raw / "a" / "take0.npz").write_bytes(b"PK")
    arguments = ("convert", "toy", raw, "--workers", 0)
    ran = run(*arguments, "--out", tmp_path / "s.zarr", "--json")
    assert ran.code == 3 and ran.json["episodes"] == 2
    assert [q["source"] for q in ran.json["quarantined"]] == ["a/take0.npz"]
    assert ran.err.startswith("quarantined: a/take0.npz: cannot be read")
    assert run(*arguments, "--out", tmp_path / "s.zarr").code == 3
    run(*arguments, "--out", tmp_path / "t.zarr", "--on-error", "fail").refused(2, "a/take0.npz", "cannot be read")


def test_convert_dry_run_and_options(run: Command, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    arguments = ("convert", "toy", raw, "--out", out, "--workers", 0, "--dry-run")
    ran = run(*arguments, "--json")
    assert (ran.code, ran.json["episodes"], ran.json["pending_parts"]) == (0, 3, 2)
    assert [(g["name"], g["episodes"], g["frames_known"]) for g in ran.json["groups"]] == [
        ("a", 2, False),
        ("b", 1, False),
    ]
    assert ran.json["groups"][0]["frames"] >= 6 and ran.json["expected"]["store_bytes"] > 0
    shown = run(*arguments).out
    assert "3 episodes, about" in shown and "expected: a store of" in shown and "a/take0.npz read in" in shown
    assert not out.exists()
    assert run("convert", "toy", raw, "--out", out, "--workers", 0, "--set", "prefix=now-").code == 0
    assert fwdata.open(out).episodes[0].instruction.startswith("now-move")


@pytest.mark.slow
def test_convert_refuses_wrong_input(run: Command, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    run("convert", "tpy", raw, "--out", out).refused(2, "no converter 'tpy'; did you mean 'toy'")
    run("convert", "toy", tmp_path / "none", "--out", out).refused(2, f"no folder {tmp_path}/none")
    run("convert", "toy", tmp_path / "empty", "--out", out).refused(2, "holds no .npz recording")
    run("convert", "toy", raw, "--out", tmp_path / "file").refused(2, "is a file")
    run("convert", "toy", raw, "--out", raw).refused(2, "is not an fwdata store")
    run("convert", "toy", raw, "--out", out, "--manifest", "robtwin").refused(2, "did you mean 'robotwin'")
    run("convert", "toy", raw, "--out", out, "--set", "prefx=1").refused(2, "did you mean 'prefix'")
    run("convert", "toy", raw, "--out", out, "--set", "prefix").refused(2, "key=value")
    run("convert", "toy", raw, "--out", out, "--set", "prefix=[").refused(2, "not a valid value")
    run("convert", "toy", raw, "--out", out, "--on-error", "stop").refused(2, "skip or fail, found 'stop'")
    run("convert", "toy", raw, "--out", out, "--workers", -1).refused(2, "--workers")
    run("convert", "toy", raw).refused(2, "--out", "fwdata convert --help")
    run("convert", "toy", raw, "--outt", out).refused(2, "--outt")
    run("convrt", "toy").refused(2, "convrt")
    assert not out.exists()


@pytest.mark.slow
def test_convert_to_another_manifests_store_ends_with_4(run: Command, raw: Path, store: Path, tmp_path: Path) -> None:
    ran = run("convert", "toy", raw, "--out", store, "--set", "prefix=x")
    ran.refused(4, "options.prefix is '', asked for x")
    assert "options is" not in ran.err
    libero = tmp_path / "libero"
    write_file(libero / "libero_goal" / "turn_on_the_stove_demo.hdf5", [0])
    run("convert", "libero", libero, "--out", store).refused(
        4, "was converted from toy recordings, these are to be lib"
    )
    run("convert", "libero", libero, "--out", tmp_path / "l.zarr", "--resize", "256").refused(
        2, "resize: needs 2 values"
    )


def test_full_disk_is_one_sentence(
    run: Command, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        ran = run("convert", "toy", raw, "--out", tmp_path / "s.zarr", "--workers", 0)
        ran.refused(1, f"the disk is full while using {tmp_path / 's.zarr'}", "run the same command again")
        encoded = run("encode-latents", store, "--vae", "fake", "--workers", 1)
        encoded.refused(1, f"the disk is full while using {store}")
    assert run("convert", "toy", raw, "--out", tmp_path / "s.zarr", "--workers", 0).code == 0
    assert tree(tmp_path / "s.zarr") == tree(store)
    assert run("encode-latents", store, "--vae", "fake", "--workers", 1).code == 0


def test_interrupt_says_that_a_rerun_continues(
    run: Command, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    run("convert", "toy", raw, "--out", tmp_path / "s.zarr", "--workers", 0).refused(
        130, "interrupted", "same command again"
    )


def test_inspect_prints_the_contract(run: Command, store: Path) -> None:
    ran = run("inspect", store, "--json")
    assert ran.code == 0 and ran.err == ""
    assert ran.json.keys() >= {
        *("layout_version", "source", "fps", "episodes", "frames", "tasks", "cameras", "stitch_layout", "stitched"),
        *("state_names", "action_names", "latents", "text", "stats", "bytes", "decisions", "quarantined"),
    }
    assert ran.json["cameras"]["wrist"] | {"channel_order": 0} == {
        "height": 32,
        "width": 32,
        "encoding": "raw",
        "channel_order": 0,
    }
    shown = run("inspect", store).out
    assert "3" in shown and "overhead" in shown and "fwdata stats" in shown
    run("inspect", store.parent / "none").refused(2, "there is no store at", "fwdata convert")
    run("inspect", store / "parts").refused(2, "is not an fwdata store")


@pytest.mark.slow
def test_inspect_lists_caches(run: Command, store: Path) -> None:
    assert run("encode-latents", store, "--vae", "fake", "--stride", 2, "--workers", 1).code == 0
    assert run("encode-text", store, "--encoder", "tiny", "--json").json == {
        "name": "default",
        "prompts": 3,
        "encoded": 3,
    }
    assert run("stats", store).code == 0 and run("stitch", store).code == 0
    found = run("inspect", store, "--json").json
    cache = fwdata.open(store).latents()
    assert found["latents"] == [
        {
            "name": "default",
            "fingerprint": cache.fingerprint,
            "vae": "fake",
            "stride": 2,
            "windows": 7,
            "frames": 12,
            "complete": True,
            "differs_from_view": [],
        }
    ]
    assert found["text"] == [{"name": "default", "encoder": "tiny", "prompts": 3, "differs_from_view": []}]
    assert found["stats"] is True and found["stitched"]["materialised"] is True
    shown = run("inspect", store).out
    assert "stride 2" in shown and "materialised" in shown and "3 prompts" in shown
    assert run("verify", store).code == 0


@pytest.mark.slow
def test_caches_report_json_and_refuse_mismatches(run: Command, store: Path) -> None:
    dry = run("encode-latents", store, "--vae", "fake", "--dry-run", "--json")
    assert dry.json["frames"] == dry.json["windows"] == 12 and not (store / "latents").exists()
    ran = run("encode-latents", store, "--vae", "fake", "--json", "--workers", 1)
    assert (ran.code, ran.json["first"], ran.json["windows"]) == (0, 12, 12)
    assert run("encode-latents", store, "--vae", "fake").out.endswith("is complete already\n")
    run("encode-latents", store, "--vae", "other").refused(4, "vae.name is fake, asked for other", "--replace")
    run("encode-latents", store, "--vae", "fake", "--stride", 3).refused(4, "stride is 1, asked for 3")
    run("encode-latents", store, "--vae", "fake", "--stride", 0).refused(2, "--stride")
    run("encode-latents", store, "--vae", "fake", "--name", "a/b").refused(2, "--name 'a/b'")
    run("encode-text", store, "--encoder", "tiny", "--instructions", "some").refused(2, "canonical or all")
    run("encode-text", store, "--encoder", "tinny").refused(2, "tinny")
    assert run("stitch", store, "--json").json == {"frames": 12}
    assert "already" in run("stitch", store).out


def test_unknown_vae_gets_one_sentence(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run = Command(monkeypatch, capsys)  # with the real loader
    run("encode-latents", store, "--vae", "tinny").refused(2, "tinny")
    assert not (store / "latents").exists()


def test_stats_export_and_refusals(run: Command, store: Path, tmp_path: Path) -> None:
    ran = run("stats", store, "--export", tmp_path / "dataset_stats.json", "--json")
    assert ran.code == 0
    assert ran.json == json.loads((tmp_path / "dataset_stats.json").read_text())
    assert [file.name for file in (store / "stats").iterdir()] == ["zarr.json"]
    shown = run("stats", store).out
    assert "state" in shown and "action" in shown and "3 training episodes, 12 frames" in shown


def test_unfinished_stores_are_not_encoded(run: Command, store: Path) -> None:
    (store / "parts" / "p00001" / "zarr.json").unlink()
    for arguments in (("encode-latents", store, "--vae", "fake"), ("encode-text", store, "--encoder", "tiny")):
        run(*arguments).refused(2, "not wholly converted yet", "fwdata convert")
    assert run("inspect", store, "--json").json["complete"] is False


def test_a_second_writer_is_refused(run: Command, raw: Path, store: Path) -> None:
    write_toy(raw, {"c": [2]})
    with write_lock(store):
        run("convert", "toy", raw, "--out", store).refused(2, "is being written by process", str(os.getpid()))
        run("encode-latents", store, "--vae", "fake").refused(2, "is being written by")


def test_verify_ends_with_4_and_names_the_file(run: Command, store: Path) -> None:
    files = sum(path.is_file() for path in store.rglob("*"))
    assert run("verify", store, "--json").json["files"] == files
    assert f"{files} files" in run("verify", store).out
    victim = store / "parts" / "p00001" / "lowdim" / "state" / "c" / "0" / "0"
    flip_bit(victim, np.random.default_rng(0))
    ran = run("verify", store)
    assert ran.code == 4 and f"damaged: {victim} was changed" in ran.err and "1 damaged" in ran.out
    ran = run("verify", store, "--json")
    assert ran.code == 4 and len(ran.json["damaged"]) == 1
    run("stats", store).refused(4, "checksum does not hold", "p00001/lowdim/state")


def fresh(*arguments: object, **environment: str) -> Ran:
    """`fwdata ARGUMENTS` in a new process."""
    found = subprocess.run(
        [sys.executable, "-m", "fwdata", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "FWDATA_PLUGINS": str(PLUGINS), **environment},
        check=False,
    )
    return Ran(found.returncode, found.stdout, found.stderr)


@pytest.mark.slow
def test_the_real_process_keeps_its_streams_apart(raw: Path, tmp_path: Path) -> None:
    (raw / "b" / "take0.npz").write_bytes(b"")
    ran = fresh("convert", "toy", raw, "--out", tmp_path / "s.zarr", "--workers", 1, "--json")
    assert ran.code == 3 and ran.json["episodes"] == 2 and "b/take0.npz" in ran.err


def test_no_arguments_print_the_help(run: Command) -> None:
    ran = run()
    assert ran.code == 2 and "convert" in ran.out + ran.err and "Traceback" not in ran.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(run: Command, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    ran = run("convert", "toy", raw, "--out", tmp_path / "locked" / "s.zarr")
    ran.refused(1, "permission denied", "choose another place")


def test_a_damaged_store_is_not_converted_into(run: Command, raw: Path, store: Path) -> None:
    shutil.copy(store / "parts" / "zarr.json", store / "plan" / "zarr.json")
    run("convert", "toy", raw, "--out", store).refused(4, "has no fwdata attributes; the file is damaged")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fwdata", "fwtrain"])
def test_version_and_help(name: str) -> None:
    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name(name)
        return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)

    assert ran("--version").stdout == f"{name} {fwdata.__version__}\n"
    bare = ran()
    assert bare.returncode == 2 and bare.stderr.startswith(f"Usage: {name} ") and "Example: " in bare.stderr
    assert ran("bench").stderr.startswith(f"Usage: {name} bench ")
