"""What the Hub refuses, and why it does not answer: told in its own words, and rightly.

The Hub speaks https here, as the real one does: over http huggingface_hub reads 401 another way.
"""

import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import trustme

from ftq_hub import HubApp, HubStore, Tls, running
from ftq_shared.errors import FtqError, HubUnreachable, Refused

EXPIRED = "hf_expired"
FULL_WINDOW = {"RateLimit": '"api";r=0;t=300', "RateLimit-Policy": '"fixed window";"api";q=9;w=300'}


@pytest.fixture
def client(client):
    """Return the same function, with a token where a test names none."""
    return lambda token="hf_me", **more: client(token, **more)


CALLS = {
    "model": lambda hub: hub.model_info("org/base"),
    "dataset": lambda hub: hub.dataset_info("org/rows"),
    "missing model": lambda hub: hub.model_info("org/none"),
    "access": lambda hub: hub.check_access("model", "org/base"),
    "file": lambda hub: hub.read_text("model", "org/base", "config.json", "main"),
    "reader": lambda hub: hub.open("model", "org/base", "model.safetensors", "main"),
    "log-in": lambda hub: hub.whoami(),
    "write access": lambda hub: hub.write_access("me/new"),
    "target": lambda hub: hub.repo_state("me/new"),
    "search": lambda hub: hub.search_models("base"),
    "making": lambda hub: hub.create_repo("model", "me/new", private=True),
    "deleting": lambda hub: hub.delete_repo("dataset", "me/new"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
def test_an_expired_token_is_a_bad_token_whatever_is_asked(client, hub, call, secure):
    hub.store.add_token(EXPIRED, "me", expires=time.time() - 1)
    with running(HubApp(hub.store)) as http, pytest.raises(Refused) as caught:
        call(client(EXPIRED, url=hub.url if secure else http))
    assert caught.value.code == "bad_token"
    assert "is expired" in caught.value.message or "log-in" in call.__code__.co_names


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        (FULL_WINDOW, 301),
        ({"RateLimit": '"api";r=0;t=100'}, 101),
        ({"Retry-After": "120"}, 121),
        ({"RateLimit": '"api";r=9;t=300', "Retry-After": "7"}, 8),  # not the reason of this 429
    ],
)
def test_a_window_is_waited_out_beside_the_patience(client, hub, clock, told, headers, wait):
    hub.fault(path="/api/models", status=429, headers=headers, message="too many", times=4)
    assert client().model_info("org/base").id == "org/base"
    assert clock.slept == [wait] * 4
    assert (
        f"asks to slow down (429: too many); looking up model org/base: next try in {wait} s"
        in (told[0])
    )


def test_a_moment_of_the_clock_is_waited_for(client, hub, clock):
    then = datetime.now(UTC) + timedelta(seconds=200)
    hub.fault(path="/api/", status=503, headers={"Retry-After": format_datetime(then, usegmt=True)})
    client().model_info("org/base")
    assert 180 < clock.slept[0] <= 201
    hub.fault(path="/api/", status=503, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"})
    hub.fault(path="/api/", status=503, headers={"Retry-After": "soon"})
    client().model_info("org/base")
    assert clock.slept[1:] == [1.0, 1.0]


def test_windows_are_waited_for_but_not_for_ever(client, hub, clock):
    hub.fault(path="/api/models", status=429, headers=FULL_WINDOW, times=None)
    with pytest.raises(HubUnreachable, match="asks to wait 300 s"):
        client().model_info("org/base")
    assert clock.slept == [301] * 5


WRITES = {
    "/api/repos/create": lambda hub: hub.create_repo("model", "me/words", private=True),
    "/commit/": lambda hub: hub.call(
        lambda: hub.api.upload_file(
            path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="me/there", commit_message="x"
        ),
        kind="model",
        repo="me/there",
    ),
    "/api/repos/delete": lambda hub: hub.delete_repo("model", "me/there"),
}


@pytest.mark.parametrize("status", [400, 402, 403, 409, 412, 413, 422, 429, 500, 501, 503])
@pytest.mark.parametrize("path", WRITES)
def test_a_refused_change_says_why_in_the_hubs_words(client, hub, path, status):
    if not hub.store.has_repo("model", "me/there"):
        hub.store.create_repo("model", "me/there")
    if (path, status) == ("/api/repos/create", 409):
        pytest.skip("that one means that the repo is there")
    words = "Private repository storage limit reached, please upgrade"
    hub.fault(path=path, status=status, message=words, times=None)
    with pytest.raises(FtqError) as caught:
        WRITES[path](client(total_s=0.0))
    assert words in caught.value.message
    assert "may not read" not in caught.value.message
    assert caught.value.exit_code == (7 if status == 429 or status >= 500 else 5)
    if status == 403:
        assert caught.value.code == "no_write_access"


@pytest.mark.parametrize("status", [400, 402, 403, 404, 410, 418, 429, 451, 500, 501, 503])
def test_a_refused_look_says_why_in_the_hubs_words(client, hub, status):
    hub.fault(path="/api/models", status=status, message="not in your region", times=None)
    with pytest.raises(FtqError) as caught:
        client(total_s=0.0).model_info("org/base")
    assert "not in your region" in caught.value.message
    assert caught.value.exit_code == (7 if status == 429 or status >= 500 else 5)


def test_secrets_and_long_words_are_not_passed_on(client, hub):
    hub.fault(path="/api/models", status=403, message="hf_" + "a" * 30 + " no " * 500)
    with pytest.raises(Refused) as caught:
        client().model_info("org/base")
    assert "hf_aaa" not in caught.value.message
    assert len(caught.value.message) < 600


def test_a_repo_that_was_just_made_may_be_unknown_for_a_moment(client, hub, clock):
    asked = client()
    asked.create_repo("model", "me/lagging", private=False)
    asked.create_repo("model", "me/lagging", private=False)  # it is there: fine
    hub.fault(path="/api/models/me/lagging", status=404, error_code="RepoNotFound", times=2)
    assert asked.model_info("me/lagging").id == "me/lagging"
    hub.fault(path="/api/models/ME/Lagging", status=404, error_code="RevisionNotFound")
    assert asked.repo_state("ME/Lagging") == "empty"
    assert clock.slept == [1.0, 2.0, 1.0]
    with pytest.raises(Refused):
        client().model_info("me/never")
    hub.store.delete_repo("model", "me/lagging")
    with pytest.raises(HubUnreachable, match="does not show yet"):  # not for ever
        asked.model_info("me/lagging")


def test_a_namespace_where_nothing_may_be_made_can_hold_a_repo_that_may_be_written(client, hub):
    hub.store.create_repo("model", "me/granted")
    hub.fault(path="/api/repos/create", status=403, message="no new repos", times=None)
    client().create_repo("model", "me/granted", private=True)
    with pytest.raises(Refused, match="no new repos"):
        client().create_repo("model", "me/not-there", private=True)


def test_a_hub_that_makes_another_repo_is_asked_again_with_pauses(client, hub, clock):
    busy = "Cannot create repo: another conflicting operation is in progress"
    hub.fault(path="/api/repos/create", status=409, message=busy, times=2)
    client().create_repo("model", "me/busy", private=True)
    assert clock.slept == [1.0, 2.0]


def test_own_names_are_taken_in_any_case(client, hub):
    assert client().write_access("ME/In-Case") == "me/In-Case"
    hub.store.create_repo("model", "me/In-Case")
    assert client().write_access("Me/in-CASE") == "me/In-Case"
    assert client().repo_state("ME/IN-CASE") == "empty"
    assert client().model_info("ORG/BASE").id == "org/base"
    with pytest.raises(Refused, match="no member of Other"):
        client().write_access("Other/x")


@pytest.mark.parametrize(
    ("role", "new", "own", "others"),
    [
        ("read", "role read", "role read", "role read"),
        ("contributor", "", "", "may not change it"),
        ("write", "", "", ""),
        ("admin", "", "", ""),
    ],
)
def test_roles_in_an_organisation_count(client, hub, role, new, own, others):
    hub.store.add_token("hf_member", "member", orgs={"lab": role})
    for name, creator in (("own", "member"), ("others", "somebody")):
        if not hub.store.has_repo("model", f"lab/{name}"):
            hub.store.create_repo("model", f"lab/{name}", creator=creator)
    for name, words in (("new", new), ("own", own), ("others", others)):
        if not words:
            assert client("hf_member").write_access(f"Lab/{name}") == f"lab/{name}"
            continue
        with pytest.raises(Refused, match=words) as caught:
            client("hf_member").write_access(f"lab/{name}")
        assert caught.value.code == "no_write_access"


def test_a_renamed_repo_is_found_read_and_written(client, hub):
    hub.add("model", "me/old-name", {"config.json": "{}"})
    hub.store.move_repo("model", "me/old-name", "me/new-name")
    assert client("").model_info("me/Old-Name").id == "me/new-name"
    assert client("").read_text("model", "me/old-name", "config.json", "main") == "{}"
    assert client().write_access("me/old-name") == "me/new-name"
    client().api.upload_file(
        path_or_fileobj=b"x" * 100, path_in_repo="w.safetensors", repo_id="me/old-name"
    )
    assert "w.safetensors" in client().model_info("me/new-name").files


class Mirror(HubApp):
    """Hands files out, leaves their sizes out of its infos, and knows no search or card check."""

    lists_trees = True

    async def __call__(self, scope, receive, send):
        path = scope.get("raw_path", b"")
        scope["query_string"] = scope.get("query_string", b"").replace(b"blobs=true", b"")
        hidden = path in (b"/api/models", b"/api/validate-yaml")
        if hidden or (b"/tree/" in path and not self.lists_trees):
            scope["raw_path"] = b"/nothing"
        await super().__call__(scope, receive, send)


@pytest.fixture
def mirror(hub):
    app = Mirror(hub.store)
    with running(app) as url:
        yield app, url


def test_a_hub_without_a_search_is_told(client, mirror):
    for token in ("", "hf_me"):
        with pytest.raises(Refused) as caught:
            client(token, url=mirror[1]).search_models("tiny")
        assert caught.value.code == "no_search"
    assert client(url=mirror[1]).card_faults("---\nlicense: nonsense\n---\n") is None


def test_sizes_come_from_the_tree_where_the_info_has_none(client, hub, mirror):
    app, url = mirror
    assert client(url=url).model_info("org/base").files == client().model_info("org/base").files
    app.lists_trees = False
    with pytest.raises(Refused) as caught:  # now, and not after hours
        client(url=url).model_info("org/base")
    assert caught.value.code == "no_file_list"


# No connection.


def test_why_there_is_no_connection_is_said_at_the_first_try(client, told):
    for url, why in (
        ("http://127.0.0.1:9", "Connection refused"),
        ("https://127.0.0.1:9", "Connection refused"),
        ("https://no-such-host.invalid", "not known|name resolution"),
    ):
        with pytest.raises(HubUnreachable, match=why) as caught:
            client(url=url).whoami()
        assert "cannot be reached" in caught.value.message
    assert not any("does not answer" in text for text in told)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_a_dead_proxy_is_named(client, told, monkeypatch, variable):
    from huggingface_hub import close_session

    monkeypatch.setenv(variable, "http://user:planted-password@127.0.0.1:9")
    close_session()  # the settings are those of a new client
    with pytest.raises(HubUnreachable, match="Connection refused") as caught:
        client(url="https://hub.example").whoami()
    assert f"{variable} is set" in caught.value.hint
    assert "planted-password" not in f"{caught.value} {caught.value.hint} {told}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    close_session()
    assert client().whoami().name == "me"
    monkeypatch.delenv(variable)
    close_session()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("https_proxy", "ftp://127.0.0.1"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
    ],
)
def test_a_setting_that_no_client_can_be_made_of_is_a_usage_error(
    client, monkeypatch, variable, value
):
    from huggingface_hub import close_session

    with monkeypatch.context() as patch:
        patch.setenv(variable, value)
        close_session()
        with pytest.raises(FtqError) as caught:
            client(url="https://hub.example").whoami()
    close_session()
    assert (caught.value.code, caught.value.exit_code) == ("bad_connection_setting", 2)


def test_a_certificate_that_nobody_vouches_for_ends_at_once(client, hub, tmp_path, told, clock):
    stranger = trustme.CA().issue_cert("127.0.0.1")
    stranger.private_key_pem.write_to_path(tmp_path / "key.pem")
    stranger.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = Tls(tmp_path / "cert.pem", tmp_path / "key.pem")
    with (
        running(HubApp(HubStore(tmp_path / "store")), tls=tls) as url,
        pytest.raises(HubUnreachable) as caught,
    ):
        client(url=url).whoami()
    assert caught.value.code == "tls_failure"
    assert "not trusted" in caught.value.message
    assert "SSL_CERT_FILE" in caught.value.hint
    assert (told, clock.slept) == ([], [])


def test_https_where_http_is_spoken_ends_at_once(client, hub):
    with running(HubApp(hub.store)) as url, pytest.raises(HubUnreachable) as caught:
        client(url=url.replace("http:", "https:")).whoami()
    assert caught.value.code == "tls_failure"
    assert "HF_ENDPOINT" in caught.value.hint


def test_a_host_of_the_hubs_that_cannot_be_reached_is_named(client, hub):
    """A firewall that knows the Hub and not its hosts for content."""
    sha = client().model_info("org/base").sha
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        port, hub.app.content_port = hub.app.content_port, closed.getsockname()[1]
        try:
            with pytest.raises(HubUnreachable) as caught:
                client().read_head("model", "org/base", "model.safetensors", sha, 8)
        finally:
            hub.app.content_port = port
        there = f"127.0.0.1:{closed.getsockname()[1]}"
    assert f"sends us on to {there}, which cannot be reached" in caught.value.message
    assert "Connection refused" in caught.value.message


def test_the_token_stays_with_the_hub(client, hub):
    """The content's host refuses a request that brings it, so this reads through a redirect."""
    sha = client().model_info("org/base").sha
    found = client().read_head("model", "org/base", "model.safetensors", sha, 8)
    assert found is not None
    with client().open("model", "org/base", "model.safetensors", sha) as file:
        assert file.read(8) == found


def test_a_signed_url_that_ends_while_it_is_read_is_asked_for_again(client, hub):
    sha = client().model_info("org/base").sha
    with client().open("model", "org/base", "model.safetensors", sha) as file:
        hub.app.content_url_s, kept = -1.0, hub.app.content_url_s
        try:
            with pytest.raises(Exception, match="403"):
                file.read(8)
        finally:
            hub.app.content_url_s = kept
        file.seek(0)
        assert len(file.read(8)) == 8
