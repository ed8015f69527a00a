"""Which attention a run computes with, and why: a choice from facts, the fastest that fits first.

Packed rows need attention that keeps documents apart. Kernels of variable length are told where
each one ends; the others get a mask of all tokens by all tokens, which is right and slow. Imports
no torch: what looks at a model or a host does so inside.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, NoReturn

from ftq_shared.errors import Refused
from ftq_shared.spec import Task
from ftq_worker.job.auto import auto_rule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Precision = Literal["bf16", "fp16", "fp32"]

VARLEN = "varlen"  # torch's own kernel, or SDPA document by document: see `varlen`
_FLASH = "flash_attention_"
_ATTENTION = {"full_attention", "sliding_attention"}  # these look back through attention alone
_LARGEST_HEAD = 256  # of the flash kernels
_AMPERE, _HOPPER = (8, 0), (9, 0)


@dataclass(frozen=True)
class ModelAttention:
    """What a model's code and config.json say of its attention."""

    sdpa: bool = True
    flash: bool = False
    flex: bool = False
    only_flash: tuple[str, ...] = ()  # the flash kernels that it can have, where it names them
    head_dim: int = 0  # 0: those of keys and values differ
    dropout: bool = False  # within the attention, in training
    mixing: str = ""  # why documents in one sequence would see each other; '' where they do not


@dataclass(frozen=True)
class HostAttention:
    """What a host can compute attention with."""

    cuda: bool = False
    capability: tuple[int, int] = (0, 0)
    packages: tuple[int, ...] = ()  # versions of flash attention that are installed as packages
    hub_kernel: str = ""  # repo@commit of a kernel that the package `kernels` loads
    varlen: bool = False  # torch has a kernel of variable length
    note: str = ""  # what was looked for in vain


@dataclass(frozen=True)
class Candidate:
    """An implementation that fits model and host."""

    name: str  # as `from_pretrained` takes it
    why: str
    masked: bool = True  # keeps documents apart by a mask of all tokens by all tokens
    known: bool = False  # what the others are compared with: nothing to prove


@auto_rule(
    "train.attention",
    "the first that fits and gives SDPA's numbers in a trial step: on CUDA the flash-attn package,"
    " a kernel of the Hub (where `kernels` is installed); for packed rows torch's variable-length"
    " attention; SDPA; eager where the model has nothing else",
)
def candidates(
    model: ModelAttention, host: HostAttention, precision: Precision, *, packing: bool
) -> list[Candidate]:
    """Return what can be used, the fastest first; the last one always can."""
    found = []
    if host.cuda and host.capability >= _AMPERE and precision != "fp32":
        found += _flash(model, host)
        if packing and host.varlen and _fits_varlen(model):
            found.append(Candidate(VARLEN, "torch's attention of variable length", masked=False))
    if packing and not host.cuda and model.sdpa:
        found.append(Candidate(VARLEN, "CPU: SDPA, document by document", masked=False))
    if host.cuda and model.flex and not model.dropout and (packing or not model.sdpa):
        found.append(Candidate("flex_attention", "torch's flex attention, compiled", masked=False))
    if model.sdpa:
        found.append(Candidate("sdpa", "torch's scaled dot product attention", known=True))
    why = "" if model.sdpa else ": the model has neither SDPA nor a faster one here"
    found.append(Candidate("eager", f"plain matrix products{why}", known=True))
    return found


def _flash(model: ModelAttention, host: HostAttention) -> list[Candidate]:
    if not model.flash or model.head_dim > _LARGEST_HEAD:
        return []
    found = []
    for version in sorted(host.packages, reverse=True):
        new = version > 2  # these have no dropout, and the newest wants Hopper
        if not (new and model.dropout) and not (version == 4 and host.capability < _HOPPER):
            found.append((f"{_FLASH}{version}", f"the flash-attn package, version {version}"))
    if host.hub_kernel:
        found.append((host.hub_kernel, "a kernel of the Hub at a pinned commit"))
    allowed = model.only_flash
    return [
        Candidate(name, why, masked=False)
        for name, why in found
        if not allowed or name.partition("@")[0] in allowed
    ]


def _fits_varlen(model: ModelAttention) -> bool:
    size = model.head_dim
    fits = 0 < size <= _LARGEST_HEAD and size % 8 == 0
    return fits and model.sdpa and not model.dropout and not model.mixing


def packs_fast(model: ModelAttention, host: HostAttention, precision: Precision) -> str:
    """Return the words of a kernel that trains packed rows without a mask, '' for none.

    Flex attention is left to those who ask for it: it compiles for minutes.
    """
    first = candidates(model, host, precision, packing=True)[0]
    return "" if first.masked or first.name == "flex_attention" or not host.cuda else first.why


def look_at_model(model: "PreTrainedModel") -> ModelAttention:
    """Return the facts of a model, which may be on the meta device."""
    text = model.config.get_text_config()
    heads = getattr(text, "num_attention_heads", None) or 1
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    latent = getattr(text, "v_head_dim", size) != getattr(text, "qk_head_dim", size)
    rates = (value for name, value in text.to_dict().items() if "att" in name and "drop" in name)
    return ModelAttention(
        sdpa=model._supports_sdpa,
        flash=model._supports_flash_attn,
        flex=model._supports_flex_attn,
        only_flash=tuple(getattr(model, "_compatible_flash_implementations", None) or ()),
        head_dim=0 if latent else size,
        dropout=any(rates),
        mixing=_mixing(model),
    )


def _mixing(model: "PreTrainedModel") -> str:
    """Return what carries one document of a sequence into the next, '' for nothing."""
    from torch import nn

    name = model.config.model_type
    layers = getattr(model.config.get_text_config(), "layer_types", None) or ()
    if other := sorted(set(layers) - _ATTENTION):
        return f"{name} has layers of {', '.join(other)}, which run on from document to document"
    if model._is_stateful or any(isinstance(part, nn.Conv1d) for part in model.modules()):
        return f"{name} has recurrent layers, which run on from document to document"
    if not model._supports_attention_backend:
        return f"the attention of {name} cannot be told where a document ends"
    return ""


def look_at_host(capability: tuple[int, int], known: str = "") -> HostAttention:
    """Return what this host has, given its CUDA capability; (0, 0) is the CPU.

    `known`: what an earlier attempt used. The Hub is asked only where the package `kernels` is
    installed, for a commit to pin.
    """
    if capability == (0, 0):
        return HostAttention()
    from transformers.utils import import_utils

    found = [n for n in (2, 3, 4) if getattr(import_utils, f"is_flash_attn_{n}_available")()]
    kernel, note = _hub_kernel(known) if import_utils.is_kernels_available() else ("", "")
    return HostAttention(
        cuda=True,
        capability=capability,
        packages=tuple(found),
        hub_kernel=kernel,
        varlen=find_spec("torch.nn.attention.varlen") is not None,
        note=note,
    )


def _hub_kernel(known: str) -> tuple[str, str]:
    """Return (repo@commit, '') of the kernel version that transformers names, else ('', why)."""
    from huggingface_hub import list_repo_refs
    from huggingface_hub.errors import HfHubHTTPError
    from transformers.modeling_flash_attention_utils import (
        FLASH_ATTN_KERNEL_FALLBACK,
        FLASH_ATTN_KERNEL_VERSIONS,
    )

    repo = FLASH_ATTN_KERNEL_FALLBACK["flash_attention_2"]
    if known.startswith(f"{repo}@"):
        return known, ""
    wanted = f"v{FLASH_ATTN_KERNEL_VERSIONS[repo]}"
    try:
        refs = list_repo_refs(repo, repo_type="kernel", token=False)
    except (HfHubHTTPError, OSError) as error:
        return "", f"the Hub does not say which commit {repo} has: {type(error).__name__}"
    for one in refs.branches:
        if one.name == wanted:
            return f"{repo}@{one.target_commit}", ""
    return "", f"{repo} has no version {wanted}"


def refuse_packing(task: Task, model: ModelAttention) -> None:
    """Raise Refused (`packing_not_supported`) where rows cannot share a sequence at all."""
    why = model.mixing
    if task is Task.CLASSIFICATION:
        why = "a classifier gives one label for a sequence"
    if why:
        raise Refused(
            f"train.packing: rows cannot be packed: {why}",
            code="packing_not_supported",
            hint="--set train.packing=false: rows of similar length share a batch instead",
            field="train.packing",
        )


def refuse_attention(asked: str, usable: list[Candidate]) -> NoReturn:
    """Raise Refused (`attention_not_supported`) for an implementation that cannot be used here."""
    names = [one.name for one in usable]
    raise Refused(
        f"train.attention: {asked} cannot be used here: it is not installed, or model, device,"
        " precision or packing do not go with it",
        code="attention_not_supported",
        hint="--set train.attention=auto" + (f"; usable: {', '.join(names)}" if names else ""),
        field="train.attention",
    )
