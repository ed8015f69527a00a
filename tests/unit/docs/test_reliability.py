"""Every line of the reliability page names a test that exists."""

import re

import pytest
from tests.support.pages import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", TEXT)))


@pytest.mark.parametrize(("path", "test"), NAMED, ids=["::".join(n) for n in NAMED])
def test_the_named_test_exists(path: str, test: str) -> None:
    source = (ROOT / path).read_text()
    assert not test or re.search(rf"^def {test}\(", source, re.MULTILINE)


def test_every_death_names_its_test() -> None:
    table = TEXT.partition("## Every death has an owner")[2].partition("\n\nAll of it")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 12
    assert not [row for row in rows if not re.search(r"`tests/[\w/.]+::\w+` \|$", row)]
