"""Real trainings in a storm: what is published is what an unbroken run would have published.

    make chaos

Real workers with the whole training stack, real gradients, the real Hub client against the local
Hub. One job of each kind runs unbroken first; then several of the same spec run while parts are
killed, and must end with the same weights, bit for bit, each pushed in exactly one commit.
"""

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftq_client.client import Client
from ftq_hub import HubApp, HubStore, running
from ftq_worker.demo import assets
from tests.chaos import faults
from tests.chaos.fleet import Fleet, fleet, wait_for
from tests.chaos.storm import Storm
from tests.chaos.test_storm import SCALE, seed

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

BREAKS = [
    faults.kill_child,
    faults.kill_child,
    faults.kill_agent,
    faults.kill_celery,
    faults.kill_zygote,
    faults.kill_supervisor,
    faults.restart_broker,
    faults.drop_connections,
    faults.freeze_worker,
]
METHODS = ("lora", "full")
STEPS = 600  # long enough for all of that


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, HubStore]]:
    """The local Hub with the demo's model and dataset."""
    store = HubStore(tmp_path / "hub")
    assets.put_on_hub(tmp_path / "hub")
    with running(HubApp(store)) as url:
        yield url, store


@pytest.fixture
def made(tmp_path: Path, hub: tuple[str, HubStore]) -> Iterator[Fleet]:
    with fleet(tmp_path / "fleet", SCALE) as made:
        for name in ("one", "two"):
            made.add_worker(name, slots=2, fakes=False, light=False, HF_ENDPOINT=hub[0])
        made.wait_online("one", "two", timeout_s=120)
        yield made


def submit(client: Client, method: str, repo: str) -> str:
    train = {"method": method, "max_steps": STEPS, "save_every": 20, "learning_rate": 3e-3}
    spec = {
        "model": "demo/tiny-llama",
        "dataset": "demo/colours",
        "train": train,
        "resources": {"gpus": "0", "max_attempts": 100},
        "publish": {"repo": f"demo/{repo}"},
    }
    return client.submit(spec, secrets={"HF_TOKEN": assets.TOKEN})


def weights(made: Fleet, job: str) -> str:
    """Return the hash of a job's trained weights."""
    folder = made.root / "storage" / "jobs" / job / "model"
    (path,) = folder.glob("*.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_published_weights_are_those_of_an_unbroken_run(
    made: Fleet, hub: tuple[str, HubStore]
) -> None:
    number = seed()
    rng = random.Random(number)
    client = made.client(HF_ENDPOINT=hub[0])
    whole = {method: submit(client, method, f"whole-{method}") for method in METHODS}
    for job in whole.values():
        assert client.wait(job, timeout_s=300).state == "succeeded", client.get(job).error
    broken = {f"{m}-{n}": submit(client, m, f"broken-{m}-{n}") for m in METHODS for n in range(2)}
    storm = Storm(made, number)
    made.watch_file()
    planned = rng.sample(BREAKS, len(BREAKS))

    def open_jobs() -> list[str]:
        return [job for job in broken.values() if not client.get(job).state.terminal]

    wait_for(lambda: any(client.get(job).summary.get("step") for job in broken.values()), 120)
    while planned and open_jobs():
        fault = planned[-1]
        if said := fault(storm):
            planned.pop()
            storm.say(said)
        deadline = time.monotonic() + rng.uniform(2.0, 5.0)
        while time.monotonic() < deadline:
            storm.run_due(time.monotonic())
            time.sleep(0.1)
    assert not planned, f"the jobs ended before {planned}"
    for worker in made.workers.values():
        worker.wake()
        worker.start()
    wait_for(lambda: not open_jobs(), 600, lambda: [client.get(j) for j in open_jobs()], 0.5)
    print(f"seed {number}: {len(BREAKS) - len(planned)} faults in {len(broken)} trainings")
    again = 0
    for name, job in broken.items():
        record = client.get(job)
        again += record.attempt - 1
        assert record.state == "succeeded", (name, record.error)
        method = name.partition("-")[0]
        same = weights(made, job) == weights(made, whole[method])
        print(f"  {name}: {record.attempt} attempts, weights equal: {same}")
        assert same, name
        titles = [c.title for c in hub[1].files("model", f"demo/broken-{name}").history("main")]
        own = [title for title in titles if title.startswith(f"ftq {job}:")]
        assert len(own) == 1, titles
    assert again, "no training was broken"
