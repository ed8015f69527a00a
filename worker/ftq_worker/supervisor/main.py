"""The supervisor: tiny, starts and restarts the others, and lets no process escape.

    python -m ftq_worker.supervisor.main [--name N] [--gpus all|N|LIST] [--slots N] [--cold]

It is the subreaper of all that runs below it. SIGTERM or Ctrl-C drains the host: the agent hands
its jobs back after a checkpoint, then Celery and the zygote end, then whatever is left is killed.
A second signal is harmless. Exit code 0: everything was handed back; 75: something was not, and
its lease runs out.
"""

import argparse
import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ftq_shared import keys
from ftq_shared.broker import connect, ping, translated
from ftq_shared.broker_check import look_at_broker
from ftq_shared.errors import FtqError, UsageError
from ftq_shared.hosts import HostStore
from ftq_shared.paths import open_storage
from ftq_shared.processes import (
    IS_LINUX,
    become_subreaper,
    children_of,
    kill_descendants,
    own_module,
)
from ftq_shared.settings import Settings, load_settings
from ftq_shared.signals import Wakeup
from ftq_worker.host.config import UNCLEAN, HostConfig
from ftq_worker.host.environment import child_environment, clean_environment
from ftq_worker.host.linux import end_with_parent
from ftq_worker.host.log import setup_logging
from ftq_worker.host.process_tree import kill_all, kill_leftovers, load_pids, save_pids
from ftq_worker.host.wire import SOCKET_PATH_MAX
from ftq_worker.supervisor.fleet_key import announce_fleet
from ftq_worker.supervisor.gpus import offered_gpus
from ftq_worker.supervisor.process import HeartbeatWatch, Process

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

DRAIN_S = 90.0  # what the agent gets to hand back its jobs, or as long as their saves need
RUN_DIR = "ftq-"  # how the name of a worker's temporary folder begins
LOOK_S = 0.5  # between two looks at the processes
END_S = 10.0  # what the others get to end in order


class Supervisor:
    """Keeps the processes of one worker running until it is told to stop."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        env = clean_environment(os.environ) | {HostConfig.ENV: config.dumps()}
        me = str(os.getpid())
        zygote = own_module("ftq_worker.child.zygote", str(config.socket("zygote")), me)
        # The children get GPUs by CUDA_VISIBLE_DEVICES; the zygote itself must not see any.
        blind = child_environment(env) | {"CUDA_VISIBLE_DEVICES": ""}
        self._zygote = Process("zygote", zygote, blind, HeartbeatWatch(config.heartbeat("zygote")))
        self._agent = Process(
            "agent",
            own_module("ftq_worker.agent.main", me),
            env,
            HeartbeatWatch(config.heartbeat("agent")),
            self._end_phases,
        )
        celery = own_module("ftq_worker.dispatch.celery_app", me)
        self._celery = Process("celery", celery, env, HeartbeatWatch(config.heartbeat("celery")))
        others = [] if config.cold else [self._zygote]
        self._all = [*others, self._agent, self._celery]

    def run(self) -> int:
        """Keep everything running until SIGTERM or SIGINT, then end it in order.

        Returns the exit code: 0 when all work was handed back, UNCLEAN when some was not.
        """
        become_subreaper()
        wakeup = Wakeup((signal.SIGTERM, signal.SIGINT), children=True)
        while not wakeup.stop and not self._agent_left():
            started = sum(process.ensure_running() for process in self._all)
            if started or not self._config.processes.exists():  # /tmp may have been cleaned
                save_pids(self._config.processes, self._own())
            self._reap_orphans()
            wakeup.wait(LOOK_S)
        extra = {"action": "stopping", "host": self._config.name}
        log.info("stopping: running jobs save and are requeued", extra=extra)
        code = self._agent.end(DRAIN_S, self._config.drains_until)
        self._celery.end(END_S)
        self._zygote.end(END_S)
        if left := kill_descendants():
            pids = sorted(left)
            log.error(
                "processes %s do not die", pids, extra={"action": "kill_failed", "pids": pids}
            )
        return 0 if code == 0 else UNCLEAN

    def _agent_left(self) -> bool:
        """Return whether the agent ended in order: somebody drained the host."""
        return bool(self._agent.popen and self._agent.popen.poll() in (0, UNCLEAN))

    def _own(self) -> list[int]:
        return [process.pid for process in self._all if process.pid]

    def _end_phases(self) -> None:
        """Kill what a dead agent ran, before a new one gives its leases back.

        Each child ends itself when the agent's end of its pipe closes, but one that is deep in a
        library may take until its timer.
        """
        phases = set(children_of(self._zygote.pid)) if self._zygote.pid else set()
        phases |= load_pids(self._config.phases) or set()  # where the kernel lists no children
        kill_all(phases | (set(children_of(os.getpid())) - set(self._own())))

    def _reap_orphans(self) -> None:
        """Collect adopted processes that have ended; ours are left to Popen."""
        ours = self._own()
        for pid in children_of(os.getpid()):
            if pid not in ours:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


@contextlib.contextmanager
def own_name(settings: Settings, name: str) -> Iterator[tuple[IO[str], str]]:
    """Hold the lock of this worker's name on this machine; yields (lock, dead predecessor).

    What a predecessor's supervisor has left running is killed first: only then may its leases be
    given back. Raises UsageError.
    """
    if not keys.is_name(name):  # it is part of paths, keys and queues
        raise UsageError(
            f"{name!r} cannot be a worker's name",
            code="bad_name",
            hint="up to 63 letters, digits, `.`, `_` and `-`: ftq worker --name NAME",
        )
    folder = settings.home / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    lock: IO[str] = (folder / f"{name}.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UsageError(
            f"a worker called {name!r} runs on this machine already",
            code="name_taken",
            hint="give this one another name: ftq worker --name NAME",
        ) from None
    with lock:
        lock.seek(0)
        before = _read_lock(lock.read())
        if run_dir := before.get("run_dir"):
            clear_up_after(Path(run_dir))
        yield lock, before.get("instance", "")


def clear_up_after(run_dir: Path) -> None:
    """Kill what is left of a dead worker, and delete its folder, if it is one of ours.

    Of a folder that is gone, as in a /tmp that was cleaned, the processes are ended all the same.
    """
    if why := _not_ours(run_dir):
        extra = {"action": "lock_foreign", "folder": str(run_dir)}
        log.warning("the lock file names %s, which is left alone: %s", run_dir, why, extra=extra)
        return
    kill_leftovers(run_dir)
    shutil.rmtree(run_dir, ignore_errors=True)


def _not_ours(folder: Path) -> str:
    """Return why a folder cannot be that of a worker of ours, '' for one that is, or is gone."""
    if not folder.is_absolute() or not re.fullmatch(rf"{RUN_DIR}[a-z0-9_]{{8}}", folder.name):
        return "it has another name"
    try:
        status = folder.lstat()
        its_list = (folder / "processes.json").lstat()
    except FileNotFoundError:
        return "it holds no list of processes" if os.path.lexists(folder) else ""
    except (OSError, ValueError) as error:
        return str(error)
    if not stat.S_ISDIR(status.st_mode) or stat.S_IMODE(status.st_mode) != 0o700:
        return "it is no folder of mode 0700"
    if {status.st_uid, its_list.st_uid} != {os.geteuid()} or not stat.S_ISREG(its_list.st_mode):
        return "it, or the list of processes in it, is not this user's"
    return ""


def _read_lock(text: str) -> dict[str, str]:
    """Read what the last holder wrote; a damaged file names nobody."""
    try:
        held = json.loads(text or "{}")
    except (ValueError, RecursionError):
        extra = {"action": "lock_damaged"}
        log.warning("the lock file of this worker's name is damaged: no predecessor", extra=extra)
        return {}
    if not isinstance(held, dict):
        return {}
    instance = str(held.get("instance", ""))
    return {
        "run_dir": str(held.get("run_dir", "")),
        "instance": instance if keys.is_name(instance) else "",
    }


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; `ftq worker` passes its own options on."""
    parser = argparse.ArgumentParser(prog="ftq worker")
    parser.add_argument("--name", default=socket.gethostname().split(".")[0])
    parser.add_argument("--gpus", default="all")
    parser.add_argument("--slots", type=int, default=max(2, (os.cpu_count() or 2) // 2))
    parser.add_argument("--parent", type=int, help="drain when this process dies")
    parser.add_argument("--cold", action="store_true", help="no zygote; slow starts")
    return parser.parse_args(argv)


def main() -> int:
    """Check everything that can be wrong, then supervise."""
    args = parse_args()
    if args.parent:
        end_with_parent(args.parent)
    try:
        settings = load_settings()
        os.umask(settings.umask)  # before anything is written; all processes inherit it
        setup_logging("supervisor", settings.log, host=args.name)
        with own_name(settings, args.name) as (lock, replaces):
            return supervise(args, settings, lock, replaces)
    except FtqError as error:
        print(f"ftq worker: {error.message}", file=sys.stderr)  # noqa: T201  the edge of a process
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)  # noqa: T201
        return int(error.exit_code)


def supervise(args: argparse.Namespace, settings: Settings, lock: IO[str], replaces: str) -> int:
    """Make the worker's identity and run it; returns the exit code. Raises FtqError."""
    redis = connect(settings.redis_url)
    ping(settings.redis_url)
    check_broker(redis, settings)
    announce_fleet(redis, settings)
    root, storage_id = open_storage(settings.storage)
    with tempfile.TemporaryDirectory(
        prefix=RUN_DIR, dir=folder_for_sockets(), ignore_cleanup_errors=True
    ) as run_dir:
        config = HostConfig(
            name=args.name,
            instance=secrets.token_hex(4),
            replaces=replaces,
            run_dir=run_dir,
            slots=args.slots,
            gpus=tuple(offered_gpus(args.gpus)),
            storage=str(root),
            storage_id=storage_id,
            cold=args.cold or not IS_LINUX,
        )
        refuse_taken_name(HostStore(redis), config)
        lock.truncate(0)
        held = {"instance": config.instance, "pid": os.getpid(), "run_dir": run_dir}
        lock.write(json.dumps(held))
        lock.flush()
        extra = {"action": "starting", "host": config.name, "instance": config.instance}
        cards = len(config.gpus)
        log.info("worker %s: %d CPU slots, %d GPUs", config.name, config.slots, cards, extra=extra)
        return Supervisor(config).run()


def check_broker(redis: "Redis", settings: Settings) -> None:
    """Raise BrokerUnreachable for a broker that no job is safe on; log what is only risky."""
    with translated(settings.redis_url):
        state = look_at_broker(redis)
        if not any(trouble.fatal for trouble in state.troubles):
            HostStore(redis).drain("")  # of nobody: it shows whether scripts can run here
    for trouble in state.troubles:
        extra = {"action": "broker_trouble", "code": trouble.code}
        log.warning("%s (%s)", trouble.text, trouble.hint, extra=extra)
    state.refuse()


def folder_for_sockets() -> str:
    """Return the folder for temporary files, or /tmp where a socket's path would be too long."""
    usual = tempfile.gettempdir()  # that of a batch job or a user may be a hundred characters deep
    longest = os.path.join(usual, "ftq-12345678", "zygote.sock")
    return usual if len(os.fsencode(longest)) <= SOCKET_PATH_MAX else "/tmp"  # noqa: S108  mkdtemp


def refuse_taken_name(hosts: HostStore, config: HostConfig) -> None:
    """Raise UsageError before anything is started, when a live worker has the name."""
    for host in hosts.all():
        if host.name == config.name and host.online and host.instance != config.replaces:
            raise UsageError(
                f"another worker of this fleet is called {config.name!r}",
                code="name_taken",
                hint="give this one another name: ftq worker --name NAME",
            )


if __name__ == "__main__":
    sys.exit(main())
