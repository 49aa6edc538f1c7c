"""A policy on the hub: a run in a form that others start from, with a card of how it was trained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from fwdata.errors import UsageError
from fwdata.report.markup import show
from fwdata.share.hub import check_repository, need_login, send
from fwtrain.export.lerobot import export_lerobot
from fwtrain.export.model import export_model
from fwtrain.train.folder import INFO, RECIPE, RunFolder
from fwtrain.train.logs import read_log

PUSHED_FORMS = ("model", "lerobot")
"""Forms that `fwtrain push` uploads."""


def push_run(
    run: Path,
    repo: str,
    license_name: str,
    form: str = "model",
    which: str = "last",
    *,
    any_encoder: bool = False,
    private: bool = False,
    begin: Callable[[int], None] = lambda _: None,
    done: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Upload a run's weights with its recipe, run.json and a card; returns (step, files sent).

    form: "model" (what `model.init=fastwam:OWNER/NAME` takes) or "lerobot" (what lerobot's from_pretrained takes). The
    weights are written to a temporary folder beside the run first. UsageError for another form.
    """
    if form not in PUSHED_FORMS:
        raise UsageError(f"--format {form!r} is unknown; known: {', '.join(PUSHED_FORMS)}")
    check_repository(repo)
    folder = RunFolder(run)
    folder.info()  # says so where this is not a run folder
    folder.need_checkpoint(which)
    need_login(repo)
    with tempfile.TemporaryDirectory(dir=run.resolve().parent, prefix=f".{run.resolve().name}-push-") as temporary:
        out = Path(temporary) / "policy"
        if form == "lerobot":
            step = export_lerobot(run, out, which, any_encoder=any_encoder).step
        else:
            step = export_model(run, out, which).step
        files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
        files |= {name: folder.path / name for name in (RECIPE, INFO)}
        begin(len(files))
        card = policy_card(folder, repo, license_name, form, step)
        return step, send(repo, "model", files, {"README.md": card}, done, private=private)


def policy_card(folder: RunFolder, repo: str, license_name: str, form: str, step: int) -> bytes:
    """README.md of a policy: data, recipe, how far, validation, and how to use it."""
    recipe, info, validations = folder.recipe(), folder.info(), read_log(folder.path, "val")
    head = {
        "license": license_name,
        "pipeline_tag": "robotics",
        "tags": ["robotics", "fast-wam", "fwdata", info.source],
    }
    if form == "lerobot":
        head |= {"library_name": "lerobot"}
    use = {
        "model": f"fwtrain run STORE --recipe {recipe.name} --out RUN --set model.init=fastwam:{repo}",
        "lerobot": f"python -c 'from lerobot.policies.fastwam.modeling_fastwam import FastWAMPolicy; "
        f'FastWAMPolicy.from_pretrained("{repo}")\'',
    }
    rows = {
        "recipe": f"{recipe.name}, variant {info.model.variant}",
        "step": step,
        "data": f"{info.source}, {info.episodes['train']} training episodes at {info.fps:.4g} Hz",
        "state": ", ".join(info.state.names),
        "action": ", ".join(info.action.names),
        "cameras": ", ".join(info.manifest.stitch.cameras),
        "latents": f"{info.latents.spec} (`{info.latents.fingerprint}`)",
        "text": f"{info.text.spec} (`{info.text.fingerprint}`)",
        "initial weights": recipe.model.init or "random",
    }
    if validations:
        last = validations[-1]
        rows["mean absolute action error, held out"] = f"{show(last['action_mae'])} at step {last['step']}"
    lines = [
        f"# {repo.split('/')[-1]}",
        "",
        "A Fast-WAM policy trained with fwtrain.",
        "",
        "```sh",
        use[form],
        "```",
        "",
        "| | |",
        "|---|---|",
        *[f"| {key} | {value} |" for key, value in rows.items()],
    ]
    return ("---\n" + yaml.safe_dump(head, sort_keys=False) + "---\n\n" + "\n".join(lines) + "\n").encode()
