"""Models of known shapes with random weights, and real rows of the length that is measured.

Speed and memory do not depend on what the weights are.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config

from ftq_worker.demo import assets

DATA = Path(os.environ.get("FTQ_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
VOCABULARY = 8_000  # of the tokenizer, which is trained on the rows
_FIRST = 3_000  # texts that the tokenizer is trained on


@dataclass(frozen=True)
class Shape:
    """A model that others publish figures for."""

    config: PreTrainedConfig
    length: int  # tokens of a row


SHAPES = {
    "llama-3-8b": Shape(
        LlamaConfig(
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            vocab_size=128_256,
            max_position_embeddings=8192,
        ),
        4096,
    ),
    "qwen2.5-7b": Shape(
        Qwen2Config(
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=152_064,
            max_position_embeddings=32_768,
            tie_word_embeddings=False,
        ),
        4096,
    ),
    "llama-1b": Shape(
        LlamaConfig(
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=64,
            vocab_size=128_256,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
        2048,
    ),
    "tiny": Shape(
        LlamaConfig(
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=8_192,
            max_position_embeddings=1024,
        ),
        256,
    ),
}


def make_model(name: str, folder: Path, device: str) -> int:
    """Write a model and its tokenizer; return its parameters. One that is there is kept."""
    shape = SHAPES[name]
    torch.manual_seed(0)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(shape.config)
    parameters: int = sum(weight.numel() for weight in empty.parameters())
    if (folder / "config.json").exists():
        return parameters
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(shape.config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer = assets.make_tokenizer(list(_texts())[:_FIRST], VOCABULARY)
    tokenizer.model_max_length = shape.config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    return parameters


def make_rows(file: Path, tokenizer_folder: Path, length: int) -> int:
    """Write conversations of GSM8K's questions, each nearly `length` tokens; return how many."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    rows: list[list[dict[str, str]]] = [[]]
    used = 0
    for question, answer in _pairs():
        size = len(tokenizer(f"{question}\n{answer}</s>")["input_ids"]) + 2
        if used + size > length - 8 and rows[-1]:
            rows.append([])
            used = 0
        rows[-1] += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        used += size
    rows.pop()  # the last one is short
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return len(rows)


def _pairs() -> Iterator[tuple[str, str]]:
    for line in (DATA / "gsm8k" / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield row["question"], row["answer"]


def _texts() -> Iterator[str]:
    return (f"{question}\n{answer}" for question, answer in _pairs())
