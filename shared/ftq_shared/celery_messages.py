"""The Celery application as both sides see it: its settings, and its messages.

A message is only a hint that the records changed; losing or doubling one changes nothing.
The settings and what was measured for each: docs/decisions/0003-celery-settings.md.
"""

import functools
from typing import TYPE_CHECKING

from ftq_shared import keys
from ftq_shared.broker_url import parse_broker_url

if TYPE_CHECKING:
    from celery import Celery

    from ftq_shared.store import JobStore

DISPATCH = "ftq.dispatch"  # task: run one dispatch pass
RUN_PHASE = "ftq.run_phase"  # task: hand (job, token) to this host's agent


def celery_settings(url: str) -> dict[str, object]:
    """Return Celery's settings for a broker; the same for those who send and who receive."""
    parts = parse_broker_url(url)
    settings: dict[str, object] = {
        "broker_url": parts.url,
        "broker_transport_options": {
            # A popped message is gone. Nothing is parked in `unacked`, so nothing is redelivered
            # by a clock or a lost connection; the job record repairs what is lost.
            "ack_emulation": False,
            "visibility_timeout": 7 * 86_400,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "queue_order_strategy": "priority",
            "client_name": "ftq-worker",
        },
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "task_publish_retry_policy": {"max_retries": 3, "interval_max": 1},
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_ignore_result": True,
        "result_backend": None,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "task_default_queue": keys.DISPATCH_QUEUE,
        "task_create_missing_queues": True,
    }
    if parts.tls:  # a URL's own options would replace these as a whole
        settings["broker_use_ssl"] = parts.tls_arguments
    return settings


@functools.cache
def sender(url: str) -> "Celery":
    """Return an application that only sends."""
    from celery import Celery

    app = Celery("ftq", set_as_current=False)
    app.conf.update(celery_settings(url))
    return app


def request_dispatch(store: "JobStore", app: "Celery") -> bool:
    """Ask for a dispatch pass, unless one has been asked for already; return whether it was sent.

    Raises kombu's OperationalError when the broker does not take the message.
    """
    if not store.first_to_request():
        return False
    app.send_task(DISPATCH, queue=keys.DISPATCH_QUEUE)
    return True
