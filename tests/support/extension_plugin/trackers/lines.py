"""Every number as a line of a text file beside the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fwtrain.train.logs import Picture


class Lines:
    def __init__(self, path: Path, identity: str) -> None:
        self._file = path.open("a")
        self._file.write(f"run {identity}\n")

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        self._file.writelines(f"{kind} {step} {name} {value:g}\n" for name, value in values.items())

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        self._file.writelines(f"picture {step} {picture.name}\n" for picture in pictures)

    def close(self) -> None:
        self._file.close()


def open_sink(folder: Path, config: dict[str, Any], identity: str) -> Lines:
    return Lines(folder / "lines.txt", f"{identity} with {config['model.variant']}")
