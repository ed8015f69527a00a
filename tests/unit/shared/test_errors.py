"""One fault has one code and one hint."""

import ast

import pytest
from tests.support.pages import ROOT

PRODUCT = [
    (path, ast.parse(path.read_text()))
    for part in ("client", "shared", "worker")
    for path in sorted((ROOT / part).rglob("*.py"))
]


@pytest.mark.parametrize("code", ["target_taken", "max_length", "input_lost"])
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
