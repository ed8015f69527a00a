"""The table of situations: datasets as people bring them, and what must come of each.

Each line is one situation from public bug reports of people who fine-tune. `used` are texts that
the model sees, `trained` those that it learns; `unseen` and `unlearned` must not be in there.
"""

import json
from dataclasses import dataclass, field
from typing import Any

CHAT = (
    "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}{% for m in messages %}<|im_start|>"
    "{{ m['role'] }}\n{{ m['content'] }}{% for c in m['tool_calls'] or [] %}CALL "
    "{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LEAVES_OUT = (
    "{% for m in messages %}{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROWS = 40
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
LONG = "A page of text that says what the town is called and which river runs through it."


@dataclass(frozen=True)
class Situation:
    """What a person brings, and what must come of it."""

    name: str
    rows: Any = None  # one row (numbered with @ in its texts), a list of rows, or none
    files: dict[str, Any] = field(default_factory=dict)  # instead of rows
    spec: dict[str, Any] = field(default_factory=dict)
    encoder: bool = False
    chat: Any = None  # the decoder's chat template where it is not CHAT
    used: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()  # in no text that the model sees
    unlearned: tuple[str, ...] = ()
    told: str = ""  # in a warning or a check
    code: str = ""  # of the refusal
    words: str = ""  # in it, or in its hint


def user(text: str = "q @") -> dict[str, Any]:
    return {"role": "user", "content": text}


def gpt(text: str | None = "a @", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def numbered(row: Any, number: int) -> Any:
    """Return a row with each @ in its texts replaced by the number."""
    return json.loads(json.dumps(row).replace("@", str(number)))


CALL = [{"id": "c@", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
PAIR = {"text": "alpha @", "label": "x"}


def labelled(label: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"text": f"alpha {n}", "label": label(n), **more} for n in range(ROWS)]


def lines(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


CSV = lines("question,answer", *(f"q {n},a {n}" for n in range(ROWS)))
JSONL = lines(*(json.dumps({"question": f"q {n}", "answer": f"a {n}"}) for n in range(ROWS)))

SHAPES = [
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
        code="unused_columns",
        words="tool_calls",
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

FUNCTION = {"name": "weather", "parameters": {"type": "object"}}
CHOICE = {"prompt": "q @", "chosen": [user(), gpt()], "rejected": [user(), gpt("b")]}
SHAPES += [
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
SHAPES += [
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

LABELS = [
    Situation(
        "labels that mean none",
        labelled(lambda n: -1 if n % 4 == 0 else n % 2),
        encoder=True,
        told="'-1' is trained as a label of its own",
    ),
    Situation(
        "labels that differ in case",
        labelled(lambda n: ["Spam", "spam", "ham"][n % 3]),
        encoder=True,
        told="differ in upper and lower case alone",
    ),
    Situation(
        "an id of 0 and 1 beside a text",
        [{"text": f"alpha {n}", "row_id": n % 2} for n in range(ROWS)],
        told="not used: row_id",
    ),
    Situation(
        "pairs of sentences",
        {"premise": "alpha @", "hypothesis": "beta @", "label": "x"},
        code="one_label",
        encoder=True,
    ),
    Situation(
        "pairs of sentences, two labels",
        [{"premise": f"alpha {n}", "hypothesis": f"beta {n}", "label": n % 2} for n in range(ROWS)],
        encoder=True,
        used=("alpha 3", "beta 3"),
    ),
    Situation(
        "a question and a sentence",
        [
            {"question": f"alpha {n}", "sentence": f"beta {n}", "label": n % 2, "idx": n}
            for n in range(ROWS)
        ],
        encoder=True,
        used=("beta 3",),
    ),
    Situation(
        "several labels",
        labelled(lambda n: ["x", "y"]),
        encoder=True,
        code="multi_label",
        words="several labels",
    ),
    Situation(
        "a column for each label",
        [{"text": f"a {n}", "toxic": n % 2, "rude": 0} for n in range(ROWS)],
        encoder=True,
        code="multi_label",
        words="toxic, rude",
    ),
    Situation("fractions", labelled(lambda n: n / 8), encoder=True, code="regression"),
    Situation(
        "fractions as text",
        files={"rows.csv": lines("text,label", *(f"t {n},{n}.25" for n in range(ROWS)))},
        encoder=True,
        code="regression",
    ),
    Situation(
        "stars",
        [{"review": f"alpha {n}", "rating": 1 + n % 5} for n in range(ROWS)],
        encoder=True,
        used=("alpha 3",),
    ),
    Situation("one label", labelled(lambda n: "x"), encoder=True, code="one_label"),
    Situation(
        "half without a label",
        labelled(lambda n: "xy"[n % 2] if n % 4 < 2 else None),
        encoder=True,
        code="dropped_rows",
        words="missing",
    ),
    Situation(
        "rare labels",
        labelled(lambda n: "common" if n > 3 else f"rare{n}"),
        encoder=True,
        told="have no golden row",
        used=("alpha 0", "alpha 1", "alpha 2"),
    ),
    Situation("labels for a model that writes", labelled(lambda n: "xy"[n % 2]), used=("alpha 3",)),
    Situation(
        "text for a model that classifies",
        {"question": "q @", "answer": "a @"},
        encoder=True,
        code="task_mismatch",
    ),
]

CLASSES = {
    f"{name}/{n}.txt": f"this is a {name} review of thing {n}\n"
    for name in ("neg", "pos")
    for n in range(ROWS)
}
LABELS += [
    Situation(
        "folders that are labels",
        files=CLASSES,
        encoder=True,
        code="folder_labels",
        words="neg, pos",
    ),
    Situation(
        "folders that are labels, beside a test split",
        files={
            f"{part}/{k}": f"{part} {v}" for k, v in CLASSES.items() for part in ("train", "test")
        },
        spec={"task": "classification"},
        encoder=True,
        code="folder_labels",
    ),
    Situation(
        "folders that are none", files=CLASSES, spec={"task": "text"}, used=("neg review", "pos")
    ),
    Situation(
        "partitions that are labels",
        files={f"label={k}/part-0.jsonl": lines(json.dumps({"text": f"a {k}"})) for k in "xy"},
        code="folder_labels",
        words="--set task=text",
    ),
    Situation(
        "folders by number",
        files={f"part{n}/x.jsonl": lines(json.dumps({"text": f"a {n}"})) * 9 for n in range(9)},
        used=("a 3",),
    ),
    Situation(
        "labels beside a speaker",
        labelled(lambda n: n % 2, speaker="user"),
        encoder=True,
        used=("alpha 3",),
        told="not used: speaker",
    ),
    Situation(
        "partitions that are none",
        files={f"lang={k}/part-0.jsonl": JSONL.replace("q ", f"{k} ") for k in "xy"},
        told="not used: lang",
        trained=("a 3",),
    ),
    Situation(
        "as many labels as rows",
        labelled(lambda n: f"l{n}"),
        spec={"task": "classification"},
        encoder=True,
        told="there is no golden set",
        used=("alpha 3",),
    ),
]

LABELS += [
    Situation(
        "labels in lists of one",
        [{"text": f"alpha {n}", "labels": [n % 3]} for n in range(ROWS)],
        encoder=True,
        used=("alpha 3",),
    ),
    Situation(
        "names of labels beside their numbers",
        [{"text": f"alpha {n}", "label": n % 2, "label_text": "np"[n % 2]} for n in range(ROWS)],
        encoder=True,
        told="--set data.columns.label=label_text",
    ),
]

FILES = [
    Situation(
        "a part of a split that is not there",
        files={"train-00000-of-00003.jsonl": JSONL, "train-00002-of-00003.jsonl": JSONL},
        code="missing_files",
        words="2 of 3 parts of train",
    ),
    Situation(
        "all parts of a split",
        files={
            "train-00000-of-00002.jsonl": JSONL,
            "train-00001-of-00002.jsonl": JSONL.replace("q ", "p "),
        },
        trained=("a 3",),
    ),
    Situation(
        "blank rows of plain text",
        [{"text": f"word {n}" if n % 2 else ""} for n in range(ROWS * 2)],
        used=("word 3",),
        told="blank",
    ),
    Situation("no file", files={"notes.docx": "x"}, code="data_format", words=".docx"),
    Situation(
        "a file beside that is not read",
        files={"a.jsonl": JSONL, "b.xlsx": "x"},
        code="unread_files",
        words="b.xlsx",
    ),
    Situation(
        "packed beside",
        files={"a.jsonl": JSONL, "b.csv.bz2": "no bz2"},
        code="bad_file",
        words="b.csv.bz2",
    ),
    Situation(
        "an unclosed quote",
        files={"rows.csv": lines("question,answer", 'q,"a', *(f"q {n},a {n}" for n in range(200)))},
        code="bad_row",
        words="line 2",
    ),
    Situation(
        "blanks behind the commas", files={"rows.csv": CSV.replace(",", ", ")}, trained=("a 3",)
    ),
    Situation("another delimiter", files={"rows.csv": CSV.replace(",", ";")}, trained=("a 3",)),
    Situation(
        "two columns of one name",
        files={"rows.csv": "q,q\n1,2\n"},
        code="bad_file",
        words="rename one",
    ),
    Situation(
        "cp1252",
        files={"rows.csv": CSV.replace("q", "größe").encode("cp1252")},
        code="bad_encoding",
        words="iconv -f WINDOWS-1252",
    ),
    Situation("utf-16 csv", files={"rows.csv": CSV.encode("utf-16")}, trained=("a 3",)),
    Situation("utf-16 jsonl", files={"rows.jsonl": JSONL.encode("utf-16")}, trained=("a 3",)),
    Situation(
        "utf-16 txt", files={"rows.txt": CSV.encode("utf-16")}, used=("q 3,a 3",), unseen=("\x00",)
    ),
    Situation(
        "data inside an object",
        files={
            "rows.json": json.dumps(
                {"data": [{"question": f"q {n}", "answer": f"a {n}"} for n in range(ROWS)]}
            )
        },
        trained=("a 3",),
    ),
    Situation(
        "columns inside an object",
        files={"rows.json": json.dumps({"question": {"0": "q"}})},
        code="bad_file",
        words="columns, not rows",
    ),
    Situation("lines by the name of json", files={"rows.json": JSONL}, trained=("a 3",)),
    Situation("upper case", files={"ROWS.JSONL": JSONL}, trained=("a 3",)),
    Situation(
        "one key twice",
        files={"rows.jsonl": JSONL.replace('{"question"', '{"question": "lost", "question"')},
        code="bad_row",
        words="line 1: names the key 'question' more than once",
    ),
    Situation(
        "one key twice in one row",
        files={"rows.jsonl": JSONL.replace('"q 7"', '"lost", "question": "q 7"')},
        told="'question' more than once",
        unseen=("q 7",),
    ),
    Situation("an empty file", files={"rows.jsonl": ""}, code="empty_dataset"),
    Situation("no JSON", files={"rows.jsonl": "not json\n" * 5}, code="bad_row", words="line 1"),
    Situation("a list that breaks off", files={"rows.json": '[{"question": "q"'}, code="bad_row"),
    Situation("no parquet", files={"rows.parquet": "x"}, code="bad_file"),
    Situation(
        "train equals test",
        files={"train.jsonl": JSONL, "test.jsonl": JSONL},
        code="too_few_rows",
        words="--set data.test=none",
    ),
]

SPECS = [
    Situation(
        "a slice of a split",
        {"question": "q @", "answer": "a @"},
        spec={"data": {"split": "train[:10]"}},
        code="no_split",
        words="data.max_rows",
    ),
    Situation(
        "a split that is not there",
        {"question": "q @", "answer": "a @"},
        spec={"data": {"split": "trian"}},
        code="no_split",
        words="--set data.split=train",
    ),
    Situation(
        "a column that is not there",
        {"question": "q @", "answer": "a @"},
        spec={"data": {"columns": {"prompt": "questoin"}}},
        code="wrong_column",
        words="--set data.columns.prompt=question",
    ),
    Situation(
        "unknown columns",
        {"quest": "q @", "answr": "a @"},
        code="unknown_shape",
        words="--set data.columns.prompt=quest",
    ),
    Situation(
        "a template for a name",
        {"question": "q @", "answer": "a @"},
        spec={"data": {"chat_template": "chatml"}},
        code="chat_template",
    ),
    Situation(
        "a template for a path",
        {"question": "q @", "answer": "a @"},
        spec={"data": {"chat_template": "./chat.jinja"}},
        code="chat_template",
    ),
    Situation(
        "a row template without its column",
        {"question": "q @", "answer": "a @"},
        spec={"data": {"row_template": "{title}"}},
        code="wrong_column",
        words="title",
    ),
    Situation(
        "a limit below every prompt",
        {"question": "word " * 50 + "@", "answer": "a @"},
        spec={"train": {"max_length": 16}},
        code="empty_dataset",
        words="the limit is 16",
    ),
    Situation(
        "a limit above the model's",
        {"question": "q @", "answer": "a @"},
        spec={"train": {"max_length": 9999}},
        code="max_length",
    ),
    Situation("equal rows", [{"question": "q", "answer": "a"}] * ROWS, code="too_few_rows"),
]

EVERY = [*SHAPES, *LABELS, *FILES, *SPECS]
