"""What the command says when it is given something odd: words and a code, never a trace."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ftq_client.edge import as_ftq_error
from ftq_shared.errors import Exit, FtqError

FTQ = Path(sys.executable).parent / "ftq"  # as it is installed


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FTQ_", "HF_", "LC_", "LANG"))}
    return kept | {"FTQ_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:1"}


def shell(line: str, env: dict[str, str], cwd: Path | None = None) -> tuple[int, str, str]:
    """Run a line of bash in which `ftq` is this command."""
    done = subprocess.run(
        ["bash", "-c", f'ftq() {{ {FTQ} "$@"; }}; {line}'],
        env=env, cwd=cwd, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("ftq list <&-", 6, "no broker is known"),
        ("ftq list >&-", 6, "no broker is known"),
        ("ftq list 2>&-", 6, ""),
        ("ftq list <&- >&- 2>&-", 6, ""),
        ("ftq submit <&-", 2, "dataset"),
        ("ftq --help >/dev/full", 70, "No space left on device"),
        ("ftq doctor --json >/dev/full", 70, "No space left on device"),
        ("ftq keygen $'x\\xff'", 2, "an argument is no text in utf-8"),
        ("LC_ALL=C PYTHONUTF8=0 ftq drain grüße", 2, "LC_ALL=C.UTF-8"),
        ("LC_ALL=C ftq drain grüße", 6, "no broker is known"),
        ("mkdir gone && cd gone && rmdir ../gone && ftq submit --model a/b --dataset ./x.jsonl -y",
         2, "the working directory is gone"),
        ("mkdir gone && cd gone && rmdir ../gone && ftq keygen fleet.key", 2,
         "No such file or directory"),
        (f"ftq keygen {'x' * 5000}", 2, "File name too long"),
        ("ftq keygen /proc/fleet.key", 2, "/proc/fleet.key"),
        ("ftq list $'\\x1b]0;PWN\\x07\\u202e'", 2, r"\x1b]0;PWN\x07\u202"),
        ("ftq drain $'\\x1b[2J' --nope", 2, "No such option"),
        ("ftq logs ft-1", 2, "Did you mean tail?"),
        ("ftq stop ft-1", 2, "cancel (a job)"),
        ("ftq lsit", 2, "Did you mean list"),
        ("ftq submit --lr 1e-4", 2, "--set train.learning_rate=1e-4"),
        ("ftq submit --lr=1e-4", 2, "--set train.learning_rate=1e-4"),
        ("ftq retry ft-1 --epochs 2", 2, "--set train.epochs=2"),
        ("ftq submit --num-train-epochs 2", 2, "--set train.epochs=2"),
        ("ftq submit --packing --detach", 2, "--set train.packing=true"),
        ("ftq submit --row-template 'a b'", 2, "--set data.row_template='a b'"),
        (f"ftq submit --model a/b --dataset {'[' * 300}", 2, "there is no file"),
        (f"ftq preview --model a/b --dataset {'[' * 300}", 2, "there is no file"),
        ("ftq submit org/model", 2, "a model is given as --model"),
        ("ftq submit org/model ./rows.jsonl", 2, "data as --dataset"),
        ("ftq preview org/model ./rows.jsonl", 2, "data as --dataset"),
        ("ftq submit --hub-token hf_secret", 2, "a token never stands in a spec"),
        ("ALL_PROXY=socks5://127.0.0.1:1 ftq search models x", 2, "SOCKS"),
        ("ALL_PROXY=socks5://127.0.0.1:1 ftq doctor", 6, ""),
    ],
)  # fmt: skip
def test_words_and_a_code_and_no_trace(
    line: str, code: int, words: str, env: dict[str, str], tmp_path: Path
) -> None:
    found, out, err = shell(line, env, tmp_path)
    assert found == code, (out, err)
    assert words in err
    assert "Traceback" not in out + err
    assert "Exception ignored" not in err
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out + err)


def test_the_set_that_is_answered_for_an_option_is_a_spec(env: dict[str, str]) -> None:
    _, _, err = shell("ftq submit --lr 1e-4", env)
    given = re.findall(r"--set \S+", err)
    code, _, again = shell(f"ftq submit --model a/b --dataset c/d {given[0]} --yes", env)
    assert code == 6, again  # the spec is right; there is no broker


def test_a_reader_that_has_enough_is_no_failure(env: dict[str, str]) -> None:
    for command in ("ftq --help", "ftq spec", *["ftq doctor"] * 2):
        code, _, err = shell(f"set -o pipefail; {command} | head -c 1 >/dev/null", env)
        assert code in (0, 6, 7), err
        assert "Broken pipe" not in err
    many = "import ftq_client.cli as c, click; c.cli.main = lambda **_: click.echo('x' * 10**6)"
    line = f'set -o pipefail; {sys.executable} -c "{many}; c.main()" | head -c 1'
    assert shell(line, env) == (0, "x", "")


def test_with_debug_the_trace_is_there_and_the_code_the_same(env: dict[str, str]) -> None:
    for line in ("ftq --debug list", "FTQ_DEBUG=1 ftq list"):
        code, _, err = shell(line, env)
        assert code == 6
        assert "Traceback" in err
        assert "ftq: no broker is known" in err


def test_whatever_is_raised_is_one_line_and_hides_what_looks_like_a_secret() -> None:
    told = as_ftq_error(ValueError("a\nb\x1b[31m"))
    assert told.exit_code is Exit.UNEXPECTED
    assert told.message.splitlines() == [told.message]
    ours = FtqError("x")
    assert as_ftq_error(ours) is ours
