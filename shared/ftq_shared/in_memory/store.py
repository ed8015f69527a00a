"""Jobs in memory: what `store.py` and the scripts on a job do."""

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from redis.exceptions import ResponseError

from ftq_shared import keys
from ftq_shared.errors import ErrorInfo
from ftq_shared.events import EventType
from ftq_shared.in_memory.broker import MemoryBroker, atomic
from ftq_shared.in_memory.jobs import MemoryJob
from ftq_shared.job_record import (
    RECORD_VERSION,
    InputFile,
    JobRecord,
    Replay,
    new_record,
)
from ftq_shared.lease import Lease
from ftq_shared.lifetimes import HOST_LOST_S, SPEC_MAX_BYTES
from ftq_shared.states import JobState, Phase
from ftq_shared.store import (
    PAGE,
    Interruption,
    JobStore,
    Outcome,
    Placement,
    Server,
    ending,
    no_such_job,
    only_one,
)

if TYPE_CHECKING:
    from ftq_shared.spec import JobSpec


class MemoryStore(JobStore):
    """A `JobStore` without a server; see the package for what it promises."""

    def __init__(self, broker: MemoryBroker | None = None) -> None:  # no `super`: no Redis
        self.broker = broker or MemoryBroker()

    def _job(self, job: str) -> MemoryJob | None:
        return self.broker.held.jobs.get(job)

    def _owned(self, job: str, token: str) -> MemoryJob | None:
        """Return a job, None when the token is not its own."""
        it = self._job(job)
        return it if it and it.holds(token) else None

    # -- the client's calls

    @atomic
    def submit(
        self,
        job: str,
        spec: "JobSpec",
        *,
        client_key: str,
        owner: str,
        endpoint: str,
        sealed: str = "",
        inputs: Iterable[InputFile] = (),
        replay: Replay | None = None,
    ) -> str:
        held = self.broker.held
        if not keys.is_job_id(job):
            raise ResponseError("NOJOB the keys are not those of a job id")
        if known := held.submits.get(client_key):
            return known
        if job in held.jobs:
            raise ResponseError(f"EXISTS job id {job}")
        fields = new_record(spec, owner=owner, endpoint=endpoint, inputs=inputs, replay=replay)
        if len(fields["spec"].encode()) > SPEC_MAX_BYTES:
            raise ResponseError(f"TOOLARGE the spec has more than {SPEC_MAX_BYTES} bytes")
        most = int(fields.pop("max_attempts"))
        own = {"id": job, "state": "queued", "attempt": "1", "version": "0"}
        record = JobRecord.from_hash(fields | own | {"created_ms": str(held.now_ms)})
        held.jobs[job] = it = MemoryJob(record, most, sealed)
        if sealed:
            it.note(has_secrets="1")
        held.submits[client_key] = job
        held.to_queue(it, record.phase)
        return job

    @atomic
    def cancel(self, job: str) -> str:
        held, it = self.broker.held, self._job(job)
        if not it:
            return ""
        state = it.record.state
        if not state.terminal and not it.record.cancel:
            it.put(replace(it.record, cancel=True))
        if state is JobState.PLACED:
            held.release(it, "cancelled")
            held.cancel(it, "cancelled before it started")
        elif state is JobState.QUEUED:
            held.cancel(it, "cancelled while it waited")
        return str(it.record.state)

    @atomic
    def retry(
        self,
        job: str,
        phase: Phase,
        *,
        sealed: str = "",
        nonce: str = "",
        afresh: bool = False,
        without_rows: str = "",
    ) -> str:
        nonce, it = nonce or secrets.token_hex(8), self._job(job)
        if not it:
            return ""
        if it.retry_nonce == nonce:
            return "queued"
        if it.record.state not in (JobState.FAILED, JobState.CANCELLED):
            return str(it.record.state)
        it.tries, it.deaths, it.waiting, it.retry_nonce = 0, [], "", nonce
        old = it.record
        it.record = replace(
            old,
            attempt=old.attempt + 1,
            round=old.round + 1,
            cancel=False,
            ended_ms=0,
            exit_code=0,
            fresh_after=old.token_number if afresh else old.fresh_after,
            storage_id="" if phase is Phase.VALIDATE else old.storage_id,
            summary={n: v for n, v in old.summary.items() if n not in ("error", "trained_ms")},
        )
        if without_rows:
            it.record = replace(it.record, record_version=RECORD_VERSION)
            it.note(without_rows=without_rows, without_round=str(it.record.round))
        it.sealed = sealed
        it.note(has_secrets="1" if sealed else "0")
        self.broker.held.to_queue(it, phase, "retried")
        return "queued"

    # -- reading

    @atomic
    def get(self, job: str) -> JobRecord:
        if not (it := self._job(job)):
            raise no_such_job(job)
        return it.seen()

    @atomic
    def find(self, prefix: str) -> str:
        wanted = prefix if prefix.startswith("ft-") else f"ft-{prefix}"
        if self._job(wanted):
            return wanted
        if not keys.begins_job_id(wanted):
            raise no_such_job(prefix)
        return only_one(prefix, sorted(j for j in self.broker.held.jobs if j.startswith(wanted)))

    @atomic
    def newest_first(
        self,
        *,
        owners: Collection[str] = (),
        states: Collection[JobState] = (),
        page: int = PAGE,
    ) -> Iterator[JobRecord]:
        found = [
            it.seen()
            for it in self.broker.held.jobs.values()
            if not states or it.record.state in states
            if not owners or {it.record.owner, it.record.owner.partition("@")[0]} & set(owners)
        ]
        return iter(sorted(found, key=lambda record: (record.created_ms, record.id), reverse=True))

    @atomic
    def get_many(self, jobs: Sequence[str]) -> list[JobRecord]:
        return [it.seen() for job in jobs if (it := self._job(job))]

    @atomic
    def forget_expired(self) -> None:
        """Do nothing: no record expires here."""

    @atomic
    def queued(self, start: int, stop: int) -> list[str]:
        queue = self.broker.held.queue()
        return queue[start : stop + 1 or len(queue)]

    @atomic
    def queue_position(self, job: str) -> int | None:
        queue = self.broker.held.queue()
        return queue.index(job) + 1 if job in queue else None

    @atomic
    def leased(self) -> list[JobRecord]:
        return [it.seen() for it in self.broker.held.leased()]

    @atomic
    def leases(self) -> list[Lease]:
        return [it.lease() for it in self.broker.held.leased()]

    @atomic
    def leases_of(self, hosts: Sequence[str]) -> list[Lease]:
        return [it.lease() for it in self.broker.held.leased() if it.record.host in hosts]

    @atomic
    def hosts_with_leases(self) -> set[str]:
        return {it.record.host for it in self.broker.held.leased()}

    @atomic
    def renew_places(self) -> None:
        """Do nothing: there is no index."""

    # -- the dispatcher's calls

    @atomic
    def begin_pass(self) -> bool:
        was, self.broker.held.dispatching = self.broker.held.dispatching, True
        return not was

    @atomic
    def keep_pass(self) -> bool:
        return self.broker.held.dispatching

    @atomic
    def end_pass(self) -> None:
        self.broker.held.dispatching = False

    @atomic
    def is_requested(self) -> bool:
        return self.broker.held.dispatch_requested

    @atomic
    def place(self, plan: Placement, random: str = "", *, mixed: bool = False) -> tuple[str, str]:
        random, it = random or secrets.token_hex(8), self._job(plan.job)
        if it and it.record.token.endswith(f":{random}"):
            return it.record.token, ""
        if not it or (it.record.state, it.record.version) != (JobState.QUEUED, plan.version):
            return "", "the job moved on"
        if why := self._no_place(plan, it.record):
            return "", why
        held = self.broker.held
        if owner := held.lock_owner(it.awaits, it.record.id):
            return "", f"{owner} has the lock that it waits for"
        old, number, it.ordinal, it.waiting = it.record, it.record.token_number + 1, 0, ""
        placed = replace(
            old, state=JobState.PLACED, token=f"{number}:{random}", token_number=number, renewals=0
        )
        there = replace(placed, host=plan.host, instance=plan.instance)
        it.put(replace(there, slot=plan.slot, gpus=plan.gpus))
        if it.awaits:
            held.locks[it.awaits] = plan.job, it.record.token
            it.lock, it.awaits = it.awaits, ""
        it.note(placed_ms=str(held.now_ms))
        it.say(EventType.STATE, held.now_ms, state="placed", gpus=list(plan.gpus) or None)
        return it.record.token, ""

    def _no_place(self, plan: Placement, job: JobRecord) -> str:
        """Return why the host cannot take it, '' when it can."""
        held = self.broker.held
        host = held.hosts.get(plan.host)
        if not host or host.record.instance != plan.instance:
            return "the host restarted"
        if host.record.record_version < job.record_version:
            return "the host is of an older version"
        lost = held.now_ms - host.record.beat_ms > HOST_LOST_S * 1000
        if host.record.draining or host.record.full or lost:
            return "the host takes no work"
        leased = [other.record for other in held.leased()]
        used = sum(it.slot == "cpu" and it.host == plan.host for it in leased)
        if plan.slot == "cpu" and used >= host.record.slots:
            return "no free slot"
        if {gpu for it in leased for gpu in it.gpus} & set(plan.gpus):
            return "a GPU was taken"
        return ""

    @atomic
    def awaited(self, records: Sequence[JobRecord]) -> dict[str, str]:
        held = self.broker.held
        found = {it.id: held.lock_owner(held.jobs[it.id].awaits, it.id) for it in records}
        return {job: owner for job, owner in found.items() if owner}

    @atomic
    def say_waiting(self, job: str, reason: str, unblock: str) -> None:
        it = self._job(job)
        if it and it.record.state is JobState.QUEUED and it.waiting != reason:
            it.waiting = reason
            now_ms = self.broker.held.now_ms
            it.say(EventType.WAITING, now_ms, reason=reason, unblock=unblock)

    @atomic
    def first_to_request(self) -> bool:
        was, self.broker.held.dispatch_requested = self.broker.held.dispatch_requested, True
        return not was

    @atomic
    def now_s(self) -> float:
        return self.broker.held.now_ms / 1000

    @atomic
    def server(self) -> Server:
        return self.broker.server()

    @atomic
    def take_request(self) -> None:
        self.broker.held.dispatch_requested = False

    # -- the owner's calls; all take the token and are refused when it is stale

    @atomic
    def claim(
        self, job: str, token: str, *, nonce: str, instance: str, storage_id: str
    ) -> Literal["ok", "cancelled", "stale"]:
        it = self._job(job)
        if it and it.ended(token) and it.last_answer == "cancelled":
            return "cancelled"
        if not it or not it.holds(token) or it.record.instance != instance:
            return "stale"
        if it.record.record_version > RECORD_VERSION:
            return "stale"
        if it.record.state is JobState.RUNNING:
            if it.record.nonce != nonce:
                return "stale"
            it.record = replace(it.record, renewals=it.record.renewals + 1)
            return "ok"
        renewals = it.record.renewals + 1
        it.record = replace(it.record, nonce=nonce, storage_id=storage_id, renewals=renewals)
        self.broker.held.start(it)
        return "ok"

    @atomic
    def renew(self, leases: Mapping[str, str]) -> dict[str, str]:
        return {job: self._renew(job, token) for job, token in leases.items()}

    def _renew(self, job: str, token: str) -> str:
        if not (it := self._owned(job, token)):
            return "stale"
        it.record = replace(it.record, renewals=it.record.renewals + 1)
        if it.record.state is not JobState.RUNNING:
            return "unclaimed"
        return "cancel" if it.record.cancel else "ok"

    @atomic
    def append(
        self,
        job: str,
        token: str,
        first: int,
        bodies: Sequence[str],
        *,
        milestones: Sequence[bool],
        fields: Mapping[str, str] | None = None,
        when_full: bool = False,
    ) -> tuple[int, Literal["ok", "stale", "gap"]]:
        if not (it := self._owned(job, token)):
            return 0, "stale"
        if first > it.ordinal + 1:
            return it.ordinal, "gap"
        known = it.ordinal + 1 - first
        for body, keep in zip(bodies[known:], milestones[known:], strict=False):
            it.append(body, keep=keep)
        if len(bodies) > known:
            it.ordinal = first + len(bodies) - 1
            it.note(**(fields or {}))
        return it.ordinal, "ok"

    @atomic
    def append_rest(
        self,
        job: str,
        token: str,
        before: str,
        first: int,
        bodies: Sequence[str],
        *,
        milestones: Sequence[bool],
    ) -> tuple[int, Literal["ok", "stale", "gap"]]:
        it = self._owned(job, token)
        rest = it.seen().rest if it else None
        if not it or not rest or it.ordinal or rest.token != before:
            return 0, "stale"
        if first > rest.stored + 1:
            return rest.stored, "gap"
        known = rest.stored + 1 - first
        for body, keep in zip(bodies[known:], milestones[known:], strict=False):
            it.append(body, keep=keep)
        stored = max(rest.stored, first + len(bodies) - 1)
        it.note(rest=f"{rest.token} {rest.nonce} {stored}")
        return stored, "ok"

    @atomic
    def finish(
        self,
        job: str,
        token: str,
        outcome: Outcome,
        *,
        next_phase: Phase | None = None,
        error: ErrorInfo | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Literal["ok", "stale"]:
        held, it = self.broker.held, self._job(job)
        if it and it.ended(token):
            return "ok" if it.last_answer == outcome else "stale"
        if not it or not it.holds(token):
            return "stale"
        if it.record.state is JobState.PLACED:  # the broker was rolled back and lost the claim
            held.start(it)
        texts, exit_code = ending(outcome, error, fields)
        it.note(**texts)
        held.release(it, outcome)
        if outcome != "next":
            held.end(it, JobState(outcome), exit_code)
        elif it.record.cancel:
            held.cancel(it, "cancelled")
        else:
            it.tries = 0
            held.to_queue(it, Phase(next_phase or ""))
        return "ok"

    @atomic
    def requeue(
        self,
        job: str,
        token: str,
        reason: str,
        *,
        counts_attempt: bool,
        phase: Phase | None = None,
        awaits: str = "",
    ) -> Interruption:
        it = self._job(job)
        if it and it.ended(token):
            return self._interrupted_before(it)
        if not it or not it.holds(token):
            return "stale"
        held = self.broker.held
        answer = held.interrupt(it, reason, counts_attempt=counts_attempt, phase=phase)
        if answer == "queued":
            it.awaits = awaits
        return answer

    @atomic
    def reap(self, job: str, token: str, renewals: int, reason: str) -> Interruption:
        held, it = self.broker.held, self._job(job)
        if it and it.ended(token):
            return self._interrupted_before(it)
        if not it or not it.holds(token) or it.record.renewals != renewals:
            return "stale"
        host = held.hosts.get(it.record.host)
        if host and host.record.instance == it.record.instance:
            host.record = replace(host.record, beat_ms=0)  # lost until its next heartbeat
        return held.interrupt(it, reason, counts_attempt=True)

    def _interrupted_before(self, it: MemoryJob) -> Interruption:
        """Return the answer of the call that ended the token, if it was an interruption."""
        answers: dict[str, Interruption] = {
            "queued": "queued",
            "failed": "failed",
            "cancelled": "cancelled",
        }
        return answers.get(it.last_answer, "stale")

    @atomic
    def lock(self, job: str, token: str, what: str) -> tuple[Literal["ok", "busy", "stale"], str]:
        held, it = self.broker.held, self._owned(job, token)
        if not it:
            return "stale", ""
        if owner := held.lock_owner(what, job):
            return "busy", owner
        held.locks[what], it.lock = (job, token), what
        it.put(it.record)
        return "ok", ""

    @atomic
    def sealed_secrets(self, job: str) -> str:
        it = self._job(job)
        return it.sealed if it else ""
