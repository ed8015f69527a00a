"""FTQ_REDIS_URL taken apart once, for redis-py and for kombu alike.

Each of them reads a URL in its own way: what one takes breaks the other, or is ignored. So neither
gets what a person wrote, but a URL that is rebuilt from its parts, and TLS as arguments.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from ftq_shared.errors import UsageError

DEFAULT_PORT = 6379
# As the libraries call them: the CA that signs the broker's certificate, and one of our own.
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

_ENCODE = "percent-encode the password: / is %2F, # is %23, @ is %40, ? is %3F, % is %25"
_FORM = "write redis://USER:PASSWORD@HOST:PORT/0, or rediss:// for TLS"
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?|[0-9a-f:.]+(?:%\w+)?")
_DB = re.compile(r"/?|/([0-9]{1,5})")
_HALF_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, repr=False)  # no repr: the password must not end up in a log line
class BrokerUrl:
    """Where the broker is, and how to log in."""

    host: str
    port: int
    db: int
    user: str
    password: str
    tls: bool
    files: tuple[tuple[str, str], ...] = ()  # of FILES, absolute paths

    @property
    def shown(self) -> str:
        """The broker for people and logs: without user and password."""
        return f"{self._scheme}://{self._place}"

    @property
    def url(self) -> str:
        """The URL that both libraries read alike; without TLS files."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        return f"{self._scheme}://{login if login != ':@' else ''}{self._place}"

    @property
    def whole(self) -> str:
        """The URL with its TLS files, which `parse_broker_url` reads again."""
        return (
            self.url + "?" * bool(self.files) + "&".join(f"{k}={quote(v)}" for k, v in self.files)
        )

    @property
    def tls_arguments(self) -> dict[str, object]:
        """What both libraries are told of TLS; nothing without it."""
        import ssl

        if not self.tls:
            return {}
        checks = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
        return {**checks, **dict(self.files)}

    @property
    def _scheme(self) -> str:
        return "rediss" if self.tls else "redis"

    @property
    def _place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.db}"


def parse_broker_url(text: str) -> BrokerUrl:
    """Take FTQ_REDIS_URL apart.

    Raises UsageError (`bad_setting`), whose words never hold a part of the password.
    """
    text = text.strip()
    scheme, mark, _ = text.partition("://")
    if not mark or scheme.lower() not in ("redis", "rediss"):
        raise _bad("must begin with redis:// or rediss:// (TLS)", _FORM)
    if ";" in text or "," in text:
        raise _bad("names several brokers; name a single server", _FORM)
    if not text.isprintable() or " " in text or not text.isascii():
        raise _bad("holds blanks or characters that no URL may hold", _ENCODE)
    parts = _split(text)
    match = _DB.fullmatch(parts.path)
    if match is None:
        raise _bad("the database behind the host is no number", f"{_FORM}; {_ENCODE}")
    tls = scheme.lower() == "rediss"
    return BrokerUrl(
        host=_host(parts),
        port=_port(parts),
        db=int(match[1] or 0),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
        files=_files(parts.query, tls=tls),
    )


def shown(url: str) -> str:
    """Return a broker URL fit for people and logs, whatever it holds."""
    try:
        return parse_broker_url(url).shown
    except UsageError:
        return "redis://***"


def _bad(what: str, hint: str) -> UsageError:
    return UsageError(f"FTQ_REDIS_URL: {what}", code="bad_setting", hint=hint)


def _split(text: str) -> SplitResult:
    """Raises UsageError where a password has moved into other parts of the URL."""
    try:
        parts = urlsplit(text)
    except ValueError:  # an open bracket
        raise _bad("is no URL", f"{_ENCODE}, [ is %5B") from None
    login = parts.netloc.rpartition("@")[0]
    astray = "@" in parts.path + parts.query or "#" in text or "@" in login
    if astray or _HALF_ESCAPE.search(login):
        raise _bad("the password holds a character that ends it", _ENCODE)
    if re.search('[][{}|<>^`"\\\\]', login):
        raise _bad("the password holds a character that no URL may hold", f"{_ENCODE}, [ is %5B")
    return parts


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host:
        raise _bad("names no host", _FORM)
    if not _HOST.fullmatch(host):
        raise _bad("its host is no name and no address", f"{_FORM}; {_ENCODE}")
    return host


def _port(parts: SplitResult) -> int:
    try:
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:  # no number, or above 65535
        port = 0
    if not port:
        raise _bad("its port is no number from 1 to 65535", f"{_FORM}; {_ENCODE}")
    return port


def _files(query: str, *, tls: bool) -> tuple[tuple[str, str], ...]:
    """Return the TLS files that the query names; raises UsageError for all else in it."""
    given = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in given]
    if any(name in ("ssl_cert_reqs", "ssl_check_hostname") for name in names):
        raise _bad(
            "certificates are always checked; leave the ssl_ options out",
            "a private CA is named with ?ssl_ca_certs=FILE",
        )
    if {"password", "username"} & set(names):
        raise _bad("user and password stand before the host", _FORM)
    if "db" in names:
        raise _bad("the database stands behind the host", _FORM)
    if unknown := [name for name in names if name not in FILES]:
        # A name that nobody knows may be the rest of a password: it is not repeated.
        known = [name for name in unknown if re.fullmatch("[a-z_]{2,30}", name) and "=" in query]
        listed = f" ({', '.join(known)})" if known else ""
        raise _bad(f"has options that ftq does not take{listed}", f"it takes {', '.join(FILES)}")
    if given and not tls:
        raise _bad("names TLS files, but TLS is asked for with rediss://", _FORM)
    return tuple((name, _file(name, value)) for name, value in given)


def _file(name: str, value: str) -> str:
    """Return the absolute path of a TLS file. Raises UsageError that names it."""
    import ssl

    try:
        path = Path(value).expanduser().absolute()
        path.read_bytes()
        if name == "ssl_ca_certs":
            ssl.create_default_context(cafile=str(path))
    except ssl.SSLError as error:
        raise _bad(
            f"{name}: {value} holds no certificate in PEM form", "look at the file"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise _bad(
            f"{name}: {value}: {why}", "the file must be on every client and worker"
        ) from error
    return str(path)
