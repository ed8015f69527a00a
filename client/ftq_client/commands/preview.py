"""`ftq preview`: what a job would train on, before anything is submitted."""

from pathlib import Path

import click

from ftq_client.commands.options import dataset_option, json_option, model_option, task_option
from ftq_client.commands.output import print_json, print_note


@click.command(short_help="Show what a job would train on: nothing is submitted.")
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@model_option("Base model: Hub id or ./folder.")
@dataset_option
@task_option
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any field of the spec, as in submit."
)
@click.option(
    "--rows", type=click.IntRange(1, 1000), default=3, show_default=True, help="Rows to show."
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page too.")
@json_option
def preview(
    spec: Path | None,
    sets: tuple[str, ...],
    rows: int,
    html: Path | None,
    as_json: bool,
    **flags: str | None,
) -> int:
    """Show what a job would train on; nothing is submitted, and no broker is needed.

    It reads up to 5,000 rows of each split, and does with them what a job does: rows as the model
    sees them, what is trained of each, lengths, labels, and all that is left out, with the reason
    and the setting that would use it. A job that would be refused is refused here, with the same
    exit code. The training stack must be installed here: pip install 'ftq[worker]'.

    \b
      ftq preview --model Qwen/Qwen3-0.6B --dataset ./rows.jsonl
      ftq preview job.yaml --rows 10 --html rows.html
      ftq preview job.yaml --json | jq .unused
    """  # noqa: D301
    from ftq_client.preview import Look, look, raised, show
    from ftq_client.submit.build_spec import read_raw, refuse_bad
    from ftq_shared.settings import load_settings

    raw = read_raw(spec, {name: value for name, value in flags.items() if value}, sets)
    refuse_bad(raw)
    report = look(Look(raw, load_settings().hf_endpoint, rows, html), print_note)
    if as_json:
        print_json(dict(report))
    else:
        show(report)
    if html:
        print_note(f"written: {html}")
    if report["refusal"]:
        raise raised(report["refusal"])
    return 0
