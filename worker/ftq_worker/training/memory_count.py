"""Count what a training step holds in memory, without weights and without a card, in seconds.

The model is built from its configuration with the adapter that training puts on it, of tensors
that have shapes and no numbers (torch's FakeTensorMode). One forward and backward pass runs over
it, and every storage is counted while it lives, so that what autograd keeps, the copies that
autocast makes, the head's tiles and the peak inside backward are all in the sum. Of a deep model
with equal layers two cuts are counted, some layers apart, and the rest follows from them.

Where CUDA's kernels hold less or more than the CPU's, the count is of CUDA's (`CUDA_KERNELS`).
"""

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from transformers import PreTrainedModel, masking_utils
from transformers.integrations import moe
from trl.kernels import chunked_logprob
from trl.trainer.utils import add_fused_lm_head

from ftq_shared.spec import Task
from ftq_worker.training.adapters import allowed_dropout, lora_config
from ftq_worker.training.blueprint import blueprint
from ftq_worker.training.live_bytes import LiveBytes
from ftq_worker.training.memory_need import RUNTIME_BYTES, Need, Setup, Uncountable
from ftq_worker.training.scoring import TOKENS_PER_BATCH_ON_CARDS

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
ADAM_BYTES = 8  # two float32 moments of each trained number
MOST_OPERATIONS = 100_000  # some 8 s; a layer that loops over the tokens makes more
# A linear layer in nf4: 4 bits a number, a byte of scale for 64 and 4 bytes for 256 of these.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


def count(folder: Path, setup: Setup) -> Need:
    """Return what one step needs at its peak; raises Uncountable where it cannot be run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training says what there is to say
            return _count(folder, setup)
    except Uncountable:
        raise
    except Exception as error:  # whatever a library cannot do without numbers
        lines = str(error).strip().splitlines() or [""]
        raise Uncountable(f"{type(error).__name__}: {lines[0][:200]}") from error


@dataclass(frozen=True)
class _Cut:
    """What was counted of a model of so many layers."""

    layers: int
    base: int
    trained: int
    numbers: int  # that are trained
    forward: list[tuple[int, int]]  # live bytes and gradients after each operation
    backward: list[tuple[int, int]]
    quantized: int  # numbers that QLoRA keeps in 4 bits
    largest: int  # of these, in one layer


def _count(folder: Path, setup: Setup) -> Need:
    model = blueprint(folder, setup.task, [str(n) for n in range(setup.labels)])
    layers, depths = _layers(model), []
    whole = len(layers) if layers is not None else 1
    if layers is not None:
        depths = _depths([_signature(layer) for layer in layers], setup)
    if layers is not None and depths:
        del layers[depths[1] :]
    trained = _adapted(model, setup)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        trained.to_empty(device="cpu")
        model.tie_weights()
        if not depths:
            need = _need(_count_cut(trained, model, whole, setup), whole, None, setup)
            return need.with_working(_scoring(trained, setup))
        assert layers is not None
        long = _count_cut(trained, model, depths[1], setup)
        del layers[depths[0] :]
        short = _count_cut(trained, model, depths[0], setup)
        return _need(long, whole, short, setup).with_working(_scoring(trained, setup))


def _layers(model: nn.Module) -> nn.ModuleList | None:
    """Return the list of the model's repeated layers, the one with most numbers."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    sizes = [sum(p.numel() for p in found.parameters()) for found in lists]
    return lists[sizes.index(max(sizes))] if lists else None


def _signature(layer: nn.Module) -> object:
    """Return what two layers have in common that hold equally much."""
    kinds = tuple(
        (
            type(part).__name__,
            *(getattr(part, name, None) for name in ("sliding_window", "attention_type")),
            *(getattr(part, name, None) for name in ("layer_type", "is_sliding")),
        )
        for part in layer.modules()
    )
    return str(kinds), tuple((name, tuple(w.shape)) for name, w in layer.named_parameters())


def _depths(signatures: list[object], setup: Setup) -> list[int]:
    """Return the two depths to count, [] where the whole model is counted.

    They end at the same place of the pattern of layers as the whole does.
    """
    every = setup.checkpointing if isinstance(setup.checkpointing, int) else 1
    whole = len(signatures)
    for start, period in itertools.product(range(whole // 2), range(1, whole // 4 + 1)):
        if all(signatures[i] == signatures[i + period] for i in range(start, whole - period)):
            step = math.lcm(period, every)
            short = whole - step * ((whole - start - 2 * step) // step)
            if short < whole and 2 * short + step < whole:
                return [short, short + step]
            return []
    return []


def _adapted(model: PreTrainedModel, setup: Setup) -> Any:
    """Prepare the model for training as `sft` and `classification` do."""
    dtype = torch.float32 if setup.method == "full" else HALF.get(setup.precision, torch.float32)
    kept = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype is torch.float16:
        kept |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, weight in itertools.chain(model.named_parameters(), model.named_buffers()):
        if weight.is_floating_point() and isinstance(weight, nn.Parameter):
            weight.data = weight.data.to(torch.float32 if kept & set(name.split(".")) else dtype)
    trained: Any = model
    if setup.method != "full":
        from peft import get_peft_model

        lora = setup.lora.model_copy(update={"dropout": allowed_dropout(setup.lora, model)})
        kind = "SEQ_CLS" if setup.task is Task.CLASSIFICATION else "CAUSAL_LM"
        trained = get_peft_model(model, lora_config(lora, kind, model))
        if setup.method == "qlora":  # as TRL does
            for weight in trained.parameters():
                if weight.requires_grad:
                    weight.data = weight.data.to(torch.bfloat16)
    if setup.task is not Task.CLASSIFICATION:
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if setup.checkpointing != "none":
        if not model.supports_gradient_checkpointing:
            raise Uncountable(f"{type(model).__name__} has no activation checkpointing")
        every = setup.checkpointing if isinstance(setup.checkpointing, int) else 1
        trained.enable_input_require_grads()
        trained.activation_checkpointing_enable(every_n_layers=every)
    model.config.get_text_config().pad_token_id = 0
    model.config.pad_token_id = 0
    trained.train()
    return trained


def _count_cut(trained: Any, model: PreTrainedModel, layers: int, setup: Setup) -> _Cut:
    operations = itertools.count()

    def bounded() -> None:
        if next(operations) > MOST_OPERATIONS:
            raise Uncountable("its layers loop over the tokens")

    live = LiveBytes(bounded)
    weights = {p.untyped_storage()._cdata: p for p in trained.parameters()}
    ours = [p for p in weights.values() if p.requires_grad]
    for tensor in itertools.chain(trained.parameters(), trained.buffers()):
        live.add(tensor)
    static = live.now
    for weight in ours:
        weight.grad = torch.empty_like(weight) if setup.accumulates else None
        if setup.accumulates:
            live.add(weight.grad)
            live.add_gradient(weight)
    hooks = [
        weight.register_post_accumulate_grad_hook(live.add_gradient)
        for weight in ours
        if not setup.accumulates
    ]
    with live, _kernels(setup):
        loss = _loss(trained, setup)
        border = len(live.trace)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        del loss
    for hook in hooks:
        hook.remove()
    for weight in ours:
        weight.grad = None
    mine = sum(weight.untyped_storage().nbytes() for weight in ours)
    linear = [
        part.weight
        for part in model.modules()
        if isinstance(part, nn.Linear)
        and part is not model.get_output_embeddings()
        and not part.weight.requires_grad
    ]
    return _Cut(
        layers=layers,
        base=static - mine,
        trained=mine,
        numbers=sum(weight.numel() for weight in ours),
        forward=live.trace[:border],
        backward=live.trace[border:],
        quantized=sum(weight.numel() for weight in linear),
        largest=max((weight.numel() for weight in linear), default=0),
    )


def _need(long: _Cut, whole: int, short: _Cut | None, setup: Setup) -> Need:
    """Return the parts at the moment when most is held, in the whole model."""
    times = (whole - long.layers) // (long.layers - short.layers) if short else 0

    def whole_of(name: str) -> int:
        less = getattr(short or long, name)
        return int(getattr(long, name) + (getattr(long, name) - less) * times)

    base, trained = whole_of("base"), whole_of("trained")
    forward, backward = _stretched(long, short, times)
    kept = forward[-1][0] - base - trained
    most, gradients = max(forward + backward)
    held = most - base - trained - gradients
    working = max(0, held - kept)
    if setup.method == "qlora":
        bytes_each = HALF.get(setup.precision, torch.float32).itemsize
        base -= int(whole_of("quantized") * (bytes_each - NF4_BYTES))
        working += long.largest * bytes_each  # one layer at a time is multiplied out
    if setup.ranks > 1:
        working += trained  # the buckets in which gradients travel
    return Need(
        base=base,
        trained=trained,
        optimizer=whole_of("numbers") * ADAM_BYTES,
        gradients=gradients,
        activations=min(held, kept),
        working=working,
        runtime=RUNTIME_BYTES if setup.device == "cuda" else 0,
    )


def _stretched(
    long: _Cut, short: _Cut | None, times: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return what is held after each operation, in the whole model.

    An operation of the first layers, or of the last ones, holds as much more with each further
    layer as it does in the longer of the two cuts. What is between them lies between them.
    """
    if short is None:
        return long.forward, long.backward
    found = []
    for less, more in ((short.forward, long.forward), (short.backward, long.backward)):
        half = len(less) // 2
        ends = (
            *zip(less[:half], more[:half], strict=True),
            *zip(less[half:], more[half - len(less) :], strict=True),
        )
        found.append(
            [(b[0] + (b[0] - a[0]) * times, b[1] + (b[1] - a[1]) * times) for a, b in ends]
        )
    return found[0], found[1]


def _loss(trained: Any, setup: Setup) -> torch.Tensor:
    """Run the forward pass of training on the longest rows and return the loss."""
    rows, length = setup.micro_batch, setup.length
    ids = torch.zeros(rows, length, dtype=torch.long)
    # One row has no padding; of several, some have.
    mask = torch.ones(rows, length, dtype=torch.long) if rows > 1 else None
    loss: torch.Tensor
    with _autocast(setup):
        if setup.task is Task.CLASSIFICATION:
            labels = torch.zeros(rows, dtype=torch.long)
            loss = trained(input_ids=ids, attention_mask=mask, labels=labels).loss
        else:
            inputs = {"input_ids": ids, "attention_mask": mask, "labels": ids}
            out = trained(**inputs, use_cache=False, fused_lm_head=True)
            loss = -out.log_probs.sum() / out.label_mask.sum()
    return loss


def _scoring(trained: Any, setup: Setup) -> int:
    """Return the most that scoring a held-out set holds beside the weights, on a card."""
    if setup.device == "cpu":
        return 0
    live = LiveBytes()
    rows = max(1, TOKENS_PER_BATCH_ON_CARDS // setup.length)
    trained.eval()
    with torch.no_grad(), live, _kernels(setup):
        _loss(trained, replace(setup, micro_batch=rows))
    trained.train()
    return live.peak


def _autocast(setup: Setup) -> contextlib.AbstractContextManager[Any]:
    if setup.precision not in HALF:
        return contextlib.nullcontext()
    return torch.autocast("cpu", dtype=HALF[setup.precision])


@contextlib.contextmanager
def _kernels(setup: Setup) -> Iterator[None]:
    """Let the libraries do here what they do on the device that is counted for."""
    changes: list[tuple[Any, str, Any]] = [
        # Without numbers nobody sees that rows are not packed.
        (masking_utils, "find_packed_sequence_indices", lambda ids: None),
        # torch has this kernel without numbers for bfloat16 alone; the other keeps the same.
        (moe, "_can_use_grouped_mm", lambda rows, weight, ends: weight.dtype is torch.bfloat16),
    ]
    if setup.device == "cuda":
        changes += CUDA_KERNELS
    with contextlib.ExitStack() as stack:
        for module, name, stand_in in changes:
            stack.enter_context(patch.object(module, name, stand_in))
        yield


def _makes_nothing(*_: Any, **__: Any) -> None:
    """Stand for a kernel that works in place."""


def _dropout(
    input: torch.Tensor,  # as torch names it
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> torch.Tensor:
    """Drop out as CUDA does: a byte is kept for each number, not a copy."""
    return torch.native_dropout(input, p, True)[0] if training and p else input


def _attention(*args: Any, dropout_p: float = 0.0, **options: Any) -> Any:
    """Attend as CUDA does, where dropout is part of the kernel and changes no other."""
    return _sdpa(*args, **options)


def _in_float32(function: Any) -> Any:
    """Return the function as autocast has it on CUDA: on float32."""

    def run(*args: Any, **options: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return function(*args, **options)
        options = {name: _float(value) for name, value in options.items()}
        return function(*map(_float, args), **options)

    return run


def _float(value: Any) -> Any:
    half = isinstance(value, torch.Tensor) and value.dtype in HALF.values()
    return value.float() if half else value


_sdpa = functional.scaled_dot_product_attention
# What is done another way on CUDA, and holds another amount.
CUDA_KERNELS = (
    (functional, "dropout", _dropout),
    (functional, "scaled_dot_product_attention", _attention),
    (functional, "layer_norm", _in_float32(functional.layer_norm)),
    (functional, "softmax", _in_float32(functional.softmax)),
    # Triton folds the head's tiles in place, and cuBLAS adds half products to float32 sums.
    (chunked_logprob, "_forward_tile", _makes_nothing),
    (chunked_logprob, "_backward_tile", _makes_nothing),
    (chunked_logprob, "_addmm_fp32", _makes_nothing),
)
