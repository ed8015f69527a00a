"""The job store: every change of a job is one call here, and one Lua script there.

All calls are atomic and may be repeated. Connection errors come as redis-py raises them; the
edges (`Client`, agent, dispatcher) translate them with `broker.translated`.
"""

import contextlib
import json
import logging
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ftq_shared import keys, scripts
from ftq_shared.broker import is_damage
from ftq_shared.errors import ErrorInfo, NoSuchJob, UsageError
from ftq_shared.job_record import (
    RECORD_VERSION,
    InputFile,
    JobRecord,
    Replay,
    damaged,
    new_record,
    read_record,
)
from ftq_shared.lease import LEASE_FIELDS, Lease, read_lease
from ftq_shared.lifetimes import (
    DISPATCH_TTL_S,
    HOST_LOST_S,
    JOB_TTL_S,
    PASS_S,
    SPEC_MAX_BYTES,
    SUBMIT_TTL_S,
)
from ftq_shared.states import JobState, Phase

log = logging.getLogger(__name__)

PAGE = 200  # jobs of a list that are read at a time

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from ftq_shared.spec import JobSpec

Interruption = Literal["queued", "failed", "cancelled", "stale"]
Outcome = Literal["next", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class Placement:
    """One decision of the dispatcher: this job's phase goes to that host."""

    job: str
    version: int  # of the record that the decision saw
    host: str
    instance: str
    slot: str  # cpu or gpu
    gpus: tuple[str, ...] = ()


class Server(NamedTuple):
    """One start of the broker."""

    run_id: str  # '' when we may not know
    uptime_s: float


class JobStore:
    """Jobs in Redis. Shares its connection pool; safe to use from several threads."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis
        self._no_info = logging.WARNING  # how it is told that there is none
        self._pass = redis.lock(keys.DISPATCHER, timeout=PASS_S)
        self._scripts = {
            name: redis.register_script(scripts.source(name)) for name in scripts.NAMES
        }

    def _run(
        self, name: str, job: str, *args: Any, extra_keys: Sequence[str] = (), client: Any = None
    ) -> Any:
        kinds = (keys.job, keys.events, keys.kept, keys.secret, keys.inputs)
        names = [*(key(job) for key in kinds), *extra_keys]
        return self._scripts[name](keys=names, args=[job, *args], client=client)

    # -- the client's calls

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
        """Make a job, or the `replay` of another one, and its first event; return its id.

        A second call with the same `client_key` changes nothing and returns the first one's id.
        """
        record = new_record(spec, owner=owner, endpoint=endpoint, inputs=inputs, replay=replay)
        if len(record["spec"].encode()) > SPEC_MAX_BYTES:  # the script refuses it as well
            raise UsageError("the spec is too large", code="bad_spec", hint="shorten train.args")
        text, made = json.dumps(record), [keys.submit(client_key)]
        args = (text, SUBMIT_TTL_S, sealed, SPEC_MAX_BYTES)
        return str(self._run("submit", job, *args, extra_keys=made))

    def cancel(self, job: str) -> str:
        """Ask for a cancel; return the state afterwards, '' when there is no such job.

        Raises FtqError (`record_damaged`), as `get` and `retry` do.
        """
        with _damage_in_words(job):
            return str(self._run("cancel", job)) if keys.is_job_id(job) else ""

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
        """Queue a failed or cancelled job again; return its state, '' for no such job.

        `afresh` starts the phase from its beginning, not from its last checkpoint. `without_rows`
        (`dump_refs`) takes the place of the rows that the job has left out so far; '' changes
        nothing of them.
        """
        nonce = nonce or secrets.token_hex(8)
        if not keys.is_job_id(job):
            return ""
        with _damage_in_words(job):
            args = (phase, sealed, nonce, int(afresh), without_rows, RECORD_VERSION)
            return str(self._run("retry", job, *args))

    # -- reading

    def now_s(self) -> float:
        """Return the broker's time, in Unix seconds: the clock of every time in a record."""
        answer: Any = self.redis.time()
        return float(answer[0] + answer[1] / 1e6)

    def get(self, job: str) -> JobRecord:
        """Return a job's record; raises NoSuchJob, and FtqError (`record_damaged`)."""
        if not keys.is_job_id(job):
            raise no_such_job(job)
        with _damage_in_words(job):
            raw: dict[str, str] = self.redis.hgetall(keys.job(job))  # type: ignore[assignment]
            if not raw.get("state"):
                raise no_such_job(job)
            return JobRecord.from_hash(raw, job)

    def find(self, prefix: str) -> str:
        """Return the one job id that begins with `prefix`; the `ft-` may be left out.

        Raises NoSuchJob when none does, or several do (with the candidates).
        """
        wanted = prefix if prefix.startswith("ft-") else f"ft-{prefix}"
        if keys.is_job_id(wanted) and self.redis.exists(keys.job(wanted)):
            return wanted
        if not keys.begins_job_id(wanted):
            raise no_such_job(prefix)
        scan = self.redis.zscan_iter(keys.JOBS, f"{wanted}*", count=5000)
        known = {str(name) for name, _ in scan}
        return only_one(prefix, sorted(filter(keys.is_job_id, known)))

    def newest_first(
        self,
        *,
        owners: Collection[str] = (),
        states: Collection[JobState] = (),
        page: int = PAGE,
    ) -> Iterator[JobRecord]:
        """Yield jobs, newest first: of these owners and in these states, or of all and in any.

        The broker chooses them, a part of its list at a time: the first of `page` jobs, the others
        ten times as large.
        """
        wanted = json.dumps(sorted(owners)), json.dumps(sorted(states))
        start, part = 0, page
        while True:
            call = self._scripts["select"]
            looked_at, ids = call(keys=[keys.JOBS], args=[start, start + part - 1, *wanted])
            expired = 0
            for first in range(0, len(ids), page):
                some = ids[first : first + page]
                found = self.get_many(some)
                yield from (it for it in found if not states or it.state in states)
                expired += self._forget(sorted(set(some) - {record.id for record in found}))
            if looked_at < part:
                return
            start, part = start + looked_at - expired, page * 10

    def _forget(self, unread: Sequence[str]) -> int:
        """Strike those that have expired from the list of all jobs; return how many.

        What else cannot be read may be damaged, or newer than we are: it stays in the list.
        """
        expired = [job for job in unread if not self.redis.exists(keys.job(job))]
        if expired:
            self.redis.zrem(keys.JOBS, *expired)
        return len(expired)

    def get_many(self, jobs: Sequence[str]) -> list[JobRecord]:
        """Return the records that exist, in the order of `jobs`, in one round trip."""
        pipe = self.redis.pipeline(transaction=False)
        for job in jobs:
            pipe.hgetall(keys.job(job))
        found = [read_record(raw, job) for job, raw in _answered(jobs, pipe) if raw.get("state")]
        return [record for record in found if record]

    def forget_expired(self) -> None:
        """Strike jobs from the list of all whose record has expired."""
        oldest = (self.now_s() - JOB_TTL_S) * 1000
        old: Any = self.redis.zrangebyscore(keys.JOBS, "-inf", oldest, start=0, num=1000)
        self._forget(old)

    def queued(self, start: int, stop: int) -> list[str]:
        """Return ids from the queue, front first, both ends included."""
        return list(self.redis.zrange(keys.QUEUE, start, stop))  # type: ignore[arg-type]

    def queue_position(self, job: str) -> int | None:
        """Return a job's place in the queue, 1 is next; None when it is not queued."""
        rank = self.redis.zrank(keys.QUEUE, job)
        return None if rank is None else int(rank) + 1  # type: ignore[arg-type]

    def leased(self) -> list[JobRecord]:
        """Return the records of all placed and running jobs."""
        leased: Any = self.redis.smembers(keys.LEASES)
        return self.get_many(sorted(leased))

    def leases(self) -> list[Lease]:
        """Return the leases of all placed and running jobs: cheap enough for every second."""
        jobs: Any = sorted(self.redis.smembers(keys.LEASES))
        pipe = self.redis.pipeline(transaction=False)
        for job in jobs:
            pipe.hmget(keys.job(job), *LEASE_FIELDS)
        found = [read_lease(job, raw) for job, raw in _answered(jobs, pipe)]
        return [lease for lease in found if lease]

    def leases_of(self, hosts: Sequence[str]) -> list[Lease]:
        """Return the leases of some hosts: its cost is theirs, however many the fleet has."""
        answers = self._scripts["leases"](keys=[*map(keys.places, hosts)], args=LEASE_FIELDS)
        found = [read_lease(job, raw or [None] * len(LEASE_FIELDS)) for job, raw in answers]
        return [lease for lease in found if lease and lease.host in hosts]

    def hosts_with_leases(self) -> set[str]:
        """Return the names of all hosts that hold a lease, also of those that are gone."""
        return set(self.redis.hvals(keys.PLACES))  # type: ignore[arg-type]

    def renew_places(self) -> None:
        """Have the index of the places made anew by the next script that looks at it.

        Scripts notice a wrong number by themselves. Workers of an older version, which do not
        write it, can leave a right number of wrong ones, and a key of it may be lost.
        """
        self.redis.hset(keys.PLACES, "", "")  # a number that is noticed

    # -- the dispatcher's calls

    def begin_pass(self) -> bool:
        """Become the one that makes dispatch passes, for PASS_S; False: another one is."""
        return bool(self._pass.acquire(blocking=False))

    def keep_pass(self) -> bool:
        """Make dispatch passes for PASS_S from now on; False: it took longer, and it is over."""
        from redis.exceptions import LockError

        try:
            return bool(self._pass.reacquire())
        except LockError:
            return False

    def end_pass(self) -> None:
        """Let others make dispatch passes."""
        from redis.exceptions import LockError

        with contextlib.suppress(LockError):
            self._pass.release()

    def is_requested(self) -> bool:
        """Return whether a dispatch pass has been asked for since the last one began."""
        return bool(self.redis.exists(keys.DISPATCH_REQUESTED))

    def place(self, plan: Placement, random: str = "", *, mixed: bool = False) -> tuple[str, str]:
        """Carry out a placement; return (token, '') or ('', why it no longer holds).

        `mixed`: workers of an older version place as well, and do not write the index of places.
        """
        token, why = self._run(
            "place",
            plan.job,
            plan.version,
            plan.instance,
            plan.host,
            plan.slot,
            json.dumps(plan.gpus),
            random or secrets.token_hex(8),
            HOST_LOST_S,
            int(mixed),
            extra_keys=[keys.host(plan.host)],
        )
        return str(token), str(why)

    def awaited(self, records: Sequence[JobRecord]) -> dict[str, str]:
        """Return who has what some jobs wait for: owner by job; others are left out."""
        wanted = {it.id: lock for it in records if (lock := it.awaits)}
        if not wanted:
            return {}
        jobs = list(wanted)
        pipe = self.redis.pipeline(transaction=False)
        for job in jobs:
            pipe.get(wanted[job])
        held = {job: str(text or "").partition(" ") for job, text in _answered(jobs, pipe)}
        owners = sorted(filter(keys.is_job_id, {owner for owner, _, _ in held.values()}))
        tokens = {it.id: it.token for it in self.get_many(owners)}
        return {
            job: owner
            for job, (owner, _, token) in held.items()
            if owner != job and token and tokens.get(owner) == token
        }

    def say_waiting(self, job: str, reason: str, unblock: str) -> None:
        """Tell watchers why a job is not placed; says nothing twice in a row."""
        self._run("wait", job, reason, unblock)

    def first_to_request(self) -> bool:
        """Ask for a dispatch pass; return whether the caller has to send the message for it."""
        return bool(self.redis.set(keys.DISPATCH_REQUESTED, "1", nx=True, ex=DISPATCH_TTL_S))

    def server(self) -> Server:
        """Return which start of the broker this is, and how long ago it was."""
        from redis.exceptions import ResponseError

        try:
            info: Any = self.redis.info("server")
            return Server(str(info["run_id"]), float(info["uptime_in_seconds"]))
        except (ResponseError, KeyError) as error:  # no right to it, or it has another name
            extra = {"action": "info_refused"}
            words = "the broker does not answer INFO, so its restarts are not noticed: %s"
            log.log(self._no_info, words, error, extra=extra)
            self._no_info = logging.DEBUG  # it is asked every few seconds
            return Server("", float("inf"))

    def take_request(self) -> None:
        """Begin a dispatch pass, before it reads: what changes from here on asks for another."""
        self.redis.delete(keys.DISPATCH_REQUESTED)

    # -- the owner's calls; all take the token and are refused when it is stale

    def claim(
        self, job: str, token: str, *, nonce: str, instance: str, storage_id: str
    ) -> Literal["ok", "cancelled", "stale"]:
        """Take the phase that was placed here; the same nonce gets the same answer."""
        answer: Literal["ok", "cancelled", "stale"] = self._run(
            "claim", job, token, nonce, instance, storage_id, RECORD_VERSION
        )
        return answer

    def renew(self, leases: Mapping[str, str]) -> dict[str, str]:
        """Renew leases (job -> token) in one round trip.

        The answer for each is 'ok', 'cancel' (asked for), 'unclaimed' (the broker has lost the
        claim) or 'stale'. There is none for a damaged record; it does not harm the others.
        """
        answers = self._scripts["renew"](keys=[*map(keys.job, leases)], args=[*leases.values()])
        found = {}
        for job, answer in zip(leases, answers, strict=True):
            if isinstance(answer, str):
                found[job] = answer
            else:
                _say_damaged(job, answer[0])
        return found

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
        """Store events `first`, `first`+1 ... of this token; return (last stored, status).

        `when_full`: also in a broker that is full, for the last events of a phase that has ended.
        """
        name = "append_when_full" if when_full else "append"
        flags = "".join("k" if keep else "-" for keep in milestones)
        stored, status = self._run(
            name, job, token, first, flags, json.dumps(fields or {}), *bodies
        )
        return int(stored), status

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
        """Store events of `before`, the claim before this one, which it could not send any more.

        Returns as `append` does. It is 'stale' as well after this claim's own first event.
        """
        flags = "".join("k" if keep else "-" for keep in milestones)
        stored, status = self._run("append_rest", job, token, before, first, flags, *bodies)
        return int(stored), status

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
        """End the phase, or the job."""
        stored, exit_code = ending(outcome, error, fields)
        answer: Literal["ok", "stale"] = self._run(
            "finish", job, token, outcome, next_phase or "", json.dumps(stored), exit_code
        )
        return answer

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
        """Give the phase back; it may cost an attempt, and start over from another `phase`.

        It gets no place before nobody else has the lock on `awaits`, and has that lock then.
        """
        answer: Interruption = self._run(
            "requeue",
            job,
            token,
            reason,
            int(counts_attempt),
            phase or "",
            keys.lock(awaits) if awaits else "",
        )
        return answer

    def reap(self, job: str, token: str, renewals: int, reason: str) -> Interruption:
        """Take a phase from an owner that was silent for a whole lease time."""
        answer: Interruption = self._run("reap", job, token, renewals, reason)
        return answer

    def lock(self, job: str, token: str, what: str) -> tuple[Literal["ok", "busy", "stale"], str]:
        """Take a lock of the fleet for as long as the token holds; return (answer, its owner)."""
        answer, owner = self._run("lock", job, token, keys.lock(what))
        return answer, str(owner)

    def sealed_secrets(self, job: str) -> str:
        """Return the job's sealed box, '' when it has none."""
        return str(self.redis.get(keys.secret(job)) or "")


def ending(
    outcome: Outcome, error: ErrorInfo | None, fields: Mapping[str, str] | None
) -> tuple[dict[str, str], int]:
    """Return what a finish writes into the record, and the job's exit code if it ends there."""
    failed = {"error": json.dumps(error.to_json())} if error else {}
    code = {"succeeded": 0, "cancelled": 4}.get(outcome, error.exit_code if error else 1)
    return {**(fields or {}), **failed}, int(code)


def no_such_job(job: str) -> NoSuchJob:
    """Return the error for an id or prefix that names no job."""
    return NoSuchJob(f"there is no job {job}", hint="`ftq list -a` shows all jobs")


def only_one(prefix: str, found: Sequence[str]) -> str:
    """Return the one job that a prefix fits; raises NoSuchJob when it fits none or several."""
    if not found:
        raise no_such_job(prefix)
    if len(found) == 1:
        return found[0]
    raise NoSuchJob(
        f"{prefix} fits {len(found)} jobs: {', '.join(found[:10])}",
        code="ambiguous_job",
        hint="give more characters of the id",
    )


@contextlib.contextmanager
def _damage_in_words(job: str) -> Iterator[None]:
    """Raise FtqError (`record_damaged`) for what is wrong with the record of this one job."""
    from redis.exceptions import ResponseError

    try:
        yield
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise damaged(job, error) from error
    except ResponseError as error:
        if is_damage(error):
            raise damaged(job, error) from error
        raise


def _answered(jobs: Sequence[str], pipe: "Pipeline") -> Iterator[tuple[str, Any]]:
    """Run one call for each job, in one round trip; leave out, with a word, what is damaged.

    Any other error of the server is raised, and so are those of the connection.
    """
    for job, answer in zip(jobs, pipe.execute(raise_on_error=False), strict=True):
        if not isinstance(answer, Exception):
            yield job, answer
        elif is_damage(answer):
            _say_damaged(job, answer)
        else:
            raise answer


def _say_damaged(job: str, why: object) -> None:
    extra = {"action": "record_damaged", "job": job}
    log.warning("record %s is damaged: %s", job, why, extra=extra)
