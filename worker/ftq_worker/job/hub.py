"""The Hub as a phase sees it: the job's endpoint and token, retries shown, stops noticed."""

import time

from ftq_shared.hub import HubClient, Retry
from ftq_worker.job.context import PhaseContext

_NOTICE_EVERY_S = 0.25


def hub_of(ctx: PhaseContext, retry: Retry | None = None) -> HubClient:
    """Return a client whose waits are shown as warnings and end when the job is stopped.

    Its calls raise Refused, HubUnreachable (exit 7), and JobCancelled or Interrupted.
    """
    hint = "nothing is lost: `ftq retry` goes on from here if the Hub stays away"

    def told(text: str) -> None:
        ctx.control.check()
        ctx.warn(text, hint=hint)

    def pause(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ctx.control.check()
            time.sleep(min(left, _NOTICE_EVERY_S))

    return HubClient(ctx.endpoint, ctx.hub_token, told, retry or Retry(sleep=pause))
