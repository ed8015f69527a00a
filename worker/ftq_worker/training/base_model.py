"""The base model on this host: fetched at its pinned revision, loaded without remote code.

Its files are downloaded first and loaded from their folder: TRL's own loading looks the
configuration up without revision and token.
"""

import contextlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.utils.constants import SEQ_CLS_HEAD_NAMES
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from ftq_shared.errors import FtqError, Refused
from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.job.chat_templates import chosen_template, template_beside
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.foreign import foreign
from ftq_worker.job.hub import MODEL_TEXT_FILES, download, hub_of
from ftq_worker.job.reports import BaseFiles, ModelFacts
from ftq_worker.training import varlen

# Precisions that a model may be published in, as safetensors names them.
LAYER = re.compile(r"\.\d+\.")  # in the name of a weight that belongs to a numbered layer
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def fetch_base(ctx: PhaseContext, model: ModelFacts) -> Path:
    """Return the folder with the base model's files; downloads what this host lacks.

    Raises Refused when a local folder is gone or the Hub says no, HubUnreachable when it is down,
    JobCancelled or Interrupted after a stop.
    """
    if model.place is not Place.HUB:
        folder = Path(model.name).expanduser()
        if not folder.is_dir():
            raise Refused(
                f"model: no folder {model.name} on this worker",
                code="model_missing",
                hint="worker:/path must exist on every worker that trains",
                field="model",
            )
        return folder
    repo = _listing(ctx, model)
    # Weights of one kind only, and nothing that could be run.
    safe = any(name.endswith(".safetensors") for name in repo.files)
    wanted = (*MODEL_TEXT_FILES, ".safetensors" if safe else ".bin")
    names = [name for name in repo.files if name.endswith(wanted)]
    return download(ctx, repo, names, f"download {model.name}")


def fetch_config(ctx: PhaseContext, model: ModelFacts) -> Path:
    """Return a folder with the base model's files but its weights; raises as `fetch_base` does."""
    if model.place is not Place.HUB:
        return fetch_base(ctx, model)
    repo = _listing(ctx, model)
    names = [name for name in repo.files if name.endswith(MODEL_TEXT_FILES)]
    return download(ctx, repo, names, f"download config of {model.name}")


def _listing(ctx: PhaseContext, model: ModelFacts) -> BaseFiles:
    """Return the files of the pinned revision; the Hub is asked once for a job.

    So a host that has them goes on while the Hub is away, or when the token has been revoked.
    """
    path = ctx.paths.base_files
    if path.exists():
        try:
            known = BaseFiles.load(path)
        except FtqError:  # damaged: it is asked for again
            known = None
        if known and (known.id, known.sha) == (model.name, model.revision):
            return known
    repo = hub_of(ctx).model_info(model.name, model.revision)
    known = BaseFiles(id=repo.id, sha=repo.sha, files=dict(repo.files))
    known.save(path)
    return known


def load_tokenizer(folder: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer with the one chat template that the job uses, or with none.

    Raises Refused when it cannot be loaded, and as `chosen_template` does.
    """
    with foreign(
        "the tokenizer cannot be loaded",
        code="no_tokenizer",
        hint="choose a model with a tokenizer.json",
    ):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False
        )
        known = tokenizer.chat_template or template_beside(folder)
    tokenizer.chat_template = chosen_template(known, chat_template)
    return tokenizer


def load_base(
    folder: Path,
    task: Task,
    labels: list[str],
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 42,
    attention: str = "",
    **options: Any,
) -> PreTrainedModel:
    """Return the base model with the head of the task.

    A classification head that the base lacks is drawn at random from `seed`: the same in every
    attempt, in training and in verification. `attention`: by default SDPA, eager without it.
    """
    varlen.register()
    set_seed(seed)
    with foreign(
        f"the model in {folder.name} cannot be loaded",
        code="broken_model",
        hint="its files do not fit together; choose another revision, or get the model again",
    ):
        options["attn_implementation"] = attention or _plain_attention(folder, task)
        return _load(folder, task, labels, dtype, options)


def _plain_attention(folder: Path, task: Task) -> str:
    """Return the attention that needs nothing beside torch."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind: Any = (
        AutoModelForSequenceClassification if task is Task.CLASSIFICATION else AutoModelForCausalLM
    )
    with torch.device("meta"):
        return "sdpa" if kind.from_config(config)._supports_sdpa else "eager"


def _load(
    folder: Path, task: Task, labels: list[str], dtype: torch.dtype, options: dict[str, Any]
) -> PreTrainedModel:
    if task is not Task.CLASSIFICATION:
        writer, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, output_loading_info=True, **options
        )
        refuse_unfit(task, found)
        refuse_nonfinite(writer)
        name_experts(writer.config.get_text_config())
        return writer
    model, found = AutoModelForSequenceClassification.from_pretrained(
        folder,
        output_loading_info=True,
        dtype=dtype,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # a head for other labels is replaced, not refused
        **label_settings(labels),
        **options,
    )
    refuse_unfit(task, found)
    refuse_nonfinite(model)
    if said_problem(folder) in OTHER_PROBLEMS:
        renew_head(model)
    return model


def refuse_unfit(task: Task, found: Mapping[str, Any]) -> None:
    """Raise Refused (`broken_model`) for weights that are not in the files, or of other shapes.

    They would be drawn at random. `found` is what `from_pretrained` says of its loading. A new head
    of a classifier, and what pools for it, are drawn on purpose; layers never are.
    """
    missing, strange = sorted(found["missing_keys"]), sorted(found["mismatched_keys"])
    if task is Task.CLASSIFICATION:
        missing = [name for name in missing if LAYER.search(name)]
        strange = [one for one in strange if one[0].split(".")[0] not in SEQ_CLS_HEAD_NAMES]
    if strange:
        name, held, wanted = strange[0]
        raise _broken(
            f"{len(strange):,} weights of the model have other shapes than its config.json asks"
            f" for, for example {name}: {list(held)}, not {list(wanted)}"
        )
    if missing:
        raise _broken(
            f"{len(missing):,} weights of the model are not in its files, for example {missing[0]}"
        )


def refuse_nonfinite(model: PreTrainedModel) -> None:
    """Raise Refused (`broken_model`) where a weight holds NaN or infinity."""
    broken = [
        name
        for name, weight in model.named_parameters()
        if weight.is_floating_point()
        and weight.numel()
        and not weight.is_meta
        and not all(end.isfinite() for end in torch.aminmax(weight.detach()))
    ]
    if broken:
        raise _broken(f"{len(broken):,} weights of the model hold NaN or infinity: {broken[0]}")


def _broken(message: str) -> Refused:
    return Refused(
        message,
        code="broken_model",
        hint="the model is not whole; choose another revision, or get it again",
        field="model",
    )


def name_experts(config: Any) -> None:
    """Give the number of experts the name under which TRL's loss looks for it."""
    experts = getattr(config, "num_local_experts", None)
    if experts and getattr(config, "num_experts", None) is None:
        config.num_experts = experts


# A head that was trained for one of these says nothing of single labels, whatever its shape.
OTHER_PROBLEMS = {
    "multi_label_classification": "several labels per text",
    "regression": "a number per text",
}


def label_settings(labels: list[str]) -> dict[str, Any]:
    """Return what the configuration of a classifier says of its labels: one of them per text."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def said_problem(folder: Path) -> str | None:
    """Return the problem that the base's own head was trained for, None where it says nothing."""
    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return getattr(config, "problem_type", None)


def renew_head(model: PreTrainedModel) -> None:
    """Draw the classification head anew, from the global seed."""
    spread = getattr(model.config.get_text_config(), "initializer_range", 0.02)
    for name in SEQ_CLS_HEAD_NAMES:
        head = getattr(model, name, None)
        for part in head.modules() if head is not None else ():
            if isinstance(part, torch.nn.Linear):
                torch.nn.init.normal_(part.weight, std=spread)
                if part.bias is not None:
                    torch.nn.init.zeros_(part.bias)


def saved_dtype(folder: Path) -> torch.dtype:
    """Return the precision of a folder's weights: what is trained from a base is saved in its own.

    That of most of its numbers, else what config.json says, else float32.
    """
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors"))[:1]:  # shards are of one precision
        with contextlib.suppress(SafetensorError), safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                part = file.get_slice(name)
                counts[part.get_dtype()] += math.prod(part.get_shape())
    found = [_DTYPES[name] for name, _ in counts.most_common() if name in _DTYPES]
    if found:
        return found[0]
    said = AutoConfig.from_pretrained(folder, trust_remote_code=False).dtype
    return said if said in _DTYPES.values() else torch.float32


def pad_id(tokenizer: PreTrainedTokenizerBase, model: Any) -> int:
    """Return a token to pad with; any will do, because padding is masked by its position.

    Never one that the model has no weights for, which some tokenizers add for padding.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(token) for token in known if token is not None and token < rows)
