"""Near duplicates: planted ones are found, others are not, and none leaks into the golden set."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.data_jobs import (
    Job,
    MakeJob,
    Recorder,
    write_jsonl,
)
from tests.unit.data.test_sets import trained_labels, warnings
from transformers import PreTrainedTokenizerFast

from ftq_shared.events import EventType
from ftq_worker.data.examples import Example
from ftq_worker.data.near_duplicates import BANDS, SIMILAR, Signatures, Signed, SignedRows, _text
from ftq_worker.data.shingles import common_shingles, shingles
from ftq_worker.job.context import Control
from ftq_worker.job.progress import Progress

PICK = random.Random(5)
WORDS = [
    "".join(PICK.choices("abcdefghijklmnoprstuvw", k=PICK.randrange(3, 9))) for _ in range(5000)
]


def document(pick: random.Random, words: int = 40) -> str:
    return " ".join(pick.choices(WORDS, k=words))


def altered(text: str, pick: random.Random, words: int = 1) -> str:
    """Return the text with some of its words replaced, at its end: few shingles change."""
    return " ".join([*text.split()[:-words], *pick.choices(WORDS, k=words)])


def jaccard(one: str, other: str) -> float:
    """Work out the similarity with sets of words, as the definition says."""
    a, b = ({tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in (one.split(), other.split()))
    return len(a & b) / len(a | b)


def signed(folder: Path, texts: list[str]) -> SignedRows:
    files = Signatures(folder)
    for start in range(0, len(texts), 7):
        files.add(Signed.of(shingles(texts[start : start + 7])))
    return files.open()


def quiet() -> Progress:
    return Progress(Recorder(), Control(), "compare", "bands", BANDS, after_s=60.0)


def test_similarity_is_that_of_the_definition(tmp_path: Path) -> None:
    pick = random.Random(1)
    for changed in range(1, 12):
        text = document(pick)
        other = altered(text, pick, changed)
        rows = signed(tmp_path, [text, other])
        assert rows._jaccard(np.fromfile(tmp_path / "shingles", np.uint64), 0, 1) == pytest.approx(
            jaccard(text, other)
        )
        expected = jaccard(text, other) >= SIMILAR
        assert rows.similar(np.array([0]), np.array([1])).tolist() == [expected]


def test_planted_copies_are_found_and_no_others(tmp_path: Path) -> None:
    pick = random.Random(2)
    texts = [document(pick) for _ in range(1000)]
    copies = [altered(text, pick, 4) for text in texts[:300]]
    planted = np.array([jaccard(a, b) >= SIMILAR for a, b in zip(texts, copies, strict=False)])
    assert planted.sum() == 300
    rows = signed(tmp_path, texts + copies)
    earlier = rows.earlier(np.arange(1300), quiet())
    assert (earlier[:1000] == -1).all()
    found = earlier[1000:] == np.arange(300)
    assert found.mean() >= 0.95
    held = rows.copies(np.arange(1000), np.arange(1000, 1300), quiet())
    assert held[:300].mean() >= 0.95
    assert not held[300:].any()


def test_the_search_tells_how_far_it_is(tmp_path: Path) -> None:
    seen = Recorder()
    rows = signed(tmp_path, [document(random.Random(i)) for i in range(20)])
    rows.earlier(np.arange(20), Progress(seen, Control(), "compare", "bands", BANDS))
    (*_, last) = [data for kind, data in seen.events if kind is EventType.PROGRESS]
    assert (last["done"], last["total"]) == (BANDS, BANDS)


def test_signs_digits_and_scripts_without_blanks_count() -> None:
    def alike(one: str, other: str) -> bool:
        sets = shingles([one, other])
        a, b = np.split(sets.values, sets.ends[:1])
        return len(np.intersect1d(a, b)) / len(np.union1d(a, b)) >= SIMILAR

    assert alike("Good movie", "good  MOVIE")
    assert not alike("What is 3 + 4?", "What is 3 - 4?")
    assert not alike("\u4eca\u5929\u5929\u6c14\u5f88\u597d", "\u4eca\u5929\u5929\u6c14\u4e0d\u597d")
    assert not alike("one", "two")
    assert len(shingles([""]).ends) == 1
    assert len(shingles([]).values) == 0


def test_rows_without_text_of_their_own_are_like_nothing(tmp_path: Path) -> None:
    texts = ["the same for all of them"] * 50
    common = common_shingles(texts, 0.1, 20)
    files = Signatures(tmp_path)
    files.add(Signed.of(shingles(texts).without(common)))
    rows = files.open()
    assert (rows.earlier(np.arange(50), quiet()) == -1).all()
    assert not rows.copies(np.arange(40), np.arange(40, 50), quiet()).any()


def labelled(count: int, pick: random.Random) -> list[dict[str, Any]]:
    return [{"text": document(pick), "label": f"l{i % 3}"} for i in range(count)]


def copies_of(rows: list[dict[str, Any]], pick: random.Random) -> list[dict[str, Any]]:
    return [row | {"text": altered(row["text"], pick)} for row in rows]


def rule(job: Job) -> int:
    entry = job.rule("near_duplicate")
    return int(entry["rows_in"] - entry["rows_out"])


def test_copies_of_the_test_split_leave_training(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    pick = random.Random(3)
    train, test = labelled(200, pick), labelled(40, pick)
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", train + copies_of(test[:30], pick)),
        write_jsonl(tmp_path / "d/test.jsonl", test),
    ]
    job = make_job(files, plain_tokenizer)
    report = job.run()
    assert rule(job) == 30
    assert (report.rows["golden"], sum(report.rows.values())) == (40, 240)
    assert job.rule("near_duplicate")["examples"][0]["row"] == 200


@pytest.mark.parametrize("dedupe", ["exact", "near", "none"])
def test_copies_in_training_are_told_or_dropped(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast, dedupe: str
) -> None:
    pick = random.Random(4)
    train = labelled(200, pick)
    near = copies_of(train[:20], pick)
    other = [row | {"label": "other", "text": altered(row["text"], pick)} for row in train[50:55]]
    test = labelled(40, pick)
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", train + near + other),
        write_jsonl(tmp_path / "d/test.jsonl", test),
    ]
    job = make_job(files, plain_tokenizer, data={"dedupe": dedupe, "validation": "none"})
    report = job.run()
    assert report.rows["train"] == (205 if dedupe == "near" else 225)
    told = "20 of 225 training rows are nearly equal to an earlier one and are kept"
    assert (told in warnings(job)) is (dedupe == "exact")
    if dedupe == "near":
        assert job.rule("near_duplicate")["examples"][0]["what"] == "nearly equal to row 0"
        assert trained_labels(job, report.labels)["other"] == 5


def test_the_last_rows_of_a_label_stay_and_their_copies_leave_the_golden_set(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    pick = random.Random(6)
    rare = [{"text": document(pick), "label": "rare"}]
    files = [
        write_jsonl(tmp_path / "d/train.jsonl", labelled(100, pick) + rare),
        write_jsonl(tmp_path / "d/test.jsonl", labelled(40, pick) + copies_of(rare, pick)),
    ]
    job = make_job(files, plain_tokenizer)
    report = job.run()
    assert trained_labels(job, report.labels)["rare"] == 1
    assert (report.rows["golden"], rule(job)) == (40, 0)


def test_a_template_that_opens_all_rows_makes_no_copies(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    pick = random.Random(7)
    opening = document(pick, 60)
    rows = [{"text": f"{opening} {document(pick, 3)}", "label": f"l{i % 2}"} for i in range(300)]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), plain_tokenizer)
    report = job.run()
    assert sum(report.rows.values()) == 300
    assert "nearly equal" not in warnings(job)


def test_rows_that_are_all_alike_are_kept_and_told(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Too many to be taken out, and too many kinds of them to be a template."""
    pick = random.Random(8)
    openings = [document(pick, 60) for _ in range(15)]
    rows = [{"text": f"{openings[i % 15]} {i}", "label": f"l{i % 2}"} for i in range(300)]
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), plain_tokenizer)
    report = job.run()
    assert sum(report.rows.values()) == 300
    assert "stay in training, as too little would be left without them" in warnings(job)


def test_secrets_are_counted_and_never_shown(
    tmp_path: Path, make_job: MakeJob, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    pick = random.Random(9)
    secrets = [
        "hf_" + "a1B2" * 9,
        "sk-" + "proj-" + "x9Y8" * 8,
        "AKIA" + "ABCDEFGHIJ234567",
        "ghp_" + "q1W2" * 9,
        "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIEabcdef\n-----END RSA PRIVATE KEY-----",
    ]
    rows = [{"text": f"{document(pick, 8)} {i}", "label": f"l{i % 2}"} for i in range(60)]
    for i, secret in enumerate(secrets):
        rows[i]["text"] = f"the key: {secret} {document(pick, 5)}"
    rows[10]["text"] = "no keys: AKIA, sk-learn, hf_hub, a risk-averse-person-of-great-wisdom"
    job = make_job(write_jsonl(tmp_path / "rows.jsonl", rows), plain_tokenizer)
    report = job.run()
    (warning,) = (w for w in job.sent(EventType.WARNING) if "secret" in w["message"])
    assert warning["message"].startswith("5 rows hold what looks like a secret")
    assert "AWS access key in 1" in warning["message"]
    assert "rows.jsonl line 1, rows.jsonl line 2" in warning["message"]
    assert isinstance(job.ctx.emit, Recorder)
    said = repr(job.ctx.emit.events) + report.model_dump_json()
    assert not [secret for secret in [*secrets[:4], "MIIEabcdef"] if secret in said]
    assert "[hidden]" in said


def test_a_second_text_and_the_calls_of_tools_tell_rows_apart() -> None:
    pair = Example(text="one text", text_pair="a")
    assert _text(pair) != _text(Example(text="one text", text_pair="b"))

    def calling(city: str) -> Example:
        call = {"function": {"name": "weather", "arguments": {"city": city}}}
        return Example([{"role": "assistant", "content": "", "tool_calls": [call]}])

    assert _text(calling("Rome")) != _text(calling("Oslo"))
