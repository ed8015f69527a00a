"""What the scripts promise, once more, in plain Python: jobs, tokens, leases, locks, hosts, events.

A model has the methods of `JobStore` and `HostStore`, with their arguments and answers, so that
one call can be made on both. It knows nothing of how the scripts keep what they keep.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftq_shared import keys
from ftq_shared.errors import ErrorInfo
from ftq_shared.job_record import RECORD_VERSION
from ftq_shared.spec import JobSpec, Priority
from ftq_shared.states import TERMINAL, Phase
from ftq_shared.store import Placement

Answer = Any


@dataclass
class Job:
    """One job as its watchers and owners see it."""

    id: str
    max_attempts: int
    place: tuple[int, int, str]  # in the queue: priority, time of the submit, id
    secret: bool
    inputs: bool
    state: str = "queued"
    phase: str = "validate"
    record_version: int = RECORD_VERSION
    attempt: int = 1
    tries: int = 0
    round: int = 0
    fresh_after: int = 0
    cancel: bool = False
    token: str = ""
    token_number: int = 0
    host: str = ""
    instance: str = ""
    slot: str = ""
    gpus: tuple[str, ...] = ()
    nonce: str = ""
    beat: int = 0
    ordinal: int = 0
    storage_id: str = ""
    lock: str = ""
    waiting: str = ""
    step: str = ""
    error: str = ""  # its code
    exit_code: int = 0
    ended_token: tuple[str, str] = ("", "")  # the newest token that ended, and how
    retried_by: str = ""  # nonce of the newest retry
    deaths: list[tuple[int, str, str, str]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)  # (type, what it says)
    kept: list[int] = field(default_factory=list)  # seq of each milestone

    @property
    def leased(self) -> bool:
        return self.state in ("placed", "running")

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    def say(self, kind: str, what: str, keep: bool = True) -> None:
        self.events.append((kind, what))
        if keep:
            self.kept.append(len(self.events))

    def holds(self, token: str) -> bool:
        return token != "" and token == self.token


@dataclass
class Host:
    """One worker's record."""

    instance: str
    beat_s: int
    slots: int
    draining: bool
    full: bool
    record_version: int
    gpus: tuple[str, ...]
    drain_wanted: bool = False


@dataclass
class Model:
    """The whole broker. `clock_s` is its clock; `versions` are those of the real records."""

    clock_s: int
    jobs: dict[str, Job] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    locks: dict[str, tuple[str, str]] = field(default_factory=dict)  # what -> job, token
    submits: dict[str, str] = field(default_factory=dict)  # client key -> job
    sent_inputs: set[str] = field(default_factory=set)  # jobs whose files came before them
    offers: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)  # by instance
    versions: dict[str, int] = field(default_factory=dict)

    # -- the client's calls

    def submit(
        self, job: str, spec: JobSpec, *, client_key: str, sealed: str = "", **_: object
    ) -> Answer:
        if client_key in self.submits:
            return self.submits[client_key]
        if job in self.jobs:
            return "exists"
        has_inputs = job in self.sent_inputs
        rank = list(Priority).index(spec.resources.priority)
        place = (rank, self.clock_s, job)
        new = Job(job, spec.resources.max_attempts, place, bool(sealed), has_inputs)
        self.sent_inputs.discard(job)
        self.jobs[job] = new
        self.submits[client_key] = job
        new.say("state", "queued")
        return job

    def cancel(self, job: str) -> Answer:
        if not (it := self.jobs.get(job)):
            return ""
        if it.ended:
            return it.state
        it.cancel = True
        if it.state == "running":
            return "running"
        if it.state == "placed":
            self._release(it, "cancelled")
        self._end(it, "cancelled", 4)
        return "cancelled"

    def retry(
        self, job: str, phase: Phase, *, sealed: str = "", nonce: str = "", afresh: bool = False
    ) -> Answer:
        if not (it := self.jobs.get(job)):
            return ""
        if it.retried_by == nonce:
            return "queued"
        if it.state not in ("failed", "cancelled"):
            return it.state
        it.error, it.deaths, it.cancel, it.tries, it.exit_code = "", [], False, 0, 0
        it.attempt, it.round, it.retried_by = it.attempt + 1, it.round + 1, nonce
        it.waiting = ""
        if afresh:
            it.fresh_after = it.token_number
        if phase is Phase.VALIDATE:
            it.storage_id = ""
        it.secret = bool(sealed)
        self._queue(it, phase)
        return "queued"

    # -- the dispatcher's calls

    def place(self, plan: Placement, random: str = "") -> Answer:
        """Return the answer, or all that may be given where several reasons hold."""
        it = self.jobs.get(plan.job)
        if it and it.token.endswith(f":{random}"):
            return it.token, ""
        if reasons := set(self._against(it, plan)):
            return {("", reason) for reason in reasons}
        assert it
        it.token_number += 1
        it.token = f"{it.token_number}:{random}"
        it.state, it.host, it.instance = "placed", plan.host, plan.instance
        it.slot, it.gpus, it.beat, it.ordinal, it.waiting = plan.slot, plan.gpus, 0, 0, ""
        it.say("state", "placed")
        return it.token, ""

    def _against(self, it: Job | None, plan: Placement) -> Iterator[str]:
        if not it or it.state != "queued" or self.versions[plan.job] != plan.version:
            yield "the job moved on"
        host = self.hosts.get(plan.host)
        if not host or host.instance != plan.instance:
            yield "the host restarted"
            return
        if it and host.record_version < it.record_version:
            yield "the host is of an older version"
        lost = self.clock_s - host.beat_s > keys.HOST_LOST_S
        if host.draining or host.full or lost:
            yield "the host takes no work"
        there = [job for job in self.jobs.values() if job.leased and job.host == plan.host]
        if plan.slot == "cpu" and sum(job.slot == "cpu" for job in there) >= host.slots:
            yield "no free slot"
        if {gpu for job in there for gpu in job.gpus} & set(plan.gpus):
            yield "a GPU was taken"

    def say_waiting(self, job: str, reason: str, unblock: str) -> Answer:
        it = self.jobs.get(job)
        if it and it.state == "queued" and it.waiting != reason:
            it.waiting = reason
            it.say("waiting", reason)

    # -- the owner's calls

    def claim(self, job: str, token: str, *, nonce: str, instance: str, storage_id: str) -> Answer:
        it = self.jobs.get(job)
        if it and token and it.ended_token == (token, "cancelled"):
            return "cancelled"
        if not it or not it.holds(token) or it.instance != instance:
            return "stale"
        if it.record_version > RECORD_VERSION:
            return "stale"
        if it.state == "running":
            it.beat += it.nonce == nonce
            return "ok" if it.nonce == nonce else "stale"
        it.state, it.nonce, it.storage_id = "running", nonce, storage_id
        it.say("state", "running")
        return "ok"

    def renew(self, leases: Mapping[str, str]) -> Answer:
        return {job: self._renew(self.jobs.get(job), token) for job, token in leases.items()}

    def _renew(self, it: Job | None, token: str) -> str:
        if not it or not it.holds(token):
            return "stale"
        it.beat += 1
        if it.state == "placed":
            return "unclaimed"
        return "cancel" if it.cancel else "ok"

    def append(
        self,
        job: str,
        token: str,
        first: int,
        bodies: Sequence[str],
        *,
        milestones: Sequence[bool],
        fields: Mapping[str, str],
    ) -> Answer:
        it = self.jobs.get(job)
        if not it or not it.holds(token):
            return 0, "stale"
        if first > it.ordinal + 1:
            return it.ordinal, "gap"
        new = list(zip(bodies, milestones, strict=True))[it.ordinal + 1 - first :]
        for body, keep in new:
            it.say("log", json.loads(body)["data"]["line"], keep)
        if new:
            it.ordinal += len(new)
            it.step = fields.get("step", it.step)
        return it.ordinal, "ok"

    def finish(
        self,
        job: str,
        token: str,
        outcome: str,
        *,
        next_phase: Phase | None = None,
        error: ErrorInfo | None = None,
    ) -> Answer:
        it = self.jobs.get(job)
        if it and token and it.ended_token[0] == token:
            return "ok" if it.ended_token[1] == outcome else "stale"
        if not it or not it.holds(token):
            return "stale"
        if it.state == "placed":  # the broker has lost the claim of the one that holds the token
            it.say("state", "running")
        it.error = error.code if error else it.error
        self._release(it, outcome)
        if outcome == "next" and not it.cancel:
            it.tries = 0
            self._queue(it, str(next_phase))
        elif outcome == "next":
            self._end(it, "cancelled", 4)
        else:
            failed = int(error.exit_code) if error else 1
            self._end(it, outcome, {"succeeded": 0, "cancelled": 4}.get(outcome, failed))
        return "ok"

    def requeue(
        self, job: str, token: str, reason: str, *, burn: bool, phase: Phase | None = None
    ) -> Answer:
        it = self.jobs.get(job)
        if it and token and it.ended_token[0] == token:
            return self._interrupted_before(it)
        if not it or not it.holds(token):
            return "stale"
        return self._interrupt(it, reason, burn=burn, phase=phase)

    def reap(self, job: str, token: str, beat: int, reason: str) -> Answer:
        it = self.jobs.get(job)
        if it and token and it.ended_token[0] == token:
            return self._interrupted_before(it)
        if not it or not it.holds(token) or it.beat != beat:
            return "stale"
        host = self.hosts.get(it.host)
        if host and host.instance == it.instance:
            host.beat_s = 0
        return self._interrupt(it, reason, burn=True, phase=None)

    def lock(self, job: str, token: str, what: str) -> Answer:
        it = self.jobs.get(job)
        if not it or not it.holds(token):
            return "stale", ""
        owner, its = self.locks.get(what, ("", ""))
        if owner not in ("", job) and owner in self.jobs and self.jobs[owner].holds(its):
            return "busy", owner
        self.locks[what], it.lock = (job, token), what
        return "ok", ""

    # -- hosts

    def beat(self, name: str, instance: str, replaces: str, fields: Mapping[str, Any]) -> Answer:
        host = self.hosts.get(name)
        mine = host is not None and host.instance == instance
        alive = host is not None and self.clock_s - host.beat_s < keys.HOST_LOST_S
        if host and not mine and host.instance != replaces and alive:
            return "name_taken"
        gpus = tuple(gpu["uuid"] for gpu in fields["gpus"])
        wanted = bool(host and mine and host.drain_wanted)
        self.hosts[name] = Host(
            instance,
            self.clock_s,
            int(fields["slots"]),
            fields["draining"] == "1",
            fields["full"] == "1",
            int(fields["record_version"]),
            gpus,
            wanted,
        )
        slots, _ = self.offers.get(instance, (0, ()))
        self.offers[instance] = (max(slots, int(fields["slots"])), gpus)
        return wanted

    def drain(self, name: str) -> Answer:
        if not (host := self.hosts.get(name)):
            return ""
        host.drain_wanted = True
        return host.instance

    def leave(self, name: str, instance: str) -> Answer:
        if name in self.hosts and self.hosts[name].instance == instance:
            del self.hosts[name]

    # -- how a token ends

    def _interrupted_before(self, it: Job) -> str:
        how = it.ended_token[1]
        return how if how in ("queued", "failed", "cancelled") else "stale"

    def _interrupt(self, it: Job, reason: str, *, burn: bool, phase: Phase | None) -> str:
        """Take a place back; only one that was claimed can cost an attempt."""
        burn = burn and it.state == "running"
        if burn:
            it.deaths.append((it.attempt, it.phase, it.host, reason))
            del it.deaths[:-20]
        if it.cancel:
            self._release(it, "cancelled")
            self._end(it, "cancelled", 4)
            return "cancelled"
        if it.tries + burn >= it.max_attempts:
            self._release(it, "failed")
            it.error = "attempts_exhausted"
            self._end(it, "failed", 1)
            return "failed"
        it.tries += burn
        it.attempt += burn
        self._release(it, "queued")
        if phase:
            it.storage_id = ""
        self._queue(it, phase or it.phase)
        return "queued"

    def _release(self, it: Job, how: str) -> None:
        it.ended_token = (it.token, how)
        if it.lock and self.locks.get(it.lock, ("", ""))[0] == it.id:
            del self.locks[it.lock]
        it.token = it.host = it.instance = it.nonce = it.lock = ""
        it.gpus, it.beat = (), 0

    def _queue(self, it: Job, phase: str) -> None:
        it.state, it.phase = "queued", str(phase)
        it.say("state", "queued")

    def _end(self, it: Job, state: str, exit_code: int) -> None:
        it.state, it.exit_code = state, exit_code
        it.secret = it.inputs = False
        it.say("state", state)
