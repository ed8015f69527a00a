"""A preview says what a job does with the same rows."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.data_jobs import MakeJob, make_tokenizer, qa, write_jsonl
from tests.unit.preview.conftest import MakeLook
from transformers import PreTrainedTokenizerFast

from ftq_shared.errors import Refused
from ftq_worker.preview import run

DIRTY = [
    *qa(60),
    {"question": "", "answer": "nothing was asked"},
    {"question": "no answer"},
    "{broken",
    *qa(2),  # equal to earlier rows
]


def test_it_counts_what_the_prepare_phase_counts(
    tmp_path: Path, look: MakeLook, make_job: MakeJob, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", DIRTY)
    job = make_job(rows, tokenizer, max_positions=512)
    prepared, report = job.run(), look(rows)
    assert report["sets"] == prepared.rows
    tokens = dict(report["tokens"])
    labels = [label for row in job.load("train")["labels"] for label in row]
    assert tokens["trained"] == sum(label != -100 for label in labels)
    assert tokens == prepared.tokens
    counted = {c["rule"]: c["rows_in"] - c["rows_out"] for c in prepared.cleaning}
    (split,) = report["splits"]
    assert {r["rule"]: r["rows"] for r in split["rules"]} == {k: v for k, v in counted.items() if v}
    assert {"unreadable", "missing", "empty", "duplicate"} <= {r["rule"] for r in split["rules"]}
    assert split["kept"] == prepared.rows["train"]
    assert sum(report["lengths"]["rows"]) == prepared.rows["train"]
    assert report["max_length"]["value"] == prepared.max_length


def test_pieces_are_the_rendered_text_and_trained_where_the_labels_are(
    tmp_path: Path, look: MakeLook, make_job: MakeJob, tokenizer: PreTrainedTokenizerFast
) -> None:
    # Several tokens for one character, and a token over the border of prompt and answer.
    rows = [{"question": f"née {i} 😀", "answer": f"être {i} 🎉 12"} for i in range(40)]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    job = make_job(file, tokenizer, max_positions=512)
    job.run()
    report = look(file, rows=20)
    trained = {
        tokenizer.decode([t for t in row["labels"] if t != -100]): row for row in job.load("train")
    }
    assert len(report["rows"]) == 20
    for row in report["rows"]:
        text = "".join(piece["text"] for piece in row["pieces"] if piece["trained"])
        record = trained[text]
        whole = "".join(piece["text"] for piece in row["pieces"])
        assert whole == tokenizer.decode(record["input_ids"])
        assert (row["tokens"], row["hidden"]) == (record["length"], 0)
        assert row["trained"] == sum(label != -100 for label in record["labels"])


def test_the_first_token_that_the_tokenizer_writes_is_shown(
    tmp_path: Path, look: MakeLook, model: Path
) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", qa(40))
    report = look(file, data={"format": "plain"})
    first, *_ = report["rows"]
    assert first["pieces"][0] == {"text": "<s>", "trained": False}
    assert first["pieces"][-1]["text"].endswith("</s>")
    assert first["pieces"][-1]["trained"]


def test_a_rule_names_a_row_by_file_and_line(tmp_path: Path, look: MakeLook) -> None:
    report = look(write_jsonl(tmp_path / "rows.jsonl", [*qa(40), "{broken"]))
    rule = report["splits"][0]["rules"][0]
    assert (rule["rule"], rule["rows"]) == ("unreadable", 1)
    assert (rule["examples"][0]["file"], rule["examples"][0]["line"]) == ("rows.jsonl", 41)


PASSAGE = "There are many rivers in the land, and one of them has the name that is asked for here"


def passages(count: int) -> list[dict[str, Any]]:
    return [{**row, "backdrop": f"{PASSAGE} {i}"} for i, row in enumerate(qa(count))]


def test_what_may_be_allowed_is_refused_beside_the_rows(tmp_path: Path, look: MakeLook) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", passages(40))
    report = look(file)
    assert report["refusal"]
    assert (report["refusal"]["code"], report["refusal"]["exit_code"]) == ("unused_columns", 5)
    assert report["rows"]
    (unused,) = report["unused"]
    assert (unused["name"], unused["share"]) == ("backdrop", 1.0)
    assert unused["use"] == "--set data.columns.context=backdrop"
    assert look(file, data={"allow": ["unused_columns"]})["refusal"] is None
    used = look(file, data={"columns": {"context": "backdrop"}})
    assert (used["unused"], used["refusal"]) == ([], None)
    assert PASSAGE in "".join(piece["text"] for piece in used["rows"][0]["pieces"])


def test_rows_that_are_too_long_are_refused_where_all_rows_are_known(
    tmp_path: Path, look: MakeLook, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**row, "answer": "long " * 400 if i % 3 else "short"} for i, row in enumerate(qa(60))]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    report = look(file)
    assert report["refusal"]
    assert report["refusal"]["code"] == "dropped_rows"
    monkeypatch.setattr(run, "FIRST_ROWS", 30)
    part = look(file)
    assert part["refusal"] is None
    assert any("so far" in warning["message"] for warning in part["warnings"])


def test_of_many_rows_the_first_are_read_and_it_says_so(
    tmp_path: Path, look: MakeLook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "FIRST_ROWS", 30)
    report = look(write_jsonl(tmp_path / "rows.jsonl", qa(60)))
    (split,) = report["splits"]
    assert (split["read"], split["whole"], report["first_rows"]) == (30, False, 30)
    assert report["sets"] == {}
    asked = look(write_jsonl(tmp_path / "rows.jsonl", qa(60)), data={"max_rows": 20})
    assert (asked["splits"][0]["read"], asked["splits"][0]["whole"]) == (20, True)


def test_rows_sorted_by_label_are_not_refused_for_their_beginning(
    tmp_path: Path, look: MakeLook, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"text {i}", "label": f"l{i // 40}"} for i in range(80)]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    whole = look(file)
    assert whole["refusal"] is None
    assert {one["label"] for one in whole["labels"]} == {"l0", "l1"}
    assert sum(one["rows"] for one in whole["labels"]) == whole["sets"]["train"]
    assert whole["rows"][0]["label"] == "l0"
    monkeypatch.setattr(run, "FIRST_ROWS", 30)
    part = look(file)
    assert part["refusal"] is None
    assert any("sorted by label" in warning["message"] for warning in part["warnings"])
    only = write_jsonl(tmp_path / "one.jsonl", rows[:20])
    refusal = look(only)["refusal"]
    assert refusal
    assert refusal["code"] == "one_label"


def test_splits_and_files_that_are_not_used_are_named(tmp_path: Path, look: MakeLook) -> None:
    folder = tmp_path / "data"
    write_jsonl(folder / "train.jsonl", qa(60))
    write_jsonl(folder / "extra.jsonl", qa(5, 100))
    (folder / "more.bin").write_bytes(b"\0")
    report = look(folder)
    assert report["refusal"]
    assert report["refusal"]["code"] == "unread_files"
    assert report["unused_splits"] == ["extra"]
    assert [file["name"] for file in report["unread_files"]] == ["more.bin"]


@pytest.mark.parametrize(
    ("rows", "fields", "code"),
    [
        (qa(10), {"data": {"columns": {"prompt": "nope"}}}, "wrong_column"),
        ([{"a": 1, "b": 2}] * 9, {}, "unknown_shape"),
        (qa(10), {"data": {"split": "nope"}}, "no_split"),
        ([{"question": "", "answer": ""}] * 9, {}, "empty_dataset"),
        (qa(10), {"train": {"max_length": 4096}}, "max_length"),
    ],
)
def test_what_nothing_allows_is_raised(
    tmp_path: Path, look: MakeLook, rows: list[Any], fields: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refused) as caught:
        look(write_jsonl(tmp_path / "rows.jsonl", rows), **fields)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_model_that_never_stops_is_refused(tmp_path: Path, look: MakeLook, model: Path) -> None:
    from shutil import copytree

    other = copytree(model, tmp_path / "other")
    make_tokenizer(eos=False, bos=False).save_pretrained(other)
    (other / "chat_template.jinja").unlink(missing_ok=True)
    file = write_jsonl(tmp_path / "rows.jsonl", qa(20))
    with pytest.raises(Refused) as caught:
        look(file, model=f"worker:{other}")
    assert caught.value.code == "no_eos"


def test_of_a_long_text_both_ends_are_shown_and_the_rest_is_counted(
    tmp_path: Path, look: MakeLook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftq_worker.report.rows._PIECE", 60)
    rows = [{"question": f"q{i}", "answer": f"begin{'-' * 100}end {i}"} for i in range(40)]
    row = look(write_jsonl(tmp_path / "rows.jsonl", rows))["rows"][0]
    (answer,) = [piece["text"] for piece in row["pieces"] if piece["trained"]]
    assert answer.startswith("begin---")
    assert answer.endswith("---end 1<|im_end|>")
    assert row["hidden"] == len("begin" + "-" * 100 + "end 1<|im_end|>") - 60
