"""Code that loads the pushed model: what the card shows, and what a test runs."""

from ftq_shared.sources import Place
from ftq_shared.spec import Task
from ftq_worker.job.reports import Prepared, Validated
from ftq_worker.publishing.metadata import Format

_GENERATE = """
inputs = {prompt}
output = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""

# Nobody else has the base, so that the adapter cannot name it.
_LOCAL_BASE = """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
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


def _classify(validated: Validated) -> str:
    if not validated.columns.text_pair:
        return _CLASSIFY
    encoder = validated.model.kind == "encoder"
    two = '"First text", "Second text"' if encoder else '"First text\\nSecond text"'
    return _CLASSIFY.replace('"Your text"', two)


def usage_code(repo: str, form: Format, validated: Validated, prepared: Prepared) -> str:
    """Return Python code that loads the model from the Hub and uses it once."""
    if validated.task is not Task.CLASSIFICATION:
        prompt = _CHAT if prepared.format == "chat" else _PLAIN
        load = _load(repo, form, "CausalLM")
        if form == "adapter" and validated.model.place is not Place.HUB:
            load = _LOCAL_BASE.format(repo=repo, base=_base_name(validated))
        if form == "adapter":  # loaded on its base, it would stop where the base does
            load = load.replace("AutoTokenizer\n", "AutoTokenizer, GenerationConfig\n", 1)
            load += f'model.generation_config = GenerationConfig.from_pretrained("{repo}")\n'
        return load + _GENERATE.format(prompt=prompt)
    if form == "adapter":
        return _load_classifier(repo, validated, prepared) + _classify(validated)
    whole = _load(repo, form, "SequenceClassification")
    return f"{whole}labels = model.config.id2label\n{_classify(validated)}"


def _base_name(validated: Validated) -> str:
    """Return the base's Hub id, or what to put there: a path is nobody else's business."""
    model = validated.model
    if model.place is Place.HUB:
        return model.name
    return f"FOLDER OF THE {model.architecture} IT WAS TRAINED ON"


def _load(repo: str, form: Format, head: str) -> str:
    if form == "adapter":
        auto = f"AutoPeftModelFor{head}"
        imports = f"from peft import {auto}\nfrom transformers import AutoTokenizer"
    else:
        auto = f"AutoModelFor{head}"
        imports = f"from transformers import {auto}, AutoTokenizer"
    return (
        f"{imports}\n\n"
        f'model = {auto}.from_pretrained("{repo}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
    )


def _load_classifier(repo: str, validated: Validated, prepared: Prepared) -> str:
    """Return code that gives the base model as many labels as the adapter was trained with."""
    model = validated.model
    revision = f', revision="{model.revision}"' if model.revision else ""
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"labels = {prepared.labels!r}\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        f'base = AutoModelForSequenceClassification.from_pretrained("{_base_name(validated)}"'
        f"{revision}, num_labels=len(labels), pad_token_id=tokenizer.pad_token_id)\n"
        f'model = PeftModel.from_pretrained(base, "{repo}").eval()\n'
    )
