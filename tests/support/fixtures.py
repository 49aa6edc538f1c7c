"""Shared helpers of the data tests: small recordings of the toy format, and conversions of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from paths import DATA, SUPPORT
from robotwin_files import write_task

from fwdata.manifest import Manifest, load_manifest
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.results import ConvertReport
from fwdata.pipeline.run import convert

PLUGINS = SUPPORT / "toy_plugin"
ROBOTWIN = DATA / "robotwin"
CELL = 8


def toy_arrays(frames: int, seed: int) -> dict[str, NDArray[Any]]:
    """One toy recording: blocky pictures (each frame different), smooth rows."""
    rng = np.random.default_rng(seed)

    def pictures() -> NDArray[np.uint8]:
        cells = rng.integers(0, 256, (frames, 32 // CELL, 32 // CELL, 3), np.uint8)
        return cells.repeat(CELL, 1).repeat(CELL, 2)

    rows = np.cumsum(rng.normal(0, 0.1, (frames + 1, 2)), 0).astype(np.float32)
    text = np.array(f"move to spot {seed % 3}")
    return {"overhead": pictures(), "wrist": pictures(), "state": rows[:-1], "action": rows[1:], "text": text}


def save(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to a .npz file."""
    np.savez(path, allow_pickle=False, **arrays)


def write_toy(root: Path, tasks: Mapping[str, Sequence[int]], seed: int = 0) -> Path:
    """Write toy recordings; tasks: task name -> frame counts of its episodes. Deterministic."""
    for task, lengths in tasks.items():
        (root / task).mkdir(parents=True, exist_ok=True)
        for index, frames in enumerate(lengths):
            save(root / task / f"take{index}.npz", toy_arrays(frames, seed))
            seed += 1
    return root


def toy_manifest(monkeypatch: pytest.MonkeyPatch, **changes: object) -> Manifest:
    """The toy manifest, with its plug-in folder set for this test."""
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    return load_manifest("toy").model_copy(update=changes)


def run_convert(
    raw: Path | Sequence[Path], out: Path, manifest: Manifest, workers: int = 0, on_error: str = "skip", **bounds: Any
) -> ConvertReport:
    """Convert in this process (workers 0), without a progress display."""
    roots = (raw,) if isinstance(raw, Path) else tuple(raw)
    request = ConvertRequest(manifest.converter, roots, out, manifest, workers, on_error, **bounds)
    return convert(request, lambda plan: None, lambda episodes, frames: None)


def toy_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: Mapping[str, Sequence[int]], **changes: object
) -> Path:
    """A converted toy store at tmp_path/toy.zarr; its recordings are in tmp_path/raw."""
    raw = write_toy(tmp_path / "raw", tasks)
    run_convert(raw, tmp_path / "toy.zarr", toy_manifest(monkeypatch, **changes))
    return tmp_path / "toy.zarr"


def robotwin_store(tmp_path: Path, episodes: int = 3, frames: int = 8) -> Path:
    """A converted RoboTwin store (classic, small pictures) at tmp_path/rt.zarr; recordings in tmp_path/rt."""
    write_task(tmp_path / "rt", "classic", "beat_block_hammer", range(episodes), num_frames=frames)
    write_task(tmp_path / "rt", "classic", "click_bell", range(1), num_frames=frames)
    run_convert(tmp_path / "rt", tmp_path / "rt.zarr", load_manifest("robotwin-sample"))
    return tmp_path / "rt.zarr"


def tree(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by relative path; of a store, not of the times of its recordings' files, nor
    of the verdicts of its first episodes, which an update does not measure again."""
    found = {}
    for place, _, files in os.walk(folder):
        below = Path(place).relative_to(folder)
        for name in files:
            if below.parent.as_posix() == "sources" or (below / name).as_posix() == "evidence/zarr.json":
                continue
            found[(below / name).as_posix()] = hashlib.sha256(Path(place, name).read_bytes()).hexdigest()
    return found


def killed(action: Callable[[], object], at_write: int) -> bool:
    """Run in a forked process that dies at its n-th write, after the bytes and before the name; whether it died."""
    child = os.fork()
    if not child:
        count = 0

        def dying_fsync(descriptor: object) -> None:
            nonlocal count
            count += 1
            if count == at_write:
                os._exit(9)

        os.fsync = dying_fsync  # type: ignore[assignment]
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """(mtime, inode) of every file and folder below a folder."""
    return {p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*")}


def flip_bit(path: Path, rng: np.random.Generator) -> None:
    """Flip one random bit of a file in place."""
    data = bytearray(path.read_bytes())
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


class FakeForward:
    """A forward of FakeVae, done already."""

    seconds = 0.001

    def __init__(self, latents: NDArray[np.float16]) -> None:
        self.latents = latents

    def result(self) -> NDArray[np.float16]:
        return self.latents


class FakeVae:
    """Stands for a VAE in tests of caches: cell means of the pictures, so that every latent tells which frames it saw.

    Latent 0 holds cell means of frame 0, latent k those of the 4 frames of its group. Counts its calls.
    """

    channels, spatial_stride, temporal_stride, ahead = 3, 16, 4, 0

    def __init__(self, spec: str = "fake", **config: object) -> None:
        self.spec, self.config, self.calls = spec, config, 0
        self.fail_after: int | None = None

    def identity(self) -> dict[str, Any]:
        return {"name": self.spec, "config": self.config}

    def submit(self, clips: list[NDArray[np.uint8]]) -> FakeForward:
        return FakeForward(np.stack([self.encode(clip) for clip in clips]))

    def encode(self, clip: NDArray[np.uint8]) -> NDArray[np.float16]:
        self.calls += 1
        if self.fail_after is not None and self.calls > self.fail_after:
            raise KeyboardInterrupt
        count, height, width, _ = clip.shape
        cells = clip.reshape(count, height // 16, 16, width // 16, 16, 3).mean((2, 4)) / 255
        groups = [cells[:1], *(cells[i : i + 4] for i in range(1, count, 4))]
        weights = np.array([1.0, 0.5, 0.25, 0.125])
        latents = [np.tensordot(weights[: len(g)], g, 1) for g in groups]
        return np.stack(latents, -1).transpose(2, 3, 0, 1).astype(np.float16)


QUICKSTART_VALUES: dict[str, dict[str, Any]] = {
    "sample": {"episodes": 2, "frames": 80, "bytes": 2000},
    "convert": {"episodes": 2, "new_episodes": 2},
    "stats": {"num_episodes": 1, "num_transition": 40},
    "text": {"encoded": 2, "prompts": 2},
    "latents": {"first": 80, "latents_per_second": 12.5, "vae_share": 0.9},
    "inspect": {"episodes": 2, "frames": 80, "fps": 50 / 3, "bytes": 3000, "cameras": {"a": {}}},
    "train": {
        "step": 320, "total": 320, "loss": 0.5, "video_loss": 0.4, "action_loss": 0.1, "steps_per_s": 2.0,
        "samples_per_s": 64.0, "data_wait": 0.01,
    },
    "predict": {"action": [[0.0] * 14] * 32, "names": ["x"] * 14},
    "trained": {"rate": 0.95, "episodes": 20},
    "untrained": {"rate": 0.0, "episodes": 20},
}  # fmt: skip
"""What the commands of a quickstart print, by its steps."""
