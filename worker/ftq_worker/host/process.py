"""One process that must run: started, restarted ever more slowly when it keeps dying, ended."""

import logging
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger("ftq.guard")

CALM_S = 60.0  # a process that lived so long is restarted at once


@dataclass
class Process:
    """One process that must run."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    popen: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    delay_s: float = 0.0
    not_before: float = 0.0  # monotonic; the next start is no earlier

    def keep(self) -> None:
        """Start it when it does not run; a process that keeps dying is started ever more slowly."""
        now = time.monotonic()
        if self.popen and self.popen.poll() is None:
            return
        if self.popen:
            calm = now - self.started > CALM_S
            self.delay_s = 0.0 if calm else min(30.0, self.delay_s * 2 or 0.5)
            self.not_before = now + self.delay_s
            log.warning("%s ended (%s); starting it again", self.name, self.popen.returncode)
            self.popen = None
        if now >= self.not_before:
            self.started = now
            self.popen = subprocess.Popen(
                self.command, env=dict(self.env), stdin=subprocess.DEVNULL, start_new_session=True
            )

    def end(self, wait_s: float) -> None:
        """Ask it to end; kill it when it does not."""
        if not self.popen or self.popen.poll() is not None:
            return
        self.popen.terminate()
        try:
            self.popen.wait(wait_s)
        except subprocess.TimeoutExpired:
            log.warning("%s does not end; killing it", self.name)
            self.popen.kill()
            self.popen.wait()
