"""Does the saved model answer, and does it stop where the rows it was trained on stop?"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ftq_worker.training.base_model import pad_id
from ftq_worker.training.end_of_turn import IGNORED, eos_ids, trained_ends
from ftq_worker.training.scoring import device_of

PROMPTS = 4  # golden rows that are answered
PROMPTS_OF_LONG = 2  # where golden answers are so long that running on says nothing
LOOKED_AT = 200  # golden rows whose answers' lengths are known
MOST_TOKENS = 256  # of an answer; where golden answers are longer, running on says nothing
SLACK = 1.5  # an answer may be that much longer than the longest golden one
MORE = 16  # tokens on top of that
BUDGET_S = (10.0, 60.0)  # for all answers: a twentieth of the training's time, within these
SMOKE_TOKENS = 16


@dataclass(frozen=True)
class Asked:
    """The beginning of a golden row, and the answer that follows it."""

    prompt: list[int]
    answer: list[int]  # as it was trained, end of turn included


@dataclass(frozen=True)
class Answer:
    """What the model wrote."""

    tokens: list[int]
    stopped: bool  # at a stop of its own
    cut: bool  # at the limit of tokens; False where the time was over
    passed: bool  # an end of turn stands inside: it was written and did not stop the model


@dataclass(frozen=True)
class Verdict:
    """What the answers say of the model."""

    ok: bool
    message: str
    warning: str = ""


def check_answers(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    golden: Dataset | None,
    tick: Callable[[], object] = lambda: None,
    *,
    trained_s: float = math.inf,
) -> Verdict:
    """Let the model answer golden prompts with its own generation settings.

    A training of `trained_s` seconds is worth so many of answers; a large model on a CPU makes
    less than a token a second.

    Not ok when it does not stop at what its rows end with, or when most answers run on to a limit
    that golden answers stay well below. A model that was trained too little to predict the end of
    a golden answer is only warned about. `tick` is called before every answer.
    """
    ends = trained_ends(golden) if golden is not None else []
    stops = eos_ids(_generation_config(model))
    if ends and ends[0] not in stops:
        return Verdict(False, _missing(tokenizer, ends[0], stops))
    asked, limit = _questions(model, golden)
    start, answers = time.monotonic(), list[Answer]()
    budget_s = min(max(BUDGET_S[0], trained_s / 20), BUDGET_S[1])
    for one in asked:
        tick()
        left = budget_s - (time.monotonic() - start)
        if answers and left <= 0:
            break
        answers.append(_answer(model, tokenizer, one.prompt, limit, set(stops), set(ends), left))
        if 2 * sum(answer.cut for answer in answers) > len(asked):
            break  # whatever the others do
    words = _shown(tokenizer, answers, time.monotonic() - start)
    ran_on = [answer for answer in answers if answer.cut]
    counted = f"{len(ran_on)} of {len(answers)} answers ran on to {limit} tokens"
    if any(answer.passed for answer in answers):
        end = repr(tokenizer.decode(ends[:1]))
        return Verdict(False, f"it writes {end} and goes on: {counted}; {words}")
    if not ends or limit >= MOST_TOKENS or 2 * len(ran_on) <= len(answers):
        return Verdict(all(answer.tokens for answer in answers), words)
    longest = max(len(one.answer) for one in asked)
    if _predicts_ends(model, asked):
        why = f"{counted}, golden ones have up to {longest}: it does not stop; {words}"
        return Verdict(False, why)
    return Verdict(
        True, f"{counted}; {words}", f"{counted}: it has not learned to end its answers yet"
    )


def _generation_config(model: Any) -> Any:
    return model.generation_config


def _missing(tokenizer: PreTrainedTokenizerBase, end: int, stops: list[int]) -> str:
    known = ", ".join(repr(tokenizer.decode([token])) for token in stops) or "nothing"
    last = tokenizer.decode([end])
    return f"its rows end with {last!r}, but generation_config.json stops at {known}"


def _questions(model: Any, golden: Dataset | None) -> tuple[list[Asked], int]:
    """Return what to ask, and how many tokens an answer may have."""
    if golden is None:
        config = _generation_config(model)
        first = [*_ids(config.bos_token_id), *eos_ids(config), 0][:1]
        return [Asked(first, [])], SMOKE_TOKENS
    rows = [_asked(row) for row in golden.select(range(min(LOOKED_AT, len(golden))))]
    longest = max(len(row.answer) for row in rows)
    limit = min(MOST_TOKENS, int(SLACK * longest) + MORE)
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31
    fitting = [row for row in rows if len(row.prompt) + limit <= room]
    if fitting:
        return fitting[: PROMPTS if limit < MOST_TOKENS else PROMPTS_OF_LONG], limit
    shortest = min(rows, key=lambda row: len(row.prompt))
    # Too little room to see it run on: as at the limit of MOST_TOKENS, that is no fault then.
    return [shortest], max(1, min(SMOKE_TOKENS, room - len(shortest.prompt)))


def _ids(token: int | None) -> list[int]:
    return [] if token is None else [token]


def _asked(row: dict[str, list[int]]) -> Asked:
    """Split a row at its first trained part; a row that is trained from its start has one token."""
    ids, labels = row["input_ids"], row["labels"]
    start = next((i for i, label in enumerate(labels) if label != IGNORED), 1)
    end = next((i for i in range(start, len(ids)) if labels[i] == IGNORED), len(ids))
    return Asked(ids[: max(1, start)], ids[max(1, start) : end])


def _answer(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    limit: int,
    stops: set[int],
    ends: set[int],
    seconds: float,
) -> Answer:
    ids = torch.tensor([prompt], device=device_of(model))  # [1, prompt]
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            max_time=max(1.0, seconds),
            do_sample=False,
            pad_token_id=pad_id(tokenizer, model),
        )
    made = out[0, len(prompt) :].tolist()
    stopped = bool(made) and made[-1] in stops
    return Answer(made, stopped, not stopped and len(made) >= limit, bool(ends & set(made[:-1])))


def _predicts_ends(model: Any, asked: list[Asked]) -> bool:
    """Return whether the end of most golden answers is predicted behind the answer itself."""
    right = 0
    for one in asked:
        ids = torch.tensor([[*one.prompt, *one.answer]], device=device_of(model))
        with torch.no_grad():
            scores = model(input_ids=ids[:, :-1]).logits[0, -1]  # [vocabulary]
        right += int(scores.argmax()) == one.answer[-1]
    return 2 * right > len(asked)


def _shown(tokenizer: PreTrainedTokenizerBase, answers: list[Answer], seconds: float) -> str:
    tokens = sum(len(answer.tokens) for answer in answers)
    stopped = sum(answer.stopped for answer in answers)
    text = tokenizer.decode(answers[0].tokens)
    return f"{tokens} tokens in {seconds:.1f} s, {stopped} of {len(answers)} stop: {text[:200]!r}"
