"""Bad input, as a person meets it: the exit code, what was found, and what to do."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import READER, Fleet

MODEL = ("--model", "demo/tiny-llama")
DATA = ("--dataset", "demo/colours")


def test_unknown_model_names_the_nearest(fleet: Fleet) -> None:
    done = fleet.submit("--model", "demo/tiny-lama", *DATA)
    assert done.code == 5
    assert done.error()["code"] == "no_such_model"
    assert "demo/tiny-llama" in done.error()["nearest"]


def test_unknown_dataset_names_the_nearest(fleet: Fleet) -> None:
    done = fleet.submit(*MODEL, "--dataset", "demo/colors")
    assert done.code == 5
    assert "demo/colours" in done.error()["nearest"]


def test_gated_model_without_access(fleet: Fleet, tmp_path: Path) -> None:
    from ftq_worker.demo.assets import save_base

    save_base(tmp_path, ["some text"] * 20)
    fleet.hub.store.create_repo("model", "team/gated", gated=True)
    fleet.hub.store.commit_folder("model", "team/gated", tmp_path)
    done = fleet.submit("--model", "team/gated", *DATA, HF_TOKEN=READER)
    assert done.code == 5
    assert done.error()["code"] == "gated"
    assert f"{fleet.hub.url}/team/gated" in done.error()["hint"]


def test_no_write_access_is_found_in_validate(fleet: Fleet) -> None:
    done = fleet.submit(*MODEL, *DATA, "--publish-to", "me/x", HF_TOKEN=READER)
    assert done.code == 5
    assert {event["phase"] for event in done.events} == {"validate"}


def test_taken_target_is_found_in_validate(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("do not touch")
    fleet.hub.store.create_repo("model", "me/taken")
    fleet.hub.store.commit_folder("model", "me/taken", tmp_path, "My own work")
    done = fleet.submit(*MODEL, *DATA, "--publish-to", "me/taken")
    assert done.code == 5
    assert done.error()["code"] == "target_taken"
    assert "publish.overwrite" in done.error()["hint"]


def test_missing_config_lists_the_configs(fleet: Fleet, tmp_path: Path) -> None:
    card = "---\nconfigs:\n- config_name: {}\n  data_files: a.jsonl\n- config_name: {}\n"
    (tmp_path / "README.md").write_text(
        card.format("main", "socratic") + "  data_files: b.jsonl\n---\n"
    )
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": "q", "answer": "a"}) + "\n")
    fleet.hub.store.create_repo("dataset", "me/two")
    fleet.hub.store.commit_folder("dataset", "me/two", tmp_path)
    done = fleet.submit(*MODEL, "--dataset", "me/two")
    assert done.code == 5
    assert "main" in json.dumps(done.error())
    assert "socratic" in json.dumps(done.error())
    told = fleet.run("show", done.job)
    assert f"ftq retry {done.job} --set dataset=me/two:main" in told.stdout


def test_wrong_column_lists_the_columns(fleet: Fleet) -> None:
    done = fleet.submit(*MODEL, *DATA, "--set", "data.columns.prompt=questoin")
    assert done.code == 5
    assert "question" in done.error()["message"] + done.error()["hint"]


def test_empty_after_cleaning_says_what_each_rule_dropped(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text('{"prompt": "q", "completion": ""}\n' * 30)
    done = fleet.submit(*MODEL, "--dataset", str(path))
    assert done.code == 5
    assert done.error()["code"] == "empty_dataset"
    assert "none of 20 rows" in done.error()["message"]
    assert "completion: is empty" in done.error()["hint"]


def test_all_wrong_keys_at_once(fleet: Fleet, tmp_path: Path) -> None:
    spec = tmp_path / "job.yaml"
    spec.write_text(
        "model: a/b\ndataset: c/d\nsave_steps: 5\ntrain: {num_train_epochs: 2, seed: x}\n"
    )
    done = fleet.run("submit", str(spec))
    assert done.returncode == 2
    for found in (
        "save_steps",
        "train.save_every",
        "num_train_epochs",
        "train.epochs",
        "train.seed",
    ):
        assert found in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_value_without_a_terminal(fleet: Fleet) -> None:
    done = fleet.run("submit", *MODEL)
    assert done.returncode == 2
    assert "dataset" in done.stderr


def test_missing_file(fleet: Fleet) -> None:
    done = fleet.run("submit", *MODEL, "--dataset", "./nowhere.jsonl")
    assert done.returncode == 2
    assert "nowhere.jsonl" in done.stderr


def test_file_too_large_names_the_routes(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    done = fleet.run("submit", *MODEL, "--dataset", str(path))
    assert done.returncode == 2
    for route in ("FTQ_STORAGE", "worker:", "hf upload"):
        assert route in done.stderr


def test_no_broker_known(fleet: Fleet, tmp_path: Path) -> None:
    env = fleet.env(FTQ_HOME=str(tmp_path))
    del env["FTQ_REDIS_URL"]
    done = fleet.run("list", env=env)
    assert done.returncode == 6
    assert "ftq up" in done.stderr


@pytest.mark.parametrize("kind", ["refused", "vanish"])
def test_no_broker_answers_within_five_seconds(fleet: Fleet, kind: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if kind == "vanish":  # accepts, and swallows what is sent
            silent.listen(8)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        started = time.monotonic()
        done = fleet.run("list", env=fleet.env(FTQ_REDIS_URL=url))
        assert done.returncode == 6, done.stderr
        assert time.monotonic() - started < 6.5  # the limit is 5 s, plus a busy machine's start
        assert "ftq up" in done.stderr


def test_a_wrong_password_is_not_answered_with_ftq_up(fleet: Fleet) -> None:
    url = fleet.broker.url
    wrong = url.replace(url.split(":")[2].partition("@")[0], "wrong")
    done = fleet.run("list", env=fleet.env(FTQ_REDIS_URL=wrong))
    assert done.returncode == 6
    assert "ftq up" not in done.stderr
    assert "password" in done.stderr
    missing = url.replace("redis://", "rediss://") + "?ssl_ca_certs=/nowhere/ca.pem"
    done = fleet.run("list", env=fleet.env(FTQ_REDIS_URL=missing))
    assert done.returncode in (2, 6)
    assert "ftq up" not in done.stderr


def test_ambiguous_job_lists_the_candidates(fleet: Fleet) -> None:
    client = fleet.client()
    made = []
    for suffix in "ab":
        job = f"ft-zzzzzzz{suffix}"
        from ftq_shared.spec import JobSpec

        spec = JobSpec(model="a/b", dataset="c/d")
        client.store.submit(job, spec, client_key=job, owner="nobody", endpoint="http://else")
        made.append(job)
    done = fleet.run("show", "ft-zzzz")
    assert done.returncode == 3
    assert all(job in done.stderr for job in made)
    for job in made:
        client.cancel(job)


def test_no_worker_online_is_said_at_once(fleet: Fleet, tmp_path: Path) -> None:
    from ftq_client.local.valkey import EmbeddedBroker

    with EmbeddedBroker(tmp_path / "b") as alone:
        env = fleet.env(FTQ_REDIS_URL=alone.url)
        del env["HF_TOKEN"]
        done = fleet.run("submit", *MODEL, *DATA, "--detach", env=env)
        assert done.returncode == 0
        assert "no worker is online" in done.stderr
        job = done.stdout.strip()
        tail = fleet.run("tail", job, "--no-follow", env=env)
        assert tail.returncode == 0
        assert "no worker is online" in tail.stderr
        assert fleet.run("wait", job, "--timeout", "1", env=env).returncode == 124


def test_ctrl_c_leaves_the_job_running(fleet: Fleet) -> None:
    job = fleet.detach(
        *MODEL, *DATA, "--set", "train.max_steps=5000", "--gpus", "0", "--set", "train.method=full"
    )
    tail = subprocess.Popen(
        [sys.executable, "-m", "ftq_client", "tail", job],
        env=fleet.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout
    assert tail.stdout.readline()
    os.kill(tail.pid, 2)
    _, words = tail.communicate(timeout=30)
    assert tail.returncode == 130
    assert f"ftq tail {job}" in words
    assert not fleet.client().get(job).state.terminal
    fleet.run("cancel", job)
    assert fleet.run("wait", job, "--timeout", "60").returncode == 4


def nobody(fleet: Fleet, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which nothing can be reached."""
    return fleet.env(FTQ_REDIS_URL="redis://127.0.0.1:1/0", HF_ENDPOINT="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "train.nonsense=1"), "no such key"),
        (("--set", "train.learning_rate=-1"), "train.learning_rate"),
        (("--dataset", "./nowhere.jsonl"), "nowhere.jsonl"),
        (("--dataset", "demo/colours", "--model", "./x.jsonl"), "is a data file"),
        (("--gpus", "h100:x"), "no GPU request"),
        (("--publish-to", "*.jsonl"), "is no repo"),
        ((), "dataset"),
        (("nowhere.yaml",), "nowhere.yaml"),
    ],
)
def test_what_needs_no_network_is_judged_without_one(
    fleet: Fleet, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    data = () if "--dataset" in options or not options else DATA
    done = fleet.run("submit", *MODEL, *data, *options, env=nobody(fleet, tmp_path))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr


def test_a_retry_with_a_set_that_is_none_needs_no_network(fleet: Fleet, tmp_path: Path) -> None:
    done = fleet.run("retry", "ft-aaaaaaaa", "--set", "nonsense", env=nobody(fleet, tmp_path))
    assert done.returncode == 2


def test_publishing_without_a_token_is_refused_at_once(fleet: Fleet) -> None:
    env = fleet.env()
    del env["HF_TOKEN"]
    before = len(fleet.client().list_jobs(mine=False, active=False))
    done = fleet.run("submit", *MODEL, *DATA, "--publish-to", "me/x", "--detach", env=env)
    assert done.returncode == 5
    assert "no token was given, and publishing to me/x needs one" in done.stderr
    assert done.stdout == ""
    assert len(fleet.client().list_jobs(mine=False, active=False)) == before
    job = fleet.detach(*MODEL, *DATA, "--publish-to", "me/x", "--gpus", "nonesuch")
    fleet.run("cancel", job)
    for options in ((), ("--set", "train.epochs=1")):
        retried = fleet.run("retry", job, *options, "--detach", env=env)
        assert retried.returncode == 5
        assert "needs one that may write" in retried.stderr
    assert fleet.client().get(job).state == "cancelled"


def test_cards_that_the_fleet_has_not_are_told_at_submit(fleet: Fleet) -> None:
    done = fleet.run("submit", *MODEL, *DATA, "--gpus", "nonesuch:2", "--detach")
    assert done.returncode == 0
    assert "no host online has 2 nonesuch GPUs (the fleet has no GPU at all)" in done.stderr
    fleet.run("cancel", done.stdout.strip())


def test_a_cancel_takes_whole_ids_and_exact_names(fleet: Fleet) -> None:
    wait = ("--gpus", "nonesuch", "--detach")
    job = fleet.run("submit", *MODEL, *DATA, *wait, "--name", "to be cancelled").stdout.strip()
    client = fleet.client()
    for part in (job[:-1], job[:4], "ft-", job[3], "to be"):
        done = fleet.run("cancel", part)
        assert done.returncode == 3, part
        assert client.get(job).state == "queued"
    assert f"ftq cancel {job}" in fleet.run("cancel", job[:-1]).stderr
    both = fleet.run("cancel", job, "ft-nosuchjb")
    assert both.returncode == 3
    assert client.get(job).state == "queued", "all of them or none"
    assert fleet.run("cancel", "to be cancelled").returncode == 0
    assert client.get(job).state == "cancelled"
    assert fleet.run("cancel", job.removeprefix("ft-")).returncode == 0


def test_your_newest_job_is_found_from_any_machine(fleet: Fleet) -> None:
    job = fleet.detach(*MODEL, *DATA, "--gpus", "nonesuch")
    other = fleet.env(home="laptop2", USER="somebody", LOGNAME="somebody")
    assert fleet.run("show", "--json", env=other).stdout.startswith(f'{{"id":"{job}"')
    assert job in fleet.run("list", "-q", env=other).stdout
    assert fleet.client().get(job).owner == "me"
    fleet.hub.store.add_token("hf_strangerStrangerStranger", "stranger", role="read")
    stranger = fleet.env(
        home="laptop3", HF_TOKEN="hf_strangerStrangerStranger", USER="stranger", LOGNAME="stranger"
    )
    assert job not in fleet.run("list", "-q", env=stranger).stdout
    missing = fleet.run("tail", "--no-follow", env=stranger)
    assert missing.returncode == 3
    assert "stranger has no job yet" in missing.stderr
    assert "ftq list -a" in missing.stderr
    fleet.run("cancel", job)
    assert "ftq list --ended" in fleet.run("list", env=other).stderr
    assert job in fleet.run("list", "--ended", "-q", env=other).stdout


def test_a_name_that_is_a_beginning_has_a_nearest(fleet: Fleet) -> None:
    done = fleet.submit("--model", "tiny", *DATA)
    assert done.code == 5
    assert done.error()["nearest"] == ["demo/tiny-llama"]
