"""What is trained: decode the labels of every format and look."""

from typing import Any

import pytest
from tests.support.data_jobs import CHAT_TEMPLATE, make_spec, make_tokenizer
from transformers import PreTrainedTokenizerFast

from ftq_shared.errors import Refused
from ftq_shared.spec import Task
from ftq_worker.data.cleaning import RowProblem, Rule
from ftq_worker.data.examples import Example
from ftq_worker.data.records import IGNORED, Encoder
from ftq_worker.data.token_checks import check_eos
from ftq_worker.data.tokenizing import (
    choose_format,
    leading_tokens,
    make_encoder,
)

MARKED = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n{% else %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Qwen 3 does: thoughts stand in the last turn only.
FORGETFUL = CHAT_TEMPLATE.replace(
    "{{ m['content'] }}",
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}{{ m['content'] }}",
)
CHAT = [
    {"role": "user", "content": "How many?"},
    {"role": "assistant", "content": "Three apples."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Four."},
]


def encoder_of(tokenizer: PreTrainedTokenizerFast, format_: str, **fields: Any) -> Encoder:
    return make_encoder(tokenizer, Task.SFT, format_, make_spec(**fields))


def parts(
    tokenizer: PreTrainedTokenizerFast, encoder: Encoder, example: Example
) -> tuple[str, list[str]]:
    """Return the whole text and each run of trained tokens, decoded."""
    (record,) = encoder.records([example], [-1])
    assert isinstance(record, dict)
    assert record["length"] == len(record["input_ids"]) == len(record["labels"])
    runs: list[list[int]] = [[]]
    for token, label in zip(record["input_ids"], record["labels"], strict=True):
        assert label in (token, IGNORED)
        if label == IGNORED:
            runs.append([])
        else:
            runs[-1].append(token)
    return tokenizer.decode(record["input_ids"]), [tokenizer.decode(run) for run in runs if run]


def test_plain_is_prompt_newline_completion_eos(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    example = Example([CHAT[0], CHAT[1]])
    text, trained = parts(plain_tokenizer, encoder_of(plain_tokenizer, "plain"), example)
    assert text == "<s>How many?\nThree apples.</s>"
    assert trained == ["Three apples.</s>"]


def test_plain_conversations_train_every_answer(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    system = {"role": "system", "content": "Be brief."}
    text, trained = parts(
        plain_tokenizer, encoder_of(plain_tokenizer, "plain"), Example([system, *CHAT])
    )
    assert text == "<s>Be brief.\nHow many?\nThree apples.</s>And now?\nFour.</s>"
    assert trained == ["Three apples.</s>", "Four.</s>"]


def test_plain_text_is_trained_whole_but_for_bos(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = make_encoder(plain_tokenizer, Task.TEXT, "plain", make_spec())
    text, trained = parts(plain_tokenizer, encoder, Example(text="apples left"))
    assert text == "<s>apples left</s>"
    assert trained == ["apples left</s>"]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, MARKED], ids=["prefixes", "generation"])
def test_chat_trains_every_answer_with_its_end_of_turn(template: str) -> None:
    tokenizer = make_tokenizer(chat=template)
    text, trained = parts(tokenizer, encoder_of(tokenizer, "chat"), Example(CHAT))
    assert text.startswith("<s><|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\nThree")
    assert trained == ["Three apples.<|im_end|>", "Four.<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns_trains_the_last() -> None:
    tokenizer = make_tokenizer(chat=FORGETFUL)
    text, trained = parts(tokenizer, encoder_of(tokenizer, "chat"), Example(CHAT))
    assert "Three apples." in text
    assert trained == ["<think></think>Four.<|im_end|>"]


def test_the_template_of_the_spec_replaces_the_model_s() -> None:
    tokenizer = make_tokenizer(chat="{{ 'unused' }}")
    encoder = encoder_of(tokenizer, "chat", data={"chat_template": MARKED})
    assert parts(tokenizer, encoder, Example(CHAT))[1][-1] == "Four.<|im_end|>"


def test_a_row_that_the_template_refuses_is_a_problem_of_that_row() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    tokenizer = make_tokenizer(chat=template)
    (problem,) = encoder_of(tokenizer, "chat").records([Example(CHAT)], [-1])
    assert isinstance(problem, RowProblem)
    assert problem.rule is Rule.UNTRAINABLE
    assert "roles must alternate" in problem.what


def test_a_date_in_the_template_is_the_day_of_the_submit() -> None:
    template = "{{ date_string or strftime_now('%d %b %Y') }}\n" + CHAT_TEMPLATE
    tokenizer = make_tokenizer(chat=template)
    encoder = make_encoder(tokenizer, Task.SFT, "chat", make_spec(), "02 Jan 2026")
    assert parts(tokenizer, encoder, Example(CHAT))[0].startswith("02 Jan 2026\n")


def test_a_token_over_the_border_is_not_trained() -> None:
    tokenizer = make_tokenizer(["a\n\n\nb"] * 50)  # two newlines are one token
    text, trained = parts(
        tokenizer,
        encoder_of(tokenizer, "plain"),
        Example([{"role": "user", "content": "a"}, {"role": "assistant", "content": "\n\nb"}]),
    )
    assert text == "<s>a\n\n\nb</s>"
    assert trained == ["\nb</s>"]


def test_a_row_without_a_trained_token_is_told_in_its_place() -> None:
    tokenizer = make_tokenizer(eos=False)
    nothing = Example([CHAT[0], {"role": "assistant", "content": ""}])
    encoder = encoder_of(tokenizer, "plain")
    first, second, third = encoder.records([Example(CHAT), nothing, Example(CHAT[:2])], [-1] * 3)
    assert isinstance(second, RowProblem)
    assert second.rule is Rule.UNTRAINABLE
    assert isinstance(first, dict)
    assert isinstance(third, dict)
    assert tokenizer.decode(third["input_ids"]) == "<s>How many?\nThree apples."


def test_the_first_token_is_not_written_twice() -> None:
    tokenizer = make_tokenizer()
    asked = [{"role": "user", "content": "<s>How many?"}, CHAT[1]]
    for example in (Example(asked), Example(CHAT[:2])):
        whole, trained = parts(tokenizer, encoder_of(tokenizer, "plain"), example)
        assert whole == "<s>How many?\nThree apples.</s>"
        assert trained == ["Three apples.</s>"]


def test_no_end_of_turn_in_the_trained_part_is_refused() -> None:
    silent = make_tokenizer(eos=False)
    with pytest.raises(Refused) as caught:
        check_eos(silent, encoder_of(silent, "plain"), [Example(CHAT)])
    assert caught.value.code == "no_eos"

    outside = MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
    tokenizer = make_tokenizer(chat=outside)
    with pytest.raises(Refused) as caught:
        check_eos(tokenizer, encoder_of(tokenizer, "chat"), [Example(CHAT)])
    assert "data.format=plain" in caught.value.hint

    good = make_tokenizer(chat=MARKED)
    check_eos(good, encoder_of(good, "chat"), [Example(CHAT)])


def test_nothing_is_added_to_the_vocabulary_for_padding(
    plain_tokenizer: PreTrainedTokenizerFast,
) -> None:
    before = len(plain_tokenizer)
    encoder_of(plain_tokenizer, "plain").records([Example(CHAT)], [-1])
    assert plain_tokenizer.pad_token is None
    assert len(plain_tokenizer) == before


def test_leading_tokens_are_what_the_tokenizer_adds(
    plain_tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert plain_tokenizer.convert_ids_to_tokens(leading_tokens(plain_tokenizer)) == ["<s>"]
    assert leading_tokens(make_tokenizer(bos=False)) == []


def test_classification_keeps_the_whole_text_and_its_label() -> None:
    tokenizer = make_tokenizer()
    encoder = make_encoder(tokenizer, Task.CLASSIFICATION, "plain", make_spec())
    (record,) = encoder.records([Example(text="apples left", label="x")], [4])
    assert record == {
        "input_ids": tokenizer("apples left")["input_ids"],
        "label": 4,
        "length": len(tokenizer("apples left")["input_ids"]),
    }


def test_preference_rows_are_rendered_as_text(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    example = Example([CHAT[0]], chosen="Three.", rejected="No idea.")
    plain = make_encoder(chat_tokenizer, Task.PREFERENCE, "plain", make_spec())
    chat = make_encoder(chat_tokenizer, Task.PREFERENCE, "chat", make_spec())
    (record,) = plain.records([example], [-1])
    assert isinstance(record, dict)
    assert (record["prompt"], record["chosen"]) == ("How many?\n", "Three.")
    (record,) = chat.records([example], [-1])
    assert isinstance(record, dict)
    assert record["prompt"].endswith("How many?<|im_end|>\n<|im_start|>assistant\n")
    assert (record["chosen"], record["rejected"]) == ("Three.<|im_end|>", "No idea.<|im_end|>")
    assert record["length"] > 0


def test_the_format_follows_the_template() -> None:
    plain, chat = make_tokenizer(), make_tokenizer(chat=CHAT_TEMPLATE)
    assert choose_format("auto", plain, None)[0] == "plain"
    assert choose_format("auto", plain, CHAT_TEMPLATE)[0] == "chat"
    assert choose_format("auto", chat, None)[0] == "chat"
    assert choose_format("plain", chat, None)[0] == "plain"
    with pytest.raises(Refused, match="no chat template"):
        choose_format("chat", plain, None)


WITH_TOOLS = "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}" + CHAT_TEMPLATE.replace(
    "{{ m['content'] }}",
    "{{ m['content'] }}{% for c in m['tool_calls'] or [] %}CALL {{ c['function']['name'] }}"
    " {{ ARGUMENTS }}{% endfor %}",
)
CALLING = Example(
    [
        {"role": "user", "content": "1 + 2?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "Three."},
    ],
    [{"name": "add"}],
)


@pytest.mark.parametrize(
    "arguments",
    ["c['function']['arguments'] | tojson", "'' + c['function']['arguments']"],  # object, and text
)
def test_tools_and_calls_are_what_the_template_is_given(arguments: str) -> None:
    tokenizer = make_tokenizer(chat=WITH_TOOLS.replace("ARGUMENTS", arguments))
    whole, trained = parts(tokenizer, encoder_of(tokenizer, "chat"), CALLING)
    assert 'TOOLS [{"name": "add"}]' in whole
    assert trained == ['CALL add {"a": 1}<|im_end|>', "Three.<|im_end|>"]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, MARKED])
def test_an_answer_that_is_not_to_be_learned_is_read_alone(template: str) -> None:
    tokenizer = make_tokenizer(chat=template)
    first = CHAT[1] | {"learned": False}
    example = Example([CHAT[0], first, *CHAT[2:]])
    whole, trained = parts(tokenizer, encoder_of(tokenizer, "chat"), example)
    assert "Three apples." in whole
    assert trained == ["Four.<|im_end|>"]
    assert parts(tokenizer, encoder_of(tokenizer, "plain"), example)[1] == ["Four.</s>"]


def test_two_texts_are_tokens_of_one_row() -> None:
    tokenizer = make_tokenizer()
    encoder = make_encoder(tokenizer, Task.CLASSIFICATION, "plain", make_spec())
    (record,) = encoder.records([Example(text="How many?", text_pair="Three.")], [1])
    assert isinstance(record, dict)
    decoded = tokenizer.decode(record["input_ids"])
    assert "How many?" in decoded
    assert "Three." in decoded
    shown = encoder.show(Example(text="How many?", text_pair="Three.", label="a"))
    assert shown["text"] == "How many?\nThree."
