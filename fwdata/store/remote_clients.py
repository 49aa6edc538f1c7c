"""Clients of object stores and web servers: how they are configured, and how a web server's folders are listed.

Endpoint, region and credentials come from the environment alone: `AWS_*` with `AWS_ENDPOINT_URL`, `GOOGLE_*`,
`HF_TOKEN` with `HF_ENDPOINT`. With `AWS_PROFILE`, boto3's credentials are used where boto3 is installed.
"""

from __future__ import annotations

import html.parser
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from fwdata.errors import StoreError, UsageError, needed_for
from fwdata.install import library_command
from fwdata.store.locations import StoreUrl

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

TIMEOUT_VARIABLE = "FWDATA_TIMEOUT"
"""Environment variable: seconds after which a request is given up, retries included."""


class Client(NamedTuple):
    """A connection."""

    store: ObjectStore
    """obstore's client."""
    base: str
    """What a store's keys follow in it, "" or ending with a slash."""


def request_seconds() -> float:
    """How long a request may take, retries included. UsageError where the variable is not a positive number."""
    text = os.environ.get(TIMEOUT_VARIABLE, "120")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"{TIMEOUT_VARIABLE} takes a positive number of seconds, found {text!r}")
    return seconds


def one_try_seconds(seconds: float) -> float:
    """How long one try may take, its data included, of the seconds that a request has: so that a large object comes
    through a slow line where more are given."""
    return min(seconds, max(30.0, seconds / 4))


def connect(url: StoreUrl) -> Client:
    """A client for a URL; no request is made. MissingLibrary without obstore."""
    with needed_for("a store behind a URL"):
        import obstore.store as stores
    seconds = request_seconds()
    options: ClientConfig = {
        "connect_timeout": timedelta(seconds=min(5.0, seconds)),
        "timeout": timedelta(seconds=one_try_seconds(seconds)),
        "allow_http": _plain_http(url),
    }
    retry: RetryConfig = {
        "max_retries": 8,
        "retry_timeout": timedelta(seconds=seconds),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=8), "base": 2},
    }
    base = f"{url.prefix}/" if url.prefix else ""
    if url.scheme == "memory":
        return Client(_memory(), f"{url.bucket}/{base}")
    if url.scheme == "s3":
        provider = _profile_credentials()
        return Client(
            stores.S3Store(url.bucket, client_options=options, retry_config=retry, credential_provider=provider), base
        )
    if url.scheme == "gs":
        return Client(stores.GCSStore(url.bucket, client_options=options, retry_config=retry), base)
    token = os.environ.get("HF_TOKEN")
    if url.scheme == "hf" and token:
        options["default_headers"] = {"authorization": f"Bearer {token}"}
    return Client(stores.HTTPStore(web_address(url), client_options=options, retry_config=retry), "")


@cache
def _memory() -> ObjectStore:
    """The memory of this process that `memory://` stands for."""
    from obstore.store import MemoryStore

    return MemoryStore()


def _plain_http(url: StoreUrl) -> bool:
    endpoints = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "hf": ("HF_ENDPOINT",)}
    named = next((os.environ[name] for name in endpoints.get(url.scheme, ()) if os.environ.get(name)), "")
    return url.scheme == "http" or named.startswith("http://")


def _profile_credentials() -> Any:
    """boto3's credentials where a profile is named, None for those that obstore finds."""
    if "AWS_PROFILE" not in os.environ or "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise UsageError(f"AWS_PROFILE needs boto3, which is not installed; run: {library_command('boto3')}") from None
    return Boto3CredentialProvider()


def web_address(url: StoreUrl) -> str:
    """Address of a store on a web server or the hub."""
    if url.scheme != "hf":
        return str(url)
    repo, _, revision = url.bucket.partition("@")
    return f"{_hub()}/{repo}/resolve/{revision or 'main'}/{urllib.parse.quote(url.prefix)}".rstrip("/")


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


class _Links(html.parser.HTMLParser):
    """Targets of the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for key, value in attrs if key == "href" and value]


def index_page(data: bytes) -> list[str]:
    """Names that a web server's listing of a folder links to, those of folders with a slash at the end."""
    links = _Links()
    links.feed(data.decode("utf-8", errors="replace"))
    names = (urllib.parse.unquote(link.removeprefix("./")) for link in links.found)
    return [name for name in names if name.strip("/") and "/" not in name[:-1] and name[0] not in "?#."]


def _hub_page(entries: Any) -> list[tuple[str, int]]:
    """Paths and sizes of the files of one page. TypeError, KeyError or ValueError for anything else."""
    return [(str(entry["path"]), int(entry["size"])) for entry in entries if entry["type"] == "file"]


def hub_files(url: StoreUrl) -> Iterator[tuple[str, int]]:
    """Keys and sizes of the files below a place in a repository of the hub. StoreError in one sentence."""
    repo, _, revision = url.bucket.partition("@")
    place = f"/{urllib.parse.quote(url.prefix)}" if url.prefix else ""
    page: str | None = f"{_hub()}/api/{repo}/tree/{revision or 'main'}{place}?recursive=true"
    token = os.environ.get("HF_TOKEN")
    base = f"{url.prefix}/" if url.prefix else ""
    while page:
        try:
            request = urllib.request.Request(page)
            if token:  # for the hub itself: not sent along to where it redirects
                request.add_unredirected_header("authorization", f"Bearer {token}")
            with urllib.request.urlopen(request, timeout=request_seconds()) as answer:
                files = _hub_page(json.load(answer))
                link = answer.headers.get("Link", "")
        except urllib.error.HTTPError as error:
            error.close()
            raise StoreError(
                f"{url}: the hub answers {error.code}; check the name, and HF_TOKEN if it is private"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot reach {url}: {error}; check the address and the network") from None
        except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{url}: the answer of the hub is no list of files ({type(error).__name__}); check HF_ENDPOINT and the "
                "network"
            ) from None
        yield from ((path.removeprefix(base), size) for path, size in files if path.startswith(base))
        page = link.partition("<")[2].partition(">")[0] if 'rel="next"' in link else None
        if page and not page.startswith(f"{_hub()}/"):
            raise StoreError(f"{url}: the hub continues its list at another address; check HF_ENDPOINT")
