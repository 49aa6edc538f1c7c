"""A Slurm array script for a command whose units can be spread, with the job that finishes it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from fwdata.errors import UsageError

COMMANDS = ("convert", "stitch", "encode-latents", "encode-text")
"""Commands that take `--shard`."""

_TIME = re.compile(r"\d+(:\d\d?){0,2}|\d+-\d\d?(:\d\d?){0,2}|infinite|unlimited", re.IGNORECASE)
_MEMORY = re.compile(r"\d+[KMGT]?", re.IGNORECASE)


@dataclass(frozen=True)
class SlurmRequest:
    """What a script asks Slurm for."""

    command: tuple[str, ...]
    """The command and its arguments, without "fwdata" and `--shard`."""
    shards: int
    """Tasks of the array."""
    at_once: int | None = None
    """Tasks that run at the same time at most; None: as many as Slurm lets."""
    gpus: int = 0
    """GPUs of a task."""
    cpus: int = 8
    """CPU cores of a task."""
    memory: str = "32G"
    """Host memory of a task, as Slurm writes it."""
    time: str = "12:00:00"
    """Longest time of a task, as Slurm writes it."""
    partition: str | None = None
    """Slurm partition; None: the default one."""
    account: str | None = None
    """Account that is charged; None: the default one."""


def slurm_script(request: SlurmRequest) -> str:
    """The script. `bash SCRIPT` submits the array and the finishing job, `sbatch SCRIPT` the array alone.

    UsageError for a command without shards, or a time, memory, partition or account that Slurm does not read.
    """
    name = request.command[0] if request.command else ""
    if name.startswith("-"):
        raise UsageError(f"fwdata slurm has no option {name}; options of the command follow its name")
    if name not in COMMANDS:
        raise UsageError(f"fwdata slurm {name}: expected one of {', '.join(COMMANDS)}, with its arguments")
    if any(word == "--shard" or word.startswith("--shard=") for word in request.command):
        raise UsageError("fwdata slurm: leave --shard out, the script sets it")
    if request.shards < 1:
        raise UsageError(f"--shards must be at least 1, found {request.shards}")
    if not _TIME.fullmatch(request.time):
        raise UsageError(f"--time {request.time}: expected minutes, HH:MM:SS or D-HH:MM:SS, such as 12:00:00")
    if not _MEMORY.fullmatch(request.memory):
        raise UsageError(f"--mem {request.memory}: expected a number and K, M, G or T, such as 32G")
    for option, value in (("--partition", request.partition), ("--account", request.account)):
        if value is not None and not re.fullmatch(r"[\w.,:@/+-]+", value):
            raise UsageError(f"{option} {value!r}: expected a name without spaces")
    most = f"%{request.at_once}" if request.at_once else ""
    options = [
        f"--job-name=fwdata-{name}",
        f"--array=0-{request.shards - 1}{most}",
        f"--cpus-per-task={request.cpus}",
        f"--mem={request.memory}",
        f"--time={request.time}",
        *([f"--gpus-per-task={request.gpus}", "--ntasks=1"] if request.gpus else []),
        *([f"--partition={request.partition}"] if request.partition else []),
        *([f"--account={request.account}"] if request.account else []),
        "--requeue",
        "--open-mode=append",
        "--signal=B:USR1@120",
        "--output=fwdata-%x-%A_%a.out",
    ]
    head = "\n".join(f"#SBATCH {option}" for option in options)
    return _SCRIPT.format(head=head, shards=request.shards, command=shlex.join(["fwdata", *_words(request.command)]))


def _words(command: Sequence[str]) -> list[str]:
    return [str(word) for word in command]


_SCRIPT = """\
#!/bin/bash
{head}
# bash THIS_FILE: submits the array, and one task that does what failed tasks left when all have ended.
# sbatch THIS_FILE: submits the array alone; the store is complete when its last task ends.
set -euo pipefail
if [ -z "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
  array=$(sbatch --parsable "$0")
  sbatch --dependency="afterany:${{array%%;*}}" --array=0-0 "$0"
  exit
fi
export OMP_NUM_THREADS=1
trap 'scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"' USR1  # two minutes before the time limit
tasks=$SLURM_ARRAY_TASK_COUNT
[ "$SLURM_ARRAY_TASK_ID" -lt "$tasks" ] || tasks={shards}  # some tasks again, as by sbatch --array=3,7 THIS_FILE
{command} --shard "$SLURM_ARRAY_TASK_ID/$tasks" &
wait $!
"""
