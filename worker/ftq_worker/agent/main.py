"""The agent: claims phases, keeps their leases, moves their events, stops them.

    python -m ftq_worker.agent.main        (started by the supervisor)

No torch and no Celery in this process: it must live when those do not. One thread per job it runs;
the others are named for what they do: heartbeat, renew, watch, look, repair, control, listener.
"""

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from redis.exceptions import RedisError, ResponseError

from ftq_shared import __version__
from ftq_shared.broker import connect, translated
from ftq_shared.errors import BrokerUnreachable, FtqError
from ftq_shared.hosts import HostStore
from ftq_shared.job_record import RECORD_VERSION, JobRecord
from ftq_shared.lease import Lease
from ftq_shared.lifetimes import BEAT_S, RENEW_S
from ftq_shared.paths import JobPaths, open_storage
from ftq_shared.secrets import FleetKey
from ftq_shared.settings import Settings
from ftq_shared.signals import Wakeup
from ftq_shared.states import JobState
from ftq_shared.store import JobStore
from ftq_worker.agent.cards import Cards, try_card
from ftq_worker.agent.child import ColdSpawn, ZygoteSpawn
from ftq_worker.agent.control_channel import ControlChannel
from ftq_worker.agent.gang import TEST_CPU_RANKS
from ftq_worker.agent.leases import LeaseKeeper, Reaper
from ftq_worker.agent.listener import Listener
from ftq_worker.agent.observers import HOUSE, watched_by
from ftq_worker.agent.outbox import send_rest
from ftq_worker.agent.retention import Retention
from ftq_worker.agent.run_pool import RunPool
from ftq_worker.agent.services import Services
from ftq_worker.host.config import UNCLEAN, HostConfig
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.host.disk import DISK_MIN
from ftq_worker.host.heartbeat import LastBeat, touch
from ftq_worker.host.linux import end_with_parent, hide_memory, usable_cores, usable_memory
from ftq_worker.host.log import setup_logging
from ftq_worker.host.process_tree import PhaseProcesses

log = logging.getLogger(__name__)

SWEEP_S = 600.0  # between two looks for what of ended jobs can go
REPAIR_S = 5.0  # between two looks at what messages may have missed
CARDS_S = 1.0  # between two looks whether a card that is set aside can be tried
LOOK_UP_S = 0.5  # between two looks whether a heartbeat has brought a drain
CELERY_LOST_S = 60.0  # it gives a heartbeat every 10 s, and takes a while to start
FEW_HOSTS = 8  # up to which the leases are looked at every second; beyond, every LOOK_S
LOOK_S = 5.0
WATCH_S = 10.0  # between two looks at which they are; in a large fleet, so many hosts' twentieth


def watch_s(hosts: int) -> float:
    """Return the seconds between two looks at whom to watch: its cost grows with the hosts."""
    return max(WATCH_S, hosts / 20)


class Agent:
    """The owner of everything that runs on this host."""

    def __init__(self, config: HostConfig, settings: Settings, supervisor: int) -> None:
        self.config = config
        redis = connect(settings.redis_url)
        self._store, self._hosts = JobStore(redis), HostStore(redis)
        # The keeper may not hang in retries: a renewal that is late is worth less than the next.
        self._keeper = LeaseKeeper(JobStore(connect(settings.redis_url, retries=0)))
        self._reaper = Reaper(self._store, config.storage_id, self._send_rest)
        self._stopping = threading.Event()
        self._renew_now = threading.Event()  # somebody cancelled
        self._heartbeat_now = threading.Event()  # the fleet should hear at once what changed here
        self._left = threading.Event()  # no heartbeat may bring our record back
        self._watched: frozenset[str] = frozenset()
        self._online = 1  # hosts
        self._celery = LastBeat(config.heartbeat("celery_task"))
        self._cards = Cards(config.gpus, self._heartbeat_now.set, try_card)
        self._services = _services(config, settings, self._store, supervisor, self._cards)
        self._retention = Retention(self._store, self._services.storage)
        self._control = ControlChannel(
            self._services,
            connect(settings.redis_url),
            on_cancel=self._cancelled,
            on_drain=self._heartbeat_now.set,
            retention=self._retention,
        )
        self._pool = RunPool(self._services, self._hosts, on_end=self._request_dispatch)
        self._listener: Listener | None = None  # once we listen

    # -- start and end

    def serve(self, wakeup: Wakeup) -> bool:
        """Run until SIGTERM or a drain, then hand everything back; return whether that worked."""
        self._listener = listener = Listener(
            self.config.socket("agent"), self._take, self._take_missed
        )
        touch(self.config.heartbeat("agent"))
        self._heartbeat()
        self._release_predecessor()
        heartbeat = threading.Thread(target=self._heartbeat_loop, name="heartbeat", daemon=True)
        heartbeat.start()
        for name, work in (
            ("renew", self._renew_loop),
            ("watch", lambda: self._every(self._watch_s, self._choose_watched)),
            ("look", lambda: self._every(self._look_s, self._look)),
            ("repair", lambda: self._every(lambda: REPAIR_S, self._repair)),
            ("retention", lambda: self._every(lambda: SWEEP_S, self._sweep)),
            ("cards", lambda: self._every(lambda: CARDS_S, self._try_cards)),
            ("control", lambda: self._control.listen(self._stopping)),
            ("listener", listener.serve),
        ):
            threading.Thread(target=work, name=name, daemon=True).start()
        ids = {"host": self.config.name, "instance": self.config.instance}
        log.info("worker %s is online", self.config.name, extra={"action": "online", **ids})
        while not wakeup.wait(LOOK_UP_S) and not self._stopping.is_set():
            pass
        self._stopping.set()
        return self._hand_back(heartbeat)

    def _hand_back(self, heartbeat: threading.Thread) -> bool:
        """Hand the runs back, and leave the fleet; return whether nothing was left behind.

        Heartbeats go on meanwhile: whoever waits for us to leave sees that we have not.
        """
        self._heartbeat_now.set()  # says that we are draining
        done = self._pool.hand_back(self.config.say_drains_until)
        self._left.set()
        self._heartbeat_now.set()
        heartbeat.join()
        self._request_dispatch()
        self._once(lambda: self._hosts.leave(self.config.name, self.config.instance))
        return done

    def _release_predecessor(self) -> None:
        """Requeue what a dead agent of this host has left: the supervisor has ended its children.

        What that agent wrote down but could not send any more is sent first.
        """
        mine = {self.config.instance, self.config.replaces} - {""}
        for record in self._store.leased():  # not by the index: it is asked once
            if record.host == self.config.name and record.instance in mine:
                self._release(record)
        self._request_dispatch()

    def _send_rest(self, lease: Lease | JobRecord) -> None:
        """Send what an owner has written down and not sent: the next owner does not emit it."""
        record = self._store.get(lease.id)
        events = JobPaths(self._services.storage, record.id).events(record.claim)
        if record.token == lease.token:
            send_rest(self._store, record.id, record.token, events)

    def _release(self, record: JobRecord) -> None:
        """Requeue one job; what is damaged there keeps no other from being requeued."""
        reason = "the host's agent died"
        for work in (
            lambda: self._send_rest(record),
            lambda: self._store.requeue(record.id, record.token, reason, counts_attempt=True),
        ):
            try:
                work()
            except (ResponseError, FtqError, OSError, ValueError) as error:
                extra = {"action": "release_failed", "job": record.id}
                log.error("requeueing %s: %s", record.id, error, extra=extra)

    def _every(self, seconds: Callable[[], float], work: Callable[[], None]) -> None:
        """Repeat `work`; an outage of the broker is waited out."""
        while not self._stopping.wait(seconds()):
            self._once(work)

    def _once(self, work: Callable[[], None]) -> None:
        """Do a piece of a thread's work; whatever it raises, the thread goes on."""
        name = threading.current_thread().name
        extra = {"action": "thread_failed", "loop": name, "host": self.config.name}
        try:
            with translated():
                work()
        except BrokerUnreachable as error:
            log.warning("%s: %s", name, error, extra=extra)
            self._reaper.forget()
        except FtqError as error:
            log.error("%s: %s", name, error, extra=extra)
        except Exception:  # a thread that dies in silence would let every lease run out
            log.exception("%s", name, extra=extra)

    # -- what the threads do

    def _heartbeat_loop(self) -> None:
        """Give heartbeats until we have left, sooner when there is news."""
        while not self._left.is_set():
            self._heartbeat_now.wait(BEAT_S)
            self._heartbeat_now.clear()
            if not self._left.is_set():
                self._once(self._heartbeat)

    def _heartbeat(self) -> None:
        """Tell the fleet that the host lives, and what it offers."""
        config, pool = self.config, self._pool
        broker = self._store.server().run_id  # before what runs: that is then as new at least
        pool.full = shutil.disk_usage(self._services.storage).free < DISK_MIN
        fields = {
            "slots": str(config.slots),
            "gpus": [vars(gpu) for gpu in self._cards.usable()],
            "sick": [vars(gpu) for gpu in self._cards.sick()],
            "storage_id": config.storage_id,
            "draining": "1" if self._stopping.is_set() else "0",
            "full": "1" if pool.full else "0",
            "version": __version__,
            "record_version": str(RECORD_VERSION),
            "endpoint": self._services.endpoint,
            "running": {job: run.token for job, run in pool.runs().items()},
            "broker": broker,
            "celery": "1" if self._celery_runs() else "0",
            "warm": "1" if config.cold or config.socket("zygote").exists() else "0",
        }
        # A broker that came back without its data has lost it, and nobody could send a token.
        self._hosts.announce_key(self._services.fleet.public)
        if self._hosts.heartbeat(config.name, config.instance, config.replaces, fields):
            self._stopping.set()

    def _try_cards(self) -> None:
        self._cards.try_due()

    def _renew_loop(self) -> None:
        """Renew all leases every RENEW_S, at once when there is a cancel; also while draining."""
        while True:
            touch(self.config.heartbeat("agent"))
            self._renew_now.wait(RENEW_S)
            self._renew_now.clear()
            runs = self._pool.runs()
            self._once(partial(self._keeper.renew, runs))
            if any(run.lost for run in runs.values()):
                self._heartbeat_now.set()  # the fleet may wait to hear that it does not run here

    def _cancelled(self, job: str) -> None:
        if job in self._pool.runs():
            self._renew_now.set()

    def _choose_watched(self) -> None:
        """Work out whose leases we watch."""
        known, online = self._hosts.names()
        self._online = len(online)
        watched = watched_by(self.config.name, known, online)
        if HOUSE in watched:
            watched |= self._store.hosts_with_leases() - known - online
        self._watched = frozenset(watched)

    def _look_s(self) -> float:
        return 1.0 if self._online <= FEW_HOSTS else LOOK_S

    def _watch_s(self) -> float:
        return watch_s(self._online)

    def _look(self) -> None:
        """Take leases of silent owners, and placements whose message was lost."""
        if not self._watched:
            self._choose_watched()
        leases = self._store.leases_of(sorted(self._watched))
        if self._reaper.look(leases, lambda: self._store.server().run_id):
            self._request_dispatch()
        self._take_placed(leases)

    def _take_placed(self, leases: list[Lease]) -> None:
        for lease in leases:
            ours = lease.instance == self.config.instance
            open_ = lease.state is JobState.PLACED or self._pool.may_have_claimed(lease.token)
            if ours and open_:
                self._take(lease.id, lease.token)

    def _take_missed(self) -> None:
        """Look at once for placements whose message was lost."""
        self._once(lambda: self._take_placed(self._store.leases_of([self.config.name])))

    def _take(self, job: str, token: str) -> bool:
        """Take a phase that was placed here; one that fails is found by the next look."""
        try:
            with translated():
                return self._pool.take(job, token)
        except (FtqError, RedisError, RuntimeError, ValueError, KeyError, TypeError) as error:
            # The broker is away, there is no thread to be had, or the record is damaged.
            log.warning("take %s: %r", job, error, extra={"action": "take_failed", "job": job})
            return False

    def _repair(self) -> None:
        """Ask for a dispatch pass if a job waits, and clear up after hosts that are gone."""
        if waiting := self._store.queued(0, 0):
            self._request_dispatch()
        if not self._watched:
            self._choose_watched()
        if HOUSE not in self._watched:
            return
        self._hosts.forget_old_queues()
        if waiting and not any(host.celery for host in self._hosts.all() if host.online):
            self._say_no_celery(waiting[0])  # nobody else would

    def _say_no_celery(self, job: str) -> None:
        name = self.config.name
        reason = "no worker's Celery process runs, so nothing is placed"
        self._store.say_waiting(job, reason, f"look at the log of worker {name}")

    def _celery_runs(self) -> bool:
        return self._celery.silent_s() < CELERY_LOST_S

    def _sweep(self) -> None:
        """Remove what is old in our storage, if we are the first of the hosts that share it.

        The observers of what is nobody's own have the index of the places made anew.
        """
        if HOUSE in self._watched:
            self._store.renew_places()
        mine = self.config.storage_id
        same = [h.name for h in self._hosts.all() if h.online and h.storage_id == mine]
        if self.config.name == min(same, default=self.config.name):
            self._store.forget_expired()
            self._retention.sweep()

    def _request_dispatch(self) -> None:
        if self._listener:
            self._listener.request_dispatch()


def _services(
    config: HostConfig, settings: Settings, store: JobStore, supervisor: int, cards: Cards
) -> Services:
    root, _ = open_storage(config.storage)
    return Services(
        host=config.name,
        instance=config.instance,
        storage=root,
        storage_id=config.storage_id,
        endpoint=settings.hf_endpoint,
        cpu_threads=usable_cores(),
        memory_bytes=usable_memory(),
        warm=not config.cold,
        store=store,
        binary=connect(settings.redis_url, binary=True),
        fleet=FleetKey.load(settings.fleet_key_file),
        spawn=ColdSpawn() if config.cold else ZygoteSpawn(config.socket("zygote")),
        processes=PhaseProcesses(supervisor, Path(config.run_dir)),
        cards=cards,
        data_roots=DataRoots.of(settings, root),
        run_dir=Path(config.run_dir),
        cpu_ranks=int(os.environ.get(TEST_CPU_RANKS, "1")),
    )


def main() -> None:
    """Start the agent that the supervisor described."""
    end_with_parent(int(sys.argv[1]))
    hide_memory()
    config, settings = HostConfig.from_env()
    setup_logging("agent", settings.log, host=config.name, instance=config.instance)
    agent = Agent(config, settings, int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wakeup = Wakeup((signal.SIGTERM,), children=False)
    sys.exit(0 if agent.serve(wakeup) else UNCLEAN)


if __name__ == "__main__":
    main()
