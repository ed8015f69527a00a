"""Chat messages as people write them: names of roles, content in parts, calls of tools as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftq_worker.data.json_values import is_deep

ROLE_KEYS = ("role", "from", "speaker")
CONTENT_KEYS = ("content", "value", "text", "utterance")
# The keys of a turn that holds what was said and what was answered.
_SAID = ("user", "human", "input", "question", "prompt", "instruction", "query")
_ANSWERED = ("assistant", "gpt", "bot", "model", "output", "answer", "response", "completion")

ROLES = {
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
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}
CALLS = ("function_call", "tool_call")  # roles whose content is a call of a tool, as JSON

_THOUGHTS = ("reasoning", "thinking")  # kinds of parts of a content

# Keys of a message that say whether an answer is learned, and those that ftq reads itself.
WEIGHTS = ("weight", "loss_weight", "train", "training", "loss", "train_on_turn")
MASK = "mask"  # the other way round: true is not learned
OWN_KEYS = frozenset({MASK, *WEIGHTS})


def from_json(text: str) -> Any:
    """Return the list or object that a text holds as JSON, or the text where it holds neither."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if is_deep(text, value) else value


def is_message(value: Any) -> bool:
    """Return whether a value is an object with a role."""
    return isinstance(value, Mapping) and key_of(value, ROLE_KEYS) is not None


def key_of(item: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the first of `names` that an object has, one with a value before one without."""
    for name in names:
        if item.get(name) is not None:
            return name
    return next((name for name in names if name in item), None)


def as_rows(value: Any) -> Any:
    """Return an object of lists, as `datasets` keeps a list of objects, as that list.

    The messages of an object that holds nothing else are taken out of it.
    """
    if not isinstance(value, Mapping) or not value:
        return value
    if len(value) == 1 and (inner := value.get("messages", value.get("conversations"))):
        return inner
    columns = list(value.values())
    if not all(isinstance(column, list | tuple) for column in columns):
        return value
    if len({len(column) for column in columns}) > 1:
        return value
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def single_messages(items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the place and the value of every message; a turn of question and answer is two."""
    for at, item in enumerate(items):
        if is_message(item):  # nearly all are
            yield at, item
            continue
        if isinstance(item, list | tuple) and len(item) == 2:
            yield at, {"role": "user", "content": item[0]}
            yield at, {"role": "assistant", "content": item[1]}
            continue
        said = key_of(item, _SAID) if isinstance(item, Mapping) else None
        answered = key_of(item, _ANSWERED) if isinstance(item, Mapping) else None
        if said is None or answered is None:
            yield at, item
            continue
        more = {key: value for key, value in item.items() if key not in (said, answered, "system")}
        if item.get("system"):
            yield at, {"role": "system", "content": item["system"]}
        yield at, {"role": "user", "content": item[said], **more}
        yield at, {"role": "assistant", "content": item[answered]}


def taken_apart(content: Any) -> tuple[Any, dict[str, Any]]:
    """Return the text of content that comes in parts, and what else templates know of it."""
    if not isinstance(content, list | tuple):
        return content, {}
    texts: list[Any] = []
    more: dict[str, Any] = {}
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        value = part.get("text", part.get("value")) if isinstance(part, Mapping) else part
        if kind in _THOUGHTS:
            thought = part.get("thinking", value)
            more["reasoning_content"] = more.get("reasoning_content", "") + str(thought or "")
        elif kind in CALLS:
            more.setdefault("tool_calls", []).extend(calls_in(value))
        else:
            texts.append(value)
    return ("".join(texts) if all(isinstance(text, str) for text in texts) else content), more


def calls_in(content: Any) -> list[Any]:
    """Return the calls that a text holds as JSON; none where it holds something else."""
    value = from_json(content) if isinstance(content, str) else content
    calls = value if isinstance(value, list) else [value]
    named = all(isinstance(call, Mapping) and call.get("name") for call in calls)
    return [{"type": "function", "function": dict(call)} for call in calls] if named else []


def as_tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool as templates take it; OpenAI's older `functions` stand without their type."""
    bare = "name" in tool and "function" not in tool and tool.get("type") in (None, "function")
    inner = {key: value for key, value in tool.items() if key != "type"}
    return {"type": "function", "function": inner} if bare else tool


def with_object_arguments(call: Any) -> Any:
    """Return a call with its arguments as an object: OpenAI's format has them as JSON text."""
    function = call.get("function") if isinstance(call, Mapping) else None
    holder = function if isinstance(function, Mapping) else call
    if not isinstance(holder, Mapping) or not isinstance(holder.get("arguments"), str):
        return call
    whole = {**holder, "arguments": from_json(holder["arguments"])}
    return {**call, "function": whole} if holder is function else whole


def as_seen(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as a chat template may see it."""
    return {key: value for key, value in message.items() if key != "learned"}


def with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose calls have their arguments as JSON text, as some templates need."""
    calls = [_with_text(call) for call in message.get("tool_calls") or ()]
    return message | {"tool_calls": calls} if calls else message


def _with_text(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(function.get("arguments"))}}
