"""safetensors files: read one tensor at a time, written whole or not at all, copied under other names; and which files
of a folder hold a model's weights.

Format: u64 length of a JSON header, the header {name: {dtype, shape, data_offsets}}, the data; offsets count from the
end of the header. Source: the safetensors format description (huggingface/safetensors, README).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fwdata.errors import StoreDamaged, UsageError, one_line
from fwdata.io import naming, whole_file

NEARLY_FULL = 1 << 20
"""A disk with fewer free bytes is full, as far as weights go."""
MODEL_NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
"""What the file of a whole model's weights is called in a folder: by lerobot, transformers and us; by diffusers."""

type Refusal = Callable[[Path, Exception], Exception]
"""(file, what is wrong with it) -> the error to raise for a file that is not whole."""

_BESIDE = ("policy_preprocessor", "policy_postprocessor", "optimizer")
"""How files begin that lie beside weights and are none: of a lerobot policy, of a checkpoint."""

_POINTER = b"version https://git-lfs"

type TensorHeader = dict[str, dict[str, object]]
"""{tensor name: {"dtype", "shape", "data_offsets"}}."""


def not_whole(file: Path, error: Exception) -> StoreDamaged:
    """The usual refusal of a file."""
    return StoreDamaged(f"{file} is not a whole safetensors file ({unreadable(file, error)}); copy or write it again")


def unreadable(file: Path, error: Exception) -> str:
    """Why a file of weights cannot be read, in a few words."""
    if is_pointer(file):
        return "it is a pointer of Git LFS in place of the file: run `git lfs pull` there, or download the file"
    return one_line((str(error).strip() or type(error).__name__).splitlines()[0])


def is_pointer(file: Path) -> bool:
    """Whether a file is the pointer that Git LFS leaves where a file was not downloaded."""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(len(_POINTER)) == _POINTER
    return False


def _unreadable_torch(file: Path, error: Exception) -> str:
    """Why a torch file cannot be read as plain tensors: torch's own text advises to run what is in it."""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        zipped = opened.read(2) == b"PK"
        if zipped and not zipfile.is_zipfile(file):
            return "its end is missing: download or copy it again"
        if isinstance(error, pickle.UnpicklingError) and not is_pointer(file):
            return "it holds other Python objects than tensors" if zipped else "it was not written by torch.save"
    return unreadable(file, error)


class NotPlainTensors(Exception):
    """A torch file that cannot be read as plain tensors, with the reason in a few words."""


def load_torch(path: Path) -> object:
    """What a torch file holds, on the CPU, memory-mapped where its format allows it; no code of the file is run.

    Raises NotPlainTensors for a file that is broken, or that holds more than plain tensors.
    """
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, OSError):  # files of torch before 1.6, and those that are cut off, cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise NotPlainTensors(_unreadable_torch(path, error)) from None


def found_instead(folder: Path) -> str:
    """What a folder holds in place of the weights that were looked for, in a few words that follow a message."""
    try:
        names = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
    except OSError:
        return ""
    half = [name for name in names if name.endswith((".incomplete", ".part", ".aria2", ".crdownload"))]
    half += [name for name in names if (folder / name).is_symlink() and not (folder / name).exists()]
    if half:
        return f"; {half[0]} was not downloaded to its end: download it again"
    if "snapshots" in names:
        below = sorted((folder / "snapshots").glob("*/"))
        return f"; this is a folder of the hub's cache, name {below[-1] if below else folder / 'snapshots' / '..'}"
    if "adapter_config.json" in names:
        return "; this is a LoRA adapter: merge it with its model and name the result"
    quantised = next((name for name in names if name.endswith(".gguf")), None)
    if quantised:
        return f"; {quantised} is quantised: weights in bf16, float16 or float32 are read"
    return f"; found {', '.join(names[:3])}{', ..' if len(names) > 3 else ''}" if names else "; the folder is empty"


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a file or a folder: what its index json names, else its file of a whole model
    (`MODEL_NAMES`), else every *.safetensors in it, those in half precision only where there are no others.

    What lies beside them is not weights: a checkpoint's optimizer, the processors of a lerobot policy, an older copy.
    Raises UsageError for a path without weights, StoreDamaged for an index that cannot be followed.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} does not exist; expected a safetensors file or a folder of them")
    indexes = sorted(path.glob("*.safetensors.index.json"))
    if len(indexes) > 1:
        raise UsageError(f"{path} has {len(indexes)} index files ({indexes[0].name}, {indexes[1].name}); name one file")
    if not indexes:
        whole = [path / name for name in MODEL_NAMES if (path / name).is_file()]
        every = [file for file in sorted(path.glob("*.safetensors")) if not file.name.startswith(_BESIDE)]
        files = whole[:1] or [file for file in every if ".fp16" not in file.name] or every
        if not files or not all(file.is_file() for file in files):
            raise UsageError(f"{path} has no safetensors file{found_instead(path)}")
        return files
    try:
        names = sorted(set(json.loads(indexes[0].read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        reason = unreadable(indexes[0], error)
        raise StoreDamaged(
            f"{indexes[0]} is not a safetensors index with a weight_map ({reason}); download it again"
        ) from None
    missing = [name for name in names if not isinstance(name, str) or not (path / name).is_file()]
    if missing:
        raise StoreDamaged(
            f"{indexes[0]} names {missing[0]}, which is missing ({len(missing)} of {len(names)} files); download it"
        )
    return [path / name for name in names]


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
    """Write a whole file or nothing. tensors: contiguous, on the CPU. OSError where the system cannot write it."""
    with whole_file(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(dict(tensors), temporary, metadata)
        except SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
        temporary.chmod(mode)  # safetensors leaves a file that nobody else can read


def save_torch(path: Path, data: object) -> None:
    """`torch.save`. OSError where the system cannot write it: torch has a RuntimeError without the reason."""
    try:
        torch.save(data, path)
    except RuntimeError as error:
        if "inline_container" not in str(error):
            raise
        number = errno.ENOSPC if shutil.disk_usage(path.parent).free < NEARLY_FULL else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None


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
    with source.open("rb") as read, naming(target), target.open("wb") as write:
        write.write(header_bytes({rename(name): place for name, place in _header(read.read, source).items()}))
        shutil.copyfileobj(read, write, 1 << 24)


def _header(read: Callable[[int], bytes], path: Path) -> TensorHeader:
    try:
        header: TensorHeader = json.loads(read(int.from_bytes(read(8), "little")))
        header.pop("__metadata__", None)
    except (ValueError, AttributeError, OverflowError, MemoryError):
        raise StoreDamaged(f"{path} is not a whole safetensors file") from None
    return header
