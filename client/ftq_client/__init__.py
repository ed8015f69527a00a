"""The `ftq` command and the Python SDK."""
