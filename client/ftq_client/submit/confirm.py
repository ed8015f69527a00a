"""The end of the questions: the whole job on one screen, and one confirmation."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from ftq_client.submit.questions import Essentials
from ftq_client.view.lines import Style, shown, text_of, wrap
from ftq_shared.errors import FtqError
from ftq_shared.spec_input.dotted_fields import fields

if TYPE_CHECKING:
    from rich.console import Console

    from ftq_shared.spec import JobSpec

_LABEL = 10  # columns


def confirm(
    spec: "JobSpec",
    facts: Mapping[str, str],
    asked: Essentials,
    typed: Sequence[str],
    console: "Console",
    notes: Sequence[str] = (),
    preview: Callable[[], None] | None = None,
) -> None:
    """Show what will be submitted, and the command that does the same; ask for a yes.

    `facts` is what the questions found out, `typed` are the arguments of the command that was
    typed, `notes` say what is not used of the person's own rows. `preview` shows what the job would
    train on, where that can be told here. Raises click.Abort when it is not confirmed.
    """
    method, task = spec.train.method, str(spec.task)
    rows = {
        "model": spec.model,
        "dataset": spec.dataset,
        "rows": facts.get("rows") or "counted when the job reads them",
        "task": "follows from the columns" if task == "auto" else task,
        "method": fields()["train.method"].description if method == "auto" else method,
        "gpus": "what the fleet has" if spec.resources.gpus == "auto" else spec.resources.gpus,
        "target": _target(spec),
    }
    console.print()
    for label, text in rows.items():
        start = f"  {label:<{_LABEL}}"
        for line in wrap(((f"{start}{shown(text)}", Style.PLAIN),), console.width, len(start)):
            console.print(text_of(line), markup=False, highlight=False, emoji=False)
    for note in notes:
        for line in wrap(((f"  {shown(note)}", Style.PLAIN),), console.width, 4):
            console.print(text_of(line), markup=False, highlight=False, emoji=False)
    console.print("  the same without questions:")
    # Not wrapped: people copy it.
    click.echo(f"  {equal_command(asked, typed)}", err=True)
    if look := preview_command(spec, typed):
        console.print("  what it would train on:")
        click.echo(f"  {look}", err=True)
    if preview is None or not preview_command(spec, typed):
        sure = click.confirm("Submit it", default=True, err=True)
    else:
        sure = _sure(preview)
    if not sure:
        click.echo("nothing was submitted", err=True)
        raise click.Abort


def _sure(preview: Callable[[], None]) -> bool:
    """Ask, and let the rows be looked at before the answer, as often as wanted."""
    question = "Submit it (p: first see what it would train on) [Y/n/p]"
    ask = partial(
        click.prompt,
        question,
        default="y",
        type=click.Choice(("y", "n", "p"), case_sensitive=False),
        show_default=False,
        show_choices=False,
        err=True,
    )
    while (answer := ask()) == "p":
        try:
            preview()
        except FtqError as error:
            click.echo(f"{error.message}\n  {error.hint}", err=True)
    return bool(answer == "y")


def equal_command(asked: Essentials, typed: Sequence[str]) -> str:
    """Return the command that submits the same job, ready to be copied."""
    answers = {"--model": asked.model, "--dataset": asked.dataset, "--publish-to": asked.target}
    words = [word for option, value in answers.items() if value for word in (option, value)]
    return shlex.join(["ftq", "submit", *typed, *words])


def preview_command(spec: "JobSpec", typed: Sequence[str]) -> str:
    """Return the command that shows what the job would train on, ready to be copied.

    Empty where the rest of the spec is another job's, which a preview cannot begin with.
    """
    if "--from" in typed:
        return ""
    file = [word for word in typed[:1] if not word.startswith("--")]
    kept = [pair for pair in pairwise(typed) if pair[0] in ("--task", "--set")]
    words = ["--model", spec.model, "--dataset", spec.dataset]
    words += [word for pair in kept for word in pair]
    return shlex.join(["ftq", "preview", *file, *words])


def _target(spec: "JobSpec") -> str:
    if not spec.publish.repo:
        return "not published; `ftq fetch` brings the model"
    seen = "private" if spec.publish.private else "public"
    return f"{spec.publish.repo}, {seen} where it is new"
