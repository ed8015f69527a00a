"""GSM8K and CLINC150 as they are, and a file that is larger than memory should have to be."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.support.data_jobs import CHAT_TEMPLATE, MakeJob, make_tokenizer, write_jsonl
from transformers import PreTrainedTokenizerFast

from ftq_shared.events import EventType

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def math_tokenizer(test_data: Path) -> PreTrainedTokenizerFast:
    with (test_data / "gsm8k" / "train.jsonl").open() as file:
        return make_tokenizer([next(file) for _ in range(200)], chat=CHAT_TEMPLATE)


@pytest.mark.parametrize("format_", ["plain", "chat"])
def test_gsm8k(
    tmp_path: Path,
    make_job: MakeJob,
    test_data: Path,
    math_tokenizer: PreTrainedTokenizerFast,
    format_: str,
) -> None:
    files = [test_data / "gsm8k" / name for name in ("train.jsonl", "test.jsonl")]
    data = {"format": format_, "max_rows": 1500}
    job = make_job(files, math_tokenizer, data=data)
    report = job.run()
    assert report.rows == {"train": 1470, "validation": 30, "golden": 1000}
    assert job.dropped() == {"held_out": 30}
    end = {"plain": "</s>", "chat": "<|im_end|>"}[format_]
    answers = {json.loads(line)["answer"] for line in files[1].read_text().splitlines()}
    for row in job.load("golden").select(range(100)):
        trained = [label for label in row["labels"] if label != -100]
        text = math_tokenizer.decode(trained)
        assert text.endswith(end)
        assert text.removesuffix(end) in answers


@pytest.mark.chaos
def test_gsm8k_from_one_file(
    make_job: MakeJob, test_data: Path, math_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The issue's own way: one file, golden and validation from its rows."""
    job = make_job(test_data / "gsm8k" / "train.jsonl", math_tokenizer, data={"format": "plain"})
    report = job.run()
    assert report.rows == {"golden": 374, "validation": 142, "train": 6957}
    assert report.golden_source == "train"


def test_clinc150(
    tmp_path: Path,
    make_job: MakeJob,
    test_data: Path,
    plain_tokenizer: PreTrainedTokenizerFast,
) -> None:
    splits = json.loads((test_data / "clinc150" / "data_full.json").read_text())
    files = [
        write_jsonl(
            tmp_path / f"d/{name}.jsonl", [{"text": t, "intent": i} for t, i in splits[key]]
        )
        for key, name in (("train", "train"), ("val", "validation"), ("test", "test"))
    ]
    job = make_job(files, plain_tokenizer)
    report = job.run()
    assert len(report.labels) == 150
    assert report.rows["golden"] == 1000
    assert report.rows["validation"] == 2000
    assert set(job.dropped()) <= {"duplicate", "conflicting_label", "near_duplicate", "held_out"}
    assert report.rows["train"] == 15_000 - sum(job.dropped().values())
    strata = job.sent(EventType.GOLDEN)[0]["strata"]
    assert len(strata) == 150
    assert set(Counter(strata.values())) <= {6, 7}


MEASURE = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.support.data_jobs import job_maker, make_tokenizer
from tokenizers import Regex, normalizers

def anonymous_kb():  # what the process itself holds; files that are mapped do not count
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])

folder = Path(sys.argv[1])
make, tokenizer = job_maker(folder), make_tokenizer()
# Long texts of few tokens, at little cost: what is measured is the rows, not the tokenizer.
tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("x+"), "x")
make(folder / "small.jsonl", tokenizer, storage="warm").run()
before = anonymous_kb()
job = make(folder / "large.jsonl", tokenizer)
peak = before
emit = job.ctx.emit
def watched(type_, /, **data):
    global peak
    peak = max(peak, anonymous_kb())
    emit(type_, **data)
object.__setattr__(job.ctx, "emit", watched)
rows = job.run().rows
print(sum(rows.values()), (peak - before) // 1024)
"""


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def rows(count: int) -> list[str]:
        words = " ".join(["x" * 400] * 9)
        return [f'{{"question": "{i} {words}", "answer": "{i}"}}' for i in range(count)]

    write_jsonl(tmp_path / "small.jsonl", rows(500))
    large = write_jsonl(tmp_path / "large.jsonl", rows(10_000))
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(root=root), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    count, grown_mb = map(int, done.stdout.split())
    assert count == 10_000
    # The texts alone, held once, would be the whole file.
    size_mb = large.stat().st_size >> 20
    assert size_mb > 30
    assert grown_mb < size_mb / 2, f"memory grew by {grown_mb} MB for a file of {size_mb} MB"
