"""A model that is sharded over the ranks by FSDP2: its settings, and the whole of it at the end.

accelerate shards it, within the trainer. Checkpoints are torch's distributed ones: every rank
writes and reads its own part, and another number of ranks finds its parts in them as well.
transformers' own way (`DistributedConfig`) cannot resume.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    save_fsdp_model,
)
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from transformers import TrainingArguments
from transformers.distributed.fsdp import get_fsdp_ckpt_kwargs

from ftq_worker.training.settings import TrainSettings

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def sharding_args(settings: TrainSettings) -> dict[str, Any]:
    """Return the trainer's arguments that shard the model by layers; none where it is whole."""
    if not settings.sharded:
        return {}
    config = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": True,
        "state_dict_type": "SHARDED_STATE_DICT",
    }
    return {"fsdp": True, "fsdp_config": config}


def plan_sharding(args: TrainingArguments, settings: TrainSettings, model: nn.Module) -> None:
    """Say what accelerate would choose otherwise: the layers, and the precision of sums.

    Gradients are summed over the ranks in float32, as DDP does. What is computed with is in half
    precision, whatever a weight is stored in: so adapters in float32 and a frozen base in bfloat16
    may share a layer.
    """
    if not settings.sharded:
        return
    args.fsdp_plugin_args["transformer_cls_names_to_wrap"] = _layers_of(model)
    if half := _HALF.get(settings.precision):
        policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
        args.fsdp_plugin_args["mixed_precision_policy"] = policy


def _layers_of(model: Any) -> list[str]:
    """Return the classes of the model's layers.

    Those that the model itself names, but for what holds its embeddings: accelerate shards these on
    their own, and fails where they are in a part already (BERT). Else those of its longest list.
    """
    embeddings = model.get_input_embeddings()
    named = {
        type(module).__name__
        for module in model.modules()
        if type(module).__name__ in (getattr(model, "_no_split_modules", None) or ())
        and not any(part is embeddings for part in module.modules())
    }
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    longest = max(lists, key=len, default=())
    return sorted(named or {type(module).__name__ for module in longest})


def shard_on_cpu(trainer: Any) -> None:
    """Make accelerate shard on the CPU as it does on GPUs; to be called once it is there.

    It takes several processes without GPUs for DDP, whatever it was asked for, and says nothing.
    """
    state = trainer.accelerator.state
    if trainer.args.fsdp and state.distributed_type is DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        state.distributed_type = DistributedType.FSDP
        trainer.is_fsdp_enabled = True


def save_parts(trainer: Any, folder: Path) -> None:
    """Write the weights as a checkpoint has them, each rank its part; all ranks call it."""
    plugin = trainer.accelerator.state.fsdp_plugin
    save_fsdp_model(
        plugin, trainer.accelerator, trainer.model, str(folder), **get_fsdp_ckpt_kwargs()
    )


def is_sharded(model: nn.Module) -> bool:
    """Return whether this rank holds a part of the model only."""
    return isinstance(model, FSDPModule)


def skeleton_of(model: nn.Module) -> nn.Module:
    """Return a copy of a model that is whole, with its buffers and without its weights."""
    bare: dict[int, Any] = {
        id(weight): nn.Parameter(weight.to("meta"), requires_grad=weight.requires_grad)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, bare)


def assemble(model: nn.Module, skeleton: nn.Module) -> nn.Module:
    """Return `skeleton` with all that was trained of a sharded model, on rank 0; all ranks call it.

    What is frozen stays without numbers: it is not saved.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    state = get_model_state_dict(model, options=options)
    if distributed.get_rank() == 0:
        found = skeleton.load_state_dict(state, strict=False, assign=True)
        trained = {name for name, weight in skeleton.named_parameters() if weight.requires_grad}
        lost = trained & set(found.missing_keys)
        assert not lost, f"not in the sharded state: {sorted(lost)[:3]}"
        assert not found.unexpected_keys, found.unexpected_keys[:3]
        tied: Any = getattr(skeleton, "tie_weights", lambda: None)
        tied()
    return skeleton
