"""Rows that look like conversations, choices or text, and mean something else."""

import json

from tests.e2e.validate.situations.base import (
    CHAT,
    LONG,
    ROWS,
    Situation,
    gpt,
    user,
)

THINKS = CHAT.replace(
    "{{ m['content'] }}",
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m['content'] }}",
)
THOUGHT = "First I look at what is asked in @, and then at what may be meant"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
CHOICES = [
    {"question": f"q {n}", "A": "red", "B": "blue", "C": "old", "answer": "ABC"[n % 3]}
    for n in range(ROWS)
]
ODD_ROWS = [
    Situation(
        "conversations without objects",
        files={"rows.json": json.dumps([[user(f"q {n}"), gpt()] for n in range(ROWS)])},
        code="bad_row",
        words='{"messages": [...]}',
    ),
    Situation(
        "an answer beside its messages",
        {"messages": [user()], "reasoning": THOUGHT, "answer": "a @"},
        code="empty_dataset",
        words="--set data.columns.prompt=messages --set data.columns.completion=answer",
    ),
    Situation(
        "an answer and thoughts beside messages, said",
        {"messages": [user()], "reasoning": THOUGHT, "answer": "a @"},
        spec={"data": {"columns": {"prompt": "messages", "completion": "answer"}}},
        chat=THINKS,
        trained=("asked in 3, and then at what may be meant</think>a 3",),
        unlearned=("q 3",),
    ),
    Situation(
        "thoughts for a template that writes none",
        {"Question": "q @", "Complex_CoT": THOUGHT, "Response": "a @"},
        code="unused_columns",
        words="reasoning_content",
    ),
    Situation(
        "an answer that is an object",
        {"instruction": "q @", "output": {"name": "n @"}},
        code="empty_dataset",
        words="json.dumps",
    ),
    Situation(
        "roles as people write them",
        {"messages": [{"role": "User: ", "content": "q @"}, {"role": "AI", "content": "a @"}]},
        trained=("a 3",),
        unlearned=("q 3",),
    ),
    Situation(
        "names of columns with blanks", {" Prompt": "q @", "completion ": "a @"}, trained=("a 3",)
    ),
    Situation(
        "a chat as one text",
        {"text": "### Human: q @### Assistant: a @"},
        told="40 of 40 texts hold turns of a chat",
        used=("a 3",),
    ),
    Situation(
        "a word for nothing",
        {"instruction": "q @", "input": "nan", "output": "a @"},
        told="column input holds the word 'nan' in 40 rows",
    ),
    Situation(
        "letters that were read wrong",
        {"question": "\u00c3\u00bcber @", "answer": "a @"},
        told="40 of 40 rows hold letters",
    ),
    Situation(
        "answers that repeat the question",
        {"prompt": "what is the name of @", "completion": "what is the name of @ is a @"},
        told="40 of 40 answers begin with their whole question",
    ),
    Situation(
        "one answer for all",
        {"question": "q @", "answer": "yes"},
        told="all 40 answers are the same",
    ),
    Situation(
        "the number of a choice in a list",
        [
            {"question": f"q {n}", "choices": ["red", "blue", "old"], "answer": n % 3}
            for n in range(ROWS)
        ],
        code="unused_columns",
        words="names one of the choices in choices",
    ),
    Situation(
        "the letter of a choice in a column",
        CHOICES,
        code="unused_columns",
        words="data.row_template={question} A: {A} B: {B} C: {C}",
    ),
    Situation(
        "choices that are shown",
        CHOICES,
        spec={"data": {"row_template": "{question} A: {A} B: {B} C: {C}"}},
        used=("q 3 A: red B: blue C: old",),
    ),
    *(
        Situation(f"nested: {next(iter(row))}", row, code="unknown_shape", words=words)
        for row, words in (
            ({"translation": {"en": "q @", "fr": "a @"}}, "objects with en, fr"),
            ({"input_ids": [1, 2], "labels": [1, 2]}, "input_ids holds lists of numbers"),
            ({"tokens": ["a", "b"], "ner_tags": [0, 1]}, "tokens holds lists of texts"),
            (
                {"question": "q @", "answers": {"text": ["a @"], "answer_start": [0]}},
                "objects with text, answer_start",
            ),
        )
    ),
    Situation(
        "a chat in one column that nobody knows",
        {"log": "User: q @"},
        code="unknown_shape",
        words="--set data.columns.text=log",
    ),
    Situation(
        "a system message for a template that takes none",
        {"messages": [{"role": "system", "content": "s"}, user(), gpt()]},
        chat=NO_SYSTEM + CHAT,
        code="untrainable",
        words="into the first message of the user",
    ),
    Situation(
        "reasoning that is a switch",
        {"input": [user()], "output": "a @", "reasoning": "on"},
        chat=THINKS,
        trained=("a 3",),
        unseen=("<think>",),
        told="not used: reasoning",
    ),
    Situation(
        "the history of a patient",
        {
            "question": "q @",
            "answer": "a @",
            "history": "The patient had a cold last year, number @",
        },
        code="unused_columns",
        words="--set data.columns.context=history",
    ),
    Situation(
        "a context beside a conversation",
        {"messages": [user(), gpt()], "context": LONG},
        code="unused_columns",
        words="--set data.columns.system=context",
    ),
    Situation(
        "texts with a score",
        [{"text": f"some words {n}", "score": n / 8, "url": "u"} for n in range(ROWS)],
        code="regression",
        words="--set task=text",
    ),
    Situation(
        "messages inside an object",
        {"conversation": {"messages": [user(), gpt()]}},
        trained=("a 3",),
    ),
]
