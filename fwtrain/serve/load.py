"""Load on a policy server: clients that ask again as soon as they are answered, and what becomes of its memory.

`fwtrain bench serve RUN` starts `fwtrain serve` in a process of its own and measures it over loopback.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from fwdata.errors import FwdataError, UsageError
from fwtrain.serve.client import PolicyClient, ServerError
from fwtrain.serve.stats import Latencies
from fwtrain.serve.wire import ServerMetadata

SETTLED = 0.25
"""Share of the time after which memory has to be flat: allocators and caches have warmed up."""


@dataclass(frozen=True)
class LoadResult:
    """What a load test measured.

    Memory and files are the server's; None where /proc does not tell.
    """

    clients: int
    """Clients that asked at the same time."""
    seconds: float
    """Length of the test."""
    requests: int
    """Requests that were answered."""
    failed: int
    """Requests that got an error, or whose connection broke."""
    per_second: float
    """Requests answered per second."""
    p50_ms: float | None
    """Median latency at the clients, ms; None where nothing was answered."""
    p95_ms: float | None
    """95th percentile of the latency, ms; None where nothing was answered."""
    p99_ms: float | None
    """99th percentile of the latency, ms; None where nothing was answered."""
    rss_mb: tuple[float, float, float] | None = None
    """Resident memory at first, when settled, and at the end, MB."""
    rss_mb_per_minute: float | None = None
    """Slope of the settled part by least squares, MB per minute; None where it has one sample."""
    handles: tuple[int, int] | None = None
    """Open files of the server when settled and at the end."""

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)


@dataclass
class _Totals:
    requests: int = 0
    failed: int = 0
    latencies: Latencies = field(default_factory=Latencies)


def observations(metadata: ServerMetadata, seed: int, count: int = 4) -> list[dict[str, object]]:
    """Random observations that fit a server's metadata: images of the size its policy was trained on, few prompts."""
    random, (height, width) = np.random.default_rng(seed), metadata["camera_size"]
    return [
        {key: random.integers(0, 256, (height, width, 3), np.uint8) for key in metadata["cameras"].values()}
        | {
            "observation/state": random.standard_normal(len(metadata["state_names"])).astype(np.float32),
            "prompt": f"load test {number}",
            "seed": seed + number,
        }
        for number in range(count)
    ]


def measure(
    host: str,
    port: int,
    *,
    pid: int | None = None,
    clients: int = 8,
    seconds: float = 20.0,
    token: str | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> LoadResult:
    """Ask a server from `clients` threads at their full rate. pid: the server's, for its memory. done: seconds passed.

    Raises ServerError when it cannot be reached, UsageError for numbers out of range.
    """
    if clients < 1 or seconds <= 0:
        raise UsageError(f"clients and seconds must be positive, found {clients} and {seconds}")
    connections = [PolicyClient(host, port, token) for _ in range(clients)]
    totals, stop = [_Totals() for _ in connections], threading.Event()
    threads = [
        threading.Thread(target=_ask, args=(connection, i, totals[i], stop)) for i, connection in enumerate(connections)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    samples = []
    while (passed := time.monotonic() - began) < seconds:
        samples.append((passed, *_process(pid)))
        time.sleep(min(1.0, seconds / 20, max(seconds - passed, 0)))
        done(1)
    stop.set()
    for thread in threads:
        thread.join()
    passed = time.monotonic() - began
    samples.append((passed, *_process(pid)))
    for connection in connections:
        connection.close()
    return _result(totals, samples, passed)


def _ask(client: PolicyClient, number: int, totals: _Totals, stop: threading.Event) -> None:
    """Ask until `stop` is set, and once however short that is."""
    scenes = observations(client.metadata, 1000 * number)
    while totals.requests == 0 or not stop.is_set():
        began = time.perf_counter()
        try:
            client.infer(scenes[totals.requests % len(scenes)])
            totals.latencies.add(time.perf_counter() - began)
        except ServerError:
            totals.failed += 1
        totals.requests += 1


def _process(pid: int | None) -> tuple[float, int]:
    """(resident memory in MB, open files) of a process; (nan, -1) where it cannot be determined."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        return int(found[1]) / 1000 if found else float("nan"), len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return float("nan"), -1


def _result(totals: Sequence[_Totals], samples: Sequence[tuple[float, float, int]], seconds: float) -> LoadResult:
    latencies = Latencies(np.sum([item.latencies.counts for item in totals], axis=0))
    requests = sum(item.requests for item in totals)
    quantiles = [latencies.quantile(share) for share in (0.5, 0.95, 0.99)]
    times, memory = np.asarray([s[0] for s in samples]), np.asarray([s[1] for s in samples])
    settled = times >= SETTLED * seconds
    settled[-1] = True
    known = bool(np.isfinite(memory).all())
    sloped = known and int(settled.sum()) > 1
    p50, p95, p99 = (None if value is None else round(1e3 * value, 2) for value in quantiles)
    return LoadResult(
        clients=len(totals),
        seconds=round(seconds, 1),
        requests=requests,
        failed=sum(item.failed for item in totals),
        per_second=round(requests / seconds, 2),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        rss_mb=(float(memory[0]), float(memory[settled][0]), float(memory[-1])) if known else None,
        rss_mb_per_minute=round(60 * float(np.polyfit(times[settled], memory[settled], 1)[0]), 3) if sloped else None,
        handles=(samples[int(np.flatnonzero(settled)[0])][2], samples[-1][2]) if known else None,
    )


@contextmanager
def served(command: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(host, port, process id) of a server started by a command that says where it listens; stopped by SIGTERM after.

    Raises FwdataError with what the command said last when it ends instead of listening.
    """
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        last = ""
        for line in process.stderr:
            last = line.strip() or last
            found = re.search(r"on ws://([^:\s]+):(\d+)", line)
            if found:
                break
        else:
            raise FwdataError(f"the server did not start: {last}")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield found[1], int(found[2]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def bench_serve(
    run: Path,
    *,
    clients: int = 8,
    seconds: float = 20.0,
    device: str = "auto",
    threads: int | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> LoadResult:
    """Serve a run in a process of its own, on loopback, and measure it."""
    extra = ["--threads", str(threads)] if threads is not None else []
    command = [sys.executable, "-m", "fwtrain", "serve", str(run), "--port", "0", "--device", device, *extra]
    with served(command) as (host, port, pid):
        return measure(host, port, pid=pid, clients=clients, seconds=seconds, done=done)
