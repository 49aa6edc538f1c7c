"""A hub on this machine: the calls that uploads and downloads make, for small files."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import pytest


@dataclass
class HubServer:
    """Its repositories: `datasets/OWNER/NAME` -> files.

    fail_after: commits that are taken before one is refused. tokens: who each belongs to, and may write to OWNER of the
    same name alone. private: repositories that only their owner sees. faults: (status, headers) of the next answers.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    tags: list[tuple[str, str]] = field(default_factory=list)
    fail_after: int | None = None
    tokens: dict[str, str] = field(default_factory=lambda: {"hf_test": "me"})
    private: set[str] = field(default_factory=set)
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    address: str = ""

    def create(self, body: dict) -> dict:
        kind = {"dataset": "datasets/", "model": ""}[body.get("type", "model")]
        name = "/".join(part for part in (body.get("organization"), body["name"]) if part)
        self.repositories.setdefault(f"{kind}{name}", {})
        return {"url": f"{self.address}/{kind}{name}", "name": name, "id": name}

    def commit(self, repo: str, lines: list[dict]) -> dict:
        if self.fail_after is not None and len(self.commits) >= self.fail_after:
            raise PermissionError("the hub is full")
        names = []
        for line in lines:
            if line["key"] == "file":
                names.append(line["value"]["path"])
                self.repositories[repo][names[-1]] = base64.b64decode(line["value"]["content"])
        self.commits.append((repo, names))
        return {"commitUrl": f"{self.address}/{repo}/commit/{'0' * 40}", "commitOid": "0" * 40, "commitMessage": ""}

    def tree(self, repo: str) -> list[dict]:
        return [
            {"type": "file", "path": path, "size": len(data), "oid": blob(data)}
            for path, data in sorted(self.repositories[repo].items())
        ]


def owner_of(repo: str) -> str:
    """Of `datasets/OWNER/NAME` or `OWNER/NAME`."""
    return repo.split("/")[-2]


def blob(data: bytes) -> str:
    """git's name of a file's bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Requests of huggingface_hub."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def refused(self, owner: str | None = None, repo: str = "") -> bool:
        """Whether an answer was given already: a fault, a token that is unknown, or one that may not do this.

        owner: whose repository is to be written. repo: the one that is to be read.
        """
        if self.hub.faults:
            status, headers = self.hub.faults.pop(0)
            self.answer({"error": "not now"}, status, headers)
            return True
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = self.hub.tokens.get(token)
        if token and user is None:
            told = "Invalid credentials in Authorization header"
            self.answer({"error": told}, 401, {"X-Error-Message": told})
        elif owner is not None and user is None:
            self.answer({"error": "Invalid username or password."}, 401)
        elif owner is not None and user != owner:
            self.answer({"error": f"You don't have the rights to write to the namespace {owner}"}, 403)
        elif repo and (repo not in self.hub.repositories or (repo in self.hub.private and user != owner_of(repo))):
            self.answer({"error": "Repository not found"}, 404 if token else 401, {"X-Error-Code": "RepoNotFound"})
        else:
            return False
        return True

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        owner = json.loads(body).get("organization") or "me" if path == "/api/repos/create" else None
        written = re.fullmatch(r"/api/(?:models/)?(.+)/(?:tag|preupload|commit)/.+", path)
        if self.refused(owner_of(written[1]) if written else owner):
            return
        try:
            if path == "/api/repos/create":
                self.answer(self.hub.create(json.loads(body)))
            elif found := re.fullmatch(r"/api/(?:models/)?(.+)/tag/main", path):
                self.hub.tags.append((found[1], json.loads(body)["tag"]))
                self.answer({})
            elif path == "/api/validate-yaml":
                wrong = (
                    []
                    if "license: no-such" not in json.loads(body)["content"]
                    else [{"message": '"license" is not known'}]
                )
                self.answer({"errors": wrong, "warnings": []}, 400 if wrong else 200)
            elif found := re.fullmatch(r"/api/(?:models/)?(.+)/preupload/.+", path):
                files = [{**f, "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
                self.answer({"files": files})
            elif found := re.fullmatch(r"/api/(?:models/)?(.+)/commit/.+", path):
                self.answer(self.hub.commit(found[1], [json.loads(line) for line in body.splitlines()]))
            else:
                self.answer({"error": path}, 404)
        except PermissionError as error:
            self.answer({"error": str(error)}, 403)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(r"/api/(?:models/)?(.+?)/(?:tree|revision)/.+|/(.+?)/resolve/.+", path)
        if self.refused(repo=(api[1] or api[2]) if api else ""):
            return
        if path == "/api/whoami-v2":
            known = self.headers.get("Authorization")
            self.answer({"name": "me"} if known else {"error": "Invalid username or password."}, 200 if known else 401)
        elif found := re.fullmatch(r"/api/(?:models/)?(.+?)/tree/[^/]+(/.+)?", path):
            known = found[1] in self.hub.repositories
            files = [f for f in self.hub.tree(found[1]) if f"/{f['path']}".startswith(found[2] or "")] if known else []
            self.answer(files if known else {"error": "no such repository"}, 200 if known else 404)
        elif (found := re.fullmatch(r"/api/(?:models/)?(.+?)/revision/[^/]+", path)) and (
            found[1] in self.hub.repositories
        ):
            names = [{"rfilename": item["path"]} for item in self.hub.tree(found[1])]
            self.answer({"id": found[1], "sha": "0" * 40, "private": False, "siblings": names})
        elif found := re.fullmatch(r"/(.+)/resolve/[^/]+/(.+)", path):
            self.file(self.hub.repositories.get(found[1], {}).get(found[2]), found[2])
        else:
            self.answer({"error": path}, 404)

    do_HEAD = do_GET

    def file(self, data: bytes | None, name: str) -> None:
        if data is None:
            self.answer({"error": "no such file"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        if self.command == "GET":
            self.hub.downloads.append(name)
        headers = {"ETag": f'"{blob(data)}"', "X-Repo-Commit": "0" * 40, "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if part is None or self.command == "HEAD":
            self.answer(data, 200, headers)
            return
        start = int(part[1]) if part[1] else max(0, len(data) - int(part[2]))
        stop = min(len(data), int(part[2]) + 1) if part[1] and part[2] else len(data)
        self.answer(data[start:stop], 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def answer(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on this machine, which huggingface_hub talks to."""
    from huggingface_hub import constants

    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield server


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A hub that listens on this machine alone."""
    hub = HubServer()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
