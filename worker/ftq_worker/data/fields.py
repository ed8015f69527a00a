"""The values of one row, each checked as it is taken; what is wrong is raised as RowProblem."""

import math
from collections.abc import Mapping
from typing import Any

from ftq_worker.data.chat_messages import (
    CALLS,
    MASK,
    OWN_KEYS,
    ROLES,
    WEIGHTS,
    calls_in,
    from_json,
    taken_apart,
    with_object_arguments,
)
from ftq_worker.data.cleaning import RowProblem, Rule, scrub
from ftq_worker.data.column_values import media_part
from ftq_worker.data.columns import ColumnLayout

# role, content; tool_calls and the like for the chat template; `learned` false for some answers
Message = dict[str, Any]

Template = list[tuple[str, str | None]]  # a text, and the column that follows it


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
        self.members: set[str] = set()  # keys of messages that only the chat template may read
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
        given, value = self.given(column), self.values.get(column)
        names = self.label_names.get(column)
        if not given or (names and value == -1) or str(value).strip() == "":
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
        """Return the messages of a conversation; each one is checked, their order is not.

        An answer that is marked as one not to learn has `learned` false; others lack the key.
        """
        value = self.parsed(column)
        if value is None:
            raise RowProblem(Rule.MISSING, column, "is null")
        if not isinstance(value, list | tuple):
            what = f"is a {type(value).__name__}, a list of messages is needed"
            if isinstance(value, str) and value.lstrip().startswith("["):
                what = "is text that is not JSON; write the list with json.dumps"
            raise RowProblem(Rule.WRONG_TYPE, column, what)
        return [self._message(item, f"{column}[{i}]") for i, item in enumerate(value)]

    def parsed(self, column: str) -> Any:
        """Return a value, its JSON taken apart where it is such text."""
        value = self.values.get(column) if self.given(column) else None
        return from_json(value) if isinstance(value, str) else value

    def history(self, column: str | None) -> list[Message]:
        """Return earlier turns, which come as pairs of what was said and what was answered."""
        turns: list[Message] = []
        pairs = (self.parsed(column) if column else None) or ()
        if not isinstance(pairs, list | tuple):
            what = f"is a {type(pairs).__name__}, a list of pairs is needed"
            raise RowProblem(Rule.WRONG_TYPE, column or "", what)
        for i, pair in enumerate(pairs):
            if not (isinstance(pair, list | tuple) and len(pair) == 2):
                what = "is no pair of what was said and what was answered"
                raise RowProblem(Rule.CONVERSATION, f"{column}[{i}]", what)
            for role, text in zip(("user", "assistant"), pair, strict=True):
                turns.append({"role": role, "content": self.clean(str(text), f"{column}[{i}]")})
        return turns

    def tools(self, column: str | None) -> list[Any]:
        """Return the tools that the model may call, as chat templates take them."""
        value = self.parsed(column) if column else None
        return [] if value is None or value == "" else self._as_tools(value, column or "")

    def _as_tools(self, value: Any, name: str) -> list[Any]:
        value = from_json(value) if isinstance(value, str) else value
        if not isinstance(value, list | tuple):
            what = f"is a {type(value).__name__}, a list of tools is needed"
            raise RowProblem(Rule.WRONG_TYPE, name, what)
        tools = [from_json(tool) if isinstance(tool, str) else tool for tool in value]
        cleaned: list[Any] = self._tidy(tools, name)
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
            raise RowProblem(Rule.CONVERSATION, name, "is no message with role and content")
        given = str(item.get("role", item.get("from"))).lower()
        role = ROLES.get(given)
        if role is None:
            raise RowProblem(Rule.CONVERSATION, f"{name}.role", f"is {given!r}")
        content = item.get("content", item.get("value"))
        if kind := media_part(content):
            what = f"holds a part of type {kind}; only text is trained on"
            raise RowProblem(Rule.WRONG_TYPE, f"{name}.content", what)
        content, parts = taken_apart(content)
        rest = {k: v for k, v in item.items() if k not in OWN_KEYS and v not in (None, [], {})}
        message: Message = {"role": role, **self._tidy(rest | parts, name)}
        if role == "system" and "tools" in message:
            self.message_tools = self._as_tools(message.pop("tools"), f"{name}.tools")
        if given in CALLS and (calls := calls_in(content)):
            message["tool_calls"], content = calls, ""
        if "tool_calls" in message:
            if not isinstance(message["tool_calls"], list):
                what = f"is a {type(message['tool_calls']).__name__}, a list of calls is needed"
                raise RowProblem(Rule.WRONG_TYPE, f"{name}.tool_calls", what)
            message["tool_calls"] = [with_object_arguments(call) for call in message["tool_calls"]]
            content = content or ""
        self.members.update(message.keys() - {"role"})
        message["content"] = self._content(content, message, name)
        if not self._learned(item, role, name) and role == "assistant":
            message["learned"] = False
        return message

    def _content(self, content: Any, message: Message, name: str) -> str:
        if not isinstance(content, str):
            what = "is null" if content is None else f"is a {type(content).__name__}, not text"
            raise RowProblem(Rule.CONVERSATION, f"{name}.content", what)
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
