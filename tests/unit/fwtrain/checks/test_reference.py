"""Our model against tensors recorded from the official code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from paths import DATA
from safetensors.torch import load_file, save_file

from fwdata.errors import FwdataError, ManifestError, StoreDamaged, UsageError
from fwtrain.checks.reference import check_reference, not_compared

MODEL = DATA / "fastwam_golden/model"
NEWER = DATA / "fastwam_golden_2026_08"


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
    assert {"cond_is_noised", "timestep_video_cond"} <= training
    unpadded = {row.quantity for row in rows if row.run == "train idm, no padding"}
    assert unpadded == {"loss_total", "loss_video", "loss_action", "grad_norm_total"}
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


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def edit(path, change):
    """Rewrite a file of tensors or of JSON after `change` has worked on its table."""
    table = json.loads(path.read_text()) if path.suffix == ".json" else load_file(path)
    change(table)
    if path.suffix == ".json":
        path.write_text(json.dumps(table))
    else:
        save_file({name: value.contiguous() for name, value in table.items()}, path)


def test_folders_that_are_no_reference_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no config\.json"):
        check_reference(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(UsageError, match="expected format 'fwtrain-reference-v1', found 'other'"):
        check_reference(tmp_path)
    for text, words in (("{", "not valid JSON"), ("[1]", "must be a table of keys and values, found list")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UsageError, match=words):
            check_reference(tmp_path)


@pytest.mark.parametrize("name", ["batch.safetensors", "train_scalars.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(StoreDamaged, match=f"{name} is named by the reference"):
        check_reference(folder)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", lambda t: t.pop("files"), "files: is missing"),
        ("config.json", lambda t: t["files"].update(train={}, infer={}), "there is nothing to compare"),
        ("config.json", lambda t: t["files"].update(batch="../batch.safetensors"), "a file in the folder itself"),
        (
            "config.json",
            lambda t: t["files"].update(train={"causal": "train_joint.safetensors"}),
            "is not of a variant",
        ),
        ("config.json", lambda t: t.update(infer={"sample": 2}), "infer.sample 2, the batch has 2 samples"),
        ("config.json", lambda t: t.update(dtype="bfloat16"), "dtype: must be 'float32'"),
        ("batch.safetensors", lambda t: t.pop("latents"), "has no tensor 'latents'"),
        (
            "batch.safetensors",
            lambda t: t.update(image_is_pad=t["image_is_pad"][:, :8]),
            r"image_is_pad has shape \(2, 8\), expected \(2, 9\)",
        ),
        ("batch.safetensors", lambda t: t["context_mask"].fill_(False), "context_mask hides rows"),
        ("train_fastwam.safetensors", lambda t: t.pop("noise_action"), "has no tensor 'noise_action'"),
        ("train_fastwam.safetensors", lambda t: t.pop("timestep_video"), "has no tensor 'timestep_video'"),
        ("train_scalars.json", lambda t: t["fastwam"].update(loss_total="x"), "loss_total of fastwam must be a number"),
        ("infer_fastwam_action.safetensors", lambda t: t.pop("init_noise_action"), "has no tensor 'init_noise_action'"),
        ("infer_fastwam_action.safetensors", lambda t: t["timesteps_action"].zero_(), "is not a grid of 10 steps"),
    ],
)
def test_what_a_folder_lacks_is_said_in_one_sentence(folder, file, change, words):
    runs = {"train": {"fastwam": "train_fastwam.safetensors"}, "infer": {"fastwam": "infer_fastwam_action.safetensors"}}
    edit(folder / "config.json", lambda t: t["files"].update(runs))
    edit(folder / file, change)
    with pytest.raises(FwdataError, match=words) as caught:
        check_reference(folder)
    assert "\n" not in str(caught.value)


def only(folder, train, infer):
    edit(folder / "config.json", lambda t: t["files"].update(train=train, infer=infer))


def test_nan_anywhere_is_above_tolerance(folder):
    only(folder, {"joint": "train_joint.safetensors"}, {})
    edit(folder / "train_joint.safetensors", lambda t: t["pred_video"][0, 0, 0].fill_(float("nan")))
    edit(
        folder / "train_scalars.json", lambda t: t["joint"]["grad_norms"].update({"proprio_encoder.bias": float("nan")})
    )
    bad = {row.quantity.split(" ")[0] for row in check_reference(folder) if not row.ok}
    assert bad == {"pred_video", "grad_norms"}


def test_what_is_recorded_and_not_found_here_is_above_tolerance(folder):
    only(folder, {"joint": "train_joint.safetensors"}, {"joint": "infer_joint_action.safetensors"})
    edit(folder / "train_joint.safetensors", lambda t: t.update({"grad.mixtures.video.odd": torch.ones(3)}))
    more = {"velocity_video_step99": torch.ones(1, 48, 3, 4, 4), "kv_cache.0.k": torch.ones(1, 12, 96)}
    edit(folder / "infer_joint_action.safetensors", lambda t: t.update(more))
    bad = {row.quantity for row in check_reference(folder) if not row.ok}
    assert bad == {"grad.mixtures.video.odd", *more}


def test_recordings_may_hold_less_and_other_number_types(folder):
    """Another name for a run, no flags, one state per window, float64, and outputs in part."""
    only(
        folder,
        {"no-video_again": "train_fastwam_no_video.safetensors"},
        {"joint_part": "infer_joint_action.safetensors"},
    )

    def plain(t):
        t.update(proprio=t["proprio"][:, 0], action=t["action"].double(), action_is_pad=t["action_is_pad"].byte())
        del t["context_mask"]

    edit(folder / "batch.safetensors", plain)
    edit(folder / "train_fastwam_no_video.safetensors", lambda t: [t.pop(k) for k in ("noise_video", "timestep_video")])
    for name in ("action", "final_video_latents", "velocity_action_steps", "timesteps_video"):
        edit(folder / "infer_joint_action.safetensors", lambda t, name=name: t.pop(name))
    rows = check_reference(folder)
    assert {row.run for row in rows} == {"train no-video_again", "infer joint_part"}
    assert {"loss_action_per_sample", "action_after_step", "velocity_video_step9"} <= {row.quantity for row in rows}
    assert [row for row in rows if not row.ok] == []


def test_two_shifts_give_two_grids(folder):
    """Each stream is sampled on its own configured grid; a recorded override moves both, also where it is one's own."""
    from fwtrain.model import flow

    only(folder, {}, {"joint": "infer_joint_action.safetensors"})
    edit(folder / "config.json", lambda t: t["schedule"].update(video_shift=3.0))
    for action, video, good in ((5.0, 3.0, True), (5.0, 5.0, True), (2.0, 2.0, True), (2.0, 3.0, False)):
        for stream, shift in (("action", action), ("video", video)):
            grid = {f"timesteps_{stream}": flow.euler_grid(10, shift).timesteps}
            edit(folder / "infer_joint_action.safetensors", lambda t, grid=grid: t.update(grid))
        rows = {row.quantity: row.ok for row in check_reference(folder)}
        assert rows["timesteps_action"]
        assert rows["timesteps_video"] == good


def test_recordings_that_nobody_lists_are_named(folder):
    assert not_compared(folder) == []
    assert not_compared(NEWER) == ["attention_masks.npz", "seeded_draws.safetensors"]


@pytest.fixture(scope="module")
def newer():
    return check_reference(NEWER)


def test_every_recorded_quantity_of_the_newer_code_is_within_tolerance(newer):
    assert [row for row in newer if not row.ok] == []
    assert len(newer) == 266


def test_optional_idm_is_compared_in_training_and_in_both_modes(newer):
    quantities = {}
    for row in newer:
        quantities.setdefault(row.run, set()).add(row.quantity)
    for kind in ("all-idm", "all-first-frame", "mixed", "mixed-cond-noise"):
        assert {
            "attention_mask",
            "action_sees_full_copy",
            "pred_action",
            "pred_video",
            "grad_norm_total",
        } <= quantities[f"train optional-idm_{kind}"]
    for kind in ("idm", "idm-shift1", "idm-shift5", "first-frame"):
        assert {"action", "timesteps_action", "kv_cache.1.v"} <= quantities[f"infer optional-idm_{kind}"]
    assert {"timesteps_video", "final_video_latents"} <= quantities["infer joint_shift1"]


def test_a_mode_or_a_share_that_is_recorded_wrongly_is_noticed(tmp_path):
    folder = Path(shutil.copytree(NEWER, tmp_path / "newer"))
    only(folder, {"optional-idm_mixed": "train_optional-idm_mixed.safetensors"}, {})
    edit(folder / "config.json", lambda t: t["runs"]["optional-idm_mixed"].update(action_idm_prob=0.9))
    bad = {row.quantity for row in check_reference(folder) if not row.ok}
    assert {"attention_mask", "action_sees_full_copy", "pred_action"} <= bad and "pred_video" not in bad
    only(folder, {}, {"optional-idm_first-frame": "infer_optional-idm_first-frame.safetensors"})
    edit(folder / "config.json", lambda t: t["runs"].pop("infer optional-idm_first-frame"))
    assert all(row.ok for row in check_reference(folder))  # its name says the mode
    edit(folder / "config.json", lambda t: t["runs"].update({"infer optional-idm_first-frame": {"mode": "joint"}}))
    with pytest.raises(
        ManifestError, match="run 'optional-idm_first-frame': variant 'optional-idm' has no mode 'joint'"
    ):
        check_reference(folder)


def test_an_override_that_is_one_streams_own_shift_is_seen(tmp_path):
    """Video 5, actions 1, sampled at 1: the action grid alone looks as if nothing was overridden."""
    folder = Path(shutil.copytree(NEWER, tmp_path / "newer"))
    only(folder, {}, {"joint_shift1": "infer_joint_shift1.safetensors"})
    assert all(row.ok for row in check_reference(folder))
    edit(folder / "infer_joint_shift1.safetensors", lambda t: [t.pop(k) for k in ("timesteps_video", "deltas_video")])
    bad = {row.quantity for row in check_reference(folder) if not row.ok}
    assert "final_video_latents" in bad  # nothing is left that tells
