"""The agent: claims phases, keeps their leases, moves their events, stops them.

    python -m ftq_worker.host.agent        (started by the guard)

No torch and no Celery in this process: it must live when those do not. One thread per job it runs;
the others are named for what they do: beat, renew, repair, control, socket.
"""

import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ftq_shared import __version__, keys
from ftq_shared.broker import connect, translated
from ftq_shared.errors import BrokerUnreachable, FtqError
from ftq_shared.hosts import HostStore
from ftq_shared.job_record import JobRecord
from ftq_shared.keys import BEAT_S, RENEW_S
from ftq_shared.paths import JobPaths, open_storage
from ftq_shared.secrets import FleetKey, open_box
from ftq_shared.settings import Settings
from ftq_shared.states import JobState, Phase
from ftq_shared.store import JobStore
from ftq_worker.host.children import ColdSpawn, ZygoteSpawn
from ftq_worker.host.config import HostConfig
from ftq_worker.host.inputs import fetch_inputs
from ftq_worker.host.leases import LeaseKeeper, Reaper
from ftq_worker.host.linux import end_with_parent, hide_memory
from ftq_worker.host.log import setup_logging
from ftq_worker.host.relay import send_folder
from ftq_worker.host.run import Bench, PhaseRun
from ftq_worker.host.wire import lines, listen, to_line
from ftq_worker.phase import StopReason

log = logging.getLogger("ftq.agent")

REPAIR_S = 5.0  # between two looks at what messages may have missed
DRAIN_GRACE_S = 60.0  # for checkpoints, when the host goes down


class Agent:
    """The owner of everything that runs on this host."""

    def __init__(self, config: HostConfig, settings: Settings) -> None:
        self.config, self.settings = config, settings
        redis = connect(settings.redis_url)
        self.store, self.hosts = JobStore(redis), HostStore(redis)
        # The keeper may not hang in retries: a renewal that is late is worth less than the next.
        self.keeper = LeaseKeeper(JobStore(connect(settings.redis_url, retries=0)))
        self.reaper = Reaper(self.store)
        self.fleet = FleetKey.load(settings.fleet_key_file)
        self.runs: dict[str, PhaseRun] = {}
        self.stopping = threading.Event()
        self._hurry = threading.Event()  # renew now: somebody cancelled
        self._threads: list[threading.Thread] = []
        self._bells: list[socket.socket] = []
        self._lock = threading.Lock()
        self._bench = self._make_bench()  # also makes _binary

    def _make_bench(self) -> Bench:
        """Collect what every run uses."""
        self._binary = binary = connect(self.settings.redis_url, binary=True)
        root, _ = open_storage(self.config.storage)
        cold = self.config.cold
        return Bench(
            store=self.store,
            spawn=ColdSpawn() if cold else ZygoteSpawn(self.config.zygote_socket),
            host=self.config.name,
            storage=root,
            endpoint=self.settings.hf_endpoint,
            warm=not cold,
            cpu_threads=usable_cores(),
            open_secrets=self._open_secrets,
            fetch_inputs=lambda record, paths: fetch_inputs(binary, record, paths),
        )

    def _open_secrets(self, record: JobRecord) -> dict[str, str]:
        """Open the job's box; {} when it has none. Raises Refused."""
        box = self.store.sealed_secrets(record.id)
        if not box:
            return {}
        return open_box(
            self.fleet,
            box,
            job=record.id,
            spec_sha256=record.spec.sha256(),
            endpoint=self.settings.hf_endpoint,
        )

    # -- start and end

    def serve(self) -> None:
        """Run until SIGTERM, then hand everything back."""
        server = listen(self.config.agent_socket)
        self._beat()
        self._release_predecessor()
        for name, work in (
            ("beat", lambda: self._every(BEAT_S, self._beat)),
            ("renew", self._renew_loop),
            ("repair", lambda: self._every(REPAIR_S, self._repair)),
            ("control", self._control_loop),
            ("socket", lambda: self._accept_loop(server)),
        ):
            threading.Thread(target=work, name=name, daemon=True).start()
        log.info("worker %s is online", self.config.name, extra={"action": "online"})
        self.stopping.wait()
        self._hand_back()

    def _hand_back(self) -> None:
        """Stop the runs so that they can go on elsewhere, and leave the fleet."""
        for run in list(self.runs.values()):
            run.stop(StopReason.DRAIN, DRAIN_GRACE_S)
        self._once(self._beat)  # says that we are draining
        for thread in list(self._threads):
            thread.join(DRAIN_GRACE_S + 15)
        self.ring()
        self._once(lambda: self.hosts.leave(self.config.name, self.config.instance))

    def _release_predecessor(self) -> None:
        """Give back what a dead agent of this host has left.

        Its children are dead: each kills itself when the agent's end of its pipe closes.
        """
        mine = {self.config.instance, self.config.replaces} - {""}
        for record in self.store.leased():
            if record.host == self.config.name and record.instance in mine:
                self.store.requeue(record.id, record.token, "the host's agent died", burn=True)
        self.ring()

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        """Repeat `work`; an outage of the broker is waited out."""
        while not self.stopping.wait(seconds):
            self._once(work)

    def _once(self, work: Callable[[], None]) -> None:
        """Do a piece of a thread's work; whatever it raises, the thread goes on."""
        name = threading.current_thread().name
        try:
            with translated():
                work()
        except BrokerUnreachable as error:
            log.warning("%s: %s", name, error)
            self.reaper.forget()
        except FtqError as error:
            log.error("%s: %s", name, error)
        except Exception:  # a thread that dies in silence would let every lease run out
            log.exception("%s", name, extra={"action": "thread_failed"})

    # -- what the threads do

    def _beat(self) -> None:
        """Say that the host lives, and what it offers."""
        config = self.config
        fields = {
            "slots": str(config.slots),
            "gpus": [vars(gpu) for gpu in config.gpus],
            "storage_id": config.storage_id,
            "draining": "1" if self.stopping.is_set() else "0",
            "version": __version__,
            "endpoint": self.settings.hf_endpoint,
            "running": sorted(self.runs),
            "warm": "1" if config.cold or config.zygote_socket.exists() else "0",
        }
        if self.hosts.beat(config.name, config.instance, config.replaces, fields):
            self.stopping.set()

    def _renew_loop(self) -> None:
        """Renew all leases every RENEW_S, at once when there is a cancel; also while draining."""
        while True:
            self._hurry.wait(RENEW_S)
            self._hurry.clear()
            with self._lock:
                runs = dict(self.runs)
            self._once(partial(self.keeper.renew, runs))

    def _repair(self) -> None:
        """Look for what messages may have missed: silent owners, lost doorbells, a queue."""
        leased = self.store.leased()
        self.reaper.look(leased)
        for record in leased:
            if record.state is JobState.PLACED and record.instance == self.config.instance:
                self.take(record.id, record.token)
        self.hosts.forget_old_queues()
        if self.store.queued(0, 0):
            self.ring()

    def _obey(self, message: dict[str, Any]) -> None:
        """Act on what was said to all agents."""
        if message.get("cancel") in self.runs:
            self._hurry.set()
        wanted = message.get("storage_id") == self.config.storage_id
        if wanted and keys.is_job_id(str(message.get("fetch"))):
            threading.Thread(target=self._send_folder, args=(message,), daemon=True).start()

    def _send_folder(self, message: dict[str, Any]) -> None:
        """Answer a client that wants a job's model and shares no storage with us."""
        with translated():
            send_folder(self._binary, JobPaths(self._bench.storage, message["fetch"]), message)

    def _control_loop(self) -> None:
        """Hear of cancels at once; one that is missed is seen at the next renewal."""
        pubsub: Any = connect(self.settings.redis_url).pubsub()  # type: ignore[no-untyped-call]
        while not self.stopping.is_set():
            try:
                if not pubsub.subscribed:
                    pubsub.subscribe(keys.CONTROL)
                message = pubsub.get_message(timeout=1.0)
                if message and message["type"] == "message":
                    self._obey(json.loads(message["data"]))
            except Exception as error:  # an outage, or a message that is not ours
                log.info("control: %s", error)
                self.stopping.wait(1.0)

    def _accept_loop(self, server: socket.socket) -> None:
        """Take doorbells from the Celery worker of this host."""
        while True:
            connection, _ = server.accept()
            threading.Thread(target=self._listen_to, args=(connection,), daemon=True).start()

    def _listen_to(self, connection: socket.socket) -> None:
        """Serve one connection: {"run": job, "token"}, or {"bells": true} to get rings."""
        for message in lines(connection):
            if message.get("bells"):
                with self._lock:
                    self._bells.append(connection)
            elif "run" in message:
                connection.sendall(to_line({"taken": self.take(message["run"], message["token"])}))

    def ring(self) -> None:
        """Ask the Celery worker for a dispatch pass; without one, the next repair asks again."""
        with self._lock:
            bells = list(self._bells)
        for connection in bells:
            try:
                connection.send(to_line({"ring": True}), socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue  # it has not taken the last bell yet: that one will do
            except OSError:
                with self._lock:
                    self._bells.remove(connection)

    def take(self, job: str, token: str) -> bool:
        """Claim a phase that was placed here and start it; False when it is not to be had."""
        with self._lock:
            if job in self.runs or self.stopping.is_set():
                return False
        answer = self.store.claim(
            job,
            token,
            nonce=secrets.token_hex(8),
            instance=self.config.instance,
            storage_id=self.config.storage_id,
        )
        if answer != "ok":
            return False
        record = self.store.get(job)
        run = PhaseRun(self._bench, record)
        thread = threading.Thread(target=self._work, args=(run, record), name=job, daemon=True)
        with self._lock:
            self.runs[job] = run
            self._threads.append(thread)
        thread.start()
        if self.stopping.is_set():  # it came while we were handing back
            run.stop(StopReason.DRAIN, DRAIN_GRACE_S)
        return True

    def _work(self, run: PhaseRun, record: JobRecord) -> None:
        """Carry a run to its end, then look for more work."""
        try:
            if not self._start_over(run, record):
                run.work()
        except Exception:  # the lease runs out, and somebody else takes the job
            log.exception("run of %s", run.job, extra={"action": "run_failed", "job": run.job})
        finally:
            self._done(run)

    def _done(self, run: PhaseRun) -> None:
        """Forget a run and ask for a dispatch pass."""
        with self._lock:
            if self.runs.get(run.job) is run:
                del self.runs[run.job]
            self._threads = [t for t in self._threads if t is not threading.current_thread()]
        self.ring()

    def _start_over(self, run: PhaseRun, record: JobRecord) -> bool:
        """Send a job whose files are not in this storage back to its first phase."""
        marker = JobPaths(self._bench.storage, run.job).marker
        if record.phase is Phase.VALIDATE or marker.exists():
            return False
        reason = f"its files are not in the storage of {self.config.name}; it starts over"
        self.store.requeue(run.job, run.token, reason, burn=False, phase=Phase.VALIDATE)
        return True


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main() -> None:
    """Start the agent that the guard described."""
    end_with_parent(int(sys.argv[1]))
    hide_memory()
    setup_logging("agent")
    config, settings = HostConfig.from_env()
    agent = Agent(config, settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: agent.stopping.set())
    agent.serve()


if __name__ == "__main__":
    main()
