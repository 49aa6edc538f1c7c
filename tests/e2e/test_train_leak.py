"""A long run leaks nothing. FWTRAIN_LEAK_STEPS=20000 makes it long; FWTRAIN_LEAK_STORE reads a store from disk."""

from __future__ import annotations

import gc
import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fake_store import FakeStore
from training import recipe

import fwdata
from fwtrain.train.run import train

STEPS = int(os.environ.get("FWTRAIN_LEAK_STEPS", "600"))
WARM = 0.4
"""Share of the run whose growth does not count: caches and the allocator fill."""


def resident() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def shared() -> int:
    """Files in shared memory that are this process's: mapped, open, or torch's with its number in their name."""
    found = {str(path) for path in Path("/dev/shm").glob(f"*_{os.getpid()}_*")}
    found |= set(re.findall("/dev/shm/.*", Path("/proc/self/maps").read_text()))
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(path.readlink()))
    return sum(place.startswith("/dev/shm/") for place in found)


@pytest.mark.slow
def test_memory_and_handles_stay_flat(tmp_path: Path):
    every, samples = max(STEPS // 100, 1), []
    calls = 0
    before = shared()

    def sample() -> bool:
        nonlocal calls
        if calls % every == 0:
            gc.collect()
            samples.append((calls, resident(), len(list(Path("/proc/self/fd").iterdir()))))
        calls += 1
        return False

    place = os.environ.get("FWTRAIN_LEAK_STORE")
    extra = ("save_every=50", "eval_every=100", "keep_last=2", "data.workers=2", "data.video_fraction=0.5")
    chosen = recipe(f"optim.steps={STEPS}", *extra)
    train(fwdata.open(place) if place else FakeStore(), chosen, tmp_path, should_stop=sample)
    warm = [item for item in samples if item[0] >= WARM * STEPS]
    steps, memory, handles = (np.asarray(column, dtype=float) for column in zip(*warm, strict=True))
    slope = np.polyfit(steps, memory, 1)[0]
    print(
        f"{STEPS} steps: resident {memory[0] / 2**20:.1f} MiB after warm-up, {memory[-1] / 2**20:.1f} MiB at the end, "
        f"{slope:.0f} bytes a step; handles {handles[0]:.0f} to {handles[-1]:.0f}; shared {before} to {shared()}"
    )
    assert slope * 20_000 < 64 << 20  # bytes that 20,000 steps would add
    assert handles[-1] <= handles[0]
    assert shared() <= before
