"""The model card: what was trained from what, how, how good it is, and how to use it.

Everything comes from the spec and the reports of the phases; nothing names a local path, and
nothing depends on when it is written, so that a repeated publish writes the same bytes.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from ftq_shared.judging import FEWEST_TO_JUDGE, TOO_FEW_TO_JUDGE, rows_in_words
from ftq_shared.redaction import escape_control
from ftq_shared.sources import Place
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import Prepared, Trained, Validated
from ftq_worker.publishing.metadata import METRICS, Format, dataset_words, front_matter
from ftq_worker.publishing.usage import usage_code

CARD = "README.md"
LEFT_OUT = 50  # rows that are named
# Shown in the table of settings, in this order.
SETTINGS = (
    "method",
    "epochs",
    "steps",
    "batch_size",
    "gradient_checkpointing",
    "learning_rate",
    "warmup_steps",
    "precision",
    "packing",
    "sequences_per_step",
    "attention",
    "max_length",
    "seed",
)


def write_card(
    ctx: PhaseContext,
    folder: Path,
    repo: str,
    form: Format,
    validated: Validated,
    prepared: Prepared,
    trained: Trained,
) -> None:
    """Write README.md into a folder."""
    data = front_matter(repo, form, trained.method, validated, trained.golden_after)
    sections = [
        f"# {repo.rsplit('/', 1)[-1]}",
        _intro(form, validated, prepared),
        _results(validated, trained, prepared),
        _usage(repo, form, validated, prepared),
        _training(ctx, validated, trained, prepared),
        _samples(ctx, validated, prepared),
        _provenance(ctx, trained),
    ]
    body = "\n\n".join(section for section in sections if section)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n").save(folder / CARD)


def _intro(form: Format, validated: Validated, prepared: Prepared) -> str:
    what = {
        "adapter": "A LoRA adapter for",
        "merged": "Fine-tuned with LoRA, merged into",
        "full": "Fine-tuned from",
    }[form]
    labels = ""
    if prepared.labels:
        shown = ", ".join(_code(label) for label in prepared.labels[:12])
        shown += ", ..." if len(prepared.labels) > 12 else ""
        labels = f"\n\nIt tells {len(prepared.labels)} labels apart: {shown}."
    return f"{what} {_base_words(validated)} on {_data_words(validated)}.{labels}"


def _results(validated: Validated, trained: Trained, prepared: Prepared) -> str:
    before, after = trained.golden_before, trained.golden_after
    if not after:
        return "## Results\n\nThere was no golden set to score the model on."
    rows = [
        f"| {words} | {_with_interval(before, name)} | {_with_interval(after, name)} |"
        for name, (_, words) in METRICS.items()
        if name in after
    ]
    rows_scored, every = int(after["rows"]), prepared.rows.get("golden", 0)
    of_all = f" of {every:,}" if rows_scored < every else ""
    few = ""
    if rows_scored < FEWEST_TO_JUDGE:
        few = f" That is {TOO_FEW_TO_JUDGE}: the figures are no verdict."
    head = ""
    if validated.head_is_new:
        head = " The base model has no classification head; a random one was scored before."
    return "\n".join(
        [
            "## Results",
            "",
            f"On the golden set: {rows_in_words(rows_scored)}{of_all} from "
            f"{_code(prepared.golden_source)}, chosen before training, never trained on and never "
            f"used to choose a checkpoint. In brackets the 95 % interval.{few}{head}",
            "",
            "| | before | after |",
            "|---|---|---|",
            *rows,
            "",
            f"Fingerprint of the golden set: `{prepared.golden_sha256}`",
        ]
    )


def _with_interval(figures: dict[str, float], name: str) -> str:
    if name not in figures:
        return ""
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    interval = f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else ""
    return f"{figures[name]:.4f}{interval}"


def _usage(repo: str, form: Format, validated: Validated, prepared: Prepared) -> str:
    code = usage_code(repo, form, validated, prepared)
    return f"## How to use it\n\n```python\n{code}```"


def _training(ctx: PhaseContext, validated: Validated, trained: Trained, prepared: Prepared) -> str:
    settings = {k: trained.settings[k] for k in SETTINGS if k in trained.settings}
    if lora := trained.settings.get("lora"):
        settings |= {f"lora {k}": v for k, v in lora.items()}
    if args := trained.settings.get("args"):
        settings |= {f"args.{k}": v for k, v in args.items()}
    cleaning = [
        f"- {rule['rule']}: {rule['rows_in']:,} rows in, {rule['rows_out']:,} out"
        for rule in prepared.cleaning
    ]
    dropped = ["", "Cleaning of the rows:", "", *cleaning] if cleaning else []
    named = ", ".join(
        f"{_code(one['name'])} ({one['share']:.0%} of the rows)" for one in prepared.unused
    )
    unused = ["", f"Of the rows, this was not used: {named}."] if named else []
    gone = _left_out(trained)
    best = f", best at step {trained.best_step}" if trained.best_step is not None else ""
    return "\n".join(
        [
            "## Training",
            "",
            f"{trained.steps:,} steps on {prepared.rows.get('train', 0):,} rows{best}.",
            "",
            "| setting | value |",
            "|---|---|",
            *(f"| {_cell(k)} | {_cell(v)} |" for k, v in settings.items()),
            *dropped,
            *unused,
            *gone,
        ]
    )


def _left_out(trained: Trained) -> list[str]:
    """Return which rows a person has left out of training by name; of many the first."""
    rows = trained.left_out
    if not rows:
        return []
    shown = [f"{_code(row['file'])} row {row['row']:,}" for row in rows[:LEFT_OUT]]
    more = f" and {len(rows) - LEFT_OUT:,} more" if len(rows) > LEFT_OUT else ""
    steps = sorted({row["from_step"] for row in rows})
    since = f"step {steps[0]:,}" if len(steps) == 1 else f"steps {steps[0]:,} to {steps[-1]:,}"
    words = "row was" if len(rows) == 1 else "rows were"
    named = f"{', '.join(shown)}{more}"
    return ["", f"{len(rows):,} {words} left out of training by name, from {since} on: {named}."]


def _samples(ctx: PhaseContext, validated: Validated, prepared: Prepared) -> str:
    """Show rows only where anybody may read them anyway, or where the person said so."""
    facts = validated.dataset
    public = facts.place is Place.HUB and not facts.private
    if not prepared.samples or not (public or ctx.spec.publish.card_samples):
        return ""
    shown = [str(sample.get("text", "")) for sample in prepared.samples[:3]]
    blocks = [f"```text\n{text.replace('```', '` ` `')}\n```" for text in shown]
    return "\n\n".join(["## Sample rows", *blocks])


def _provenance(ctx: PhaseContext, trained: Trained) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in sorted(trained.versions.items()))
    return "\n".join(
        [
            "## Provenance",
            "",
            f"Made by ftq, job `{ctx.job}`, spec `{ctx.spec.sha256()}`.",
            "",
            f"Versions: {versions}.",
        ]
    )


def _base_words(validated: Validated) -> str:
    model = validated.model
    if model.place is not Place.HUB:
        return f"a local {model.architecture} model"  # its path is nobody's business
    at = f" at `{model.revision}`" if model.revision else ""
    return f"{_code(model.name)}{at}"


def _data_words(validated: Validated) -> str:
    on_hub = validated.dataset.place is Place.HUB
    return _code(dataset_words(validated)) if on_hub else dataset_words(validated)


def _cell(value: Any) -> str:
    """Return a value for a table, whose cells end at a bar even inside a code span."""
    return _code(str(value)).replace("|", "\\|")


def _code(text: str) -> str:
    """Return text of others as a code span: shown as it is, never read as Markdown or HTML.

    A label or a configuration's name comes from a dataset's author, and the card has the
    publisher's name on it.
    """
    line = escape_control(" ".join(text.split()), keep_newlines=False) or " "
    ticks = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"
