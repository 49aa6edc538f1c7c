"""A command that refuses leaves every byte as it was: each command that writes, and each reason it refuses for."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fault.stores import full_store, quick
from fixtures import PLUGINS, run_convert, save, toy_arrays, toy_manifest, write_toy
from raw_metadata import read_attributes, write_attributes

import fwdata
from fwdata import cli as data_cli
from fwdata.encode.latents import EncodeRequest, encode_latents
from fwdata.errors import EXIT_DAMAGED, EXIT_USAGE
from fwdata.merge import MergeRequest, merge
from fwtrain import cli as train_cli
from fwtrain.recipe import load_recipe
from fwtrain.train.run import train

STEPS = "optim.steps=1"
SMALL = (
    *("model.video.hidden=16", "model.video.ffn=16", "model.action.hidden=16", "model.action.ffn=16", "model.layers=1"),
    *("model.heads=1", "model.head_dim=16", "model.freq_dim=16", "tensorboard=false", STEPS),
)
"""What the run is made with: the less it holds, the quicker every case looks whether anything changed."""
SETS = " ".join(f"--set {override}" for override in SMALL)
STATE = "toy.zarr/parts/p00002/lowdim/state/c/0/0"


def unchanged(folder: Path) -> None:
    """Nothing is done to the folder first."""


@dataclass(frozen=True)
class Refused:
    """A command line in the folder of `world` that is refused."""

    line: str
    """Command and arguments, separated by blanks."""
    message: str
    """What the error says, in part."""
    code: int = EXIT_USAGE
    """Exit code."""
    before: Callable[[Path], object] = unchanged
    """What is done to the folder first."""

    def __str__(self) -> str:
        return f"{self.line}: {self.message}"


def lose(key: str) -> Callable[[Path], None]:
    """Remove a file of the folder."""
    return lambda folder: (folder / key).unlink()


def rewritten(change: Callable[[dict[str, object]], object], store: str = "toy.zarr") -> Callable[[Path], None]:
    """Change a store's manifest as if it had been converted with another one."""

    def rewrite(folder: Path) -> None:
        attributes = read_attributes(folder / store)
        change(attributes["manifest"])
        write_attributes(folder / store, attributes)

    return rewrite


def lose_latents(folder: Path) -> None:
    """Leave the latents of one part away, as an encoding that was stopped does."""
    shutil.rmtree(sorted((folder / "toy.zarr/latents").glob("*/p00001"))[0])


def text(key: str) -> Callable[[Path], None]:
    """Write a file that no command made."""

    def write(folder: Path) -> None:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_text("mine")

    return write


def other_prompt(folder: Path) -> None:
    rewritten(lambda manifest: manifest.update(prompt="do {task}"))(folder)


def damaged_checkpoint(folder: Path) -> None:
    file = next((folder / "run").glob("checkpoints/step-*/model.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")


DATA = [
    Refused("convert toy absent --out new.zarr", "there is no folder absent"),
    Refused("convert toy empty --out new.zarr", "holds no .npz recording", before=lambda f: (f / "empty").mkdir()),
    Refused("convert toy bad --out new.zarr", "the one recording below bad", before=text("bad/task/take0.npz")),
    Refused("convert toy bad --out new.zarr --on-error fail", "take0.npz", before=text("bad/task/take0.npz")),
    Refused("convert toy '' --out new.zarr", "RAW is an empty path"),
    Refused("convert toy raw '' --out new.zarr", "RAW is an empty path"),
    Refused("convert toy raw --out ''", "OUT is an empty path, as of a shell variable that is not set"),
    Refused("convert toy raw --out=", "OUT is an empty path"),
    Refused("copy toy.zarr ''", "TARGET is an empty path"),
    Refused("merge toy.zarr merged.zarr --out ''", "OUT is an empty path"),
    Refused("convert toy raw --out notes.txt", "is a file", before=text("notes.txt")),
    Refused("convert toy raw --out mine", "is no", before=text("mine/notes.txt")),
    Refused("convert toy raw --out toy.zarr --set prefix=x", "options.prefix is", EXIT_DAMAGED),
    Refused("convert toy other --out toy.zarr", "other recordings", before=lambda f: write_toy(
        f / "other", {"z": [3]})),
    Refused("convert toy raw --out merged.zarr", "made by `fwdata merge`"),
    Refused("convert toi raw --out new.zarr", "toi"),
    Refused("convert TOY raw --out new.zarr", "did you mean 'toy'?"),
    Refused("convert libero raw --out new.zarr --clock shift", "has no option --clock, it is one of source r1lite"),
    Refused("convert toy raw --out new.zarr --accept ''", "--accept takes DETECTOR=\"why\", found ''"),
    Refused("convert raw --out new.zarr", "raw stands where the name of its source format belongs"),
    Refused("convert toi --out new.zarr", "no converter 'toi'; did you mean 'toy'?"),
    Refused("view absent.zarr --set split.val=0.1", "absent.zarr"),
    Refused("view toy.zarr --set split.vall=0.1", "split.vall"),
    Refused("stitch absent.zarr", "absent.zarr"),
    Refused("stitch toy.zarr", "toy.zarr", EXIT_DAMAGED, before=text("toy.zarr/zarr.json")),
    Refused("stats absent.zarr", "absent.zarr"),
    Refused("stats toy.zarr --export folder", "folder", before=lambda f: (f / "folder").mkdir()),
    Refused("stats toy.zarr --export notes.txt/stats.json", "notes.txt", before=text("notes.txt")),
    Refused("stats toy.zarr", "state", EXIT_DAMAGED, before=text(STATE)),
    Refused("encode-text toy.zarr --encoder nonsense", "nonsense"),
    Refused("encode-text toy.zarr --encoder nonsense --replace", "nonsense"),
    Refused("encode-text toy.zarr --encoder tiny --name a/b", "--name"),
    Refused("encode-text toy.zarr --encoder tiny --name a/b --replace", "--name"),
    Refused("encode-text toy.zarr --encoder tiny", "does not match", EXIT_DAMAGED, before=other_prompt),
    Refused("stitch toy.zarr --shard 4/4", "--shard 4/4"),
    Refused("stitch toy.zarr --engine spark", "--engine must be local or ray"),
    Refused("stitch toy.zarr --address localhost:1", "--engine ray"),
    Refused("clean absent.zarr", "absent.zarr"),
    Refused("copy absent.zarr new.zarr", "absent.zarr"),
    Refused("copy toy.zarr toy.zarr", "to itself"),
    Refused("encode-text toy.zarr --encoder tiny --shard 0/2 --replace", "--replace needs the store for itself"),
    Refused("encode-latents toy.zarr --vae tiny --stride 3 --shard 0/2", "does not match", EXIT_DAMAGED),
    Refused("encode-latents toy.zarr --vae nonsense", "nonsense"),
    Refused("encode-latents toy.zarr --vae nonsense --replace", "nonsense"),
    Refused("encode-latents toy.zarr --vae tiny --device cuda --replace", "cuda"),
    Refused("encode-latents toy.zarr --vae tiny --name a/b --replace", "--name"),
    Refused("encode-latents toy.zarr --vae tiny --stride 3", "does not match", EXIT_DAMAGED),
    Refused("encode-latents toy.zarr --vae tiny --replace", "multiple of", before=rewritten(
        lambda m: m["stitch"].update(camera_size=[24, 24], size=[24, 48]))),
    Refused("merge toy.zarr --out new.zarr", "two stores"),
    Refused("merge toy.zarr toy.zarr --out new.zarr", "same recording"),
    Refused("merge toy.zarr absent.zarr --out new.zarr", "absent.zarr"),
    Refused("merge toy.zarr second.zarr --out toy.zarr", "one of the stores"),
    Refused("merge toy.zarr second.zarr --out mine", "is no", before=text("mine/notes.txt")),
    Refused("merge second.zarr toy.zarr --out merged.zarr", "was merged from", EXIT_DAMAGED),
    Refused("merge toy.zarr second.zarr --out new.zarr", "cannot be", before=rewritten(
        lambda m: m["options"].update(prefix="x"), "second.zarr")),
    Refused("export lerobot toy.zarr mine", "mine", before=text("mine/notes.txt")),
    Refused("export lerobot toy.zarr new --episodes 99", "99"),
    Refused("export lerobot absent.zarr new", "absent.zarr"),
    Refused("repair toy.zarr", "--from RAW", before=lose(STATE)),
    Refused("repair toy.zarr --from absent", "absent", before=lose(STATE)),
    Refused("repair toy.zarr --from other", "other recordings", before=lambda f: (
        lose(STATE)(f), write_toy(f / "other", {"z": [3]}))),
    Refused("repair toy.zarr --from other", "take0.npz differs", EXIT_DAMAGED, before=lambda f: (
        lose(STATE)(f), shutil.copytree(f / "raw", f / "other"),
        save(f / "other/push/take0.npz", toy_arrays(3, 99)))),
    Refused("repair merged.zarr --from raw", "made by `fwdata merge`", before=lose(
        "merged.zarr/parts/p00000/lowdim/state/c/0/0")),
    Refused("repair toy.zarr --from raw", "delete", EXIT_DAMAGED, before=text("toy.zarr/zarr.json")),
    Refused("regenerate libero raw --suite nonsense --out new", "nonsense"),
    Refused("regenerate libero absent --suite libero_goal --out new", "absent"),
    Refused("regenerate nonsense raw --suite libero_goal --out new", "nonsense"),
    Refused("sample nonsense --out new", "nonsense"),
    Refused("init libero --out new", "a converter 'libero' already"),
    Refused("init mybot --out new --from notes.txt", "give an HDF5 or NPZ file", before=text("notes.txt")),
    Refused("sample robotwin --out notes.txt", "is a file", before=text("notes.txt")),
    Refused("sample robotwin --out new --first-state 3 --workers 2", "--first-state and --workers need --simulator"),
    Refused("quickstart --out notes.txt", "is a file", before=text("notes.txt")),
    Refused("preview absent.zarr --out new", "absent.zarr"),
    Refused("preview toy.zarr --out notes.txt", "is a file", before=text("notes.txt")),
    Refused("preview toy.zarr --out new --episodes -1", "episodes"),
    Refused("preview toy.zarr --out new --rerun notes.txt", "name a file ending in .rrd"),
    Refused("preview second.zarr --out new --reconstruct", "no latent cache"),
    Refused("push absent.zarr me/x --license mit", "absent.zarr"),
    Refused("push toy.zarr me/x", "name the licence of the recordings"),
    Refused("push toy.zarr me/x --license mit --only nonsense", "no such caches"),
    Refused("pull me/x", "name a folder for the store"),
    Refused("pull me/x toy.zarr", "exists already"),
    Refused("report absent.zarr --out new.html", "absent.zarr"),
    Refused("stats toy.zarr --export notes.txt", "does not hold statistics", before=text("notes.txt")),
    Refused("stats toy.zarr --export toy.zarr/zarr.json", "lies inside the store"),
    Refused("report toy.zarr --out new.txt", "name a file ending in .html"),
    Refused("report toy.zarr --out notes.txt", "name a file ending in .html", before=text("notes.txt")),
]  # fmt: skip

TRAIN = [
    Refused("run absent.zarr --recipe tiny --out run2", "absent.zarr"),
    Refused(f"run toy.zarr --recipe tiny --out run {SETS} --set optim.lr=0.5", "another recipe"),
    Refused("run toy.zarr --recipe tiny --out new --resume", "--resume"),
    Refused("run toy.zarr --recipe tiny --out mine", "is not empty", before=text("mine/notes.txt")),
    Refused("run toy.zarr --recipe tiny --out notes.txt", "is a file", before=text("notes.txt")),
    Refused("run toy.zarr --recipe tiny --out new --set optim.nonsense=1", "nonsense"),
    Refused("run toy.zarr --recipe tiny --out new --set model.init=fastwam:no/such/file", "no/such/file"),
    Refused("run toy.zarr --recipe tiny --out new --set trackers=[wandb]", "wandb is not installed"),
    Refused("run toy.zarr --recipe tiny --out new --device nonsense", "nonsense"),
    Refused("run toy.zarr --recipe tiny --out run --fresh --set model.init=fastwam:no/such/file", "no/such/file"),
    Refused("run toy.zarr --recipe tiny --out run --fresh --set trackers=[wandb]", "wandb is not installed"),
    Refused("run toy.zarr --recipe tiny --out run --fresh --device nonsense", "nonsense"),
    Refused("run toy.zarr --recipe tiny --out run --fresh", "does not match", EXIT_DAMAGED, before=other_prompt),
    Refused("run second.zarr --recipe tiny --out run --fresh", "no latent cache"),
    Refused("run second.zarr --recipe tiny --out new", "with --vae tiny for recipe tiny"),
    Refused("run toy.zarr --recipe tiny --out new", "lacks p00001", before=lose_latents),
    Refused("run toy.zarr --recipe tiny --out run --fresh", "lacks p00001", before=lose_latents),
    Refused("export fastwam absent a.pt", "absent"),
    Refused("export fastwam run a.bin", "must end in .pt"),
    Refused("export fastwam run a.pt", "exists already", before=text("a.pt")),
    Refused("export fastwam run new/a.pt --checkpoint 99", "no such checkpoint"),
    Refused("export fastwam run new/a.pt", "damaged", before=damaged_checkpoint),
    Refused("export lerobot run new", "trained on latents"),
    Refused("export lerobot run mine --any-encoder", "exists already", before=text("mine/notes.txt")),
    Refused("compare toy.zarr --recipe tiny --out new", "toy"),
    Refused("compare toy.zarr --recipe tiny --out notes.txt", "is a file; name a folder", before=text("notes.txt")),
    Refused("distil run --store toy.zarr --out notes.txt", "is a file; name a folder", before=text("notes.txt")),
    Refused("eval run --env sample --record notes.txt", "is a file; name a folder", before=text("notes.txt")),
    Refused("compare toy.zarr --out new --env none", "choose a recipe with --recipe: generic, libero"),
    Refused("compare absent.zarr --recipe tiny --out new --env none", "absent.zarr"),
    Refused("compare toy.zarr --recipe tiny --out new --variants nonsense", "nonsense"),
    Refused("compare second.zarr --recipe tiny --out new --env none", "no latent cache"),
    Refused(f"compare toy.zarr --recipe tiny --out compared --env none {SETS}", "another recipe",
            before=lambda f: (shutil.copytree(f / "run", f / "compared/runs/joint-seed0"))),
    Refused("import absent new --recipe libero", "absent"),
    Refused("import notes.txt new --recipe libero", "notes.txt", before=text("notes.txt")),
    Refused("import run mine --recipe libero", "mine", before=text("mine/notes.txt")),
    Refused("distil absent --store toy.zarr --out new", "absent"),
    Refused("distil run --store absent.zarr --out new", "absent.zarr"),
    Refused("distil run --store second.zarr --out new", "no latent cache"),
    Refused("distil run --store toy.zarr --out new --steps none", "--steps"),
    Refused("distil run --store toy.zarr --out new --env nonsense", "nonsense"),
    Refused("report absent", "absent"),
    Refused("import absent.pt new --recipe libero", "absent.pt"),
    Refused("distil absent --store toy.zarr", "absent"),
    Refused("push absent me/x --license mit", "absent"),
    Refused("push run me/x", "name the licence of the weights"),
    Refused("push run me/x --license mit --format nonsense", "nonsense"),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every cache (`toy.zarr`), one without (`second.zarr`), both merged, and a run."""
    folder = tmp_path_factory.mktemp("refusals")
    with quick() as patch:
        full_store(folder)
        manifest = toy_manifest(patch)
        run_convert(write_toy(folder / "second", {"lift": [4]}, seed=50), folder / "second.zarr", manifest)
        merge(MergeRequest((str(folder / "toy.zarr"), str(folder / "second.zarr")), folder / "merged.zarr"))
    threads = torch.get_num_threads()
    request = EncodeRequest(folder / "toy.zarr", "tiny", stride=2, replace=True)
    encode_latents(request, lambda count: None, lambda *values: None)
    train(fwdata.open(folder / "toy.zarr"), load_recipe("tiny", list(SMALL)), folder / "run", device="cpu")
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def as_made(made: Path) -> dict[str, str]:
    """What `made` holds, before any command."""
    return everything(made)


@pytest.fixture
def world(made: Path, case: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder itself, which a refusal does not change, or a copy for cases that change it first."""
    folder = made
    if case.before is not unchanged:
        folder = tmp_path / "world"
        shutil.copytree(made, folder)
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.chdir(folder)
    return folder


def everything(folder: Path) -> dict[str, str]:
    """sha256 of every file, and every folder."""
    found = {}
    for place, folders, files in os.walk(folder):
        found |= {f"{place}/{name}/": "" for name in folders}
        found |= {f"{place}/{name}": hashlib.sha256(Path(place, name).read_bytes()).hexdigest() for name in files}
    return found


def assert_refused(
    program: str, main: Callable[[], object], case: Refused, world: Path, as_made: dict[str, str], monkeypatch, capsys
) -> None:
    case.before(world)
    before = as_made if case.before is unchanged else everything(world)
    workers = ["--workers", "0"] if case.line.startswith(("convert", "repair")) else []
    json = [] if "--json" in case.line else ["--json"]
    monkeypatch.setattr(sys, "argv", [program, *shlex.split(case.line), *workers, *json])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert case.message in said.err, said.err
    assert ended.value.code == case.code, said.err
    assert said.out == "", "a refusal prints its sentence on stderr and no document"
    assert everything(world) == before


@pytest.mark.parametrize("case", DATA, ids=str)
def test_fwdata_refuses_without_a_trace(case: Refused, world: Path, as_made, monkeypatch, capsys):
    assert_refused("fwdata", data_cli.main, case, world, as_made, monkeypatch, capsys)


@pytest.mark.parametrize("case", TRAIN, ids=str)
def test_fwtrain_refuses_without_a_trace(case: Refused, world: Path, as_made, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    assert_refused("fwtrain", train_cli.main, case, world, as_made, monkeypatch, capsys)


def writing_commands() -> set[str]:
    """Names of all commands of both programs but those that only read."""
    import typer.main

    reading = {
        "inspect",
        "verify",
        "bench",
        "check-converter",
        "doctor",
        "schema",
        "plan",
        "recipes",
        "serve",
        "slurm",
        "status",
        "predict",
        "check-mask",
        "check-reference",
    }
    groups = (typer.main.get_command(data_cli.app), typer.main.get_command(train_cli.app))
    return {name for group in groups for name in group.commands} - reading  # type: ignore[attr-defined]


def test_every_command_that_writes_is_here():
    assert writing_commands() == {case.line.split()[0] for case in (*DATA, *TRAIN)}
