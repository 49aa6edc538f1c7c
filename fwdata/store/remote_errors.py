"""What a request to object storage failed of, in one sentence."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from fwdata.errors import StoreDamaged, StoreError, needed_for, one_line

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_SKIP_SIGNATURE=true for a "
    "public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "hf": "HF_TOKEN",
}
_REGION = (
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraint",
    "301 Moved Permanently",
    "redirect without LOCATION",
)
ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "hf": ("HF_ENDPOINT",)}
"""Kind of URL -> variables that name its server, the first that is set."""
_CUT = ("response body error", "decoding response body", "kind: Decode")
_PAST_END = ("416 Range", "InvalidRange", "Invalid range")
_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "401 Unauthorized")


def cut_short(error: BaseException) -> bool:
    """Whether an answer ended before its end, which the client does not try again by itself."""
    return any(words in str(error) for words in _CUT)


class RangesUnsupported(StoreError):
    """A web server that sends whole files where a part is asked for."""


@contextlib.contextmanager
def reaching(where: str, scheme: str) -> Iterator[None]:
    """Failures of requests in the block become a StoreError that names the URL; an absent object stays
    FileNotFoundError, an unmet condition AlreadyExistsError or PreconditionError. where: `s3://bucket/key`."""
    with needed_for("a store behind a URL"):
        from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except NotSupportedError:
        raise RangesUnsupported(
            f"the server of {where} sends whole files where a part is asked for (HTTP range requests); use a server "
            "with range requests, or copy the store"
        ) from None
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise StoreError(_sentence(where, scheme, str(error))) from None
        raise
    except (BaseError, OSError) as error:  # obstore raises TimeoutError and ConnectionError of Python too
        if any(words in str(error) for words in _PAST_END):
            raise StoreDamaged(f"{where} is shorter than expected; the store is damaged") from None
        raise StoreError(_sentence(where, scheme, str(error))) from None
    except ValueError:  # of the client, which takes no `..`, `//` or control characters
        raise StoreError(f"{one_line(where)} has a name that no file of a store has; remove it there") from None


def _sentence(where: str, scheme: str, text: str) -> str:
    variables = _CREDENTIALS.get(scheme)
    if "NoSuchBucket" in text:
        return f"{where}: the bucket does not exist; check its name, AWS_REGION and AWS_ENDPOINT_URL"
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return f"{where}: no credentials were found; set {variables}"
    if any(word in text for word in _REGION):
        region = re.search(r"<Region>([^<]+)</Region>|expecting '([^']+)'", text)
        named = f" to {region[1] or region[2]}" if region else " to that of the bucket"
        return f"{where}: the bucket is in another region; set AWS_REGION{named}"
    if any(word in text for word in _KEYS):
        return f"{where}: the server refuses the credentials ({_reason(text)}); check {variables or 'the address'}"
    if "403 Forbidden" in text:
        return (
            f"{where}: access denied ({_reason(text)}); check that the credentials may list and read (and write) there"
        )
    if "503 Service" in text or "SlowDown" in text or "429 Too" in text:
        return (
            f"{where}: the server is overloaded and still answers {_reason(text)} after all retries; run the same "
            "command again later: it continues"
        )
    if "kind: Timeout" in text or "timed out" in text.lower():
        return (
            f"cannot reach {where}: no answer in time; check {_address(scheme)} and the network, and on a slow line "
            "set FWDATA_TIMEOUT to more seconds"
        )
    return f"cannot reach {where}: {_reason(text)}; check {_address(scheme)} and the network"


def named_endpoint(scheme: str) -> tuple[str, str] | None:
    """(variable, address) of the server that the environment names for a kind of URL."""
    return next(((name, os.environ[name]) for name in ENDPOINTS.get(scheme, ()) if os.environ.get(name)), None)


def _address(scheme: str) -> str:
    """The words for the address that was asked, without credentials that it may hold."""
    named = named_endpoint(scheme)
    return "the address" if named is None else f"the address ({named[0]}={named[1].rpartition('@')[2]})"


def _reason(text: str) -> str:
    """The server's own code and message, else the client's last words before its debug output."""
    code, message = re.search(r"<Code>([^<]+)</Code>", text), re.search(r"<Message>([^<]+)</Message>", text)
    if code:
        return one_line(f"{code[1]}: {message[1].rstrip('.')}" if message else code[1])
    first = text.partition("\n")[0]
    status = re.search(r"status code: (\d{3} [A-Za-z ]+)", first)
    return one_line(status[1].strip() if status else re.split(r" - |: ", first)[-1])
