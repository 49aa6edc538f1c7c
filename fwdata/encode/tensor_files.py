"""safetensors files: read one tensor at a time, written whole or not at all, copied under other names.

Format: u64 length of a JSON header, the header {name: {dtype, shape, data_offsets}}, the data; offsets count from the
end of the header. Source: the safetensors format description (huggingface/safetensors, README).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fwdata.errors import StoreDamaged
from fwdata.io import whole_file

type Refusal = Callable[[Path, Exception], Exception]
"""(file, what is wrong with it) -> the error to raise for a file that is not whole."""

type TensorHeader = dict[str, dict[str, object]]
"""{tensor name: {"dtype", "shape", "data_offsets"}}."""


def not_whole(file: Path, error: Exception) -> StoreDamaged:
    """The usual refusal of a file."""
    return StoreDamaged(f"{file} is not a whole safetensors file ({error}); copy or write it again")


@dataclass(frozen=True)
class _Stored:
    """Where one tensor lies."""

    file: Path
    name: str


class TensorFiles(Mapping[str, Tensor]):
    """Tensors of one or several files by name, on the CPU, each read when it is asked for."""

    def __init__(self, places: dict[str, _Stored]) -> None:
        self._places = places
        self._opened: dict[Path, Any] = {}

    @classmethod
    def open(cls, *files: Path, refusal: Refusal = not_whole) -> TensorFiles:
        """Raises what `refusal` says for a file that is not whole, StoreDamaged for a name that occurs twice."""
        places: dict[str, _Stored] = {}
        for file in files:
            for name in _names_in(file, refusal):
                if name in places:
                    raise StoreDamaged(f"{name} is in {places[name].file} and again in {file}; remove one of the files")
                places[name] = _Stored(file, name)
        return cls(places)

    def renamed(self, names: Mapping[str, str]) -> TensorFiles:
        """The tensors in `names`, each under its value there."""
        return TensorFiles({new: self._places[old] for old, new in names.items()})

    def __getitem__(self, name: str) -> Tensor:
        place = self._places[name]
        tensor: Tensor = self._file(place).get_tensor(place.name)
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        place = self._places[name]
        return tuple(self._file(place).get_slice(place.name).get_shape())

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows start .. stop of a tensor's first axis; nothing else is read. Of a 0-d tensor, the tensor itself."""
        place = self._places[name]
        if not self.shape(name):
            return self[name]
        part: Tensor = self._file(place).get_slice(place.name)[start:stop]
        return part

    def _file(self, place: _Stored) -> Any:
        if place.file not in self._opened:
            self._opened[place.file] = _open(place.file)
        return self._opened[place.file]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _open(file: Path) -> Any:
    return safe_open(file, framework="pt").__enter__()  # type: ignore[no-untyped-call]


def _names_in(file: Path, refusal: Refusal) -> list[str]:
    try:
        return list(_open(file).keys())
    except (SafetensorError, OSError) as error:
        raise refusal(file, error) from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a whole file or nothing. tensors: contiguous, on the CPU."""
    with whole_file(path) as temporary:
        save_file(dict(tensors), temporary, metadata)


def header_bytes(header: TensorHeader) -> bytes:
    """The first bytes of a file with these tensors: length and header, padded to 8 bytes."""
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_header(path: Path) -> TensorHeader:
    """What a file holds, without its data. StoreDamaged for a file that is not whole."""
    with path.open("rb") as file:
        return _header(file.read, path)


def copy_renamed(source: Path, target: Path, rename: Callable[[str], str]) -> None:
    """A file with other tensor names and the same bytes; flat memory, since only the header is rewritten."""
    with source.open("rb") as read, target.open("wb") as write:
        write.write(header_bytes({rename(name): place for name, place in _header(read.read, source).items()}))
        shutil.copyfileobj(read, write, 1 << 24)


def _header(read: Callable[[int], bytes], path: Path) -> TensorHeader:
    try:
        header: TensorHeader = json.loads(read(int.from_bytes(read(8), "little")))
        header.pop("__metadata__", None)
    except (ValueError, AttributeError, OverflowError, MemoryError):
        raise StoreDamaged(f"{path} is not a whole safetensors file") from None
    return header
