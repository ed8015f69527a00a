"""The folder that will be pushed: exactly these files are verified, hashed and committed."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoTokenizer, GenerationConfig

from ftq_shared.errors import UsageError
from ftq_shared.spec import Task
from ftq_worker.job.auto import auto_rule
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import Prepared, Trained, Validated
from ftq_worker.publishing.metadata import Format
from ftq_worker.training.base_model import load_base, saved_dtype
from ftq_worker.training.trained_model import name_base, to_precision

_BLOCK = 1 << 20


@dataclass(frozen=True)
class StagedFile:
    """One file to push, with both hashes that a Hub may name it by."""

    name: str  # path in the repo
    path: Path
    size: int
    sha256: str  # of the content: LFS files
    git_sha1: str  # of git's blob: small files


@auto_rule(
    "publish.format",
    "LoRA on a base from the Hub: the adapter; LoRA on another base: merged; trained whole: the"
    " whole model",
)
def resolve_format(ctx: PhaseContext, trained: Trained, base_is_on_hub: bool) -> Format:
    """Return what is pushed: an adapter for LoRA, the whole model otherwise.

    Raises UsageError when an adapter is asked for and there is none.
    """
    asked = ctx.spec.publish.format
    if trained.method == "full":
        if asked == "adapter":
            raise UsageError(
                "publish.format: adapter, but the model was trained whole",
                code="format_mismatch",
                hint="leave publish.format on auto, or train with train.method lora",
                field="publish.format",
            )
        if asked == "auto":
            ctx.resolve("publish.format", "full", "the model was trained whole")
        return "full"
    if asked != "auto":
        return asked
    if base_is_on_hub:
        ctx.resolve("publish.format", "adapter", "LoRA: the adapter, which names its base")
        return "adapter"
    ctx.resolve("publish.format", "merged", "LoRA on a base that is not on the Hub: merged into it")
    return "merged"


def stage(
    ctx: PhaseContext,
    form: Format,
    base: Path,
    validated: Validated,
    prepared: Prepared,
    trained: Trained,
) -> Path:
    """Return a fresh folder with the model in its format, and tokenizer; never both formats.

    `from_pretrained` would apply an adapter that lies beside a merged model a second time.
    """
    folder = ctx.paths.claim_dir(ctx.claim) / "publish"
    shutil.rmtree(folder, ignore_errors=True)
    if form != "merged":
        shutil.copytree(ctx.paths.model, folder, copy_function=_link_or_copy)
        return folder
    folder.mkdir(parents=True)
    model = attach(ctx.paths.model, base, validated.task, prepared.labels, trained)
    merged = model.merge_and_unload(safe_merge=True)
    to_precision(merged, saved_dtype(base))
    if merged.can_generate():
        merged.generation_config = GenerationConfig.from_pretrained(ctx.paths.model)
    merged.save_pretrained(folder)
    AutoTokenizer.from_pretrained(ctx.paths.model, trust_remote_code=False).save_pretrained(folder)
    name_base(folder, validated.model)
    return folder


def attach(
    adapter: Path,
    base: Path,
    task: Task,
    labels: list[str],
    trained: Trained,
    dtype: torch.dtype = torch.float32,
) -> PeftModel:
    """Return the base model, loaded afresh, with the adapter on it."""
    model = load_base(base, task, labels, seed=int(trained.settings["seed"]), dtype=dtype)
    if task is Task.CLASSIFICATION and model.config.pad_token_id is None:
        tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=False)
        model.config.pad_token_id = tokenizer.pad_token_id
    return PeftModel.from_pretrained(model, adapter)


def hash_files(folder: Path) -> list[StagedFile]:
    """Return every file of the folder with its hashes, in the order of their names."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return [_hash(path, path.relative_to(folder).as_posix()) for path in paths]


def _hash(path: Path, name: str) -> StagedFile:
    size = path.stat().st_size
    content = hashlib.sha256()
    # A git object is hashed with its type and size in front (git-hash-object).
    blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            content.update(block)
            blob.update(block)
    return StagedFile(name, path, size, content.hexdigest(), blob.hexdigest())


def _link_or_copy(source: str, target: str) -> None:
    """Share the bytes where the file system can: a model may be large."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
