"""The questions of `ftq submit`, typed on a real pseudo-terminal."""

import os
import re
import sys
from pathlib import Path

import click
import pexpect
import pytest
from rich.console import Console

from ftq_client.submit.questions import (
    Answer,
    Answered,
    Essentials,
    Kind,
    NotFound,
    ask_missing,
)
from ftq_shared.errors import HubUnreachable, Refused, UsageError

# As here: the script imports this module.
PATH = os.pathsep.join([str(Path(__file__).resolve().parents[4]), *sys.path])
SCRIPT = """
import json, sys
from rich.console import Console
from tests.unit.client.submit.test_questions import FakeLookup
from ftq_client.submit.questions import Essentials, ask_missing
import click
lookup = FakeLookup(token={token!r})
try:
    asked = ask_missing(Essentials(**{given!r}), lookup=lookup, console=Console(stderr=True))
    print("ANSWER", json.dumps(vars(asked)), lookup.typed)
except click.Abort:
    print("ABORTED")
"""
MODELS = ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B"]
SECRET = "hf_abcdefghijklmnop"
READER = "hf_may_only_read_things"
EXPIRED = "hf_was_known_once_upon"


class FakeLookup:
    """A Lookup with a small Hub of its own in memory."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.typed = 0  # characters of the token that was typed: enough to know that it arrived

    def model(self, name: str) -> Answer:
        if self.token == EXPIRED:
            raise Refused("the Hub does not know the token", code="bad_token", hint="log in")
        if name == "meta/gated":
            return Answered(name, "gated", needs_token=True)
        if name == "bad name":
            raise UsageError("model: 'bad name' is no Hub id", hint="a Hub id looks like org/name")
        if name == "Qwen/Qwen3":
            raise Refused("there is no model Qwen/Qwen3", nearest=MODELS, hint="did you mean ...")
        return Answered(name, "0.6B parameters") if name in MODELS else NotFound(MODELS)

    def dataset(self, name: str) -> Answer:
        base = name.partition("@")[0]
        if base == "openai/gsm8k":
            return Answered(name, configs=["main", "socratic"])
        if name == "big/configs":
            return Answered(name, configs=[f"lang-{n}" for n in range(40)])
        if name in ("openai/gsm8k:main", "./rows.jsonl"):
            return Answered(name, "7,473 rows")
        return NotFound()

    def search(self, kind: Kind, query: str) -> list[str]:
        return [name for name in MODELS if query in name]

    def has_token(self) -> bool:
        return bool(self.token)

    def use_token(self, token: str) -> Answer:
        self.typed = len(token)
        if token != SECRET:
            return NotFound(message="the Hub does not know this token")
        self.token = token
        return Answered("ann")

    def drop_token(self) -> None:
        self.token = ""

    def target_name(self, repo: str) -> Answer:
        if "*" in repo:
            raise UsageError(f"{repo!r} is no repo; write name or org/name")
        return Answered(repo)

    def target(self, repo: str) -> Answer:
        if self.token == READER:
            raise Refused(f"no write access to {repo}: the role is read", code="weak_token")
        if repo.startswith("ann/"):
            return Answered(repo, "will be made, private")
        return NotFound(["ann/new"], f"this token may not write to {repo}")


class Terminal:
    """A conversation: what is asked, what is typed, what came of it."""

    def __init__(self, given: dict[str, str] | None = None, token: str = "", **env: str) -> None:
        self.seen = ""
        self.child = pexpect.spawn(
            sys.executable,
            ["-c", SCRIPT.format(given=given or {}, token=token)],
            env={**os.environ, "TERM": "xterm", "PYTHONPATH": PATH, "NO_COLOR": "1", **env},
            dimensions=(40, 120),
            encoding="utf-8",
            timeout=20,
        )

    def asks(self, pattern: str) -> "Terminal":
        self.child.expect(pattern)
        self.seen += self.child.before + self.child.after
        return self

    def types(self, text: str) -> "Terminal":
        self.child.sendline(text)
        return self

    def answer(self) -> str:
        self.asks(r"ANSWER .*\n")
        return re.findall(r"ANSWER (.*?)\r?\n", self.seen)[-1]


def test_model_dataset_and_target() -> None:
    terminal = Terminal(token=SECRET)
    terminal.asks("Model to fine-tune").types("Qwen/Qwen3-0.6B").asks("✓ Qwen/Qwen3-0.6B  0.6B")
    terminal.asks("Dataset to train on").types("./rows.jsonl").asks("✓ ./rows.jsonl")
    terminal.asks("Publish to").types("ann/out").asks("✓ ann/out")
    assert terminal.answer() == (
        '{"model": "Qwen/Qwen3-0.6B", "dataset": "./rows.jsonl", "target": "ann/out"} 0'
    )


def test_a_wrong_name_is_answered_with_the_nearest_and_a_number_picks() -> None:
    terminal = Terminal({"dataset": "./rows.jsonl"})
    terminal.asks("Model").types("Qwen/Qwen3").asks("✗ there is no model Qwen/Qwen3; the nearest:")
    terminal.asks("1  Qwen/Qwen3-0.6B").asks("2  Qwen/Qwen3-1.7B").asks("1 to 2 picks")
    terminal.types("7").asks("there is no 7; pick 1 to 2").asks("1 to 2 picks")
    terminal.types("2").asks("✓ Qwen/Qwen3-1.7B").asks("Publish to").types("")
    assert '"model": "Qwen/Qwen3-1.7B"' in terminal.answer()


def test_a_search_offers_names() -> None:
    terminal = Terminal({"dataset": "./rows.jsonl"})
    terminal.asks("Model").types("?").asks("a search needs words")
    terminal.asks("Model").types("?nothing like it").asks("no model for")
    terminal.asks("Model").types("?1.7").asks("1  Qwen/Qwen3-1.7B").asks("1 picks").types("1")
    terminal.asks("Publish to").types("")
    assert '"model": "Qwen/Qwen3-1.7B"' in terminal.answer()


def test_a_malformed_name_says_how_one_looks() -> None:
    terminal = Terminal({"dataset": "./rows.jsonl"})
    terminal.asks("Model").types("bad name").asks("is no Hub id → a Hub id looks like org/name")
    terminal.asks("Model")


def test_a_config_is_asked_and_the_revision_kept() -> None:
    terminal = Terminal({"model": "Qwen/Qwen3-0.6B"})
    terminal.asks("Dataset").types("openai/gsm8k@v1").asks("has 2 configs").asks("1  main")
    terminal.asks("Config").types("nope").asks("has no config nope")
    terminal.asks("Config").types("2").asks("✓ openai/gsm8k:socratic@v1")
    terminal.asks("Publish to").types("")
    assert '"dataset": "openai/gsm8k:socratic@v1"' in terminal.answer()


def test_many_configs_are_filtered() -> None:
    terminal = Terminal({"model": "Qwen/Qwen3-0.6B"})
    terminal.asks("Dataset").types("big/configs").asks("15  lang-14").asks("and 25 more")
    terminal.asks("Config").types("?39").asks("1  lang-39").asks("Config").types("1")
    terminal.asks("✓ big/configs:lang-39")


def test_the_token_is_hidden_and_says_what_it_is_for() -> None:
    terminal = Terminal({"dataset": "./rows.jsonl"})
    terminal.asks("Model").types("meta/gated").asks("Publish to").types("bob/x")
    terminal.asks("to read meta/gated and to write bob/x").asks("Hub token").types("wrong")
    terminal.asks("does not know this token").asks("Hub token").types(SECRET).asks("token of ann")
    terminal.asks("may not write to bob/x; the nearest:").asks("1  ann/new")
    terminal.asks("Publish to").types("ann/new")
    answer = terminal.answer()
    assert answer.endswith(f" {len(SECRET)}")
    assert SECRET not in terminal.seen
    assert "wrong" not in terminal.seen


def test_a_token_can_be_left_out() -> None:
    terminal = Terminal({"dataset": "./rows.jsonl"})
    terminal.asks("Model").types("Qwen/Qwen3-0.6B").asks("Publish to").types("ann/x")
    terminal.asks("Hub token").types("").asks("Publish to").types("")
    assert '"target": ""' in terminal.answer()


def test_a_token_that_may_only_read_is_answered_with_another_and_no_answer_is_lost() -> None:
    terminal = Terminal(token=READER)
    terminal.asks("Model").types("Qwen/Qwen3-0.6B").asks("Dataset").types("./rows.jsonl")
    terminal.asks("Publish to").types("ann/out").asks("the role is read")
    terminal.asks("Another Hub token").types(SECRET).asks("token of ann").asks("✓ ann/out")
    assert '"dataset": "./rows.jsonl", "target": "ann/out"' in terminal.answer()


def test_a_token_that_may_only_read_can_be_kept_for_another_target() -> None:
    terminal = Terminal({"dataset": "./rows.jsonl"}, token=READER)
    terminal.asks("Model").types("Qwen/Qwen3-0.6B")
    terminal.asks("Publish to").types("ann/out").asks("Another Hub token").types("")
    terminal.asks("Publish to").types("")
    assert '"target": ""' in terminal.answer()


@pytest.mark.parametrize("other", [SECRET, ""])
def test_an_expired_token_is_answered_with_another_or_none(other: str) -> None:
    terminal = Terminal({"dataset": "./rows.jsonl"}, token=EXPIRED)
    terminal.asks("Model").types("Qwen/Qwen3-0.6B").asks("does not know the token")
    terminal.asks("Another Hub token .*go on without").types(other).asks("✓ Qwen/Qwen3-0.6B")
    terminal.asks("Publish to").types("")
    assert '"model": "Qwen/Qwen3-0.6B"' in terminal.answer()


def test_a_name_that_is_none_is_refused_before_a_token_is_asked_for() -> None:
    terminal = Terminal({"dataset": "./rows.jsonl"})
    terminal.asks("Model").types("Qwen/Qwen3-0.6B").asks("Publish to").types("*.jsonl")
    terminal.asks("is no repo")
    terminal.asks("Publish to|Hub token").types("")
    assert terminal.child.after == "Publish to"
    assert '"target": ""' in terminal.answer()


def test_nothing_is_asked_where_nothing_is_missing() -> None:
    given = {"model": "a/b", "dataset": "c/d"}
    assert Terminal(given).answer() == '{"model": "", "dataset": "", "target": ""} 0'
    terminal = Terminal({**given, "target": "ann/x"})
    terminal.asks("to write ann/x").asks("Hub token").types(SECRET)
    assert terminal.answer().endswith(f'"target": ""}} {len(SECRET)}')


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_ctrl_c_and_the_end_of_input_are_a_clean_end(key: str) -> None:
    for hidden in (False, True):
        terminal = Terminal({"dataset": "./rows.jsonl"})
        terminal.asks("Model.*: ")
        if hidden:
            terminal.types("meta/gated").asks("Publish to.*: ").types("").asks("hidden.*: ")
        terminal.child.send(key)
        terminal.asks("ABORTED")
        assert "Traceback" not in terminal.seen


def test_an_ascii_terminal_gets_ascii() -> None:
    terminal = Terminal({"dataset": "./rows.jsonl"}, PYTHONIOENCODING="ascii")
    terminal.asks("Model").types("Qwen/Qwen3-0.6B").asks(r"\+ Qwen/Qwen3-0.6B")


class Unreachable(FakeLookup):
    """A Lookup whose Hub is away."""

    def model(self, name: str) -> Answer:
        raise HubUnreachable("the Hub does not answer")


def test_a_hub_that_is_away_ends_the_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click, "prompt", lambda *_, **__: "a/b")
    with pytest.raises(HubUnreachable):
        ask_missing(Essentials(), lookup=Unreachable(), console=Console(stderr=True))


def test_names_from_the_hub_are_shown_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(FakeLookup):
        def model(self, name: str) -> Answer:
            return Answered("a/b", "[red]x[/red] \x1b[2J")

    answers = iter(["a/b", ""])
    monkeypatch.setattr(click, "prompt", lambda *_, **__: next(answers))
    asked = ask_missing(Essentials(dataset="d"), lookup=Odd(), console=Console(stderr=True))
    assert asked == Essentials("a/b")
    captured = capsys.readouterr()
    assert r"[red]x[/red] \x1b[2J" in captured.err
    assert captured.out == ""
