"""The model card: what was trained from what, how, how good it is, and how to use it.

Everything comes from the spec and the reports of the phases; nothing names a local path, and
nothing depends on when it is written, so that a repeated publish writes the same bytes.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import Prepared, Trained, Validated
from ftq_worker.publishing.staging import Format
from ftq_worker.publishing.usage import usage_code

METRICS = {  # by our name: the Hub's metric id and the words of the table
    "loss": ("loss", "loss per trained token"),
    "tokens_accuracy": ("tokens_accuracy", "tokens predicted right"),
    "accuracy": ("accuracy", "accuracy"),
    "f1_macro": ("f1", "macro F1"),
}
# Shown in the table of settings, in this order.
SETTINGS = (
    "method",
    "epochs",
    "steps",
    "batch_size",
    "learning_rate",
    "warmup_steps",
    "precision",
    "packing",
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
    """Write README.md into the folder that is pushed."""
    data = _data(repo, form, validated, trained)
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
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n").save(folder / "README.md")


def _data(repo: str, form: Format, validated: Validated, trained: Trained) -> ModelCardData:
    """Return the metadata; fields that are not known are left out."""
    on_hub = validated.model.place is Place.HUB
    classes = validated.task is Task.CLASSIFICATION
    return ModelCardData(
        base_model=validated.model.name if on_hub else None,
        base_model_relation=("adapter" if form == "adapter" else "finetune") if on_hub else None,
        license=validated.model.license,
        library_name="peft" if form == "adapter" else "transformers",
        pipeline_tag="text-classification" if classes else "text-generation",
        datasets=[validated.dataset.name] if validated.dataset.place is Place.HUB else None,
        tags=["ftq", trained.method, str(validated.task)],
        model_name=repo.rsplit("/", 1)[-1],
        eval_results=_eval_results(validated, trained) or None,
    )


def _eval_results(validated: Validated, trained: Trained) -> list[EvalResult]:
    classes = validated.task is Task.CLASSIFICATION
    facts, after = validated.dataset, trained.golden_after
    return [
        EvalResult(
            task_type="text-classification" if classes else "text-generation",
            dataset_type=facts.name if facts.place is Place.HUB else "private",
            dataset_name=f"{_dataset_words(validated)} (golden set)",
            dataset_config=facts.config,
            dataset_revision=facts.revision,
            metric_type=METRICS[name][0],
            metric_name=METRICS[name][1],
            metric_value=after[name],
        )
        for name in METRICS
        if name in after
    ]


def _intro(form: Format, validated: Validated, prepared: Prepared) -> str:
    what = {
        "adapter": "A LoRA adapter for",
        "merged": "Fine-tuned with LoRA, merged into",
        "full": "Fine-tuned from",
    }[form]
    labels = ""
    if prepared.labels:
        shown = ", ".join(prepared.labels[:12]) + (", ..." if len(prepared.labels) > 12 else "")
        labels = f"\n\nIt tells {len(prepared.labels)} labels apart: {shown}."
    return f"{what} {_base_words(validated)} on {_dataset_words(validated)}.{labels}"


def _results(validated: Validated, trained: Trained, prepared: Prepared) -> str:
    before, after = trained.golden_before, trained.golden_after
    if not after:
        return "## Results\n\nThere was no golden set to score the model on."
    rows = [
        f"| {words} | {_with_interval(before, name)} | {_with_interval(after, name)} |"
        for name, (_, words) in METRICS.items()
        if name in after
    ]
    head = ""
    if validated.head_is_new:
        head = " The base model has no classification head; a random one was scored before."
    return "\n".join(
        [
            "## Results",
            "",
            f"On the golden set: {prepared.rows.get('golden', 0)} rows from "
            f"`{prepared.golden_source}`, chosen before training, never trained on and never used "
            f"to choose a checkpoint. In brackets the 95 % interval.{head}",
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
    best = f", best at step {trained.best_step}" if trained.best_step is not None else ""
    return "\n".join(
        [
            "## Training",
            "",
            f"{trained.steps:,} steps on {prepared.rows.get('train', 0):,} rows{best}.",
            "",
            "| setting | value |",
            "|---|---|",
            *(f"| {k} | {_cell(v)} |" for k, v in settings.items()),
            *dropped,
        ]
    )


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
    return f"`{model.name}`{at}"


def _dataset_words(validated: Validated) -> str:
    facts = validated.dataset
    if facts.place is not Place.HUB:
        return "local files"
    config = f" ({facts.config})" if facts.config else ""
    at = f" at {facts.revision}" if facts.revision else ""
    return f"{facts.name}{config}{at}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
