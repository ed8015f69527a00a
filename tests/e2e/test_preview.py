"""`ftq preview` as a person types it: without a broker, offline and against a Hub."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from ftq_hub import HubApp, HubStore, running
from ftq_shared.data_report import DataReport, ReportRow, SplitFacts
from ftq_shared.errors import FtqError
from ftq_shared.spec_input import apply_sets, parse_spec
from ftq_shared.states import Phase
from ftq_worker.child import standalone
from ftq_worker.job.context import Devices
from tests.support.data_jobs import CHAT_TEMPLATE, make_tokenizer, qa, write_jsonl

FTQ = [sys.executable, "-m", "ftq_client"]
NOWHERE = "http://127.0.0.1:9"
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model, so that validate has nothing against it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make_tokenizer(chat=CHAT_TEMPLATE)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A machine without anything of ftq, where the person stands in a folder of their own."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def ftq(home: Path, *args: str, command: str = "preview", **env: str) -> Done:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FTQ_", "HF_"))}
    own = {"FTQ_HOME": str(home / ".ftq"), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": NOWHERE}
    own["TMPDIR"] = str(home / "tmp")
    (home / "tmp").mkdir(exist_ok=True)
    return subprocess.run(
        [*FTQ, command, *args],
        env=kept | own | env,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_offline_with_a_file_and_a_model_folder(home: Path, model: Path) -> None:
    write_jsonl(home / "rows.jsonl", [*qa(60), "{broken", {**qa(1)[0]}])
    done = ftq(home, "--model", str(model), "--dataset", "./rows.jsonl", "--html", "page.html")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[\[It is \d+\.<\|im_end\|>\]\]", done.stdout)
    assert "rows.jsonl line 61" in done.stdout
    assert "columns recognised by name: prompt=question, completion=answer" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    page = (home / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "http" not in page.replace("http-equiv", "")
    assert not (home / ".ftq" / "broker").exists()
    assert not list(home.glob("tmp/*"))  # nothing of the rows stays


@pytest.mark.chaos
def test_colours_on_a_terminal(home: Path, model: Path) -> None:
    import pexpect

    write_jsonl(home / "rows.jsonl", qa(60))
    env = {**os.environ, "FTQ_HOME": str(home / ".ftq"), "TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ftq_client", "preview", "--model", str(model), "--dataset", "./rows.jsonl"],
        env=env,
        cwd=str(home),
        encoding="utf-8",
        dimensions=(50, 80),
        timeout=100,
    )
    child.expect(r"\x1b\[32mIt is \d+\.<\|im_end\|>\x1b\[0m")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.parametrize(
    "args",
    [
        ("--set", "train.metod=full"),
        ("--set", "data.allow=nonsense"),
        ("--dataset", "./nothing-here.jsonl"),
    ],
)
def test_a_wrong_spec_is_refused_as_submit_refuses_it(
    home: Path, model: Path, args: tuple[str, ...]
) -> None:
    write_jsonl(home / "rows.jsonl", qa(20))
    whole = ("--model", str(model), "--dataset", "./rows.jsonl", *args)
    mine, theirs = ftq(home, *whole), ftq(home, *whole, command="submit")
    assert (mine.returncode, mine.stderr) == (2, theirs.stderr)
    assert mine.stdout == ""
    assert theirs.returncode == 2


PASSAGE = "There are many rivers in the land, and one of them has the name that is asked for"


@pytest.mark.parametrize(
    ("rows", "args"),
    [
        ([{**row, "backdrop": PASSAGE} for row in qa(40)], ()),
        pytest.param(["{broken"] * 9, (), marks=pytest.mark.chaos),
        pytest.param(qa(20), ("--set", "train.max_length=9999"), marks=pytest.mark.chaos),
    ],
)
def test_data_is_refused_in_the_words_of_validate(
    home: Path,
    model: Path,
    rows: list[Any],
    args: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_jsonl(home / "rows.jsonl", rows)
    done = ftq(home, "--model", str(model), "--dataset", "./rows.jsonl", *args)
    spec = parse_spec(apply_sets({"model": str(model), "dataset": "./rows.jsonl"}, args[1:]))
    monkeypatch.chdir(home)
    with pytest.raises(FtqError) as judged:
        standalone.run(spec, tmp_path / "storage", [Phase.VALIDATE], Devices())
    assert (done.returncode, judged.value.exit_code) == (5, 5), done.stderr
    assert done.stderr.startswith(f"ftq: {judged.value.message}\n")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[tuple[str, HubStore]]:
    """A Hub with a model and a dataset."""
    work = tmp_path_factory.mktemp("hub")
    store = HubStore(work / "store")
    store.create_repo("model", "org/tiny")
    store.commit_folder("model", "org/tiny", model, "model")
    store.create_repo("dataset", "org/rows")
    write_jsonl(work / "rows" / "train.jsonl", qa(60))
    store.commit_folder("dataset", "org/rows", work / "rows", "rows")
    with running(HubApp(store)) as url:
        yield url, store


def test_online_with_a_model_and_a_dataset_of_the_hub(
    home: Path, hub: tuple[str, HubStore]
) -> None:
    url, _ = hub
    args = ("--model", "org/tiny", "--dataset", "org/rows", "--json", "--html", "page.html")
    done = ftq(home, *args, HF_ENDPOINT=url)
    assert done.returncode == 0, done.stderr
    assert "written: page.html" in done.stderr
    (line,) = done.stdout.splitlines()  # nothing else goes to stdout
    report = json.loads(line)
    assert set(report) == set(get_type_hints(DataReport))
    assert set(report["splits"][0]) == set(get_type_hints(SplitFacts))
    assert len(report["rows"]) == 3
    assert set(report["rows"][0]) == set(get_type_hints(ReportRow)) - {"label"}
    assert report["splits"][0]["read"] == 60
    assert report["sets"]["train"] < 60
    # Without the Hub the tokenizer in the cache does, for a file of the person's own.
    write_jsonl(home / "rows.jsonl", qa(60))
    offline = ("--model", "org/tiny", "--dataset", "./rows.jsonl", "--json")
    again = ftq(home, *offline, HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["rows"][0]["pieces"] == report["rows"][0]["pieces"]
    assert any("cache, commit" in warning["message"] for warning in found["warnings"])
    shutil.rmtree(home / "hf")
    gone = ftq(home, *offline, HF_HUB_OFFLINE="1")
    assert gone.returncode == 7
    assert "retry" not in gone.stderr


@pytest.mark.parametrize("kind", [pytest.param("jsonl", marks=pytest.mark.chaos), "parquet"])
def test_of_a_large_split_only_the_beginning_is_fetched(
    home: Path, tmp_path: Path, hub: tuple[str, HubStore], model: Path, kind: str
) -> None:
    url, store = hub
    filler = os.urandom(3500).hex()
    rows = [{**row, "note": f"{i}{filler}"} for i, row in enumerate(qa(11_000))]
    folder = tmp_path / "large"
    folder.mkdir()
    if kind == "jsonl":
        write_jsonl(folder / "train.jsonl", rows)
    else:
        pq.write_table(
            pa.Table.from_pylist(rows),
            folder / "train.parquet",
            compression="none",
            use_dictionary=False,
        )
    repo = f"org/large-{kind}"
    store.create_repo("dataset", repo)
    store.commit_folder("dataset", repo, folder, "rows")
    args = ("--model", str(model), "--dataset", repo, "--set", "data.allow=unused_columns")
    done = ftq(home, *args, "--json", HF_ENDPOINT=url)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (split,) = report["splits"]
    assert not split["whole"]
    assert 1000 < split["read"] <= 5000
    assert report["rows"][0]["file"] == f"train.{kind}"
    fetched = sum(path.stat().st_size for path in (home / "hf").rglob("*") if path.is_file())
    assert fetched < 1 << 20  # nothing of it was downloaded as a whole


def test_without_the_worker_package_it_is_said_what_to_install(home: Path) -> None:
    write_jsonl(home / "rows.jsonl", qa(5))
    code = (
        "import importlib.util as u, sys\nreal = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'torch' else real(n, *a)\n"
        "from ftq_client.cli import main\nmain()"
    )
    args = ["preview", "--model", "org/tiny", "--dataset", "rows.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=home, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'ftq[worker]'" in done.stderr
    assert "Traceback" not in done.stderr
