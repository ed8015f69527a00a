"""LoRA on a model: which layers it adapts, and what its kind of model allows."""

from typing import Any

from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn
from transformers import PreTrainedModel

from ftq_shared.spec import Lora
from ftq_worker.job.auto import auto_rule

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ROUTERS = ("gate", "router", "shared_expert_gate")


@auto_rule(
    "train.lora.target_modules",
    "every linear layer, and the experts where peft knows them; not the head, not a router",
)
def lora_config(lora: Lora, task_type: str, model: PreTrainedModel) -> LoraConfig:
    """Return peft's configuration for a model, whose weights may be on the meta device.

    Experts that transformers keeps in one tensor are adapted as parameters. A router is left as
    it is: what it learned of balance is easily lost. Raises ValueError as peft does.
    """
    auto = lora.target_modules == "auto"
    targets: Any = "all-linear" if auto else lora.target_modules
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=(_routers(model) or None) if auto else None,
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


def allowed_dropout(lora: Lora, model: PreTrainedModel) -> float:
    """Return the dropout that LoRA can have on this model: none where experts are adapted.

    peft wraps experts that are one tensor each, and knows no dropout there.
    """
    free = lora.model_copy(update={"dropout": 0.0})
    fused = lora_config(free, "CAUSAL_LM", model).target_parameters
    return 0.0 if fused else lora.dropout


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
