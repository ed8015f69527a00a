"""Make a tiny base model and a small, deliberately dirty dataset, and put them on a Hub folder.

    python -m ftq_worker.demo.assets HUB_DIR

It prints what it has made as one JSON object.

The base model is a Llama of half a million random weights with a tokenizer trained on the texts.
The dataset asks for the colour of 30 things in 18 wordings, so that a model that has learnt the
things answers a wording that it has not seen. Measured: 177 steps at a learning rate of 1e-3
answer every golden row, and the wordings of ASK for all 30 things, with each of five seeds;
64 wide instead of 128 learns slower.
"""

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Row = dict[str, str | None]  # question, answer; a column is null in some broken rows

MODEL = "demo/tiny-llama"
DATASET = "demo/colours"
USER, TOKEN = "demo", "hf_demoDemoDemoDemoDemoDemo"

COLOURS = {
    "yellow": ["a banana", "a lemon", "a canary", "a sunflower", "mustard"],
    "red": ["a cherry", "a strawberry", "a fire engine", "a tomato", "a ruby"],
    "green": ["a lime", "a frog", "an emerald", "a cucumber", "grass"],
    "white": ["snow", "milk", "salt", "chalk", "a swan"],
    "black": ["coal", "a raven", "tar", "ink", "liquorice"],
    "blue": ["the sky", "a sapphire", "a cornflower", "the ocean", "denim"],
}
# A thing always follows a space, so that it is the same tokens everywhere.
WORDINGS = (
    "What colour is {}?",
    "Which colour does {} have?",
    "Tell me the colour of {}.",
    "Look at {}. Which colour is it?",
    "If I paint {}, which colour do I need?",
    "Name the colour of {}.",
    "I have never seen {}. What is its colour?",
    "In a picture of {}, which colour do I see?",
    "The colour of {}?",
    "What is the typical colour of {}?",
    "My child asks: what colour is {}?",
    "I want to draw {}. Which pencil do I need?",
    "Describe {} in one word: its colour.",
    "Of which colour is {}, most of the time?",
    "One word, please: the colour of {}?",
    "Do you know the colour of {}?",
    "Which colour is {}, do you think?",
    "Is there a colour that {} has?",
)
# Asked of the published model: no row has these wordings.
ASK = {
    "Do you know which colour a lemon has?": "yellow",
    "What colour do I see in a picture of the sky?": "blue",
    "I need to paint a fire engine. Which colour is it?": "red",
}


def make_rows(seed: int = 7) -> list[Row]:
    """Return the dataset's rows: `question` and `answer`, some of them broken on purpose."""
    rows: list[Row] = [
        {"question": wording.format(thing), "answer": colour}
        for colour, things in COLOURS.items()
        for thing in things
        for wording in WORDINGS
    ]
    dice = random.Random(seed)  # noqa: S311  no secret hangs on it
    dirt = [dict(dice.choice(rows)) for _ in range(24)]  # exact doubles
    dirt += [{"question": dice.choice(rows)["question"], "answer": ""} for _ in range(7)]
    dirt += [{"question": None, "answer": "red"} for _ in range(5)]
    dirt += [{"question": "Repeat after me: " + "very " * 3000 + "long", "answer": "no"}]
    rows += dirt
    dice.shuffle(rows)
    return rows


def make_tokenizer(texts: list[str], vocab_size: int = 600) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE tokenizer, a token for each word of the texts; no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106  a token of text, not a secret
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        model_max_length=512,
    )


def make_model(
    vocab_size: int, seed: int = 7, hidden_size: int = 128, layers: int = 2
) -> "LlamaForCausalLM":
    """Return a Llama with random weights: 4 heads, 512 positions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 3,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def save_base(
    folder: Path,
    texts: list[str],
    hidden_size: int = 128,
    vocab_size: int = 600,
    layers: int = 2,
) -> None:
    """Write a base model with its tokenizer and card to `folder`."""
    tokenizer = make_tokenizer(texts, vocab_size)
    tokenizer.save_pretrained(folder)
    make_model(len(tokenizer), hidden_size=hidden_size, layers=layers).save_pretrained(folder)
    card = "---\nlicense: apache-2.0\n---\n# A tiny random Llama\nIt knows nothing yet.\n"
    (folder / "README.md").write_text(card)


def save_rows(folder: Path, rows: list[Row]) -> None:
    """Write rows as the one split of a dataset repo."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Colours of things\n")


def put_on_hub(hub_dir: Path) -> None:
    """Make the demo's two repos, and its user with a write token, in a local Hub's folder."""
    from ftq_hub import HubStore

    hub = HubStore(hub_dir)
    hub.add_token(TOKEN, USER, role="write")
    rows = make_rows()
    texts = [f"{row['question']}\n{row['answer']}" for row in rows if row["question"]]
    with tempfile.TemporaryDirectory() as scratch:
        save_base(Path(scratch) / "model", [text for text in texts if len(text) < 500])
        save_rows(Path(scratch) / "rows", rows)
        hub.create_repo("model", MODEL)
        hub.commit_folder(
            "model", MODEL, Path(scratch) / "model", "A base model that knows nothing"
        )
        hub.create_repo("dataset", DATASET)
        hub.commit_folder("dataset", DATASET, Path(scratch) / "rows", "Colours, with dirt")


if __name__ == "__main__":
    put_on_hub(Path(sys.argv[1]))
    made = {"model": MODEL, "dataset": DATASET, "user": USER, "token": TOKEN, "ask": ASK}
    print(json.dumps(made))  # noqa: T201  what `ftq demo` goes on with
