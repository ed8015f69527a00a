"""A fleet to be broken: a real broker, real workers on real proxies, and handles on all of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from ftq_client.client import Client
from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared.broker import connect
from ftq_shared.events import Event
from ftq_shared.lifetimes import LEASE_S
from ftq_shared.secrets import FleetKey
from ftq_shared.settings import load_settings
from tests.chaos.proxy import Proxy

FAKES = Path(__file__).parent / "fakes"
FAKE_HUB = "http://127.0.0.1:9"  # nothing listens there: fakes need no Hub
TMPFS_MB = 96  # above ending.DISK_MIN, so that it takes work while it is empty


def wait_for(
    condition: Callable[[], object],
    timeout_s: float,
    what: Callable[[], object] = lambda: "",
    every_s: float = 0.05,
) -> object:
    """Return the first true value of `condition`; raises AssertionError with what was seen."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(every_s)
    raise AssertionError(f"did not happen within {timeout_s} s; seen: {what()}")


MODULES = {  # of each process of a worker, as its command line names it
    "agent": "ftq_worker.agent.main",
    "celery": "ftq_worker.dispatch.celery_app",
    "zygote": "ftq_worker.child.zygote",
}


@dataclass
class Worker:
    """One worker: its process, its proxy, and where its parts are."""

    name: str
    home: Path
    storage: Path
    proxy: Proxy
    env: dict[str, str]
    slots: int
    process: "subprocess.Popen[bytes] | None" = None
    frozen: list[psutil.Process] = field(default_factory=list)

    def start(self) -> None:
        """Start it unless it runs; returns at once."""
        if self.alive:
            return
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ftq_client", "worker", "--name", self.name]
        with (self.home / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--slots", str(self.slots)],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def pid(self, part: str) -> int | None:
        """Return the process of a part: supervisor, or one of MODULES; None when it is down."""
        if not self.alive:
            return None
        assert self.process
        if part == "supervisor":
            return self.process.pid
        module = MODULES[part]
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if module in child.cmdline():
                        return child.pid
        return None

    def phases(self) -> list[int]:
        """Return the processes that run phases now."""
        if not (zygote := self.pid("zygote")):
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(zygote).children()]
        return []

    def freeze(self, part: str) -> bool:
        """SIGSTOP a part, or with `worker` the whole tree; False when there is nothing to stop."""
        pid = self.pid("supervisor" if part == "worker" else part)
        if not pid or self.frozen:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            self.frozen = [root, *(root.children(recursive=True) if part == "worker" else [])]
        _signal(self.frozen, signal.SIGSTOP)
        return True

    def wake(self) -> None:
        """SIGCONT what was stopped."""
        frozen, self.frozen = self.frozen, []
        _signal(frozen, signal.SIGCONT)

    def log_tail(self, lines: int = 15) -> str:
        path = self.home / "worker.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _signal(processes: list[psutil.Process], signum: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


@dataclass
class Fleet:
    """The broker and its workers."""

    root: Path
    broker: EmbeddedBroker
    scale: float
    workers: dict[str, Worker] = field(default_factory=dict)
    sizes: list[tuple[float, dict[Path, int]]] = field(default_factory=list)  # of its file
    started: float = field(default_factory=time.time)
    marker: str = ""  # in the environment of every process of the fleet
    settled: threading.Lock = field(default_factory=threading.Lock)  # the broker is not restarting

    @property
    def lease_s(self) -> float:

        return LEASE_S * self.scale

    def env(self, name: str, port: int | None = None, **extra: str) -> dict[str, str]:
        """Return the environment of one machine."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FTQ_", "HF_"))}
        url = self.broker.url
        if port:
            url = url.rpartition(":")[0] + f":{port}/0"
        return kept | {
            "FTQ_REDIS_URL": url,
            "FTQ_HOME": str(self.root / name),
            "FTQ_STORAGE": str(self.root / "storage"),
            "FTQ_FLEET_KEY": str(self.root / "fleet.key"),
            "HF_ENDPOINT": FAKE_HUB,
            "HF_HOME": str(self.root / "hf"),
            **extra,
        }

    def add_worker(
        self, name: str, *, slots: int = 4, fakes: bool = True, light: bool = True, **extra: str
    ) -> Worker:
        """Start a worker behind a proxy of its own; does not wait for it.

        `fakes`: its phases are made up; `light`: it never imports the training stack.
        """
        proxy = Proxy(("127.0.0.1", int((self.broker.directory / "port").read_text())))
        wanted = {"FTQ_CHAOS_FAKES": fakes, "FTQ_CHAOS_LIGHT": light}
        env = self.env(name, proxy.port) | {
            "PYTHONPATH": str(FAKES),
            "FTQ_CHAOS_SCALE": str(self.scale),
            "FTQ_CHAOS_RUN": self.marker,
            "FTQ_CHAOS_ROOT": str(self.root),
            **{name: "1" for name, on in wanted.items() if on},
            **extra,
        }
        storage = Path(env["FTQ_STORAGE"])
        worker = Worker(name, self.root / name, storage, proxy, env, slots)
        self.workers[name] = worker
        worker.start()
        return worker

    def client(self, **extra: str) -> Client:
        return Client(load_settings(self.env("client", **extra)))

    def wait_online(self, *names: str, timeout_s: float = 60.0) -> None:
        client = self.client()
        wait_for(
            lambda: {h.name for h in client.workers() if h.online and h.warm} >= set(names),
            timeout_s,
            lambda: [self.workers[name].log_tail() for name in names],
        )

    def restart_broker(self, *, down_s: float = 0.0, lost_s: float = 0.0) -> float:
        """SIGKILL the broker and start it again; it has lost its last `lost_s` seconds.

        Returns the monotonic time up to which it remembers. Its file is only ever appended to, so
        what it held a second ago is a prefix of it.
        """
        with self.settled:
            assert self.broker.process
            self.broker.process.kill()
            self.broker.process.wait()
            remembers = time.monotonic()
            if lost_s:
                remembers, sizes = self._sizes_before(remembers - lost_s)
                for path, size in sizes.items():
                    os.truncate(path, size)
            self.sizes.clear()  # the file may be shorter now
            time.sleep(down_s)
            self.broker.launch()
            self._no_rewrite()
            return remembers

    def watch_file(self) -> None:
        """Note again and again how long the broker's file is."""
        self._no_rewrite()

        def watch() -> None:
            while self.broker.process:
                with self.settled:
                    self.sizes.append(self._sizes_now())
                    del self.sizes[:-40]
                time.sleep(0.1)

        threading.Thread(target=watch, daemon=True).start()

    def _no_rewrite(self) -> None:
        redis = connect(self.broker.url)
        redis.config_set("auto-aof-rewrite-percentage", 0)
        redis.close()

    def _sizes_now(self) -> tuple[float, dict[Path, int]]:
        files = (self.broker.directory / "appendonlydir").glob("*.incr.aof")
        return time.monotonic(), {path: path.stat().st_size for path in files}

    def _sizes_before(self, when: float) -> tuple[float, dict[Path, int]]:
        """Return the newest note that is as old; at least as old as there are."""
        older = [entry for entry in self.sizes if entry[0] <= when]
        return (older[-1:] or self.sizes[:1] or [self._sizes_now()])[0]

    def left_over(self) -> list[str]:
        """Return the processes of the fleet that still run, each with its command."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                if self._is_ours(process):
                    found.append(f"{process.pid} {' '.join(process.cmdline())} {process.status()}")
        return found

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get("FTQ_CHAOS_RUN") == self.marker)
        except psutil.AccessDenied:  # an agent hides its memory, also from its own user
            late = process.create_time() > self.started
            return late and any("ftq_worker" in word for word in process.cmdline())
        except OSError:
            return False

    def stop_workers(self, timeout_s: float = 60.0) -> dict[str, int]:
        """Drain all workers at once; return their exit codes."""
        for worker in self.workers.values():
            worker.wake()
            worker.proxy.cut.clear()
            if worker.alive:
                assert worker.process
                worker.process.terminate()
        codes = {}
        for name, worker in self.workers.items():
            if worker.process:
                codes[name] = worker.process.wait(timeout_s)
        return codes


@contextlib.contextmanager
def fleet(root: Path, scale: float) -> Iterator[Fleet]:
    """A broker; workers are added. Whatever happens, nothing is left running."""
    root.mkdir(parents=True, exist_ok=True)
    FleetKey.generate().save(root / "fleet.key")
    with EmbeddedBroker(root / "broker") as broker:
        made = Fleet(root, broker, scale, marker=f"{os.getpid()}-{time.monotonic_ns()}")
        try:
            yield made
        finally:
            for worker in made.workers.values():
                worker.wake()
                if worker.alive:
                    assert worker.process
                    with contextlib.suppress(psutil.NoSuchProcess):
                        tree = psutil.Process(worker.process.pid)
                        _signal([*tree.children(recursive=True), tree], signal.SIGKILL)
                    worker.process.wait()
                worker.proxy.close()


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path | None]:
    """A tmpfs of a few MB at `path`; None where this user may not mount."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "ftq-chaos", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield path if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(path)], capture_output=True)


def claimed(events: Iterable[Event]) -> list[float]:
    """Return when a job's phases were claimed, by the broker's clock, as monotonic times."""
    offset = time.time() - time.monotonic()
    return [
        datetime.fromisoformat(event.time).timestamp() - offset
        for event in events
        if event.type == "state" and event.data["state"] == "running"
    ]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a file, without one that is just being written; none for no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def journal(root: Path, job: str) -> list[dict[str, Any]]:
    """Return what the processes of a job's fake phases really did, oldest first."""
    return read_lines(root / "journals" / f"{job}.jsonl")
