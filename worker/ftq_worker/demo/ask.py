"""Load a published model from a Hub, as anybody would, and ask it questions.

    HF_ENDPOINT=... HF_TOKEN=... python -m ftq_worker.demo.ask REPO QUESTION...

It prints one answer a line, as JSON, and exits 0. Nothing of ftq is used but the model it has made.
"""

import json
import sys
from collections.abc import Iterator, Sequence


def answers(repo: str, questions: Sequence[str]) -> Iterator[str]:
    """Yield the model's answers to prompts in ftq's plain format (prompt, newline, completion)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(repo)
    model = AutoModelForCausalLM.from_pretrained(repo)
    for question in questions:
        inputs = tokenizer(question + "\n", return_tensors="pt", return_token_type_ids=False)
        output = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        tokens = output[0, inputs["input_ids"].shape[1] :]
        yield str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


if __name__ == "__main__":
    for answer in answers(sys.argv[1], sys.argv[2:]):
        print(json.dumps(answer), flush=True)  # noqa: T201  the answers are the output
