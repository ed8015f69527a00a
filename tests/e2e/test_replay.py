"""A row breaks a training: its step is replayed, the row is found, left out, and all goes on."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftq_client.row_file import read_rows
from ftq_shared.errors import UsageError
from ftq_worker.demo import assets

from .conftest import Fleet, wait_for

ROWS, BAD = 160, 21  # a row that is trained, not held out
BATCH = 8


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model with one token whose embedding is beyond all reason: its gradient is NaN."""
    folder = tmp_path_factory.mktemp("base") / "model"
    texts = [f"Say {n}.\nIt is {n}." for n in range(ROWS)]
    tokenizer = assets.make_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    tied = assets.make_model(len(tokenizer), hidden_size=32)
    tied.config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(tied.config)
    broken = tokenizer("§", add_special_tokens=False)["input_ids"][-1]  # its second byte
    with torch.no_grad():
        model.get_input_embeddings().weight[broken] = 3e38
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    texts = [f"Say {n}{' please' * (n % 3)}." for n in range(ROWS)]
    texts[BAD] = f"Say {BAD} §."
    lines = [{"prompt": t, "completion": f"It is {n}."} for n, t in enumerate(texts)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def training(base: Path, rows: Path) -> list[str]:
    sets = {"method": "full", "learning_rate": 3e-3, "batch_size": BATCH, "save_every": 2,
            "on_divergence": "stop", "epochs": 2, "eval_every": 100}  # fmt: skip
    given = ["--model", str(base), "--dataset", str(rows)]
    return [*given, *(part for k, v in sets.items() for part in ("--set", f"train.{k}={v}"))]


def replay(fleet: Fleet, *args: str, code: int = 0) -> dict[str, Any]:
    done = fleet.run("replay", *args, "--json")
    assert done.returncode == code, (done.stdout, done.stderr)
    return dict(json.loads(done.stdout))


def files_of(fleet: Fleet, job: str) -> dict[str, str]:
    (root,) = fleet.root.glob(f"first/**/jobs/{job}")
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_spike_is_replayed_named_left_out_and_retried(
    fleet: Fleet, base: Path, rows: Path, tmp_path: Path
) -> None:
    failed = fleet.submit(*training(base, rows), "--publish-to", "me/without", quick=False)
    assert (failed.code, failed.error()["code"]) == (1, "nonfinite_loss"), failed.stderr
    job, spike = failed.job, int(failed.error()["step"])
    assert spike > 2, "a checkpoint comes before"
    assert f"`ftq replay JOB --step {spike}`" in failed.error()["hint"]
    before = files_of(fleet, job)

    # A step before: bit for bit what was recorded.
    calm = replay(fleet, job, "--step", str(spike - 1))
    recorded = {d["step"]: d for d in failed.data("step")}
    assert calm["equal"] is True
    assert calm["loss"] == calm["recorded_loss"] == recorded[spike - 1]["loss"]
    assert calm["grad_norm"] == recorded[spike - 1]["grad_norm"]

    # The spike, as a person sees it.
    out = tmp_path / "spike.jsonl"
    seen = fleet.run("replay", job, "--step", str(spike), "--rows-out", str(out))
    assert seen.returncode == 0, seen.stderr
    assert f"rows.jsonl line {BAD + 1}" in seen.stdout
    assert "no number, as recorded" in seen.stdout
    assert f"ftq retry {job} --without-rows" in seen.stdout
    assert f"ftq retry {job} --without-rows {out}" in seen.stderr
    named = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(named) == BATCH
    assert [line["row"] for line in named if line["grad_norm"] is None] == [BAD]
    assert named[0]["job"] == job
    assert "§" in named[0]["text"]
    assert files_of(fleet, job) == before

    # Only the line of the bad row stays.
    out.write_text(json.dumps(named[0]) + "\n")
    done = fleet.run("retry", job, "--without-rows", str(out), "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    resumed = next(e["data"]["step"] for e in events if e["type"] == "resumed")
    assert resumed < spike
    losses = {e["data"]["step"]: e["data"]["loss"] for e in events if e["type"] == "step"}
    assert min(losses) == resumed + 1
    assert all(loss is not None for loss in losses.values())
    (told,) = [
        e["data"]["message"]
        for e in events
        if e["type"] == "warning" and "left out" in e["data"]["message"]
    ]
    assert told == f"left out of training from step {resumed + 1} on, as asked: 1 row:" + (
        f" rows.jsonl row {BAD}"
    )
    fetched = fleet.run("fetch", job, str(tmp_path / "model"))
    assert fetched.returncode == 0, fetched.stderr
    card = (tmp_path / "model" / "README.md").read_text()
    assert (
        f"left out of training by name, from step {resumed + 1} on: `rows.jsonl` row {BAD}" in card
    )
    assert "Left out of training by name" in (tmp_path / "model" / "report.html").read_text()

    # The step as it was trained in the end; a replay shows again what it has found.
    client = fleet.client()
    mine = client.replay(job, spike)
    assert client.wait(mine, timeout_s=60).exit_code == 0
    last = replay(fleet, mine)
    assert (last["equal"], last["loss"], len(last["rows"])) == (True, losses[spike], BATCH - 1)
    assert (last["ended"], last["job"], last["replay"]) == ("succeeded", job, mine)
    with pytest.raises(UsageError, match="only a failed or cancelled job"):
        client.retry(job, without_rows=read_rows(out, job))
    with pytest.raises(UsageError, match=f"it has trained {max(losses)}"):
        client.replay(job, 999)


@pytest.mark.chaos
def test_a_stop_ends_the_replay_and_a_running_job_is_not_replayed(
    fleet: Fleet, base: Path, rows: Path
) -> None:
    less = rows.with_name("less.jsonl")
    lines = rows.read_text().splitlines(keepends=True)
    less.write_text("".join(line for line in lines if "\\u00a7" not in line))
    given = [
        *training(base, less),
        "--set",
        "train.max_steps=100000",
        "--set",
        "train.save_every=1h",
    ]
    job = fleet.detach(*given, "--gpus", "0")
    client = fleet.client()
    wait_for(lambda: int(client.get(job).summary.get("step", 0)) > 80, what=lambda: client.get(job))
    running = fleet.run("replay", job, "--step", "3")
    assert (running.returncode, "once the job has ended" in running.stderr) == (2, True)
    fleet.run("cancel", job)
    assert fleet.run("wait", job, "--timeout", "60").returncode == 4
    # From the base model, as the one checkpoint comes after it.
    command = [sys.executable, "-m", "ftq_client", "replay", job, "--step", "80"]
    shown = subprocess.Popen(
        command, env=fleet.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    mine = wait_for(
        lambda: next((j.id for j in client.list_jobs() if j.replay and j.replay.job == job), None)
    )
    wait_for(lambda: client.get(mine).state == "running", what=lambda: client.get(mine))
    shown.send_signal(signal.SIGINT)
    _, said = shown.communicate(timeout=60)
    assert (shown.returncode, f"{mine} is cancelled" in said) == (130, True), said
    assert fleet.run("wait", mine, "--timeout", "60").returncode == 4
