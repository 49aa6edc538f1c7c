"""Stores behind a URL: the sentences when the address, the network or the server is wrong."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures import robotwin_store

import fwdata
from fwdata.errors import StoreError, UsageError
from fwdata.store.files import RemoteFiles, refuse_url
from fwdata.store.verify import verify_store


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Whole files whatever range is asked for, as Python's own server answers."""

    def log_message(self, *_: object) -> None:
        pass


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


def test_a_server_without_range_requests_is_named(served: str):
    with pytest.raises(StoreError, match="sends whole files where a part is asked for"):
        RemoteFiles(served).read_range("zarr.json", 3, 5)


def test_an_address_that_nobody_answers_is_one_sentence():
    with pytest.raises(StoreError, match=r"^cannot reach http://127\.0\.0\.1:1/x\.zarr: .*check the address"):
        fwdata.open("http://127.0.0.1:1/x.zarr")


@pytest.mark.parametrize("url", ["http://host/x.zarr", "http:/host/x.zarr"])
def test_a_command_for_local_stores_names_the_url_as_it_was_typed(url: str):
    with pytest.raises(UsageError, match=r"^http://host/x\.zarr is a URL; `fwdata verify` reads local stores only"):
        verify_store(Path(url), lambda count: None, lambda count: None)


def test_a_path_with_a_colon_is_not_a_url():
    refuse_url(Path("data/a:b.zarr"), "caches are written to")
