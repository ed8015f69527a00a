"""One history of calls on a real broker and on the model: sent, repeated, late, and undone."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from ftq_shared.errors import UsageError
from ftq_shared.states import TRANSITIONS
from tests.support.broker_view import CLOCK, Checker, View, World
from tests.support.job_model import Model

START_S = 1_800_000_000
ARROWS = {(t.source, t.target, t.script) for t in TRANSITIONS}
# Calls that change something once, however often they arrive. The others are renewals and wishes.
ONCE = {"submit", "place", "claim", "append", "finish", "requeue", "reap"}
SCRIPTS = {"say_waiting": "wait"}  # where a call and its script have two names


@dataclass(frozen=True)
class Call:
    """One call as its sender made it; the same object is sent again."""

    number: int
    name: str  # of the method
    args: tuple[Any, ...]
    options: Mapping[str, Any]

    def on(self, target: Any) -> Any:
        return getattr(target, self.name)(*self.args, **self.options)


@dataclass(frozen=True)
class Memory:
    """The broker as it was, to go back to."""

    dumps: list[tuple[bytes, int, bytes]]  # key, time to live in ms or 0, value
    model: Model
    effects: set[int]
    seen: dict[str, str]
    view: View


class History:
    """Everything that has happened since the broker was empty."""

    def __init__(self, world: World) -> None:
        world.histories += 1
        world.redis.flushdb()
        self.world, self.model, self.checker = world, Model(START_S), Checker(world)
        self.calls = 0
        self.waiting: list[Call] = []  # for `deliver`: to be sent again, or still on their way
        self.memories: list[Memory] = []
        self._effects: set[int] = set()  # numbers of the calls that changed a record
        self._tokens: dict[str, list[tuple[str, str]]] = {}  # job -> all its tokens, with instance
        self.step_clock(0)
        self.look()

    def look(self) -> None:
        self.view = self.checker.look(self.model)

    # -- calls

    def send(self, mode: str, name: str, *args: Any, **options: Any) -> None:
        """Make a call, as often and as late as `mode` says."""
        self.calls += 1
        call = Call(self.calls, name, args, options)
        if mode == "held up":
            self.waiting.append(call)
            return
        answer = self.arrive(call)
        if mode == "twice":
            core = self.view.core()
            assert self.arrive(call) == answer, f"{call}, repeated, got another answer"
            assert self.view.core() == core, f"{call}, repeated, changed something"
        elif mode == "lost":
            self.waiting.append(call)

    def arrive(self, call: Call) -> Any:
        """Let a call run on broker and model; compare answer, state, and the way there."""
        self.world.calls += 1
        before = self.view
        self.model.versions = {job: before.number(job, "version") for job in before.records}
        answer, expected = self._really(call), call.on(self.model)
        allowed = expected if isinstance(expected, set) else [expected]
        assert answer in allowed, f"{call} answered {answer!r}, the model says {expected!r}"
        if call.name == "place" and answer[0]:
            self._note_token(call.args[0].job, answer[0], call.args[0].instance)
        self.look()
        self._check_steps(before, SCRIPTS.get(call.name, call.name))
        if call.name in ONCE and before.core() != self.view.core():
            assert call.number not in self._effects, f"{call} took effect twice"
            self._effects.add(call.number)
        return answer

    def _really(self, call: Call) -> Any:
        hosts, store = self.world.hosts, self.world.store
        try:
            return call.on(hosts if hasattr(hosts, call.name) else store)
        except UsageError as error:
            return error.code
        except ResponseError as error:
            if not str(error).startswith("EXISTS"):
                raise
            return "exists"

    def _check_steps(self, before: View, script: str) -> None:
        """Each state that was passed through is at the end of an arrow of this script's."""
        for job in self.view.records:
            state = before.field(job, "state") or None
            new = self.model.jobs[job].events[before.number(job, "seq") :]
            for what in [what for kind, what in new if kind == "state"]:
                assert (state, what, script) in ARROWS, f"{script}: {state} -> {what}"
                state = what
            assert state == self.view.field(job, "state"), "a state changed without an event"
            old_number = before.number(job, "token_number")
            assert self.view.number(job, "token_number") >= old_number
            planned_on = ("state", "phase", "token")
            if any(before.field(job, f) != self.view.field(job, f) for f in planned_on):
                assert self.view.number(job, "version") > before.number(job, "version")

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
        self.model.clock_s += seconds
        self.world.redis.set(CLOCK, self.model.clock_s)

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
        model, seen = copy.deepcopy(self.model), dict(self.checker.seen)
        memory = Memory(dumps, model, set(self._effects), seen, self.view)
        self.memories = [*self.memories[-2:], memory]

    def go_back(self, memory: Memory) -> None:
        """Start the broker again without its newest calls; the clock goes on."""
        pipe = self.world.binary.pipeline(transaction=False)
        pipe.delete(*self.view.ttls)
        for name, ttl, dump in memory.dumps:
            pipe.restore(name, ttl, dump)
        pipe.execute()
        offers, clock_s = self.model.offers, self.model.clock_s
        self.model = copy.deepcopy(memory.model)
        self.model.offers, self.model.clock_s = offers, clock_s
        self._effects, self.checker.seen = set(memory.effects), dict(memory.seen)
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
