"""What templates leave out, and the forms of other tools and years."""

import json

from tests.e2e.validate.situations.base import (
    CHAT,
    ROWS,
    TOOL,
    Situation,
    gpt,
    lines,
    user,
)

FUNCTION = {"name": "weather", "parameters": {"type": "object"}}
CHOICE = {"prompt": "q @", "chosen": [user(), gpt()], "rejected": [user(), gpt("b")]}
FORMS = [
    Situation(
        "thoughts that the template names in a comment alone",
        {"messages": [user(), gpt(reasoning_content="I think that @ is right")]},
        chat="{# reasoning_content, tools #}" + CHAT,
        code="unused_columns",
        words="reasoning_content",
    ),
    Situation(
        "a key that is read beside tools alone",
        {"messages": [user() | {"name": "Ann"}, gpt()]},
        chat=CHAT.replace("TOOLS", "FOR {{ messages[0].name }} TOOLS"),
        told="not used: key of messages name",
    ),
    Situation(
        "tools for which the model has a template",
        {"messages": [user(), gpt()], "tools": [TOOL]},
        chat={"default": CHAT.replace("TOOLS", "NONE"), "tool_use": CHAT},
        used=("TOOLS",),
    ),
    *(
        Situation(
            f"formatted already: {name}",
            {"prompt": prompt, "completion": answer},
            code="formatted_text",
            words="--set data.format=plain",
        )
        for name, prompt, answer in (
            ("ChatML", "<|im_start|>user\nq @<|im_end|>\n<|im_start|>assistant\n", "a @"),
            ("Llama 2", "[INST] q @ [/INST]", "a @"),
            ("Alpaca", "Below is a task.\n\n### Instruction:\nq @\n\n### Response:\n", "a @"),
            ("Gemma", "<start_of_turn>user\nq @<end_of_turn>\n", "a @"),
            ("Vicuna", "A chat. USER: q @ ASSISTANT:", "a @"),
            ("an end of text", "q @", "a @</s>"),
        )
    ),
    Situation(
        "messages that are formatted already",
        {"messages": [user("<|start_header_id|>user<|end_header_id|>\n\nq @<|eot_id|>"), gpt()]},
        code="formatted_text",
        words="20 of 20 rows",
    ),
    Situation(
        "formatted already, trained as it is",
        {
            "prompt": "<|im_start|>user\nq @<|im_end|>\n<|im_start|>assistant\n",
            "completion": "a @<|im_end|></s>",
        },
        spec={"data": {"format": "plain"}},
        used=("<|im_start|>assistant\na 3<|im_end|></s>",),
        unseen=("</s></s>", "assistant\n\n"),
    ),
    Situation(
        "a few rows about formats",
        [
            {"prompt": f"q {n}" if n % 10 else f"what is [INST] {n}", "completion": f"a {n}"}
            for n in range(ROWS)
        ],
        told="4 of 40 rows hold marks of a chat format",
        trained=("a 3",),
    ),
    Situation(
        "weights of rows",
        [
            {
                "messages": [user(f"q {n}"), gpt(f"{'no' if n == 7 else 'a'} {n}")],
                "weight": +(n != 7),
            }
            for n in range(ROWS)
        ],
        trained=("a 3",),
        unseen=("no 7",),
        told="bad_answer",
    ),
    Situation(
        "answers marked as wrong",
        [{"problem": f"q {n}", "solution": f"a {n}", "is_correct": n % 2 > 0} for n in range(ROWS)],
        code="dropped_rows",
        words="is_correct",
    ),
    Situation(
        "verdicts in a CSV",
        files={
            "rows.csv": lines(
                "question,answer,correct",
                *(f"q {n},{'no' if n % 20 == 7 else 'a'} {n},{n % 20 != 7}" for n in range(ROWS)),
            )
        },
        trained=("a 3",),
        unseen=("no 7",),
    ),
    Situation(
        "verdicts in words",
        [
            {"question": f"q {n}", "answer": f"a {n}", "is_correct": "no" if n == 7 else "yes"}
            for n in range(ROWS)
        ],
        trained=("a 3",),
        unseen=("a 7",),
    ),
    Situation(
        "scores beside a conversation",
        [{"messages": [user(f"q {n}"), gpt(f"a {n}")], "score": n % 5} for n in range(ROWS)],
        code="unused_columns",
        words="which answers are wrong",
    ),
    Situation(
        "scores of answers in a conversation",
        {"messages": [user(), gpt(score=1), user(), gpt(score=5)]},
        code="unused_columns",
        words='"weight": 0',
    ),
    Situation(
        "a verdict by another name, said",
        [{"question": f"q {n}", "answer": f"a {n}", "checked": n % 20 != 7} for n in range(ROWS)],
        spec={"data": {"columns": {"label": "checked"}}},
        unseen=("a 7",),
    ),
    Situation(
        "0 and 1 beside an answer, said",
        [
            {"prompt": f"q {n}", "completion": f"a {n}", "label": +(n % 20 != 7)}
            for n in range(ROWS)
        ],
        spec={"task": "sft", "data": {"columns": {"label": "label"}}},
        unseen=("a 7",),
    ),
    Situation(
        "a verdict that is none",
        [{"question": f"q {n}", "answer": f"a {n}", "stars": n % 5} for n in range(ROWS)],
        spec={"task": "sft", "data": {"columns": {"label": "stars"}}},
        code="wrong_column",
        words="--set data.columns.label=null",
    ),
    Situation(
        "a tree of messages by rows",
        [
            {
                "message_id": f"m{n}",
                "parent_id": f"m{n - 1}" if n % 2 else None,
                "text": f"t {n}",
                "role": "assistant" if n % 2 else "prompter",
            }
            for n in range(ROWS)
        ],
        code="single_messages",
        words="one row for each conversation",
    ),
    Situation(
        "trees of messages",
        {"tree": {"role": "prompter", "text": "q @", "replies": [{"text": "a @", "replies": []}]}},
        code="single_messages",
        words="column tree holds trees",
    ),
    Situation(
        "function_call and functions",
        {
            "messages": [
                user(),
                gpt(None, function_call={"name": "weather", "arguments": '{"at": "@"}'}),
                {"role": "function", "name": "weather", "content": "sun @"},
                gpt(),
            ],
            "functions": [FUNCTION],
        },
        used=('TOOLS [{"type": "function"', "sun 3"),
        trained=('CALL weather {"at": "3"}', "a 3"),
    ),
    Situation(
        "query, tools and answers",
        {
            "query": "q @",
            "tools": json.dumps([FUNCTION]),
            "answers": json.dumps([{"name": "weather", "arguments": {"at": "@"}}]),
        },
        used=("TOOLS",),
        trained=('CALL weather {"at": "3"}',),
        unlearned=("q 3",),
    ),
    Situation(
        "speakers",
        {"conversation": [{"speaker": "user", "text": "q @"}, {"speaker": "bot", "text": "a @"}]},
        trained=("a 3",),
    ),
    Situation(
        "turns of input and output",
        {"conversation": [{"system": "s @", "input": "q @", "output": "a @"}]},
        used=("s 3", "q 3"),
        trained=("a 3",),
        unlearned=("q 3",),
    ),
    Situation(
        "history of objects",
        {"instruction": "q @", "output": "a @", "history": [{"user": "old @", "assistant": "b @"}]},
        used=("old 3",),
        trained=("b 3", "a 3"),
    ),
    Situation(
        "a conversation as an object of lists",
        {"conversations": {"from": ["human", "gpt"], "value": ["q @", "a @"]}},
        trained=("a 3",),
        unlearned=("q 3",),
    ),
    Situation(
        "several answers in a list",
        {"question": "q @", "answer": ["a @", "b @"]},
        code="empty_dataset",
        words="answer: write one text into the column, or one row for each",
    ),
    Situation(
        "two answers in a row",
        {"messages": [user(), gpt("a @"), gpt("b @")]},
        code="empty_dataset",
        words="join the two answers",
    ),
    Situation(
        "the user has the last word",
        {"messages": [user(), gpt(), user("bye @")]},
        told="write an answer behind them",
        unseen=("bye",),
    ),
    Situation(
        "tools by name",
        {"messages": [user(), gpt()], "tools": ["weather"]},
        code="empty_dataset",
        words='{"type": "function"',
    ),
    Situation(
        "one tool without a list",
        {"messages": [user(), gpt()], "tools": FUNCTION},
        used=('TOOLS [{"type": "function"',),
    ),
    Situation(
        "pairs of conversations",
        CHOICE,
        code="task_unsupported",
        words="--set task=sft --set data.columns.messages=chosen",
    ),
    Situation(
        "the better of two conversations",
        CHOICE,
        spec={
            "task": "sft",
            "data": {"columns": {"messages": "chosen"}, "allow": "unused_columns"},
        },
        trained=("a 3",),
        unseen=("b",),
    ),
]
