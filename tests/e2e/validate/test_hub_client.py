"""HubClient against a real Hub server: searches, and the Hub's bad days."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import pytest

from ftq_shared.errors import HubUnreachable, Refused, UsageError
from ftq_shared.hub import RepoState


def test_a_search_shows_what_a_person_chooses_by(client):
    (found,) = client().search_models("base", limit=3)
    assert (found.id, found.private, found.gated) == ("org/base", False, False)
    assert [item.id for item in client().search_datasets("row")] == ["org/rows"]
    assert client().search_models("nothing-such") == []


def test_files_are_read_in_part_and_whole(client, hub):
    sha = client().model_info("org/base").sha
    hub_client = client()
    assert '"llama"' in hub_client.read_text("model", "org/base", "config.json", sha)
    assert hub_client.read_text("model", "org/base", "none.txt", sha) is None
    assert len(hub_client.read_head("model", "org/base", "model.safetensors", sha, 8)) == 8
    hub.add("model", "org/files", {"empty.json": ""})
    sha = client().model_info("org/files").sha
    assert hub_client.read_head("model", "org/files", "empty.json", sha, 8) == b""
    base = client().model_info("org/base").sha
    with hub_client.open("model", "org/base", "model.safetensors", base) as file:
        file.seek(-4, io.SEEK_END)
        assert file.read() == bytes(4)
    with pytest.raises(Refused) as caught:
        hub_client.open("model", "org/base", "model.safetensors", sha)
    assert caught.value.code == "no_such_revision"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_is_tried_again_at_once_visible(client, hub, told, clock, status):
    hub.fault(path="/api/models", status=status, times=3)
    assert client().model_info("org/base").id == "org/base"
    assert len(told) == 3
    assert clock.slept == [1.0, 2.0, 4.0]
    assert str(status) in told[0]
    assert "looking up model org/base" in told[0]


def test_searches_are_not_retried_behind_our_back(client, hub, told, clock):
    hub.fault(path="search=", status=503, times=1)
    client().search_models("base")
    assert len(told) == 1


def test_the_hub_says_when_to_come_back(client, hub, clock):
    hub.fault(path="/api/models", status=429, retry_after_s=20)
    client().model_info("org/base")
    assert clock.slept == [21.0]
    hub.fault(path="/api/models", status=429, retry_after_s=3600)
    with pytest.raises(HubUnreachable) as caught:
        client().model_info("org/base")
    assert clock.slept == [21.0]  # an hour is not waited for
    assert "3600 s" in caught.value.message


def test_the_time_for_all_tries_is_bounded(client, hub, clock):
    hub.fault(path="/api/models", status=503, times=None)
    with pytest.raises(HubUnreachable) as caught:
        client().model_info("org/base")
    assert 40 < clock.now <= 60
    assert caught.value.exit_code == 7
    assert "ftq retry" in caught.value.hint


def test_a_long_transfer_that_breaks_off_is_tried_again(client, clock, told):
    """What took longer than any answer may take was work: it does not use the patience up."""
    cuts = iter([True, True, True, False])

    def transfer(cut):
        clock.now += 300
        if cut:
            raise httpx2.ReadError("cut")
        return "whole"

    upload = client().call
    assert upload(lambda: transfer(next(cuts)), kind="model", repo="org/base") == "whole"
    assert clock.slept == [1.0, 2.0, 4.0]
    with pytest.raises(HubUnreachable) as caught:  # but not for ever
        upload(lambda: transfer(cut=True), kind="model", repo="org/base", what="uploading")
    assert "broke the connection off (cut); uploading was tried for" in caught.value.message


def test_a_stalled_answer_is_not_waited_for(client, hub, told):
    hub.fault(path="/api/models", stall_s=5.0, times=1)
    assert client(request_s=0.3).model_info("org/base").id == "org/base"
    assert "does not answer in time" in told[0]
    hub.fault(path="/api/whoami", stall_s=5.0, times=1)  # no time-out of the library's own here
    assert client("hf_me", request_s=0.3).whoami().name == "me"


def test_nobody_there(client, clock, told):
    with pytest.raises(HubUnreachable) as caught:
        client(url="http://127.0.0.1:9").model_info("org/base")
    assert "cannot be reached" in caught.value.message
    assert len(told) >= 4


def test_an_endpoint_that_is_no_url(client):
    for url in ("nonsense", "ftp://host"):
        with pytest.raises(UsageError, match="HF_ENDPOINT"):
            client(url=url).model_info("org/base")


def test_a_page_that_is_no_hub(client):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>please log in</html>")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(HubUnreachable) as caught:
            client(url=f"http://127.0.0.1:{server.server_port}").model_info("org/base")
        server.shutdown()
    assert caught.value.code == "not_a_hub"


def test_offline_mode_is_named(client, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE"):
        client().model_info("org/base")


def test_a_refusal_is_final(client, hub, told):
    hub.fault(path="/api/models/org/base", status=403)
    with pytest.raises(Refused) as caught:
        client("hf_me").model_info("org/base")
    assert caught.value.code == "access"
    hub.fault(path="/api/whoami", status=401)
    with pytest.raises(Refused) as caught:
        client("hf_me").whoami()
    assert caught.value.code == "bad_token"
    assert told == []


def test_the_nearest_names_do_not_cost_a_second_error(client, hub):
    hub.fault(path="search=", status=503, times=None)
    hub.fault(path="author=", status=503, times=None)
    with pytest.raises(Refused) as caught:
        client().model_info("org/bse")
    assert caught.value.code == "no_such_model"


def test_states_of_a_target(client, hub):
    ask = client("hf_me")
    assert ask.repo_state("me/none") is RepoState.ABSENT
    hub.store.create_repo("model", "me/state")
    assert ask.repo_state("me/state") is RepoState.EMPTY
    hub.add("model", "me/state", {"w.bin": "1"}, title="ftq ft-1")
    assert ask.repo_state("me/state") is RepoState.OURS
    hub.add("model", "me/state", {"w.bin": "2"}, title="mine")
    assert ask.repo_state("me/state") is RepoState.OTHER


def test_no_token_of_the_machine_is_used(hub, client, monkeypatch):
    hub.add("model", "me/hidden", {"config.json": json.dumps({})}, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    for token in (None, False, ""):
        with pytest.raises(Refused):
            client(token).model_info("me/hidden")
    assert client("hf_me").model_info("me/hidden").private


def test_hooks_leave_other_users_of_the_library_alone(hub, client):
    from huggingface_hub import HfApi

    client().model_info("org/base")
    hub.fault(path="/api/models/org/base", stall_s=0.5)
    assert HfApi(endpoint=hub.url, token=False).model_info("org/base").id == "org/base"
