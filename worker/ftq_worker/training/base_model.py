"""The base model on this host: fetched at its pinned revision, loaded without remote code.

Every file comes through snapshot_download with endpoint, token and revision given, into a local
folder, and is loaded from there: `from_pretrained` with a Hub id takes the endpoint from the
environment, and TRL's own loading looks the configuration up without revision and token.
"""

import time
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.utils.tqdm import tqdm as hub_tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.job.context import Emit, PhaseContext
from ftq_worker.job.hub import hub_of
from ftq_worker.job.reports import ModelFacts

# Weights of one kind only, and nothing that could be run.
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
FILES_WITHOUT_SAFETENSORS = [*FILES[:1], "*.bin", *FILES[2:]]
PROGRESS_EVERY_S = 0.5


def fetch_base(ctx: PhaseContext, model: ModelFacts) -> Path:
    """Return the folder with the base model's files; downloads what this host lacks.

    Raises Refused when a local folder is gone or the Hub says no, HubUnreachable when it is down.
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
    hub = hub_of(ctx)
    names = hub.model_info(model.name, model.revision).files
    safe = any(name.endswith(".safetensors") for name in names)
    return Path(
        hub.call(
            lambda: snapshot_download(
                model.name,
                revision=model.revision,
                endpoint=hub.endpoint,
                token=hub.token,
                allow_patterns=FILES if safe else FILES_WITHOUT_SAFETENSORS,
                tqdm_class=_progress_of(ctx.emit, f"download {model.name}"),
            ),
            kind="model",
            repo=model.name,
            revision=model.revision,
            what=f"downloading model {model.name}",
        )
    )


def load_tokenizer(folder: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer; a chat template of the spec replaces the model's own."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False
    )
    if chat_template:
        tokenizer.chat_template = chat_template
    return tokenizer


def load_base(
    folder: Path,
    task: Task,
    labels: list[str],
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 42,
    **options: Any,
) -> PreTrainedModel:
    """Return the base model with the head of the task.

    A classification head that the base lacks is drawn at random from `seed`: the same in every
    attempt, in training and in verification.
    """
    set_seed(seed)
    if task is not Task.CLASSIFICATION:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, **options
        )
    return AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=dtype,
        trust_remote_code=False,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
        ignore_mismatched_sizes=True,  # a head for other labels is replaced, not refused
        **options,
    )


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return a token to pad with; any will do, because padding is masked by its position."""
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return int(tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0)


def _progress_of(emit: Emit, task: str) -> type[hub_tqdm]:
    """Return a progress bar that draws nothing and sends `progress` events in bytes."""
    last = [0.0]

    class EventBar(hub_tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._bytes = kwargs.get("unit") == "B" and "Downloading" not in str(kwargs.get("desc"))
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]
            self._done = float(kwargs.get("initial") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            self._done += n or 0
            total = float(self.total or 0)
            now = time.monotonic()
            if self._bytes and (now - last[0] >= PROGRESS_EVERY_S or self._done == total):
                last[0] = now
                emit(
                    EventType.PROGRESS,
                    task=task,
                    done=int(self._done),
                    unit="bytes",
                    total=int(max(total, self._done)),
                )
            return None

    return EventBar
