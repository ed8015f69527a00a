"""What the command costs: `ftq --help` against a bare click program, and `ftq list`.

python -m benchmarks.client_weight [PAIRS]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Table
from ftq_client.local.valkey import EmbeddedBroker

BARE = """
import click
@click.group()
def cli(): pass
@cli.command()
def one(): "One."
cli()
"""


def seconds(command: list[str], env: dict[str, str]) -> float:
    """Return how long a command takes."""
    started = time.monotonic()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main(pairs: int = 15) -> None:
    """Measure in turn and print the ratio."""
    table = Table("seconds")
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder) / "b") as broker:
        env = dict(os.environ) | {"FTQ_REDIS_URL": broker.url, "FTQ_HOME": folder}
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        ftq = str(Path(sys.executable).parent / "ftq")
        for _ in range(pairs):
            table.add("bare click --help", seconds([sys.executable, str(bare), "--help"], env))
            table.add("ftq --help", seconds([ftq, "--help"], env))
            table.add("ftq list", seconds([ftq, "list"], env))
    table.show()
    table.show_ratio("ftq --help", "bare click --help")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
