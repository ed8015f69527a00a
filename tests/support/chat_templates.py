"""Chat templates in the style of well-known models, written for the tests, and their tokens."""

from dataclasses import dataclass

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
    trl: str = ""  # TRL's training template of the same model, where it has one


_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
# DeepSeek writes its tokens with a full-width bar and a low block.
_USER, _ASSISTANT = "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"
_END = "<\uff5cend\u2581of\u2581sentence\uff5c>"
_THINKS = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
)

STYLES = {
    "smollm2": Style(
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n'"
        " }}{% endif %}" + _CHATML,
        _IM,
        "<|im_end|>",
        "<|im_end|>",
    ),
    "qwen2_5": Style(
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are Qwen, created by "
        "Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}{% endif %}" + _CHATML,
        _IM,
        "<|im_end|>",
        "<|endoftext|>",  # as its base models have it
        trl="qwen2_5_training",
    ),
    "qwen3": Style(
        _THINKS + "{% for m in messages %}{% if m.role != 'assistant' %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% else %}"
        "{% set content = m.content.split('</think>')[-1].lstrip('\n') %}"
        "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n')"
        " if '</think>' in m.content else '' %}{{ '<|im_start|>assistant\n' }}"
        "{% if loop.index0 > ns.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
        "{{ content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        (*_IM, "<think>", "</think>"),
        "<|im_end|>",
        "<|endoftext|>",
        trl="qwen3_training",
    ),
    "llama3": Style(
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + "
        "'<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
        "{% endif %}",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"),
        "<|eot_id|>",
        "<|end_of_text|>",
        trl="llama3_training",
    ),
    "gemma": Style(
        "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else "
        "m.role %}{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        ("<start_of_turn>", "<end_of_turn>", "<eos>"),
        "<end_of_turn>",
        "<eos>",
        trl="gemma_training",
    ),
    "mistral": Style(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + "
        "' [/INST]' }}{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + eos_token }}"
        "{% endif %}{% endfor %}",
        ("[INST]", "[/INST]", "</s>"),
        "</s>",
        "</s>",
    ),
    "phi3": Style(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}"
        "{{ eos_token }}{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
        "<|end|>",
        "<|endoftext|>",
        greedy=True,
        trl="phi3_training",
    ),
    "r1": Style(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
        f"{{{{ '{_ASSISTANT}' + m.content.split('</think>')[-1] + '{_END}' }}}}"
        f"{{% else %}}{{{{ '{_USER}' + m.content }}}}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ '{_ASSISTANT}<think>\n' }}}}{{% endif %}}",
        (_USER, _ASSISTANT, _END, "<think>", "</think>"),
        _END,
        _END,
        trl="deepseek_r1_distill_training",
    ),
}


def tokenizer_of(style: Style) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes with the style's control tokens and template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(
        [AddedToken(t, normalized=False, rstrip=style.greedy) for t in ("<s>", *style.tokens)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token=style.eos)
    tokenizer.chat_template = style.template
    return tokenizer
