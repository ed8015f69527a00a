"""A whole fleet for the end-to-end tests: Valkey, the local Hub, a worker, and the real command."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from huggingface_hub import close_session

from ftq_client.client import Client
from ftq_client.local.valkey import EmbeddedBroker
from ftq_hub import HubApp, HubStore, Tls, running
from ftq_shared.secrets import FleetKey
from ftq_shared.settings import load_settings
from ftq_worker.demo import assets
from tests.support.warm_command import WarmCommand

WRITER, READER = "hf_writerWriterWriterWriter", "hf_readerReaderReaderReader"
# A tiny training that still learns something: a few seconds on two cores. Without a card the memory
# of one is not counted, which would take as long again.
QUICK = (
    "--gpus",
    "0",
    "--set",
    "train.method=full",
    "--set",
    "train.learning_rate=3e-3",
    "--set",
    "train.max_steps=20",
)


@dataclass
class Hub:
    """The local Hub of the run."""

    url: str
    store: HubStore
    app: HubApp


@dataclass
class Fleet:
    """A broker with workers, and the command as a person types it."""

    broker: EmbeddedBroker
    hub: Hub
    command: WarmCommand
    root: Path
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def env(self, home: str = "client", **extra: str) -> dict[str, str]:
        """Return the environment of one machine; machines share broker and Hub, nothing else."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FTQ_", "HF_"))}
        return kept | {
            "FTQ_REDIS_URL": self.broker.url,
            "FTQ_HOME": str(self.root / home),
            "FTQ_FLEET_KEY": str(self.root / "fleet.key"),
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.root / home / "hf"),
            "HF_TOKEN": WRITER,
            **extra,
        }

    def client(self) -> Client:
        """Return the SDK, as the client machine."""
        return Client(load_settings(self.env()))

    def start_worker(self, name: str, **extra: str) -> "subprocess.Popen[bytes]":
        """Start a worker with a home of its own and wait until it is online."""
        with (self.root / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ftq_client", "worker", "--name", name, "--slots", "2"],
                env=self.env(home=name, **extra),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(process)
        client = self.client()
        wait_for(
            lambda: any(h.name == name and h.online for h in client.workers()),
            what=lambda: (self.root / f"{name}.log").read_text()[-2000:],
        )
        return process

    def stop_worker(self, process: "subprocess.Popen[bytes]") -> None:
        """Stop a worker in order."""
        process.terminate()
        process.wait(60)

    def run(
        self, *args: str, env: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run `ftq ...` to its end, without a terminal."""
        return self.command.run(*args, env=env or self.env(), stdin=stdin or "")

    def submit(self, *args: str, quick: bool = True, **extra: str) -> "Finished":
        """Submit a job, follow it as JSON, and return how it ended."""
        done = self.run("submit", *args, *(QUICK if quick else ()), "--json", env=self.env(**extra))
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return Finished(done.returncode, events, done.stderr)

    def detach(self, *args: str) -> str:
        """Submit a job and return its id."""
        done = self.run("submit", *args, "--detach", "--json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["job"])


@dataclass
class Finished:
    """A followed job."""

    code: int
    events: list[dict[str, Any]]
    stderr: str

    @property
    def job(self) -> str:
        return str(self.events[0]["job"])

    def data(self, type_: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events if event["type"] == type_]

    def error(self) -> dict[str, Any]:
        errors = self.data("error")
        assert errors, [(e["type"], e["data"]) for e in self.events[-5:]] + [self.stderr]
        return errors[-1]


def wait_for(
    condition: Callable[[], Any], *, timeout_s: float = 60.0, what: Callable[[], Any] = lambda: ""
) -> Any:
    """Return the first true value of `condition`; fail with what was seen instead."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail(f"did not happen within {timeout_s} s; seen: {what()}")


@pytest.fixture(scope="session", autouse=True)
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    """A server's certificate, whose CA this process and all that it starts trust.

    Every Hub here speaks https, as the real one does: huggingface_hub reads some answers another
    way over http.
    """
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    made = ca.issue_cert("127.0.0.1", "localhost")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    made.private_key_pem.write_to_path(folder / "key.pem")
    for blob in made.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        close_session()  # a client that was made before knows another CA
        yield Tls(folder / "cert.pem", folder / "key.pem")
        close_session()


@pytest.fixture(scope="session")
def local_hub(tmp_path_factory: pytest.TempPathFactory, tls: Tls) -> Iterator[Hub]:
    """A Hub with the demo's model and dataset, a writer and a reader."""
    folder = tmp_path_factory.mktemp("hub")
    _put_demo(tmp_path_factory, folder)
    store = HubStore(folder)
    store.add_token(WRITER, "me", role="write", orgs=["team"])
    store.add_token(READER, "guest", role="read")
    app = HubApp(store)
    with running(app, tls=tls) as url:
        yield Hub(url, store, app)


def _put_demo(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> None:
    """Put the demo's repos into a Hub's folder; whoever comes first trains their model."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made = shared / "demo-hub"
    with (shared / "demo-hub.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            part = shared / "demo-hub.part"
            assets.put_on_hub(part)
            part.rename(made)
    shutil.copytree(made, folder, dirs_exist_ok=True, symlinks=True)


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory, tls: Tls) -> Iterator[WarmCommand]:
    """The `ftq` of all fleets of the run."""
    with WarmCommand(tmp_path_factory.mktemp("command") / "socket") as command:
        yield command


@pytest.fixture(scope="session")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, local_hub: Hub, command: WarmCommand
) -> Iterator[Fleet]:
    """One worker on a broker of its own, for the whole run."""
    root = tmp_path_factory.mktemp("fleet")
    FleetKey.generate().save(root / "fleet.key")
    with EmbeddedBroker(root / "broker") as broker:
        fleet = Fleet(broker, local_hub, command, root)
        try:
            fleet.start_worker("first")
            yield fleet
        finally:
            for process in fleet.workers:
                if process.poll() is None:
                    fleet.stop_worker(process)


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """A fault that a test asked of the Hub does not outlive it."""
    yield
    if "local_hub" in request.fixturenames or "fleet" in request.fixturenames:
        hub: Hub = request.getfixturevalue("local_hub")
        hub.app.faults.clear()
