"""The worker's code runs in a process of its own, whose death is told."""

from pathlib import Path

import pytest

from ftq_client import preview
from ftq_shared.errors import Exit, HubUnreachable, Refused, Unexpected
from ftq_shared.preview_messages import PreviewRequest


def test_code_that_dies_without_an_answer_is_a_bug_and_told_as_one(tmp_path: Path) -> None:
    broken = PreviewRequest(spec={}, endpoint="http://127.0.0.1:9", rows=3, folder=str(tmp_path))
    with pytest.raises(Unexpected, match=r"ended with code 1: .*pydantic") as caught:
        preview._ask(broken, lambda _: None)
    assert caught.value.exit_code == Exit.UNEXPECTED


def test_an_error_keeps_its_class_and_its_words() -> None:
    error = Refused(
        "no", code="wrong_column", hint="--set a=b", field="data.columns", nearest=["b"]
    )
    back = preview.raised(error.info().to_json())
    assert type(back) is Refused
    assert back.info() == error.info()


def test_a_hub_that_is_away_names_no_job_to_retry() -> None:
    away = HubUnreachable("gone", hint="check the network; `ftq retry JOB` goes on")
    assert preview.raised(away.info().to_json()).hint == "check the network"


def test_the_token_is_in_no_picture_of_the_request(tmp_path: Path) -> None:
    request = PreviewRequest(spec={}, endpoint="x", rows=3, folder="", token="hf_secret")
    assert "hf_secret" not in repr(request)
    assert PreviewRequest.from_json(request.to_json()) == request
