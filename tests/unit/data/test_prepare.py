"""The prepare phase from files to prepared sets, on clean, dirty and hopeless data."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.support.data_jobs import Job, MakeJob, Recorder, make_tokenizer, qa, write_jsonl
from transformers import PreTrainedTokenizerFast

from ftq_shared.errors import FtqError, JobCancelled, Refused
from ftq_shared.events import EventType
from ftq_shared.paths import JobPaths, read_json
from ftq_shared.row_refs import RowRef
from ftq_worker.data.examples import Example
from ftq_worker.job.context import Devices, StopReason
from ftq_worker.job.row_sources import SOURCES, load_sources, save_sources


def texts(job: Job, name: str, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [tokenizer.decode(row["input_ids"]) for row in job.load(name)]


def labelled(count: int, labels: int = 4) -> list[dict[str, Any]]:
    return [{"text": f"sentence {i}", "label": f"label {i % labels}"} for i in range(count)]


def test_sets_are_disjoint_and_complete(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", qa(1200)), plain_tokenizer)
    report = job.run()
    assert report.rows == {"golden": 100, "validation": 22, "train": 1078}
    sets = {name: set(texts(job, name, plain_tokenizer)) for name in report.rows}
    assert {name: len(rows) for name, rows in sets.items()} == report.rows
    assert not sets["train"] & sets["golden"]
    assert not sets["train"] & sets["validation"]
    assert not sets["golden"] & sets["validation"]
    train = job.load("train")
    assert train.column_names == ["input_ids", "labels", "length"]
    assert train["length"][:] == [len(ids) for ids in train["input_ids"]]
    assert report.max_length == max(max(job.load(name)["length"]) for name in report.rows)
    assert (report.tokens["total"], report.format) == (sum(train["length"]), "plain")


def test_all_is_told(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", qa(300)), plain_tokenizer)
    report = job.run()
    (golden,) = job.sent(EventType.GOLDEN)
    assert (golden["rows"], golden["validation_rows"]) == (30, 20)
    assert (golden["sha256"], golden["source"]) == (report.golden_sha256, "train")
    assert sum(golden["strata"].values()) == 30
    assert set(golden["strata"]) <= {"short", "medium", "long", "longest"}
    samples = job.sent(EventType.SAMPLE)
    assert [s["set"] for s in samples] == ["train"] * 3 + ["validation", "golden"]
    assert samples == report.samples
    assert all(s["trained"].endswith("</s>") and s["trained"] in s["text"] for s in samples)
    resolved = read_json(job.ctx.paths.resolved)
    assert set(resolved) == {"task", "data.format", "train.max_length"}
    first, last = job.sent(EventType.DATASET)
    assert (first["rows"], first["shape"]) == (300, "question/answer")
    assert last["tokens"]["max"] == report.tokens["max"]
    rows_in = 300
    for entry in job.sent(EventType.CLEANING):
        assert entry["rows_in"] == rows_in
        rows_in = entry["rows_out"]
    assert rows_in == report.rows["train"]
    ends = [p for p in job.sent(EventType.PROGRESS) if p["done"] == p["total"]]
    assert [p["task"] for p in ends] == ["read train", "tokenize train"]


def test_a_second_run_gives_the_same_and_replaces_the_first(
    tmp_path: Path, make_job: MakeJob, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", qa(400))
    job = make_job(path, chat_tokenizer)
    report = job.run()
    rows = {name: job.load(name).to_list() for name in report.rows}
    sources = job.ctx.paths.row_sources.read_bytes()
    (job.ctx.paths.prepared / "junk").write_text("of an earlier attempt")
    assert job.run() == report
    assert {name: job.load(name).to_list() for name in report.rows} == rows
    left = {p.name for p in job.ctx.paths.prepared.iterdir()}
    assert left == {"train", "validation", "golden", "rows.arrow"}
    assert job.ctx.paths.row_sources.read_bytes() == sources
    assert list(job.ctx.paths.claim_dir("1").iterdir()) == []
    other = make_job(path, chat_tokenizer, storage="other", train={"seed": 7})
    assert other.run().golden_sha256 != report.golden_sha256


@pytest.mark.parametrize("task", ["sft", "classification"])
def test_another_claim_reports_byte_for_byte_the_same(
    tmp_path: Path, make_job: MakeJob, chat_tokenizer: PreTrainedTokenizerFast, task: str
) -> None:
    """Checkpoints name their data by the report: one that differed would orphan them all."""
    good = qa(300) if task == "sft" else labelled(300)
    dirty: list[dict[str, Any] | str] = [*good, *good[:5], '{"cut off', {"question": 1, "text": 2}]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", dirty), chat_tokenizer, task=task)
    job.run()
    files = [*job.ctx.paths.prepared.rglob("*.arrow"), job.ctx.paths.prepared_report]
    before = {path: path.read_bytes() for path in files}
    ctx = replace(job.ctx, token_number=2, attempt=2, claim_name="2-0badcafe")
    replace(job, ctx=ctx).run()
    assert len(before) == 5
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize("task", ["sft", "classification"])
def test_two_processes_leave_what_one_leaves(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast, task: str
) -> None:
    """Rows of every kind of fate, far apart, so that several processes meet them."""
    good = qa(5000) if task == "sft" else labelled(5000, labels=700)
    text = "question" if task == "sft" else "text"
    odd: list[dict[str, Any] | str] = [
        '{"cut off',
        good[3],
        good[7] | {text: f"control \x07 {good[7][text]}"},
        good[9] | {text: "long " * 300, "remark": "one of few"},
        good[11] | {text: ""},
        good[12] | {text: "my key is hf_" + "a" * 34, "more": "a column that nothing reads"},
    ]
    rows: list[dict[str, Any] | str] = [*good[:600], *odd, *good[600:4000], *odd, *good[4000:]]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    left = []
    for threads in (1, 2):
        fields: dict[str, Any] = {"task": task, "train": {"max_length": 200}}
        job = make_job(path, plain_tokenizer, storage=f"storage{threads}", **fields)
        ctx = replace(job.ctx, devices=Devices(cpu_threads=threads))
        replace(job, ctx=ctx).run()
        files = [
            *ctx.paths.prepared.rglob("*.arrow"),
            ctx.paths.prepared_report,
            ctx.paths.data_report,
        ]
        assert isinstance(ctx.emit, Recorder)
        told = [event for event in ctx.emit.events if event[0] is not EventType.PROGRESS]
        left.append((told, {file.relative_to(ctx.paths.root): file.read_bytes() for file in files}))
    assert len(left[0][1]) == 6
    assert job.dropped().keys() >= {"unreadable", "duplicate", "empty", "too_long", "held_out"}
    assert left[0] == left[1]


def test_every_rule_counts_what_it_drops(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    good = qa(300)
    dirty: list[dict[str, Any] | str] = [
        *good[:10],
        '{"question": "broken',
        {"question": None, "answer": "x"},
        {"answer": "x"},
        {"question": "  ", "answer": "x"},
        {"question": ["a", "b"], "answer": "x"},
        {"question": "What is  0 plus 0?\n", "answer": "It is 0."},
        {"question": "control \x07", "answer": "bell"},
        {"question": "long " * 500, "answer": "x"},
        *good[10:],
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", dirty)
    job = make_job(path, plain_tokenizer, train={"max_length": 200})
    report = job.run()
    assert job.dropped() == {
        "unreadable": 1,
        "missing": 2,
        "empty": 1,
        "wrong_type": 1,
        "duplicate": 1,
        "too_long": 1,
        "held_out": 50,
    }
    assert report.rows["train"] == 308 - 7 - 50
    (broken,) = job.rule("unreadable")["examples"]
    assert (broken["file"], broken["line"], broken["row"]) == ("rows.jsonl", 11, 10)
    assert "not JSON" in broken["what"]
    assert [e["line"] for e in job.rule("missing")["examples"]] == [12, 13]
    assert job.rule("wrong_type")["examples"][0]["field"] == "question"
    assert job.rule("duplicate")["examples"][0]["what"] == "equal to row 0"
    assert "the limit is 200" in job.rule("too_long")["examples"][0]["what"]
    assert job.rule("control_characters")["examples"][0]["line"] == 17
    assert any("control characters" in w["message"] for w in job.sent(EventType.WARNING))
    assert not any("\x07" in text for text in texts(job, "train", plain_tokenizer))


@pytest.mark.parametrize(
    ("row", "field", "what"),
    [
        ('{"question": "broken', "", "not JSON"),
        ({"question": "q", "answer": None}, "answer", "is null"),
        ({"question": "q", "answer": {"a": 1}}, "answer", "is an object with a"),
    ],
)
def test_fail_names_file_line_and_field(
    tmp_path: Path,
    make_job: MakeJob,
    plain_tokenizer: PreTrainedTokenizerFast,
    row: Any,
    field: str,
    what: str,
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [*qa(7), row, *qa(3)])
    job = make_job(path, plain_tokenizer, data={"on_bad_row": "fail"})
    with pytest.raises(Refused) as caught:
        job.run()
    error = caught.value
    assert (error.code, error.where["file"], error.where["line"]) == ("bad_row", "rows.jsonl", 8)
    assert error.where.get("field", "") == field
    assert "rows.jsonl, line 8" in error.message
    assert what in error.message
    assert not job.ctx.paths.prepared.exists()


def test_nothing_left_says_what_each_rule_took(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"question": "q", "answer": ""}, {"question": "", "answer": "a"}, "{"]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), plain_tokenizer)
    with pytest.raises(Refused) as caught:
        job.run()
    assert caught.value.code == "empty_dataset"
    assert "3 rows" in caught.value.message
    assert "unreadable 1, empty 2" in caught.value.message
    assert "line 3" in caught.value.hint


def test_too_few_rows_are_refused_and_three_are_enough(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(Refused) as caught:
        make_job(write_jsonl(tmp_path / "two.jsonl", qa(2)), plain_tokenizer).run()
    assert caught.value.code == "too_few_rows"
    job = make_job(write_jsonl(tmp_path / "three.jsonl", qa(3)), plain_tokenizer)
    assert job.run().rows == {"golden": 1, "validation": 1, "train": 1}


def test_where_each_training_row_came_from_is_written_down(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Two files, a row that cannot be read, a double, and rows that are held out."""
    rows = [*qa(600), "{broken", qa(1)[0]]
    files = [
        write_jsonl(tmp_path / "d/a.jsonl", rows[:300]),
        write_jsonl(tmp_path / "d/b.jsonl", rows[300:]),
    ]
    job = make_job(files, plain_tokenizer)
    trained = texts(job, "train", plain_tokenizer) if job.run() else []
    sources = load_sources(job.ctx.paths, len(trained))
    assert sources is not None
    for at, text in enumerate(trained):
        source = sources.at(at)
        first = 0 if source.ref.file == "a.jsonl" else 300
        assert source.line == source.ref.row - first + 1
        assert f"What is {source.ref.row} plus" in text
    named = {sources.at(at).ref: at for at in range(len(trained))}
    gone = [RowRef("b.jsonl", 600), RowRef("b.jsonl", 601), RowRef("b.jsonl", 7), RowRef("a", 1)]
    assert sources.positions([*named, *gone]) == named | dict.fromkeys(gone)
    assert job.sent(EventType.GOLDEN)[0]["train_rows"] == len(trained)


@pytest.mark.parametrize(("data", "rows"), [(b"", 1), (b"no arrow at all", 1), (None, 2)])
def test_damaged_sources_say_how_they_are_made_again(
    tmp_path: Path, data: bytes | None, rows: int
) -> None:
    paths = JobPaths(tmp_path, "ft-aaaaaaaa")
    assert load_sources(paths, rows) is None  # of an older version
    paths.prepared.mkdir(parents=True)
    one = pa.RecordBatch.from_pylist([{"file": "a", "row": 0, "line": None}], SOURCES)
    save_sources(iter([one]), paths.row_sources)
    if data is not None:
        paths.row_sources.write_bytes(data)
    with pytest.raises(FtqError, match=r"rows\.arrow") as caught:
        load_sources(paths, rows)
    assert "ftq retry ft-aaaaaaaa --from prepare" in caught.value.hint


def test_own_splits_are_used_and_kept_out_of_train(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", qa(100)),
        # Half of either is in the training rows as well, ten rows are in both.
        write_jsonl(tmp_path / "d/validation.jsonl", qa(40, start=80)),
        write_jsonl(tmp_path / "d/test.jsonl", qa(40, start=110)),
    ]
    job = make_job(files, plain_tokenizer)
    report = job.run()
    assert report.rows == {"train": 80, "validation": 30, "golden": 40}
    assert report.golden_source == "test"
    assert job.sent(EventType.GOLDEN)[0]["removed_from_train"] == 20
    train, validation, golden = (
        set(texts(job, name, plain_tokenizer)) for name in ("train", "validation", "golden")
    )
    assert not train & validation
    assert not train & golden
    assert not validation & golden


def test_golden_and_validation_can_be_chosen(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", qa(100))
    data = {"golden": {"size": 33}, "validation": "none"}
    assert make_job(path, plain_tokenizer, data=data).run().rows == {
        "train": 67,
        "validation": 0,
        "golden": 33,
    }
    with pytest.raises(Refused, match="more than half"):
        make_job(path, plain_tokenizer, data={"golden": {"size": 51}}).run()


def test_a_test_split_without_answers_is_replaced(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", qa(100)),
        write_jsonl(tmp_path / "d/test.jsonl", [{"question": "q"}] * 5),
    ]
    job = make_job(files, plain_tokenizer)
    assert job.run().golden_source == "train"
    assert any("missing 5" in w["message"] for w in job.sent(EventType.WARNING))


def test_groups_stay_on_one_side(tmp_path: Path, make_job: MakeJob) -> None:
    rows = [row | {"user": f"u{i % 40}"} for i, row in enumerate(qa(400))]
    tokenizer = make_tokenizer()
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    job = make_job(path, tokenizer, data={"group_by": "user"})
    report = job.run()
    assert report.rows["golden"] == 40
    user = {f"<s>{r['question']}\n{r['answer']}</s>": r["user"] for r in rows}
    users = {name: {user[text] for text in texts(job, name, tokenizer)} for name in report.rows}
    assert not users["train"] & users["golden"]
    assert not users["train"] & users["validation"]
    assert not users["golden"] & users["validation"]
    assert "whole groups of user" in job.sent(EventType.GOLDEN)[0]["reason"]

    one = write_jsonl(tmp_path / "one.jsonl", [row | {"user": "me"} for row in qa(20)])
    with pytest.raises(Refused) as caught:
        make_job(one, tokenizer, data={"group_by": "user"}).run()
    assert caught.value.code == "group_by"


def test_groups_of_a_test_split_leave_the_training_rows(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [row | {"user": f"u{i % 5}"} for i, row in enumerate(qa(100))]
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", rows),
        write_jsonl(tmp_path / "d/test.jsonl", [row | {"user": "u3"} for row in qa(9, 500)]),
    ]
    job = make_job(files, plain_tokenizer, data={"group_by": "user"})
    report = job.run()
    assert job.sent(EventType.GOLDEN)[0]["removed_from_train"] == 20
    assert report.rows["train"] + report.rows["validation"] == 80


def test_duplicates_can_be_kept_but_never_leak(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", qa(100) * 2)
    job = make_job(path, plain_tokenizer, data={"dedupe": "none"})
    job.run()
    assert "duplicate" not in job.dropped()
    train, golden = (texts(job, name, plain_tokenizer) for name in ("train", "golden"))
    assert len(set(train)) < len(train)
    assert not set(train) & set(golden)


def test_labels_get_ids_and_golden_holds_all_that_have_a_row_to_spare(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [
        *labelled(600, labels=12),
        {"text": "sentence  5", "label": "label 5"},
        {"text": "sentence 7", "label": "label 1"},
        {"text": "nothing", "label": None},
        {"text": "alone", "label": "single"},
    ]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), plain_tokenizer)
    report = job.run()
    assert report.labels == sorted({f"label {i}" for i in range(12)} | {"single"})
    assert job.dropped() == {"missing": 1, "duplicate": 1, "conflicting_label": 1, "held_out": 80}
    assert job.rule("conflicting_label")["examples"][0]["row"] == 601
    warnings = " ".join(w["message"] for w in job.sent(EventType.WARNING))
    assert "1 of 13 labels have no golden row" in warnings
    assert "1 rows repeat a text with another label; the first of each stays" in warnings
    train = job.load("train")
    assert train.column_names == ["input_ids", "label", "length"]
    for row in train.select(range(50)):
        number = int(plain_tokenizer.decode(row["input_ids"]).split()[-1])
        assert report.labels[row["label"]] == f"label {number % 12}"
    assert set(job.sent(EventType.GOLDEN)[0]["strata"]) == set(report.labels) - {"single"}
    assert "data.format" not in read_json(job.ctx.paths.resolved)
    assert job.sent(EventType.SAMPLE)[0]["label"] == "label 0"


def test_labels_that_are_numbers_are_sorted_as_numbers(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"text": f"t {i}", "label": i % 12} for i in range(120)]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), plain_tokenizer)
    assert job.run().labels == [str(i) for i in range(12)]


def test_labels_of_a_test_split_must_be_known(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    test = [{"text": "x 1", "label": "label 1"}, {"text": "x 2", "label": "unheard of"}]
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", labelled(100)),
        write_jsonl(tmp_path / "d/test.jsonl", test),
    ]
    job = make_job(files, plain_tokenizer, data={"allow": ["dropped_rows"]})
    assert job.run().rows["golden"] == 1
    assert "no training row" in job.rule("unusable in test")["examples"][0]["what"]


def test_one_label_is_nothing_to_learn(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", sorted(labelled(40), key=lambda r: r["label"]))
    with pytest.raises(Refused) as caught:
        make_job(path, plain_tokenizer, data={"max_rows": 10}).run()
    assert caught.value.code == "one_label"
    assert "max_rows" in caught.value.hint


def test_max_rows_is_respected(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", qa(500))
    job = make_job(path, plain_tokenizer, data={"max_rows": 60})
    assert sum(job.run().rows.values()) == 60


def test_the_model_caps_the_length(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [*qa(100), {"question": "word " * 100, "answer": "x"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    job = make_job(path, plain_tokenizer, max_positions=64)
    report = job.run()
    assert job.dropped()["too_long"] == 1
    assert report.max_length <= 64
    assert read_json(job.ctx.paths.resolved)["train.max_length"]["value"] == 64
    with pytest.raises(Refused) as caught:
        make_job(path, plain_tokenizer, max_positions=64, train={"max_length": 65}).run()
    assert caught.value.code == "max_length"


def test_other_formats_and_shapes(
    tmp_path: Path, make_job: MakeJob, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    csv = tmp_path / "rows.csv"
    csv.write_text("prompt,completion\n" + "".join(f'"a, {i}",b {i}\n' for i in range(30)))
    assert make_job(csv, chat_tokenizer).run().format == "chat"
    txt = tmp_path / "rows.txt"
    txt.write_text("".join(f"line {i}\n\n" for i in range(30)))
    report = make_job(txt, chat_tokenizer).run()
    assert (sum(report.rows.values()), report.format) == (30, "plain")
    lists = tmp_path / "rows.json"
    chats = [[{"from": "human", "value": f"{i}"}, {"from": "gpt", "value": "x"}] for i in range(9)]
    lists.write_text(json.dumps([{"conversations": chat} for chat in chats]))
    assert sum(make_job(lists, chat_tokenizer).run().rows.values()) == 9
    choices = [{"prompt": f"p{i}", "chosen": "c", "rejected": "r"} for i in range(9)]
    job = make_job(write_jsonl(tmp_path / "dpo.jsonl", choices), chat_tokenizer)
    job.run()
    assert job.load("train").column_names == ["prompt", "chosen", "rejected", "length"]


def test_a_column_that_is_gone_is_refused(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", qa(20))
    job = make_job(path, plain_tokenizer)
    columns = job.validated.columns.model_copy(update={"prompt": "questoin"})
    job.validated = job.validated.model_copy(update={"columns": columns})
    with pytest.raises(Refused) as caught:
        job.run()
    assert caught.value.code == "wrong_column"


def test_a_cancel_stops_it_and_leaves_nothing(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", qa(50)), plain_tokenizer)
    job.ctx.control.stop(StopReason.CANCEL)
    with pytest.raises(JobCancelled):
        job.run()
    assert job.sent(EventType.PROGRESS) == []
    assert not job.ctx.paths.prepared.exists()
    assert list(job.ctx.paths.claim_dir("1").iterdir()) == []


def test_the_golden_hash_is_of_the_texts_in_order(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", qa(50)),
        write_jsonl(tmp_path / "d/test.jsonl", qa(5, start=100)),
    ]
    turns = [("user", "question"), ("assistant", "answer")]
    examples = [
        Example([{"role": role, "content": row[part]} for role, part in turns])
        for row in qa(5, start=100)
    ]
    expected = hashlib.sha256("".join(e.to_json() + "\n" for e in examples).encode())
    assert make_job(files, plain_tokenizer).run().golden_sha256 == expected.hexdigest()


@pytest.mark.parametrize("what", ["gone", "link"])
def test_a_file_that_was_put_elsewhere_since_validate_is_not_followed(
    make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, what: str
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", qa(10))
    job = make_job(rows, plain_tokenizer)
    rows.unlink()
    if what == "link":
        rows.symlink_to("/etc/hostname")
    with pytest.raises(Refused, match="is not there any more, or has become a link") as caught:
        job.run()
    assert caught.value.code == "file_moved"
