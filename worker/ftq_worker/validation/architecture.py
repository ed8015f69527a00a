"""What kind of model it is, from its config.json alone: nothing is loaded, no code is run."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from ftq_shared.errors import Refused
from ftq_worker.validation.files import ModelFiles, read_json

if TYPE_CHECKING:
    from ftq_worker.validation.weights import Weights

_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim", "model_dim")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_SIZE = re.compile(r"^(num|n)_|_(size|dim|layers?|heads|experts|rank)$")
_SLACK = 8  # layers may share weights
_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_sequence_length",
    "seq_length",
)
_LARGEST = 10**9  # of any figure of a model
_DECODER_ENDINGS = ("ForCausalLM", "LMHeadModel")
_WHOLE = ("model.safetensors", "model-", "pytorch_model")  # how files with whole models begin
_OTHER_SENSES = ("vision_config", "audio_config", "image_size", "speech_config", "vision_tower")


@dataclass(frozen=True)
class Architecture:
    """The figures of a text model."""

    name: str  # for example LlamaForCausalLM
    model_type: str
    kind: Literal["decoder", "encoder"]
    hidden_size: int
    layers: int
    vocab_size: int
    max_positions: int | None
    sizes: Mapping[str, int] = field(default_factory=dict)  # whatever else makes the model larger


def read_architecture(files: ModelFiles) -> Architecture:
    """Return what config.json says.

    Raises Refused: no config, an adapter, code of its own, a type that transformers does not
    know, a quantized model, or one that is not made of text alone.
    """
    config = read_json(files, "config.json")
    if config is None:
        raise _no_config(files)
    _refuse_adapter(files)
    model_type = str(config.get("model_type") or "")
    _refuse_unknown(files, config, model_type)
    _refuse_quantized(files, config)
    named = config.get("architectures")
    name = str(named[0] or "") if isinstance(named, list) and named else ""
    _refuse_other_kinds(files, config, name, model_type)
    return Architecture(
        name=name or model_type,
        model_type=model_type,
        kind=_kind(files, name, model_type),
        hidden_size=_number(files, config, _HIDDEN),
        layers=_number(files, config, _LAYERS),
        vocab_size=_number(files, config, ("vocab_size",)),
        max_positions=_optional(config, _POSITIONS),
        sizes=dict(_sizes(config)),
    )


def _sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield every whole number of a config by which a model grows."""
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for name, value in part.items():
            if _SIZE.search(name) and isinstance(value, int) and name not in _POSITIONS:
                yield name, value


def check_size(architecture: Architecture, weights: "Weights") -> tuple[None, str]:
    """Return a message when the config fits the weights.

    A config that asks for more layers than there are weights would be built for hours, in memory
    that no host has. Raises Refused (`size_mismatch`).
    """
    held = weights.parameters or weights.size_bytes  # a byte is the least that a number takes
    least = architecture.layers * architecture.hidden_size**2
    most = max(architecture.sizes.items(), key=lambda pair: pair[1], default=("", 0))
    if least > _SLACK * held or most[1] > held:
        what = f"{architecture.layers:,} layers of {architecture.hidden_size:,}"
        if most[1] > held:
            what = f"{most[0]} {most[1]:,}"
        raise Refused(
            f"config.json says {what}, but the weights hold only {held:,} numbers",
            code="size_mismatch",
            hint="the config is not that of these weights; get the model again",
            file="config.json",
        )
    return None, f"{architecture.layers} layers of {architecture.hidden_size} fit the weights"


def _refuse_adapter(files: ModelFiles) -> None:
    """Refuse an adapter, alone or beside a model: loading would put it on what is trained."""
    adapter = read_json(files, "adapter_config.json")
    if adapter is None:
        return
    if any(PurePosixPath(path).name.startswith(_WHOLE) for path in files.sizes):
        raise Refused(
            f"{files.name} holds a whole model and a LoRA adapter (adapter_config.json) in one "
            "folder",
            code="adapter_beside_model",
            hint="name a folder with the model alone: move the adapter_* files away, or merge the "
            "adapter into it (peft: merge_and_unload, then save_pretrained)",
            file="adapter_config.json",
        )
    raise Refused(
        f"{files.name} is a LoRA adapter, not a whole model",
        code="adapter_only",
        hint=_base_hint(str(adapter.get("base_model_name_or_path") or "")),
        file="adapter_config.json",
    )


def _base_hint(base: str) -> str:
    """Name the adapter's base where it is a Hub id; a path is one of its author's machine."""
    if re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", base):
        return f"name its base model instead: --set model={base}"
    return (
        "name the base model that it was trained on, or merge the two and name the result (peft: "
        "merge_and_unload, then save_pretrained)"
    )


def _no_config(files: ModelFiles) -> Refused:
    _refuse_adapter(files)
    if any(path.endswith(".gguf") for path in files.sizes):
        return Refused(
            f"{files.name} holds GGUF files, which cannot be fine-tuned",
            code="gguf_only",
            hint="name the original model, usually the same id without -GGUF",
        )
    return Refused(
        f"{files.name} has no config.json",
        code="no_config",
        hint="a model that transformers can load has one; is it a dataset, or a model of another "
        "library?",
    )


def _refuse_unknown(files: ModelFiles, config: Mapping[str, Any], model_type: str) -> None:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if model_type in CONFIG_MAPPING_NAMES:
        return
    if config.get("auto_map"):
        raise Refused(
            f"{files.name} needs code from its own repo (trust_remote_code), which ftq never runs",
            code="remote_code",
            hint="choose a model whose architecture is part of transformers; many such models "
            "have a converted copy, often with -hf in its name",
        )
    raise Refused(
        f"transformers {transformers.__version__} does not know the model type {model_type!r}",
        code="unknown_architecture",
        hint="choose another model, or update transformers on the workers",
    )


def _refuse_quantized(files: ModelFiles, config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if not quantization:
        return
    method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else ""
    raise Refused(
        f"{files.name} is quantized ({method}); its weights cannot be trained",
        code="quantized",
        hint="name the original model; train.method qlora quantizes it while training",
    )


def _refuse_other_kinds(
    files: ModelFiles, config: Mapping[str, Any], name: str, model_type: str
) -> None:
    if sense := next((key for key in _OTHER_SENSES if key in config), None):
        raise Refused(
            f"{files.name} is no pure text model (its config has {sense})",
            code="not_text",
            hint="choose a text model; pictures and sound are not supported by this version",
        )
    if config.get("is_encoder_decoder"):
        raise Refused(
            f"{files.name} is an encoder-decoder (seq2seq) model: {name or model_type}",
            code="seq2seq",
            hint="choose a decoder such as Qwen, Llama or SmolLM, or an encoder such as BERT "
            "for classification",
        )


def _kind(files: ModelFiles, name: str, model_type: str) -> Literal["decoder", "encoder"]:
    """Tell decoders from encoders: by the head the model was saved with, else by its type."""
    from transformers.models.auto import modeling_auto

    if name.endswith(_DECODER_ENDINGS):
        return "decoder"
    if model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    if model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "decoder"
    if model_type in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return "encoder"
    raise Refused(
        f"{files.name} is a {name or model_type}, which neither writes nor classifies text",
        code="not_text",
        hint="choose a decoder such as Qwen or Llama, or an encoder such as BERT",
    )


def _optional(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST:
            return value
    return None


def _number(files: ModelFiles, config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    inner = config.get("text_config")
    found = _optional(config, names)
    if found is None and isinstance(inner, dict):
        found = _optional(inner, names)
    if found is None:
        raise Refused(
            f"{files.name}: config.json gives no {names[0]} that can be",
            code="broken_config",
            hint="the model is damaged, or no text model",
            file="config.json",
        )
    return found
