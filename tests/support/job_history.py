"""One history of calls on a real broker and on the twin: sent, repeated, late, and undone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from redis.exceptions import ResponseError

from ftq_shared import keys
from ftq_shared.errors import UsageError
from ftq_shared.events import EventType
from ftq_shared.hosts import HostStore
from ftq_shared.in_memory import MemoryBroker, MemoryHosts, MemoryStore
from ftq_shared.in_memory.jobs import Held
from ftq_shared.job_record import JobRecord
from ftq_shared.lifetimes import CHILD_S
from ftq_shared.states import TRANSITIONS
from ftq_shared.store import JobStore, Placement
from ftq_worker.agent.leases import HELD, Reaper
from tests.support.broker_view import CLOCK, Checker, Offer, View, World

START_S = 1_800_000_000
ARROWS = {(t.source, t.target, t.script) for t in TRANSITIONS}
# Calls that change something once, however often they arrive. The others are renewals and wishes.
ONCE = {"submit", "place", "claim", "append", "append_rest", "finish", "requeue", "reap"}
SCRIPTS = {"say_waiting": "wait", "heartbeat": "beat"}  # where a call and its script have two names


@dataclass(frozen=True)
class Call:
    """One call as its sender made it; the same object is sent again."""

    number: int
    name: str  # of the method
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    sent_s: float | None  # on the hosts' clock; None: its sender asks again when it arrives

    def on(self, store: JobStore, hosts: HostStore) -> Any:
        """Return its answer; of a refusal, the code."""
        target = hosts if hasattr(hosts, self.name) else store
        try:
            return getattr(target, self.name)(*self.args, **self.options)
        except UsageError as error:
            return error.code
        except ResponseError as error:
            if not str(error).startswith("EXISTS"):
                raise
            return "exists"


@dataclass(frozen=True)
class Memory:
    """The broker as it was, to go back to."""

    dumps: list[tuple[bytes, int, bytes]]  # key, time to live in ms or 0, value
    held: Held
    inputs: set[str]
    effects: set[int]
    seen: dict[str, str]
    view: View


class History:
    """Everything that has happened since the broker was empty."""

    def __init__(self, world: World) -> None:
        world.histories += 1
        world.redis.flushdb()
        self.world, self.checker = world, Checker(world)
        self.clock_s = START_S
        self.twin = MemoryBroker(lambda: self.clock_s)
        self._store, self._hosts = MemoryStore(self.twin), MemoryHosts(self.twin)
        self.inputs: set[str] = set()  # jobs whose files were sent
        self.offers: dict[str, Offer] = {}  # of every instance, also of those that are gone
        self.calls = 0
        self.waiting: list[Call] = []  # for `deliver`: to be sent again, or still on their way
        self.memories: list[Memory] = []
        self._effects: set[int] = set()  # numbers of the calls that changed a record
        self._tokens: dict[str, list[tuple[str, str]]] = {}  # job -> all its tokens, with instance
        self.hosts_s = 0.0  # the clock of owners and of who watches them
        self._alive: dict[str, float] = {}  # token -> when its owner's timer ends it
        self._run_id = 0  # of the broker
        store = cast(JobStore, self)  # of it a reaper only calls `reap`
        self._reaper = Reaper(store, "s1", lambda lease: None, lambda: self.hosts_s)
        self.step_clock(0)
        self.look()

    def look(self) -> None:
        self.view = self.checker.look(self.twin, self.inputs, self.offers)

    def jobs(self) -> dict[str, JobRecord]:
        """Return the twin's records, which are the real ones but for their versions."""
        return {name: job.seen() for name, job in sorted(self.twin.held.jobs.items())}

    # -- calls

    def send(self, mode: str, name: str, *args: Any, **options: Any) -> None:
        """Make a call, as often and as late as `mode` says."""
        self.calls += 1
        call = Call(self.calls, name, args, options, self.hosts_s)
        if mode == "held up":
            self.waiting.append(call)
            return
        answer = self.arrive(call)
        if mode == "twice":
            core = self.view.core()
            assert self.arrive(call) == answer, f"{call}, repeated, got another answer"
            assert self.view.core() == core, f"{call}, repeated, changed something"
        elif mode == "lost":
            self.waiting.append(replace(call, sent_s=None))

    def deliver(self, which: int) -> None:
        """Let a call arrive that was held up, or that its sender repeats."""
        self.arrive(self.waiting.pop(which))

    def arrive(self, call: Call) -> Any:
        """Let a call run on broker and twin; compare answer, state, and the way there."""
        self.world.calls += 1
        before, versions = self.view, self._versions()
        expected = self._for_twin(call).on(self._store, self._hosts)
        answer = call.on(self.world.store, self.world.hosts)
        assert answer == expected, f"{call} answered {answer!r}, the twin says {expected!r}"
        if call.name == "place" and answer[0]:
            self._note_token(call.args[0].job, answer[0], call.args[0].instance)
        if call.name == "heartbeat" and answer != "name_taken":
            self._note_offer(*call.args)
        self._note_owners(call, answer)
        self.look()
        self._check_versions(before, versions)
        self._check_steps(before, SCRIPTS.get(call.name, call.name))
        if call.name in ONCE and before.core() != self.view.core():
            assert call.number not in self._effects, f"{call} took effect twice"
            self._effects.add(call.number)
        return answer

    def write_version(self, job: str, version: int) -> None:
        """Let a record be of another version of ftq, as after an upgrade."""
        it = self.twin.held.jobs[job]
        it.record = replace(it.record, record_version=version)
        self.world.redis.hset(keys.job(job), "v", version)

    def _versions(self) -> dict[str, int]:
        return {name: job.record.version for name, job in self.twin.held.jobs.items()}

    def _for_twin(self, call: Call) -> Call:
        """Return the call as the twin gets it: it counts the versions of a record its own way."""
        if call.name != "place":
            return call
        plan: Placement = call.args[0]
        current = plan.version == self.view.number(plan.job, "version")
        own = replace(plan, version=self._versions().get(plan.job, 0) if current else -1)
        return replace(call, args=(own, *call.args[1:]))

    def _check_versions(self, before: View, twins: Mapping[str, int]) -> None:
        """A call makes plans old in the one broker where it does so in the other."""
        for job, version in self._versions().items():
            real = self.view.number(job, "version") != before.number(job, "version")
            if job in before.records:
                assert (version != twins[job]) is real, f"{job}: version {twins[job]} -> {version}"

    def _note_offer(
        self, name: str, instance: str, replaces: str, fields: Mapping[str, Any]
    ) -> None:
        most = max(fields["slots"], self.offers.get(instance, Offer(0, ())).slots)
        gpus = tuple(gpu["uuid"] for gpu in fields["gpus"])
        self.offers[instance] = Offer(most, gpus)

    def _check_steps(self, before: View, script: str) -> None:
        """Each state that was passed through is at the end of an arrow of this script's."""
        for job in self.view.records:
            state = before.field(job, "state") or None
            new = self.twin.events(job)[before.number(job, "seq") :]
            for what in [event.data["state"] for event in new if event.type is EventType.STATE]:
                assert (state, what, script) in ARROWS, f"{script}: {state} -> {what}"
                state = what
            assert state == self.view.field(job, "state"), "a state changed without an event"
            old_number = before.number(job, "token_number")
            assert self.view.number(job, "token_number") >= old_number
            planned_on = ("state", "phase", "token")
            if any(before.field(job, f) != self.view.field(job, f) for f in planned_on):
                assert self.view.number(job, "version") > before.number(job, "version")

    # -- owners in time

    def _note_owners(self, call: Call, answer: Any) -> None:
        """Note how long whoever heard that it owns a job may work on: it counts from its call."""
        if call.name == "claim":
            answers = {call.args[1]: "ok" if answer == "ok" else "stale"}
        elif call.name == "renew":
            answers = {token: answer[job] for job, token in call.args[0].items()}
        else:
            return
        asked = self.hosts_s if call.sent_s is None else call.sent_s
        for token, said in answers.items():
            if said in HELD:
                until = asked + CHILD_S
                self._alive[token] = max(until, self._alive.get(token, 0.0))

    def watch(self, looks: int) -> None:
        """Let a host look at all leases, every 4 seconds, and take what its rules let it take."""
        for _ in range(looks):
            self.hosts_s += 4.0
            self._reaper.look(self.world.store.leases(), lambda: str(self._run_id))

    def reap(self, job: str, token: str, renewals: int, reason: str) -> Any:
        """Take a lease, as the watching host wants it: its owner's timer must have ended it."""
        left = self._alive.get(token, 0.0) - self.hosts_s
        assert left <= 0, f"{job} was taken from an owner that works for {left} s more"
        self.calls += 1
        args = (job, token, renewals, reason)
        return self.arrive(Call(self.calls, "reap", args, {}, self.hosts_s))

    # -- tokens

    def _note_token(self, job: str, token: str, instance: str) -> None:
        issued = self._tokens.setdefault(job, [])
        if (token, instance) not in issued:
            issued.append((token, instance))

    def token(self, job: str, old: bool) -> tuple[str, str]:
        """Return a job's present token, or one that is not any more, with its instance."""
        current = self.view.field(job, "token")
        issued = [pair for pair in self._tokens.get(job, []) if (pair[0] == current) is not old]
        return issued[self.calls % len(issued)] if issued else ("", "")

    # -- the clock, and the way back

    def step_clock(self, seconds: int) -> None:
        self.clock_s += seconds
        self.world.redis.set(CLOCK, self.clock_s)

    def remember(self) -> None:
        """Keep the broker as it is, as its disk does."""
        names = [name.encode() for name in self.view.ttls]
        pipe = self.world.binary.pipeline(transaction=False)
        for name in names:
            pipe.dump(name)
            pipe.pttl(name)
        found = pipe.execute()
        dumps = [
            (name, max(0, ttl), dump)
            for name, dump, ttl in zip(names, found[::2], found[1::2], strict=True)
        ]
        effects, seen = set(self._effects), dict(self.checker.seen)
        held = self.twin.snapshot()
        memory = Memory(dumps, held, set(self.inputs), effects, seen, self.view)
        self.memories = [*self.memories[-2:], memory]

    def go_back(self, memory: Memory) -> None:
        """Start the broker again without its newest calls; the clock goes on."""
        pipe = self.world.binary.pipeline(transaction=False)
        pipe.delete(*self.view.ttls)
        for name, ttl, dump in memory.dumps:
            pipe.restore(name, ttl, dump)
        pipe.execute()
        self.twin.roll_back(memory.held)
        self.inputs = set(memory.inputs)
        self._effects, self.checker.seen = set(memory.effects), dict(memory.seen)
        self._run_id += 1
        self.look()
        assert self.view.core() == memory.view.core()
        self._try_old_tokens()

    def _try_old_tokens(self) -> None:
        """Claim with every token ever issued: only the placement of the record may be taken."""
        core = self.view.core()
        for job in self.view.records:
            for token, instance in self._tokens.get(job, []):
                if token != self.view.field(job, "token"):
                    answer = self.world.store.claim(
                        job, token, nonce="n0", instance=instance, storage_id="x"
                    )
                    assert answer != "ok", f"{token} was issued before the step back"
        self.look()
        assert self.view.core() == core
