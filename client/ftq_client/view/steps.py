"""The line of one optimizer step, as wide as there is room for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ftq_client.view import format as fmt
from ftq_client.view.lines import Ink, Line, Span, shown, width_of


class Part(NamedTuple):
    """One figure of a step: those of the highest rank leave first where there is no room."""

    rank: int
    spans: tuple[Span, ...]


def step_line(data: Mapping[str, Any], *, width: int | None = None, pad: bool = False) -> Line:
    """Return `12/300  loss 1.8300  lr 2.0e-04 ...` in at most `width` columns.

    `pad` gives figures a fixed width, so that the lines of a run stand in columns.
    """
    parts = _parts(data, pad)
    if width is not None:
        parts = _fitting(parts, width)
    line: list[Span] = []
    for part in parts:
        line += [("  ", Ink.PLAIN)] if line else []
        line += part.spans
    return tuple(line)


def _fitting(parts: list[Part], width: int) -> list[Part]:
    """Return the parts for which there is room, always the first."""
    used = sum(width_of(part.spans) + 2 for part in parts) - 2
    for part in sorted(parts[1:], key=lambda part: -part.rank):
        if used <= width:
            break
        used -= width_of(part.spans) + 2
        parts.remove(part)
    return parts


def _parts(data: Mapping[str, Any], pad: bool) -> list[Part]:
    bad = data.get("nonfinite") or ()
    nonfinite = bad if isinstance(bad, list | tuple) else ()

    def part(rank: int, name: str, key: str, text: str, width: int) -> Part:
        ink = Ink.BAD if key in nonfinite else Ink.STRONG if key == "loss" else Ink.PLAIN
        return Part(rank, ((f"{name} ", Ink.DIM), (text.rjust(width) if pad else text, ink)))

    parts = [
        Part(0, (_count(data, pad),)),
        part(1, "loss", "loss", fmt.figure(data.get("loss")), 6),
    ]
    if data.get("lr") is not None:
        parts.append(part(4, "lr", "lr", fmt.rate(data["lr"]), 7))
    if "grad_norm" in data:
        parts.append(part(6, "grad", "grad_norm", fmt.short(data["grad_norm"]), 4))
    parts += _speed(data, pad)
    if data.get("tokens_accuracy") is not None:
        parts.append(part(7, "acc", "tokens_accuracy", fmt.percent(data["tokens_accuracy"]), 6))
    if data.get("epoch") is not None:
        parts.append(part(8, "epoch", "epoch", fmt.short(data["epoch"]), 4))
    if data.get("eta_s"):  # the last step has none
        parts.append(part(2, "eta", "eta_s", fmt.duration(data["eta_s"]), 0))
    return parts


def _count(data: Mapping[str, Any], pad: bool) -> Span:
    step, steps = shown(data.get("step")), shown(data.get("steps"))
    return f"{step.rjust(len(steps)) if pad else step}/{steps}", Ink.STRONG


def _speed(data: Mapping[str, Any], pad: bool) -> list[Part]:
    for key, unit in (("tokens_per_s", "tok/s"), ("examples_per_s", "ex/s")):
        if data.get(key) is not None:
            text = fmt.count(data[key])
            return [Part(5, ((text.rjust(6) if pad else text, Ink.PLAIN), (f" {unit}", Ink.DIM)))]
    return []
