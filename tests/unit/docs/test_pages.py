"""Links resolve, nothing private is named, the changelog and the decisions are complete."""

import re
import tomllib
from pathlib import Path

import pytest
from tests.support.pages import ROOT, anchors, links, name, pages

from ftq_shared import __version__

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in links(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert not broken


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        found = [
            (page.parent / link.partition("#")[0]).resolve() for link in links(page.read_text())
        ]
        todo += [path for path in found if path.suffix == ".md"]
    assert set(pages()) <= reached


OTHERS = [
    *(ROOT / "examples").glob("*.yaml"),
    ROOT / "docker-compose.yml",
    ROOT / "Dockerfile",
    ROOT / "Makefile",
]


@pytest.mark.parametrize("page", [*pages(), *OTHERS], ids=name)
def test_no_path_of_a_single_machine_is_named(page: Path) -> None:
    found = re.findall(r"(?<![\w.])/(?:home|root|work|Users|tmp)/[\w./-]*", page.read_text())
    assert not found


def test_the_changelog_has_the_version() -> None:
    assert PYPROJECT["project"]["version"] == __version__
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = [name.strip("[]") for name in re.findall(r"^## (\S+)", text, re.MULTILINE)]
    released = [name for name in versions if name != "Unreleased"]
    assert released[0] == __version__


def test_every_decision_is_listed_and_numbered() -> None:
    folder = ROOT / "docs" / "decisions"
    files = sorted(path.name for path in folder.glob("0*.md"))
    index = (folder / "README.md").read_text()
    assert re.findall(r"^\| \[\d+\]\((\S+)\)", index, re.MULTILINE) == files
    assert [file[:4] for file in files] == [f"{n:04d}" for n in range(1, len(files) + 1)]
    for file in files:
        assert (folder / file).read_text().startswith(f"# {file[:4]} ")


def test_every_dependency_has_a_reason() -> None:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *extras["worker"],
        *extras["trackers"],
        *extras["embedded"],
        *PYPROJECT["dependency-groups"]["dev"],
    ]
    text = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()
    reasons = re.findall(r"^\| (\S+) \| .+ \|$", text, re.MULTILINE)
    names = [re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in wanted]
    assert [n for n in reasons if n not in ("package", "---")] == names
