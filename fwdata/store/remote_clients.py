"""Clients of object stores and web servers: how they are configured.

Endpoint, region and credentials come from the environment alone: `AWS_*` with `AWS_ENDPOINT_URL`, `GOOGLE_*`,
`HF_TOKEN` with `HF_ENDPOINT`. With `AWS_PROFILE`, boto3's credentials are used where boto3 is installed.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from fwdata.errors import UsageError, needed_for
from fwdata.install import library_command
from fwdata.store.locations import StoreUrl
from fwdata.store.remote_errors import named_endpoint

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
    """Whether the server is asked without encryption. UsageError for an address in the environment that is none."""
    named = named_endpoint(url.scheme)
    if named is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", named[1]):  # the client would panic
        shown = named[1].rpartition("@")[2]
        raise UsageError(f"{named[0]} must be an address such as http://localhost:9000, found {shown!r}")
    return url.scheme == "http" or (named is not None and named[1].startswith("http://"))


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
    return f"{hub_address()}/{repo}/resolve/{revision or 'main'}/{urllib.parse.quote(url.prefix)}".rstrip("/")


def hub_address() -> str:
    """Address of the hub, without a slash at the end."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
