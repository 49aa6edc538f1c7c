"""Weights under other people's names, and the action expert's initial weights."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from model_case import lively, random_batch, small_config
from safetensors.torch import save_file

from fwdata.errors import StoreDamaged, UsageError
from fwtrain.model import FastWAM, Noise, draw, sampling, save_model, training
from fwtrain.weights import names as weights

CONFIG = small_config()


def video_tensors(model):
    return {name: value.detach().clone() for name, value in model.video.named_parameters()}


def as_diffusers(tensors):
    return {weights.diffusers_from_wan(name): value for name, value in tensors.items()}


def equal(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def same_video(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.video.parameters(), other.video.parameters(), strict=True))


def test_name_tables_are_inverses_of_each_other():
    model = FastWAM(CONFIG)
    for name in video_tensors(model):
        other = weights.diffusers_from_wan(name)
        assert other is not None
        assert weights.wan_from_diffusers(other) == name
    for name in model.state_dict():
        assert weights.ours_from_lerobot(weights.lerobot_from_ours(name)) == name
    assert weights.wan_from_diffusers("blocks.0.attn3.to_q.weight") is None
    assert weights.ours_from_lerobot("model.vae.conv1.weight") is None


@pytest.mark.parametrize(
    ("ours", "diffusers"),
    [
        ("blocks.7.self_attn.o.weight", "blocks.7.attn1.to_out.0.weight"),
        ("blocks.0.cross_attn.norm_q.weight", "blocks.0.attn2.norm_q.weight"),
        ("blocks.0.norm3.bias", "blocks.0.norm2.bias"),
        ("blocks.12.ffn.0.bias", "blocks.12.ffn.net.0.proj.bias"),
        ("blocks.1.modulation", "blocks.1.scale_shift_table"),
        ("time_projection.1.weight", "condition_embedder.time_proj.weight"),
        ("head.modulation", "scale_shift_table"),
        ("head.head.weight", "proj_out.weight"),
    ],
)
def test_names_of_diffusers(ours, diffusers):
    assert weights.diffusers_from_wan(ours) == diffusers


def test_names_of_lerobot():
    assert (
        weights.lerobot_from_ours("mixtures.video.blocks.3.norm3.bias") == "model.mot.layers.3.blocks.video.norm3.bias"
    )
    assert weights.lerobot_from_ours("mixtures.action.head.bias") == "model.mot.mixtures.action.head.bias"
    assert weights.lerobot_from_ours("proprio_encoder.bias") == "model.proprio_encoder.bias"
    older = "model.mot.mixtures.action.blocks.2.ffn.0.weight"
    assert weights.ours_from_lerobot(older) == "mixtures.action.blocks.2.ffn.0.weight"


def test_video_expert_from_original_shards(tmp_path):
    source, target = lively(CONFIG), FastWAM(CONFIG, seed=9)
    tensors = video_tensors(source)
    names = sorted(tensors)
    shards = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, tmp_path / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    action = target.action.head.weight.clone()
    weights.load_wan_video_expert(target, tmp_path)
    assert same_video(source, target)
    assert torch.equal(action, target.action.head.weight)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(StoreDamaged, match=r"names b\.safetensors, which is missing \(1 of 2 files\)"):
        weights.load_wan_video_expert(target, tmp_path)


def test_video_expert_from_a_diffusers_folder_in_bf16(tmp_path):
    source, target = lively(CONFIG).to(torch.bfloat16), FastWAM(CONFIG, seed=9)
    (tmp_path / "transformer").mkdir()
    save_file(as_diffusers(video_tensors(source)), tmp_path / "transformer/diffusion_pytorch_model.safetensors")
    weights.load_wan_video_expert(target, tmp_path)
    assert same_video(source.float(), target)


def test_weights_that_do_not_fit_are_named(tmp_path):
    tensors = as_diffusers(video_tensors(lively(CONFIG)))
    odd = dict(tensors)
    odd["blocks.0.attn1.to_x.weight"] = odd.pop("blocks.0.attn1.to_q.weight")
    save_file(odd, tmp_path / "x.safetensors")
    with pytest.raises(StoreDamaged, match=r"misses 1 tensor \(blocks\.0\.self_attn\.q\.weight\) and has unknown 1"):
        weights.load_wan_video_expert(FastWAM(CONFIG), tmp_path / "x.safetensors")
    odd = {**tensors, "proj_out.bias": torch.zeros(3)}
    save_file(odd, tmp_path / "x.safetensors")
    with pytest.raises(StoreDamaged, match=r"head\.head\.bias has shape \(3,\), the model needs \(192,\)"):
        weights.load_wan_video_expert(FastWAM(CONFIG), tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="does not exist"):
        weights.load_wan_video_expert(FastWAM(CONFIG), tmp_path / "absent")
    (tmp_path / "x.safetensors").write_bytes(b"1234567890")
    with pytest.raises(StoreDamaged, match="not a whole safetensors file"):
        weights.load_wan_video_expert(FastWAM(CONFIG), tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda value: value.to(torch.float8_e4m3fn), r"head\.head\.bias is quantised \(torch\.float8_e4m3fn\)"),
        (lambda value: value.to(torch.int8), r"head\.head\.bias is quantised \(torch\.int8\)"),
        (lambda value: value * float("nan"), r"head\.head\.bias holds values that are not finite"),
    ],
)
def test_weights_that_are_no_numbers_of_the_model_are_refused(tmp_path, change, says):
    tensors = video_tensors(lively(CONFIG))
    save_file({**tensors, "head.head.bias": change(tensors["head.head.bias"])}, tmp_path / "video.safetensors")
    with pytest.raises(StoreDamaged, match=says):
        weights.load_wan_video_expert(FastWAM(CONFIG, seed=9), tmp_path / "video.safetensors")


def test_official_checkpoints_are_read_without_running_code(tmp_path):
    source, target = lively(CONFIG), FastWAM(CONFIG, seed=9)
    tensors = source.state_dict()
    file = tmp_path / "step.pt"
    proprio = {name.removeprefix("proprio_encoder."): v for name, v in tensors.items() if name.startswith("proprio")}
    mot = {name: v for name, v in tensors.items() if name.startswith("mixtures")}
    torch.save({"mot": mot, "step": 3, "torch_dtype": "torch.float32", "proprio_encoder": proprio}, file)
    weights.load_fastwam(target, file)
    assert equal(source, target)
    torch.save({"mot": mot, "extra": pytest.raises}, file)
    with pytest.raises(UsageError, match="not a checkpoint that can be read safely"):
        weights.load_fastwam(target, file)
    torch.save({"dit": mot}, file)
    with pytest.raises(UsageError, match=r"holds the video expert alone \(an entry 'dit'\)"):
        weights.load_fastwam(target, file)
    torch.save({"weights": mot}, file)
    with pytest.raises(UsageError, match=r"expected tensors under 'mot', found \['weights'\]"):
        weights.load_fastwam(target, file)
    torch.save({"mot": {"a": 1}}, file)
    with pytest.raises(UsageError, match="expected tensors under 'mot'"):
        weights.load_fastwam(target, file)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("rename", [dict, as_diffusers])
def test_video_expert_from_torch_files(tmp_path, legacy, rename):
    source, target = lively(CONFIG), FastWAM(CONFIG, seed=9)
    tensors, file = rename(video_tensors(source)), tmp_path / "video.pth"
    torch.save({"dit": tensors, "step": 1} if legacy else tensors, file)
    weights.load_wan_video_expert(target, file)
    assert same_video(source, target)
    torch.save({"mot": tensors}, file)
    with pytest.raises(UsageError, match=r"holds both experts \(an entry 'mot'\); start from it with init fastwam:"):
        weights.load_wan_video_expert(target, file)


class Runs:
    """Code that a careless reader would run."""

    def __reduce__(self):
        return print, ("code from a checkpoint ran",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("load", [weights.load_fastwam, weights.load_wan_video_expert, weights.load_action_backbone])
def test_pickles_that_want_code_are_refused_unread(tmp_path, capsys, load, zipped):
    file = tmp_path / "evil.pt"
    torch.save({"mot": Runs(), "dit": Runs()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=r"evil\.pt is not a checkpoint that can be read safely as plain tensors"):
        load(FastWAM(CONFIG), file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"evil\.pt is not a checkpoint that can be read safely"):
        load(FastWAM(CONFIG), file)
    assert "ran" not in capsys.readouterr().out


def narrow(hidden: int = 16, ffn: int = 40):
    """A configuration whose action expert is narrower than its video expert."""
    data = small_config().model_dump()
    data["action_expert"].update(hidden_dim=hidden, ffn_dim=ffn)
    return small_config().replace(action_expert=data["action_expert"])


def test_official_action_backbone_files(tmp_path):
    source, target = lively(narrow()), FastWAM(narrow(), seed=9)
    own = {name: target.action.get_parameter(name).clone() for name in ("head.weight", "action_encoder.bias")}
    tensors = {n: p.detach() for n, p in source.action.named_parameters() if not n.startswith(weights.OWN_LAYERS)}
    file = tmp_path / "action.pt"
    torch.save({"policy": {"alpha": True}, "backbone_state_dict": tensors, "meta": {"hidden_dim": 16}}, file)
    weights.load_action_backbone(target, file)
    assert all(torch.equal(target.action.get_parameter(name), value) for name, value in tensors.items())
    assert all(torch.equal(target.action.get_parameter(name), value) for name, value in own.items())
    torch.save({"backbone_state_dict": {**tensors, "head.weight": own["head.weight"]}}, file)
    with pytest.raises(StoreDamaged, match=r"has unknown 1 tensor \(head\.weight\)"):
        weights.load_action_backbone(target, file)
    torch.save({"mot": tensors}, file)
    with pytest.raises(UsageError, match="is not an action backbone"):
        weights.load_action_backbone(target, file)


@pytest.mark.parametrize("older", [False, True])
def test_lerobot_folders_and_our_own(tmp_path, older):
    source, target = lively(CONFIG), FastWAM(CONFIG, seed=9)
    rename = (lambda name: f"model.mot.{name}") if older else weights.lerobot_from_ours
    tensors = {
        weights.lerobot_from_ours(name) if name.startswith("proprio") else rename(name): value
        for name, value in source.state_dict().items()
    }
    save_file(tensors, tmp_path / "model.safetensors")
    weights.load_fastwam(target, tmp_path)
    assert equal(source, target)
    save_model(source, tmp_path / "own")
    target = FastWAM(CONFIG, seed=9)
    weights.load_fastwam(target, tmp_path / "own")
    assert equal(source, target)


def interpolated(source, shape):
    """The rule of the official script, written with numpy's interpolation."""
    value = source.astype(np.float64)
    for axis, size in enumerate(shape):
        old = value.shape[axis]
        if old != size:
            at = np.arange(size) * (old - 1) / max(size - 1, 1)
            value = np.apply_along_axis(lambda line, at=at, old=old: np.interp(at, np.arange(old), line), axis, value)
    if len(shape) > 1 and source.shape[-1] != shape[-1]:
        value = value * math.sqrt(source.shape[-1] / shape[-1])
    return value


def line_by_line(source, shape):
    """The same rule with torch's interpolation of one line at a time: equal shapes are copied; each axis that differs
    is resized in float32, the first first, and rounded to the source's type; where the last of several axes changed,
    the result is scaled by sqrt(old / new)."""
    value = source.float()
    for axis, size in enumerate(shape):
        if value.shape[axis] != size:
            lines = value.movedim(axis, -1)
            resized = [
                torch.nn.functional.interpolate(line[None, None], size=size, mode="linear", align_corners=True)[0, 0]
                for line in lines.reshape(-1, lines.shape[-1])
            ]
            value = torch.stack(resized).reshape(*lines.shape[:-1], size).movedim(-1, axis)
    value = value.to(source.dtype)
    if len(shape) > 1 and source.shape[-1] != shape[-1]:
        value = value * math.sqrt(source.shape[-1] / shape[-1])
    return value


@pytest.mark.parametrize(
    ("old", "new"),
    [((6, 9), (6, 9)), ((9,), (4,)), ((6, 9), (6, 4)), ((9, 6), (4, 6)), ((1, 6, 9), (1, 6, 4)), ((8, 9), (3, 5))],
)
def test_resizing_rule(old, new):
    source = torch.randn(old, generator=torch.Generator().manual_seed(0))
    found = weights.resized(source, torch.Size(new))
    assert torch.equal(found, line_by_line(source, new))
    half = source.bfloat16()
    assert torch.equal(weights.resized(half, torch.Size(new)), line_by_line(half, new))
    np.testing.assert_allclose(found.numpy(), interpolated(source.numpy(), new), rtol=1e-4, atol=1e-5)


def test_action_expert_starts_from_the_video_expert():
    model = lively(narrow())
    before = {name: value.detach().clone() for name, value in model.action.named_parameters()}
    weights.init_action_expert_from_video(model)
    video, after = dict(model.video.named_parameters()), dict(model.action.named_parameters())
    for name in ("head.weight", "head.bias", "action_encoder.weight", "action_encoder.bias"):
        assert torch.equal(after[name], before[name])
    assert torch.equal(after["blocks.1.self_attn.norm_q.weight"], video["blocks.1.self_attn.norm_q.weight"])
    first = video["blocks.0.ffn.0.weight"][0, 0] * math.sqrt(24 / 16)
    assert float(after["blocks.0.ffn.0.weight"][0, 0].detach()) == pytest.approx(float(first.detach()), rel=1e-6)
    assert all(not torch.equal(after[n], before[n]) for n in after if not n.startswith(("head.", "action_encoder.")))
    for name, value in after.items():
        if not name.startswith(weights.OWN_LAYERS):
            assert torch.equal(value, line_by_line(video[name].detach(), value.shape)), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_lerobots_core_gives_the_same_losses_gradients_and_actions():
    from fwtrain.bench.lerobot import core_actions, core_losses, lerobot_core

    model = lively(small_config(), seed=4)
    core = lerobot_core(model)
    batch = random_batch(model.config, size=3)
    draws = draw(batch, "fastwam", torch.Generator().manual_seed(1))
    ours, theirs = training.losses(model, batch, draws), core_losses(core, batch, draws)
    torch.testing.assert_close(ours.video, theirs.video, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.action, theirs.action, rtol=1e-5, atol=1e-6)
    ours.total.backward()
    theirs.total.backward()
    found = {f"model.{name}": p.grad for name, p in core.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, found[weights.lerobot_from_ours(name)], rtol=1e-3, atol=1e-4, msg=name
        )
    noise = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(2))
    actions = sampling.sample(model, batch.first, batch.context, batch.proprio, Noise(action=noise), video=False).action
    for row in range(3):
        expected = core_actions(core, batch, row, noise[row : row + 1], 10)
        torch.testing.assert_close(actions[row], expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_diffusers_transformer_has_the_names_of_the_table():
    from diffusers import WanTransformer3DModel

    config = small_config(width=24, heads=2, head_dim=12).video_expert
    theirs = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=48, out_channels=48,
        text_dim=config.text_dim, freq_dim=config.freq_dim, ffn_dim=config.ffn_dim, num_layers=2,
        cross_attn_norm=True, qk_norm="rms_norm_across_heads",
    )  # fmt: skip
    ours = video_tensors(FastWAM(small_config()))
    expected = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in as_diffusers(ours).items()} == expected
