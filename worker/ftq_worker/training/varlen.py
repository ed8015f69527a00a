"""Attention of variable length for packed rows: no mask, and no token sees another document.

On CUDA torch's own kernel (`torch.nn.attention.varlen`), elsewhere SDPA, document by document.
Rows that are not packed go through SDPA as usual.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.flash_attention import get_target_dtype
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from ftq_worker.training.attention import VARLEN


def register() -> None:
    """Let `from_pretrained` take the name; safe to call again."""
    AttentionInterface.register(VARLEN, varlen_forward)
    AttentionMaskInterface.register(VARLEN, varlen_mask)


def varlen_mask(
    *,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    device: torch.device,
    **options: Any,
) -> Tensor | None:
    """Return SDPA's mask; where transformers saw several documents in one sequence, their bounds.

    It saw them when the mask may not be left out though no row is padded. The bounds [documents
    + 1] are where a token does not see the one before it: not every model hands those of the
    collator on to its attention.
    """
    if attention_mask is None and not allow_is_causal_skip and q_length == kv_length:
        tokens = torch.arange(1, q_length, device=device)
        first = torch.zeros((), dtype=torch.long, device=device)
        begins = tokens[~mask_function(first, first, tokens, tokens - 1)]
        ends = torch.tensor([0, q_length], device=device)
        return torch.cat([ends[:1], begins, ends[1:]]).to(torch.int32)
    mask: Tensor | None = sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        device=device,
        **options,
    )
    return mask


def varlen_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return (output, None), the output [1, tokens, heads, size]; the rest as transformers has it.

    query, key, value: [1, heads, tokens, size]. `cu_seq_lens_q`: where each document begins, and
    the end of the last, from the collator; else the mask says so. Without both, the rows are not
    packed.
    """
    shared = {"dropout": dropout, "scaling": scaling, **options}
    if attention_mask is not None and attention_mask.dim() == 1:
        cu_seq_lens_q = attention_mask if cu_seq_lens_q is None else cu_seq_lens_q
        attention_mask = None
    if cu_seq_lens_q is None or attention_mask is not None:
        out: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **shared)[0]
        return out, None
    if query.is_cuda:
        return _kernel(
            module, query, key, value, scaling, sliding_window, cu_seq_lens_q, max_length_q
        ), None
    parts = []
    for begin, end in itertools.pairwise(cu_seq_lens_q.tolist()):
        one = [part[:, :, begin:end] for part in (query, key, value)]
        band = _band(end - begin, sliding_window, query.device)
        parts.append(sdpa_attention_forward(module, *one, band, **shared)[0])
    return torch.cat(parts, dim=1), None


def _kernel(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    bounds: Tensor,
    longest: int | None,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    dtype = get_target_dtype(query, module) or query.dtype  # autocast leaves some in float32
    q, k, v = (part[0].transpose(0, 1).to(dtype).contiguous() for part in (query, key, value))
    most = longest or int(bounds.diff().max())
    out = varlen_attn(
        q,
        k,
        v,
        bounds,
        bounds,
        most,
        most,
        scale=scaling,
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out[None]


def _band(tokens: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return the mask [1, 1, tokens, tokens] of a causal window, None where all is within it."""
    if window is None or tokens <= window:
        return None
    back = torch.arange(tokens, device=device)[:, None] - torch.arange(tokens, device=device)
    return ((back >= 0) & (back < window))[None, None]
