"""One person on all machines."""

import getpass
import json
from pathlib import Path

import pytest

from ftq_client import identity
from ftq_client.identity import Identity, Person
from ftq_shared.settings import Settings, load_settings

USERS = {"hf_me": "me", "hf_bob": "bob"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that the Hub was asked about; it knows two."""
    seen: list[str] = []

    def ask(_: str, token: str) -> str:
        seen.append(token)
        return USERS.get(token, "")

    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "FTQ_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", "/nowhere")
    monkeypatch.setattr(identity, "_ask_hub", ask)
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    return seen


@pytest.fixture
def machine(tmp_path: Path) -> Settings:
    return load_settings({"FTQ_HOME": str(tmp_path)})


def test_the_hub_user_then_ftq_user_then_the_account(
    machine: Settings, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Identity(machine).me == Person("root")
    monkeypatch.setenv("FTQ_USER", " anna ")
    assert Identity(machine).me == Person("anna")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    assert Identity(machine).me == Person("me", frozenset({"anna"}))


def test_the_hub_is_asked_once_for_each_token(
    machine: Settings, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in ("hf_me", "hf_me", "hf_unknown", "hf_unknown", "hf_me"):
        monkeypatch.setenv("HF_TOKEN", token)
        expected = USERS.get(token, "me")  # who was found last stands for a token without a name
        assert Identity(machine).me.name == expected
    assert asked == ["hf_me", "hf_unknown"]
    kept = (machine.home / "hub_users.json").read_text()
    assert "hf_" not in kept
    assert (machine.home / "hub_users.json").stat().st_mode & 0o777 == 0o600


def test_whose_token_was_typed_is_remembered(machine: Settings, asked: list[str]) -> None:
    assert Identity(machine).of("hf_me").name == "me"
    assert Identity(machine).me.name == "me"
    assert "root" in Identity(machine).me.names


def test_with_a_token_the_jobs_of_others_are_not_yours(machine: Settings, asked: list[str]) -> None:
    Identity(machine).of("hf_me")
    assert "me" not in Identity(machine).of("hf_bob").names


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 3}', '{"x": {"user": 4, "asked": "x"}}'])
def test_a_damaged_file_is_asked_anew(
    machine: Settings, asked: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.home / "hub_users.json").write_text(text)
    assert Identity(machine).of("hf_me").name == "me"
    assert json.loads((machine.home / "hub_users.json").read_text())
