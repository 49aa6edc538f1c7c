"""Initial states from a user's folder, the original benchmark's pickled ones included."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from fwdata.errors import UsageError
from fwtrain.infer.trials.initial_states import states_from

STATES = np.arange(12.0).reshape(4, 3)


def original(path: Path, numpy_1: bool = False) -> None:
    """A file as LIBERO has them; numpy_1: as numpy 1 pickled it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(STATES, path)
    if numpy_1:
        data = path.read_bytes()
        assert b"numpy._core.multiarray" in data
        out = io.BytesIO()
        torch.save(STATES, out, _use_new_zipfile_serialization=False)
        path.write_bytes(out.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


@pytest.mark.parametrize("numpy_1", [False, True])
def test_original_files_are_read_safely(tmp_path: Path, numpy_1: bool):
    original(tmp_path / "libero_goal/open_it.pruned_init", numpy_1)
    assert np.array_equal(states_from(tmp_path, "libero_goal", "open_it").states, STATES)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "libero_goal/open_it.pruned_init", weights_only=True)


def test_npz_and_npy_are_read(tmp_path: Path):
    np.save(tmp_path / "b.npy", STATES)
    np.savez(tmp_path / "a.pruned_init.npz", states=STATES)
    assert states_from(tmp_path, "s", "a").sha256 == states_from(tmp_path, "s", "b").sha256


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


def test_what_runs_code_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), tmp_path / "a.pruned_init")
    np.save(tmp_path / "b.npy", np.array([Evil()]), allow_pickle=True)
    (tmp_path / "c.pruned_init").write_bytes(b"\x80\x02garbage")
    torch.save({"states": 1}, tmp_path / "d.pruned_init")
    for task in "abcd":
        with pytest.raises(UsageError, match="holds no initial states"):
            states_from(tmp_path, "s", task)
    assert not (tmp_path / "owned").exists()
    with pytest.raises(UsageError, match="has no file of task e"):
        states_from(tmp_path, "s", "e")
    with pytest.raises(UsageError, match="nowhere does not exist; name a folder"):
        states_from(tmp_path / "nowhere", "s", "e")


def test_an_array_under_an_archives_name_is_read(tmp_path: Path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, STATES)
    assert np.array_equal(states_from(tmp_path, "s", "a").states, STATES)


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ([[1.0, 2.0], [3.0]], "expected one array of numbers, as torch.save writes it, found list"),
        (torch.zeros(2, 3).to_sparse(), "expected one array of numbers, as torch.save writes it, found Tensor"),
        (np.array([1, None], object), "one of other objects, which is not run; expected one array"),
        (np.ones((2, 3), np.float16), "expected floats of 4 or 8 bytes [n, S], found float16 [2, 3]"),
        (np.array([[1.0], [np.nan]]), "row 1 of 2 has values that are not finite"),
        (b"", "it is empty"),
        (b"no pickle at all", "it is damaged, not a pickle, or one of other objects"),
    ],
    ids=str,
)
def test_what_is_no_table_is_one_true_sentence(tmp_path: Path, saved, words: str):
    path = tmp_path / "a.pruned_init"
    if isinstance(saved, bytes):
        path.write_bytes(saved)
    else:
        torch.save(saved, path)
    with pytest.raises(UsageError) as error:
        states_from(tmp_path, "s", "a")
    assert words in str(error.value) and str(path) in str(error.value) and "weights_only" not in str(error.value)
