"""Jobs in a store, each step of theirs in one call; for the real store and the one in memory."""

from ftq_shared.events import EventType, make_body
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_shared.store import JobStore, Placement

SPEC = JobSpec(model="org/model", dataset="org/data")
HOST = {
    "slots": 2,
    "gpus": [{"uuid": "GPU-a", "name": "Test", "memory_gb": 10}],
    "storage_id": "s1",
    "draining": "0",
    "version": "0",
}  # what h1 says


def spec_with(**resources: object) -> JobSpec:
    raw = {"model": "org/model", "dataset": "org/data", "resources": resources}
    return JobSpec.model_validate(raw)


def submit(store: JobStore, key: str = "k", job: str = "ft-aaaaaaaa", spec: JobSpec = SPEC) -> str:
    return store.submit(job, spec, client_key=key, owner="me@here", endpoint="")


def try_to_place(store: JobStore, job: str, random: str = "0" * 16) -> tuple[str, str]:
    """Place a job on h1; return (token, '') or ('', why not)."""
    plan = Placement(job, store.get(job).version, "h1", "i1", "cpu")
    return store.place(plan, random)


def place(store: JobStore, job: str, random: str = "0" * 16) -> str:
    """Place a queued job on h1; return the token."""
    token, why = try_to_place(store, job, random)
    assert token, why
    return token


def run(store: JobStore, job: str, random: str = "0" * 16) -> str:
    """Place a queued job on h1 and claim it; return the token."""
    token = place(store, job, random)
    assert store.claim(job, token, nonce="n", instance="i1", storage_id="s1") == "ok"
    return token


def log(line: str) -> str:
    return make_body(EventType.LOG, {"line": line}, attempt=1, host="h1", phase=Phase.VALIDATE)
