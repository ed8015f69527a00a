"""The Python SDK: what the commands themselves use.

from ftq_client import Client

client = Client()
job = client.submit({"model": "Qwen/Qwen3-0.6B", "dataset": "openai/gsm8k:main"})
for event in client.tail(job):
    print(event.type, event.data)
print(client.get(job).state)
"""

import itertools
import json
import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftq_client.identity import Identity
from ftq_shared import keys
from ftq_shared.broker import connect, ping, translated
from ftq_shared.broker_url import shown
from ftq_shared.errors import BrokerUnreachable, NoSuchJob, UsageError
from ftq_shared.events import Event
from ftq_shared.hosts import HostRecord, HostStore
from ftq_shared.job_record import JobRecord, Replay
from ftq_shared.row_refs import RowRef, dump_refs
from ftq_shared.settings import Settings, load_settings
from ftq_shared.states import JobState, Phase
from ftq_shared.store import JobStore
from ftq_shared.tailer import OUTAGE_S, Tailer

if TYPE_CHECKING:
    from redis import Redis

    from ftq_client.transfer.upload_routes import Draft
    from ftq_shared.spec import JobSpec

log = logging.getLogger(__name__)


class Client:
    """Talks to one fleet. All calls raise BrokerUnreachable when the broker does not answer."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Use `settings`, by default those of the environment; connects at once."""
        self.settings = settings or load_settings()
        ping(self.settings.redis_url)
        self.redis: Redis = connect(self.settings.redis_url)
        self.store = JobStore(self.redis)
        self.hosts = HostStore(self.redis)
        self.identity = Identity(self.settings)

    # -- jobs

    def draft(self, spec: "JobSpec | Mapping[str, Any]") -> "Draft":
        """Check a spec, and find its own files and the route they can take; nothing is sent.

        Relative paths are read from the working directory. Raises UsageError for a bad spec, and
        for a path without files.
        """
        from ftq_client.transfer.upload_routes import make_draft
        from ftq_shared.spec import JobSpec
        from ftq_shared.spec_input import parse_spec

        parsed = spec if isinstance(spec, JobSpec) else parse_spec(spec)
        with translated(self.settings.redis_url):
            return make_draft(parsed, self._binary(), self.settings, self.hosts.all())

    def submit(
        self,
        spec: "JobSpec | Mapping[str, Any] | Draft",
        *,
        secrets: Mapping[str, str] | None = None,
        client_key: str | None = None,
        via_hub: bool | Callable[[str], bool] = False,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> str:
        """Submit a job, which `draft` may have checked before, and return its id.

        `secrets` (HF_TOKEN ...) are sealed for the fleet before they leave this process. A second
        call with the same `client_key` makes no second job. `via_hub` is the consent to send files
        that are too large for the broker through a private Hub repo; a function gets the question.
        That needs a HF_TOKEN that may write; `on_progress` gets a sentence for each step of the
        upload. Raises UsageError for a bad spec or files that no open route takes.
        """
        from ftq_client.transfer.hub_route import HubRoute
        from ftq_client.transfer.upload_routes import Draft, send_inputs

        draft = spec if isinstance(spec, Draft) else self.draft(spec)
        secrets = secrets or {}
        agree = via_hub if callable(via_hub) else lambda _: bool(via_hub)
        hub = HubRoute(self.settings.hf_endpoint, secrets.get("HF_TOKEN"), agree, on_progress)
        new = keys.new_job_id()
        token = secrets.get("HF_TOKEN")
        owner = (self.identity.of(token) if token else self.identity.me).name
        with translated(self.settings.redis_url):
            sealed = self.seal(new, draft.spec, secrets)  # first: it may refuse, before a file goes
            inputs = send_inputs(draft, new, self._binary(), hub)
            with hub.uncertain(new, inputs):
                job = self.store.submit(
                    new,
                    draft.spec,
                    client_key=client_key or new,
                    owner=owner,
                    endpoint=self.settings.hf_endpoint,
                    sealed=sealed,
                    inputs=inputs,
                )
        if job != new:  # a second call: the first one's job has files of its own
            hub.forget(inputs)
        self.request_dispatch()
        return job

    def seal(self, job: str, spec: "JobSpec", secrets: Mapping[str, str]) -> str:
        """Seal secrets for the fleet's pinned key; '' for none.

        Raises UsageError when no worker has ever announced a key, or the key has changed.
        """
        if not secrets:
            return ""
        from ftq_shared.secrets import KnownFleets, seal

        public = self.redis.hget(keys.FLEET, "public_key")
        if not public:
            raise UsageError(
                "the fleet has no key yet, so the token cannot be sealed for it",
                code="no_fleet_key",
                hint="start a worker first: `ftq up` here, or `ftq worker` on a host",
            )
        broker = shown(self.settings.redis_url or "")
        KnownFleets(self.settings.home / "known_fleets.json").verify(broker, str(public))
        return seal(
            str(public),
            secrets,
            job=job,
            spec_sha256=spec.sha256(),
            endpoint=self.settings.hf_endpoint,
        )

    def request_dispatch(self) -> None:
        """Ask for a dispatch pass now; workers look by themselves every few seconds."""
        from ftq_shared.celery_messages import request_dispatch, sender

        assert self.settings.redis_url
        try:
            request_dispatch(self.store, sender(self.settings.redis_url))
        except Exception as error:
            # The record stands: whatever is wrong, a submit that raised would be made again. The
            # message is only a hint, and the workers' repair pass replaces it.
            log.info("dispatch request: %r", error, extra={"action": "request_failed"})

    def find(self, prefix: str | None = None) -> str:
        """Return the job that the beginning of an id names; None is your newest.

        Raises NoSuchJob.
        """
        with translated(self.settings.redis_url):
            if prefix:
                return self.store.find(prefix)
            me = self.identity.me
            if mine := next(self.store.newest_first(owners=me.names), None):
                return mine.id
            others = next(self.store.newest_first(page=1), None)
        if others is None:
            raise NoSuchJob(f"{me.name} has no job yet", hint="`ftq submit` makes one")
        raise NoSuchJob(
            f"{me.name} has no job yet",
            hint="`ftq list -a` shows those of everybody; FTQ_USER says who you are",
        )

    def find_whole(self, name: str) -> str:
        """Return the job of a whole id, or of a name that only one of your active jobs has.

        For what cannot be undone: the beginning of an id may name another job than was meant.
        Raises NoSuchJob.
        """
        whole = name if name.startswith("ft-") else f"ft-{name}"
        with translated(self.settings.redis_url):
            if keys.is_job_id(whole) and self.redis.exists(keys.job(whole)):
                return whole
        named = [job.id for job in self.list_jobs() if job.name == name]
        if len(named) == 1:
            return named[0]
        if named:
            raise NoSuchJob(
                f"{len(named)} active jobs of yours are called {name}: {', '.join(named)}",
                code="ambiguous_job",
                hint="give the whole id",
            )
        try:
            meant = self.find(name)
        except NoSuchJob:
            raise NoSuchJob(f"there is no job {name}", hint="`ftq list` shows yours") from None
        raise NoSuchJob(
            f"{name} is no whole id, and a cancel takes nothing less",
            code="ambiguous_job",
            hint=f"the one job that begins so: ftq cancel {meant}",
        )

    def get(self, job: str) -> JobRecord:
        """Return a job's record. Raises NoSuchJob."""
        with translated(self.settings.redis_url):
            return self.store.get(job)

    def raw_spec(self, job: str) -> dict[str, Any]:
        """Return a job's spec as plain data, to begin another one with. Raises NoSuchJob."""
        spec: dict[str, Any] = json.loads(self.get(job).spec_json)
        return spec

    def list_jobs(
        self,
        *,
        mine: bool = True,
        active: bool = True,
        ended: bool = False,
        state: str | None = None,
        limit: int = 100,
    ) -> list[JobRecord]:
        """Return jobs, newest first: by default yours that have not ended.

        `ended` are those that have, without `active` it is both; a `state` overrides these two.
        Raises UsageError for a state that there is not.
        """
        states: Collection[JobState] = ()
        if state:
            if state not in list(JobState):
                raise UsageError(
                    f"there is no state {state!r}", hint=f"one of {', '.join(JobState)}"
                )
            states = [JobState(state)]
        elif ended or active:
            states = [it for it in JobState if it.terminal is ended]
        owners = self.identity.me.names if mine else ()
        with translated(self.settings.redis_url):
            found = self.store.newest_first(owners=owners, states=states)
            return list(itertools.islice(found, max(0, min(limit, sys.maxsize))))

    def tail(
        self,
        job: str,
        *,
        after: int = 0,
        follow: bool = True,
        on_outage: Callable[[str], None] = lambda _: None,
        outage_s: float = OUTAGE_S,
    ) -> Iterator[Event]:
        """Yield a job's events in order, each once, until it ends.

        `after` skips events up to that number; without `follow` it stops at what is there now.
        """
        redis = connect(self.settings.redis_url, retries=0)
        tailer = Tailer(redis, job, after=after, on_outage=on_outage, outage_s=outage_s)
        try:
            if follow:
                yield from tailer.follow()
            else:
                with translated(self.settings.redis_url):
                    yield from tailer.replay()
        finally:
            redis.close()

    def ahead_s(self) -> float:
        """Return how far the broker's clock is ahead of this machine's, in seconds."""
        before = time.time()
        with translated(self.settings.redis_url):
            seconds, micros = self.redis.time()
        return float(seconds + micros / 1e6 - (before + time.time()) / 2)

    def wait(self, job: str, *, timeout_s: float | None = None) -> JobRecord:
        """Wait for the end of a job and return its record. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (record := self.get(job)).state.terminal:
            if deadline and time.monotonic() >= deadline:
                raise TimeoutError(f"{job} is still {record.state}")
            time.sleep(0.25)
        return record

    def cancel(self, job: str) -> JobState:
        """Ask for a cancel and return the state; a running job ends a moment later."""
        with translated(self.settings.redis_url):
            state = self.store.cancel(job)
        if not state:
            raise NoSuchJob(f"there is no job {job}", hint="`ftq list -a` shows all jobs")
        return JobState(state)

    def retry(
        self,
        job: str,
        *,
        phase: Phase | None = None,
        secrets: Mapping[str, str] | None = None,
        without_rows: Iterable[RowRef] = (),
    ) -> JobState:
        """Queue a failed or cancelled job again, where it ended: from its last checkpoint.

        A `phase` that is named starts from its beginning. `without_rows` are left out of training
        from there on, with those that were left out before. Raises UsageError when the job has not
        ended or has succeeded, or when no step is left to go without these rows.
        """
        from ftq_client.replaying import refuse_without_rows

        record = self.get(job)
        rows = set(without_rows)
        if record.replay and phase:
            raise UsageError(
                f"{job} is a replay: it has no phase to start from",
                code="is_replay",
                hint=f"ftq retry {job}",
            )
        if rows:
            refuse_without_rows(record, phase, rows, lambda: self.tail(job, follow=False))
            rows |= set(record.without_rows)
        with translated(self.settings.redis_url):
            sealed = self.seal(job, record.spec, secrets or {})
            state = self.store.retry(
                job,
                phase or record.phase,
                sealed=sealed,
                afresh=phase is not None,
                without_rows=dump_refs(rows) if rows else "",
            )
        if state != JobState.QUEUED:
            raise UsageError(
                f"{job} is {state}; only a failed or cancelled job can be retried",
                code="not_retryable",
                hint=f"a new job of the same spec: ftq submit --from {job}",
            )
        self.request_dispatch()
        return JobState(state)

    def check_replay(self, job: str, step: int) -> JobRecord:
        """Return the record of a job whose step can be replayed. Raises as `replay` does."""
        from ftq_client.replaying import refuse_replay

        record = self.get(job)
        refuse_replay(record, step, lambda: self.tail(job, follow=False), self.workers())
        return record

    def replay(self, job: str, step: int, *, secrets: Mapping[str, str] | None = None) -> str:
        """Queue the replay of a step of a job that has ended, and return the replay's own id.

        Its events (`tail`) have the rows of the step and its numbers; the job itself is left as it
        is. Raises UsageError for a job that has not ended or was not trained, a step that it does
        not have, and where no worker is online that has its files.
        """
        record = self.check_replay(job, step)
        new, token = keys.new_job_id(), (secrets or {}).get("HF_TOKEN")
        owner = (self.identity.of(token) if token else self.identity.me).name
        with translated(self.settings.redis_url):
            self.store.submit(
                new,
                record.spec,
                client_key=new,
                owner=owner,
                endpoint=record.endpoint,
                sealed=self.seal(new, record.spec, secrets or {}),
                replay=Replay(job, step, record.storage_id, record.fresh_after),
            )
        self.request_dispatch()
        return new

    def fetch(self, job: str, target: Path) -> Path:
        """Bring a finished job's model to `target` and return it. Raises FtqError."""
        from ftq_client.transfer.fetch import fetch_model

        record = self.get(job)
        if replay := record.replay:
            raise UsageError(
                f"{job} is a replay of {replay.job}: it makes no model",
                code="no_model",
                hint=f"ftq replay {job} --rows-out FILE",
            )
        if record.phase in (Phase.VALIDATE, Phase.PREPARE) or (
            record.phase is Phase.TRAIN and record.state is not JobState.SUCCEEDED
        ):
            raise UsageError(
                f"{job} has no model yet (it is {record.state} in {record.phase})",
                code="no_model",
                hint=f"ftq tail {job}",
            )
        with translated(self.settings.redis_url):
            return fetch_model(self._binary(), self.settings, job, record.storage_id, target)

    # -- the fleet

    def drain(self, name: str) -> None:
        """Ask a worker to hand its work back and leave.

        Raises UsageError for an unknown name, or a broker user who may not change host records.
        """
        try:
            with translated(self.settings.redis_url):
                instance = self.hosts.drain(name)
        except BrokerUnreachable as error:
            if error.code != "broker_permission":
                raise
            raise UsageError(
                "the broker lets this user not drain workers",
                code="not_allowed",
                hint="use the FTQ_REDIS_URL of a worker, or stop the worker on its host (SIGTERM)",
            ) from error
        if not instance:
            raise UsageError(
                f"there is no worker {name!r}",
                code="no_such_worker",
                hint="`ftq workers` lists all",
            )

    def workers(self) -> list[HostRecord]:
        """Return every worker that is known, lost ones included."""
        with translated(self.settings.redis_url):
            return self.hosts.all()

    def online(self) -> bool:
        """Return whether any worker could take a job now."""
        return any(host.online and not host.draining for host in self.workers())

    def _binary(self) -> "Redis":
        return connect(self.settings.redis_url, binary=True)
