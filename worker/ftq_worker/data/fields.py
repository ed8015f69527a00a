"""The values of one row, each checked as it is taken; what is wrong is raised as RowProblem."""

import math
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

from ftq_worker.data.chat_messages import (
    CALLS,
    CONTENT_KEYS,
    MASK,
    OWN_KEYS,
    ROLE_KEYS,
    ROLES,
    WEIGHTS,
    as_rows,
    as_tool,
    calls_in,
    from_json,
    is_message,
    key_of,
    single_messages,
    taken_apart,
    with_object_arguments,
)
from ftq_worker.data.cleaning import RowProblem, Rule, scrub
from ftq_worker.data.column_values import is_list_of_one, media_part
from ftq_worker.data.columns import ColumnLayout

# role, content; tool_calls and the like for the chat template; `learned` false for some answers
Message = dict[str, Any]

Template = list[tuple[str, str | None]]  # a text, and the column that follows it

_WRITTEN = (str, int, float, Decimal, date, time)  # values that are text once they are written
_LIKE_A_MESSAGE = 'write messages like {"role": "user", "content": "..."}'
_LIKE_A_TOOL = 'write tools like {"type": "function", "function": {"name": ..., "parameters": ...}}'


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
        self.taken: set[str] = set()  # columns that something was made of
        self.message_tools: list[Any] = []  # that stood in the system message
        self.cut = False  # messages stood behind the last answer, and are gone

    def clean(self, text: str, name: str) -> str:
        """Return the text without control characters, and remember that it had some."""
        scrubbed = scrub(text)
        if scrubbed != text:
            self.damaged = self.damaged or name
        return scrubbed

    def given(self, column: str) -> bool:
        """Return whether a column holds something here; it counts as used from then on."""
        self.taken.add(column)
        value = self.values.get(column)
        return value is not None and not (isinstance(value, float) and math.isnan(value))

    def text(self, column: str) -> str:
        """Return a text that is needed; a number and a date are written, a list of one is taken."""
        if not self.given(column):
            what = "is null" if column in self.values else "is absent"
            raise RowProblem(Rule.MISSING, column, what)
        value = self.values[column]
        if is_list_of_one(value):
            value = value[0]
        if not isinstance(value, _WRITTEN):
            mend = "write the text that is meant into the column, of an object with json.dumps"
            if isinstance(value, list | tuple):
                mend = "write one text into the column, or one row for each"
            raise RowProblem(Rule.WRONG_TYPE, column, f"is {_kind(value)}, text is needed", mend)
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
        given, value = self.given(column), self.values.get(column)
        names = self.label_names.get(column)
        if not given or (names and value == -1) or str(value).strip() == "":
            raise RowProblem(Rule.MISSING, column, "has no label")
        if names and isinstance(value, int):
            if not 0 <= value < len(names):
                raise RowProblem(Rule.WRONG_TYPE, column, f"{value} is none of {len(names)} labels")
            return names[value]
        if is_list_of_one(value):
            value = value[0]
        if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
            value = int(value)
        if not isinstance(value, str | int | date):
            what = f"is {_kind(value)}, a label is text or a whole number"
            raise RowProblem(Rule.WRONG_TYPE, column, what, "write one label into each row")
        return self.clean(str(value), column).strip()

    def messages(self, column: str) -> list[Message]:
        """Return the messages of a conversation; each one is checked, their order is not.

        An answer that is marked as one not to learn has `learned` false; others lack the key.
        """
        value = as_rows(self.parsed(column))
        if value is None:
            raise RowProblem(Rule.MISSING, column, "is null")
        if is_message(value):
            value = [value]
        if not isinstance(value, list | tuple):
            what, mend = f"is {_kind(value)}, a list of messages is needed", _LIKE_A_MESSAGE
            if isinstance(value, str) and value.lstrip().startswith("["):
                what, mend = "is text that is not JSON", "write the list with json.dumps"
            raise RowProblem(Rule.WRONG_TYPE, column, what, mend)
        return [self._message(item, f"{column}[{i}]") for i, item in single_messages(value)]

    def parsed(self, column: str) -> Any:
        """Return a value, its JSON taken apart where it is such text."""
        value = self.values.get(column) if self.given(column) else None
        return from_json(value) if isinstance(value, str) else value

    def history(self, column: str | None) -> list[Message]:
        """Return earlier turns; they often come as pairs of what was said and what was answered."""
        value = self.parsed(column) if column else None
        return self.messages(column) if column and value not in (None, "") else []

    def holds_messages(self, column: str) -> bool:
        """Return whether a column holds messages, and no text."""
        value = self.parsed(column)
        if isinstance(value, str | int | float | None):  # nearly all are
            return False
        value = as_rows(value)
        items = value if isinstance(value, list | tuple) else [value]
        return bool(items) and all(map(is_message, items))

    def calls(self, column: str) -> list[Any]:
        """Return the calls of tools that an answer consists of; none where it is something else."""
        value = self.parsed(column)
        return [] if isinstance(value, str) else [*map(with_object_arguments, calls_in(value))]

    def tools(self, column: str | None) -> list[Any]:
        """Return the tools that the model may call, as chat templates take them."""
        value = self.parsed(column) if column else None
        return [] if value is None or value == "" else self._as_tools(value, column or "")

    def _as_tools(self, value: Any, name: str) -> list[Any]:
        value = from_json(value) if isinstance(value, str) else value
        if isinstance(value, Mapping) and ("name" in value or "function" in value):
            value = [value]
        if not isinstance(value, list | tuple):
            what = f"is {_kind(value)}, a list of tools is needed"
            raise RowProblem(Rule.WRONG_TYPE, name, what, _LIKE_A_TOOL)
        tools = [from_json(tool) if isinstance(tool, str) else tool for tool in value]
        for i, tool in enumerate(tools):
            if not isinstance(tool, Mapping):
                what = f"is {_kind(tool)}, not what the model may call"
                raise RowProblem(Rule.WRONG_TYPE, f"{name}[{i}]", what, _LIKE_A_TOOL)
        cleaned: list[Any] = self._tidy([*map(as_tool, tools)], name)
        return cleaned

    def _tidy(self, value: Any, name: str) -> Any:
        """Return nested data with its texts cleaned, without the nulls that parquet fills in."""
        if isinstance(value, str):
            return self.clean(value, name)
        if isinstance(value, Mapping):
            return {
                self.clean(str(key), name): self._tidy(inner, name)
                for key, inner in value.items()
                if inner is not None
            }
        if isinstance(value, list | tuple):
            return [self._tidy(inner, name) for inner in value]
        return value

    def _message(self, item: Any, name: str) -> Message:
        if not isinstance(item, Mapping):
            what = "is no message with role and content"
            raise RowProblem(Rule.CONVERSATION, name, what, _LIKE_A_MESSAGE)
        role_key, content_key = key_of(item, ROLE_KEYS), key_of(item, CONTENT_KEYS)
        given = str(item.get(role_key or "")).strip(" :").lower()
        role = ROLES.get(given)
        if role is None:
            what = f"is {given!r}" if role_key else f"is absent; there are {', '.join(item)}"
            known = f"the roles that are known are {', '.join(ROLES)}"
            raise RowProblem(Rule.CONVERSATION, f"{name}.role", what, known)
        content = item.get(content_key or "")
        if kind := media_part(content):
            what = f"holds a part of type {kind}; only text is trained on"
            raise RowProblem(Rule.WRONG_TYPE, f"{name}.content", what)
        content, parts = taken_apart(content)
        rest = {
            k: v
            for k, v in item.items()
            if k not in (role_key, content_key) and k not in OWN_KEYS and v not in (None, [], {})
        }
        message: Message = {"role": role, **self._tidy(rest | parts, name)}
        if role == "system" and "tools" in message:
            self.message_tools = self._as_tools(message.pop("tools"), f"{name}.tools")
        if given in CALLS and (calls := calls_in(content)):
            message["tool_calls"], content = calls, ""
        # As OpenAI wrote calls at first.
        if "function_call" in message and (calls := calls_in(message["function_call"])):
            message["tool_calls"] = calls
            del message["function_call"]
        if "tool_calls" in message:
            if not isinstance(message["tool_calls"], list):
                what = f"is a {type(message['tool_calls']).__name__}, a list of calls is needed"
                raise RowProblem(Rule.WRONG_TYPE, f"{name}.tool_calls", what)
            message["tool_calls"] = [with_object_arguments(call) for call in message["tool_calls"]]
            content = content or ""
        message["content"] = self._content(content, message, name)
        if not self._learned(item, role, name) and role == "assistant":
            message["learned"] = False
        return message

    def _content(self, content: Any, message: Message, name: str) -> str:
        if not isinstance(content, str):
            what = "is null" if content is None else f"is {_kind(content)}, not text"
            raise RowProblem(Rule.CONVERSATION, f"{name}.content", what, _LIKE_A_MESSAGE)
        text = self.clean(content, f"{name}.content")
        if not text.strip() and "tool_calls" not in message and message["role"] != "tool":
            raise RowProblem(Rule.EMPTY, f"{name}.content", "is empty")
        return text

    def _learned(self, item: Mapping[str, Any], role: str, name: str) -> bool:
        """Return whether a message may be trained on; raises RowProblem for half a weight."""
        if role == "assistant" and item.get(MASK) in (1, "1", "true"):
            return False
        for key in WEIGHTS:
            weight = item.get(key)
            if weight is None:
                continue
            if weight not in (0, 1):  # true and false are 1 and 0
                what = f"is {weight!r}; an answer is learned (1) or not (0)"
                raise RowProblem(Rule.WRONG_TYPE, f"{name}.{key}", what)
            if weight and role != "assistant" and key not in ("weight", "loss_weight"):
                what = f"is true for a message of the {role}; only the assistant's are learned"
                raise RowProblem(Rule.CONVERSATION, f"{name}.{key}", what)
            if not weight:
                return False
        return True


def _kind(value: Any) -> str:
    """Return what a value is, in words of JSON."""
    if isinstance(value, Mapping):
        return f"an object with {', '.join(map(str, value)) or 'no keys'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value):,}"
    return "a text" if isinstance(value, str) else f"a {type(value).__name__}"
