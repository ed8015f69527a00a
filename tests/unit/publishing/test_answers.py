"""How many golden prompts the saved model answers: no more than say something of it."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tests.support.tiny_jobs import EOS, make_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftq_worker.publishing import answers
from ftq_worker.publishing.answers import MOST_TOKENS, Answer, check_answers


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The prompts that a model is given which never stops."""
    prompts: list[list[int]] = []

    def runs_on(model: Any, tokenizer: Any, prompt: list[int], limit: int, *rest: object) -> Answer:
        prompts.append(prompt)
        return Answer([5] * limit, stopped=False, cut=True, passed=False)

    monkeypatch.setattr(answers, "_answer", runs_on)
    return prompts


def golden(tokens: int) -> Dataset:
    """Return rows whose answers have so many tokens."""
    ids = [4, 5, 6, *([7] * (tokens - 1)), EOS]
    row = {"input_ids": ids, "labels": [-100] * 3 + ids[3:]}
    return Dataset.from_list([row] * 6)


@pytest.mark.parametrize(
    ("tokens", "count", "says"),
    [
        (4, 3, "3 of 3 answers ran on to 22 tokens"),
        (MOST_TOKENS, 2, f"{2 * MOST_TOKENS} tokens in"),
    ],
)
def test_no_more_is_asked_than_says_something(
    tmp_path: Path, asked: list[list[int]], tokens: int, count: int, says: str
) -> None:
    """Three of four decide; and where golden answers are long, running on says nothing."""
    base = make_base(tmp_path, "llama")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.max_position_embeddings = 10_000
    found = check_answers(model, AutoTokenizer.from_pretrained(base), golden(tokens))
    assert len(asked) == count
    assert says in found.message
