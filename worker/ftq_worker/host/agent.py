"""The agent: claims phases, keeps their leases, moves their events, stops them.

    python -m ftq_worker.host.agent        (started by the guard)

No torch and no Celery in this process: it must live when those do not. One thread per job it runs;
the others are named for what they do: beat, renew, look, repair, control, socket.
"""

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ftq_shared import __version__, keys
from ftq_shared.broker import connect, translated
from ftq_shared.errors import BrokerUnreachable, ErrorInfo, FtqError
from ftq_shared.hosts import HostStore
from ftq_shared.job_record import RECORD_VERSION, JobRecord
from ftq_shared.keys import BEAT_S, HOST_LOST_S, RENEW_S
from ftq_shared.paths import JobPaths, open_storage, read_json
from ftq_shared.secrets import FleetKey, open_box
from ftq_shared.settings import Settings
from ftq_shared.states import TERMINAL, JobState, Phase
from ftq_shared.store import JobStore, Lease
from ftq_worker.host.children import ColdSpawn, ZygoteSpawn
from ftq_worker.host.config import HostConfig
from ftq_worker.host.ending import DISK_MIN
from ftq_worker.host.family import Orphans, note
from ftq_worker.host.inputs import fetch_inputs
from ftq_worker.host.leases import LeaseKeeper, Reaper
from ftq_worker.host.linux import end_with_parent, hide_memory
from ftq_worker.host.log import setup_logging
from ftq_worker.host.outbox import send_rest
from ftq_worker.host.process import UNCLEAN
from ftq_worker.host.pulse import touch
from ftq_worker.host.relay import send_folder
from ftq_worker.host.run import Bench, PhaseRun
from ftq_worker.host.wire import lines, listen, to_line
from ftq_worker.phase import StopReason

log = logging.getLogger("ftq.agent")

REPAIR_S = 5.0  # between two looks at what messages may have missed
HOSTS_PER_LOOK_S = 4  # hosts that share a second's look at the leases
DRAIN_GRACE_S = 60.0  # for checkpoints, when the host goes down


class Agent:
    """The owner of everything that runs on this host."""

    def __init__(self, config: HostConfig, settings: Settings, guard: int) -> None:
        self.config, self.settings = config, settings
        self._orphans = Orphans(guard, Path(config.run_dir))
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
        self._known_hosts = 1
        self._full = False  # whether the storage has no room
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
            instance=self.config.instance,
            storage_id=self.config.storage_id,
            open_secrets=self._open_secrets,
            fetch_inputs=lambda record, paths: fetch_inputs(binary, record, paths),
            note_children=self._note_children,
            end_orphans=lambda: self._orphans.end(self._children()),
        )

    def _children(self) -> list[int]:
        """Return the processes of all phases that run here."""
        with self._lock:
            runs = list(self.runs.values())
        return [pid for run in runs for pid in run.pids()]

    def _note_children(self) -> None:
        """Write down what runs, for a guard that comes after ours."""
        note(self.config.phases, self._children())

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

    def serve(self) -> bool:
        """Run until SIGTERM, then hand everything back; return whether that worked."""
        server = listen(self.config.agent_socket)
        touch(self.config.agent_pulse)
        self._beat()
        self._release_predecessor()
        for name, work in (
            ("beat", lambda: self._every(lambda: BEAT_S, self._beat)),
            ("renew", self._renew_loop),
            ("look", lambda: self._every(self._look_s, self._look)),
            ("repair", lambda: self._every(lambda: REPAIR_S, self._repair)),
            ("control", self._control_loop),
            ("socket", lambda: self._accept_loop(server)),
        ):
            threading.Thread(target=work, name=name, daemon=True).start()
        log.info("worker %s is online", self.config.name, extra={"action": "online"})
        self.stopping.wait()
        return self._hand_back()

    def _hand_back(self) -> bool:
        """Stop the runs so that they can go on elsewhere, and leave the fleet."""
        for run in list(self.runs.values()):
            run.stop(StopReason.DRAIN, DRAIN_GRACE_S)
        self._once(self._beat)  # says that we are draining
        deadline = time.monotonic() + DRAIN_GRACE_S + 15
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        self.ring()
        self._once(lambda: self.hosts.leave(self.config.name, self.config.instance))
        if left := sorted(self.runs):
            log.error("not handed back: %s; their leases run out", ", ".join(left))
        return not left

    def _release_predecessor(self) -> None:
        """Give back what a dead agent of this host has left: the guard has ended its children.

        What that agent wrote down but could not send any more is sent first.
        """
        mine = {self.config.instance, self.config.replaces} - {""}
        for record in self.store.leased():
            if record.host != self.config.name or record.instance not in mine:
                continue
            events = JobPaths(self._bench.storage, record.id).events(record.claim)
            send_rest(self.store, record.id, record.token, events)
            self.store.requeue(record.id, record.token, "the host's agent died", burn=True)
        self.ring()

    def _every(self, seconds: Callable[[], float], work: Callable[[], None]) -> None:
        """Repeat `work`; an outage of the broker is waited out."""
        while not self.stopping.wait(seconds()):
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
        self._full = shutil.disk_usage(self._bench.storage).free < DISK_MIN
        fields = {
            "slots": str(config.slots),
            "gpus": [vars(gpu) for gpu in config.gpus],
            "storage_id": config.storage_id,
            "draining": "1" if self.stopping.is_set() else "0",
            "full": "1" if self._full else "0",
            "version": __version__,
            "record_version": str(RECORD_VERSION),
            "endpoint": self.settings.hf_endpoint,
            "running": sorted(self.runs),
            "broker": self.store.server().run_id,
            "warm": "1" if config.cold or config.zygote_socket.exists() else "0",
        }
        if self.hosts.beat(config.name, config.instance, config.replaces, fields):
            self.stopping.set()

    def _renew_loop(self) -> None:
        """Renew all leases every RENEW_S, at once when there is a cancel; also while draining."""
        while True:
            touch(self.config.agent_pulse)
            self._hurry.wait(RENEW_S)
            self._hurry.clear()
            with self._lock:
                runs = dict(self.runs)
            self._once(partial(self.keeper.renew, runs))
            if any(run.lost for run in runs.values()):
                self._once(self._beat)  # the fleet may wait to hear that it does not run here

    def _look_s(self) -> float:
        """Return the time between two looks at the leases.

        A fleet looks once in a quarter of a second together, a host at least every 5 s: then a
        lost host is noticed soon after its lease, and the broker has little to do.
        """
        return min(5.0, max(1.0, self._known_hosts / HOSTS_PER_LOOK_S))

    def _look(self) -> None:
        """Take leases of silent owners, and places whose message was lost."""
        leases = self.store.leases()
        if self.reaper.look(leases):
            self.ring()
        self._take_placed(leases)

    def _take_placed(self, leases: list[Lease]) -> None:
        for lease in leases:
            if lease.state is JobState.PLACED and lease.instance == self.config.instance:
                self.take(lease.id, lease.token)

    def _repair(self) -> None:
        """Ask for a dispatch pass if somebody waits, and clear up after hosts that are gone."""
        self._known_hosts = len(self.hosts.all())
        self.hosts.forget_old_queues()
        if self.store.queued(0, 0):
            self.ring()

    def _obey(self, message: dict[str, Any]) -> None:
        """Act on what was said to all agents."""
        if message.get("drain") == self.config.name:
            self._beat()  # only who may write our record may drain us
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
                # Messages may have been lost with a Celery worker that died, and rings with an
                # agent that did.
                self._once(lambda: self._take_placed(self.store.leases()))
                self.ring()
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
            running = self.runs.get(job)
        if running:
            if running.token == token:  # the broker lost the claim
                running.claim_again()
            return False  # what we still hold under an old token has to end first
        if self.stopping.is_set() or self._full:
            why = "is going down" if self.stopping.is_set() else "has no room on its disk"
            self.store.requeue(job, token, f"{self.config.name} {why}", burn=False)
            return False
        if self._may_run_elsewhere(job):
            return False  # the next look tries again
        nonce, asked = secrets.token_hex(8), time.monotonic()
        answer = self.store.claim(
            job,
            token,
            nonce=nonce,
            instance=self.config.instance,
            storage_id=self.config.storage_id,
        )
        if answer != "ok":
            return False
        record = self.store.get(job)
        if record.token != token:  # it was lost again at once
            return False
        run = PhaseRun(self._bench, record, nonce, asked)
        thread = threading.Thread(target=self._work, args=(run, record), name=job, daemon=True)
        with self._lock:
            if job in self.runs:
                return False
            self.runs[job] = run
            self._threads.append(thread)
        thread.start()
        if self.stopping.is_set():  # it came while we were handing back
            run.stop(StopReason.DRAIN, DRAIN_GRACE_S)
        return True

    def _may_run_elsewhere(self, job: str) -> bool:
        """Return whether a broker that has just started may have forgotten a later owner."""
        server = self.store.server()
        if server.uptime_s > HOST_LOST_S:
            return False
        others = [host for host in self.hosts.all() if host.name != self.config.name]
        held = self.hosts.held_after_restart(server, others)
        return held is None or job in held

    def _work(self, run: PhaseRun, record: JobRecord) -> None:
        """Carry a run to its end, then look for more work."""
        try:
            if not self._start_over(run, record) and not self._ended_before(run, record):
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

    def _ended_before(self, run: PhaseRun, record: JobRecord) -> bool:
        """End a job whose result is in the storage: the record has gone back in time."""
        result = read_result(JobPaths(self._bench.storage, run.job).result)
        if not result or result.get("round") != record.round:
            return False
        log.warning("%s had ended already: %s", run.job, result["state"])
        error = ErrorInfo.from_json(result["error"]) if result.get("error") else None
        self.store.finish(run.job, run.token, result["state"], error=error)
        return True


def read_result(path: Path) -> dict[str, Any]:
    """Return what an earlier owner wrote at a job's end; empty when there is nothing to believe."""
    try:
        result = read_json(path)
    except ValueError as error:
        log.warning("%s is damaged and not believed: %s", path, error)
        return {}
    known = isinstance(result, dict) and result.get("state") in TERMINAL
    return dict(result) if known else {}


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
    agent = Agent(config, settings, int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: agent.stopping.set())
    sys.exit(0 if agent.serve() else UNCLEAN)


if __name__ == "__main__":
    main()
