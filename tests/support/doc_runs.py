"""How blocks of the documentation are run without a GPU: what comes before them, and what is made smaller."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
from contextlib import suppress
from pathlib import Path

from paths import ROOT
from warm import WarmPrograms

NEEDS = frozenset({"gpu", "simulator", "slurm", "several machines", "a quiet machine", "network", "download"})
"""What a block that no test runs may need: hardware, programs or files that a test has not."""

TINY = "--recipe tiny --steps 2 --threads 1 --set validation.pictures=0"
SMALLER = (
    (r"--encoder umt5-xxl", "--encoder tiny"),
    (r"--vae wan2\.2(?! --stride)", "--vae tiny --stride 8"),
    (r"--vae wan2\.2", "--vae tiny"),
    (r"fwtrain run (.*) --recipe \w+ --out (\S+)", rf"fwtrain run \1 {TINY} --out \2"),
    (r"plan --recipe (?:libero|generic)", "plan --recipe tiny"),
    (r"convert robotwin (\S+)", r"convert robotwin \1 --manifest robotwin-sample"),
    (r"--nproc-per-node 8 -m fwtrain run", "--nproc-per-node 2 -m fwtrain run"),
    (r"--device cuda", "--device cpu"),
    (r"--steps 1,2,4", "--steps 2"),
    (r"--env sample", "--env sample --train-steps 1 --batch-size 2 --episodes 1 --threads 1"),
    (r"(export lerobot runs/\S+ \S+)", r"\1 --any-encoder"),
    (r"(fwtrain eval .*--server \S+)", r"\1 --episodes 1"),
    (r"(doctor raw/mybot .*)", r"\1 || [ $? = 2 ]"),  # it finds what --accept takes above
    (r"--clients 8 --seconds 300", "--clients 2 --seconds 2"),
    (r"export AWS_ACCESS_KEY_ID=.*", ""),
    (r"/scratch/", "scratch/"),
    (r"\b8000\b", "PORT"),
    (r"fwtrain serve (?!.*--port)", "fwtrain serve --port PORT "),
)
"""Pattern and replacement, in this order: published weights, sizes and counts become those of the tests."""

SAMPLE = """
fwdata sample robotwin --episodes 4 --out RAW
fwdata convert robotwin RAW --out data/robotwin.zarr --manifest robotwin-sample
"""
TRAINED = f"""{SAMPLE}
fwdata encode-text data/robotwin.zarr --encoder tiny
fwdata encode-latents data/robotwin.zarr --vae tiny --stride 8
fwtrain run data/robotwin.zarr --out runs/rt {TINY}
for copy in runs/libero runs/robotwin; do cp -r runs/rt $copy; done
for copy in data/rt.zarr STORE; do cp -r data/robotwin.zarr $copy; done
"""
PREPARED = {
    "README.md": f"""
fwdata sample robotwin --episodes 2 --out RAW_DIR
mkdir -p mybot RAW/task
cp {ROOT}/tests/support/toy_plugin/toy.py mybot/mybot.py
sed 's/: toy$/: mybot/' {ROOT}/tests/support/toy_plugin/toy.yaml > mybot/mybot.yaml
python -c "
import sys; sys.path.insert(0, '{ROOT}/tests/support')
from pathlib import Path
from fixtures import write_toy
write_toy(Path('RAW'), {{'task': [9]}})"
""",
    "docs/LIBERO.md": "fwdata sample libero --episodes 2 --out RAW_OR_REGENERATED",
    "docs/deploy.md": TRAINED,
    "docs/cluster.md": TRAINED + "fwdata copy data/robotwin.zarr s3://bucket/robotwin.zarr",
    "docs/storage.md": SAMPLE,
}
"""Shell commands that are run before the blocks of a page: the recordings, stores and runs that its reader has."""


def smaller(text: str, port: int) -> str:
    """A block as a test runs it."""
    for pattern, replacement in SMALLER:
        text = re.sub(pattern, replacement, text)
    return text.replace("PORT", str(port))


def free_port() -> int:
    """A port of this machine that nothing listens on: of the process's own ten, and none that the system gives away
    by itself until a server of the page takes it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first = 1024 + os.getpid() * 10 % (lowest - 1034)
    for port in range(first, first + 10):
        with socket.socket() as taken, suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"ports {first} to {first + 9} are in use")


PROGRAM = """#!/bin/sh
exec {command} "$@"
"""
SERVER = """#!/bin/sh
if [ "$1" != serve ]; then exec {command} "$@"; fi
if [ -f {folder}/server.pid ]; then
  kill "$(cat {folder}/server.pid)"
  while [ -f {folder}/alive ]; do sleep 0.1; done
fi
rm -f {folder}/server.log
touch {folder}/alive
(
  {command} "$@" > {folder}/server.log 2>&1 &
  echo $! > {folder}/server.pid
  wait
  rm -f {folder}/alive
) > /dev/null 2>&1 &
for try in $(seq 600); do
  if grep -q 'ws://' {folder}/server.log 2> /dev/null; then exit 0; fi
  if [ ! -f {folder}/alive ]; then cat {folder}/server.log; exit 1; fi
  sleep 0.1
done
exit 1
"""
"""A server is left running, as in another terminal; the next one takes its place."""


def programs(folder: Path, warm: WarmPrograms) -> Path:
    """A folder for PATH with the commands of the documentation; `server.pid` appears in it for a server."""
    folder.mkdir()
    commands = {"fwdata": warm("fwdata"), "torchrun": warm("torch.distributed.run"), "python": (sys.executable,)}
    for name, command in commands.items():
        (folder / name).write_text(PROGRAM.format(command=shlex.join(command)))
    (folder / "fwtrain").write_text(SERVER.format(command=shlex.join(warm("fwtrain")), folder=folder))
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder
