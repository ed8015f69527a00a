"""The Celery worker of a host: takes a message, hands over, returns.

    python -m ftq_worker.dispatch.celery_app PARENT_PID        (started by the supervisor)

Threads pool, early acknowledgement, no prefetch. No task lasts longer than a few dispatch passes; a
Celery that dies or hangs stops no training. No torch in this process.
"""

import logging
import socket
import sys
import threading
import time
from typing import Any

from celery import Celery, signals
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from ftq_shared import keys
from ftq_shared.broker import connect, translated
from ftq_shared.celery_messages import DISPATCH, RUN_PHASE, celery_settings, request_dispatch
from ftq_shared.hosts import HostStore
from ftq_shared.settings import Settings
from ftq_shared.store import JobStore
from ftq_worker.dispatch.dispatcher import LONGEST_S, dispatch
from ftq_worker.host.config import HostConfig
from ftq_worker.host.heartbeat import touch
from ftq_worker.host.linux import end_with_parent
from ftq_worker.host.log import setup_logging
from ftq_worker.host.messages import FORWARD_REQUESTS, TakePhase
from ftq_worker.host.wire import ask, lines, to_line

log = logging.getLogger(__name__)

PING = "ftq.pulse"  # task: give a heartbeat
PING_S = 10.0  # between two of them


def make_app(config: HostConfig, settings: Settings) -> Celery:
    """Return the application with its two tasks."""
    assert settings.redis_url
    app = Celery("ftq")
    app.conf.update(celery_settings(settings.redis_url))
    redis = connect(settings.redis_url)
    store, hosts = JobStore(redis), HostStore(redis)

    def tell_host(queue: str, job: str, token: str) -> None:
        app.send_task(RUN_PHASE, args=[job, token], queue=queue, argsrepr="(...)")

    @app.task(name=DISPATCH)  # type: ignore[untyped-decorator]
    def dispatch_pass() -> None:
        with translated():
            began = time.monotonic()
            dispatch(store, hosts, tell_host)
            if time.monotonic() - began >= LONGEST_S and store.is_requested():
                store.take_request()
                request_dispatch(store, app)

    @app.task(name=RUN_PHASE)  # type: ignore[untyped-decorator]
    def run_phase(job: str, token: str) -> None:
        # An agent that does not answer loses nothing: its repair pass finds the placement.
        ask(config.socket("agent"), TakePhase(run=job, token=token))

    @app.task(name=PING)  # type: ignore[untyped-decorator]
    def ping() -> None:
        touch(config.heartbeat("celery"))
        touch(config.heartbeat("celery_task"))

    return app


def ping_self(app: Celery, config: HostConfig) -> None:
    """Send this worker a task every few seconds that gives its heartbeat.

    It shows the supervisor that tasks are really taken. While the broker is away none can be, and
    the heartbeat is given without one.
    """
    queue = keys.host_queue(config.name, config.instance)
    while True:
        try:
            app.send_task(PING, queue=queue, expires=PING_S * 2)
        except (OperationalError, RedisError) as error:
            log.debug("ping: %s", error, extra={"action": "ping_failed"})
            touch(config.heartbeat("celery"))
        time.sleep(PING_S)


def forward_requests(app: Celery, config: HostConfig, settings: Settings) -> None:
    """Send the agent's requests for a dispatch pass to the queue, while the process lives."""
    store = JobStore(connect(settings.redis_url))
    try:
        with translated():
            store.take_request()  # a predecessor may have died with the message in its hands
            request_dispatch(store, app)
    except Exception as error:  # the broker is away: the agent asks again
        log.info("request for a dispatch pass: %s", error, extra={"action": "request_failed"})
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as agent:
                agent.connect(str(config.socket("agent")))
                agent.sendall(to_line(FORWARD_REQUESTS))
                for _ in lines(agent):
                    with translated():
                        request_dispatch(store, app)
        except OSError as error:
            log.debug("agent: %s", error, extra={"action": "agent_away"})  # it is being started
        except Exception as error:  # without this thread the host would never dispatch again
            log.warning(
                "request for a dispatch pass: %s", error, extra={"action": "request_failed"}
            )
        time.sleep(0.2)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_our_logging(**_: Any) -> None:
    """Celery leaves logging alone when somebody listens to this signal."""


def main() -> None:
    """Start the worker that the supervisor described."""
    end_with_parent(int(sys.argv[1]))
    config, settings = HostConfig.from_env()
    setup_logging("celery", settings.log, host=config.name, instance=config.instance)
    app = make_app(config, settings)
    threading.Thread(target=forward_requests, args=(app, config, settings), daemon=True).start()
    threading.Thread(target=ping_self, args=(app, config), daemon=True).start()
    queues = f"{keys.DISPATCH_QUEUE},{keys.host_queue(config.name, config.instance)}"
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=threads",
            f"--concurrency={config.slots + 2}",
            f"--queues={queues}",
            f"--hostname=ftq@{config.name}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=WARNING",
        ]
    )


if __name__ == "__main__":
    main()
