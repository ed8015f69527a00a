"""What the three sets promise: no label leaves training, no prompt stands on two sides."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.data_jobs import Job, MakeJob, qa, write_jsonl
from transformers import PreTrainedTokenizerFast

from ftq_shared.errors import Refused
from ftq_shared.events import EventType

SETS = ("train", "validation", "golden")


def warnings(job: Job) -> str:
    return " | ".join(w["message"] for w in job.sent(EventType.WARNING))


def trained_labels(job: Job, labels: list[str]) -> Counter[str]:
    return Counter(labels[i] for i in job.load("train")["label"])


def prompts(job: Job, tokenizer: PreTrainedTokenizerFast) -> dict[str, set[str]]:
    """Return the untrained beginnings of the rows of each set."""

    def prompt(row: dict[str, Any]) -> str:
        untrained = zip(row["input_ids"], row["labels"], strict=True)
        return str(tokenizer.decode([token for token, label in untrained if label == -100]))

    return {name: {prompt(row) for row in job.load(name)} for name in SETS}


def test_labels_with_a_single_row_stay_in_training_and_are_named(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"text": f"common {i}", "label": "common"} for i in range(50)]
    rows += [{"text": f"something rare {i}", "label": f"rare{i}"} for i in range(3)]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), plain_tokenizer)
    report = job.run()
    assert set(trained_labels(job, report.labels)) == {"common", "rare0", "rare1", "rare2"}
    assert "3 of 4 labels have no golden row" in warnings(job)
    assert "'rare0', 'rare1', 'rare2'" in warnings(job)


def test_groups_take_no_label_along(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each label stands with one user alone: a user that is held out would take it away."""
    rows = [
        {"text": f"sentence {i}", "label": f"l{i % 10 // 2}", "user": f"u{i % 10}"}
        for i in range(60)
    ]
    rows += [{"text": f"other {i}", "label": "own", "user": "u99"} for i in range(2)]
    job = make_job(
        write_jsonl(tmp_path / "rows.jsonl", rows), plain_tokenizer, data={"group_by": "user"}
    )
    report = job.run()
    assert set(trained_labels(job, report.labels)) == {f"l{i}" for i in range(5)} | {"own"}
    assert report.rows["golden"] > 0


def test_labels_that_all_have_one_row_are_trained_and_judged_by_nothing(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"text": f"sentence {i}", "label": f"l{i}"} for i in range(8)]
    job = make_job(
        write_jsonl(tmp_path / "rows.jsonl", rows), plain_tokenizer, task="classification"
    )
    assert job.run().rows == {"train": 8, "validation": 0, "golden": 0}
    assert "nothing judges the model" in warnings(job)


def test_a_label_whose_rows_all_stand_in_the_test_split_stays_in_training(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    train = [{"text": f"sentence {i}", "label": f"l{i % 3}"} for i in range(60)]
    shared = [row for row in train if row["label"] == "l2"]
    test = shared + [{"text": f"other {i}", "label": f"l{i % 2}"} for i in range(30)]
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", train),
        write_jsonl(tmp_path / "d/test.jsonl", test),
    ]
    job = make_job(files, plain_tokenizer)
    report = job.run()
    assert trained_labels(job, report.labels)["l2"] == 20
    assert (report.rows["golden"], report.golden_source) == (30, "test")
    assert "1 of 3 labels have no golden row" in warnings(job)


def test_a_label_that_lost_its_rows_to_the_length_limit_is_named(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"text": f"sentence {i}", "label": f"l{i % 2}"} for i in range(60)]
    rows += [{"text": f"{i} long " * 100, "label": "lost"} for i in range(5)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    job = make_job(path, plain_tokenizer, train={"max_length": 64})
    job.run()
    assert "1 of 3 labels have no row to train on" in warnings(job)
    assert "'lost'" in warnings(job)
    long = [row | {"text": row["text"] * 60} if row["label"] == "l1" else row for row in rows]
    path = write_jsonl(tmp_path / "long.jsonl", long[:60])
    allow = {"allow": ["dropped_rows"]}
    with pytest.raises(Refused) as caught:
        make_job(path, plain_tokenizer, train={"max_length": 64}, data=allow).run()
    assert caught.value.code == "one_label"


def test_answers_to_one_prompt_stay_together(
    tmp_path: Path, make_job: MakeJob, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [row | {"answer": f"{row['answer']} {n}"} for row in qa(100) for n in range(4)]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), chat_tokenizer)
    report = job.run()
    assert report.rows == {"golden": 40, "validation": 20, "train": 340}
    held = prompts(job, chat_tokenizer)
    assert sum(map(len, held.values())) == 100
    assert len(set.union(*held.values())) == 100


def test_a_prompt_of_the_test_split_leaves_training_also_with_another_answer(
    tmp_path: Path, make_job: MakeJob, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", qa(100)),
        write_jsonl(tmp_path / "d/test.jsonl", [row | {"answer": "no"} for row in qa(20, 70)]),
        write_jsonl(tmp_path / "d/validation.jsonl", [r | {"answer": "so"} for r in qa(30, 65)]),
    ]
    job = make_job(files, chat_tokenizer)
    assert job.run().rows == {"golden": 20, "validation": 10, "train": 70}
    held = prompts(job, chat_tokenizer)
    assert sum(map(len, held.values())) == len(set.union(*held.values()))


def test_answers_to_compare_stay_with_their_prompt(
    tmp_path: Path, make_job: MakeJob, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [
        {"prompt": f"question {i // 3}", "chosen": f"yes {i}", "rejected": f"no {i}"}
        for i in range(240)
    ]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), chat_tokenizer)
    report = job.run()
    held = {name: set(job.load(name)["prompt"]) for name in report.rows}
    assert len(set.union(*held.values())) == sum(map(len, held.values())) == 80


@pytest.mark.parametrize("part", ["input", "system"])
def test_one_instruction_with_different_inputs_is_many_prompts(
    tmp_path: Path, make_job: MakeJob, chat_tokenizer: PreTrainedTokenizerFast, part: str
) -> None:
    rows = [
        {"instruction": "Add these.", "output": f"It is {2 * i}.", part: f"{i} and {i}"}
        for i in range(200)
    ]
    columns = {"system": "system"} if part == "system" else {}
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    job = make_job(path, chat_tokenizer, data={"columns": columns})
    assert job.run().rows == {"golden": 20, "validation": 18, "train": 162}
    assert "prompts only" not in warnings(job)


@pytest.mark.parametrize("with_test", [False, True])
def test_rows_that_all_share_their_prompt_are_told_apart_by_their_answers(
    tmp_path: Path, make_job: MakeJob, chat_tokenizer: PreTrainedTokenizerFast, with_test: bool
) -> None:
    rows = [{"question": "Write a joke.", "answer": f"Knock knock {i}."} for i in range(230)]
    files = [write_jsonl(tmp_path / "d/train.jsonl", rows[:200])]
    if with_test:
        files.append(write_jsonl(tmp_path / "d/test.jsonl", rows[200:]))
    job = make_job(files, chat_tokenizer)
    report = job.run()
    assert report.rows["golden"] == (30 if with_test else 20)
    assert report.rows["train"] >= 160
    assert "the 200 training rows have 1 prompts only" in warnings(job)


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("task", ["sft", "classification"])
def test_a_split_that_is_equal_to_train_is_named(
    tmp_path: Path,
    make_job: MakeJob,
    plain_tokenizer: PreTrainedTokenizerFast,
    split: str,
    task: str,
) -> None:
    labelled = [{"text": f"sentence {i}", "label": f"l{i % 2}"} for i in range(40)]
    rows = qa(40) if task == "sft" else labelled
    files = [write_jsonl(tmp_path / f"d/{name}.jsonl", rows) for name in ("train", split)]
    with pytest.raises(Refused) as caught:
        make_job(files, plain_tokenizer).run()
    assert caught.value.code == "too_few_rows"
    assert f"every one of the 40 usable training rows stands in split {split}" in str(caught.value)
    assert f"--set data.{split}=none" in caught.value.hint
    assert make_job(files[:1], plain_tokenizer, data={split: "none"}).run().rows["train"] > 0


def test_a_validation_split_that_is_the_test_split_is_replaced_aloud(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", qa(200)),
        write_jsonl(tmp_path / "d/test.jsonl", qa(40, start=500)),
        write_jsonl(tmp_path / "d/validation.jsonl", qa(40, start=500)),
    ]
    job = make_job(files, plain_tokenizer)
    assert job.run().rows == {"golden": 40, "validation": 20, "train": 180}
    assert "every row of split validation stands in the golden set as well" in warnings(job)


def test_a_small_golden_set_says_that_it_cannot_judge(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", qa(60))
    job = make_job(path, plain_tokenizer)
    job.run()
    assert "the golden set has 6 rows: too few rows to judge" in warnings(job)
    enough = make_job(path, plain_tokenizer, data={"golden": {"size": 30}})
    enough.run()
    assert "too few rows" not in warnings(enough)
