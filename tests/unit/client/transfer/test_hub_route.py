"""What the Hub route says when it cannot clear up after itself."""

import pytest

from ftq_client.transfer.hub_route import HubRoute
from ftq_shared.errors import BrokerUnreachable
from ftq_shared.job_record import InputFile

REPO = "me/ftq-inputs-ft-aaaaaaaa"


def test_a_submit_without_an_answer_names_the_repo_that_stays() -> None:
    said: list[str] = []
    route = HubRoute("http://hub", "hf_x", lambda _: True, said.append)
    files = [InputFile("dataset/a.jsonl", 3, "ab", hub=f"{REPO}@c0ffee")]
    with pytest.raises(BrokerUnreachable), route.uncertain("ft-aaaaaaaa", files):
        raise BrokerUnreachable("away")
    assert REPO in said[0]
    assert f"http://hub/datasets/{REPO}/settings" in said[0]
    with pytest.raises(BrokerUnreachable), route.uncertain("ft-aaaaaaaa", []):
        raise BrokerUnreachable("away")
    assert len(said) == 1


def test_a_repo_that_cannot_be_deleted_is_named() -> None:
    said: list[str] = []
    route = HubRoute("no-url", "hf_x", lambda _: True, said.append)
    route.take_back(REPO)
    assert f"{REPO} could not be deleted" in said[0]
    assert f"no-url/datasets/{REPO}/settings" in said[0]


def test_the_question_names_repo_and_hub() -> None:
    asked: list[str] = []

    def agree(question: str) -> bool:
        asked.append(question)
        return False

    route = HubRoute("http://hub", None, agree, lambda _: None)
    assert not route.consents("ft-aaaaaaaa", "120 MiB of files cannot travel")
    assert asked == [
        "120 MiB of files cannot travel. Send them through a private repo ftq-inputs-ft-aaaaaaaa of"
        " yours on http://hub? It is deleted after prepare."
    ]
