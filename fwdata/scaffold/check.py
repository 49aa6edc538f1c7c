"""`fwdata check-converter`: the converter contract, tried on a user's own converter and recordings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fwdata.api import BadEpisode, Converter, Discovery, EncodedCamera, Episode, EpisodeRef, RawCamera
from fwdata.errors import FwdataError
from fwdata.images.jpeg import decode_rgb
from fwdata.manifest import Manifest, check_stitched_size
from fwdata.pipeline.choose import manifest_for
from fwdata.pipeline.registry import load_converter
from fwdata.wording import counted

FEWEST, LARGE_JUMP = 2, 0.05


@dataclass
class ConverterReport:
    """What the check found."""

    name: str
    """The converter."""
    found: int = 0
    """Recordings that discovery found."""
    episodes: int = 0
    """Recordings that were read whole, images included."""
    frames: int = 0
    """Rows of these."""
    passed: list[str] = field(default_factory=list)
    """What holds, one line each."""
    faults: tuple[str, ...] = ()
    """What breaks the contract, with the recording and what to do."""
    warnings: tuple[str, ...] = ()
    """What deserves a look."""


class _Findings:
    def __init__(self) -> None:
        self.faults: list[str] = []
        self.warnings: list[str] = []

    def add(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def check_converter(name: str, root: Path, manifest: str | None = None, episodes: int = 3) -> ConverterReport:
    """Try a converter on recordings: discovery, reading, images, rates, and which files it opens.

    episodes: how many recordings are read whole, evenly spread. Raises UsageError where there is no such converter or
    manifest, ManifestError for a wrong manifest.
    """
    chosen = manifest_for(name, manifest, {}, [root])
    converter = load_converter(chosen)
    report, findings = ConverterReport(name), _Findings()
    check_stitched_size(chosen.stitch, f"manifest {chosen.name}")
    height, width = chosen.stitch.size
    report.passed.append(f"manifest {chosen.name}: loads, stitched image {height}x{width}")
    lacking = [method for method in ("discover", "read") if not callable(getattr(converter, method, None))]
    if lacking:
        findings.add(f"class Converter lacks {' and '.join(lacking)}")
    else:
        found = _check_discovery(converter, root, findings)
        if found is not None:
            report.found = len(found.episodes)
            report.passed.append(
                f"discovery: {counted(len(found.episodes), 'recording')}, {len(found.skipped)} left out"
            )
            for ref in _spread(found.episodes, episodes):
                rows = _check_episode(converter, root, ref, chosen, findings)
                report.episodes += rows > 0
                report.frames += rows
            report.passed.append(
                f"reading: {counted(report.episodes, 'recording')}, {counted(report.frames, 'frame')}, images included"
            )
    report.faults, report.warnings = tuple(findings.faults), tuple(findings.warnings)
    return report


def _spread(refs: tuple[EpisodeRef, ...], count: int) -> list[EpisodeRef]:
    places = np.linspace(0, len(refs) - 1, min(count, len(refs))).round().astype(int).tolist() if refs else []
    return [refs[i] for i in dict.fromkeys(places)]


def _check_discovery(converter: Converter, root: Path, findings: _Findings) -> Discovery | None:
    try:
        first, second = converter.discover(root), converter.discover(root)
    except FwdataError as error:
        findings.add(f"discover: {error}")
        return None
    if first != second:
        findings.add("discover: two calls differ; sort what directory listings give")
    ids = [ref.id for ref in first.episodes]
    for double in sorted({i for i in ids if ids.count(i) > 1}):
        findings.add(f"discover: two recordings have the id {double!r}; ids must be unique")
    base = root.parent if root.is_file() else root
    for ref in first.episodes:
        if not ref.files:
            findings.add(f"{ref.id}: EpisodeRef.files is empty; list every file that read opens, the recording first")
        for name in ref.files:
            if name.startswith("/") or ".." in Path(name).parts or not (base / name).is_file():
                findings.add(f"{ref.id}: EpisodeRef.files names {name!r}, which is not a file below {base}")
        if ref.num_bytes < 1:
            findings.add(f"{ref.id}: EpisodeRef.num_bytes must be the recording's size, found {ref.num_bytes}")
        hints: dict[str, object] = dict(ref.hints)
        for key, value in hints.items():
            if not isinstance(value, str | int | float | bool):
                findings.add(f"{ref.id}: EpisodeRef.hints[{key!r}] is a {type(value).__name__}; give text or a number")
    if not first.episodes:
        findings.add("discover: no recording; raise UsageError where there is none")
    return first


def _check_episode(converter: Converter, root: Path, ref: EpisodeRef, manifest: Manifest, findings: _Findings) -> int:
    """Rows of one recording, 0 where it cannot be read."""
    base = (root.parent if root.is_file() else root).resolve()
    try:
        with _opened_files() as opened:
            episode, again = converter.read(root, ref), converter.read(root, ref)
            images = {name: _check_camera(name, episode, ref, findings) for name in episode.cameras}
    except BadEpisode as error:
        findings.add(f"{ref.id}: {error}")
        return 0
    declared = {(base / name).resolve() for name in ref.files}
    for path in sorted(p for p in opened if p.is_relative_to(base) and p not in declared):
        findings.add(
            f"{ref.id}: read opens {path.relative_to(base)}, which EpisodeRef.files does not list; a change of it "
            "would not be noticed"
        )
    for key in ("state", "action", "timestamp_ns", "valid"):
        if not np.array_equal(getattr(episode, key), getattr(again, key)):
            findings.add(f"{ref.id}: two reads differ in {key}; reading must depend on the recording alone")
    if missing := [name for name in manifest.cameras if name not in images]:
        findings.add(f"{ref.id}: read gives no camera {', '.join(missing)}, which the manifest names")
    _check_rate(episode, ref, manifest, findings)
    return len(episode.state)


def _check_camera(name: str, episode: Episode, ref: EpisodeRef, findings: _Findings) -> int:
    """Frames of a camera, each read and compared with its declared size, in two passes."""
    camera, rows = episode.cameras[name], len(episode.state)
    counts = []
    for _ in range(2):
        count = 0
        try:
            if isinstance(camera, EncodedCamera):
                for frame in camera.frames():
                    shape = decode_rgb(frame.data, frame.red_blue_swapped).shape
                    good = shape == (camera.height, camera.width, 3)
                    _expect(good, f"{ref.id}: camera {name}: a JPEG of {shape[0]}x{shape[1]} pixels", findings)
                    count += 1
            elif isinstance(camera, RawCamera):
                for block in camera.frames():
                    good = block.dtype == np.uint8 and block.shape[1:] == (camera.height, camera.width, 3)
                    what = f"{ref.id}: camera {name}: frames are {block.dtype} {list(block.shape[1:])}"
                    _expect(good, f"{what}, expected uint8 [{camera.height}, {camera.width}, 3]", findings)
                    count += len(block)
            else:
                count = sum(1 for _ in camera.frames())
        except (ValueError, BadEpisode) as error:
            findings.add(f"{ref.id}: camera {name}: {error}")
        counts.append(count)
    if counts[0] != counts[1]:
        findings.add(
            f"{ref.id}: camera {name}: the second pass has {counted(counts[1], 'frame')}, the first {counts[0]}"
        )
    if counts[0] != rows:
        findings.add(
            f"{ref.id}: camera {name} has {counted(counts[0], 'frame')}, state and action have {counted(rows, 'row')}"
        )
    return counts[0]


def _expect(good: bool, text: str, findings: _Findings) -> None:
    if not good:
        findings.add(text)


def _check_rate(episode: Episode, ref: EpisodeRef, manifest: Manifest, findings: _Findings) -> None:
    if len(episode.timestamp_ns) > FEWEST:
        rate = 1e9 / max(float(np.median(np.diff(episode.timestamp_ns))), 1.0)
        if abs(rate / manifest.fps.hz - 1) > LARGE_JUMP:
            findings.add(
                f"{ref.id}: timestamps give {rate:.3g} Hz, the manifest says fps {manifest.fps.hz:g}; "
                "correct one of them"
            )
    for what, array, names in (
        ("state", episode.state, episode.state_names),
        ("action", episode.action, episode.action_names),
    ):
        for dim in np.flatnonzero(np.ptp(array, axis=0) == 0) if len(array) > FEWEST else ():
            findings.warn(f"{ref.id}: {what} {names[int(dim)]} never changes")


@contextmanager
def _opened_files() -> Iterator[set[Path]]:
    """Paths of files that Python and h5py open for reading while the block runs."""
    opened: set[Path] = set()
    active = [True]

    def hook(event: str, args: tuple[object, ...]) -> None:
        if active[0] and event == "open" and isinstance(args[0], str | bytes):
            name = args[0] if isinstance(args[0], str) else args[0].decode(errors="replace")
            opened.add(Path(name).resolve())

    sys.addaudithook(hook)  # cannot be removed; it only looks while `active`
    h5py = sys.modules.get("h5py")
    try:
        with _watched_hdf5(h5py, opened):
            yield opened
    finally:
        active[0] = False
    opened.difference_update({p for p in opened if not p.is_file()})


@contextmanager
def _watched_hdf5(h5py: object, opened: set[Path]) -> Iterator[None]:
    """HDF5 files are opened by C code, which Python's audit does not see."""
    if h5py is None:
        yield
        return
    kind = h5py.File  # type: ignore[attr-defined]
    original = kind.__init__

    def watched(self: object, name: object, *args: object, **kwargs: object) -> None:
        if isinstance(name, str | Path):
            opened.add(Path(name).resolve())
        original(self, name, *args, **kwargs)

    kind.__init__ = watched
    try:
        yield
    finally:
        kind.__init__ = original
