"""A broker, a local Hub and one worker for a benchmark, on nothing but loopback."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ftq_client.client import Client
from ftq_client.local.valkey import EmbeddedBroker
from ftq_hub import HubApp, HubStore, running
from ftq_shared.secrets import FleetKey
from ftq_shared.settings import load_settings
from ftq_worker.demo import assets


@dataclass
class Fleet:
    """What a benchmark talks to."""

    root: Path
    env: dict[str, str]

    def ftq(self, *args: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run the command as a person would.

        Raises RuntimeError with what it said last when it ends with another code.
        """
        done = subprocess.run(
            [sys.executable, "-m", "ftq_client", *args],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != code:
            last = [*done.stdout.splitlines()[-3:], *done.stderr.splitlines()[-3:]]
            raise RuntimeError("\n".join([f"exit code {done.returncode}", *last]))
        return done

    def client(self) -> Client:
        """Return the SDK."""
        return Client(load_settings(self.env))


@contextlib.contextmanager
def fleet(slots: int = 2) -> Iterator[Fleet]:
    """Start everything, wait until the zygote is warm, and stop everything at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="ftq-bench-") as folder,
        contextlib.ExitStack() as stack,
    ):
        root = Path(folder)
        assets.put_on_hub(root / "hub")
        url = stack.enter_context(running(HubApp(HubStore(root / "hub"))))
        broker = stack.enter_context(EmbeddedBroker(root / "broker"))
        FleetKey.generate().save(root / "fleet.key")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("FTQ_", "HF_"))} | {
            "FTQ_REDIS_URL": broker.url,
            "FTQ_HOME": folder,
            "FTQ_FLEET_KEY": str(root / "fleet.key"),
            "HF_ENDPOINT": url,
            "HF_HOME": str(root / "hf"),
            "HF_TOKEN": assets.TOKEN,
        }
        command = [sys.executable, "-m", "ftq_client", "worker", "--slots", str(slots)]
        with (root / "worker.log").open("wb") as log:
            worker = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        stack.callback(_stop, worker)
        made = Fleet(root, env)
        while not made.client().online():
            if worker.poll() is not None:
                raise RuntimeError((root / "worker.log").read_text())
            time.sleep(0.1)
        yield made


def _stop(worker: "subprocess.Popen[bytes]") -> None:
    worker.terminate()
    worker.wait(120)
