"""`python -m ftq_client` is `ftq`."""

from ftq_client.cli import main

main()
