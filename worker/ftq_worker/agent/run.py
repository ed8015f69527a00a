"""One claimed phase, from the claim to its end: the life of one child on this host."""

import json
import logging
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from ftq_shared.broker import translated
from ftq_shared.errors import BrokerUnreachable, FtqError, Stale
from ftq_shared.events import EventType
from ftq_shared.job_record import JobRecord
from ftq_shared.keys import CHILD_S, PAUSE_S
from ftq_shared.paths import JobPaths, write_atomic
from ftq_shared.redaction import Redactor
from ftq_shared.states import Phase
from ftq_shared.store import is_damage
from ftq_worker.agent.child import DIE_S, Child, HostTrouble
from ftq_worker.agent.leases import HELD
from ftq_worker.agent.outbox import Outbox
from ftq_worker.agent.outcome import End, settle, tell
from ftq_worker.agent.services import Bench
from ftq_worker.host.ending import classify, disk_full
from ftq_worker.host.linux import oom_kills
from ftq_worker.host.messages import request_for
from ftq_worker.job.context import StopReason

log = logging.getLogger(__name__)

# Not the job's fault, but what it might meet for ever: these cost an attempt.
MET_AGAIN = ("disk_full", "no_fork")
STOP_GRACE_S = 60.0  # for a checkpoint, after a phase was asked to stop
KILL_GRACE_S = 5.0  # between TERM and KILL


class PhaseRun:
    """A phase that this host owns. `work` is its thread; the other methods come from outside."""

    def __init__(self, bench: Bench, record: JobRecord, nonce: str, asked: float) -> None:
        self._bench = bench
        self.record = record
        self._nonce = nonce  # of the claim
        # Monotonic, from before the claim was sent: the lease counts from there.
        self._until, self._pause_at = asked + CHILD_S, asked + PAUSE_S
        self.job, self.token = record.id, record.token
        self.paths = JobPaths(bench.storage, record.id)
        self._children: list[Child] = []
        self._lock = threading.Lock()
        self._term_at: float | None = None  # monotonic; when patience with a stop is over
        self._stop_reason: StopReason | None = None
        self.lost = False  # somebody else owns the job, or nobody
        self._outcomes: dict[int, dict[str, Any]] = {}  # by pid: what each rank said at its end
        self._trouble: dict[str, Any] | None = None  # what kept the phase from running
        self._first_dead: Child | None = None  # of a gang; the others were then killed by us
        self._killed_at: float | None = None  # monotonic; when a child was first sent SIGKILL
        self._oom_kills = oom_kills()

    # -- from other threads

    def feed(self, until: float, pause_at: float) -> None:
        """Let the children live until then, and work until then (both monotonic).

        A renewal whose answer came late takes nothing back.
        """
        self._until, self._pause_at = max(self._until, until), max(self._pause_at, pause_at)
        for child in self._all():
            child.send(self._lease())

    def claim_again(self) -> None:
        """Tell a broker that has lost the claim, but not the place, whose it is.

        In a thread: who renews leases may not wait for it. The next renewal asks again.
        """
        threading.Thread(target=self._claim_again, name=f"claim {self.job}", daemon=True).start()

    def _claim_again(self) -> None:
        bench = self._bench
        try:
            with translated():
                bench.store.claim(
                    self.job,
                    self.token,
                    nonce=self._nonce,
                    instance=bench.instance,
                    storage_id=bench.storage_id,
                )
        except (BrokerUnreachable, RedisError) as error:
            log.warning("claim of %s again: %s", self.job, error)

    def pids(self) -> list[int]:
        """Return the processes of the children that have not ended."""
        return [child.pid for child in self._all() if not child.ended]

    def stop(self, reason: StopReason, grace_s: float = STOP_GRACE_S) -> None:
        """Ask the phase to save and end; after the grace period it is killed."""
        with self._lock:
            if self._stop_reason is not None:
                return
            self._stop_reason = reason
            self._term_at = time.monotonic() + grace_s
        for child in self._all():
            child.send({"stop": reason})

    def lose(self) -> None:
        """End at once and report nothing: somebody else owns the job."""
        self.lost = True
        self._kill(self._all())

    def _all(self) -> list[Child]:
        with self._lock:
            return list(self._children)

    def _kill(self, children: Iterable[Child]) -> None:
        self._killed_at = self._killed_at or time.monotonic()
        for child in children:
            child.kill_tree()

    def _lease(self) -> dict[str, Any]:
        return {"lease": {"until": self._until, "pause_at": self._pause_at}}

    # -- the run's own thread

    def work(self) -> None:
        """Run the phase and report its end. Never raises: the host goes on."""
        try:
            self._work()
        except Exception:  # a bug in one run must not end the agent and with it all other runs
            log.exception("run of %s", self.job, extra={"action": "run_failed", "job": self.job})
            self.lose()
        finally:
            self._clear_up()

    def _work(self) -> None:
        try:
            outbox = self._outbox()
        except OSError as error:  # a full disk: nothing has begun
            reason = f"events cannot be written: {error.strerror}"
            store = self._bench.store
            self.tell(lambda: store.requeue(self.job, self.token, reason, burn=True))
            return
        try:
            self._try(outbox)
            self._end_children()  # nothing is reported before the process tree is gone
            if not self.lost:
                self._settle(outbox)
        finally:
            outbox.close()

    def _try(self, outbox: Outbox) -> None:
        """Run the phase; what keeps it from running becomes the verdict."""
        try:
            secrets = self._bench.open_secrets(self.record)
            outbox.redactor = Redactor(secrets.values())
            self._run(outbox, secrets)
        except HostTrouble as error:
            again = error.code in MET_AGAIN
            self._trouble = {"outcome": "died", "reason": error.message, "burn": again}
        except (BrokerUnreachable, RedisError) as error:
            reason = f"the broker went away before the phase ran: {error}"
            self._trouble = {"outcome": "died", "reason": reason, "burn": is_damage(error)}
        except OSError as error:
            if no_room := disk_full(error, self._bench.storage):
                self._trouble = {"outcome": "host", "error": no_room.to_json()}
            else:
                self._trouble = {"outcome": "died", "reason": f"the storage failed: {error}"}
        except FtqError as error:
            self._trouble = {"outcome": "failed", "error": error.info().to_json()}
        except Exception as error:  # a bug of ours: the job says so, and goes on elsewhere
            log.exception("run of %s", self.job, extra={"action": "run_failed", "job": self.job})
            self._trouble = {"outcome": "died", "reason": f"the agent failed: {error!r}"}

    def _end_children(self) -> None:
        """Kill what is left of the phase, and wait until it is gone. Raises HostTrouble."""
        stuck = []
        for child in self._all():
            try:
                child.end()
            except HostTrouble as error:
                stuck.append(error)
        self._bench.note_children()
        self._bench.end_orphans()
        if stuck:
            raise stuck[0]

    def _clear_up(self) -> None:
        """Leave nothing behind: no process, if the kernel lets it die, and no descriptor."""
        try:
            self._end_children()
        except HostTrouble as error:
            log.error("%s: %s; the lease runs out", self.job, error)
            self.lose()
        finally:
            for child in self._all():
                child.close()

    def _outbox(self) -> Outbox:
        """Open the claim's event file."""
        record = self.record
        return Outbox(
            self._bench.store,
            self.job,
            self.token,
            self.paths.events(record.claim),
            attempt=record.attempt,
            host=self._bench.host,
            phase=record.phase,
            on_stale=self.lose,
        )

    def _run(self, outbox: Outbox, secrets: dict[str, str]) -> None:
        """Start the children, pass on their events, and wait for their end."""
        started = time.monotonic()
        self._lay_out()
        with self.paths.output(self.record.claim).open("ab") as output:
            self._start(output.fileno(), secrets)
        outbox.say(
            EventType.PHASE_STARTED,
            pid=self._children[0].pid,
            devices=list(self.record.gpus) or ["cpu"],
            warm=self._bench.warm,
        )
        self._pump(outbox)
        if self._verdict()["outcome"] == "done":
            outbox.say(EventType.PHASE_FINISHED, seconds=round(time.monotonic() - started, 3))

    def _lay_out(self) -> None:
        """Make the job's folder what the phase expects. Raises FtqError."""
        record = self.record
        self.paths.claim_dir(record.claim).mkdir(parents=True, exist_ok=True)
        if record.phase is Phase.VALIDATE:
            write_atomic(self.paths.marker, record.id)
            write_atomic(self.paths.spec, record.spec_json)
        self._bench.fetch_inputs(record, self.paths)

    def _start(self, output: int, secrets: dict[str, str]) -> None:
        """Start one child per rank and hand each its secrets and its lease."""
        for rank in range(max(1, len(self.record.gpus))):
            if self.lost:
                raise Stale("the claim was lost before the phase ran")
            child = self._bench.spawn(request_for(self.record, rank, self._bench), output)
            with self._lock:
                self._children.append(child)
            self._bench.note_children()
            child.send({"secrets": secrets})
            child.send(self._lease())
            if self._stop_reason:  # it was asked to stop before the child was there
                child.send({"stop": self._stop_reason})
            if self.lost:
                child.kill_tree()

    def _pump(self, outbox: Outbox) -> None:
        """Pass events on until every child is dead, killing when time is over."""
        deadline = self._deadline()
        alive = {child.ended_fd: child for child in self._children}
        while alive:
            readers = [c.events.fd for c in self._children if c.events.open]
            ready, _, _ = select.select([*alive, *readers], [], [], self._patience(deadline))
            for child in self._children:
                self._read(child, outbox)
            gone = [alive.pop(fd) for fd in list(alive) if fd in ready]
            for child in gone:
                child.end()
                self._read(child, outbox)
            if self._note_deaths(gone):
                self._kill(alive.values())  # a gang lives and dies together
            self._mind_time(deadline)

    def _note_deaths(self, gone: Sequence[Child]) -> bool:
        """Note which child was the first that did not end well; return whether one of these did.

        Of several at once it is one that died without a word: the others may have failed by it.
        """
        bad = [c for c in gone if self._outcomes.get(c.pid, {}).get("outcome") != "done"]
        bad.sort(key=lambda child: child.pid in self._outcomes)
        self._first_dead = self._first_dead or next(iter(bad), None)
        return bool(bad)

    def _read(self, child: Child, outbox: Outbox) -> None:
        """Take in the lines that a child has sent."""
        while child.events.open and (lines := child.events.read()):
            for line in lines:
                message = json.loads(line)
                if "outcome" in message:
                    self._outcomes[child.pid] = message
                elif message.get("ask") == "written":  # all that came before it is
                    child.send({"answer": {"status": "ok"}})
                elif "ask" in message:  # the broker may be slow: events and deaths do not wait
                    threading.Thread(
                        target=self._answer, args=(child, message), daemon=True
                    ).start()
                else:
                    outbox.add(message)

    def _answer(self, child: Child, question: dict[str, Any]) -> None:
        """Ask the broker what a child wants to know, for as long as the claim may hold."""
        while not self.lost and not child.ended:
            try:
                with translated():
                    answer = self._ask_broker(question)
            except (BrokerUnreachable, RedisError) as error:
                log.warning("%s waits for an answer: %s", self.job, error)
                time.sleep(1.0)
                continue
            child.send({"answer": answer})
            if answer["status"] == "stale":
                self.lose()
            return

    def _ask_broker(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return {"status"} and, for a lock, {"owner"}: the job that has it."""
        store = self._bench.store
        if question["ask"] == "lock":
            status, owner = store.lock(self.job, self.token, question["what"])
            if status not in ("ok", "busy", "stale"):
                raise ResponseError(f"{status!r} is no answer to a lock")
            return {"status": status, "owner": owner}
        asked = time.monotonic()
        renewed = store.renew({self.job: self.token}).get(self.job)
        if renewed in HELD:
            self.feed(asked + CHILD_S, asked + PAUSE_S)
        elif renewed != "stale":  # until the child's timer ends it and the job is queued again
            raise ResponseError(f"{renewed!r} is no answer: the job's record may be damaged")
        return {"status": renewed}

    def _deadline(self) -> float | None:
        """Return when `max_runtime` is over, monotonic; only training is limited."""
        limit_s = float(self.record.summary.get("max_runtime_s") or 0)
        timed = limit_s and self.record.phase is Phase.TRAIN
        return time.monotonic() + limit_s if timed else None

    def _patience(self, deadline: float | None) -> float:
        """Return how long the pump may sleep."""
        longest_s = 1.0  # a stop from another thread can set _term_at while we sleep
        if deadline is None or self._stop_reason is not None:
            return longest_s
        return min(longest_s, max(0.0, deadline - time.monotonic()))

    def _mind_time(self, deadline: float | None) -> None:
        """Stop at the deadline; TERM, then KILL, what does not end. Raises HostTrouble."""
        now = time.monotonic()
        if self._killed_at and now >= self._killed_at + DIE_S:
            raise HostTrouble("a process of the phase does not die")
        if deadline and now >= deadline and self._stop_reason is None:
            self.stop(StopReason.DEADLINE)
        if self._term_at is None or now < self._term_at:
            return
        if now >= self._term_at + KILL_GRACE_S:
            self._kill(self._all())
            return
        for child in self._all():
            child.kill_tree(signal.SIGTERM)

    # -- the end

    def tell(self, report: Callable[[], object]) -> None:
        """Report the claim's end to the broker, again until it listens or the claim is lost."""
        tell(self.job, report, lambda: self.lost)

    def _settle(self, outbox: Outbox) -> None:
        """Tell watchers and the record how it ended."""
        end = End(self._verdict(), self._stop_reason, had_trouble=self._trouble is not None)
        settle(self._bench, self.record, outbox, end, lambda: self.lost)

    def _verdict(self) -> dict[str, Any]:
        """Return how the phase ended: done only when every rank says so."""
        if self._trouble:
            return self._trouble
        if not (first := self._first_dead):
            return {"outcome": "done"}
        if word := self._outcomes.get(first.pid):
            return word
        death = classify(first.status(), memory_ran_out=oom_kills() > self._oom_kills)
        reason = f"the phase's process {death.words}"
        return {"outcome": "died", "reason": reason, "code": death.code}
