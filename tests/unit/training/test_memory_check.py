"""validate counts what training needs of a GPU, and refuses what fits none: from a config alone."""

import pytest
from tests.support.data_jobs import make_context, make_spec
from transformers import LlamaConfig

from ftq_shared.errors import Refused
from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.job.reports import ModelFacts
from ftq_worker.validation.fit import check_memory


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Llama 3 70B, as its config describes it; there are no weights."""
    folder = tmp_path_factory.mktemp("large")
    LlamaConfig(
        vocab_size=128_256,
        hidden_size=8_192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
    return folder


def check(tmp_path, folder, gpus="auto", longest=512, **train):
    facts = ModelFacts(
        place=Place.WORKER,
        name=str(folder),
        architecture="LlamaForCausalLM",
        model_type="llama",
        kind="decoder",
        hidden_size=8_192,
        layers=80,
        vocab_size=128_256,
    )
    spec = make_spec(
        model=f"worker:{folder}", dataset="org/rows", train=train, resources={"gpus": gpus}
    )
    return check_memory(make_context(tmp_path, spec), facts, Task.SFT, longest)


def test_the_least_is_told_with_the_card_that_holds_it(tmp_path, large):
    need, words = check(tmp_path, large)
    assert 141e9 < need.base < 142e9  # 70.6 billion numbers of two bytes
    assert need.total == pytest.approx(152e9, rel=0.05)
    assert "lora on rows of 512 tokens" in words
    assert "a card of 180 GB (B200)" in words


@pytest.mark.chaos
def test_no_more_is_counted_than_a_row_will_have(tmp_path, large):
    least, words = check(tmp_path, large, max_length=32_768)  # the longest row has 512
    assert "rows of 512 tokens" in words
    need, words = check(tmp_path, large, longest=100_000)  # prepare leaves such a row out
    assert "rows of 2,048 tokens" in words
    assert need.total > least.total


def test_where_only_qlora_fits_the_card_that_was_asked_for_it_is_counted(tmp_path, large):
    need, words = check(tmp_path, large, gpus="h100:1")
    assert "qlora" in words
    assert need.total < 80e9


def test_what_does_not_fit_the_card_that_was_asked_for_is_refused(tmp_path, large):
    with pytest.raises(Refused) as caught:
        check(tmp_path, large, gpus="t4")
    assert caught.value.code == "does_not_fit"
    assert "16 GB of t4" in caught.value.message
    assert "a card of 48 GB" in caught.value.hint or "a card of 80 GB" in caught.value.hint


def test_what_fits_no_card_is_refused_unless_several_share_it(tmp_path, large):
    with pytest.raises(Refused) as caught:
        check(tmp_path, large, method="full")
    assert "more than the 288 GB of any one card" in caught.value.hint
    need, _ = check(tmp_path, large, gpus="h100:8", method="full")
    assert need.total > 1e12
