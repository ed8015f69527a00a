"""`ftq fetch`: bring a model here."""

from pathlib import Path

import click

from ftq_client.commands.output import print_note, print_text


@click.command(short_help="Bring a finished job's model here.")
@click.argument("job", required=False)
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))
def fetch(job: str | None, directory: Path | None) -> None:
    """Bring a finished job's model here, into DIRECTORY (by default a folder named like the job).

    JOB may be the beginning of an id; without one it is your newest job. The model comes from the
    storage that client and workers share, else through the broker. Beside it lie report.html, with
    the rows that it was trained on, and train.json, with every setting and score.

    \b
      ftq fetch
      ftq fetch ft-7k3q2xhd ./model
      ftq fetch ./model
    """  # noqa: D301
    from ftq_client.client import Client
    from ftq_client.view.format import counted, size
    from ftq_shared.errors import UsageError

    if job and not directory and job.startswith((".", "/", "~")):
        directory, job = Path(job).expanduser(), None
    client = Client()
    found = client.find(job)
    target = directory or Path(found)
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty", hint=f"name another: ftq fetch {found} ./model")
    client.fetch(found, target)
    files = [file for file in target.rglob("*") if file.is_file()]
    print_text(str(target))
    size_text = size(sum(file.stat().st_size for file in files))
    print_note(f"{counted(len(files), 'file')} of {found}, {size_text}")
