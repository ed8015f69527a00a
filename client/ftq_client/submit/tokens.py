"""Where the Hub token of a job comes from; it is never an argument of a command."""

import os
import sys
from pathlib import Path

from ftq_shared.errors import UsageError


def find_token() -> str | None:
    """Return the token of HF_TOKEN or of `hf auth login`, None when there is neither."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if token:
        return checked_token(token, "HF_TOKEN")
    # Where `hf auth login` writes; huggingface_hub.get_token reads the same file but takes 0.2 s
    # to import, which every submit would pay.
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    try:
        path = Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
        stored = path.read_text(errors="replace").strip() if path.is_file() else ""
    except (OSError, RuntimeError):  # another user's file; an account without a home
        return None
    return checked_token(stored, str(path)) if stored else None


def token_from_stdin() -> str:
    """Read a token from standard input; a person at a terminal is asked for it, hidden.

    Raises UsageError when there is none, click.Abort on Ctrl-C.
    """
    if sys.stdin.isatty():
        import click

        token = str(click.prompt("Hub token (hidden)", hide_input=True, err=True)).strip()
    else:
        token = sys.stdin.readline().strip()
    if not token:
        raise UsageError(
            "--token-stdin: no token came",
            hint="write it to standard input, for example: --token-stdin < token.txt",
        )
    return checked_token(token, "--token-stdin")


def checked_token(token: str, name: str) -> str:
    """Return a token that a request can carry. Raises UsageError that does not repeat it."""
    if token.isascii() and token.isprintable() and " " not in token:
        return token
    raise UsageError(
        f"{name}: holds a character that no token has",
        code="bad_token_text",
        hint="copy it again; a token is letters, digits and _ only",
    )


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
