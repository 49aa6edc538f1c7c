"""Servers that answer with what no store holds: one sentence, and nothing outside of the folder that is written."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fault.stores import quick
from fixtures import run_convert, toy_manifest, write_toy

from fwdata.errors import StoreBusy, StoreError
from fwdata.store.copying import copy_store
from fwdata.store.opening import open_target
from fwdata.store.remote import RemoteFiles
from fwdata.store.remote_clients import one_try_seconds
from fwdata.store.verify import verify_store
from fwdata.store.working_copy import working_copy

TOKEN = "hf_hidden"


@dataclass
class Answers:
    """What a server sends for every path. short: bytes that it announces and does not send."""

    address: str = ""
    body: bytes = b""
    short: int = 0
    status: int = 200
    paths: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    tokens: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.paths.append(self.path)
            answers.tokens.append(self.headers.get("authorization"))
            self.send_response(answers.status, f"for {self.headers.get('authorization')}")
            self.send_header("Content-Length", str(len(answers.body) + answers.short))
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answers.body)

        def log_message(self, *_: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    answers.address = f"http://127.0.0.1:{running.server_address[1]}"
    yield answers
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def hub_answers(server: Answers, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """The same server as the hub."""
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return server


def objects(url: str) -> RemoteFiles:
    files = open_target(url)
    assert isinstance(files, RemoteFiles)
    return files


@pytest.mark.parametrize(
    "path", ["/tmp/evil", "parts//evil", "parts\\..\\evil", "parts/a\0b", "../evil", "a/../../evil"]
)
def test_keys_that_lead_out_of_a_folder_are_refused(path: str, hub_answers: Answers) -> None:
    hub_answers.body = json.dumps([{"type": "file", "path": path, "size": 1}]).encode()
    with pytest.raises(StoreError, match=r"hf://datasets/me/set lists '.*evil', which|lists 'parts/a.*b', which"):
        objects("hf://datasets/me/set").listing()


def test_objects_of_a_bucket_are_refused_by_the_same_rule() -> None:
    files = objects("memory://hostile/x")
    files.write("a\\..\\b", b"")
    with pytest.raises(StoreError, match="which no file of a store is called"):
        files.entries()
    for key in ("../x", "/x", "a\0b"):
        with pytest.raises(StoreError, match="has a name that no file of a store has"):
            files.read(key)


@pytest.mark.parametrize(
    ("body", "short"), [(b"<html>", 0), (b'{"error": "x"}', 0), (b"[", 99), (b'[{"type": "file"}]', 0), (b"3", 0)]
)
def test_what_is_no_answer_of_the_hub_is_one_sentence(body: bytes, short: int, hub_answers: Answers) -> None:
    hub_answers.body, hub_answers.short = body, short
    with pytest.raises(StoreError, match=r"^hf://datasets/me/set: the answer of the hub is no list of files \("):
        objects("hf://datasets/me/set").listing()


def test_a_reason_phrase_that_repeats_the_token_is_not_shown(hub_answers: Answers) -> None:
    hub_answers.status = 500
    with pytest.raises(StoreError, match="the hub answers 500; check") as caught:
        objects("hf://datasets/me/set").listing()
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("way", ["Location", "Link"])
def test_the_token_goes_to_no_other_server(way: str, hub_answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = hub_answers.address.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("no_proxy", "*")
    hub_answers.body = b"[]"
    if way == "Location":
        hub_answers.status, hub_answers.headers = 302, {way: f"{elsewhere}/other"}
    else:
        hub_answers.headers = {way: f'<{elsewhere}/other>; rel="next"'}
    with pytest.raises(StoreError, match=r"the hub (answers 302|continues its list at another address)"):
        objects("hf://datasets/me/set").listing()
    assert hub_answers.tokens[0] == f"Bearer {TOKEN}" and set(hub_answers.tokens[1:]) <= {None}


def test_folders_without_end_are_refused(server: Answers) -> None:
    server.body = b'<a href="zarr.json">x</a><a href="again/">x</a>'
    with pytest.raises(StoreError, match="lists folders without end, as in again/again"):
        objects(f"{server.address}/x.zarr").listing()
    assert len(server.paths) < 30


def test_a_working_copy_that_is_removed_meanwhile_removes_nothing_behind_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / "scratch"))
    with quick() as patch:
        run_convert(write_toy(tmp_path / "raw", {"lift": [2]}), tmp_path / "toy.zarr", toy_manifest(patch))
    url = "memory://removed/toy.zarr"
    copy_store(str(tmp_path / "toy.zarr"), url)
    before = objects(url).keys()
    for place in ("", "parts"):
        with (
            pytest.raises(StoreBusy, match=rf"^{url}/(parts/)?zarr\.json was removed while"),
            working_copy(url) as path,
        ):
            shutil.rmtree(path / place)
        assert objects(url).keys() == before
    with working_copy(url):  # the same command again
        pass
    assert objects(url).keys() == before and verify_store(url).damaged == []


def test_more_time_for_a_request_is_more_time_for_each_of_its_tries() -> None:
    assert [one_try_seconds(seconds) for seconds in (0.5, 120, 1200)] == [0.5, 30, 300]
