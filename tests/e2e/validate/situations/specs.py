"""What the spec says of the rows."""

from tests.e2e.validate.situations.base import ROWS, Situation

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
