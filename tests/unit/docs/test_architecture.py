"""docs/architecture.md draws the states that the code has, and names files that exist."""

import re
from itertools import pairwise

import pytest
from tests.support.pages import ROOT, fences, pages, section

from ftq_shared import scripts
from ftq_shared.job_record import JobRecord
from ftq_shared.states import TRANSITIONS, Transition

TEXT = (ROOT / "docs" / "architecture.md").read_text()
STATES = section(TEXT, "## States")
DIAGRAM = next(block for block in fences(STATES, "mermaid") if "stateDiagram-v2" in block)


def _arrow(transition: Transition) -> tuple[str, str, str]:
    source = "[*]" if transition.source is None else str(transition.source)
    return source, str(transition.target), transition.script


def test_the_diagram_has_every_arrow_and_nothing_more() -> None:
    head, *lines = DIAGRAM.strip().splitlines()
    assert head == "stateDiagram-v2"
    drawn = [re.fullmatch(r"\s+(\S+) --> (\S+): (\w+)", line) for line in lines]
    assert all(drawn), "a line that is no arrow"
    assert [m.groups() for m in drawn if m] == [_arrow(t) for t in TRANSITIONS]


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda t: "-".join(_arrow(t)))
def test_an_arrow_has_its_one_sentence_and_its_script(transition: Transition) -> None:
    source, target, script = _arrow(transition)
    row = f"| {source.replace('[*]', 'new')} | {target} | `{script}` | {transition.sentence} |"
    assert STATES.count(row) == 1
    assert transition.sentence.count(". ") == 0
    assert transition.sentence.endswith(".")
    assert script in scripts.NAMES


def test_no_arrow_leads_out_of_success() -> None:
    assert not [t for t in TRANSITIONS if t.source == "succeeded"]
    rows = [line for line in STATES.splitlines() if re.match(r"\| (?!from|---|field|`)", line)]
    assert len(rows) == len(TRANSITIONS)


def test_every_counter_of_a_record_is_in_the_table_and_starts_as_it_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", section(TEXT, "### What is counted"), re.MULTILINE)
    raw = {"id": "ft-00000000", "v": "1", "state": "queued", "phase": "train", "spec": "{}"}
    record = JobRecord.from_hash(raw | {"attempt": "1", "version": "0"})
    counters = {name: value for name, value in vars(record).items() if type(value) is int}
    others = ("record_version", "fresh_after", "created_ms", "ended_ms", "exit_code")
    counters["beat"] = counters.pop("renewals")
    started = counters | {"tries": 0, "ordinal": 0}  # which only the scripts read
    assert {name: int(start) for name, start in rows} == {
        name: value for name, value in started.items() if name not in others
    }
    lua = "".join(scripts.source(name) for name in scripts.NAMES)
    assert all(f"'{name}'" in lua for name, _ in rows)


SPINE = re.findall(
    r"^\| \(?(\d+)\)? \| `([^`]+)` \| .* \| (?:`(\w+)`|the terminal) \|$",
    section(TEXT, "## The spine: from `ftq submit` to a printed step"),
    re.MULTILINE,
)


def test_the_spine_passes_few_files_and_numbers_each_once() -> None:
    numbers: dict[str, int] = {}
    for number, file, _ in SPINE:
        assert numbers.setdefault(file, len(numbers) + 1) == int(number), file
    assert 15 < len(numbers) <= 24
    assert SPINE[-1][2] == ""


@pytest.mark.parametrize(("here", "following"), list(pairwise(SPINE)), ids=lambda row: row[1])
def test_each_file_of_the_spine_hands_on_to_the_next(
    here: tuple[str, str, str], following: tuple[str, str, str]
) -> None:
    _, file, name = here
    for path in (file, following[1]):
        text = (ROOT / path).read_text()
        assert re.search(rf"(?<!\w){name}(?!\w)", text), f"{path} knows nothing of {name}"


def test_every_path_and_module_that_is_named_exists() -> None:
    texts = [page.read_text() for page in pages() if page.name != "CHANGELOG.md"]
    named = set(re.findall(r"`((?:client|shared|worker|tests|scripts)/[\w./-]+)`", "".join(texts)))
    assert len(named) > 60
    assert not [path for path in named if not (ROOT / path).exists()]
    modules = set(re.findall(r"`(ftq_(?:client|shared|worker|hub)\.[\w.]+)`", "".join(texts)))
    assert modules
    assert not [name for name in modules if not _module_or_name(name)]


def _module_or_name(name: str) -> bool:
    package = name.partition(".")[0]
    part = {"ftq_client": "client", "ftq_shared": "shared"}.get(package, "worker")
    path = ROOT / part / name.replace(".", "/")
    return any(p.with_suffix(".py").exists() or p.is_dir() for p in (path, path.parent))
