"""Validate looks at the dataset: its configs, splits, columns and files."""

import json

import pytest
from tests.e2e.validate.conftest import (
    ROWS,
    jsonl,
    parquet,
    refused,
    write_files,
)

from ftq_shared.events import EventType


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", "question,answer\n" + "q,a\n" * 50_000),
        ("rows.json", json.dumps(ROWS * 20_000)),
        ("rows.jsonl", jsonl(ROWS * 20_000)),
        ("rows.jsonl", jsonl([{"question": "long " * 100_000, "answer": "a"}])),
        ("rows.parquet", None),
        ("rows.jsonl.gz", None),
    ],
)
def test_only_the_head_of_a_hub_file_is_read(start, hub, tmp_path, name, content):
    if name.endswith(".parquet"):
        content = parquet(tmp_path / name, ROWS * 1000)
    if name.endswith(".gz"):
        import gzip

        content = gzip.compress(jsonl(ROWS * 20_000).encode())
    hub.add("dataset", "org/formats", {name: content})
    try:
        found = start({"dataset": "org/formats"}).go()
    finally:
        hub.store.delete_repo("dataset", "org/formats")
    assert found.dataset.columns == ["question", "answer"]
    rows = 8000 if name.endswith(".parquet") else None
    assert found.dataset.splits == {"train": rows}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_card_that_says_how_its_files_are_read(start, hub):
    card = "---\nconfigs:\n- config_name: main\n  data_files: rows.csv\n  sep: '#'\n"
    card += "  column_names: [question, answer]\n---\n"
    hub.add("dataset", "org/options", {"README.md": card, "rows.csv": "q#a\n" * 100_000})
    assert start({"dataset": "org/options"}).go().dataset.columns == ["question", "answer"]
    hub.add("dataset", "org/tsv", {"train.tsv": "prompt\tcompletion\na\tb\n", "test.tsv": ""})
    assert start({"dataset": "org/tsv"}).go().dataset.columns == ["prompt", "completion"]


def test_a_missing_config_lists_the_configs(start, hub):
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/*\n"
    card += "- config_name: socratic\n  data_files:\n  - split: train\n    path: so/*.jsonl\n---\n"
    rows = {"main/a.jsonl": jsonl(ROWS), "so/a.jsonl": jsonl(ROWS), "README.md": card}
    hub.add("dataset", "org/configs", rows)
    error = refused(start({"dataset": "org/configs"}))
    assert error.code == "config_missing"
    assert "main, socratic" in error.message
    assert "--set dataset=org/configs:main" in error.hint
    error = refused(start({"dataset": "org/configs:socratc"}))
    assert error.code == "no_such_config"
    assert "org/configs:socratic" in error.hint
    assert start({"dataset": "org/configs:socratic"}).go().dataset.config == "socratic"


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ({"split": "training"}, "no_split", "train, test"),
        ({"validation": "dev"}, "no_split", "data.validation"),
        ({"columns": {"prompt": "quest"}}, "wrong_column", "data.columns.prompt=question"),
        ({"group_by": "user"}, "wrong_column", "question, answer"),
    ],
)
def test_splits_and_columns_that_do_not_exist(start, data, code, words):
    error = refused(start({"data": data}))
    assert error.code == code
    assert words in error.message + error.hint


def test_columns_that_fit_no_shape(start, hub):
    hub.add("dataset", "org/odd", {"train.jsonl": jsonl([{"foo": "1", "bar": "2"}])})
    error = refused(start({"dataset": "org/odd"}))
    assert error.code == "unknown_shape"
    assert "data.columns.prompt=" in error.hint


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ({"train.jsonl": ""}, "empty_dataset", "is empty"),
        ({"train.csv": "question,answer\n"}, "empty_dataset", "is empty"),
        ({"load.py": "import os"}, "dataset_script", "never run"),
        ({"README.md": "nothing"}, "empty_dataset", "no data files"),
        ({"train.tar": "x"}, "data_format", "train.tar"),
        ({"train.parquet": "not parquet"}, "bad_file", "no parquet file"),
        ({"train.jsonl": "{broken\n{broken\n"}, "bad_row", "line 1"),
        (
            {"train.jsonl": jsonl([{"prompt": "p", "chosen": "a", "rejected": "b"}])},
            "task_unsupported",
            "preference",
        ),
    ],
)
def test_hub_datasets_that_cannot_be_used(start, hub, files, code, words):
    hub.add("dataset", "org/bad", files)
    try:
        error = refused(start({"dataset": "org/bad"}))
    finally:
        hub.store.delete_repo("dataset", "org/bad")
    assert error.code == code
    assert words in error.message + error.hint


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ({}, "no_such_dataset", "among the files that were sent"),
        ({"a.docx": "x"}, "data_format", ".docx"),
        ({"a.jsonl": ""}, "empty_dataset", "is empty"),
        ({"a.jsonl": "{\n"}, "bad_row", "a.jsonl, line 1"),
        ({"a.parquet": "x"}, "bad_file", "a.parquet"),
    ],
)
def test_files_that_cannot_be_used(start, files, code, words):
    run = start({"dataset": "./rows"})
    write_files(run.ctx.paths.inputs / "dataset", files)
    error = refused(run)
    assert error.code == code
    assert words in error.message + error.hint
    assert run.checks["weights"]["ok"]  # the model is checked all the same


def test_a_path_that_this_worker_does_not_have(start, tmp_path):
    open_ = tmp_path / "nowhere"
    error = refused(start({"dataset": f"worker:{open_}/x.jsonl", "model": f"worker:{open_}/m"}))
    assert error.code == "no_such_model"
    assert "every worker" in error.hint


def test_a_path_that_this_worker_does_not_open(start):
    run = start({"dataset": "worker:/etc/*", "model": "worker:/etc"})
    assert refused(run).code == "outside_roots"
    assert run.failed == ["model", "dataset"]
    assert ".bashrc" not in str(run.events)


def test_every_file_of_an_own_folder_is_used_or_asked_about(start, tmp_path):
    files = {"train.jsonl": jsonl(ROWS), "test.jsonl": jsonl(ROWS), "more.jsonl": jsonl(ROWS)}
    folder = write_files(tmp_path / "own", {**files, "notes.xlsx": "x", "README.md": "x"})
    dataset = f"worker:{folder}"
    error = refused(start({"dataset": dataset}))
    assert error.code == "unread_files"
    assert "notes.xlsx" in error.message
    assert "more.jsonl" in error.message
    run = start({"dataset": dataset, "data": {"allow": "unread_files"}})
    assert run.go().test_split == "test"
    assert "splits that are not used: more" in str(run.of(EventType.WARNING))
    (folder / "notes.xlsx").unlink()
    (folder / "more.jsonl").unlink()
    run = start({"dataset": dataset, "data": {"test": "none"}})  # left out on purpose
    run.go()
    assert run.checks["files"]["message"] == "all are used"


def test_what_the_first_rows_of_a_hub_dataset_prove_is_refused_before_the_queue(
    start, hub, tmp_path
):
    gaps = [{"question": f"q{n}?", "answer": None if n % 4 == 0 else f"a{n}"} for n in range(100)]
    parts = {f"train-0000{n}-of-00003.jsonl": jsonl(ROWS) for n in (0, 2)}
    most = [row | {"answer": None} if n % 3 else row for n, row in enumerate(gaps)]
    cases = [
        (parts, "missing_files", "only 2 of 3 parts", "unread_files"),
        ({"train.jsonl": jsonl(gaps[:12])}, "dropped_rows", "3 of the first 12", "dropped_rows"),
        ({"train.parquet": parquet(tmp_path / "a", gaps[:25])}, "dropped_rows", "5 of the", ""),
        ({"train.jsonl": jsonl(most)}, "dropped_rows", "of the first 20 rows", "dropped_rows"),
        ({"train.jsonl": jsonl(gaps)}, "", "15 of 20", ""),  # it may be the first rows alone
    ]
    for n, (files, code, words, allow) in enumerate(cases):
        hub.add("dataset", f"org/first{n}", files)
        run = start({"dataset": f"org/first{n}"})
        if not code:
            run.go()
            assert words in run.checks["examples"]["message"]
            continue
        error = refused(run)
        assert (error.code, words in error.message) == (code, True), error.message
        if allow:
            start({"dataset": f"org/first{n}", "data": {"allow": allow}}).go()


def test_splits_of_a_hub_dataset_that_are_not_used_are_named(start, hub):
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n"
    for name in ("train", "test", "unsupervised"):
        card += f"  - split: {name}\n    path: {name}.jsonl\n"
    files = {f"{name}.jsonl": jsonl(ROWS) for name in ("train", "test", "unsupervised")}
    hub.add("dataset", "org/splits", {**files, "README.md": f"{card}---\n"})
    run = start({"dataset": "org/splits"})
    run.go()
    assert "splits that are not used: unsupervised" in str(run.of(EventType.WARNING))
