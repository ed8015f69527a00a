"""FTQ_REDIS_URL: one parser for both libraries, and no password in any message."""

import re
from pathlib import Path

import pytest
from kombu.utils.url import parse_url
from redis.connection import parse_url as redis_parse_url
from tests.support.servers import make_certificates

from ftq_shared.broker import connect
from ftq_shared.broker_url import parse_broker_url, shown
from ftq_shared.celery_messages import celery_settings
from ftq_shared.errors import UsageError
from ftq_shared.settings import load_settings

PASSWORD = "p@s:s/w#o%rd[x?&=é"
ENCODED = "p%40s%3As%2Fw%23o%25rd%5Bx%3F%26%3D%C3%A9"


@pytest.mark.parametrize(
    ("text", "rebuilt"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("REDIS://H:1/", "redis://h:1/0"),
        (" redis://h:1/5\n", "redis://h:1/5"),
        ("redis://[::1]:7/0", "redis://[::1]:7/0"),
        ("redis://:pw@127.0.0.1:7/0", "redis://:pw@127.0.0.1:7/0"),
        ("redis://me@h/0", "redis://me:@h:6379/0"),
        (f"rediss://me:{ENCODED}@h/3", f"rediss://me:{ENCODED}@h:6379/3"),
    ],
)
def test_what_is_taken_is_rebuilt(text: str, rebuilt: str) -> None:
    url = parse_broker_url(text)
    assert url.url == rebuilt
    assert parse_broker_url(url.whole) == url
    assert url.shown == re.sub("//.*@", "//", rebuilt)


def test_both_libraries_read_it_alike() -> None:
    url = parse_broker_url(f"redis://me:{ENCODED}@h:7/3").url
    theirs, kombus = redis_parse_url(url), parse_url(url)
    for name, value in (("host", "h"), ("port", 7), ("username", "me"), ("password", PASSWORD)):
        kombu_name = {"host": "hostname", "username": "userid"}.get(name, name)
        assert theirs[name] == kombus[kombu_name] == value  # type: ignore[literal-required]
    assert (theirs["db"], kombus["virtual_host"]) == (3, "3")


SECRET = "topsecretpw"
REFUSED = [
    ("http://h", "begin with"),
    ("h:6379", "begin with"),
    ("unix:///run/redis.sock", "begin with"),
    ("redis+sentinel://h", "begin with"),
    ("redis://", "names no host"),
    ("redis:///0", "names no host"),
    (f"redis://:{SECRET}@/0", "names no host"),
    ("redis://a;redis://b", "several"),
    ("redis://a:1,b:2", "several"),
    (f"redis://:x/{SECRET}@h", "percent-encode"),
    (f"redis://:{SECRET}/x@h:6379/0", "percent-encode"),
    (f"redis://:x#{SECRET}@h", "percent-encode"),
    (f"redis://:{SECRET}#x@h", "percent-encode"),
    (f"redis://:x?{SECRET}@h", "percent-encode"),
    (f"redis://:{SECRET}@x@h", "percent-encode"),
    (f"redis://:x[{SECRET}@h", "percent-encode"),
    (f"redis://:{SECRET}%zz@h", "percent-encode"),
    (f"redis://:{SECRET} x@h", "percent-encode"),
    (f"redis://:{SECRET}é@h", "percent-encode"),
    ("redis://h:abc/0", "port"),
    ("redis://h:99999/0", "port"),
    ("redis://h:0/0", "port"),
    ("redis://[::1", "no URL"),
    ("redis://h/abc", "database"),
    ("redis://h/0/1", "database"),
    ("redis://h/-1", "database"),
    ("redis://h?db=3", "database"),
    (f"redis://h/0?password={SECRET}", "before the host"),
    (f"redis://h/0?%70assword={SECRET}", "before the host"),
    ("redis://h?socket_timeout=5", r"\(socket_timeout\)"),
    ("redis://h?protocol=3", r"\(protocol\)"),
    (f"redis://h?{SECRET}", "options that ftq does not take"),
    ("redis://h?ssl_ca_certs=/x", "rediss"),
    ("rediss://h?ssl_cert_reqs=none", "always checked"),
    ("rediss://h?ssl%5Fcert_reqs=none", "always checked"),
    ("rediss://h?%73sl_check_hostname=false", "always checked"),
    ("rediss://h?ssl_ca_certs=/nonexistent.pem", "/nonexistent.pem: No such file"),
    ("rediss://h?ssl_ca_certs=~nosuchuser/x", "nosuchuser"),
    ("redis://h\x00", "blanks"),
    ("redis://ho\nst", "blanks"),
    ("redis://../x", "host"),
]


@pytest.mark.parametrize(("url", "words"), REFUSED)
def test_what_is_not_taken_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(UsageError, match="FTQ_REDIS_URL") as caught:
        load_settings({"FTQ_REDIS_URL": url, "FTQ_HOME": "/nonexistent"})
    assert re.search(words, f"{caught.value.message} {caught.value.hint}")
    assert SECRET not in caught.value.message + caught.value.hint
    assert SECRET not in shown(url)


def test_a_private_ca_is_given_to_both_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificates(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    env = {"FTQ_REDIS_URL": "rediss://h?ssl_ca_certs=~/ca.pem", "FTQ_HOME": str(tmp_path)}
    url = load_settings(env).redis_url
    assert url == f"rediss://h:6379/0?ssl_ca_certs={tmp_path}/ca.pem"
    kombus = celery_settings(url)
    assert kombus["broker_url"] == "rediss://h:6379/0"
    asked = connect(url).connection_pool.connection_kwargs
    for arguments in (asked, kombus["broker_use_ssl"]):
        assert isinstance(arguments, dict)
        assert arguments["ssl_ca_certs"] == f"{tmp_path}/ca.pem"
        assert arguments["ssl_cert_reqs"].name == "CERT_REQUIRED"
        assert arguments["ssl_check_hostname"] is True


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(UsageError, match="no certificate"):
        parse_broker_url(f"rediss://h?ssl_ca_certs={tmp_path}/ca.pem")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FTQ_HOME", "~nosuchuser/x"),
        ("FTQ_FLEET_KEY", "~nosuchuser/x"),
        ("HF_HOME", "~nosuchuser/x"),
        ("FTQ_DATA_ROOTS", "~nosuchuser/x"),
        ("FTQ_DATA_ROOTS", "relative"),
        ("FTQ_UMASK", "000"),
        ("FTQ_UMASK", "x"),
        ("FTQ_LOG", "xml"),
        ("HF_ENDPOINT", "ftp://x"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        load_settings({"FTQ_HOME": str(tmp_path), name: value})
    assert caught.value.code == "bad_setting"


def test_all_bad_settings_are_named_at_once(tmp_path: Path) -> None:
    env = {"FTQ_REDIS_URL": "x", "FTQ_LOG": "xml", "FTQ_HOME": str(tmp_path)}
    with pytest.raises(UsageError, match=r"(?s)FTQ_REDIS_URL.*FTQ_LOG"):
        load_settings(env)


def test_a_home_of_somebody_else_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "url").mkdir()  # cannot be read, also not by root
    assert load_settings({"FTQ_HOME": str(tmp_path)}).redis_url is None
