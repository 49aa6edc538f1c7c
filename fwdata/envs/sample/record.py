"""Recordings of the sample world in the formats of real robots."""

from __future__ import annotations

from pathlib import Path

from fwdata.envs.sample.request import SampleReport
from fwdata.errors import UsageError

FORMATS = ("robotwin", "lerobot", "r1lite", "libero")
"""Formats that recordings of the world are written in: two arms in RoboTwin's, LeRobot's and the R1 Lite's, one arm in
LIBERO's."""


def write_sample(
    kind: str,
    out: Path,
    episodes: int,
    seed: int = 0,
    *,
    camera_size: tuple[int, int] | None = None,
    variant: str | None = None,
) -> SampleReport:
    """Write `episodes` expert recordings of the sample world to `out`, in the on-disk format of `kind`.

    camera_size: (height, width) of every camera, by default 64x64 for libero and else 48x64. variant: which generation
    of the format ("classic" or "v1.0" for robotwin), the most common one by default. Same arguments give the same
    bytes; a rerun goes on where it stopped.

    Raises UsageError for an unknown kind or variant, a wrong number, or a folder that holds other recordings;
    FwdataError when the disk refuses a file. About 0.12 s of one core per episode at 64x48.
    """
    if kind not in FORMATS:
        raise UsageError(f"the sample world has no kind {kind!r}; available: {', '.join(FORMATS)}")
    camera_size = camera_size or ((64, 64) if kind == "libero" else (48, 64))
    if kind != "robotwin" and variant is not None:
        raise UsageError(f"{kind} has no variant {variant!r} here")
    if kind == "lerobot":
        from fwdata.envs.sample.record_lerobot import write_lerobot

        return write_lerobot(out, episodes, seed, camera_size=camera_size)
    if kind == "r1lite":
        from fwdata.envs.sample.record_r1lite import write_r1lite

        return write_r1lite(out, episodes, seed, camera_size=camera_size)
    if kind == "libero":
        from fwdata.envs.sample.record_libero import write_libero

        return write_libero(out, episodes, seed, camera_size=camera_size)
    from fwdata.envs.sample.record_robotwin import write_robotwin

    return write_robotwin(out, episodes, seed, camera_size=camera_size, variant=variant or "classic")
