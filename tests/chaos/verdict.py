"""The judge: what must hold after a storm, each line checked on what is really there."""

import itertools
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from ftq_shared import keys
from ftq_shared.errors import Exit
from ftq_shared.events import Event
from ftq_shared.job_record import JobRecord
from tests.chaos.fleet import Fleet, journal, read_lines
from tests.chaos.storm import Storm

# Keys that live as long as the fleet; all others belong to a job and must have a time to live.
FLEET_KEYS = re.compile(r"ftq:(jobs|hosts|queues|fleet|inputs)$|ftq$|ftq\x06|ftq\.host\.|_kombu\.")


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
            f"  {what:<46} {count:6d} looked at   {len(self.findings.get(what, ())):4d} wrong"
            for what, count in self.looked_at.items()
        ]
        return "\n".join(lines)


def judge(storm: Storm) -> Verdict:
    """Look at records, events, storage, processes and watchers, after `Storm.run`."""
    verdict = Verdict()
    client, fleet = storm.client, storm.fleet
    records = {record.id: record for record in client.store.get_many(list(storm.jobs))}
    for job in storm.jobs.values():
        record = records.get(job.id)
        verdict.check("jobs: known to the broker (0 lost)", record is not None, job)
        if record:
            ok = record.state in job.allowed()
            verdict.check("jobs: ended in the right state", ok, (job, record.state, record.error))
    for record in records.values():
        _events(verdict, storm, record)
        _owners(verdict, storm, record)
    _published(verdict, fleet)
    _watchers(verdict, storm, records)
    _keys(verdict, storm)
    return verdict


def judge_end(verdict: Verdict, storm: Storm, codes: dict[str, int]) -> None:
    """Look at what is left after all workers were drained."""
    left = storm.fleet.left_over()
    verdict.check("processes: none left", not left, left)
    for name, code in codes.items():
        verdict.check("workers: drained with exit code 0", code == 0, (name, code))
    for code in storm.drain_codes:
        # 75: the broker was away, or the drained worker was frozen or cut off meanwhile.
        verdict.check("workers: drained in the storm with 0 or 75", code in (0, 75, -9), code)


def _events(verdict: Verdict, storm: Storm, record: JobRecord) -> None:
    """Numbers without a hole, and an end that says what the record says."""
    stored: Any = storm.client.redis.xrange(keys.events(record.id))
    events = [Event.from_json(fields["e"]) for _, fields in stored]
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


def _owners(verdict: Verdict, storm: Storm, record: JobRecord) -> None:
    """Never two owners at work: what one did lies before what the next one did."""
    entries = journal(storm.fleet.root, record.id)
    by_claim: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        by_claim[str(entry["claim"])].append(float(str(entry["t"])))
    spans = sorted((min(times), max(times), claim) for claim, times in by_claim.items())
    for before, after in itertools.pairwise(spans):
        detail = (record.id, before, after)
        verdict.check("owners: none at work beside another", before[1] < after[0], detail)


def _published(verdict: Verdict, fleet: Fleet) -> None:
    """At most one push a job, and pushes to one repo one after the other."""
    for repo in (fleet.root / "fake-hub").glob("*.jsonl"):
        pushed = Counter(str(commit["job"]) for commit in read_lines(repo))
        for job, count in pushed.items():
            verdict.check("publish: one push a job", count == 1, (repo.name, job, count))


def _watchers(verdict: Verdict, storm: Storm, records: dict[str, JobRecord]) -> None:
    """Everybody who watched saw 1, 2, 3 ... and the right end."""
    last_rollback = max(storm.rollbacks, default=0.0)
    for watcher in storm.watchers:
        record = records.get(watcher.job)
        if not record:  # lost with the broker's last second, and submitted under another id
            continue
        seqs = watcher.seqs
        whole = seqs == list(range(1, len(seqs) + 1)) and not watcher.error
        verdict.check("tails: 1, 2, 3 ... (SDK)", whole, (watcher.job, watcher.error, seqs[-5:]))
        job = storm.jobs[watcher.job]
        if watcher.ended > last_rollback and not job.retried:
            # Through a rollback one may have seen higher numbers than were issued again.
            more = len(seqs) > record.seq and watcher.started < last_rollback
            good = len(seqs) == record.seq or more
            verdict.check("tails: up to N (SDK)", good, (watcher.job, len(seqs), record.seq))
    for terminal in storm.terminals:
        record = records.get(terminal.job)
        if not record:
            continue
        code, seqs = terminal.process.returncode, terminal.seqs()
        if code == Exit.BROKER and not seqs:
            continue  # typed while the broker was down: it said so and was not there to watch
        whole = seqs == list(range(1, len(seqs) + 1))
        verdict.check("tails: 1, 2, 3 ... (ftq tail)", whole, (terminal.job, seqs[-5:]))
        job = storm.jobs[terminal.job]
        if not job.retried:
            right = {record.exit_code}
            if job.cancelled and storm.rollbacks:  # the broker may have forgotten the cancel
                right.add(int(Exit.CANCELLED))
            verdict.check("tails: the job's exit code", code in right, (record.id, code, right))


def _keys(verdict: Verdict, storm: Storm) -> None:
    """No key without an owner or a time to live, no lease, no slot."""
    redis = storm.client.redis
    verdict.check("keys: no lease, so no slot, left", not redis.smembers(keys.LEASES), "leases")
    verdict.check("keys: nothing queued", not redis.zcard(keys.QUEUE), "queue")
    for key in redis.scan_iter(count=1000):
        owned = bool(FLEET_KEYS.match(str(key))) or int(redis.ttl(key)) >= 0  # type: ignore[arg-type]
        verdict.check("keys: owned or with a time to live", owned, key)


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
