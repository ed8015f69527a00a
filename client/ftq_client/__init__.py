"""The `ftq` command and the Python SDK."""

from typing import Any

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """Import the SDK at its first use: `ftq --help` needs none of it."""
    if name == "Client":
        from ftq_client.client import Client

        return Client
    raise AttributeError(name)
