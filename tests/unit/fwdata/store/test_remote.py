"""Stores behind a URL: reading and checking them, and one sentence for everything that an address, a network, a server
or an account can be wrong in."""

from __future__ import annotations

import functools
import http.server
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command
from fault.stores import full_store, quick
from fixtures import robotwin_store, run_convert, toy_manifest, tree, write_toy
from hub_server import HubServer
from s3_server import SECRET, S3Server, first_try

import fwdata
from fwdata.errors import StoreDamaged, StoreError, UsageError
from fwdata.io import refuse_url
from fwdata.store import remote, remote_clients
from fwdata.store.copying import copy_store
from fwdata.store.locations import StoreUrl, parse_location
from fwdata.store.opening import open_target
from fwdata.store.remote import RemoteFiles
from fwdata.store.verify import verify_store


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Whole files whatever range is asked for, as Python's own server answers."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts with nothing cached."""
    folder = tmp_path_factory.mktemp("remote")
    with quick() as patch:
        manifest = toy_manifest(patch)
        run_convert(write_toy(folder / "raw", {"lift": [2, 3, 2, 2, 3]}), folder / "toy.zarr", manifest)
    return folder / "toy.zarr"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    robotwin_store(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/rt.zarr"
    server.shutdown()
    server.server_close()
    thread.join()


def objects(url: str) -> RemoteFiles:
    files = open_target(url)
    assert isinstance(files, RemoteFiles)
    return files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://b/x.zarr/", StoreUrl("s3", "b", "x.zarr")),
        ("s3:/b/a/x.zarr", StoreUrl("s3", "b", "a/x.zarr")),
        ("S3://b", StoreUrl("s3", "b", "")),
        ("hf://datasets/me/set@v1/x", StoreUrl("hf", "datasets/me/set@v1", "x")),
        ("hf://me/set", StoreUrl("hf", "datasets/me/set", "")),
        ("file:///data/x.zarr", Path("/data/x.zarr")),
        ("data/a:b.zarr", Path("data/a:b.zarr")),
    ],
)
def test_a_location_is_a_path_or_a_url(text: str, expected: StoreUrl | Path) -> None:
    assert parse_location(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ftp://host/x", "ftp:// is not a kind of storage"),
        ("s3://key:hidden@bucket/x", "credentials in the environment"),
        ("https://host/x.zarr?token=hidden", r"is not the address of a store: expected https://BUCKET/PATH"),
        ("s3://bucket/../x", "is not the address of a store"),
        ("s3://bucket/a\nb", "is not the address of a store"),
        ("hf://me", "names no repository"),
    ],
)
def test_other_addresses_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_location(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://key:hidden@bucket/x",
        "s3://key:with/slash+hidden@bucket/x",
        "https://user:with/hidden@host/x.zarr",
        "https://host/x.zarr?X-Amz-Signature=hidden",
        "https://host/x.zarr#hidden",
    ],
)
def test_secrets_in_an_address_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="give credentials in the environment") as caught:
        parse_location(text)
    assert "hidden" not in str(caught.value) and "slash" not in str(caught.value)


def test_hosts_may_have_ports() -> None:
    assert str(parse_location("http://[::1]:80/x")) == "http://[::1]:80/x"
    assert str(parse_location("http://host:8080/x")) == "http://host:8080/x"


@pytest.mark.parametrize(
    "line",
    [
        "sample robotwin --episodes 1 --out s3://bucket/raw",
        "quickstart --out s3://bucket/q",
        "pull me/set s3:/bucket/x.zarr",
        "pull me/set --into s3://bucket/x.zarr",
        "init mine --out s3://bucket/mine",
        "export lerobot {store} s3://bucket/lr",
        "preview {store} --out s3://bucket/p",
        "report {store} --out s3://bucket/r.html",
        "stats {store} --export s3://bucket/e",
        "convert toy s3://bucket/raw --out {store}",
    ],
)
def test_what_needs_a_path_refuses_a_url_and_makes_no_folder_of_its_name(
    line: str, run: Command, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tree(store)
    run(*line.format(store=store).split()).refused(2, "s3://bucket/", "is a URL; ", "takes a path of this machine")
    assert not list(tmp_path.iterdir()) and tree(store) == before


def test_a_server_without_range_requests_is_named(served: str) -> None:
    with pytest.raises(StoreError, match="sends whole files where a part is asked for"):
        objects(served).read_range("zarr.json", 3, 5)


@pytest.mark.slow
def test_a_web_server_is_read_and_verified(served: str, run: Command) -> None:
    assert len(fwdata.open(served).episodes) == 4
    run("inspect", served).refused(2, "sends whole files where a part is asked for")
    done = run("verify", served)
    assert done.code == 0 and done.out.startswith(f"{served}: ") and done.out.endswith(" 0 damaged\n"), done.err


@pytest.mark.slow
def test_an_address_that_nobody_answers_is_one_sentence(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FWDATA_TIMEOUT", "0.3")
    url = "http://127.0.0.1:1/x.zarr"
    for command in ("inspect", "verify"):
        run(command, url).refused(2, f"cannot reach {url}/zarr.json", "check the address and the network")


def test_memory_is_that_of_one_process(run: Command) -> None:
    run("inspect", "memory://nobody/x.zarr").refused(2, "memory of this process, which no other process sees")


def test_a_path_with_a_colon_is_not_a_url() -> None:
    refuse_url(Path("data/a:b.zarr"), "caches are written to local stores only")
    with pytest.raises(UsageError, match=r"^s3://b/x\.zarr is a URL; caches are written to local stores only"):
        refuse_url(Path("s3://b/x.zarr"), "caches are written to local stores only")


@pytest.mark.slow
def test_a_store_on_the_hub_is_read_only(
    store: Path, hub: HubServer, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    files = {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    hub.repositories["datasets/me/set"] = {f"toy.zarr/{key}": data for key, data in files.items()}
    url = "hf://datasets/me/set/toy.zarr"
    assert fwdata.open(url).fingerprint == fwdata.open(store).fingerprint
    assert verify_store(url).damaged == [] and run("inspect", url).code == 0
    run("copy", str(store), url).refused(2, f"{url} can only be read")
    run("inspect", "hf://datasets/me/none/toy.zarr").refused(2, "hf://datasets/me/none/toy.zarr")


@pytest.mark.slow
def test_s3_holds_the_same_store(s3: S3Server, run: Command, tmp_path: Path) -> None:
    store = full_store(tmp_path)
    url = f"{s3.bucket()}/deep/toy.zarr"
    assert run("copy", str(store), url).code == 0
    assert s3.counts()["PUT"] == 2 + sum(path.is_file() for path in store.rglob("*"))  # bucket and claim too
    here, there = fwdata.open(store), fwdata.open(url)
    assert there.fingerprint == here.fingerprint and there.location == url
    assert (there.latents().first(there.episodes[2], [0, 2]) == here.latents().first(here.episodes[2], [0, 2])).all()
    assert (there.episodes[1].stitched([0]) == here.episodes[1].stitched([0])).all()
    assert pickle.loads(pickle.dumps(there)).fingerprint == here.fingerprint  # noqa: S301 - made here
    assert run("inspect", url).code == 0 and run("inspect", url, "--episode", "0").code == 0
    whole, sampled = run("verify", url, "--json").json, run("verify", url, "--sample", "20%", "--json").json
    assert (
        whole["damaged"] == []
        and whole["files"] == whole["total_files"] == run("verify", str(store), "--json").json["files"]
    )
    assert sampled["files"] < whole["files"]
    assert run("copy", url, str(tmp_path / "back.zarr")).code == 0
    assert tree(tmp_path / "back.zarr") == tree(store)


@pytest.mark.slow
def test_verify_names_damaged_missing_and_strange_objects(store: Path, s3: S3Server, run: Command) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    copy_store(str(store), url)
    files = objects(url)
    chunks = [key for key in files.listing().keys if "/state/c/" in key]
    files.write(chunks[0], (files.read(chunks[0]) or b"")[:-1] + b"?")
    files.delete([chunks[1]])
    files.write("notes.txt", b"mine")
    done = run("verify", url)
    assert done.code == 4
    for line in (
        f"{url}/{chunks[0]} was changed",
        f"{url}/{chunks[1]} is missing",
        f"{url}/notes.txt does not belong to the store",
    ):
        assert line in done.err
    assert done.out.endswith(" 3 damaged\n")
    with pytest.raises(StoreDamaged, match=r"c/0/0 is missing; run `fwdata verify s3://"):
        fwdata.open(url).files.read_range(chunks[1], 0, 4)


@pytest.mark.slow
def test_slow_downs_errors_and_cut_bodies_are_tried_again(s3: S3Server) -> None:
    files = objects(f"{s3.bucket()}/x")
    for kind, methods in (("busy", ("PUT", "GET")), ("broken", ("PUT", "GET")), ("short", ("GET",))):
        s3.fault = first_try(kind, *methods)
        key = f"{kind}/a"
        files.write(key, bytes(range(200)))
        for read in (
            functools.partial(files.read, key),
            functools.partial(files.read_range, key, 0, 200),
            functools.partial(files.read_tail, key, 200),
        ):
            s3.fault, s3.seen[:] = first_try(kind, *methods), []
            assert read() == bytes(range(200)) and s3.counts()["GET"] == 2
    s3.fault = first_try("short", "GET")
    assert list(files.listing().sizes) == ["broken/a", "busy/a", "short/a"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "busy",
            "overloaded and still answers SlowDown: Please reduce your request rate after all",
        ),
        ("broken", "InternalError: We encountered an internal error"),
        ("empty", "cannot reach"),
        ("hang", "no answer in time"),
    ],
)
def test_a_server_that_stays_broken_is_one_sentence(
    s3: S3Server, run: Command, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    objects(url).write("zarr.json", b"{}")
    monkeypatch.setenv("FWDATA_TIMEOUT", "0.5")
    if kind != "hang":  # one try has all the time that a busy machine needs; no other one follows after half a second
        monkeypatch.setattr(remote_clients, "one_try_seconds", lambda seconds: 60.0)
    s3.fault = lambda request: kind
    for command in ("inspect", "verify"):
        done = run(command, url)
        done.refused(2, f"{url}/zarr.json", words)
        assert SECRET not in done.err + done.out


@pytest.mark.slow
def test_wrong_buckets_accounts_and_regions_are_one_sentence(
    s3: S3Server, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    run("inspect", f"{bucket}/none.zarr").refused(2, f"{bucket}/none.zarr is not an fwdata store")
    run("inspect", "s3://no-such-bucket/x.zarr").refused(2, "the bucket does not exist")
    run("verify", "s3://no-such-bucket/x.zarr").refused(2, "the bucket does not exist")
    answers = {
        "AccessDenied": (403, "access denied (AccessDenied: not you)"),
        "InvalidAccessKeyId": (403, "the server refuses the credentials (InvalidAccessKeyId: not you)"),
        "SignatureDoesNotMatch": (403, "check AWS_ACCESS_KEY_ID"),
        "PermanentRedirect": (301, "the bucket is in another region; set AWS_REGION to that of the bucket"),
    }
    for code, (status, words) in answers.items():
        s3.refuse(status, code, "not you")
        for command in ("inspect", "verify"):
            run(command, f"{bucket}/x.zarr").refused(2, words)


def test_credentials_are_asked_for(s3: S3Server, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("FWDATA_TIMEOUT", "0.5")
    run("inspect", f"{s3.bucket()}/x.zarr").refused(2, "no credentials were found; set AWS_ACCESS_KEY_ID")


def test_a_forked_process_is_refused_instead_of_waiting_for_ever(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    files = objects(f"{s3.bucket()}/x.zarr")
    assert files.read("zarr.json") is None
    monkeypatch.setattr(remote, "_first_process", 1)
    with pytest.raises(StoreError, match=r"multiprocessing_context='forkserver' or 'spawn'"):
        files.read("zarr.json")


@pytest.mark.slow
def test_many_records_are_fetched_at_once(store: Path, s3: S3Server) -> None:
    url = f"{s3.bucket()}/toy.zarr"
    copy_store(str(store), url)
    s3.seen.clear()
    assert len(fwdata.open(url).parts) == 3
    reads = [request.path for request in s3.seen if "/parts/" in request.path]
    assert len(reads) == len(set(reads)) == 3


def test_conditional_writes(s3: S3Server) -> None:
    files = objects(f"{s3.bucket()}/x.zarr")
    assert files.create("a", b"1") and not files.create("a", b"2") and files.read("a") == b"1"
    entry = files.entry("a")
    assert entry is not None and files.replace("a", b"3", entry.tag) and not files.replace("a", b"4", entry.tag)
    assert files.read("a") == b"3" and not files.replace("b", b"4", entry.tag) and files.entry("b") is None


def test_a_server_that_is_not_there_is_named_by_its_variable(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    for name, value in (("FWDATA_TIMEOUT", "0.3"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:word@127.0.0.1:1")
    ran = run("inspect", "s3://bucket/x.zarr")
    ran.refused(
        2, "cannot reach s3://bucket/x.zarr", "check the address (AWS_ENDPOINT_URL=127.0.0.1:1) and the network"
    )
    for wrong in ("localhost:9000", "http://", "ftp://x"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", wrong)
        words = "AWS_ENDPOINT_URL must be an address such as http://localhost:9000"
        run("inspect", "s3://bucket/y.zarr").refused(2, words)
