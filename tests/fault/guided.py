"""Coverage-guided fuzzing of the parsers: inputs that reach new lines of the converters are kept and changed further.

    python -m fault.guided SOURCE --minutes 10 --out DIR       (from tests/; SOURCE: libero, r1lite, lerobot, ..)

Every input is read in a fork with bounds of time and memory. Allowed is what the converters promise: an episode, or one
of the toolkit's own errors. Anything else is a find: it is written to DIR with its seed, and the exit code is 1.
Native libraries that crash or hang are ended by the supervised workers of a conversion; so such inputs are finds only
where a conversion with workers does not end well either.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import converters
import fwdata.images.jpeg
from fault.child import run_command
from fault.mutate import BYTES, Mutation, Rng, mutations_for
from fault.test_recordings import SOURCES, Fuzz, load_everything
from fwdata.api import Converter, EncodedFrame
from fwdata.errors import FwdataError
from fwdata.images.jpeg import decode_rgb
from fwdata.manifest import load_manifest
from fwdata.pipeline.registry import load_converter

WATCHED = (str(Path(converters.__file__).parent), str(Path(fwdata.images.jpeg.__file__)))
SECONDS, MEMORY = 20.0, 5 << 30
"""A damaged ROS 1 header makes rosbags ask for up to 4 GiB, which it does not use."""

type Line = tuple[str, int]
type Parse = Callable[[Path], None]


@dataclass(frozen=True)
class Seen:
    """What reading a folder did. lines: reached ones of the watched files; error: "" where it ended as promised."""

    lines: frozenset[Line]
    error: str = ""


def traced(parse: Parse, folder: Path, watched: tuple[str, ...]) -> Seen:
    """Parse a folder in this process and note every line of the watched files that runs."""
    monitoring, tool, lines = sys.monitoring, sys.monitoring.COVERAGE_ID, set[Line]()

    def on_line(code: object, number: int) -> object:
        name: str = code.co_filename  # type: ignore[attr-defined]
        if name.startswith(watched):
            lines.add((os.path.basename(name), number))  # noqa: PTH119 - called for every line
        return monitoring.DISABLE

    monitoring.use_tool_id(tool, "guided")
    monitoring.register_callback(tool, monitoring.events.LINE, on_line)
    monitoring.restart_events()
    monitoring.set_events(tool, monitoring.events.LINE)
    error = ""
    try:
        parse(folder)
    except FwdataError:
        pass
    except Exception:  # noqa: BLE001 - what is looked for
        error = traceback.format_exc()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    return Seen(frozenset(lines), error)


def read_all(converter: Converter, folder: Path) -> None:
    """Everything that a conversion asks of a parser."""
    for ref in converter.discover(folder).episodes:
        try:
            for camera in converter.read(folder, ref).cameras.values():
                for shown in camera.frames():
                    if isinstance(shown, EncodedFrame):
                        decode_rgb(shown.data)
        except (FwdataError, ValueError) as error:
            if not isinstance(error, FwdataError) and "JPEG" not in str(error):
                raise


def in_fork(fuzz: Fuzz, converter: Converter, folder: Path) -> Seen:
    """`traced` in a process of its own."""

    def main() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        seen = traced(lambda path: read_all(converter, path), folder, WATCHED)
        print(f"\nSEEN {json.dumps([sorted(seen.lines), seen.error])}")

    ended = run_command(main, ["guided"], kill_after=SECONDS)
    if ended.code == 0:
        lines, error = json.loads(ended.output.rpartition("\nSEEN ")[2])
        return Seen(frozenset((name, number) for name, number in lines), error)
    shutil.rmtree(fuzz.folder / "out.zarr", ignore_errors=True)
    try:
        fuzz.convert(folder, fuzz.folder / "out.zarr")
    except AssertionError as wrong:
        return Seen(frozenset(), f"ended with {ended.code}: {ended.output[-2000:]}, and its conversion: {wrong}")
    return Seen(frozenset())


@dataclass
class Explorer:
    """A folder of recordings, and the inputs that reached something new: (file, its bytes)."""

    folder: Path
    run: Callable[[Path], Seen]
    seed: int
    choices: Callable[[Path], tuple[Mutation, ...]] = mutations_for
    kept: list[tuple[Path, bytes]] = field(default_factory=list)
    lines: set[Line] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.clean = {p: p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file() and p.stat().st_size}
        self.kept += self.clean.items()
        self.lines |= self.run(self.folder).lines

    def step(self, number: int) -> tuple[Path, str, str] | None:
        """Change one kept input and read it; (file, changes, error) of a find, whose bytes lie in the folder."""
        rng = np.random.default_rng([self.seed, number])
        recent = rng.integers(2) and len(self.kept) > len(self.clean)
        path, data = self.kept[int(rng.integers(len(self.clean) if recent else 0, len(self.kept)))]
        self.restore(path, data)
        changes = [self._change(path, rng) for _ in range(int(rng.integers(1, 3)))]
        seen = self.run(self.folder)
        if seen.error:
            return path, "; ".join(changes), seen.error
        if not seen.lines <= self.lines and path.is_file() and not path.is_symlink():
            self.lines |= seen.lines
            self.kept.append((path, path.read_bytes()))
        self.restore(path, self.clean[path])
        return None

    def _change(self, path: Path, rng: Rng) -> str:
        if path.is_symlink() or not path.is_file() or not path.stat().st_size:
            return "nothing left to change"
        options = self.choices(path)
        try:
            return options[int(rng.integers(len(options)))](path, rng)
        except Exception:  # noqa: BLE001 - too damaged already for changes of structure
            return BYTES[0](path, rng)

    def restore(self, path: Path, data: bytes) -> None:
        """Put bytes where a mutation may have put anything."""
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(data)


def finds(explorer: Explorer, until: Callable[[int], bool]) -> Iterator[tuple[int, Path, str, str]]:
    """(number, file, changes, error) of every find while `until` does not say to stop; the file is then repaired."""
    number = 0
    while not until(number):
        found = explorer.step(number)
        if found:
            yield number, *found
            explorer.restore(found[0], explorer.clean[found[0]])
        number += 1


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fault.guided", description=__doc__.splitlines()[0])
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("finds"))
    options = parser.parse_args(argv)
    os.fsync = lambda descriptor: None
    load_everything()
    errors, tried = set[str](), 0
    with tempfile.TemporaryDirectory(prefix="guided") as temporary:
        fuzz = Fuzz(options.source, Path(temporary))
        converter = load_converter(load_manifest(SOURCES[options.source].arguments[-1]))
        explorer = Explorer(fuzz.clean, lambda folder: in_fork(fuzz, converter, folder), options.seed)
        began, first = time.monotonic(), len(explorer.lines)

        def until(number: int) -> bool:
            nonlocal tried
            tried = number
            return time.monotonic() - began > options.minutes * 60

        for number, path, changes, error in finds(explorer, until):
            last = error.strip().splitlines()[-3:]
            if (where := "\n".join(last)) in errors:
                continue
            errors.add(where)
            kept = options.out / f"{options.source}-{options.seed}-{number}"
            kept.mkdir(parents=True, exist_ok=True)
            if path.is_file() and not path.is_symlink():
                shutil.copy(path, kept / path.name)
            about = {"source": options.source, "seed": options.seed, "number": number, "changes": changes}
            name = str(path.relative_to(fuzz.clean))
            (kept / "find.json").write_text(json.dumps({**about, "file": name, "error": error}, indent=1))
            print(f"find {number}: {name}: {changes}\n{where}", flush=True)
    print(
        f"{options.source}: {tried} inputs, {len(explorer.kept) - len(explorer.clean)} kept, lines {first} -> "
        f"{len(explorer.lines)}, {len(errors)} finds, {fuzz.supervised} ended by the library"
    )
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
