"""Tiny models and jobs for the train and publish phases; every model here trains in seconds."""

import pytest
from tests.support.tiny_jobs import TinyJob, make_base, tiny_job


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory):
    return make_base(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory):
    return make_base(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture
def sft_job(tmp_path, llama) -> TinyJob:
    return tiny_job(tmp_path, llama, "sft")


@pytest.fixture
def label_job(tmp_path, bert) -> TinyJob:
    return tiny_job(tmp_path, bert, "classification")
