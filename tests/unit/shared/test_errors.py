"""One fault has one code and one hint, and the tree of errors names every class."""

import ast
import importlib
import re
from importlib import resources

import pytest
from tests.support.pages import ROOT

from ftq_shared import errors
from ftq_shared.events import EVENTS, EventType

PRODUCT = [
    (path, ast.parse(path.read_text()))
    for part in ("client", "shared", "worker")
    for path in sorted((ROOT / part).rglob("*.py"))
]


@pytest.mark.parametrize("code", ["target_taken", "task_unsupported", "max_length", "input_lost"])
def test_a_fault_that_several_find_is_worded_once(code: str) -> None:
    """Codes of faults that client, agent, validate, prepare or publish may find."""
    words = [
        path.name
        for path, tree in PRODUCT
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "code"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value == code
    ]
    assert words == ["errors.py"]


def test_the_tree_names_every_error_with_its_exit_code_and_module() -> None:
    """`FtqError` and what derives from it, also in packages that shared does not import."""
    classes = {
        node.name: node
        for _, tree in PRODUCT
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }

    def is_error(name: str) -> bool:
        node = classes.get(name)
        return name == "FtqError" or any(
            isinstance(base, ast.Name) and is_error(base.id)
            for base in (node.bases if node else ())
        )

    there = {name for name in classes if is_error(name)}
    tree = re.findall(r"^    (?:[├└]── )?(\w+) +(\d+)   (.*)$", errors.__doc__ or "", re.MULTILINE)
    assert {name for name, _, _ in tree} == there
    for name, code, words in tree:
        where = re.search(r"\((ftq_worker[\w.]+)\)$", words)
        module = importlib.import_module(where[1] if where else "ftq_shared.errors")
        assert int(code) == getattr(module, name).exit_code


def test_the_error_event_documents_where_an_error_was_found() -> None:
    documented = EVENTS[EventType.ERROR]
    assert errors.ErrorJson.__annotations__.keys() == (
        documented.required.keys() | documented.optional.keys() | {"attempts"}  # record only
    )


def test_an_error_comes_back_from_its_json() -> None:
    error = errors.Refused("no such row", hint="look", file="a.jsonl", line=3).info()
    assert error.to_json() == {
        "code": "refused", "message": "no such row", "exit_code": 5, "hint": "look",
        "file": "a.jsonl", "line": 3,
    }  # fmt: skip
    assert errors.ErrorInfo.from_json(error.to_json()) == error


def test_the_script_that_tells_a_failure_knows_every_field_of_the_event() -> None:
    text = (resources.files("ftq_shared.scripts") / "lib.lua").read_text()
    (listed,) = re.findall(r"ERROR_FIELDS = \{(.*?)\}", text, re.DOTALL)
    assert re.findall(r"'(\w+)'", listed) == list(EVENTS[EventType.ERROR].fields)
