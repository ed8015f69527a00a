"""The log of a host's processes: for people as a sentence, for programs as JSON with its ids."""

import ast
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.pages import ROOT

from ftq_shared.errors import UsageError
from ftq_shared.settings import load_settings

PACKAGE = ROOT / "worker" / "ftq_worker"
RESERVED = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
SCRIPT = """
import logging
from ftq_worker.host.log import setup_logging
setup_logging("agent", {form!r})
ids = {{"action": "reaped", "job": "ft-aaaaaaaa"}}
log = logging.getLogger("ftq_worker.agent.leases")
log.warning("reap %s with hf_%s", "it", "a" * 20, extra=ids)
try:
    raise ValueError("redis://me:password@host/0")
except ValueError:
    log.exception("broken", extra=ids)
"""


def _calls() -> Iterator[tuple[str, ast.Call, ast.FunctionDef]]:
    """Every log call of the processes that keep a host running, with the function it is in."""
    own = [PACKAGE / name for name in ("supervisor", "agent", "dispatch", "host", "child")]
    for folder in (*own, ROOT / "shared" / "ftq_shared"):
        for path in sorted(folder.glob("*.py")):
            tree = ast.parse(path.read_text())
            for function in ast.walk(tree):
                if not isinstance(function, ast.FunctionDef):
                    continue
                for node in ast.walk(function):
                    if _is_log_call(node):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", node, function


def _is_log_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
    )


CALLS = list(_calls())


def test_there_are_log_lines_to_look_at() -> None:
    assert len(CALLS) > 40


@pytest.mark.parametrize(("call", "function"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_every_line_has_an_action(call: ast.Call, function: ast.FunctionDef) -> None:
    """In a dict that is written out in `extra`, or in the same function right before."""
    (extra,) = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
    written = [extra]
    if isinstance(extra, ast.Name):
        written = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == extra.id
        ]
    assert written
    for value in written:
        assert isinstance(value, ast.Dict)
        keys = [key.value for key in value.keys if isinstance(key, ast.Constant)]
        assert keys[0] == "action"
        assert not RESERVED & set(keys), "logging raises KeyError for these, and a thread dies"
        action = ast.unparse(value.values[0])
        assert re.fullmatch(r"f?'[a-z_]+(\{\w+\})?'", action), action


def _lines(form: str, then: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(form=form) + then],
        capture_output=True,
        text=True,
        timeout=60,
        check=not then,
    )
    return done.stderr.splitlines()


def test_json_is_one_object_a_line_with_action_and_ids() -> None:
    warning, error = map(json.loads, _lines("json"))
    assert warning.pop("time").endswith("+00:00")
    assert warning == {
        "level": "warning",
        "process": "agent",
        "message": "reap it with [hidden]",
        "action": "reaped",
        "job": "ft-aaaaaaaa",
    }
    assert "ValueError: redis://me:[hidden]@host/0" in error["traceback"]
    assert "password" not in json.dumps(error)


def test_warnings_and_crashes_are_lines_of_the_log_too() -> None:
    crash = """
import threading, warnings
warnings.warn("a library's", stacklevel=1)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise KeyError("redis://me:password@host/0")
"""
    *_, warning, thread, end = map(json.loads, _lines("json", crash))
    assert "a library's" in warning["message"]
    assert warning["action"] == "library"
    assert [line["action"] for line in (thread, end)] == ["crashed", "crashed"]
    assert "ZeroDivisionError" in thread["traceback"]
    assert "KeyError" in end["traceback"]
    assert "password" not in json.dumps(end)


def test_text_is_for_people() -> None:
    warning, *traceback = _lines("text")
    assert re.fullmatch(r"\d\d:\d\d:\d\d agent +WARNING +reap it with \[hidden\]", warning)
    assert "password" not in "\n".join(traceback)


def test_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FTQ_LOG: 'xml' must be text or json"):
        load_settings({"FTQ_LOG": "xml", "FTQ_HOME": str(tmp_path)})
    assert load_settings({"FTQ_HOME": str(tmp_path)}).log == "text"
    assert logging.getLogger("ftq_worker").handlers == []
