"""Attention tried before it is trusted: its numbers, and that packed documents stay apart.

Both leave the global random numbers as they were: a resumed run goes on with the same ones.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import read_resolved
from ftq_worker.training import varlen
from ftq_worker.training.attention import (
    VARLEN,
    Candidate,
    ModelAttention,
    Precision,
    candidates,
    refuse_attention,
    refuse_packing,
)
from ftq_worker.training.facts import RunFacts
from ftq_worker.training.settings import TrainSettings

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# Relative error (norms) that another order of summation may make: logits and gradients of two
# layers. In bf16 eager is off by 0.01; a document that sees its neighbour by 0.96, a window that is
# left out by 0.32.
ALLOWED = {"bf16": 0.05, "fp16": 0.01, "fp32": 1e-4}
_DOCUMENTS = (40, 24, 1, 56)  # tokens; some lie within the window, some beyond
_WINDOW = 16
_VOCABULARY = 32


def known_attention(ctx: PhaseContext) -> str:
    """Return what an earlier attempt of this job computed attention with, '' before the first."""
    known = read_resolved(ctx.paths).get("train.attention")
    return str(known["value"]) if known else ""


def settle_attention(ctx: PhaseContext, settings: TrainSettings, facts: RunFacts) -> TrainSettings:
    """Return the settings with the fastest attention that gives SDPA's numbers on this device.

    A later attempt takes that of the first where it can. Raises Refused for one that a person asked
    for and that cannot be had.
    """
    varlen.register()
    asked, known = ctx.spec.train.attention, known_attention(ctx)
    usable = candidates(facts.attention, facts.host, settings.precision, packing=settings.packing)
    if asked != "auto":
        usable = [one for one in usable if one.name == asked] or refuse_attention(asked, usable)
    usable = sorted(usable, key=lambda one: one.name != known)
    device = torch.device("cuda", ctx.devices.rank) if facts.host.cuda else torch.device("cpu")
    chosen, refused = _first_proven(usable, facts.attention, settings.precision, device)
    for one, why in refused:
        ctx.warn(f"attention {one.name} ({one.why}) is not used: {why}")
    if chosen is None:
        refuse_attention(asked, [])
    if asked == "auto" and chosen.name != known and ctx.devices.rank == 0:
        why = "; ".join(filter(None, (chosen.why, facts.host.note)))
        ctx.resolve("train.attention", chosen.name, why)
    return replace(settings, attention=chosen.name)


def keep_apart(ctx: PhaseContext, settings: TrainSettings, model: PreTrainedModel) -> TrainSettings:
    """Return the settings, without packing where the loaded model lets documents see each other.

    Raises Refused (`packing_not_supported`) where a person asked for packing.
    """
    if not settings.packing:
        return settings
    if settings.attention not in ("sdpa", "eager") and model.device.type == "cpu":
        # There the model still is, and SDPA stands for a kernel that is told the same.
        if model._supports_sdpa:
            model.config._attn_implementation = VARLEN
        else:
            model.to(torch.device("cuda", ctx.devices.rank))
    why = documents_mix(model, settings.precision)
    model.config._attn_implementation = settings.attention
    if not why:
        return settings
    why = f"with {settings.attention}, {why}"
    if ctx.spec.train.packing is True:
        refuse_packing(settings.task, ModelAttention(mixing=why))
    if ctx.devices.rank == 0:
        ctx.resolve("train.packing", False, why)
    return replace(settings, packing=False)


def _first_proven(
    usable: Sequence[Candidate], facts: ModelAttention, precision: Precision, device: torch.device
) -> tuple[Candidate | None, list[tuple[Candidate, str]]]:
    """Return the first that passes its trial, and those that failed theirs, with the reason."""
    refused: list[tuple[Candidate, str]] = []
    for one in usable:
        why = "" if one.known else wrong_numbers(one.name, facts, precision, device)
        if not why:
            return one, refused
        refused.append((one, why))
    return None, refused


def wrong_numbers(
    name: str, facts: ModelAttention, precision: Precision, device: torch.device
) -> str:
    """Run one step with an implementation and with SDPA; return how they differ, '' if they agree.

    The step is that of a decoder of two small layers, full and sliding attention, with heads of the
    model's size: packed rows against each row alone, logits and all gradients; then padded rows.
    """
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            tried, trusted = (_decoder(one, facts, precision, device) for one in (name, "sdpa"))
        trusted.load_state_dict(tried.state_dict())
        rows = [_tokens(length, _VOCABULARY, seed) for seed, length in enumerate(_DOCUMENTS)]
        alone = [trusted(row[None].to(device), use_cache=False).logits[0] for row in rows]
        packed = tried(**_packed(rows, device), use_cache=False).logits[0].split(_DOCUMENTS)
        padded = _padded(tried, rows, device)
        for logits in (alone, packed):
            _loss(logits, rows).backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a kernel raises, it cannot be used
        lines = str(error).strip().splitlines()
        return f"it fails: {type(error).__name__}: {lines[0] if lines else ''}"
    allowed = ALLOWED[precision]
    for what, got, want in (
        ("the logits of packed rows", packed, alone),
        ("the logits of padded rows", padded, alone),
        ("the gradients", _gradients(tried), _gradients(trusted)),
    ):
        off = _distance(got, want)
        if not off <= allowed:  # NaN as well
            return f"{what} are off by {off:.2g} of SDPA's, more than {allowed:g}"
    return ""


def documents_mix(model: PreTrainedModel, precision: Precision) -> str:
    """Return how a document in one sequence with another differs from itself alone, '' if not."""
    device = next(model.parameters()).device
    size = model.get_input_embeddings().weight.shape[0]
    rows = [_tokens(length, size, seed) for seed, length in enumerate((7, 9))]
    was = model.training
    model.eval()
    half = _autocast(device, precision) if device.type != "cpu" else nullcontext()
    with torch.no_grad(), half:
        together = model(**_packed(rows, device), use_cache=False).logits[0, len(rows[0]) :]
        alone = model(rows[1][None].to(device), use_cache=False).logits[0]
    model.train(was)
    off = _distance([together], [alone])
    # The whole depth of a model adds to the error, and experts may be chosen otherwise.
    if off <= (1e-3 if together.dtype == torch.float32 else 2 * ALLOWED["bf16"]):
        return ""
    return f"the logits of a packed row are off by {off:.2g} of those it has alone"


def _decoder(
    name: str, facts: ModelAttention, precision: Precision, device: torch.device
) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=_VOCABULARY,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=facts.head_dim or 64,
        use_sliding_window=True,
        sliding_window=_WINDOW,
        layer_types=["full_attention", "sliding_attention"],
        initializer_range=0.2,  # so that it matters where a token looks
        dtype=DTYPES[precision],
    )
    config._attn_implementation = name
    model: Qwen3ForCausalLM = Qwen3ForCausalLM(config)
    return model.to(device=device, dtype=DTYPES[precision]).train()


def _packed(rows: Sequence[Tensor], device: torch.device) -> dict[str, Any]:
    """Return what TRL's collator gives for packed rows."""
    lengths = torch.tensor([0, *map(len, rows)])
    bounds = lengths.cumsum(0).to(device=device, dtype=torch.int32)
    longest = int(lengths.max())
    return {
        "input_ids": torch.cat(list(rows))[None].to(device),
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows])[None].to(device),
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _padded(model: PreTrainedModel, rows: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return the logits of each row, from one batch that is padded on the right."""
    ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
    with torch.no_grad():
        logits = model(ids, attention_mask=mask, use_cache=False).logits
    return [logits[i, : len(row)] for i, row in enumerate(rows)]


def _loss(logits: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
    scored = torch.cat([one[:-1] for one in logits]).float()
    wanted = torch.cat([row[1:] for row in rows]).to(scored.device)
    return torch.nn.functional.cross_entropy(scored, wanted)


def _gradients(model: torch.nn.Module) -> list[Tensor]:
    return [part.grad for part in model.parameters() if part.grad is not None]


def _distance(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    one, other = (torch.cat([part.detach().float().flatten() for part in x]) for x in (got, want))
    return float((one - other).norm() / other.norm())


def _tokens(count: int, vocabulary: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (count,), generator=generator)


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])
