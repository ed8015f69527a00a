"""What is published to all agents: cancels, drains, requests for a model or for more room.

The channel is only a hint. A cancel or drain that is missed is seen at the next renewal or
heartbeat; a client whose request is missed asks again.
"""

import json
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ftq_shared import keys
from ftq_shared.broker import translated
from ftq_shared.paths import JobPaths
from ftq_worker.agent.model_relay import FetchRequest, send_folder
from ftq_worker.agent.retention import PruneRequest, Retention, answer_prune
from ftq_worker.agent.services import Services

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

AGAIN_S = 1.0  # between two tries to listen


class Published(FetchRequest, PruneRequest, total=False):
    """One message: a FetchRequest, a PruneRequest, or one of these two alone."""

    cancel: str  # a job
    drain: str  # a host


class ControlChannel:
    """Listens to the channel and calls the agent."""

    def __init__(
        self,
        services: Services,
        redis: "Redis",
        *,
        on_cancel: Callable[[str], None],
        on_drain: Callable[[], None],
        retention: Retention,
    ) -> None:
        self._services = services
        self._redis = redis
        self._retention = retention
        self._on_cancel, self._on_drain = on_cancel, on_drain

    def listen(self, stopping: threading.Event) -> None:
        """Handle messages until the agent stops; an outage is waited out."""
        pubsub: Any = self._redis.pubsub()  # type: ignore[no-untyped-call]
        while not stopping.is_set():
            try:
                if not pubsub.subscribed:
                    pubsub.subscribe(keys.CONTROL)
                message = pubsub.get_message(timeout=1.0)
                if message and message["type"] == "message":
                    self.handle(json.loads(message["data"]))
            except Exception as error:  # an outage, or a message that is not ours
                log.info("control channel: %s", error, extra={"action": "control_failed"})
                stopping.wait(AGAIN_S)

    def handle(self, message: Published) -> None:
        if message.get("drain") == self._services.host:
            self._on_drain()  # asks the broker: only who may write a host's record may drain it
        if "cancel" in message:
            self._on_cancel(message["cancel"])
        here = message.get("storage_id") == self._services.storage_id
        if here and keys.is_job_id(str(message.get("fetch"))):
            threading.Thread(target=self._send_folder, args=(message,), daemon=True).start()
        if "prune" in message:
            threading.Thread(target=self._prune, args=(message,), daemon=True).start()

    def _prune(self, request: Published) -> None:
        services = self._services
        with translated():
            answer_prune(services.binary, self._retention, services.storage_id, request)

    def _send_folder(self, request: FetchRequest) -> None:
        """Answer a client that wants a job's model and shares no storage with us."""
        services = self._services
        with translated():
            send_folder(services.binary, JobPaths(services.storage, request["fetch"]), request)
