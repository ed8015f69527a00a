"""What a Hub says of a refusal in its own words, and why a connection failed."""

import json
import os
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from ftq_shared.errors import HubUnreachable
from ftq_shared.redaction import Redactor, escape_control

if TYPE_CHECKING:
    import httpx2

_LONGEST = 400  # characters: a list of allowed licences has more, and its beginning is enough
# How OpenSSL calls an answer that is no TLS at all.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def plain(text: str) -> str:
    """Return foreign text as one line without secrets, shortened where it is long."""
    line = escape_control(Redactor().text(" ".join(text.split())), keep_newlines=False)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def said(error: BaseException) -> str:
    """Return the Hub's words in an error of huggingface_hub; empty when it said nothing."""
    for link in _chain(error):  # whoami puts words of its own over the Hub's
        if words := getattr(link, "server_message", None):
            return plain(str(words))
    return ""


def said_in(response: "httpx2.Response") -> str:
    """Return the Hub's words in an answer; empty without any. A page of HTML is not read out."""
    if header := response.headers.get("x-error-message"):
        return plain(header)
    try:
        words = json.loads(response.read()).get("error")
    except (ValueError, AttributeError):
        return ""
    return plain(words) if isinstance(words, str) else ""


def connection_trouble(error: Exception, endpoint: str) -> str:
    """Return why no answer came, to stand behind "the Hub at ...".

    Raises HubUnreachable for a host that cannot prove its name: no later try mends that.
    """
    import httpx2

    asked = _host(error) or urlsplit(endpoint).netloc
    by = "" if asked == urlsplit(endpoint).netloc else f"sends us on to {asked}, which "
    if isinstance(error, httpx2.TimeoutException):
        return f"{by}does not answer in time"
    why = plain(str(error)).removeprefix("[Errno ").lstrip("-0123456789] ")
    if isinstance(error, httpx2.ProxyError):
        return f"{by}cannot be reached: the proxy says {why or 'no'}"
    if not isinstance(error, httpx2.ConnectError):
        return f"{by}broke the connection off" + (f" ({why})" if why else "")
    for link in _chain(error):
        if isinstance(link, ssl.SSLError):
            _refuse_tls(link, asked)
    return f"{by}cannot be reached ({why or 'no connection'})"


def _host(error: Exception) -> str:
    """Return host and port of the request that failed; empty where the error has none."""
    import httpx2

    try:
        url = error.request.url if isinstance(error, httpx2.RequestError) else None
    except RuntimeError:  # it was made without one
        return ""
    return url.netloc.decode("ascii") if url else ""


def _refuse_tls(error: ssl.SSLError, host: str) -> None:
    if isinstance(error, ssl.SSLCertVerificationError):
        raise HubUnreachable(
            f"the certificate of {host} is not trusted ({plain(error.verify_message)})",
            code="tls_failure",
            hint="SSL_CERT_FILE=/path/to/ca.pem names a CA of your own, on clients and workers; "
            "so does a proxy that opens TLS need it",
        ) from error
    if error.reason in _NO_TLS:
        raise HubUnreachable(
            f"{host} does not speak TLS",
            code="tls_failure",
            hint="does HF_ENDPOINT say https:// where http:// is meant?",
        ) from error


def proxy_hint(endpoint: str) -> str:
    """Return a sentence that names the proxy variables in force; empty when none is."""
    url = urlsplit(endpoint)
    if not url.hostname or proxy_bypass(url.netloc):
        return ""
    wanted = (f"{url.scheme}_proxy", "all_proxy")
    found = [name for name, value in os.environ.items() if name.lower() in wanted and value]
    if not found:
        return ""
    verb = "is" if len(found) == 1 else "are"
    return f"{' and '.join(sorted(found))} {verb} set: does that proxy work?"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
