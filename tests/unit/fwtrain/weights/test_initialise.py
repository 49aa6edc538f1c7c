"""Where a run starts: `model.init` of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fake_hub import FakeHub
from fake_store import FakeStore
from safetensors.torch import save_file
from training import recipe, side_by_side

from fwdata.encode.tensor_files import copy_renamed
from fwdata.errors import ManifestError, StoreDamaged, UsageError
from fwtrain.data import open_source
from fwtrain.errors import RunMismatch
from fwtrain.export import export_lerobot, export_official
from fwtrain.model import FastWAM
from fwtrain.recipe import load_recipe
from fwtrain.train.build import build_model, model_config
from fwtrain.train.folder import RunFolder
from fwtrain.train.loop import Trainer
from fwtrain.train.parallel import Team
from fwtrain.train.run import train
from fwtrain.weights import names as weights
from fwtrain.weights.initialise import initialise


@pytest.fixture
def teacher() -> FastWAM:
    return build_model(model_config(recipe(), open_source(FakeStore(), recipe())), seed=77)


@pytest.fixture
def wan(teacher: FastWAM, tmp_path: Path) -> Path:
    """Two shards and an index, as Wan2.2 is published."""
    folder = tmp_path / "wan"
    folder.mkdir()
    tensors = {name: value.detach() for name, value in teacher.video.named_parameters()}
    names = sorted(tensors)
    held = {"part-1.safetensors": names[:12], "part-2.safetensors": names[12:]}
    for file, part in held.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in held.items() for name in part}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def started(out: Path, *overrides: str) -> FastWAM:
    """The model of a run before its first step."""
    chosen = recipe(*overrides)
    return Trainer.start(open_source(FakeStore(), chosen), chosen, RunFolder(out), Team(torch.device("cpu"))).model


def test_a_run_starts_from_wan_with_an_interpolated_action_expert(teacher: FastWAM, wan: Path, tmp_path: Path):
    model, plain = started(tmp_path / "a", f"model.init=wan2.2:{wan}"), started(tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(model.video.parameters(), teacher.video.parameters(), strict=True))
    weights.init_action_expert_from_video(teacher)
    for name, value in model.action.named_parameters():
        source = plain if name.startswith(weights.OWN_LAYERS) else teacher
        assert torch.equal(value, source.action.get_parameter(name)), name
    assert torch.equal(model.proprio_encoder.weight, plain.proprio_encoder.weight)


def test_a_run_starts_from_a_whole_model(teacher: FastWAM, tmp_path: Path):
    tensors = teacher.state_dict()
    proprio = {name: tensors[f"proprio_encoder.{name}"] for name in ("weight", "bias")}
    mot = {name: value for name, value in tensors.items() if name.startswith("mixtures.")}
    torch.save({"mot": mot, "proprio_encoder": proprio, "step": 5}, tmp_path / "released.pt")
    model = started(tmp_path / "r", f"model.init=fastwam:{tmp_path / 'released.pt'}", "model.action_shift=5")
    assert all(torch.equal(value, tensors[name]) for name, value in model.state_dict().items())


def test_init_is_recorded_and_part_of_what_resumes(wan: Path, tmp_path: Path):
    out, store = tmp_path / "run", FakeStore()
    chosen = recipe(f"model.init=wan2.2:{wan}", "optim.steps=4")
    stops = iter([False, True])
    train(store, chosen, out, should_stop=lambda: next(stops, True))
    assert RunFolder(out).recipe().model.init == f"wan2.2:{wan}"
    with pytest.raises(RunMismatch, match=r"model\.init: wan2\.2:.* -> None"):
        train(store, recipe("optim.steps=4"), out)
    for file in wan.iterdir():
        file.unlink()  # a resumed run needs its checkpoint only
    assert train(store, chosen, out).finished


def test_what_cannot_be_had_is_said_and_leaves_no_run(wan: Path, tmp_path: Path):
    for init, error, message in (
        ("wan2.2:no/such/place", UsageError, "no/such/place does not exist"),
        (f"fastwam:{wan}", StoreDamaged, r"does not fit the model: it misses .*mixtures\.action"),
    ):
        with pytest.raises(error, match=message):
            started(tmp_path / "r", f"model.init={init}", "model.action_shift=5")
        assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.init=wan2.1:x", r"model\.init"),
        ("model.init=fastwam:", r"model\.init"),
        ("model.init_action=a.pt", "init_action needs init: wan2.2"),
    ],
)
def test_recipes_check_the_form(override: str, message: str):
    with pytest.raises(ManifestError, match=message):
        recipe(override)


def test_published_recipes_start_from_wan():
    assert {load_recipe(name).model.init for name in ("libero", "robotwin", "r1lite")} == {"wan2.2"}


def test_another_backbone_in_place_of_interpolation(teacher: FastWAM, wan: Path, tmp_path: Path):
    other = build_model(teacher.config, seed=5)
    table = {n: p.detach() for n, p in other.action.named_parameters() if not n.startswith(weights.OWN_LAYERS)}
    torch.save({"backbone_state_dict": table, "policy": {}, "meta": {}}, tmp_path / "action.pt")
    model = build_model(teacher.config, seed=6)
    initialise(model, f"wan2.2:{wan}", str(tmp_path / "action.pt"))
    assert all(torch.equal(model.action.get_parameter(name), value) for name, value in table.items())
    assert torch.equal(model.video.head.head.weight, teacher.video.head.head.weight)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint of every weight."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train(side_by_side(FakeStore()), recipe("optim.steps=1"), out)
    return out


def assert_starts_from(run: Path, out: Path, source: object) -> None:
    """A run with `model.init=fastwam:SOURCE` begins with the weights of `run`."""
    expected = RunFolder(run).need_checkpoint().model_tensors()
    begun = started(out, f"model.init=fastwam:{source}").state_dict()
    assert begun.keys() == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in begun.items())


def test_a_run_starts_from_a_checkpoint_folder_beside_its_optimizer(trained: Path, tmp_path: Path):
    folder = RunFolder(trained).need_checkpoint().path
    assert (folder / "optimizer.safetensors").is_file()
    assert_starts_from(trained, tmp_path / "r", folder)


def lerobot_folder(trained: Path, out: Path) -> Path:
    """What `fwtrain export lerobot` writes of tensors, without lerobot: weights, and statistics of its processors."""
    out.mkdir()
    copy_renamed(
        RunFolder(trained).need_checkpoint().path / "model.safetensors",
        out / "model.safetensors",
        weights.lerobot_from_ours,
    )
    for name in ("preprocessor_step_3_normalizer", "postprocessor_step_0_unnormalizer"):
        save_file({"action.mean": torch.zeros(14)}, out / f"policy_{name}_processor.safetensors")
    scheduler = {"train_shift": 1.0, "infer_shift": 1.0, "num_train_timesteps": 1000}
    (out / "config.json").write_text(json.dumps({"type": "fastwam", "action_scheduler": scheduler}))
    return out


def test_a_run_starts_from_a_lerobot_folder_beside_its_processors(trained: Path, tmp_path: Path):
    assert_starts_from(trained, tmp_path / "r", lerobot_folder(trained, tmp_path / "exported"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_run_starts_from_what_export_lerobot_writes(trained: Path, tmp_path: Path):
    export_lerobot(trained, tmp_path / "exported", any_encoder=True)
    assert len(list((tmp_path / "exported").glob("*.safetensors"))) > 1  # the processors' statistics
    assert_starts_from(trained, tmp_path / "r", tmp_path / "exported")


def test_a_run_starts_from_the_official_file_in_a_folder(trained: Path, tmp_path: Path):
    export_official(trained, tmp_path / "folder" / "released.pt")
    (tmp_path / "folder" / "README.md").write_text("about")
    assert_starts_from(trained, tmp_path / "r", tmp_path / "folder")


def test_a_run_starts_from_the_last_checkpoint_of_another(trained: Path, tmp_path: Path):
    assert_starts_from(trained, tmp_path / "r", trained)
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UsageError, match="is the folder of a run without a complete checkpoint"):
        started(tmp_path / "s", f"model.init=fastwam:{tmp_path / 'new'}")


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (
            [
                "diffusion_pytorch_model-1.safetensors",
                "Wan2.2_VAE.pth",
                "models_t5_umt5-xxl-enc-bf16.pth",
                "config.json",
            ],
            {"diffusion_pytorch_model-1.safetensors"},
        ),
        (
            ["transformer/diffusion_pytorch_model-1.safetensors", "vae/diffusion_pytorch_model.safetensors"],
            {"transformer/diffusion_pytorch_model-1.safetensors"},
        ),
        (["model.safetensors", "README.md"], {"model.safetensors"}),
    ],
)
def test_of_wan_on_the_hub_only_the_video_expert_is_fetched(teacher, tmp_path, monkeypatch, names, asked):
    source = tmp_path / "source"
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"something else")
    for name in asked:
        save_file({n: p.detach() for n, p in teacher.video.named_parameters()}, source / name)
    hub = FakeHub(monkeypatch, source, tmp_path / "cache")
    model = build_model(teacher.config, seed=6)
    initialise(model, "wan2.2:someone/wan")
    assert set(hub.asked) == asked
    assert torch.equal(model.video.head.head.weight, teacher.video.head.head.weight)
    (source / names[0]).rename(source / "other")
    (source / "model.safetensors").unlink(missing_ok=True)
    with pytest.raises(UsageError, match="someone/wan holds no video expert; expected transformer/"):
        initialise(model, "wan2.2:someone/wan")


def test_folders_that_do_not_say_which_file_are_refused(trained: Path, tmp_path: Path):
    for name in ("a.pt", "b.pt"):
        export_official(trained, tmp_path / "two" / name)
    (tmp_path / "none").mkdir()
    for folder, message in (
        (tmp_path / "two", r"two holds 2 torch files; name one of a\.pt, b\.pt"),
        (tmp_path / "none", "none holds no weights; expected model"),
    ):
        with pytest.raises(UsageError, match=message):
            started(tmp_path / "r", f"model.init=fastwam:{folder}")
        assert not (tmp_path / "r").exists()


def test_a_run_starts_from_the_official_file_on_the_hub(trained: Path, tmp_path: Path, monkeypatch):
    source = tmp_path / "source"
    hub = FakeHub(monkeypatch, source, tmp_path / "cache", "someone/fastwam")
    export_official(trained, source / "libero.pt")
    (source / "dataset_stats.json").write_text("{}")
    assert_starts_from(trained, tmp_path / "a", "someone/fastwam")
    assert set(hub.asked) == {"libero.pt"}
    hub.online = False  # the local copy will do
    assert_starts_from(trained, tmp_path / "b", "someone/fastwam")
    hub.online, hub.asked = True, []
    export_official(trained, source / "robotwin.pt")
    with pytest.raises(UsageError, match=r"2 torch files; name one: .*fastwam:someone/fastwam/robotwin\.pt"):
        started(tmp_path / "c", "model.init=fastwam:someone/fastwam")
    assert hub.asked == []  # files of 12 GB are not downloaded to be asked about
    assert_starts_from(trained, tmp_path / "c", "someone/fastwam/robotwin.pt")
    assert set(hub.asked) == {"robotwin.pt"}
    with pytest.raises(UsageError, match=r"someone/fastwam has no file other\.pt"):
        started(tmp_path / "d", "model.init=fastwam:someone/fastwam/other.pt")


def test_a_run_starts_from_a_lerobot_policy_on_the_hub(trained: Path, tmp_path: Path, monkeypatch):
    lerobot_folder(trained, tmp_path / "source")
    hub = FakeHub(monkeypatch, tmp_path / "source", tmp_path / "cache", "someone/fastwam")
    assert_starts_from(trained, tmp_path / "r", "someone/fastwam")
    assert set(hub.asked) == {"config.json", "model.safetensors"}


def test_a_hub_that_cannot_be_reached_is_said_in_one_sentence(tmp_path: Path, monkeypatch):
    hub = FakeHub(monkeypatch, tmp_path / "source", tmp_path / "cache", "someone/fastwam")
    hub.online = False
    with pytest.raises(UsageError, match=r"model\.init fastwam:someone/fastwam: cannot fetch .*: nothing here; or"):
        started(tmp_path / "r", "model.init=fastwam:someone/fastwam")
    assert not (tmp_path / "r").exists()
