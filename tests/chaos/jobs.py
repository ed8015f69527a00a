"""What is submitted in a storm, what should become of it, and who watches it."""

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from ftq_client.client import Client
from ftq_shared import keys
from ftq_shared.errors import BrokerUnreachable, FtqError, NoSuchJob
from ftq_shared.lifetimes import SUBMIT_TTL_S
from ftq_shared.spec import JobSpec
from ftq_shared.states import JobState
from tests.chaos.fleet import Fleet

PREVIOUS = Path(__file__).parent / "previous"  # the scripts that a client of 0.1.0 brings along
KINDS = ("ok", "orphan", "poison", "nan")
WEIGHTS = (88, 4, 4, 4)
LONG = 0.06  # share of jobs that run for longer than a lease
ATTEMPTS = 40  # of a job that does nothing wrong; one that kills itself gets 3


@dataclass
class Job:
    """One job of the storm."""

    id: str
    kind: str
    spec: JobSpec
    submitted: float  # monotonic
    cancelled: bool = False  # somebody asked at some time
    surely: bool = False  # the broker has said that it is, and nobody has asked for it again since
    cancelled_at: float = 0.0  # monotonic; when it was said so
    retried: int = 0

    def allowed(self) -> set[tuple[JobState, str]]:
        """Return the states in which it may end, each with the code of its error."""
        right = {
            "poison": (JobState.FAILED, "attempts_exhausted"),
            "nan": (JobState.FAILED, "nonfinite_loss"),
        }.get(self.kind, (JobState.SUCCEEDED, ""))
        cancelled = (JobState.CANCELLED, "")
        if self.surely:
            return {cancelled}
        return {right, cancelled} if self.cancelled else {right}


def make_spec(rng: random.Random, kind: str, number: int, repos: int) -> JobSpec:
    """Return a spec; what the fake phases do stands in its name."""
    name = f"chaos kind={kind} at={rng.randrange(1, 5)} repo=r{number % repos}"
    if rng.random() < LONG:
        # Runs through a freeze, and asks its agent for nothing while it does.
        name += f" steps={rng.randrange(400, 700)} ms=20 save={rng.choice([25, 10_000])}"
    else:
        name += f" steps={rng.randrange(5, 40)} ms={rng.randrange(1, 15)}"
    raw: dict[str, Any] = {"model": "a/b", "dataset": "c/d", "name": name}
    attempts = 3 if kind == "poison" else ATTEMPTS
    raw["resources"] = {
        "max_attempts": attempts,
        "gpus": "0",
        "priority": rng.choice(["high", "normal", "low"]),
    }
    return JobSpec.model_validate(raw)


def wishes(name: str | None) -> dict[str, str]:
    """Read what the fake phases do from a job's name."""
    return dict(word.split("=") for word in (name or "").split() if "=" in word)


def submit(client: Client, job: str, spec: JobSpec) -> str:
    """Submit through the SDK under a key of its own, so that a second try makes no second job."""
    return client.submit(spec, client_key=f"chaos-{job}")


def submit_as_previous(redis: "Redis", job: str, spec: JobSpec, version: int = 1) -> str:
    """Submit with the script and the record of ftq 0.1.0, or a record of a later version."""
    record = {
        "v": version,
        "spec": spec.canonical(),
        "name": spec.name or "",
        "owner": "previous@client",
        "phase": "validate",
        "priority": spec.resources.priority,
        "max_attempts": spec.resources.max_attempts,
        "gpu_request": spec.resources.gpus,
        "min_vram_gb": 0,
        "max_runtime_s": 0,
        "endpoint": "",
        "inputs": "[]",
    }
    text = json.dumps({name: str(value) for name, value in record.items()})
    key = keys.submit(f"chaos-{job}")
    return _run_previous(redis, "submit", job, [key], text, SUBMIT_TTL_S, "")


def cancel_as_previous(redis: "Redis", job: str) -> str:
    """Cancel with the script of ftq 0.1.0; return the state afterwards."""
    return _run_previous(redis, "cancel", job, [])


def _run_previous(redis: "Redis", name: str, job: str, more: list[str], *args: object) -> str:
    script = "".join((PREVIOUS / f"{part}.lua").read_text() for part in ("lib", name))
    names = [keys.job(job), keys.events(job), keys.kept(job), keys.secret(job), keys.inputs(job)]
    return str(redis.register_script(script)(keys=[*names, *more], args=[job, *args]))


@dataclass
class Watcher:
    """Somebody who follows a job through everything, in a thread of this process."""

    job: str
    seqs: list[int] = field(default_factory=list)
    outcome: str = ""
    error: str = ""
    started: float = 0.0  # monotonic
    ended: float = 0.0

    def start(self, client: Client) -> threading.Thread:
        self.started = time.monotonic()
        thread = threading.Thread(target=self._follow, args=(client,), daemon=True)
        thread.start()
        return thread

    def _follow(self, client: Client) -> None:
        try:
            for event in client.tail(self.job, outage_s=300.0):
                self.seqs.append(event.seq)
                self.outcome = str(event.data.get("outcome", self.outcome))
        except (FtqError, ValueError) as error:
            self.error = repr(error)
        self.ended = time.monotonic()


@dataclass
class Terminal:
    """Somebody who typed `ftq tail JOB --json`."""

    job: str
    process: "subprocess.Popen[str]"
    output: Path
    started: float  # monotonic

    @classmethod
    def start(cls, fleet: Fleet, job: str) -> "Terminal":
        output = fleet.root / f"tail-{job}.jsonl"
        command = [sys.executable, "-m", "ftq_client", "tail", job, "--json"]
        with output.open("wb") as out, output.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                command, env=fleet.env("client"), stdout=out, stderr=err, text=True
            )
        return cls(job, process, output, time.monotonic())

    def seqs(self) -> list[int]:
        return [json.loads(line)["seq"] for line in self.output.read_text().splitlines()]


def gone(client: Client, job: Job) -> bool:
    """Return whether the broker has never heard of a job; a silent one is asked again."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            client.get(job.id)
        except NoSuchJob:
            return True
        except BrokerUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
            continue
        return False
