"""A real zygote with phases of the tests' own, put in place of the real ones."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftq_worker.agent.child import ZygoteSpawn

PHASES = """
    import ctypes, os, signal, sys, threading, time, types, warnings
    from ftq_shared.errors import Refused
    from ftq_shared.events import EventType
    from ftq_worker.job.context import Interrupted

    def count(ctx):
        for n in range(100_000):
            ctx.emit(EventType.PROGRESS, task="count", done=n, unit="steps")
            ctx.control.check()
            time.sleep(0.01)

    def busy(ctx):
        ctx.emit(EventType.LOG, line="busy")
        while True:  # never a safe point: only the kernel can end it
            sum(range(10_000))

    def hold(ctx):
        ctx.emit(EventType.LOG, line="held")
        ctypes.PyDLL(None).sleep(8)  # PyDLL keeps the interpreter's lock
        while True:
            ctx.control.check()
            time.sleep(0.01)

    def sleep(ctx):
        ctx.emit(EventType.LOG, line="sleeping")
        while True:
            ctx.control.check()
            time.sleep(0.05)

    def grow(ctx):
        held = []
        while True:
            held.append(bytearray(os.urandom(2**20)) * 8)
            time.sleep(0.02)

    def refuse(ctx):
        print("words on stdout")
        raise Refused("no", hint="do this", field="x", secret=ctx.secrets["HF_TOKEN"][:3])

    def vanish(ctx):
        os.kill(os.getpid(), signal.SIGSEGV)

    def fork(ctx):
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        ctx.emit(EventType.LOG, line="forked")
        time.sleep(600)

    def tell(ctx):
        for n in range(5):
            ctx.emit(EventType.LOG, line=str(n))
        ctx.owner.flush_events()
        ctx.emit(EventType.LOG, line="sealed")

    def ask(ctx):
        ctx.owner.check_lease()
        ctx.emit(EventType.LOG, line=ctx.owner.try_lock("a repo"))
        ctx.owner.check_lease()

    def warn(ctx):
        warnings.warn("a library's own words")
        for target in (sys.exit, lambda: 1 / 0):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    def no_room(ctx):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("a library's own words") from error

    for phase in (count, busy, grow, hold, sleep, refuse, vanish, fork, ask, tell, warn, no_room):
        module = types.ModuleType(f"ftq_worker.phases.{phase.__name__}")
        module.run = phase
        sys.modules[module.__name__] = module
"""
ZYGOTE = """
    import sys
    from pathlib import Path
    import ftq_worker.child.main
    from ftq_worker.host.wire import listen
    from ftq_worker.child.zygote import Zygote
    import fake_phases
    from ftq_worker.host.log import setup_logging
    setup_logging("zygote", "json")
    ftq_worker.child.main.Phase = lambda name: name
    Zygote(listen(Path(sys.argv[1])), Path(sys.argv[1] + ".heartbeat")).serve()
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the children's path with the test's phases."""
    (tmp_path / "fake_phases.py").write_text(textwrap.dedent(PHASES))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def zygote(code: Path) -> Iterator[ZygoteSpawn]:
    """A real zygote that has imported the test's phases and nothing heavy."""
    path = code / "z.sock"
    script = textwrap.dedent(ZYGOTE)
    process = subprocess.Popen([sys.executable, "-c", script, str(path)])
    yield ZygoteSpawn(path)
    process.kill()
    process.wait()
