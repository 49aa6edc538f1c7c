"""How folders of a web server and of the hub are listed; imported only where one is, as what it needs takes time."""

from __future__ import annotations

import html.parser
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from fwdata.errors import StoreError
from fwdata.store.locations import StoreUrl
from fwdata.store.remote_clients import hub_address, request_seconds


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
    page: str | None = f"{hub_address()}/api/{repo}/tree/{revision or 'main'}{place}?recursive=true"
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
        if page and not page.startswith(f"{hub_address()}/"):
            raise StoreError(f"{url}: the hub continues its list at another address; check HF_ENDPOINT")
