"""Fixtures of the data tests; what they are made of is in tests/support/data_jobs.py."""

from pathlib import Path

import pytest
from tests.support.data_jobs import CHAT_TEMPLATE, MakeJob, job_maker, make_tokenizer
from transformers import PreTrainedTokenizerFast


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    return job_maker(tmp_path)


@pytest.fixture(scope="session")
def plain_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(chat=CHAT_TEMPLATE)
