"""Fill the generated parts of the documents from the code, or check that they are up to date.

    python scripts/docs.py            rewrite what is out of date
    python scripts/docs.py --check    change nothing; exit 1 and name what is out of date

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the text around it
is written by hand.
"""

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ftq_client.cli import COMMANDS
from ftq_shared import data_report as report_form
from ftq_shared import errors
from ftq_shared.events import BULK_TYPES, EVENTS
from ftq_shared.settings import SETTINGS
from ftq_shared.spec_input.aliases import ALIASES
from ftq_shared.spec_input.dotted_fields import describe, fields, section_of
from ftq_shared.states import TRANSITIONS, JobState
from ftq_worker.job import auto

ROOT = Path(__file__).resolve().parent.parent
_REGION = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

# The modules whose rules say what `auto` comes to. A test compares their fields and the schema.
RULES = (
    "data.columns",
    "data.limits",
    "data.splits",
    "data.tokenizing",
    "publishing.staging",
    "training.attention",
    "training.auto_rules",
    "training.cpu_guard",
    "training.adapters",
    "training.resolve",
    "validation.dataset",
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; bars in cells are escaped."""
    names = list(head)
    lines = [names, ["---"] * len(names), *([_cell(c) for c in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _value(value: object) -> str:
    words = {None: "null", True: "true", False: "false"}
    return f"`{words[value] if value is None or isinstance(value, bool) else value}`"


def _default(name: str) -> str:
    field = fields()[name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{value}`" if isinstance(value, str | list | dict) else _value(value)


def _kind(name: str) -> str:
    meaning = fields()[name].description or ""
    return describe(name).removesuffix(f" ({meaning})")


def auto_words() -> dict[str, str]:
    """Return what `auto` comes to, by field, as the rules themselves say it."""
    for module in RULES:
        importlib.import_module(f"ftq_worker.{module}")
    return auto.WORDS


def spec_fields() -> str:
    """Return one table per section of the job spec."""
    words = auto_words()
    sections: dict[str, list[list[str]]] = {"": []}
    for name, field in fields().items():
        if section_of(field):
            sections[name] = []
            continue
        row = [f"`{name}`", _kind(name), _default(name), field.description or ""]
        sections[name.rpartition(".")[0]].append([*row, words.get(name, "")])
    head = ["field", "type", "default", "meaning", "what `auto` comes to"]
    return "\n".join(
        (f"### {name}\n\n" if name else "### top level\n\n") + table(head, rows)
        for name, rows in sections.items()
    )


def auto_fields() -> list[str]:
    """Return every field whose value may be `auto`; it is the default of each."""
    return [n for n in fields() if not section_of(fields()[n]) and _default(n) == "`auto`"]


def spec_aliases() -> str:
    """Return the table of names from other tools."""
    rows = [
        [f"`{name}`", f"`{right}`" if right else "", note]
        for name, (right, note) in sorted(ALIASES.items())
    ]
    return table(["name elsewhere", "here", "note"], rows)


def events() -> str:
    """Return a heading, a sentence and a table of fields for every type of event."""
    parts = []
    for type_, spec in EVENTS.items():
        rows = [[f"`{n}`", "always", text] for n, text in spec.required.items()]
        rows += [[f"`{n}`", "where it applies", text] for n, text in spec.optional.items()]
        bulk = " Thinned out first when the log grows." if type_ in BULK_TYPES else ""
        parts.append(
            f"### {type_}\n\n{spec.meaning}{bulk}\n\n" + table(["field", "there", "meaning"], rows)
        )
    return "\n".join(parts)


def _state(state: JobState | None) -> str:
    return "[*]" if state is None else str(state)


def state_diagram() -> str:
    """Return the states and arrows as Mermaid; each arrow names the script that carries it out."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {_state(t.source)} --> {_state(t.target)}: {t.script}" for t in TRANSITIONS]
    return "\n".join([*lines, "```"]) + "\n"


def transitions() -> str:
    """Return one row, with its one sentence, for every arrow."""
    rows = [
        ["new" if t.source is None else str(t.source), str(t.target), f"`{t.script}`", t.sentence]
        for t in TRANSITIONS
    ]
    return table(["from", "to", "script", "meaning"], rows)


def settings() -> str:
    """Return the table of settings."""
    return table(["variable", "meaning"], ([f"`{n}`", text] for n, text in SETTINGS.items()))


def commands() -> str:
    """Return the table of commands."""
    rows = ([f"[`ftq {n}`](#ftq-{n})", text] for n, (_, text) in COMMANDS.items())
    return table(["command", "what it does"], rows)


def exit_codes() -> str:
    """Return the exit codes; the meanings are the comments beside them in errors.py."""
    source = Path(errors.__file__).read_text()
    rows = [
        [str(int(code)), _comment_of(f"{code.name} = {int(code)}", source)] for code in errors.Exit
    ]
    return table(["code", "meaning"], rows)


def _comment_of(start: str, source: str) -> str:
    found = re.search(rf"^\s+{re.escape(start)}  # (.+)$", source, re.MULTILINE)
    assert found, f"errors.py has no comment beside {start}"
    return found[1]


def data_report() -> str:
    """Return a table of fields for each object of the data report, the whole first."""
    tree = ast.parse(Path(report_form.__file__).read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    source = Path(report_form.__file__).read_text().splitlines()
    return "\n".join(_object(node, source) for node in reversed(classes))


def _object(node: ast.ClassDef, source: list[str]) -> str:
    """Return one object of the report; the meanings are the comments beside its fields."""
    fields_ = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    rows = []
    for part in fields_:
        _, found, meaning = source[part.lineno - 1].partition("  # ")
        assert found, f"{node.name}.{ast.unparse(part.target)} has no comment"
        kind = ast.unparse(part.annotation)
        rows.append([f"`{ast.unparse(part.target)}`", f"`{kind}`", meaning])
    title = f"### {node.name}\n\n{ast.get_docstring(node)}\n\n"
    return title + table(["field", "type", "meaning"], rows)


REGIONS: dict[str, Callable[[], str]] = {
    "spec-fields": spec_fields,
    "spec-aliases": spec_aliases,
    "events": events,
    "state-diagram": state_diagram,
    "transitions": transitions,
    "settings": settings,
    "commands": commands,
    "exit-codes": exit_codes,
    "data-report": data_report,
}

# file -> the regions that it must hold
PAGES = {
    "README.md": ["commands", "exit-codes", "settings"],
    "docs/architecture.md": ["state-diagram", "transitions"],
    "docs/spec.md": ["spec-fields", "spec-aliases"],
    "docs/events.md": ["events"],
    "docs/preview.md": ["data-report"],
    "docs/operations.md": ["settings"],
}


def filled(text: str) -> str:
    """Return a document with all its generated parts fresh. Raises KeyError for an unknown one."""
    return _REGION.sub(lambda m: f"{m[1]}\n{REGIONS[m[2]]()}\n{m[3]}", text)


def regions_of(text: str) -> list[str]:
    """Return the names of the generated parts of a document."""
    return [match[2] for match in _REGION.finditer(text)]


def problems(root: Path = ROOT) -> list[str]:
    """Return what is out of date or missing, nothing when all is well."""
    found = []
    for name, wanted in PAGES.items():
        text = (root / name).read_text()
        missing = [region for region in wanted if region not in regions_of(text)]
        found += [f"{name}: has no generated part {region!r}" for region in missing]
        if filled(text) != text:
            found.append(f"{name}: out of date; run python scripts/docs.py")
    return found


def main(argv: list[str]) -> int:
    """Rewrite or check; return the exit code."""
    if argv not in ([], ["--check"]):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    if not argv:
        for name in PAGES:
            path = ROOT / name
            path.write_text(filled(path.read_text()))
    found = problems()
    sys.stderr.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
