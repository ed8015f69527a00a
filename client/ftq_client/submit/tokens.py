"""Where the Hub token of a job comes from; it is never an argument of a command."""

import os
import sys
from pathlib import Path

from ftq_shared.errors import UsageError


def find_token() -> str | None:
    """Return the token of HF_TOKEN or of `hf auth login`, None when there is neither."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if token:
        return token
    # Where `hf auth login` writes; huggingface_hub.get_token reads the same file but takes 0.2 s
    # to import, which every submit would pay.
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    path = Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
    return (path.read_text().strip() or None) if path.is_file() else None


def token_from_stdin() -> str:
    """Read a token from standard input. Raises UsageError when there is none."""
    token = "" if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not token:
        raise UsageError(
            "--token-stdin: no token came", hint="for example: ftq submit ... --token-stdin < file"
        )
    return token


def secret_values(names: tuple[str, ...]) -> dict[str, str]:
    """Return the secrets that `--secret NAME` names, from the environment.

    Raises UsageError that names all that are not set.
    """
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"--secret: not set in the environment: {', '.join(missing)}",
            hint="export the variable first; its value never stands on the command line",
        )
    return {name: os.environ[name] for name in names}
