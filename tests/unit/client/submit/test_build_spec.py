"""From flags, files and answers to a spec."""

from pathlib import Path
from typing import Any

import pytest

from ftq_client.submit import build_spec
from ftq_client.submit.questions import Essentials
from ftq_shared.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HF_TOKEN", "hf_found")
    return load_settings({"FTQ_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("raw", "given"),
    [
        ({}, Essentials()),
        ({"model": "a/b", "publish": None}, Essentials("a/b")),
        ({"dataset": 7, "publish": {"repo": "me/x"}}, Essentials("", "7", "me/x")),
        ({"model": None, "publish": ["wrong"]}, Essentials()),
    ],
)
def test_only_what_was_answered_is_laid_over_the_spec(
    raw: dict[str, Any], given: Essentials, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Essentials] = []

    def nothing(asked: Essentials, **_: object) -> Essentials:
        seen.append(asked)
        return Essentials()

    monkeypatch.setattr(build_spec, "ask_missing", nothing)
    assert build_spec.complete(raw, settings) == (raw, "hf_found")
    assert seen == [given]


def test_answers_keep_what_stands_beside_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Essentials("", "c/d", "me/x")
    monkeypatch.setattr(build_spec, "ask_missing", lambda *_, **__: answers)
    monkeypatch.setattr("ftq_client.submit.confirm.confirm", lambda *_: None)
    raw = {"model": "a/b", "publish": {"overwrite": True}, "name": "n"}
    spec, _ = build_spec.complete(raw, settings)
    assert spec == {
        "model": "a/b",
        "dataset": "c/d",
        "publish": {"overwrite": True, "repo": "me/x"},
        "name": "n",
    }
    assert raw == {"model": "a/b", "publish": {"overwrite": True}, "name": "n"}
