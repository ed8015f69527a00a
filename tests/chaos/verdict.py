"""The judge: what must hold after a storm, each line checked on what is really there."""

import contextlib
import itertools
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ftq_shared import keys
from ftq_shared.errors import Exit
from ftq_shared.events import Event
from ftq_shared.job_record import JobRecord
from ftq_worker.agent.outbox import read_bodies
from tests.chaos import faults
from tests.chaos.fleet import Fleet, claimed, journal, read_lines, wait_for
from tests.chaos.jobs import Job, wishes
from tests.chaos.storm import Storm

# Keys that live as long as the fleet; all others belong to a job and must have a time to live.
FLEET_KEYS = re.compile(r"ftq:(jobs|hosts|queues|fleet|inputs)$|ftq$|ftq\x06|_kombu\.")
HOST_QUEUE = re.compile(r"ftq\.host\.[^\x06]+")
PARTS = 4  # processes of a worker that does nothing: supervisor, agent, Celery, zygote
SENDING_S = 2.0  # from the last step to the end of the phase at the broker
CLOCK_S = 0.02  # the broker's clock is read in milliseconds, and compared over two readings


class Span(NamedTuple):
    """When a claim was at work, monotonic."""

    first: float
    last: float
    claim: str
    phase: str


@dataclass
class Verdict:
    """Findings by what was looked at; empty lists are good."""

    findings: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    looked_at: Counter[str] = field(default_factory=Counter)

    def check(self, what: str, ok: bool, detail: object) -> None:
        self.looked_at[what] += 1
        if not ok:
            self.findings[what].append(str(detail))

    def table(self) -> str:
        lines = [
            f"  {what:<50} {count:6d} looked at   {len(self.findings.get(what, ())):4d} wrong"
            for what, count in self.looked_at.items()
        ]
        return "\n".join(lines)


def judge(storm: Storm) -> Verdict:
    """Look at records, events, storage, processes and watchers, after `Storm.run`."""
    verdict = Verdict()
    _faults(verdict, storm)
    _processes(verdict, storm.fleet)
    pushes = _published(verdict, storm)
    events: dict[str, list[Event]] = {}
    records = {r.id: r for r in storm.client.store.get_many(list(storm.jobs))}
    for job in storm.jobs.values():
        record = records.get(job.id)
        verdict.check("jobs: known to the broker (0 lost)", record is not None, job)
        if record:
            _state(verdict, storm, job, record)
            events[job.id] = list(storm.client.tail(job.id))
            _events(verdict, storm, record, events[job.id])
            spans = _spans(storm.fleet, job.id, pushes.get(job.id, []))
            _owners(verdict, storm, spans, events[job.id])
            _steps(verdict, storm, job, spans, events[job.id])
            _pushed(verdict, record, events[job.id], pushes.get(job.id, []))
    _watchers(verdict, storm, records, events)
    _terminals(verdict, storm, records)
    _keys(verdict, storm)
    return verdict


def judge_end(verdict: Verdict, storm: Storm, codes: dict[str, int]) -> None:
    """Look at what is left after all workers were drained."""
    left = storm.fleet.left_over()
    verdict.check("processes: none left after the drain", not left, left)
    for name, code in codes.items():
        verdict.check("workers: drained with exit code 0", code == 0, (name, code))
    for code in storm.drain_codes:
        # 75: the broker was away, or the drained worker was frozen or cut off meanwhile.
        right = code in (0, 75) or (code == -9 and storm.done["kill_supervisor"])
        verdict.check("workers: drained in the storm with 0 or 75", bool(right), code)


def _faults(verdict: Verdict, storm: Storm) -> None:
    """A storm that broke little proves little."""
    for fault in faults.ALL:
        if fault is faults.fill_disk and not storm.small_disk:
            continue  # said at the start
        name = fault.__name__  # type: ignore[attr-defined]
        verdict.check("faults: every kind there is", bool(storm.done[name]), name)


def _processes(verdict: Verdict, fleet: Fleet) -> None:
    """Before anything is stopped: nothing that a phase has started is still there."""

    client = fleet.client()

    def busy() -> list[object]:
        left = fleet.left_over()
        hosts = [(host.name, host.running) for host in client.workers() if host.running]
        return [*hosts, *(left if len(left) != PARTS * len(fleet.workers) else [])]

    with contextlib.suppress(AssertionError):  # what is restarted last, and heartbeats
        wait_for(lambda: not busy(), 40.0, every_s=1.0)
    left = busy()
    verdict.check("processes: four a worker, and nothing runs, at the end", not left, left)


def _state(verdict: Verdict, storm: Storm, job: Job, record: JobRecord) -> None:
    """The right state, for the right reason, and a cancel that was granted is kept."""
    if job.surely and storm.rolled_back(job.cancelled_at, job.cancelled_at):
        job.surely = False  # said, and forgotten
    end = (record.state, record.error.code if record.error else "")
    verdict.check("jobs: ended in the right state", end in job.allowed(), (job, end))


def _events(verdict: Verdict, storm: Storm, record: JobRecord, events: list[Event]) -> None:
    """Numbers without a hole, nothing missing, and an end that says what the record says."""
    seqs = [event.seq for event in events]
    good = seqs == list(range(1, record.seq + 1))
    verdict.check("events: seq is 1..N without a hole", good, (record.id, record.seq, seqs[-5:]))
    runs: list[list[int]] = [[]]
    for event in events:
        if event.type == "phase_started":
            runs.append([])
        elif event.type == "step":
            runs[-1].append(int(event.data["step"]))
    for steps in runs:
        each = steps == list(range(steps[0], steps[-1] + 1)) if steps else True
        verdict.check("events: the steps of a run, each once, in order", each, (record.id, steps))
    ends = [event for event in events if "outcome" in event.data]
    last = ends[-1].data["outcome"] if ends else None
    verdict.check("events: the last outcome is the record's", last == record.state, record.id)
    owner, began = "", False
    for event in events:
        if event.type == "state":
            owner, began = event.host if event.data["state"] == "running" else "", False
        elif owner and event.host:
            began = began or event.host == owner  # before: what the claim before could not send
            same = event.host == owner or not began
            verdict.check("events: between two states of one host", same, (record.id, event))
    for missing in _never_sent(storm.fleet, record, events):
        verdict.check("events: what a finished phase wrote was sent", False, missing)
    verdict.looked_at["events: what a finished phase wrote was sent"] += 1


def _never_sent(fleet: Fleet, record: JobRecord, events: list[Event]) -> list[tuple[str, str]]:
    """Return what stands in the file of a claim whose last event is in the stream, and is not."""
    sent = {json.dumps([e.type, e.time, e.data], sort_keys=True) for e in events}
    missing = []
    for path in _folders(fleet, record.id, "attempts/*/events.jsonl"):
        bodies = [json.loads(line) for line in read_bodies(path)]
        told = [json.dumps([x["type"], x["time"], x["data"]], sort_keys=True) for x in bodies]
        if told and told[-1] in sent:
            missing += [(str(path), line) for line in told if line not in sent]
    return missing


def _folders(fleet: Fleet, job: str, pattern: str) -> list[Path]:
    """Return what fits below a job's folder, in whatever storage it is."""
    roots = {worker.storage for worker in fleet.workers.values()}
    return [path for root in roots for path in (root / "jobs" / job).glob(pattern)]


def _owners(verdict: Verdict, storm: Storm, spans: Sequence[Span], events: Sequence[Event]) -> None:
    """Never two owners at work: what one did lies before the next one's claim.

    What one did: its journal, its commits, and the checkpoints that are in the storage.
    """
    running = claimed(events)
    for before, after in itertools.pairwise(spans):
        detail = (before, after)
        rival = before.phase == after.phase
        what = "of one phase" if rival else "of one job"
        apart = before.last < after.first
        verdict.check(f"owners {what}: none at work beside another", apart, detail)
        claims = [at for at in running if at <= after.first + CLOCK_S]
        if rival and claims and not storm.rolled_back(claims[-1], after.last):
            late = before.last < claims[-1] + CLOCK_S
            verdict.check("owners of one phase: the claim comes after the work", late, detail)


def _steps(
    verdict: Verdict, storm: Storm, job: Job, spans: Sequence[Span], events: Sequence[Event]
) -> None:
    """Every step of a job that succeeded was told, unless the broker has forgotten it since."""
    trains = [span for span in spans if span.phase == "train"]
    if storm.small_disk and (storm.small_disk / "jobs" / job.id).exists():
        return  # one host alone can read its files: what it could not send stays there
    if not trains or any(storm.rolled_back(s.first, s.last + SENDING_S) for s in trains):
        return
    told = {e.data["step"] for e in events if e.type == "step"}
    if any(e.data["state"] == "succeeded" for e in events if e.type == "state"):
        every = told == set(range(1, int(wishes(job.spec.name)["steps"]) + 1))
        verdict.check("events: every step that was taken", every, (job.id, trains, sorted(told)))


def _spans(fleet: Fleet, job: str, pushes: list[dict[str, Any]]) -> list[Span]:
    """Return when each claim of a job was at work, in order."""
    times: dict[str, list[float]] = defaultdict(list)
    phases: dict[str, str] = {}
    for entry in journal(fleet.root, job):
        times[entry["claim"]].append(entry["t"])
        phases[entry["claim"]] = entry["phase"]
    for commit in pushes:
        times[commit["claim"]].append(commit["t"])
    offset = time.time() - time.monotonic()
    for manifest in _folders(fleet, job, "attempts/*/checkpoints/*/manifest.json"):
        times[manifest.parents[2].name].append(manifest.stat().st_mtime - offset)
    return sorted(
        Span(min(at), max(at), claim, phases.get(claim, "")) for claim, at in times.items()
    )


def _published(verdict: Verdict, storm: Storm) -> dict[str, list[dict[str, Any]]]:
    """At most one push a job, and pushes to one repo one after the other; returns them by job."""
    by_job: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for repo in (storm.fleet.root / "fake-hub").glob("*.jsonl"):
        commits = read_lines(repo)
        for commit in commits:
            by_job[commit["job"]].append(commit)
        for one, two in itertools.pairwise(sorted((c["began"], c["t"], c["job"]) for c in commits)):
            # A broker that goes back forgets locks as well; then the commit's parent must match.
            apart = one[1] <= two[0] or storm.rolled_back(one[0], two[1])
            verdict.check("publish: one after the other to a repo", apart, (repo.name, one, two))
    for job, commits in by_job.items():
        verdict.check("publish: one push a job", len(commits) == 1, (job, commits))
    return by_job


def _pushed(
    verdict: Verdict, record: JobRecord, events: list[Event], pushes: list[dict[str, Any]]
) -> None:
    """A job that succeeded was pushed, and says where."""
    if record.state == "succeeded":
        verdict.check("publish: a push for each that succeeded", len(pushes) == 1, record.id)
    said = {event.data["revision"] for event in events if event.type == "published"}
    verdict.check("publish: one revision in all that is said", len(said) <= 1, (record.id, said))


def _watchers(
    verdict: Verdict,
    storm: Storm,
    records: dict[str, JobRecord],
    events: dict[str, list[Event]],
) -> None:
    """Everybody who watched saw 1, 2, 3 ... and the right end."""
    for watcher in storm.watchers:
        seqs = watcher.seqs
        ended = watcher.ended > 0 and not watcher.error
        verdict.check("tails: came to an end (SDK)", ended, (watcher.job, watcher.error))
        whole = seqs == list(range(1, len(seqs) + 1))
        verdict.check("tails: 1, 2, 3 ... (SDK)", whole, (watcher.job, seqs[-5:]))
        record = records.get(watcher.job)
        if not record or storm.rolled_back(watcher.started, watcher.ended):
            continue  # it may have seen what the broker then forgot
        outcomes = {e.seq: e.data["outcome"] for e in events[record.id] if "outcome" in e.data}
        said = (watcher.job, len(seqs), record.seq, watcher.outcome)
        right = bool(seqs) and outcomes.get(seqs[-1]) == watcher.outcome
        verdict.check("tails: ended with an outcome of the job (SDK)", right, said)
        if not storm.jobs[watcher.job].retried:
            good = len(seqs) == record.seq and watcher.outcome == record.state
            verdict.check("tails: up to N (SDK)", good, said)


def _terminals(verdict: Verdict, storm: Storm, records: dict[str, JobRecord]) -> None:
    """The same of those who typed `ftq tail`, and its exit code."""
    for terminal in storm.terminals:
        code, seqs = terminal.process.returncode, terminal.seqs()
        if code == Exit.BROKER and not seqs:
            continue  # typed while the broker was down: it said so and was not there to watch
        whole = seqs == list(range(1, len(seqs) + 1))
        verdict.check("tails: 1, 2, 3 ... (ftq tail)", whole, (terminal.job, seqs[-5:]))
        record = records.get(terminal.job)
        if not record:  # lost with the broker's last second, and submitted under another id
            lost = code == Exit.NO_SUCH_JOB
            verdict.check("tails: of a lost job say so (ftq tail)", lost, (terminal.job, code))
            continue
        through = storm.rolled_back(terminal.started, time.monotonic())
        if through or storm.jobs[terminal.job].retried:
            continue
        verdict.check("tails: the job's exit code", code == record.exit_code, (record.id, code))
        whole = len(seqs) == record.seq
        verdict.check("tails: up to N (ftq tail)", whole, (record.id, len(seqs), record.seq))


def _keys(verdict: Verdict, storm: Storm) -> None:
    """No key without an owner or a time to live, no lease, no slot."""
    redis: Any = storm.client.redis
    verdict.check("keys: no lease, so no slot, left", not redis.smembers(keys.LEASES), "leases")
    verdict.check("keys: nothing queued", not redis.zcard(keys.QUEUE), "queue")
    verdict.check("keys: no inputs waited for", not redis.zcard("ftq:inputs"), "inputs")
    jobs = set(redis.zrange(keys.JOBS, 0, -1))
    queues = set(redis.zrange(keys.QUEUES, 0, -1))
    for key in redis.scan_iter(count=1000):
        queue = HOST_QUEUE.search(key)
        owned = queue.group() in queues if queue else bool(FLEET_KEYS.match(key))
        verdict.check("keys: owned or with a time to live", owned or redis.ttl(key) != -1, key)
        if key.startswith("ftq:job:"):
            known = key.removeprefix("ftq:job:") in jobs
            verdict.check("keys: every record is in the list of jobs", known, key)


def as_json(storm: Storm, verdict: Verdict) -> str:
    """Return the figures of a run, for whoever compares runs."""
    return json.dumps(
        {
            "seed": storm.seed,
            "jobs": len(storm.jobs),
            "faults": sum(storm.done.values()),
            "by_fault": dict(storm.done),
            "wrong": {what: len(found) for what, found in verdict.findings.items()},
        }
    )
