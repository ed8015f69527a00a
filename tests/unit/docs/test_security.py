"""Each line of the threat model names a test that holds it."""

import re

from tests.support.pages import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()


def test_the_named_tests_are_there() -> None:
    table = TEXT.partition("| who | can |")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) >= 12
    for row in rows:
        (named,) = re.findall(r"`(tests/[\w/]+\.py)`", row)
        content = (ROOT / named).read_text()
        assert re.search(r"^(    )?def test_", content, re.MULTILINE), named


def test_every_test_that_is_named_anywhere_is_there() -> None:
    for named in re.findall(r"`(tests/[\w/]+\.py)`", TEXT):
        assert (ROOT / named).is_file(), named
