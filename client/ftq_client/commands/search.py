"""`ftq search`: find models and datasets."""

import click

from ftq_client.commands.options import json_option
from ftq_client.commands.output import print_json, print_note, print_text


@click.command(short_help="Search models or datasets on the Hub.")
@click.argument("kind", type=click.Choice(["models", "datasets"]))
@click.argument("query")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True)
@json_option
def search(kind: str, query: str, limit: int, as_json: bool) -> None:
    """Search models or datasets on the Hub, most downloaded first.

    \b
      ftq search models qwen3
      ftq search datasets gsm8k --json
    """  # noqa: D301
    from ftq_client.submit.tokens import find_token
    from ftq_shared.hub import HubClient
    from ftq_shared.settings import load_settings

    hub = HubClient(load_settings().hf_endpoint, find_token(), on_retry=print_note)
    find = hub.search_models if kind == "models" else hub.search_datasets
    found = find(query, limit)
    for repo in found:
        if as_json:
            print_json({"id": repo.id, "downloads": repo.downloads, "likes": repo.likes})
        else:
            print_text(f"{repo.id:<60} {repo.downloads or 0:>12,} downloads")
    if not found:
        print_note(f"no {kind} for {query!r}")
