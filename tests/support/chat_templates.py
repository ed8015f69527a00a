"""Chat templates of well-known models, each with marks around its answers, and their tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Style:
    """A template, its control tokens, and the token that ends a turn."""

    template: str
    tokens: tuple[str, ...]
    end: str
    eos: str
    greedy: bool = False  # the end token takes the white space behind it
    marked: str = ""  # the template with {% generation %} marks: TRL's own where it has one


def _trl(name: str) -> str:
    """Return a model's own template, or TRL's training template for it, as TRL ships them."""
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def _known(name: str, *names: Any, **more: Any) -> Style:
    return Style(_trl(name), *names, marked=_trl(f"{name}_training"), **more)


def _own(template: str, answer: str, *names: Any) -> Style:
    """Return a style whose template is written here; `answer` is what writes an answer."""
    marked = "{% generation %}{{ " + answer + " }}{% endgeneration %}"
    return Style(
        template.replace("ANSWER", "{{ " + answer + " }}"),
        *names,
        marked=template.replace("ANSWER", marked),
    )


_IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
# DeepSeek writes its tokens with a full-width bar and a low block.
_USER, _ASSISTANT = "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"
_END = "<\uff5cend\u2581of\u2581sentence\uff5c>"

STYLES = {
    "smollm2": _own(
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n'"
        " }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' %}ANSWER{% else %}{{ m.content + '<|im_end|>' }}{% endif %}"
        "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% endif %}",
        "m.content + '<|im_end|>'",
        _IM,
        "<|im_end|>",
        "<|im_end|>",
    ),
    # Its base models end a text with another token than a turn.
    "qwen2_5": _known("qwen2_5", _IM, "<|im_end|>", "<|endoftext|>"),
    "qwen3": _known("qwen3", (*_IM, "<think>", "</think>"), "<|im_end|>", "<|endoftext|>"),
    "llama3": _known(
        "llama3",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"),
        "<|eot_id|>",
        "<|end_of_text|>",
    ),
    "gemma": _known(
        "gemma", ("<start_of_turn>", "<end_of_turn>", "<eos>"), "<end_of_turn>", "<eos>"
    ),
    "mistral": _own(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + "
        "' [/INST]' }}{% elif m.role == 'assistant' %}ANSWER{% endif %}{% endfor %}",
        "' ' + m.content | trim + eos_token",
        ("[INST]", "[/INST]", "</s>"),
        "</s>",
        "</s>",
    ),
    "phi3": _known(
        "phi3",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
        "<|end|>",
        "<|endoftext|>",
        greedy=True,
    ),
    "r1": _known(
        "deepseek_r1_distill", (_USER, _ASSISTANT, _END, "<think>", "</think>"), _END, _END
    ),
}


def tokenizer_of(style: Style) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes with the style's control tokens and template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Two blanks are one token, so that some tokens reach over the border of an answer.
    pairs = [(blank, blank) for blank in "ĊĠ"]
    words = [*alphabet, *map("".join, pairs)]
    raw = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, pairs))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(
        [AddedToken(t, normalized=False, rstrip=style.greedy) for t in ("<s>", *style.tokens)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token=style.eos)
    tokenizer.chat_template = style.template
    return tokenizer
