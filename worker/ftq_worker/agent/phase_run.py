"""One claimed phase, from the claim to its end: its processes, their events, their questions."""

import logging
import select
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from redis.exceptions import RedisError

from ftq_shared.broker import is_damage, translated
from ftq_shared.errors import BrokerUnreachable, FtqError, Stale
from ftq_shared.events import EventType
from ftq_shared.job_record import JobRecord
from ftq_shared.paths import JobPaths, write_atomic
from ftq_shared.redaction import Redactor
from ftq_shared.states import Phase
from ftq_shared.store import JobStore
from ftq_worker.agent.child import Child, HostTrouble
from ftq_worker.agent.gang import Deaths, Gang, of_rank
from ftq_worker.agent.inputs import fetch_inputs, open_secrets, write_without_rows
from ftq_worker.agent.leases import ask_broker
from ftq_worker.agent.outbox import Outbox, send_rest_before
from ftq_worker.agent.outcome import died, not_run, report_outcome, report_until_heard
from ftq_worker.agent.phase_watch import PhaseWatch
from ftq_worker.agent.requests import request_for
from ftq_worker.agent.run_handle import SAVE_GRACE_S, RunHandle
from ftq_worker.agent.services import Services
from ftq_worker.agent.stacks import stacks_of
from ftq_worker.host.disk import disk_full
from ftq_worker.host.linux import oom_kills
from ftq_worker.host.messages import (
    GPU_FAILED,
    GPU_FAULT,
    Answer,
    Ending,
    Outcome,
    Part,
    Question,
    Secrets,
    StopReason,
    parts_of,
    read_report,
)
from ftq_worker.host.process_tree import use_of

log = logging.getLogger(__name__)

# Not the job's fault, but what it might meet on every host: these cost an attempt.
COUNTS_AS_ATTEMPT = ("disk_full", "no_fork")
# Codes of deaths for which a card may be the reason.
CARDS_ASK = ("crashed", "exited", "no_progress")
LOOK_S = 1.0  # between two looks at what the phase's processes use


class PhaseRun:
    """The run of a claimed phase. Only the thread of `work` uses it; others have its handle."""

    def __init__(self, services: Services, record: JobRecord, handle: RunHandle) -> None:
        self._services = services
        self.record = record
        self.handle = handle
        self.paths = JobPaths(services.storage, record.id)
        self._ids = {"job": record.id, "phase": str(record.phase)}  # for the log
        self._said: dict[int, Outcome] = {}  # by pid: what each rank said at its end
        self._gang = Gang((), 1, "")  # the processes of the part that runs
        self._deaths = Deaths()
        self._oom_kills = oom_kills()
        self._watch = PhaseWatch(record.phase, services.memory_bytes)
        self._looked_at = 0.0  # monotonic
        self._verdict: Outcome | None = None  # why we have ended it
        if record.phase is Phase.TRAIN:
            handle.save_s = SAVE_GRACE_S

    def work(self) -> None:
        """Run the phase and see to its end. Never raises: the host goes on."""
        handle, record = self.handle, self.record
        try:
            try:
                outbox = self._open_outbox()
            except OSError as error:  # the disk has no room: nothing has begun
                self._requeue(f"events cannot be written: {error.strerror}")
                return
            with outbox:
                self._send_rest_before()
                outcome = self._run(outbox)
                self._end_children()  # nothing is reported before the process tree is gone
                handle.ended_at = time.monotonic()
                if not handle.lost:
                    how = outcome, handle.stop_reason
                    report_outcome(self._services, record, outbox, *how, lost=self._is_lost)
        except Exception:  # a bug in one run must not end the agent and with it all other runs
            self._log_bug()
            handle.abandon(stale=False)
        finally:
            self._clear_up()

    def _is_lost(self) -> bool:
        return self.handle.lost

    def _log_bug(self) -> None:
        log.exception("run of %s", self.record.id, extra={"action": "run_failed", **self._ids})

    def _requeue(self, reason: str) -> None:
        job, token, requeue = self.record.id, self.record.token, self._services.store.requeue
        report = partial(requeue, job, token, reason, counts_attempt=True)
        report_until_heard(job, report, self._is_lost)

    def _open_outbox(self) -> Outbox:
        """Open the claim's event file. Raises OSError."""
        record, services = self.record, self._services
        return Outbox(
            services.store,
            record.id,
            record.token,
            self.paths.events(record.claim),
            attempt=record.attempt,
            host=services.host,
            phase=record.phase,
            on_stale=self.handle.abandon,
        )

    def _send_rest_before(self) -> None:
        """Send what the claim before could not: the same steps would never be told of again."""
        record, paths, store = self.record, self.paths, self._services.store
        try:
            report = partial(send_rest_before, store, record, paths)
            report_until_heard(record.id, report, self._is_lost)
        except (FtqError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            extra = {"action": "last_events_lost", **self._ids}
            log.warning("the last events of %s: %r", record.id, error, extra=extra)

    def _run(self, outbox: Outbox) -> Outcome:
        """Run the phase; whatever keeps it from running is its outcome."""
        try:
            secrets = open_secrets(self._services, self.record)
            outbox.redactor = Redactor(secrets.values())
            return self._run_children(outbox, Secrets(secrets))
        except HostTrouble as error:
            counts = error.code in COUNTS_AS_ATTEMPT
            return not_run(error.code, error.message, counts_attempt=counts)
        except (BrokerUnreachable, RedisError) as error:
            reason = f"the broker went away before the phase ran: {error}"
            return not_run("broker_unreachable", reason, counts_attempt=is_damage(error))
        except OSError as error:
            if no_room := disk_full(error, self._services.storage):
                return Outcome(Ending.HOST, no_room)
            return not_run("storage_failed", f"the storage failed: {error}")
        except FtqError as error:
            return Outcome(Ending.FAILED, error.info())
        except Exception as error:  # a bug of ours: the job says so, and goes on elsewhere
            self._log_bug()
            return not_run("agent_failed", f"the agent failed: {error!r}")

    def _run_children(self, outbox: Outbox, secrets: Secrets) -> Outcome:
        """Start the children, pass on their events, and wait for their end."""
        started = time.monotonic()
        self._lay_out()
        first, *others = parts_of(self.record.phase, replays=self.record.replay is not None)
        self._start(first, secrets)
        outbox.emit(
            EventType.PHASE_STARTED,
            pid=self.handle.children()[0].pid,
            devices=list(self.record.gpus) or ["cpu"],
            warm=self._services.warm,
        )
        outcome = self._end_of_part(outbox, self._deadline())
        for part in others:
            if outcome.ending is not Ending.DONE:
                return outcome
            self._end_children()  # the cards are free again
            self.handle.forget_children()
            self._gang.dissolve()
            self._said.clear()  # by pid, which the next may have again
            self._start(part, secrets)
            outcome = self._end_of_part(outbox, None)
        if outcome.ending is Ending.DONE:
            outbox.emit(EventType.PHASE_FINISHED, seconds=round(time.monotonic() - started, 3))
        return outcome

    def _end_of_part(self, outbox: Outbox, deadline: float | None) -> Outcome:
        """Return how the part that runs has ended, once it has."""
        self._pump(outbox, deadline)
        return self._judge_cards(self._outcome())

    def _lay_out(self) -> None:
        """Make the job's folder what the phase expects. Raises FtqError."""
        record = self.record
        self.paths.claim_dir(record.claim).mkdir(parents=True, exist_ok=True)
        if record.phase is Phase.VALIDATE or record.replay:
            write_atomic(self.paths.marker, record.id)
            write_atomic(self.paths.spec, record.spec_json)
        if record.phase is Phase.TRAIN and (rows := record.without_rows):
            write_without_rows(self.paths, rows, asked=record.asks_for_rows)
        fetch_inputs(self._services.binary, record, self.paths)

    def _start(self, part: Part, secrets: Secrets) -> None:
        """Start the children of a part, one per rank. Raises OSError, Stale, HostTrouble."""
        self._gang = gang = Gang.of(self.record, part, self._services)
        with self.paths.output(self.record.claim).open("ab") as output:
            for rank in range(gang.ranks):
                if self.handle.lost:
                    raise Stale("the claim was lost before the phase ran")
                request = request_for(self.record, part.module, gang, rank, self._services)
                child = self._services.spawn(request, output.fileno())
                self._services.processes.add(child.pid)
                self.handle.add(child, secrets)

    def _pump(self, outbox: Outbox, deadline: float | None) -> None:
        """Pass events on until every child is dead, killing when time is over.

        `deadline` is monotonic; None: there is none.
        """
        children = self.handle.children()
        alive = {child.ended_fd: child for child in children}
        while alive:
            gone = [alive.pop(fd) for fd in self._ready(alive, children, deadline) if fd in alive]
            for child in children:
                self._read(child, outbox)
            for child in gone:
                child.end()
                self._read(child, outbox)
            if self._deaths.note(gone, self._said):
                self.handle.kill(alive.values())  # a gang lives and dies together
            if deadline and time.monotonic() >= deadline:
                self.handle.stop(StopReason.DEADLINE)
            self._look_at_phase(outbox)
            self.handle.enforce_stop()

    def _ready(
        self, alive: Iterable[int], children: Sequence[Child], deadline: float | None
    ) -> list[int]:
        """Wait until a child has something to say or is dead; return their descriptors.

        By poll(2): select(2) takes no descriptor above 1023.
        """
        poll = select.poll()
        for fd in (*alive, *(child.events.fd for child in children if child.events.open)):
            poll.register(fd, select.POLLIN)
        return [fd for fd, _ in poll.poll(1000 * self._patience_s(deadline))]

    def _look_at_phase(self, outbox: Outbox) -> None:
        """Say that a silent phase lives, and end one that is stuck, too large or too slow."""
        watch, children = self._watch, self.handle.children()
        if sign := watch.sign_of_life():
            outbox.emit(EventType.PROGRESS, **sign)
        watch.pause(self.handle.is_paused())  # the broker is away
        if self._verdict or self.handle.stop_reason:
            return
        if words := watch.is_stuck_soon():
            outbox.emit(EventType.WARNING, message=words, code="no_progress")
            self._show_stacks(outbox)
        if time.monotonic() < self._looked_at + LOOK_S:
            return
        self._looked_at = time.monotonic()
        self._verdict = watch.verdict(use_of(child.pid for child in children))
        if self._verdict:
            if self._verdict.ending is Ending.DIED:
                self._show_stacks(outbox)
            self.handle.kill(children)

    def _show_stacks(self, outbox: Outbox) -> None:
        for line in stacks_of(self.handle.children(), self.paths.output(self.record.claim)):
            outbox.emit(EventType.LOG, line=line[:2000])

    def _read(self, child: Child, outbox: Outbox) -> None:
        """Take in the lines that a child has sent."""
        while child.events.open and (lines := child.events.read()):
            for line in lines:
                match read_report(line):
                    case Outcome() as outcome:
                        self._said[child.pid] = outcome
                    case Question("written"):  # all events before it are in the outbox's file
                        child.send(Answer("ok"))
                    case Question() as question:
                        # The broker may be slow: events and deaths do not wait.
                        asked = (self._services.store, self.handle, child, question)
                        threading.Thread(target=answer, args=asked, daemon=True).start()
                    case body:
                        self._watch.note(body)
                        self._note_save_time()
                        outbox.add(body)

    def _note_save_time(self) -> None:
        """Give a stop as much time as twice the slowest step and save so far."""
        if self._watch.slowest_save_s:
            needed_s = self._watch.slowest_step_s + self._watch.slowest_save_s
            self.handle.save_s = 2 * needed_s

    def _outcome(self) -> Outcome:
        """Return how the phase ended: done only when every rank says so."""
        if not (first := self._deaths.cause):
            return Outcome(Ending.DONE)
        if self._verdict:
            return self._verdict
        outcome = self._said.get(first.pid) or died(
            first.status(),
            memory_ran_out=oom_kills() > self._oom_kills,
            lease_held=self.handle.lease_held(),
        )
        return of_rank(outcome, self.handle.children().index(first), self._gang.ranks)

    def _judge_cards(self, outcome: Outcome) -> Outcome:
        """Let the cards be tried on which the phase died, or which it could not use."""
        cards, gpus = self._services.cards, self.record.gpus
        code, why = outcome.error.code if outcome.error else "", f"is tried again: {outcome.reason}"
        if outcome.ending is Ending.DONE:
            cards.trust(gpus)
        elif code in (GPU_FAULT, GPU_FAILED):
            again = cards.suspect(gpus, why, fault=True)
            # The first time it is the host's matter; a job that fails so on cards that compute
            # when they are tried must come to an end.
            free = code == GPU_FAULT and not again
            return replace(outcome, counts_attempt=outcome.counts_attempt and not free)
        elif code in CARDS_ASK and self.handle.stop_reason is None:
            cards.suspect(gpus, why, fault=False)
        return outcome

    def _deadline(self) -> float | None:
        """Return when `max_runtime` is over, monotonic; only training is limited."""
        limit_s = float(self.record.summary.get("max_runtime_s") or 0)
        if not limit_s or self.record.phase is not Phase.TRAIN:
            return None
        trained_s = int(self.record.summary.get("trained_ms") or 0) / 1000  # in earlier attempts
        return time.monotonic() + max(0.0, limit_s - trained_s)

    def _patience_s(self, deadline: float | None) -> float:
        """Return how long the pump may sleep."""
        longest_s = 1.0  # another thread may ask for a stop while we sleep
        if deadline is None or self.handle.stop_reason is not None:
            return longest_s
        return min(longest_s, max(0.0, deadline - time.monotonic()))

    def _end_children(self) -> None:
        """Kill what is left of the phase, and wait until it is gone. Raises HostTrouble."""
        stuck, children = [], self.handle.children()
        for child in children:
            try:
                child.end()
            except HostTrouble as error:
                stuck.append(error)
        self._services.processes.remove(child.pid for child in children if child.ended)
        if stuck:
            raise stuck[0]

    def _clear_up(self) -> None:
        """Leave nothing behind: no process, if the kernel lets it die, and no descriptor."""
        try:
            self._end_children()
        except HostTrouble as error:
            extra = {"action": "kill_failed", **self._ids}
            log.error("%s: %s; the lease runs out", self.record.id, error, extra=extra)
            self.handle.abandon(stale=False)
        finally:
            self._gang.dissolve()
            for child in self.handle.children():
                child.close()


def answer(store: JobStore, handle: RunHandle, child: Child, question: Question) -> None:
    """Ask the broker what a child wants to know, for as long as the claim may hold."""
    while not handle.lost and not child.ended:
        try:
            with translated():
                said = ask_broker(store, handle, question)
        except (BrokerUnreachable, RedisError) as error:
            extra = {"action": "answer_waits", "job": handle.job}
            log.warning("%s waits for an answer: %s", handle.job, error, extra=extra)
            time.sleep(1.0)
            continue
        child.send(said)
        if said.status == "stale":
            handle.abandon()
        return
