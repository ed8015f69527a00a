"""`ftq demo`: a whole fine-tune on one machine, without network."""

import click


@click.command(short_help="Run a whole fine-tune here, without any network.")
@click.option("--keep", is_flag=True, help="Keep the folder: the Hub, the model, the logs.")
def demo(keep: bool) -> int:
    """Run a whole fine-tune here, without any network.

    It starts a Hub, a broker and a worker of its own in a temporary folder, fine-tunes a tiny
    model on a small, dirty dataset with the real `ftq submit`, loads what was published from that
    Hub, asks it questions, and stops and removes everything. It takes about a minute and needs
    no GPU. Your own `ftq up`, if there is one, is left alone.

    \b
      ftq demo
    """  # noqa: D301
    from ftq_client.local.demo import run_demo

    return run_demo(keep=keep)
