"""Is there a tokenizer, and does it have a chat template?"""

from ftq_shared.errors import Refused
from ftq_shared.spec import JobSpec
from ftq_worker.validation.files import ModelFiles, read_json

_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json", "merges.txt",
)  # fmt: skip
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates/")


def read_chat_template(files: ModelFiles, spec: JobSpec) -> bool:
    """Return whether the tokenizer has a chat template.

    Raises Refused without a tokenizer, or when data.format asks for a template that is not there.
    """
    if not any(name in files.sizes for name in _TOKENIZERS):
        raise Refused(
            f"{files.name} has no tokenizer",
            code="no_tokenizer",
            hint="choose a model whose repo holds tokenizer.json or tokenizer.model",
        )
    config = read_json(files, "tokenizer_config.json") or {}
    has = bool(config.get("chat_template")) or any(
        name.startswith(_TEMPLATES) for name in files.sizes
    )
    if spec.data.format == "chat" and not has and not spec.data.chat_template:
        raise Refused(
            f"data.format is chat, but {files.name} has no chat template",
            code="no_chat_template",
            hint="--set data.format=plain, or give a template with data.chat_template, or choose "
            "the model's -Instruct version",
            field="data.format",
        )
    return has
