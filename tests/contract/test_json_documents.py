"""Every command has a documented JSON schema, the pages are those of the code, and what is printed fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from fixtures import write_toy
from json_checks import faults, programs, strict
from jsonschema import Draft202012Validator
from paths import ROOT

from fwdata import cli as data_cli
from fwdata.encode.vae.wan import load_vae
from fwdata.report.json_documents import command_schema, documents_page
from fwtrain import cli as train_cli

ELSEWHERE = {
    "fwdata regenerate": "a simulator stands in, in unit/fwdata/regenerate",
    "fwdata quickstart": "takes minutes, in e2e/test_quickstart",
    "fwdata push": "a hub stands in, in unit/fwdata/share",
    "fwdata pull": "a hub stands in, in unit/fwdata/share",
    "fwdata export lerobot": "needs lerobot, in unit/fwdata/export",
    "fwdata export fastwam-text": "needs embeddings of UMT5, in unit/fwdata/export",
    "fwdata bench convert": "takes a minute, in unit/fwdata/bench",
    "fwdata bench evidence": "takes half a minute, in unit/fwdata/bench",
    "fwdata bench video": "takes a minute, in unit/fwdata/bench",
    "fwdata bench encode": "needs diffusers, in unit/fwdata/bench",
    "fwdata bench storage": "needs a server, in unit/fwdata/store/test_remote_rows",
    "fwtrain compare": "several runs, in unit/fwtrain/compare",
    "fwtrain distil": "several runs, in unit/fwtrain/cli",
    "fwtrain push": "a hub stands in, in unit/fwtrain/export",
    "fwtrain import": "unit/fwtrain/train",
    "fwtrain serve": "runs until it is stopped, in unit/fwtrain/serve",
    "fwtrain bench train": "unit/fwtrain/bench",
    "fwtrain bench latency": "unit/fwtrain/bench",
    "fwtrain bench serve": "e2e/test_serve_load",
}
"""Commands that the world below does not run, and whose tests hold their documents to the schema."""


SMALLEST = "--set model.layers=1 --set validation.pictures=0 --set tensorboard=false --set optim.steps=2"


def commands(node: Any, path: str) -> Iterator[str]:
    below = getattr(node, "commands", None)
    if below is None or path.endswith(" convert"):  # its commands are the sources
        yield path
        return
    for name, item in below.items():
        yield from commands(item, f"{path} {name}")


EVERY = sorted(
    found
    for name, cli in (("fwdata", data_cli), ("fwtrain", train_cli))
    for found in commands(typer.main.get_command(cli.app), name)
)


OPEN = {
    "fwdata convert.decisions": "a converter's own",
    "fwdata inspect.decisions": "a converter's own",
    "fwdata inspect.merged.options": "a converter's own options",
    "fwdata merge.merged.options": "a converter's own options",
    "fwdata quickstart.steps": "documents of other commands",
    "fwdata schema": "a JSON schema",
    "fwdata view.changed.after": "the value of any setting",
    "fwdata view.changed.before": "the value of any setting",
    "fwdata view.source.options": "a converter's own options",
    "fwtrain schema": "a JSON schema",
}
"""Keys of documents in which any JSON passes, and why."""


def open_keys(schema: Any, node: Any, path: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths at which a schema lets any JSON pass."""
    name = str(node.get("$ref", "")).rpartition("/")[2]
    if name in {"Json", "JsonObject"}:
        yield path
    elif name and name not in above:
        yield from open_keys(schema, schema["$defs"][name], path, (*above, name))
    kinds = node.keys() & {"$ref", "type", "anyOf", "oneOf", "const", "enum", "required"}
    values = node.get("additionalProperties")
    bare = node.get("type") == "object" and not node.get("properties") and values in (None, True, {})
    if bare or not kinds:
        yield path
    for key, below in node.get("properties", {}).items():
        yield from open_keys(schema, below, f"{path}.{key}", above)
    inner = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("prefixItems", ()), node.get("items"), values]
    for below in inner:
        if isinstance(below, dict) and below:
            yield from open_keys(schema, below, path, above)


def test_only_known_keys_hold_any_json():
    found = set[str]()
    for command in EVERY:
        program, _, name = command.partition(" ")
        schema = command_schema(program, programs()[program], name)
        found.update(open_keys(schema, schema, command))
    assert sorted(found) == sorted(OPEN)


def test_every_command_has_its_documents():
    assert sorted(f"{program} {name}" for program, known in programs().items() for name in known) == EVERY


@pytest.mark.parametrize("command", EVERY)
def test_a_schema_is_valid_and_every_key_is_described(command: str):
    program, _, name = command.partition(" ")
    schema = command_schema(program, programs()[program], name)
    Draft202012Validator.check_schema(schema)
    nodes = [schema, *schema.get("anyOf", ()), *schema.get("$defs", {}).values()]
    keys = [item for node in nodes for item in node.get("properties", {}).items()]
    bare = [key for key, below in keys if not below.get("description") and "$ref" not in below]
    assert bare == []


@pytest.mark.parametrize("program", ["fwdata", "fwtrain"])
def test_the_page_is_generated(program: str):
    page = (ROOT / "docs" / f"{program}-json.md").read_text(encoding="utf-8")
    assert page == documents_page(program, programs()[program]) + "\n", (
        f"run: {program} schema --of all --markdown > docs/{program}-json.md"
    )


def test_unknown_and_missing_keys_are_found():
    good = {"files": 1, "copied": 1, "bytes": 3}
    assert faults("fwdata", "copy", good) == []
    assert faults("fwdata", "copy", {**good, "more": 1}) and faults("fwdata", "copy", {"files": 1, "copied": 1})
    assert faults("fwdata", "copy", {**good, "bytes": "3"})
    assert strict({"properties": {"a": {"items": [{"properties": {"b": {}}}]}}})["additionalProperties"] is False


def test_a_schema_is_printed_and_an_unknown_command_refused(run, call):
    assert run("schema", "--of", "verify").json["title"] == "fwdata verify --json"
    assert sorted(run("schema", "--of", "all").json) == sorted(programs()["fwdata"])
    run("schema", "--of", "verfy").refused(2, "did you mean", "verify")
    code, out, _ = call("schema", "--of", "run", "--markdown")
    assert code == 0 and "`steps_per_s`" in out


@pytest.mark.slow
def test_what_commands_print_fits_their_schema(run, call, tmp_path: Path, checked_documents: set[str], monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fwdata.encode.latents.load_vae", load_vae)  # the real one, for the sample world's images

    def data(line: str, code: int = 0) -> None:
        found = run(*line.split(), "--json")
        assert found.code == code, f"{line}: {found.err}"

    def train(line: str, code: int = 0) -> None:
        ended, _, err = call(*line.split(), "--json")
        assert ended == code, f"{line}: {err}"

    write_toy(Path("toyraw"), {"a": (8, 9), "b": (8,)})
    data("sample robotwin --episodes 3 --out raw")
    data("convert robotwin raw --out s.zarr --manifest robotwin-sample --workers 0 --dry-run")
    data("convert robotwin raw --out s.zarr --manifest robotwin-sample --workers 0")
    data("convert toy toyraw --out t.zarr --workers 0 --shard 0/1")
    data("inspect s.zarr")
    data("inspect s.zarr --episode 0")
    data("plan s.zarr --vae tiny --stride 1,4")
    data("encode-text s.zarr --encoder tiny")
    data("encode-latents s.zarr --vae tiny --stride 4 --dry-run")
    data("encode-latents s.zarr --vae tiny --stride 4")
    data("stitch t.zarr")
    data("stats s.zarr")
    data("view s.zarr --set stitch.size=[192,160] --dry-run")
    data("verify s.zarr")
    data("doctor s.zarr")
    data("preview s.zarr --episodes 2")
    data("report s.zarr")
    data("repair s.zarr --dry-run")
    data("status s.zarr")
    data("clean s.zarr")
    data("slurm --shards 2 encode-text s.zarr --encoder tiny")
    data("copy s.zarr c.zarr")
    data("merge s.zarr c.zarr --allow-duplicates --out m.zarr --dry-run")
    data("merge s.zarr c.zarr --allow-duplicates --out m.zarr")
    data("init newbot --out newbot")
    data("check-converter toy toyraw")
    data("bench read s.zarr")
    data("schema")
    train("recipes")
    train("recipes libero")
    train("schema")
    train("plan --recipe tiny --gpu 24 --processes 1")
    train(f"run s.zarr --recipe tiny --out r --threads 1 --dry-run {SMALLEST}")
    train(f"run s.zarr --recipe tiny --out r --threads 1 {SMALLEST}")
    train("report r")
    train("predict r --store s.zarr --episode 0 --frame 0 --steps 1 --threads 1")
    train("eval r --env sample --episodes 1 --steps 1 --threads 1")
    train("export model r w.safetensors")
    train("check-mask --recipe tiny --threads 1")
    train("check-reference " + str(ROOT / "tests" / "data" / "fastwam_golden" / "model"))
    assert set(EVERY) - checked_documents - {"fwdata schema", "fwtrain schema"} == set(ELSEWHERE)
