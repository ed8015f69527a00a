"""The agent: claims phases, keeps their leases, moves their events, stops them.

    python -m ftq_worker.agent.main        (started by the guard)

No torch and no Celery in this process: it must live when those do not. One thread per job it runs;
the others are named for what they do: beat, renew, look, repair, control, bells.
"""

import json
import logging
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError, ResponseError

from ftq_shared import __version__, keys
from ftq_shared.broker import connect, translated
from ftq_shared.errors import BrokerUnreachable, FtqError
from ftq_shared.hosts import HostStore
from ftq_shared.job_record import RECORD_VERSION, JobRecord
from ftq_shared.keys import BEAT_S, RENEW_S
from ftq_shared.paths import JobPaths, open_storage
from ftq_shared.secrets import FleetKey, open_box
from ftq_shared.settings import Settings
from ftq_shared.signals import Wakeup
from ftq_shared.states import JobState
from ftq_shared.store import JobStore, Lease
from ftq_worker.agent.child import ColdSpawn, ZygoteSpawn
from ftq_worker.agent.inputs import fetch_inputs
from ftq_worker.agent.leases import LeaseKeeper, Reaper
from ftq_worker.agent.listener import Bells
from ftq_worker.agent.model_relay import send_folder
from ftq_worker.agent.outbox import send_rest
from ftq_worker.agent.runs import Roster
from ftq_worker.agent.services import Bench
from ftq_worker.host.config import HostConfig
from ftq_worker.host.ending import DISK_MIN
from ftq_worker.host.heartbeat import touch
from ftq_worker.host.linux import end_with_parent, hide_memory, usable_cores
from ftq_worker.host.log import setup_logging
from ftq_worker.host.process_tree import Orphans, note
from ftq_worker.supervisor.process import UNCLEAN

log = logging.getLogger("ftq.agent")

REPAIR_S = 5.0  # between two looks at what messages may have missed
LOOK_UP_S = 0.5  # between two looks whether a heartbeat has brought a drain
HOSTS_PER_LOOK_S = 4  # hosts that share a second's look at the leases


class Agent:
    """The owner of everything that runs on this host."""

    def __init__(self, config: HostConfig, settings: Settings, guard: int) -> None:
        self.config, self.settings = config, settings
        self._orphans = Orphans(guard, Path(config.run_dir))
        redis = connect(settings.redis_url)
        self.store, self.hosts = JobStore(redis), HostStore(redis)
        # The keeper may not hang in retries: a renewal that is late is worth less than the next.
        self.keeper = LeaseKeeper(JobStore(connect(settings.redis_url, retries=0)))
        self.reaper = Reaper(self.store, config.storage_id, self._send_rest)
        self.fleet = FleetKey.load(settings.fleet_key_file)
        self.stopping = threading.Event()
        self._hurry = threading.Event()  # renew now: somebody cancelled
        self._beat_now = threading.Event()  # the fleet should hear at once what changed here
        self._left = threading.Event()  # no heartbeat may bring our record back
        self._known_hosts = 1
        self._bench = self._make_bench()  # also makes _binary
        self.roster = Roster(self._bench, self.hosts, on_end=self.ring)
        self.bells: Bells | None = None  # once we listen

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
            note_children=lambda: note(self.config.phases, self.roster.pids()),
            end_orphans=lambda: self._orphans.end(self.roster.pids()),
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

    def serve(self, wakeup: Wakeup) -> bool:
        """Run until SIGTERM or a drain, then hand everything back; return whether that worked."""
        self.bells = bells = Bells(self.config.agent_socket, self._take, self._take_missed)
        touch(self.config.agent_pulse)
        self._beat()
        self._release_predecessor()
        beat = threading.Thread(target=self._beat_loop, name="beat", daemon=True)
        beat.start()
        for name, work in (
            ("renew", self._renew_loop),
            ("look", lambda: self._every(self._look_s, self._look)),
            ("repair", lambda: self._every(lambda: REPAIR_S, self._repair)),
            ("control", self._control_loop),
            ("bells", bells.serve),
        ):
            threading.Thread(target=work, name=name, daemon=True).start()
        log.info("worker %s is online", self.config.name, extra={"action": "online"})
        while not wakeup.wait(LOOK_UP_S) and not self.stopping.is_set():
            pass
        self.stopping.set()
        return self._hand_back(beat)

    def _hand_back(self, beat: threading.Thread) -> bool:
        """Hand the runs back, and leave the fleet; return whether nothing was left behind.

        The heart goes on beating meanwhile: whoever waits for us to leave sees that we have not.
        """
        self._beat_now.set()  # says that we are draining
        done = self.roster.hand_back()
        self._left.set()
        self._beat_now.set()
        beat.join()
        self.ring()
        self._once(lambda: self.hosts.leave(self.config.name, self.config.instance))
        return done

    def _release_predecessor(self) -> None:
        """Give back what a dead agent of this host has left: the guard has ended its children.

        What that agent wrote down but could not send any more is sent first.
        """
        mine = {self.config.instance, self.config.replaces} - {""}
        for record in self.store.leased():
            if record.host == self.config.name and record.instance in mine:
                self._release(record)
        self.ring()

    def _send_rest(self, lease: Lease | JobRecord) -> None:
        """Send what its owner has written down and not sent: who goes on does not tell it again."""
        record = self.store.get(lease.id)
        events = JobPaths(self._bench.storage, record.id).events(record.claim)
        if record.token == lease.token:
            send_rest(self.store, record.id, record.token, events)

    def _release(self, record: JobRecord) -> None:
        """Give one job back; what is damaged there keeps no other from being given back."""
        for work in (
            lambda: self._send_rest(record),
            lambda: self.store.requeue(record.id, record.token, "the host's agent died", burn=True),
        ):
            try:
                work()
            except (ResponseError, OSError) as error:
                log.error("giving %s back: %s", record.id, error)

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

    def _beat_loop(self) -> None:
        """Beat until we have left, sooner when there is news."""
        while not self._left.is_set():
            self._beat_now.wait(BEAT_S)
            self._beat_now.clear()
            if not self._left.is_set():
                self._once(self._beat)

    def _beat(self) -> None:
        """Say that the host lives, and what it offers."""
        config = self.config
        broker = self.store.server().run_id  # before what runs: that is then as new at least
        self.roster.full = shutil.disk_usage(self._bench.storage).free < DISK_MIN
        fields = {
            "slots": str(config.slots),
            "gpus": [vars(gpu) for gpu in config.gpus],
            "storage_id": config.storage_id,
            "draining": "1" if self.stopping.is_set() else "0",
            "full": "1" if self.roster.full else "0",
            "version": __version__,
            "record_version": str(RECORD_VERSION),
            "endpoint": self.settings.hf_endpoint,
            "running": {job: run.token for job, run in self.roster.runs().items()},
            "broker": broker,
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
            runs = self.roster.runs()
            self._once(partial(self.keeper.renew, runs))
            if any(run.lost for run in runs.values()):
                self._beat_now.set()  # the fleet may wait to hear that it does not run here

    def _look_s(self) -> float:
        """Return the time between two looks at the leases.

        Up to 20 hosts look once in a quarter of a second together, then each every 5 s: a lost
        host is noticed soon after its lease, and the broker has little to do.
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
            ours = lease.instance == self.config.instance
            open_ = lease.state is JobState.PLACED or self.roster.may_have_claimed(lease.token)
            if ours and open_:
                self._take(lease.id, lease.token)

    def _take_missed(self) -> None:
        """Look at once for places whose message was lost."""
        self._once(lambda: self._take_placed(self.store.leases()))

    def _take(self, job: str, token: str) -> bool:
        """Take what a message tells of; one that fails is found by the next look."""
        try:
            with translated():
                return self.roster.take(job, token)
        except (FtqError, RedisError, RuntimeError, ValueError, KeyError, TypeError) as error:
            # The broker is away, there is no thread to be had, or the record is damaged.
            log.warning("take %s: %r", job, error)
            return False

    def _repair(self) -> None:
        """Ask for a dispatch pass if somebody waits, and clear up after hosts that are gone."""
        self._known_hosts = len(self.hosts.all())
        self.hosts.forget_old_queues()
        if self.store.queued(0, 0):
            self.ring()

    def _obey(self, message: dict[str, Any]) -> None:
        """Act on what was said to all agents."""
        if message.get("drain") == self.config.name:
            self._beat_now.set()  # only who may write our record may drain us
        if message.get("cancel") in self.roster.runs():
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

    def ring(self) -> None:
        """Ask for a dispatch pass."""
        if self.bells:
            self.bells.ring()


def main() -> None:
    """Start the agent that the guard described."""
    end_with_parent(int(sys.argv[1]))
    hide_memory()
    setup_logging("agent")
    config, settings = HostConfig.from_env()
    agent = Agent(config, settings, int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wakeup = Wakeup((signal.SIGTERM,), children=False)
    sys.exit(0 if agent.serve(wakeup) else UNCLEAN)


if __name__ == "__main__":
    main()
