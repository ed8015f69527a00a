"""What the Hub reads strictly in a model card is asked of it before anything is trained."""

import threading

import pytest
from tests.e2e.validate.conftest import ROWS, jsonl, model_files

from ftq_shared.errors import JobCancelled, Refused
from ftq_shared.events import EventType
from ftq_worker.job.context import StopReason

PUBLISH = {"publish": {"repo": "me/carded"}}


@pytest.fixture
def asked(hub):
    """Return a function that counts the questions about cards."""
    hub.fault(path="/api/validate-yaml", stall_s=0.001, times=None)
    return lambda: next(f.hits for f in hub.app.faults.list() if "yaml" in f.path)


@pytest.mark.parametrize(
    ("card", "kept", "words"),
    [
        ("license: mit", ["mit"], "mit"),
        ("license: [mit, apache-2.0]", ["mit", "apache-2.0"], "mit, apache-2.0"),
        (
            "license: other\nlicense_name: qwen-research\nlicense_link: LICENSE",
            ["other"],
            "qwen-research",
        ),
        ("license: gemma", ["gemma"], "gemma"),
        ("tags: [x]", [], None),
    ],
)
def test_a_licence_stays_as_the_base_states_it(start, hub, asked, card, kept, words):
    hub.add("model", "org/licensed", model_files(README__md=f"---\n{card}\n---\n"))
    run = start({"model": "org/licensed", **PUBLISH}, token="hf_me")
    found = run.go().model
    assert (found.licenses, found.license) == (kept, words)
    assert found.license_name == ("qwen-research" if kept == ["other"] else None)
    assert run.checks["model card"]["ok"]
    assert asked() == 1


@pytest.mark.parametrize(
    ("card", "kept"),
    [("license: qwen-research", []), ("license: [mit, house-rules]", ["mit"])],
)
def test_a_licence_that_the_hub_does_not_take_is_left_out_aloud(start, hub, card, kept):
    hub.store.create_repo("model", "org/odd") if not hub.store.has_repo("model", "org/odd") else 0
    hub.add("model", "org/odd", model_files(README__md=f"---\n{card}\n---\n"))
    run = start({"model": "org/odd", **PUBLISH}, token="hf_me")
    assert run.go().model.licenses == kept
    said = [data["message"] for data in run.of(EventType.WARNING)]
    assert any("cannot stand in the model card" in text for text in said)
    assert f"the card says {', '.join(kept) or 'none'}" in run.checks["model card"]["message"]


def test_a_card_that_the_hub_refuses_ends_the_job_before_it_trains(start, hub):
    words = '"datasets[0]" with value "x" is not valid'
    hub.fault(path="/api/validate-yaml", status=400, message=words, times=None)
    run = start(PUBLISH, token="hf_me")
    with pytest.raises(Refused) as caught:
        run.go()
    assert caught.value.code == "card_refused"
    assert run.failed == ["model card"]
    assert not run.ctx.paths.validated.exists()


def test_without_a_target_no_card_is_asked_about(start, asked):
    run = start()
    run.go()
    assert "model card" not in run.checks
    assert asked() == 0


def test_a_gitignore_that_would_drop_the_model_is_told_before_it_trains(start, hub):
    hub.add("model", "me/ignoring", {".gitignore": "*.safetensors\n"}, private=True)
    with pytest.raises(Refused) as caught:
        start({"publish": {"repo": "me/ignoring"}}, token="hf_me").go()
    assert caught.value.code == "files_ignored"
    assert "the .gitignore of me/ignoring matches model.safetensors and 1 more" in (
        caught.value.message
    )
    assert ".gitignore" in caught.value.hint
    hub.add("model", "me/ignoring", {".gitignore": "notes/\n"})
    with pytest.raises(Refused) as caught:  # what it holds is not ftq's, and nothing else is wrong
        start({"publish": {"repo": "me/ignoring"}}, token="hf_me").go()
    assert caught.value.code == "target_taken"


def test_a_cancel_ends_the_wait_for_a_window(start, hub):
    limit = {"RateLimit": '"api";r=0;t=300'}
    hub.fault(path="/api/models/org/base", status=429, headers=limit, times=None)
    run = start()
    stop = threading.Timer(0.5, run.ctx.control.stop, [StopReason.CANCEL])
    stop.start()
    with pytest.raises(JobCancelled):
        run.go()
    stop.join()
    said = [data["message"] for data in run.of(EventType.WARNING)]
    assert any("asks to slow down (429)" in text and "in 301 s" in text for text in said)


def test_a_dataset_of_another_case_is_pinned_under_its_own_name(start, hub):
    hub.add("dataset", "org/Rows-Cased", {"train.jsonl": jsonl(ROWS)})
    assert start({"dataset": "ORG/rows-cased"}).go().dataset.name == "org/Rows-Cased"
