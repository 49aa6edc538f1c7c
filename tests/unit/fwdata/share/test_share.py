"""Stores and caches to a hub on this machine and back."""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path

import pytest
import yaml
from fault.stores import full_store
from fixtures import robotwin_store, tree
from hub_server import HubServer

import fwdata
from fwdata.errors import StaleCache, StoreDamaged, UsageError
from fwdata.share import hub as hub_module
from fwdata.share.lerobot import push_exported
from fwdata.share.stores import IDENTITY, pull_caches, pull_store, push_store
from fwdata.store.caches.stats import save_statistics
from fwdata.store.verify import verify_store

REPO = "me/mybot"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = robotwin_store(tmp_path_factory.mktemp("store"))
    store = fwdata.open(found)
    save_statistics(store, store.stats())
    return found


@pytest.mark.slow
def test_a_store_comes_back_byte_for_byte(hub: HubServer, path: Path, tmp_path: Path):
    sent, identity = push_store(fwdata.open(path), REPO, "cc-by-4.0")
    assert sent == len(identity.files) > 10 and identity.whole
    fetched, _ = pull_store(REPO, tmp_path / "back.zarr")
    assert fetched == sent and tree(tmp_path / "back.zarr") == tree(path)
    assert [item.name for item in tmp_path.iterdir()] == ["back.zarr"]
    assert not verify_store(tmp_path / "back.zarr", lambda _: None, lambda _: None).findings
    assert push_store(fwdata.open(path), REPO, "cc-by-4.0")[0] == 0


@pytest.mark.slow
def test_the_card_is_made_from_metadata(hub: HubServer, path: Path):
    store = fwdata.open(path)
    push_store(store, REPO, "cc-by-4.0")
    text = hub.repositories[f"datasets/{REPO}"]["README.md"].decode()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "cc-by-4.0" and "robotics" in head["tags"] and head["size_categories"] == ["n<1K"]
    for word in (store.fingerprint, "left_joint_1", "gripper", f"fwdata pull {REPO}", "4 episodes"):
        assert word in text


@pytest.mark.slow
def test_a_killed_push_and_pull_continue(hub: HubServer, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub_module, "COMMIT_FILES", 5)
    hub.fail_after = 2
    with pytest.raises(UsageError, match=r"on the hub: .*403: the hub is full"):
        push_store(fwdata.open(path), REPO, "cc-by-4.0")
    assert IDENTITY not in hub.repositories[f"datasets/{REPO}"]
    with pytest.raises(UsageError, match="me/mybot on the hub"):  # never wholly pushed
        pull_store(REPO, tmp_path / "early.zarr")
    hub.fail_after = None
    sent, identity = push_store(fwdata.open(path), REPO, "cc-by-4.0")
    assert sent == len(identity.files) - 10
    (tmp_path / ".back.zarr.pull").mkdir()
    first = sorted(identity.files)[0]
    shutil.copyfile(path / first, tmp_path / ".back.zarr.pull" / first) if "/" not in first else None
    begun = 1 if "/" not in first else 0
    assert pull_store(REPO, tmp_path / "back.zarr")[0] == len(identity.files) - begun


@pytest.mark.slow
def test_a_damaged_store_is_not_pushed(hub: HubServer, path: Path, tmp_path: Path, run):
    shutil.copytree(path, tmp_path / "own.zarr")
    changed = next(file for file in (tmp_path / "own.zarr/parts").rglob("c/0/0"))
    changed.write_bytes(changed.read_bytes() + b"x")
    run("push", tmp_path / "own.zarr", REPO, "--license", "mit").refused(4, "does not match", "nothing was pushed")
    assert not hub.repositories
    assert push_store(fwdata.open(tmp_path / "own.zarr"), REPO, "mit", only=("stats",))[0]


@pytest.mark.slow
def test_damaged_bytes_are_not_taken_for_a_store(hub: HubServer, path: Path, tmp_path: Path):
    push_store(fwdata.open(path), REPO, "cc-by-4.0")
    files = hub.repositories[f"datasets/{REPO}"]
    name = next(name for name in files if name.startswith("parts/") and name.endswith("zarr.json"))
    files[name] += b" "
    with pytest.raises(StoreDamaged, match="is damaged: its sha256 is not the one that was pushed"):
        pull_store(REPO, tmp_path / "back.zarr")
    assert not (tmp_path / "back.zarr").exists()


@pytest.mark.slow
def test_caches_alone_fit_the_store_they_were_made_from_and_no_other(hub: HubServer, path: Path, tmp_path: Path):
    push_store(fwdata.open(path), REPO, "cc-by-4.0", only=("stats",))
    with pytest.raises(UsageError, match="holds caches alone"):
        pull_store(REPO, tmp_path / "back.zarr")
    bare = tmp_path / "bare.zarr"
    shutil.copytree(path, bare, ignore=lambda folder, names: ["stats"] if Path(folder) == path else [])
    assert pull_caches(REPO, bare)[1].fingerprint == fwdata.open(path).fingerprint
    assert tree(bare / "stats") == tree(path / "stats")
    assert pull_caches(REPO, bare)[0] == 0  # the same bytes: nothing to do
    assert f"fwdata pull {REPO} --into " in hub.repositories[f"datasets/{REPO}"]["README.md"].decode()
    changed = next(file for file in (bare / "stats").rglob("*") if file.is_file())
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(UsageError, match="has stats already"):
        pull_caches(REPO, bare)
    other = robotwin_store(tmp_path / "other", episodes=2)
    before = tree(other)
    with pytest.raises(StaleCache, match="were made from other episodes"):
        pull_caches(REPO, other)
    assert tree(other) == before


@pytest.mark.slow
def test_a_file_outside_of_the_store_is_refused(hub: HubServer, path: Path, tmp_path: Path):
    push_store(fwdata.open(path), REPO, "cc-by-4.0")
    files = hub.repositories[f"datasets/{REPO}"]
    files[IDENTITY] = files[IDENTITY].replace(b'"zarr.json"', b'"../evil.json"')
    with pytest.raises(UsageError, match="names a file outside of the store"):
        pull_store(REPO, tmp_path / "back.zarr")


@pytest.mark.slow
def test_latents_and_text_alone_reach_the_same_episodes_elsewhere_and_no_others(hub: HubServer, tmp_path: Path, run):
    own = full_store(tmp_path / "own")
    elsewhere = tmp_path / "elsewhere.zarr"
    shutil.copytree(own, elsewhere, ignore=shutil.ignore_patterns("latents", "text", "stats"))
    options = ("--license", "mit", "--only", "latents", "--only", "text")
    assert run("push", own, REPO, *options, "--json").json["fingerprint"] == fwdata.open(own).fingerprint
    assert run("pull", REPO, "--into", elsewhere).code == 0
    for kind in ("latents", "text"):
        assert tree(elsewhere / kind) == tree(own / kind)
    assert not (elsewhere / "stats").exists() and not verify_store(elsewhere).damaged
    assert fwdata.open(elsewhere).latents().identity == fwdata.open(own).latents().identity
    other = robotwin_store(tmp_path / "other")
    before = tree(other)
    run("pull", REPO, "--into", other).refused(4, "were made from other episodes")
    assert tree(other) == before


@pytest.mark.slow
def test_caches_join_those_of_the_same_episodes(hub: HubServer, tmp_path: Path, run):
    own = full_store(tmp_path / "own")
    for kind in ("latents", "text"):
        assert run("push", own, REPO, "--license", "mit", "--only", kind).code == 0
    bare = tmp_path / "bare.zarr"
    shutil.copytree(own, bare, ignore=shutil.ignore_patterns("latents", "text", "stats"))
    assert run("pull", REPO, "--into", bare).code == 0
    assert all(tree(bare / kind) == tree(own / kind) for kind in ("latents", "text"))
    shutil.rmtree(bare / "text")  # as a kill between the two leaves it
    assert run("pull", REPO, "--into", bare).code == 0 and tree(bare / "text") == tree(own / "text")
    push_store(fwdata.open(own), "me/whole", "mit")
    assert push_store(fwdata.open(own), "me/whole", "mit", only=("text",))[1].whole
    pull_store("me/whole", tmp_path / "back.zarr")
    assert tree(tmp_path / "back.zarr") == tree(own)
    other = robotwin_store(tmp_path / "other", episodes=2)
    save_statistics(fwdata.open(other), fwdata.open(other).stats())
    kept = dict(hub.repositories["datasets/me/whole"])
    run("push", other, "me/whole", "--license", "mit", "--only", "stats").refused(2, "holds other episodes")
    assert hub.repositories["datasets/me/whole"] == kept


@pytest.mark.slow
def test_nothing_of_another_repository_stays_in_a_store(hub: HubServer, path: Path, tmp_path: Path):
    push_store(fwdata.open(path), REPO, "mit")
    left = tmp_path / ".back.zarr.pull" / "parts" / "part-of-another" / "zarr.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    pull_store(REPO, tmp_path / "back.zarr")
    assert tree(tmp_path / "back.zarr") == tree(path) and not (tmp_path / "back.zarr/parts/part-of-another").exists()


def test_caches_that_a_store_does_not_have_are_not_pushed(hub: HubServer, path: Path, run):
    run("push", path, REPO, "--license", "mit", "--only", "latents").refused(2, "latents")
    assert hub.repositories == {}


@pytest.mark.slow
def test_an_export_leaves_the_hub_reachable_for_its_push() -> None:
    from huggingface_hub import constants

    from fwdata.export.lerobot import quiet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        with quiet():
            assert constants.HF_HUB_OFFLINE
        assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("name", ["mybot", "me/my/bot", "/mybot", "me/", "https://host/me/mybot", "me/my bot"])
def test_a_name_that_is_no_repository_changes_nothing(hub: HubServer, path: Path, tmp_path: Path, run, name: str):
    expected = "does not name a repository of the hub: expected OWNER/NAME"
    run("push", path, name, "--license", "mit").refused(2, expected)
    run("pull", name, tmp_path / "new.zarr").refused(2, expected)
    run("export", "lerobot", path, tmp_path / "set", "--image", "--push", name, "--license", "mit").refused(2, expected)
    assert not list(tmp_path.iterdir()) and not hub.repositories


def test_a_refused_pull_leaves_nothing(hub: HubServer, path: Path, tmp_path: Path, run):
    run("pull", "me/nothing", tmp_path / "new.zarr").refused(
        2, "me/nothing on the hub: it does not exist, or is private and the token may not see it (404)"
    )
    push_store(fwdata.open(path), REPO, "mit", only=("stats",))
    run("pull", REPO, tmp_path / "new.zarr").refused(2, "holds caches alone")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_exported_dataset_is_pushed_by_the_command(hub: HubServer, path: Path, tmp_path: Path, run):
    out = tmp_path / "set"
    options = ("--image", "--episodes", "0-1", "--push", "me/set", "--json")
    run("export", "lerobot", path, out, *options).refused(2, "--license")
    assert not out.exists()
    done = run("export", "lerobot", path, out, *options, "--license", "cc-by-4.0")
    assert done.code == 0 and done.json["repository"] == "me/set" and done.json["episodes"] == 2
    files = hub.repositories["datasets/me/set"]
    local = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert {name: files[name] for name in local if name != "README.md"} == {
        name: data for name, data in local.items() if name != "README.md"
    }
    assert b"cc-by-4.0" in files["README.md"] and hub.tags == [("datasets/me/set", "v3.0")]


def server_says(hub: HubServer, case: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Bring about a refusal of the hub; returns what the sentence has to say."""
    if case == "no token":
        monkeypatch.delenv("HF_TOKEN")
        return "no token on this machine; log in with `hf auth login`"
    if case == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_stolen")
        return "the token was not accepted (401"
    if case == "another's":
        hub.tokens["hf_test"] = "you"
        return "the token may not do this (403: You don't have the rights to write to the namespace me); use a token"
    hub.faults += {"busy": [(429, {"Retry-After": "7"})], "down": [(503, {})]}[case]
    return {
        "busy": "too many requests (429: not now); run the same command again in 7 s",
        "down": "out of order (503: not now)",
    }[case]


@pytest.mark.parametrize("case", ["no token", "wrong token", "another's", "busy", "down"])
def test_what_the_hub_answers_to_a_push_is_one_sentence(
    hub: HubServer, path: Path, run, monkeypatch, capsys, case: str
):
    monkeypatch.setattr("huggingface_hub.utils._auth._get_token_from_file", lambda: None)
    expected = server_says(hub, case, monkeypatch)
    found = run("push", path, REPO, "--license", "mit", "--json")
    found.refused(2, f"{REPO} on the hub: ", expected)
    assert found.err.count("\n") == 1 and not hub.repositories


def test_a_licence_that_the_hub_does_not_know_sends_nothing(hub: HubServer, path: Path, run):
    run("push", path, REPO, "--license", "no-such").refused(
        2, "refuses the card", '"license" is not known', "--license"
    )
    assert not hub.repositories and not hub.commits


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (None, "it does not exist, or is private (401); check the name, and log in"),
        ("hf_other", "is private and the token may not see it (404); check the name and whom"),
    ],
)
def test_a_private_repository_of_another(hub: HubServer, path: Path, tmp_path: Path, run, monkeypatch, token, expected):
    monkeypatch.setattr("huggingface_hub.utils._auth._get_token_from_file", lambda: None)
    push_store(fwdata.open(path), REPO, "mit", only=("stats",))
    hub.private.add(f"datasets/{REPO}")
    hub.tokens["hf_other"] = "other"
    monkeypatch.setenv("HF_TOKEN", token or "")
    found = run("pull", REPO, tmp_path / "new.zarr")
    found.refused(2, expected)
    assert found.err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_hub_that_cannot_be_reached_is_one_sentence_at_once(path: Path, tmp_path: Path, run, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    waited = list[float]()
    monkeypatch.setattr(time, "sleep", waited.append)
    for command in (("pull", REPO, tmp_path / "new.zarr"), ("push", path, REPO, "--license", "mit")):
        found = run(*command)
        found.refused(2, "http://127.0.0.1:9 cannot be reached (", "; check the network")
        assert found.err.count("\n") == 1
    assert not waited and not list(tmp_path.iterdir())


def test_a_hub_that_asks_to_wait_is_waited_for(hub: HubServer, path: Path, tmp_path: Path, run):
    push_store(fwdata.open(path), REPO, "mit", only=("stats",))
    bare = tmp_path / "bare.zarr"
    shutil.copytree(path, bare, ignore=lambda folder, names: ["stats"] if Path(folder) == path else [])
    hub.faults += [(200, {}), *[(429, {"Retry-After": "0"})] * 2]  # HEAD is asked once without and then with retries
    lines, logger = list[str](), logging.getLogger("huggingface_hub.utils._http")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    try:
        assert run("pull", REPO, "--into", bare).code == 0 and tree(bare / "stats") == tree(path / "stats")
    finally:
        logger.removeHandler(handler)
    assert lines == ["the hub asks to wait: 1.0s before the next try"]


def test_an_export_whose_upload_is_refused_says_how_to_send_it(hub: HubServer, tmp_path: Path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(
        json.dumps({"codebase_version": "v3.0", "total_episodes": 2, "total_frames": 80, "fps": 20})
    )
    hub.fail_after = 0
    with pytest.raises(
        UsageError, match=rf"403: the hub is full.*complete in {tmp_path}: upload it with `hf upload me/"
    ):
        push_exported(tmp_path, "me/set", "mit", lambda _: None, lambda _: None)
