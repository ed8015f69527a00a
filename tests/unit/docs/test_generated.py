"""The generated parts of the documents are those that the code makes now."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.pages import ROOT, section

from ftq_shared.events import EVENTS
from ftq_shared.settings import SETTINGS
from ftq_shared.spec_input.dotted_fields import fields, section_of


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_script", ROOT / "scripts" / "docs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_is_out_of_date(docs: ModuleType) -> None:
    assert docs.problems() == []


def test_the_script_checks(docs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main(["--check"]) == 0
    assert capsys.readouterr().err == ""
    assert docs.main(["--wrong"]) == 2


def test_a_page_that_differs_is_named(docs: ModuleType, tmp_path: Path) -> None:
    for page in docs.PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text((ROOT / page).read_text())
    events = tmp_path / "docs" / "events.md"
    events.write_text(events.read_text().replace("One optimizer step.", "One step."))
    spec = tmp_path / "docs" / "spec.md"
    spec.write_text(spec.read_text().replace("<!-- generated: spec-aliases -->", ""))
    found = docs.problems(tmp_path)
    assert any(line.startswith("docs/events.md: out of date") for line in found)
    assert any("no generated part 'spec-aliases'" in line for line in found)


def test_every_auto_field_has_its_rule_in_words(docs: ModuleType) -> None:
    assert set(docs.auto_words()) == set(docs.auto_fields())


def test_every_event_and_field_is_documented() -> None:
    text = (ROOT / "docs" / "events.md").read_text()
    for type_, spec in EVENTS.items():
        part = section(text, f"### {type_}")
        assert spec.meaning in part
        for field, meaning in spec.fields.items():
            assert f"| `{field}` |" in part, f"{type_}.{field}"
            assert meaning.replace("|", "\\|") in part


def test_every_field_of_the_spec_is_documented() -> None:
    text = (ROOT / "docs" / "spec.md").read_text()
    for name, field in fields().items():
        if section_of(field):
            assert f"\n### {name}\n" in text
        else:
            assert f"\n| `{name}` |" in text


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_documented(page: str, setting: str) -> None:
    assert f"| `{setting}` | {SETTINGS[setting]} |" in (ROOT / page).read_text()
