"""Raw specs before they are checked: from YAML, from `--set`, laid over one another."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftq_shared.errors import UsageError, Where
from ftq_shared.spec_input.dotted_fields import only_text
from ftq_shared.spec_input.limits import FILE_MAX, KEY_PARTS_MAX, refuse_unbounded

if TYPE_CHECKING:
    from yaml import SafeLoader

Raw = dict[str, Any]
# What YAML's constructors raise for tags and numbers that cannot be, besides their own errors.
STRANGE = (ValueError, KeyError, TypeError, OverflowError, RecursionError, AttributeError)


@cache
def _loader() -> "type[SafeLoader]":
    """Return a safe loader with the scalars of YAML 1.2.

    YAML 1.1 reads 1e-4 as text, 010 as 8, 1:30 as 90, `no` as false and dates as objects.
    Built on first use, because importing yaml takes time that `ftq --help` does not have.
    """
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            _refuse_doubles(node)
            return super().construct_mapping(node, deep=deep)

    def resolve(tag: str, pattern: str, first: str) -> None:
        Loader.add_implicit_resolver(
            f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first)
        )

    def number(kind: type) -> Any:
        return lambda loader, node: kind(loader.construct_scalar(node).replace("_", ""))

    def real(loader: Any, node: Any) -> float:
        text = loader.construct_scalar(node).replace("_", "").lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))

    resolve("null", r"~|null|Null|NULL|", "~nN")
    Loader.yaml_implicit_resolvers.setdefault("", []).append(
        ("tag:yaml.org,2002:null", re.compile(r"^$"))
    )
    resolve("bool", r"true|True|TRUE|false|False|FALSE", "tTfF")
    resolve("int", r"[-+]?[0-9][0-9_]*", "-+0123456789")
    resolve(
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    )
    resolve("merge", "<<", "<")
    Loader.add_constructor("tag:yaml.org,2002:int", number(int))
    Loader.add_constructor("tag:yaml.org,2002:float", real)
    return Loader


def _refuse_doubles(node: Any) -> None:
    """Raise a YAML error when a key stands twice: the first one would be lost silently."""
    import yaml

    seen = set()
    for key, _ in node.value:
        if not isinstance(key.value, str):
            raise yaml.constructor.ConstructorError(
                None, None, "a key is text, not a list or a mapping", key.start_mark
            )
        if key.value in seen and key.value != "<<":
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands here a second time", key.start_mark
            )
        seen.add(key.value)


def load_yaml(path: str | Path) -> Raw:
    """Read a spec file; an empty one gives an empty dict.

    Raises UsageError with file and line when it cannot be read or is not one mapping.
    """
    import yaml

    try:
        data = yaml.load(_text(path), Loader=_loader())  # noqa: S506 - a subclass of the safe loader
        refuse_unbounded(data)
    except OSError as error:
        raise UsageError(
            f"{path}: {(error.strerror or str(error)).lower()}",
            code="bad_spec_file",
            hint="a spec is a file of YAML; a model is given as --model, data as --dataset",
            file=str(path),
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: not UTF-8 (byte {error.start})",
            code="bad_spec_file",
            hint="save the file as UTF-8 text",
            file=str(path),
        ) from error
    except (yaml.YAMLError, *STRANGE) as error:
        raise _syntax_error(path, error) from error
    return _mapping_or_refuse(path, data)


def _text(path: str | Path) -> str:
    """Return a file's text; of an endless one the beginning. Raises UsageError, OSError."""
    with Path(path).open("rb") as file:
        content = file.read(FILE_MAX + 1)
    if len(content) > FILE_MAX:
        raise UsageError(
            f"{path}: is larger than {FILE_MAX >> 20} MiB",
            code="bad_spec_file",
            hint="a spec is a page of text; rows belong in the dataset",
            file=str(path),
        )
    return content.decode("utf-8-sig")


def _mapping_or_refuse(path: str | Path, data: Any) -> Raw:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(
            f"{path}: holds {type(data).__name__}, not keys with values",
            code="bad_spec_file",
            hint="a spec looks like\nmodel: org/name\ndataset: org/rows",
            file=str(path),
        )
    return data


def _syntax_error(path: str | Path, error: Exception) -> UsageError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or (str(error).splitlines() or ["no value"])[0]
    where: Where = {"file": str(path)}
    if mark is not None:
        where["line"] = mark.line + 1
    at = "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"
    return UsageError(
        f"{path}{at}: not valid YAML: {problem}",
        code="bad_spec_file",
        hint="keys and values are written `key: value`, sections indented by two spaces; "
        "text with a colon or a brace goes in quotes",
        **where,
    )


def parse_value(name: str, text: str) -> Any:
    """Read the value of one `--set`: a YAML scalar, or a list or mapping in brackets.

    Text fields keep what was typed, so that `name=123` and `row_template={q}` are text.
    """
    import yaml

    if only_text(name):
        return None if text in ("null", "~") else text
    loader = _loader()("")
    try:
        if text[:1] in ("[", "{", '"', "'"):
            return yaml.load(text, Loader=_loader())  # noqa: S506 - a subclass of the safe loader
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        return loader.construct_object(yaml.ScalarNode(tag, text))
    finally:
        loader.dispose()


def apply_sets(raw: Mapping[str, Any], sets: Sequence[str]) -> Raw:
    """Return `raw` with `KEY=VALUE` texts laid over it; KEY is dotted, a later one wins.

    Raises UsageError that names every malformed text at once.
    """
    result, bad = merge(raw), []
    for text in sets:
        try:
            name, value = _split(text)
            result = merge(result, nested(name, value))
        except ValueError as error:
            bad.append(f"--set {text}: {error}")
    if bad:
        raise UsageError(
            "\n".join(bad), code="bad_set", hint="write --set KEY=VALUE, such as train.epochs=2"
        )
    return result


def _split(text: str) -> tuple[str, Any]:
    """Raises ValueError when there is no key, no '=', or a list that does not close."""
    import yaml

    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals:
        raise ValueError("no '=' in it")
    if not name or "" in name.split("."):
        raise ValueError("no key before the '='")
    if name.count(".") >= KEY_PARTS_MAX or len(text) > FILE_MAX:
        raise ValueError("too long")
    try:
        parsed = parse_value(name, value.strip())
        refuse_unbounded(parsed)
        return name, parsed
    except UsageError as error:
        raise ValueError(error.message) from error
    except (yaml.YAMLError, *STRANGE) as error:
        raise ValueError(getattr(error, "problem", None) or "no valid YAML") from error


def nested(name: str, value: Any) -> Raw:
    """Return `{"a": {"b": value}}` for `a.b`."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)


def merge(*layers: Mapping[str, Any] | None) -> Raw:
    """Lay raw specs over one another, the later over the earlier; sections key by key.

    Nothing of the input is changed or shared.
    """
    result: Raw = {}
    for layer in layers:
        _lay_over(result, layer or {})
    return result


def _lay_over(result: Raw, layer: Mapping[str, Any]) -> None:
    """Lay a raw spec over `result`, whose sections are all its own."""
    for key, value in layer.items():
        if isinstance(value, Mapping):
            below = result.get(key)
            section: Raw = below if isinstance(below, dict) else {}
            result[key] = section
            _lay_over(section, value)
        else:
            result[key] = list(value) if isinstance(value, list) else value
