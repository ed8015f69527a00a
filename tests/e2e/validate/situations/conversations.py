"""Questions, answers and conversations, with what stands beside them."""

import json

from tests.e2e.validate.situations.base import (
    CALL,
    CHAT,
    LEAVES_OUT,
    LONG,
    ROWS,
    TOOL,
    Situation,
    gpt,
    user,
)

CONVERSATIONS = [
    Situation(
        "tools beside messages",
        {"messages": [user(), gpt()], "tools": [TOOL]},
        used=("TOOLS", "weather"),
    ),
    Situation(
        "tools as JSON text",
        {"messages": [user(), gpt()], "tools": json.dumps([TOOL])},
        used=('TOOLS [{"type": "function"',),
    ),
    Situation(
        "arguments as JSON text",
        {
            "messages": [
                user(),
                gpt(None, tool_calls=CALL),
                {"role": "tool", "content": "sun @"},
                gpt(),
            ]
        },
        trained=("CALL weather {}", "a 7"),
    ),
    Situation(
        "control characters in a call",
        {
            "messages": [
                user(),
                gpt("", tool_calls=[{"function": {"name": "f", "arguments": {"x": "\x01@"}}}]),
            ]
        },
        used=('CALL f {"x": "3"}',),
    ),
    Situation(
        "weight 0",
        {"messages": [user(), gpt("WRONG @", weight=0), user(), gpt("right @")]},
        used=("WRONG 3",),
        trained=("right 3",),
        unlearned=("WRONG",),
    ),
    Situation(
        "train false",
        {"messages": [user(), gpt("WRONG @", train=False), user(), gpt()]},
        used=("WRONG 3",),
        unlearned=("WRONG",),
    ),
    Situation(
        "half a weight",
        {"messages": [user(), gpt(weight=0.5)]},
        code="empty_dataset",
        words="learned (1) or not (0)",
    ),
    Situation(
        "kto",
        [
            {"prompt": f"q {n}", "completion": "good" if n % 2 else "rude", "label": bool(n % 2)}
            for n in range(ROWS)
        ],
        code="dropped_rows",
        words="bad_answer",
    ),
    Situation(
        "kto, the good ones",
        [
            {
                "prompt": f"q {n}",
                "completion": f"{'good' if n % 2 else 'rude'} {n}",
                "label": bool(n % 2),
            }
            for n in range(ROWS * 2)
        ],
        spec={"data": {"allow": "dropped_rows"}},
        trained=("good",),
        unseen=("rude",),
    ),
    Situation(
        "preference pairs",
        {"prompt": "q @", "chosen": "a @", "rejected": "b @"},
        code="task_unsupported",
        words="preference",
    ),
    Situation(
        "preference beside a conversation",
        {
            "conversations": [{"from": "human", "value": "q @"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        code="task_unsupported",
        words="preference",
    ),
    Situation(
        "pictures",
        {"messages": [user("<image> q @"), gpt()], "images": ["1.jpg"]},
        code="not_text",
        words="images",
    ),
    Situation(
        "picture parts",
        {"messages": [user([{"type": "image_url"}]), gpt()]},  # type: ignore[arg-type]
        code="not_text",
        words="image_url",
    ),
    Situation(
        "text in parts",
        {"messages": [user([{"type": "text", "text": "part @"}]), gpt()]},  # type: ignore[arg-type]
        used=("part 3",),
    ),
    Situation("messages as text", {"messages": json.dumps([user(), gpt()])}, trained=("a 5",)),
    Situation(
        "messages as python",
        {"messages": "[{'role': 'user', 'content': 'q @'}]"},
        code="empty_dataset",
        words="json.dumps",
    ),
    Situation(
        "sharegpt calls",
        {
            "conversations": [
                {"from": "human", "value": "q @"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"at": "@"}}'},
                {"from": "observation", "value": "sun @"},
                {"from": "gpt", "value": "a @"},
            ]
        },
        used=("sun 3",),
        trained=("CALL weather", "a 3"),
    ),
    Situation(
        "the assistant begins",
        {"messages": [gpt("Hello @"), user(), gpt()]},
        trained=("Hello 3", "a 3"),
    ),
    Situation(
        "two messages of the user", {"messages": [user("doc @"), user(), gpt()]}, used=("doc 3",)
    ),
    Situation("nobody answers", {"messages": [user()]}, code="empty_dataset", words="assistant"),
    Situation(
        "system beside a conversation",
        {
            "system": "pirate @",
            "conversations": [{"from": "human", "value": "q @"}, {"from": "gpt", "value": "a @"}],
        },
        used=("pirate 3",),
        unlearned=("pirate",),
    ),
    Situation(
        "system_prompt",
        {"system_prompt": "French @", "question": "q @", "response": "a @"},
        used=("French 3",),
    ),
    Situation(
        "context",
        {"instruction": "q @", "context": "page @", "response": "a @"},
        used=("page 3",),
        unlearned=("page",),
    ),
    Situation(
        "history",
        {"instruction": "q @", "output": "a @", "history": [["old @", "olda @"]]},
        used=("old 3",),
        trained=("olda 3", "a 3"),
    ),
    Situation(
        "a completion of messages",
        {"prompt": [user("x"), gpt("shown @"), user()], "completion": [gpt()]},
        used=("shown 3",),
        trained=("a 3",),
        unlearned=("shown",),
    ),
    Situation(
        "document and summary", {"document": "doc @", "summary": "sum @"}, trained=("sum 3",)
    ),
    Situation(
        "a text and a target",
        {"text": "q @", "target": "name @"},
        code="which_task",
        words="--set task=sft",
    ),
    Situation(
        "a text and a target, said",
        {"text": "q @", "target": "name @"},
        spec={"task": "sft"},
        trained=("name 3",),
    ),
    Situation(
        "text beside a flag",
        [{"text": f"a {n}", "spam": n % 2} for n in range(ROWS)],
        code="which_task",
        words="--set data.columns.label=spam",
    ),
    Situation(
        "a column that nobody reads",
        {"question": "q @", "answer": "a @", "source": "web"},
        told="not used: source (in 100% of the rows)",
        trained=("a 3",),
    ),
    Situation(
        "a long column that nobody reads",
        {"question": "q @", "answer": "a @", "page": LONG},
        code="unused_columns",
        words="--set data.columns.context=page",
    ),
    Situation(
        "a long column, allowed",
        {"question": "q @", "answer": "a @", "page": LONG},
        spec={"data": {"allow": "unused_columns"}},
        told="not used: page",
        unseen=("river",),
    ),
    Situation(
        "calls that the template leaves out",
        {"messages": [user(), gpt("", tool_calls=CALL)]},
        spec={"data": {"chat_template": CHAT.replace("tool_calls", "nothing")}},
        code="untrainable",
        words="it does not write the calls (tool_calls) of an answer",
    ),
    Situation(
        "few rows without an answer",
        [{"question": f"q {n}", "answer": f"a {n}" if n % 20 else None} for n in range(100)],
        told="missing",
        trained=("a 3",),
    ),
    Situation(
        "many rows without an answer",
        [{"question": f"q {n}", "answer": f"a {n}" if n % 4 else None} for n in range(100)],
        code="dropped_rows",
        words="25 of the 100 rows",
    ),
    Situation(
        "most texts too long",
        [{"text": f"{n} " + "word " * (9 if n % 3 else 99)} for n in range(60)],
        spec={"train": {"max_length": 60}},
        code="dropped_rows",
        words="too_long",
    ),
    Situation(
        "a column that begins late",
        [
            {"question": f"q {n}", "answer": f"a {n}"} | ({"system": f"s {n}"} if n > 60 else {})
            for n in range(99)
        ],
        used=("s 70",),
    ),
    Situation(
        "a verdict that begins late",
        [
            {"prompt": f"q {n}", "completion": f"c {n}", "label": None if n < 60 else n < 62}
            for n in range(70)
        ],
        code="dropped_rows",
    ),
    Situation(
        "a message that the template leaves out",
        {"messages": [{"role": "system", "content": "pirate"}, user(), gpt()]},
        spec={"data": {"chat_template": LEAVES_OUT}},
        code="unused_columns",
        words="messages of the system",
    ),
    Situation(
        "tools inside the system message",
        {"messages": [{"role": "system", "content": "s", "tools": [TOOL]}, user(), gpt()]},
        used=("TOOLS", "weather"),
    ),
    Situation(
        "loss false",
        {"messages": [user(), gpt("WRONG @", loss=False), user(), gpt()]},
        used=("WRONG 3",),
        unlearned=("WRONG",),
    ),
    Situation(
        "pairs of answers as texts",
        {"chosen": "Human: q @ Assistant: a", "rejected": "Human: q @ Assistant: b"},
        code="task_unsupported",
    ),
    Situation(
        "a rendered copy",
        {
            "instruction": "say what comes @",
            "output": "it is @",
            "text": "Below stands a task. " * 9 + "say what comes @: it is @",
        },
        trained=("it is 3",),
    ),
    Situation(
        "eos written already",
        [{"text": f"word {n}</s>"} for n in range(ROWS)],
        used=("word 3</s>",),
        unseen=("</s></s>",),
    ),
]
