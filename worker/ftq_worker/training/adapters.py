"""LoRA on a model: which layers it adapts, and what its kind of model allows."""

import re
from typing import Any

from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.constants import SEQ_CLS_HEAD_NAMES
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn
from transformers import PreTrainedModel

from ftq_shared.spec import Lora
from ftq_worker.job.auto import auto_rule

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
# Kinds of Mamba whose kernels read `out_proj` past its module, so that peft refuses it.
_MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_ROUTERS = ("gate", "router", "shared_expert_gate")


@auto_rule(
    "train.lora.target_modules",
    "every linear layer, and the experts where peft knows them; not the head, not a router, nor"
    " Mamba's out_proj",
)
def lora_config(lora: Lora, task_type: str, model: PreTrainedModel) -> LoraConfig:
    """Return peft's configuration for a model, whose weights may be on the meta device.

    Experts that transformers keeps in one tensor are adapted as parameters. A router is left as
    it is: what it learned of balance is easily lost. Raises ValueError as peft does.
    """
    auto = lora.target_modules == "auto"
    targets: Any = "all-linear" if auto else lora.target_modules
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        target_modules=targets,
        exclude_modules=(_left_out(model, task_type) or None) if auto else None,
        task_type=task_type,
    )
    convert_peft_config_for_transformers(config, model, None)
    # peft doubles the rank of experts that were two tensors once; the rank is what was asked for.
    config.rank_pattern, config.alpha_pattern = {}, {}
    if auto:
        found = config.target_parameters or ()
        config.target_parameters = [
            name for name in sorted(found) if name.removesuffix(".weight") not in _ROUTERS
        ] or None
    return config


def numbers_of_rank_one(lora: Lora, model: PreTrainedModel) -> int:
    """Return how many numbers LoRA of rank 1 trains; the model, of no use then, is changed."""
    least = lora.model_copy(update={"r": 1, "dropout": 0.0})
    trained = get_peft_model(model, lora_config(least, "CAUSAL_LM", model))
    return int(trained.get_nb_trainable_parameters()[0])


def unreached(model: PreTrainedModel, config: LoraConfig) -> dict[str, int]:
    """Return the weights that `auto` means and peft has not adapted in `model`, with their numbers.

    The number of a layer is left out of the names. peft knows the experts of some kinds of model
    alone; there, it takes the names of their old layers from what is adapted, and with them dense
    layers and shared experts that have the same names.
    """
    head = model.get_output_embeddings()
    meant_out = tuple(f"{name}." for name in config.exclude_modules or ())
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        inner = ".base_layer" in name or ".lora_" in name or isinstance(module, BaseTunerLayer)
        if inner or module is head or f"{name}.".startswith(meant_out):
            continue
        if isinstance(module, nn.Conv1d):
            continue
        for part, weight in module.named_parameters(recurse=False):
            if weight.dim() == 3 or (isinstance(module, nn.Linear) and part == "weight"):
                kind = re.sub(r"\.\d+\.", ".*.", f"{name}.{part}")
                found[kind] = found.get(kind, 0) + weight.numel()
    return found


def allowed_dropout(lora: Lora, model: PreTrainedModel) -> float:
    """Return the dropout that LoRA can have on this model: none where experts are adapted.

    peft wraps experts that are one tensor each, and knows no dropout there.
    """
    free = lora.model_copy(update={"dropout": 0.0})
    fused = lora_config(free, "CAUSAL_LM", model).target_parameters
    return 0.0 if fused else lora.dropout


def _left_out(model: PreTrainedModel, task_type: str) -> list[str]:
    """Return the names of linear layers that are not adapted, though `all-linear` means them."""
    left = _routers(model)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if task_type == "SEQ_CLS":
        # peft trains every module whose name ends so as a whole (DistilBERT's pre_classifier).
        left += [name for name in names if name.endswith(tuple(SEQ_CLS_HEAD_NAMES))]
    if model.config.model_type in _MAMBA:
        left += [name for name in names if name.endswith(".out_proj")]
    return left


def _routers(model: PreTrainedModel) -> list[str]:
    """Return the names of the linear layers that choose experts."""
    text: Any = model.config.get_text_config()
    counts = {getattr(text, name, None) for name in _EXPERTS} - {None, 0, 1}
    if not counts:
        return []
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features in counts | {1}
        and any(part in _ROUTERS for part in name.split(".")[-2:])
    ]
