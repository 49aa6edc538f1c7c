"""`fwdata slurm` checks the command it wraps; the script it prints does the work of its array."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from commands import Command
from fixtures import toy_store

RUNS_ARRAY = """#!/bin/bash
for word in "$@"; do case $word in --array=*) array=${word#--array=};; --*) ;; *) script=$word;; esac; done
[ -n "${array:-}" ] || array=$(sed -n 's/^#SBATCH --array=//p' "$script")
for task in $(seq "${array%-*}" "${array#*-}"); do
  SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$((${array#*-} + 1)) bash "$script"
done >> "${0%sbatch}said"
echo "7;cluster"
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return toy_store(tmp_path, monkeypatch, {"a": [3], "b": [2]})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stridee", "4"], ["No such option: --stridee", "--stride", "fwdata encode-latents --help"]),
        (["--stride", "0"], ["--stride", "greater than or equal to 1"]),
        (["--vae", "wan22"], ["no VAE 'wan22'", "did you mean 'wan2.2'?"]),
        (["--dtype", "fp16"], ["--dtype must be auto, float32 or bfloat16"]),
        (["--replace"], ["--replace needs the store for itself"]),
        (["--engine", "ray"], ["leave --engine out"]),
        (["--dry-run"], ["leave --dry-run out"]),
        (["more.zarr"], ["unexpected extra argument"]),
    ],
)
def test_a_wrong_option_of_the_command_is_refused(
    run: Command, store: Path, options: list[str], words: list[str]
) -> None:
    run("slurm", "--shards", 2, "encode-latents", store, *options).refused(2, *words)


def test_what_the_command_reads_is_looked_for(run: Command, store: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    out = ("--out", tmp_path / "new.zarr")
    run("slurm", "stitch", absent).refused(2, f"there is no store at {absent}")
    run("slurm", "encode-text", store, "--encoder", "tni").refused(2, "no text encoder 'tni'")
    run("slurm", "convert", "toy", absent, *out).refused(2, f"{absent} does not exist")
    run("slurm", "convert", "toi", tmp_path, *out).refused(2, "no converter 'toi'")
    run("slurm", "convert", "toy", tmp_path, *out, "--update").refused(2, "--update needs the store for itself")
    run("slurm", "convert", "toy", tmp_path, *out, "--on-error", "stop").refused(2, "skip or fail, found 'stop'")
    run("slurm", "--partitoin", "gpu", "stitch", store).refused(2, "fwdata slurm has no option --partitoin")
    run("slurm", "--partition", "my gpus", "stitch", store).refused(2, "--partition 'my gpus'", "without spaces")
    assert "has 2 units for 16 tasks: 14 of them will find nothing to do" in run("slurm", "stitch", store).err


def test_a_script_with_awkward_paths_does_the_work_of_its_array(run: Command, store: Path, tmp_path: Path) -> None:
    awkward = store.rename(tmp_path / "it's my $store.zarr")
    script = tmp_path / "my job.sh"
    script.write_text(run("slurm", "--shards", 2, "stitch", awkward).out)
    for name, text in (("sbatch", RUNS_ARRAY), ("fwdata", '#!/bin/bash\nprintf "%q " "$@"; echo\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", script], env=environment, check=True, capture_output=True)
    said = [shlex.split(line) for line in (tmp_path / "said").read_text().splitlines()]
    assert said == [["stitch", str(awkward), "--shard", shard] for shard in ("0/2", "1/2", "0/1")]
