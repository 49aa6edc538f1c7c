"""Our model against tensors recorded from the official code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fwdata.errors import StoreDamaged, UsageError
from fwtrain.reference import check_reference

MODEL = Path(__file__).parent / "data/fastwam_golden/model"


@pytest.fixture(scope="module")
def rows():
    return check_reference(MODEL)


def test_every_recorded_quantity_is_within_tolerance(rows):
    assert [row for row in rows if not row.ok] == []


def test_every_variant_and_sampler_is_compared(rows):
    runs = {row.run for row in rows}
    assert runs == {
        "train fastwam", "train joint", "train idm", "train no-video", "infer fastwam", "infer fastwam_4steps_shift2",
        "infer fastwam_with_video", "infer joint", "infer idm", "train fastwam, no padding", "train idm, no padding",
    }  # fmt: skip
    training = {row.quantity for row in rows if row.run == "train idm"}
    assert {"pred_video", "pred_action", "loss_total", "grad_norm_total", "loss_video_per_sample"} <= training
    assert {"kv_cache.1.k", "action"} <= {row.quantity for row in rows if row.run == "infer fastwam"}


def test_a_changed_weight_is_noticed(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    weights = load_file(folder / "tiny_state_dict.safetensors")
    weights["mixtures.action.head.weight"] = weights["mixtures.action.head.weight"] + 1e-2
    save_file(weights, folder / "tiny_state_dict.safetensors")
    bad = {(row.run, row.quantity) for row in check_reference(folder) if not row.ok}
    assert {("train fastwam", "pred_action"), ("infer idm", "action")} <= bad
    assert ("train fastwam", "pred_video") not in bad


def test_a_recording_of_another_shape_is_a_mismatch_not_a_crash(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    path = folder / "train_joint.safetensors"
    tensors = load_file(path)
    tensors["pred_action"] = torch.zeros(2, 3)
    save_file(tensors, path)
    bad = [row for row in check_reference(folder) if not row.ok]
    assert [(row.run, row.quantity, row.error) for row in bad] == [("train joint", "pred_action", float("inf"))]


def test_folders_that_are_no_reference_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no config\.json"):
        check_reference(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(UsageError, match="expected format 'fwtrain-reference-v1', found 'other'"):
        check_reference(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    (folder / "batch.safetensors").unlink()
    with pytest.raises(StoreDamaged, match=r"batch\.safetensors is named by the reference"):
        check_reference(folder)
