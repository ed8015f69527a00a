"""The Celery worker of a host: takes a message, hands over, returns.

    python -m ftq_worker.dispatch.celery_app PARENT_PID        (started by the guard)

Threads pool, early acknowledgement, no prefetch. No task lasts longer than a dispatch pass; a
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
from ftq_worker.dispatch.dispatcher import dispatch
from ftq_worker.host.config import HostConfig
from ftq_worker.host.heartbeat import touch
from ftq_worker.host.linux import end_with_parent
from ftq_worker.host.log import setup_logging
from ftq_worker.host.wire import ask, lines, to_line

log = logging.getLogger("ftq.celery")

PULSE = "ftq.pulse"
PULSE_S = 10.0  # between two signs of life


def make_app(config: HostConfig, settings: Settings) -> Celery:
    """Return the application with its two tasks."""
    assert settings.redis_url
    app = Celery("ftq")
    app.conf.update(celery_settings(settings.redis_url))
    redis = connect(settings.redis_url)
    store, hosts = JobStore(redis), HostStore(redis)

    def ring_host(queue: str, job: str, token: str) -> None:
        app.send_task(RUN_PHASE, args=[job, token], queue=queue, argsrepr="(...)")

    @app.task(name=DISPATCH)  # type: ignore[untyped-decorator]
    def dispatch_pass() -> None:
        with translated():
            dispatch(store, hosts, ring_host)

    @app.task(name=RUN_PHASE)  # type: ignore[untyped-decorator]
    def run_phase(job: str, token: str) -> None:
        # An agent that does not answer loses nothing: its repair pass finds the placement.
        ask(config.agent_socket, {"run": job, "token": token})

    @app.task(name=PULSE)  # type: ignore[untyped-decorator]
    def pulse() -> None:
        touch(config.celery_pulse)

    return app


def beat(app: Celery, config: HostConfig) -> None:
    """Send this worker a task every few seconds that touches its pulse.

    So the guard knows that tasks are really taken. While the broker is away none can be, and that
    is no fault of ours.
    """
    queue = keys.host_queue(config.name, config.instance)
    while True:
        try:
            app.send_task(PULSE, queue=queue, expires=PULSE_S * 2)
        except (OperationalError, RedisError) as error:
            log.debug("pulse: %s", error)
            touch(config.celery_pulse)
        time.sleep(PULSE_S)


def carry_bells(app: Celery, config: HostConfig, settings: Settings) -> None:
    """Send the agent's requests for a dispatch pass on, for as long as the process lives."""
    store = JobStore(connect(settings.redis_url))
    try:
        with translated():
            store.take_request()  # a predecessor may have died with the message in its hands
            request_dispatch(store, app)
    except Exception as error:  # the broker is away: the agent rings again
        log.info("bells: %s", error)
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as agent:
                agent.connect(str(config.agent_socket))
                agent.sendall(to_line({"bells": True}))
                for _ in lines(agent):
                    with translated():
                        request_dispatch(store, app)
        except OSError as error:
            log.debug("bells: %s", error)  # the agent is being started
        except Exception as error:  # without this thread the host would never dispatch again
            log.warning("bells: %s", error)
        time.sleep(0.2)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_our_logging(**_: Any) -> None:
    """Celery leaves logging alone when somebody listens to this signal."""


def main() -> None:
    """Start the worker that the guard described."""
    end_with_parent(int(sys.argv[1]))
    setup_logging("celery")
    config, settings = HostConfig.from_env()
    app = make_app(config, settings)
    threading.Thread(target=carry_bells, args=(app, config, settings), daemon=True).start()
    threading.Thread(target=beat, args=(app, config), daemon=True).start()
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
