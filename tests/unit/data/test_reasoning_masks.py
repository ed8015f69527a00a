"""The masks of well-known chat templates: what is trained of thoughts and calls of tools."""

import random
from typing import Any

import pytest
from tests.support.chat_templates import STYLES, tokenizer_of
from tests.support.data_jobs import make_spec
from transformers.utils.chat_template_utils import render_jinja_template

from ftq_shared.spec import Task
from ftq_worker.data.cleaning import RowProblem
from ftq_worker.data.examples import Example
from ftq_worker.data.records import IGNORED
from ftq_worker.data.render import ChatRenderer
from ftq_worker.data.token_checks import check_eos
from ftq_worker.data.tokenizing import make_encoder

R1_OPENING = STYLES["r1"].tokens[1] + "<think>\n"
WORDS = ["the", "river", "Öre", "3 km", "isn't", "it?", "日本", "🙂", "a\nnew", "line,"]


def talk(seed: int, turns: int, thought: str = "") -> list[dict[str, str]]:
    """Return a random conversation; every answer begins with `thought`."""
    pick = random.Random(seed)

    def text() -> str:
        return " ".join(pick.choices(WORDS, k=pick.randrange(1, 9))).strip()

    found = []
    for _ in range(turns):
        found += [
            {"role": "user", "content": text()},
            {"role": "assistant", "content": thought + text()},
        ]
    return found


def trained(name: str, messages: list[dict[str, str]]) -> list[str]:
    """Return each run of trained tokens, as text."""
    tokenizer = tokenizer_of(STYLES[name])
    encoder = make_encoder(tokenizer, Task.SFT, "chat", make_spec())
    check_eos(tokenizer, encoder, [Example(messages)])
    (record,) = encoder.records([Example(messages)], [-1])
    runs: list[list[int]] = [[]]
    for label in record["labels"]:
        if label == IGNORED:
            runs.append([])
        else:
            runs[-1].append(label)
    return [tokenizer.decode(run) for run in runs if run]


def trl_trained(name: str, messages: list[dict[str, str]]) -> list[str]:
    """Return what TRL's training template of the model marks, without white space at the end."""
    tokenizer = tokenizer_of(STYLES[name])
    (text,), (marks,) = render_jinja_template(
        conversations=[messages],
        chat_template=STYLES[name].marked,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    return [text[start:end].rstrip() for start, end in marks]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["smollm2", "qwen2_5", "llama3", "gemma", "mistral", "phi3"])
def test_every_answer_with_its_end_and_nothing_else(name: str, seed: int) -> None:
    messages = talk(seed, turns=3)
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    found = trained(name, messages)
    assert [text.strip() for text in found] == [a + STYLES[name].end for a in answers]


@pytest.mark.parametrize("name", ["qwen3", "r1"])
def test_thoughts_of_the_last_answer_are_those_of_trl(name: str) -> None:
    """TRL also trains R1's opening of the answer, which the prompt of a chat writes itself."""
    messages = talk(1, turns=1, thought="<think>\nLet me see.\n</think>\n\n")
    (theirs,) = trl_trained(name, messages)
    assert trained(name, messages) == [theirs.removeprefix(R1_OPENING)]


def test_qwen3_trains_the_last_answer_as_it_would_be_asked_for() -> None:
    """TRL keeps the thoughts of every turn; Qwen's own template drops them when it is used."""
    messages = talk(2, turns=3, thought="<think>\nHm.\n</think>\n\n")
    assert trained("qwen3", messages) == trl_trained("qwen3", messages)[-1:]
    rendered = ChatRenderer(tokenizer_of(STYLES["qwen3"]), None)(Example(messages))
    assert rendered.text.count("Hm.") == 1
    assert rendered.untrained_answers == 2


def test_r1_without_thoughts_trains_behind_the_assistant_token() -> None:
    messages = talk(3, turns=2)
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    assert trained("r1", messages) == [answer + STYLES["r1"].end for answer in answers]


def test_r1_drops_thoughts_of_the_history_and_keeps_the_last() -> None:
    messages = talk(4, turns=2, thought="<think>\nHm.\n</think>\n\n")
    first, second = trained("r1", messages)
    assert "Hm." not in first
    assert second.startswith("Hm.\n</think>\n\n")
    text = ChatRenderer(tokenizer_of(STYLES["r1"]), None)(Example(messages)).text
    assert text.count("<think>") == 1


def test_thoughts_in_a_field_of_their_own() -> None:
    messages = talk(5, turns=1)
    messages[-1]["reasoning_content"] = "Hm."
    (found,) = trained("r1", messages)
    assert found.startswith("Hm.\n</think>\n\n")


def test_an_answer_that_begins_like_the_prompt_shares_no_half_token() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<thing>"}]
    assert trained("r1", messages) == ["<thing>" + STYLES["r1"].end]


@pytest.mark.parametrize("answer", ["Yes.", "end", "<think", "It is Yes. then."])
def test_a_thought_that_stands_in_the_answer_as_well_is_trained(answer: str) -> None:
    """It was taken for one that the template had written, and left out."""
    messages = [{"role": "user", "content": "Is it?"}]
    messages.append({"role": "assistant", "content": f"<think>\nYes.\n</think>\n\n{answer}"})
    assert trained("r1", messages) == [f"Yes.\n</think>\n\n{answer}{STYLES['r1'].end}"]


def test_thoughts_are_trained_as_the_row_has_them() -> None:
    said = "<think>\n  Hm.\n\n</think>\n  Yes. "
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": said}]
    assert trained("r1", messages) == [said.removeprefix("<think>\n") + STYLES["r1"].end]


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}


def calling(content: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "And in Ulm?"},
        {"role": "assistant", "content": content, "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "Rain."},
        {"role": "assistant", "content": "It rains."},
    ]


def test_calls_that_a_template_writes_without_content_alone() -> None:
    """DeepSeek's: with a content, be it empty, the calls were left out."""
    first, second = trained("r1", calling(""))
    assert first.count('weather\n```json\n{"city": "Ulm"}') == 2
    assert second == "It rains." + STYLES["r1"].end


def test_calls_that_a_template_leaves_out_are_counted() -> None:
    rendered = ChatRenderer(tokenizer_of(STYLES["r1"]), None)(Example(calling("I look.")))
    assert rendered.lost_calls == 1
    assert "weather" not in rendered.text


def test_an_answer_of_calls_that_are_not_written_is_none() -> None:
    renderer = ChatRenderer(tokenizer_of(STYLES["llama3"]), None)
    with pytest.raises(RowProblem, match="does not write the calls"):
        renderer(Example(calling("")))
