"""The questions of `ftq submit` on a terminal: what is missing is asked, and checked at once.

All words go to stderr. Whatever knows the Hub stands behind `Lookup`, so nothing here waits for a
network, and a token that was typed goes to the look-up and nowhere else: it is no part of a spec.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import click

from ftq_client.view.lines import Glyphs, glyphs_for, shown
from ftq_shared.errors import FtqError, Refused, UsageError

if TYPE_CHECKING:
    from rich.console import Console

Kind = Literal["model", "dataset"]
# What the Hub has against the token, and whether none at all may do instead.
_TOKENS = {"bad_token": True, "access": False, "gated": False, "weak_token": False}
_LISTED = 15  # names shown at once; more are found by a search


@dataclass(frozen=True)
class Essentials:
    """The fields of a spec that are asked for; '' for what is not there, or was not asked."""

    model: str = ""
    dataset: str = ""
    target: str = ""  # the Hub repo to publish to


@dataclass(frozen=True)
class Answered:
    """A name that can be used."""

    name: str  # as it goes into the spec
    detail: str = ""  # what it is, for people
    configs: Sequence[str] = ()  # of a dataset: one of these must be named as well
    needs_token: bool = False  # gated or private: the Hub wants to know who reads it


@dataclass(frozen=True)
class NotFound:
    """A name that cannot be used, and what comes near it."""

    nearest: Sequence[str] = ()
    message: str = ""  # why, where there is more to say than that it is not there
    other_token: bool = False  # only the token is in the way: another one may do
    no_token: bool = False  # and so may none


Answer = Answered | NotFound


class Lookup(Protocol):
    """What the questions need to know.

    UsageError and Refused are shown and asked again; other errors end the questions.
    """

    def model(self, name: str) -> Answer:
        """Look a model up; a path is looked at where it lies."""

    def dataset(self, name: str) -> Answer:
        """Look a dataset up; `configs` is filled only where the name lacks one."""

    def search(self, kind: Kind, query: str) -> list[str]:
        """Return names for a query, the best first."""

    def has_token(self) -> bool:
        """Return whether a Hub token was found or typed."""

    def use_token(self, token: str) -> Answer:
        """Try a token and keep it when it is known; the name found is whose it is."""

    def drop_token(self) -> None:
        """Go on without a token."""

    def target_name(self, repo: str) -> Answer:
        """Return whether this could be the name of a repo; nothing is asked of the Hub."""

    def target(self, repo: str) -> Answer:
        """Return whether the model may be published there, with the token that is kept."""


def ask_missing(given: Essentials, *, lookup: Lookup, console: "Console") -> Essentials:
    """Ask for model and dataset where they are missing, and then for a target; return the answers.

    Where neither is missing only a token may be asked for. Raises click.Abort on Ctrl-C and at
    the end of the input.
    """
    try:
        return _Questions(lookup, console).ask(given)
    except (KeyboardInterrupt, EOFError):
        raise click.Abort from None


class _Questions:
    """One conversation."""

    def __init__(self, lookup: Lookup, console: "Console") -> None:
        self.lookup = lookup
        self.console = console
        self.glyphs: Glyphs = glyphs_for(console.encoding)
        self.reading: list[str] = []  # what only a token opens

    def ask(self, given: Essentials) -> Essentials:
        """Ask in the order of the spec; the target only in a conversation that has begun."""
        answers: dict[str, str] = {}
        try:
            if not given.model:
                answers["model"] = self._source("model", "Model to fine-tune", self.lookup.model)
            if not given.dataset:
                answers["dataset"] = self._source(
                    "dataset", "Dataset to train on", self.lookup.dataset
                )
            if given.target or (given.model and given.dataset):
                self._token(given.target)
            else:
                answers["target"] = self._target()
        except FtqError:  # the Hub is away: what was answered is not lost
            if answers:
                flags = " ".join(f"--{key} {shlex.quote(value)}" for key, value in answers.items())
                self._print(f"answered so far: {flags}")
            raise
        return Essentials(**answers)

    def _source(self, kind: Kind, question: str, check: Callable[[str], Answer]) -> str:
        """Ask until a name is found; a number picks a name that was offered."""
        offered: Sequence[str] = ()
        while True:
            numbers = "1" if len(offered) == 1 else f"1 to {len(offered)}"
            ways = f"{numbers} picks" if offered else "a Hub id or a path"
            typed = self._prompt(f"{question} ({ways}, ?words searches)")
            if typed.startswith("?"):
                offered = self._search(kind, typed[1:].strip()) or offered
                continue
            name = self._picked(typed, offered)
            found = self._looked_up(check, name) if name else NotFound()
            if isinstance(found, Answered):
                return self._with_config(found) if found.configs else self._accepted(found)
            if found.nearest:
                offered = found.nearest[:_LISTED]
                self._offer(offered)

    def _looked_up(self, check: Callable[[str], Answer], name: str) -> Answer:
        """Look a name up, again with another token as long as only the token is in the way."""
        while True:
            found = self._checked(check, name)
            if isinstance(found, Answered) or not found.other_token:
                return found
            if not self._other_token(without=found.no_token):
                return found

    def _other_token(self, *, without: bool) -> bool:
        """Ask for another token, or whether to go `without`; return whether to try again."""
        empty = "go on without" if without else "keep it, and choose another name"
        if self._typed_token(f"Another Hub token (hidden; empty: {empty})"):
            return True
        if without:
            self.lookup.drop_token()
        return without

    def _checked(self, check: Callable[[str], Answer], name: str) -> Answer:
        """Look a name up, and print what is wrong with it."""
        try:
            answer = check(name)
        except (UsageError, Refused) as error:
            nearest = error.where.get("nearest") or ()
            message, other = error.message, error.code in _TOKENS and self.lookup.has_token()
            if error.hint and not nearest and not other:
                message = f"{message} {self.glyphs.to} {error.hint}"
            answer = NotFound(nearest, message, other, other and _TOKENS[error.code])
        if isinstance(answer, NotFound):
            near = "; the nearest:" if answer.nearest else ""
            self._print_problem((answer.message or f"{name} was not found") + near)
        return answer

    def _search(self, kind: Kind, query: str) -> list[str]:
        if not query:
            self._print_problem("a search needs words: ?qwen small")
            return []
        try:
            names = self.lookup.search(kind, query)[:_LISTED]
        except (UsageError, Refused) as error:
            self._print_problem(error.message)
            return []
        if names:
            self._offer(names)
        else:
            self._print_problem(f"no {kind} for {query!r}")
        return names

    def _picked(self, typed: str, offered: Sequence[str]) -> str:
        """Return the name that is meant, empty when a number picks nothing."""
        if not (offered and typed.isascii() and typed.isdigit()):
            return typed
        if 1 <= int(typed) <= len(offered):
            return offered[int(typed) - 1]
        self._print_problem(f"there is no {typed}; pick 1 to {len(offered)}")
        return ""

    def _with_config(self, found: Answered) -> str:
        """Ask which config of a dataset, and return the name with it."""
        self._print(f"{found.name} has {len(found.configs)} configs:")
        offered = found.configs[:_LISTED]
        self._offer(offered, hidden=len(found.configs) - len(offered))
        while True:
            typed = self._prompt("Config (name or number; ?words filters)")
            if typed.startswith("?"):
                words = typed[1:].strip().lower()
                offered = [c for c in found.configs if words in c.lower()][:_LISTED] or offered
                self._offer(offered)
                continue
            config = self._picked(typed, offered)
            if config in found.configs:
                name, at, revision = found.name.partition("@")
                return self._accepted(
                    Answered(f"{name}:{config}{at}{revision}", found.detail, (), found.needs_token)
                )
            if config:
                self._print_problem(f"{found.name} has no config {config}")

    def _target(self) -> str:
        """Ask where the model goes; empty is nowhere. A target needs a token that may write."""
        while True:
            repo = self._prompt("Publish to (a Hub repo such as me/my-model; empty: nowhere)", "")
            if not repo:
                self._token("")
                return ""
            if isinstance(self._checked(self.lookup.target_name, repo), NotFound):
                continue
            if not self._token(repo):
                continue
            found = self._looked_up(self.lookup.target, repo)
            if isinstance(found, Answered):
                return self._accepted(found)
            self._offer(found.nearest[:_LISTED])

    def _token(self, target: str) -> bool:
        """Ask for a Hub token where one is needed; return whether nothing is missing then."""
        needs = [f"read {name}" for name in self.reading] + ([f"write {target}"] if target else [])
        if not needs or self.lookup.has_token():
            return True
        self._print(f"A Hub token is needed to {' and to '.join(needs)}. It is sent sealed.")
        return self._typed_token("Hub token (hidden; empty: go on without)")

    def _typed_token(self, question: str) -> bool:
        """Ask until a token is known to the Hub; return False when none is given."""
        while token := self._prompt(question, "", hide=True):
            found = self._checked(self.lookup.use_token, token)
            if isinstance(found, Answered):
                self._print(f"{self.glyphs.good} token of {found.name}", "green")
                return True
        return False

    def _accepted(self, found: Answered) -> str:
        if found.needs_token:
            self.reading.append(shown(found.name))
        detail = f"  {found.detail}" if found.detail else ""
        self._print(f"{self.glyphs.good} {found.name}{detail}", "green")
        return found.name

    def _offer(self, names: Sequence[str], hidden: int = 0) -> None:
        for number, name in enumerate(names, 1):
            self._print(f"  {number:>2}  {name}")
        if hidden > 0:
            self._print(f"      and {hidden} more")

    def _print_problem(self, text: str) -> None:
        self._print(f"{self.glyphs.bad} {text}", "red")

    def _print(self, text: str, style: str = "") -> None:
        if text:
            self.console.print(
                shown(text), style=style or None, markup=False, highlight=False, emoji=False
            )

    def _prompt(self, question: str, default: str | None = None, hide: bool = False) -> str:
        answer: str = click.prompt(
            question, default=default, show_default=False, hide_input=hide, err=True
        )
        return answer.strip()
