"""The model card's front matter: what the Hub reads of a card, and reads strictly."""

from typing import Literal

from huggingface_hub import EvalResult, ModelCardData

from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.job.reports import Validated

Format = Literal["adapter", "merged", "full"]
METRICS = {  # by our name: the Hub's metric id and the words of the card's table
    "loss": ("loss", "loss per trained token"),
    "tokens_accuracy": ("tokens_accuracy", "tokens predicted right"),
    "accuracy": ("accuracy", "accuracy"),
    "f1_macro": ("f1", "macro F1"),
}


def front_matter(
    repo: str, form: Format, method: str, validated: Validated, scores: dict[str, float]
) -> ModelCardData:
    """Return the metadata; fields that are not known are left out."""
    model = validated.model
    ids = model.licenses
    on_hub = model.place is Place.HUB
    classes = validated.task is Task.CLASSIFICATION
    return ModelCardData(
        base_model=model.name if on_hub else None,
        base_model_relation=("adapter" if form == "adapter" else "finetune") if on_hub else None,
        # As the base's card states it: one id, or a list; `other` has its own name and text.
        license=ids[0] if len(ids) == 1 else ids or None,  # type: ignore[arg-type]
        license_name=model.license_name if "other" in ids else None,
        license_link=model.license_link if "other" in ids else None,
        library_name="peft" if form == "adapter" else "transformers",
        pipeline_tag="text-classification" if classes else "text-generation",
        datasets=[validated.dataset.name] if validated.dataset.place is Place.HUB else None,
        tags=["ftq", method, str(validated.task)],
        model_name=repo.rsplit("/", 1)[-1],
        eval_results=_eval_results(validated, scores) or None,
    )


def provisional(repo: str, validated: Validated) -> str:
    """Return a card with the front matter that is known before training, for the Hub to check."""
    scores = dict.fromkeys(METRICS, 0.5)
    return f"---\n{front_matter(repo, 'full', 'full', validated, scores).to_yaml()}\n---\n"


def _eval_results(validated: Validated, scores: dict[str, float]) -> list[EvalResult]:
    classes = validated.task is Task.CLASSIFICATION
    facts = validated.dataset
    return [
        EvalResult(
            task_type="text-classification" if classes else "text-generation",
            dataset_type=facts.name if facts.place is Place.HUB else "private",
            dataset_name=f"{dataset_words(validated)} (golden set)",
            dataset_config=facts.config,
            dataset_revision=facts.revision,
            metric_type=METRICS[name][0],
            metric_name=METRICS[name][1],
            metric_value=scores[name],
        )
        for name in METRICS
        if name in scores
    ]


def dataset_words(validated: Validated) -> str:
    """Return what the dataset is called, in plain text."""
    facts = validated.dataset
    if facts.place is not Place.HUB:
        return "local files"
    config = f" ({facts.config})" if facts.config else ""
    at = f" at {facts.revision}" if facts.revision else ""
    return f"{facts.name}{config}{at}"
