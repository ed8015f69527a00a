"""Code that loads the pushed model: what the card shows, and what a test runs."""

from ftq_shared.spec import Task
from ftq_worker.job.reports import Prepared, Validated
from ftq_worker.publishing.staging import Format

_GENERATE = """
inputs = {prompt}
output = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""

_CHAT = """tokenizer.apply_chat_template(
    [{"role": "user", "content": "Your question"}],
    add_generation_prompt=True,
    return_tensors="pt",
    return_dict=True,
)"""

_PLAIN = 'tokenizer("Your prompt\\n", return_tensors="pt")'

_CLASSIFY = """
inputs = tokenizer("Your text", return_tensors="pt")
print(labels[model(**inputs).logits.argmax(-1).item()])
"""


def usage_code(repo: str, form: Format, validated: Validated, prepared: Prepared) -> str:
    """Return Python code that loads the model from the Hub and uses it once."""
    if validated.task is Task.CLASSIFICATION:
        return _classifier(repo, form, validated, prepared)
    prompt = _CHAT if prepared.format == "chat" else _PLAIN
    return _decoder(repo, form) + _GENERATE.format(prompt=prompt)


def _decoder(repo: str, form: Format) -> str:
    if form == "adapter":
        return (
            "from peft import AutoPeftModelForCausalLM\n"
            "from transformers import AutoTokenizer\n\n"
            f'model = AutoPeftModelForCausalLM.from_pretrained("{repo}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        )
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{repo}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
    )


def _classifier(repo: str, form: Format, validated: Validated, prepared: Prepared) -> str:
    if form != "adapter":
        return (
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
            f'model = AutoModelForSequenceClassification.from_pretrained("{repo}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
            "labels = model.config.id2label\n" + _CLASSIFY
        )
    model = validated.model
    revision = f', revision="{model.revision}"' if model.revision else ""
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"labels = {prepared.labels!r}\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        f'base = AutoModelForSequenceClassification.from_pretrained("{model.name}"'
        f"{revision}, num_labels=len(labels), pad_token_id=tokenizer.pad_token_id)\n"
        f'model = PeftModel.from_pretrained(base, "{repo}").eval()\n' + _CLASSIFY
    )
