"""What the client and the workers agree on. Nothing here imports torch."""

__version__ = "0.1.0"
