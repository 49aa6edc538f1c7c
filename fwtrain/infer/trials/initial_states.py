"""Initial states from a folder of the user's, in the original benchmark's format too."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from fwdata.envs.benchmarks.contract import InitialStates, checked_states
from fwdata.errors import UsageError

SUFFIXES = (".pruned_init.npz", ".npz", ".npy", ".pruned_init")
MAX_BYTES = 1 << 28
"""Larger files are refused; 50 states take 50 kB."""


def states_from(folder: Path, suite: str, task: str) -> InitialStates:
    """The states of a task in FOLDER/SUITE or FOLDER, without running code from a pickle.

    NPZ (key `states`) and NPY are read with allow_pickle=False. The original `.pruned_init` files are a pickled ndarray
    that torch.save wrote: read with weights_only=True, where numpy's reconstruction of arrays is all that is allowed.
    Raises UsageError when there is no such file, or it holds anything else than a table of finite numbers.
    """
    places = [base / f"{task}{suffix}" for base in (folder / suite, folder) for suffix in SUFFIXES]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        if not folder.is_dir():
            raise UsageError(
                f"--init-states {folder} {'is a file' if folder.exists() else 'does not exist'}; name a folder"
            )
        raise UsageError(f"--init-states {folder} has no file of task {task}; expected {suite}/{task}{SUFFIXES[-1]}")
    if not path.stat().st_size:
        raise UsageError(f"{path} holds no initial states: it is empty")
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"{path} has {path.stat().st_size} bytes, initial states have at most {MAX_BYTES}")
    try:
        found = _numpy_file(path) if path.suffix in {".npy", ".npz"} else _pruned_init(path)
    except UsageError:
        raise
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(f"{path} holds no initial states: {reason}") from None
    return checked_states(found, str(path))


def _numpy_file(path: Path) -> NDArray[Any]:
    """By what the file is: an array may have the name of an archive."""
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if "states" not in loaded:
                raise ValueError(f"expected the key 'states', found {', '.join(loaded.files) or 'none'}")
            return np.asarray(loaded["states"])


def _pruned_init(path: Path) -> NDArray[Any]:
    """The array of a file of the original benchmark. UsageError for a pickle of anything else, which is not run."""
    rebuild = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    allowed = [
        rebuild,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4")),
        (rebuild, "numpy.core.multiarray._reconstruct"),
    ]
    expected = "expected one array of numbers, as torch.save writes it"
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # protocols of pickle, invariants of sparse tensors
            loaded = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, KeyError, IndexError, TypeError, AttributeError):
        raise UsageError(
            f"{path} holds no initial states: it is damaged, not a pickle, or one of other objects, which is not run; "
            f"{expected}"
        ) from None
    if isinstance(loaded, torch.Tensor) and loaded.layout == torch.strided:
        return loaded.float().numpy() if loaded.dtype == torch.bfloat16 else loaded.numpy()
    if not isinstance(loaded, np.ndarray):
        raise UsageError(f"{path} holds no initial states: {expected}, found {type(loaded).__name__}")
    return loaded
