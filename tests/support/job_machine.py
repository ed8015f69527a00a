"""Random histories of all calls, on a real broker and on its twin in memory.

Every call is sent once, sent twice, sent and its answer lost (its sender repeats it later), or held
up (it arrives when others have run). The broker's clock steps, and the broker goes back in time.
"""

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ftq_shared import keys
from ftq_shared.errors import ErrorInfo
from ftq_shared.events import EventType, make_body
from ftq_shared.job_record import RECORD_VERSION, JobRecord, Replay
from ftq_shared.lifetimes import INPUTS_TTL_S
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_shared.store import Placement
from tests.support.broker_view import Offer, World
from tests.support.job_history import History


def _spec(max_attempts: int, priority: str) -> JobSpec:
    resources = {"max_attempts": max_attempts, "priority": priority}
    raw = {"model": "org/model", "dataset": "org/data", "resources": resources}
    return JobSpec.model_validate(raw)


SPECS = {
    "ft-aaaaaaaa": _spec(1, "low"),
    "ft-bbbbbbbb": _spec(2, "normal"),
    "ft-cccccccc": _spec(3, "normal"),
}
JOBS = sorted(SPECS)
GPUS = {"h1": ("GPU-a",), "h2": ("GPU-b", "GPU-c")}

a_job = st.sampled_from(JOBS)
one_of_jobs = st.integers(0, len(JOBS) - 1)
a_host = st.sampled_from(sorted(GPUS))
a_mode = st.sampled_from(["once", "once", "once", "twice", "lost", "held up"])
maybe = st.booleans()
rarely = st.sampled_from([False, False, False, True])


class JobMachine(RuleBasedStateMachine):
    """The rules. `world` is set by `machine_on`."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.history = History(self.world)
        self.send = self.history.send
        self.instances = dict.fromkeys(GPUS, 0)

    @property
    def jobs(self) -> dict[str, JobRecord]:
        return self.history.jobs()

    def in_state(self, state: str) -> list[JobRecord]:
        return [job for job in self.jobs.values() if job.state == state]

    # -- a good way

    @initialize(slots=st.integers(1, 2), far=st.tuples(*[st.integers(0, 7)] * len(JOBS)))
    def start(self, slots: int, far: tuple[int, ...]) -> None:
        """Two hosts, and jobs that are somewhere on their way."""
        for name in GPUS:
            self._beat(name, slots, "once")
        for job, steps in zip(JOBS, far, strict=True):
            for _ in range(steps):
                self._go_on(job, "once")

    @rule(job=a_job, steps=st.integers(1, 4), mode=a_mode)
    def go_on(self, job: str, steps: int, mode: str) -> None:
        """All goes well for a while: without this, few histories would get far."""
        for _ in range(steps - 1):
            self._go_on(job, "once")
        self._go_on(job, mode)

    def _go_on(self, job: str, mode: str) -> None:
        """Do what comes next for a job."""
        jobs = self.jobs
        it = jobs.get(job)
        if not it:
            self._submit(job, job, "box", mode)
        elif it.state.terminal:
            nonce = f"again {self.history.calls}"
            self.send(mode, "retry", job, it.phase, sealed="box", nonce=nonce)
        elif it.state == "queued":
            name = min(GPUS, key=lambda n: sum(other.host == n for other in jobs.values()))
            self._beat(name, self._slots(name), "once")
            gpus = GPUS[name][:1] if it.phase is Phase.TRAIN else ()
            self._place(job, name, self._instance(name), gpus, 0, mode)
        elif it.state == "placed":
            self._claim(it, mode, it.instance)
        elif (stored := int(it.summary["ordinal"])) < 4:
            self._append(job, it.token, stored + 1, 2, keep=True, mode=mode)
        else:
            self._finish(job, it.token, "next" if it.phase.next else "succeeded", mode)

    @precondition(lambda self: self.in_state("running"))
    @rule(which=one_of_jobs, reaped=maybe, steps=st.integers(0, 3), mode=a_mode)
    def stumble(self, which: int, reaped: bool, steps: int, mode: str) -> None:
        """An attempt dies, and the job goes on from there."""
        running = self.in_state("running")
        it = running[which % len(running)]
        if reaped:
            self.send(mode, "reap", it.id, it.token, it.renewals, "silent")
        else:
            self.send(mode, "requeue", it.id, it.token, "died", counts_attempt=True, phase=None)
        for _ in range(steps):
            self._go_on(it.id, "once")

    # -- hosts

    @rule(name=a_host, mode=a_mode, draining=rarely, full=rarely, newer=maybe)
    def heartbeat(self, name: str, mode: str, draining: bool, full: bool, newer: bool) -> None:
        flags = {
            "draining": str(int(draining)),
            "full": str(int(full)),
            "record_version": str(RECORD_VERSION + newer),
        }
        self._beat(name, self._slots(name), mode, **flags)

    @rule(name=a_host, mode=a_mode, slots=st.integers(1, 2), knows=maybe)
    def restart(self, name: str, mode: str, slots: int, knows: bool) -> None:
        """A new instance; it may know that the old one is dead."""
        old = self._instance(name)
        self.instances[name] += 1
        self.history.offers[self._instance(name)] = Offer(slots, GPUS[name])
        self._beat(name, slots, mode, replaces=old if knows else "")

    @rule(name=a_host, mode=a_mode)
    def drain(self, name: str, mode: str) -> None:
        self.send(mode, "drain", name)

    @rule(name=a_host, mode=a_mode, back=st.integers(0, 1))
    def leave(self, name: str, mode: str, back: int) -> None:
        self.send(mode, "leave", name, self._instance(name, back))

    def _instance(self, name: str, back: int = 0) -> str:
        return f"{name}-{max(0, self.instances[name] - back)}"

    def _slots(self, name: str) -> int:
        return self.history.offers.get(self._instance(name), Offer(1, ())).slots

    def _beat(self, name: str, slots: int, mode: str, replaces: str = "", **flags: str) -> None:
        fields = {
            "slots": slots,
            "gpus": [{"uuid": gpu, "name": "Test", "memory_gb": 10.0} for gpu in GPUS[name]],
            "storage_id": "s1",
            "draining": "0",
            "full": "0",
            "record_version": str(RECORD_VERSION),
        }
        self.send(mode, "heartbeat", name, self._instance(name), replaces, fields | flags)

    # -- the client

    @rule(job=a_job, other=rarely, sealed=maybe, inputs=rarely, mode=a_mode)
    def submit(self, job: str, other: bool, sealed: bool, inputs: bool, mode: str) -> None:
        if inputs and job not in self.jobs:
            self._send_inputs(job)
        key = JOBS[JOBS.index(job) - 1] if other else job
        self._submit(job, key, "box" if sealed else "", mode)

    def _submit(self, job: str, key: str, sealed: str, mode: str) -> None:
        options = {"client_key": key, "owner": "me", "endpoint": "", "sealed": sealed}
        self.send(mode, "submit", job, SPECS[job], **options)

    @rule(job=a_job, of=a_job, bound=maybe, mode=a_mode)
    def replay(self, job: str, of: str, bound: bool, mode: str) -> None:
        """A step of another job is repeated: in its storage, from the train phase on."""
        again = Replay(of, 7, "s1" if bound else "", 1)
        options = {"client_key": job, "owner": "me", "endpoint": "", "replay": again}
        self.send(mode, "submit", job, SPECS[job], **options)

    def _send_inputs(self, job: str) -> None:
        """Do what `transfer.routes.send_inputs` does before a submit."""
        redis = self.world.redis
        redis.hset(keys.inputs(job), "sha", "bytes")
        redis.expire(keys.inputs(job), INPUTS_TTL_S)
        redis.zadd(keys.INPUT_SIZES, {job: 5})
        self.history.inputs.add(job)
        self.history.look()  # a submit that is held up would leave them out of the next memory

    @rule(job=a_job, mode=a_mode)
    def cancel(self, job: str, mode: str) -> None:
        self.send(mode, "cancel", job)

    @rule(
        job=a_job,
        phase=st.sampled_from(list(Phase)),
        sealed=st.sampled_from(["", "box"]),
        afresh=maybe,
        old_nonce=maybe,
        rows=st.sampled_from(["", '{"rows.jsonl":[3]}']),
        mode=a_mode,
    )
    def retry(
        self,
        job: str,
        phase: Phase,
        sealed: str,
        afresh: bool,
        old_nonce: bool,
        rows: str,
        mode: str,
    ) -> None:
        nonce = "old" if old_nonce else f"new {self.history.calls}"
        options = {"sealed": sealed, "nonce": nonce, "afresh": afresh, "without_rows": rows}
        self.send(mode, "retry", job, phase, **options)

    @precondition(lambda self: self.in_state("placed") or self.in_state("queued"))
    @rule(which=one_of_jobs)
    def upgrade(self, which: int) -> None:
        """A newer client writes the record, or an older one writes it back."""
        jobs = self.in_state("placed") or self.in_state("queued")
        it = jobs[which % len(jobs)]
        self.history.write_version(it.id, RECORD_VERSION + (it.record_version <= RECORD_VERSION))
        self.history.look()

    # -- the dispatcher

    @precondition(lambda self: self.in_state("queued"))
    @rule(name=a_host, gpus=st.integers(0, 2), which=one_of_jobs, mode=a_mode)
    def place(self, name: str, gpus: int, which: int, mode: str) -> None:
        """A plan that saw job and host as they are."""
        queued = self.in_state("queued")
        job = queued[which % len(queued)].id
        host = self.history.twin.held.hosts.get(name)
        instance = host.record.instance if host else self._instance(name)
        self._place(job, name, instance, GPUS[name][:gpus], 0, mode)

    @rule(
        job=a_job,
        name=a_host,
        gpus=st.integers(0, 2),
        back=st.integers(0, 1),
        behind=st.integers(0, 2),
        mode=a_mode,
    )
    def place_late(self, job: str, name: str, gpus: int, back: int, behind: int, mode: str) -> None:
        """A plan that is older than the job, the host, or both."""
        instance = self._instance(name, back)
        self._place(job, name, instance, GPUS[name][-gpus:] if gpus else (), behind, mode)

    def _place(
        self, job: str, name: str, instance: str, gpus: tuple[str, ...], behind: int, mode: str
    ) -> None:
        version = self.history.view.number(job, "version") - behind
        plan = Placement(job, version, name, instance, "gpu" if gpus else "cpu", gpus)
        self.send(mode, "place", plan, f"{self.history.calls:016x}")

    @rule(job=a_job, reason=st.sampled_from(["no worker", "no slot"]), mode=a_mode)
    def say_waiting(self, job: str, reason: str, mode: str) -> None:
        self.send(mode, "say_waiting", job, reason, "wait")

    # -- owners

    @precondition(lambda self: self.in_state("placed"))
    @rule(which=one_of_jobs, elsewhere=rarely, mode=a_mode)
    def claim(self, which: int, elsewhere: bool, mode: str) -> None:
        placed = self.in_state("placed")
        it = placed[which % len(placed)]
        self._claim(it, mode, "elsewhere" if elsewhere else it.instance)

    def _claim(self, it: JobRecord, mode: str, instance: str) -> None:
        options = {"nonce": "n0", "instance": instance, "storage_id": it.host}
        self.send(mode, "claim", it.id, it.token, **options)

    @rule(job=a_job, old=maybe, nonce=st.sampled_from(["n0", "n1"]), elsewhere=rarely, mode=a_mode)
    def claim_late(self, job: str, old: bool, nonce: str, elsewhere: bool, mode: str) -> None:
        token, instance = self.history.token(job, old)
        where = "elsewhere" if elsewhere else instance
        self.send(mode, "claim", job, token, nonce=nonce, instance=where, storage_id="late")

    def _owner(self, which: int, old: bool) -> tuple[str, str]:
        """Return a job, one that somebody owns where there is one, and a token of it."""
        jobs = [job.id for job in self.in_state("placed") + self.in_state("running")] or JOBS
        job = jobs[which % len(jobs)]
        return job, self.history.token(job, old)[0]

    @rule(which=one_of_jobs, old=rarely, mode=a_mode)
    def renew(self, which: int, old: bool, mode: str) -> None:
        job, token = self._owner(which, old)
        self.send(mode, "renew", {job: token})

    @rule(
        which=one_of_jobs,
        old=rarely,
        batch=st.sampled_from(["next", "next", "known", "overlap", "gap"]),
        count=st.integers(0, 3),
        keep=maybe,
        mode=a_mode,
    )
    def append(self, which: int, old: bool, batch: str, count: int, keep: bool, mode: str) -> None:
        """The next batch, one that is there already, in part or as a whole, or one too far on."""
        job, token = self._owner(which, old)
        stored = self.history.view.number(job, "ordinal")
        first = {"next": stored + 1, "known": 1, "overlap": max(1, stored), "gap": stored + 2}
        self._append(job, token, first[batch], count, keep=keep, mode=mode)

    @rule(
        which=one_of_jobs,
        old=rarely,
        batch=st.sampled_from(["next", "next", "known", "overlap", "gap"]),
        count=st.integers(0, 3),
        mode=a_mode,
    )
    def append_rest(self, which: int, old: bool, batch: str, count: int, mode: str) -> None:
        """What the claim before has left, of that claim or of none."""
        job, token = self._owner(which, old)
        rest = self.jobs[job].rest if job in self.jobs else None
        before, stored = (rest.token, rest.stored) if rest else ("1:none", 0)
        first = {"next": stored + 1, "known": 1, "overlap": max(1, stored), "gap": stored + 2}
        bodies = self._bodies(before, first[batch], count)
        args = (job, token, before, first[batch], bodies)
        self.send(mode, "append_rest", *args, milestones=[True] * count)

    def _bodies(self, token: str, first: int, count: int) -> list[str]:
        lines = [f"{token} {number}" for number in range(first, first + count)]
        return [
            make_body(EventType.LOG, {"line": line}, attempt=1, host="h", phase=None)
            for line in lines
        ]

    def _append(
        self, job: str, token: str, first: int, count: int, *, keep: bool, mode: str
    ) -> None:
        bodies = self._bodies(token, first, count)
        fields = {"step": str(first + count - 1)} if count else {}
        milestones = [keep] * count
        self.send(mode, "append", job, token, first, bodies, milestones=milestones, fields=fields)

    @rule(
        which=one_of_jobs,
        old=rarely,
        outcome=st.sampled_from(["next", "next", "failed", "succeeded", "cancelled"]),
        mode=a_mode,
    )
    def finish(self, which: int, old: bool, outcome: str, mode: str) -> None:
        job, token = self._owner(which, old)
        self._finish(job, token, outcome, mode)

    def _finish(self, job: str, token: str, outcome: str, mode: str) -> None:
        it = self.jobs.get(job)
        following = (it.phase.next if it else None) or Phase.PUBLISH
        error = ErrorInfo("bad", "it broke", exit_code=5) if outcome == "failed" else None
        self.send(mode, "finish", job, token, outcome, next_phase=following, error=error)

    @rule(
        which=one_of_jobs,
        old=rarely,
        counts_attempt=maybe,
        over=rarely,
        awaits=st.sampled_from(["", "", "hub/x"]),
        mode=a_mode,
    )
    def requeue(
        self, which: int, old: bool, counts_attempt: bool, over: bool, awaits: str, mode: str
    ) -> None:
        options = {"phase": Phase.VALIDATE if over else None, "awaits": awaits}
        job, token = self._owner(which, old)
        self.send(mode, "requeue", job, token, "died", counts_attempt=counts_attempt, **options)

    @rule(which=one_of_jobs, old=rarely, behind=st.sampled_from([0, 0, 1]), mode=a_mode)
    def reap(self, which: int, old: bool, behind: int, mode: str) -> None:
        job, token = self._owner(which, old)
        renewals = self.history.view.number(job, "beat") - behind
        self.send(mode, "reap", job, token, renewals, "silent")

    @rule(which=one_of_jobs, old=rarely, both=maybe, mode=a_mode)
    def lock(self, which: int, old: bool, both: bool, mode: str) -> None:
        """Of two locks only the newer goes with the token; the other is then nobody's."""
        job, token = self._owner(which, old)
        for what in ("hub/x", "hub/y")[: 1 + both]:
            self.send(mode, "lock", job, token, what)

    @rule(looks=st.integers(1, 8))
    def watch(self, looks: int) -> None:
        """Time passes in which nobody renews; a host watches, and takes whose lease is over."""
        self.history.watch(looks)

    @precondition(lambda self: self.in_state("placed") or self.in_state("running"))
    @rule(which=one_of_jobs, late=st.integers(0, 5), undone=rarely, silent=st.integers(1, 12))
    def cut_off(self, which: int, late: int, undone: bool, silent: int) -> None:
        """An owner is heard once more, late, and then no more; the broker may forget even that."""
        jobs = self.in_state("placed") + self.in_state("running")
        it = jobs[which % len(jobs)]
        self.history.watch(late)
        self.history.remember()
        if it.state == "placed":
            self._claim(it, "once", it.instance)
        else:
            self.send("once", "renew", {it.id: it.token})
        if undone:
            self.history.go_back(self.history.memories[-1])
        self.history.watch(silent)

    # -- the network, the clock, the disk

    @precondition(lambda self: self.history.waiting)
    @rule(back=st.integers(1, 5))
    def deliver(self, back: int) -> None:
        """A call arrives that is older than others, or is repeated; mostly one of the newest."""
        self.history.deliver(-min(back, len(self.history.waiting)))

    @precondition(lambda self: len(self.history.waiting) > 3)
    @rule(newest_first=maybe)
    def deliver_all(self, newest_first: bool) -> None:
        """A broker that stood still takes all at once."""
        while self.history.waiting:
            self.history.deliver(-1 if newest_first else 0)

    @rule(seconds=st.sampled_from([-3600, -20, 1, 20, 3600]))
    def step_clock(self, seconds: int) -> None:
        self.history.step_clock(seconds)

    @rule()
    def remember(self) -> None:
        self.history.remember()

    @precondition(lambda self: self.history.memories)
    @rule(which=st.integers(0, 2))
    def go_back(self, which: int) -> None:
        memories = self.history.memories
        self.history.go_back(memories[which % len(memories)])


def machine_on(world: World) -> Any:
    """Return the machine's class for one broker."""
    return type("JobMachine", (JobMachine,), {"world": world})
