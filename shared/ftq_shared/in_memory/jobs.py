"""What the broker in memory holds, and how a job moves on: the twin of `scripts/lib.lua`."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from ftq_shared import keys
from ftq_shared.errors import AttemptDeath, ErrorInfo, Exit
from ftq_shared.events import EVENTS, SCHEMA_VERSION, Event, EventType, rfc3339
from ftq_shared.hosts import HostRecord
from ftq_shared.job_record import JobRecord
from ftq_shared.lease import Lease
from ftq_shared.spec import Priority
from ftq_shared.states import JobState, Phase
from ftq_shared.store import Interruption

DEATHS = 20  # the newest, of one round
LEASED = (JobState.PLACED, JobState.RUNNING)


@dataclass
class MemoryJob:
    """One job: its record, and typed what the record's summary holds as text."""

    record: JobRecord  # its summary is only what `submit`, `append` and `finish` were given
    max_attempts: int
    sealed: str
    tries: int = 0
    ordinal: int = 0  # events stored under the present token
    last_answer: str = ""  # how the record's last token ended
    lock: str = ""  # what it locks
    awaits: str = ""  # what it is to lock before it gets a place
    waiting: str = ""
    retry_nonce: str = ""
    deaths: list[AttemptDeath] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # all events as JSON; the first is number 1
    kept: list[int] = field(default_factory=list)  # numbers of the milestones

    def seen(self) -> JobRecord:
        inner = {
            "max_attempts": self.max_attempts,
            "tries": self.tries,
            "ordinal": self.ordinal,
            "last_answer": self.last_answer,
            "lock": self.lock and keys.lock(self.lock),
            "awaits": self.awaits and keys.lock(self.awaits),
            "waiting": self.waiting,
            "retry_nonce": self.retry_nonce,
            "deaths": json.dumps(self.deaths) if self.deaths else "",
        }
        text = {name: str(value) for name, value in inner.items() if value != ""}
        return replace(self.record, summary={**self.record.summary, **text})

    def lease(self) -> Lease:
        it = self.record
        return Lease(
            it.id,
            it.record_version,
            it.state,
            it.token,
            it.renewals,
            it.host,
            it.instance,
            it.slot,
            it.gpus,
            it.storage_id,
        )

    def holds(self, token: str) -> bool:
        return token != "" and token == self.record.token

    def ended(self, token: str) -> bool:
        """Return whether `token` was the job's newest and has ended."""
        return token != "" and token == self.record.last_token

    def put(self, record: JobRecord) -> None:
        """Take over a changed record; a plan that saw the one before no longer holds."""
        self.record = replace(record, version=record.version + 1)

    def note(self, **texts: str) -> None:
        self.record = replace(self.record, summary={**self.record.summary, **texts})

    def append(self, body: str, *, keep: bool) -> None:
        """Store one event that its sender wrote: JSON without v, job and seq."""
        number, job = self._next(keep), self.record.id
        self.lines.append(f'{{"v":{SCHEMA_VERSION},"job":"{job}","seq":{number},{body[1:]}')

    def say(self, kind: EventType, now_ms: int, *, host: str = "", **data: Any) -> None:
        """Store an event of the broker's own; a value of None is left out."""
        number, it = self._next(keep=True), self.record
        told = {name: value for name, value in data.items() if value is not None}
        when = rfc3339(now_ms / 1000)
        event = Event(it.id, number, it.attempt, host or it.host, when, it.phase, kind, told)
        self.lines.append(event.to_json())

    def _next(self, keep: bool) -> int:
        number = self.record.seq + 1
        self.record = replace(self.record, seq=number)
        if keep:
            self.kept.append(number)
        return number


@dataclass
class MemoryHost:
    """One host; its record's age is that of the last heartbeat."""

    record: HostRecord
    drain_wanted: bool = False


@dataclass
class Held:
    """Everything that the broker holds."""

    now_ms: int = 0  # server time of the call that runs
    jobs: dict[str, MemoryJob] = field(default_factory=dict)
    hosts: dict[str, MemoryHost] = field(default_factory=dict)
    locks: dict[str, tuple[str, str]] = field(default_factory=dict)  # what -> job, token
    submits: dict[str, str] = field(default_factory=dict)  # client key -> job
    public_key: str = ""  # of the fleet
    dispatch_requested: bool = False  # a dispatch pass has been asked for
    dispatching: bool = False  # somebody makes one

    def queue(self) -> list[str]:
        """Return the ids of all queued jobs, front first."""
        ranks = {str(priority): rank for rank, priority in enumerate(Priority)}
        places = [
            (ranks.get(job.record.priority, 1), job.record.created_ms, name)
            for name, job in self.jobs.items()
            if job.record.state is JobState.QUEUED
        ]
        return [name for _, _, name in sorted(places)]

    def leased(self) -> list[MemoryJob]:
        """Return the placed and running jobs, by id."""
        return [job for _, job in sorted(self.jobs.items()) if job.record.state in LEASED]

    def lock_owner(self, what: str, job: str) -> str:
        """Return the other job that has a lock, '' when nobody has."""
        owner, token = self.locks.get(what, ("", ""))
        holds = owner != job and owner in self.jobs and self.jobs[owner].holds(token)
        return owner if holds else ""

    def start(self, job: MemoryJob) -> None:
        """Let a placed phase run."""
        job.put(replace(job.record, state=JobState.RUNNING))
        job.note(claimed_ms=str(self.now_ms))
        job.say(EventType.STATE, self.now_ms, state="running")

    def release(self, job: MemoryJob, answer: str) -> None:
        """Give back the place; the token that ends here is remembered with its end."""
        if self.locks.get(job.lock, ("", ""))[0] == job.record.id:
            del self.locks[job.lock]
        job.lock, job.last_answer = "", answer
        if job.record.host:
            job.note(last_host=job.record.host)
        it = job.record
        if it.phase is Phase.TRAIN and it.state is JobState.RUNNING:
            spent = max(0, self.now_ms - int(it.summary["claimed_ms"]))
            job.note(trained_ms=str(int(it.summary.get("trained_ms", "0")) + spent))
            it = job.record
        if it.nonce:
            job.note(rest=f"{it.token} {it.nonce} {job.ordinal}")
            it = job.record
        free = replace(it, token="", host="", instance="", gpus=(), nonce="", renewals=0)
        job.put(replace(free, last_token=it.token))

    def to_queue(self, job: MemoryJob, phase: Phase, reason: str | None = None) -> None:
        job.put(replace(job.record, state=JobState.QUEUED, phase=phase))
        job.awaits = ""
        job.note(queued_ms=str(self.now_ms))
        job.say(EventType.STATE, self.now_ms, state="queued", reason=reason)

    def end(
        self, job: MemoryJob, state: JobState, exit_code: int, reason: str | None = None
    ) -> None:
        if state is JobState.FAILED:
            error = job.record.error or ErrorInfo("failed", "the job failed")
            told, fields = error.to_json().items(), EVENTS[EventType.ERROR].fields
            known = {name: value for name, value in told if name in fields and value != []}
            host = job.record.summary.get("last_host", "")
            job.say(EventType.ERROR, self.now_ms, host=host, **known)
        it = replace(job.record, state=state, ended_ms=self.now_ms, exit_code=exit_code)
        job.put(it)
        job.sealed = ""
        job.say(
            EventType.STATE,
            self.now_ms,
            state=state,
            outcome=state,
            exit_code=exit_code,
            reason=reason,
        )

    def cancel(self, job: MemoryJob, reason: str) -> None:
        """End a job that somebody wants to end."""
        self.end(job, JobState.CANCELLED, Exit.CANCELLED, reason)

    def interrupt(
        self, job: MemoryJob, reason: str, *, counts_attempt: bool, phase: Phase | None = None
    ) -> Interruption:
        """End an attempt: a cancel wins, then the attempts count, else it is queued again."""
        counted = int(counts_attempt and job.record.state is JobState.RUNNING)
        tries, deaths = job.tries + counted, self._add_death(job, reason) if counted else []
        if job.record.cancel:
            self.release(job, "cancelled")
            self.cancel(job, "cancelled")
            return "cancelled"
        if tries >= job.max_attempts:
            self.release(job, "failed")
            self._exhaust(job, tries, deaths)
            return "failed"
        self.release(job, "queued")
        job.tries, again = tries, replace(job.record, attempt=job.record.attempt + counted)
        job.put(replace(again, storage_id="") if phase else again)
        self.to_queue(job, phase or again.phase, reason)
        return "queued"

    def _add_death(self, job: MemoryJob, reason: str) -> list[AttemptDeath]:
        it = job.record
        death = AttemptDeath(
            attempt=it.attempt,
            phase=it.phase,
            host=it.host,
            reason=reason,
            time=rfc3339(self.now_ms / 1000),
        )
        job.deaths = [*job.deaths, death][-DEATHS:]
        return job.deaths

    def _exhaust(self, job: MemoryJob, tries: int, deaths: list[AttemptDeath]) -> None:
        """Fail a job that has no attempt left."""
        words = "; ".join(
            f"attempt {death['attempt']} on {death['host']} in {death['phase']}: {death['reason']}"
            for death in deaths[-3:]
        )
        name = job.record.id
        error = ErrorInfo(
            "attempts_exhausted",
            f"interrupted {tries} times; {words}",
            f"look at `ftq tail {name}`, then `ftq retry {name}`",
            where={"attempts": deaths},
        )
        job.note(error=json.dumps(error.to_json()))
        self.end(job, JobState.FAILED, Exit.FAILED, error.message)
