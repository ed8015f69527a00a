"""Every spec in examples/, and every one in the documents, is one that ftq takes."""

from pathlib import Path

import pytest
from tests.support.pages import ROOT, fences

from ftq_shared.spec_input import load_yaml, parse_spec

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_valid_spec(path: Path) -> None:
    spec = parse_spec(load_yaml(path))
    assert spec.name == path.stem


@pytest.mark.parametrize("page", ["README.md", "docs/spec.md"])
def test_a_spec_in_a_document_is_valid(page: str, tmp_path: Path) -> None:
    blocks = fences((ROOT / page).read_text(), "yaml")
    assert blocks
    for block in blocks:
        (tmp_path / "spec.yaml").write_text(block)
        parse_spec(load_yaml(tmp_path / "spec.yaml"))
