"""Chat messages as people write them: names of roles, content in parts, calls of tools as JSON."""

import json
from collections.abc import Mapping
from typing import Any

from ftq_worker.data.json_values import is_deep

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
OWN_KEYS = frozenset({"role", "from", "content", "value", MASK, *WEIGHTS})


def from_json(text: str) -> Any:
    """Return the list or object that a text holds as JSON, or the text where it holds neither."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if is_deep(text, value) else value


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
