"""The values of one row, each checked as it is taken; what is wrong is raised as RowProblem."""

import json
import math
from collections.abc import Mapping
from typing import Any

from ftq_worker.data.cleaning import RowProblem, Rule, scrub
from ftq_worker.data.columns import ColumnLayout

Message = dict[str, Any]  # role, content; tool_calls and the like are passed on as they are

Template = list[tuple[str, str | None]]  # a text, and the column that follows it

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}


class Fields:
    """The values of one row, checked as they are taken."""

    def __init__(
        self,
        values: Mapping[str, Any],
        layout: ColumnLayout,
        template: Template | None,
        label_names: Mapping[str, list[str]],
    ) -> None:
        self.values, self.layout, self.template = values, layout, template
        self.label_names = label_names
        self.damaged = ""

    def clean(self, text: str, name: str) -> str:
        """Return the text without control characters, and remember that it had some."""
        scrubbed = scrub(text)
        if scrubbed != text:
            self.damaged = self.damaged or name
        return scrubbed

    def given(self, column: str) -> bool:
        value = self.values.get(column)
        return value is not None and not (isinstance(value, float) and math.isnan(value))

    def text(self, column: str) -> str:
        """Return a text that is needed; a number becomes its digits."""
        if not self.given(column):
            what = "is null" if column in self.values else "is absent"
            raise RowProblem(Rule.MISSING, column, what)
        value = self.values[column]
        if not isinstance(value, str | int | float):
            raise RowProblem(
                Rule.WRONG_TYPE, column, f"is a {type(value).__name__}, text is needed"
            )
        text = self.clean(str(value), column)
        if not text.strip():
            raise RowProblem(Rule.EMPTY, column, "is empty")
        return text

    def optional(self, column: str | None) -> str:
        """Return a text that may be absent or empty."""
        if column is None or not self.given(column) or not str(self.values[column]).strip():
            return ""
        return self.text(column)

    def prompt(self, column: str | None) -> str:
        """Return the prompt: from the template where there is one, else from its column."""
        if self.template is None:
            assert column is not None  # detect_layout fills it
            return self.text(column)
        return "".join(
            text + (self.text(name) if name is not None else "") for text, name in self.template
        )

    def label(self, column: str) -> str:
        value = self.values.get(column)
        names = self.label_names.get(column)
        if not self.given(column) or (names and value == -1) or str(value).strip() == "":
            raise RowProblem(Rule.MISSING, column, "has no label")
        if names and isinstance(value, int):
            if not 0 <= value < len(names):
                raise RowProblem(Rule.WRONG_TYPE, column, f"{value} is none of {len(names)} labels")
            return names[value]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, str | int):
            raise RowProblem(
                Rule.WRONG_TYPE, column, f"is a {type(value).__name__}, a label is text or a number"
            )
        return self.clean(str(value), column).strip()

    def messages(self, column: str) -> list[Message]:
        """Return the messages of a conversation; each one is checked, their order is not."""
        value = self.values.get(column)
        if value is None:
            raise RowProblem(Rule.MISSING, column, "is null")
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = _from_json(value)
        if not isinstance(value, list | tuple):
            raise RowProblem(
                Rule.WRONG_TYPE,
                column,
                f"is a {type(value).__name__}, a list of messages is needed",
            )
        return [self._message(item, f"{column}[{i}]") for i, item in enumerate(value)]

    def _message(self, item: Any, name: str) -> Message:
        if not isinstance(item, Mapping):
            raise RowProblem(Rule.CONVERSATION, name, "is no message with role and content")
        given = item.get("role", item.get("from"))
        role = _ROLES.get(str(given).lower())
        if role is None:
            raise RowProblem(Rule.CONVERSATION, f"{name}.role", f"is {given!r}")
        content = _joined(item.get("content", item.get("value")))
        rest = {
            key: value
            for key, value in item.items()
            if key not in ("role", "from", "content", "value") and value is not None
        }
        if content is None and rest.get("tool_calls"):
            return {"role": role, "content": "", **rest}
        if not isinstance(content, str):
            what = "is null" if content is None else f"is a {type(content).__name__}, not text"
            raise RowProblem(Rule.CONVERSATION, f"{name}.content", what)
        content = self.clean(content, f"{name}.content")
        if not content.strip() and not rest.get("tool_calls") and role != "tool":
            raise RowProblem(Rule.EMPTY, f"{name}.content", "is empty")
        return {"role": role, "content": content, **rest}


def _from_json(text: str) -> Any:
    """Return the list that a column holds as JSON text, or the text where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _joined(content: Any) -> Any:
    """Return content that comes as a list of text parts as one text."""
    if not isinstance(content, list | tuple):
        return content
    parts: list[Any] = [p.get("text") if isinstance(p, Mapping) else p for p in content]
    return "".join(parts) if all(isinstance(p, str) for p in parts) else content
