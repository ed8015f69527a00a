"""`ftq fetch`: bring a model here."""

from pathlib import Path

import click

from ftq_client.commands.output import print_note, print_text


@click.command(short_help="Bring a finished job's model here.")
@click.argument("job")
@click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))
def fetch(job: str, directory: Path | None) -> None:
    """Bring a finished job's model here, into DIRECTORY (by default a folder named like the job).

    It comes from the storage that client and workers share, else through the broker.
    """
    from ftq_client.client import Client
    from ftq_shared.errors import UsageError

    client = Client()
    found = client.find(job)
    target = directory or Path(found)
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty", hint=f"ftq fetch {found} ANOTHER_DIRECTORY")
    client.fetch(found, target)
    files = [file for file in target.rglob("*") if file.is_file()]
    size_mb = sum(file.stat().st_size for file in files) / 1e6
    print_text(str(target))
    print_note(f"{len(files)} files, {size_mb:.1f} MB")
