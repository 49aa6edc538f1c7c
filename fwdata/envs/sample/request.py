"""What is asked of a recorder of the sample world, and what it answers, for all formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import FwdataError, UsageError
from fwdata.io import write_atomic


@dataclass(frozen=True)
class SampleReport:
    """What a folder of sample recordings holds after writing."""

    kind: str
    """Which dataset's format was written."""
    root: Path
    """The folder to convert."""
    episodes: int
    """Recordings in the folder."""
    frames: int
    """Their frames, counted once for all cameras."""
    bytes: int
    """Size of the recordings themselves."""
    written: int
    """Recordings made by this call; the others were there already."""


def check_request(out: Path, episodes: int, seed: int, camera_size: tuple[int, int]) -> None:
    """UsageError for numbers no format can take, or an `out` that is a file."""
    if episodes < 1 or seed < 0:
        raise UsageError(f"episodes must be at least 1 and seed not negative, found {episodes} and {seed}")
    height, width = camera_size
    if min(camera_size) < 16 or height % 2 or width % 2:
        raise UsageError(f"camera size must be even and at least 16x16 pixels, found {width}x{height} (width x height)")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the recordings")


def begin_folder(out: Path, seed: int, camera_size: tuple[int, int]) -> None:
    """Note in OUT/seed.txt what the recordings are drawn from, so that a rerun goes on with the same.

    camera_size: (height, width). UsageError for a folder with other recordings or other files.
    """
    drawn, marker = f"{seed} {camera_size[0]}x{camera_size[1]}\n", out / "seed.txt"
    if marker.is_file():
        if marker.read_text(encoding="utf-8") != drawn:
            raise UsageError(
                f"{out} holds recordings of another seed or image size; choose another folder or remove it"
            )
    elif out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} holds other files; choose another folder or remove it")
    write_recording(marker, drawn.encode())


def write_recording(path: Path, content: bytes) -> None:
    """Put a whole file in place or none; FwdataError naming the file when the disk refuses it."""
    try:
        write_atomic(path, content)
    except OSError as error:
        advice = "change its permissions" if isinstance(error, PermissionError) else "free some space"
        raise FwdataError(f"cannot write {path}: {error.strerror}; {advice} or choose another folder") from error
