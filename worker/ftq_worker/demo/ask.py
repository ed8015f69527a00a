"""Load a published model from a Hub, as anybody would, and ask it a question.

    HF_ENDPOINT=... HF_TOKEN=... python -m ftq_worker.demo.ask REPO QUESTION

It prints the answer and exits 0. Nothing of ftq is used but the model it has made.
"""

import sys


def answer(repo: str, question: str) -> str:
    """Return the model's answer to a prompt in ftq's plain format (prompt, newline, completion)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(repo)
    model = AutoModelForCausalLM.from_pretrained(repo)
    inputs = tokenizer(question + "\n", return_tensors="pt", return_token_type_ids=False)
    output = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    return str(
        tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    )


if __name__ == "__main__":
    print(answer(sys.argv[1], sys.argv[2]).strip())  # noqa: T201  the answer is the output
