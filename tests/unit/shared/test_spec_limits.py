"""Specs that were made to break the reader: each is one error in words, soon."""

import time
from pathlib import Path
from typing import Any

import pytest

from ftq_shared.errors import UsageError
from ftq_shared.lifetimes import SPEC_MAX_BYTES
from ftq_shared.spec_input import apply_sets, load_yaml, parse_spec
from ftq_shared.spec_input.limits import FILE_MAX

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
)
FILES = {
    "bomb": BOMB,
    "recursive mapping": "train: &t {args: *t}",
    "recursive list": "train: {args: {a: &t [*t]}}",
    "surrogate": 'train: {args: {a: "\\uD800"}}',
    "binary": "train: {args: {a: !!binary aGk=}}",
    "set": "train: {args: !!set {a, b}}",
    "date": "train: {args: {a: !!timestamp 2001-01-01}}",
    "no int": "a: !!int abc",
    "many digits": f"a: {'9' * 5000}",
    "no float": "a: !!float abc",
    "no bool": "a: !!bool abc",
    "no timestamp": "a: !!timestamp x",
    "list as key": "? [a, b]\n: 1",
    "mapping as key": "? {a: b}\n: 1",
    "object": "a: !!python/object/apply:os.system [x]",
    "deep": "a: " + "[" * 300 + "]" * 300,
    "very deep": "[" * 100_000,
    "deep mapping": "".join(f"{' ' * n}a:\n" for n in range(500)),
    "many values": "a: [" + "1, " * 30_000 + "]",
    "dots": f"{'a.' * 5000}a: 1",
    "nothing": "a: !!int",
    "unknown tag": "a: !x y",
    "two documents": "a: 1\n---\nb: 2",
    "unknown anchor": "a: *b",
    "list": "[1, 2]",
    "tab": "a:\n\tb: 1",
    "null byte": "a: \x00",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_refused_in_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(FILES[name])
    started = time.monotonic()
    with pytest.raises(UsageError) as caught:
        parse_spec({"model": "a/b", "dataset": "c/d", **load_yaml(path)})
    assert len(caught.value.message) < 3000
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full"])
def test_a_file_without_end_is_not_read_to_its_end(path: str) -> None:
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load_yaml(path)


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("#" * (FILE_MAX + 1))
    with pytest.raises(UsageError, match="larger"):
        load_yaml(tmp_path / "a.yaml")


SETS = [
    "x=" + "[" * 2000,
    "train.args.x=[[[[" + "[" * 2000,
    "x={[1]: 2}",
    "x={{a: b}: 2}",
    "x=!!int abc",
    "x=[!!int abc]",
    "x=[!!bool abc]",
    "train.args.x=" + "9" * 5000,
    "train.args.x=[" + "9" * 5000 + "]",
    "a." * 5000 + "a=1",
    "x=[&a [*a]]",
    'train.args.x="\\uD800"',
    "train.args.x=[!!binary aGk=]",
    "=1",
    "x",
    "..=1",
    "x=[",
    "x={",
]


@pytest.mark.parametrize("text", SETS)
def test_a_set_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError):
        parse_spec(apply_sets({"model": "a/b", "dataset": "c/d"}, [text]))


def circle() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["a"] = inner
    return inner


@pytest.mark.parametrize(
    "args",
    [
        circle(),
        {"a": b"x"},
        {"a": {1, 2}},
        {"a": object()},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"a": 10**50},
        {(1, 2): 3},
        {"a": float("nan")},
        {"a": float("inf")},
        {f"a{n}": "x" * 1000 for n in range(300)},
    ],
)
def test_what_a_program_gives_is_refused_in_words(args: Any) -> None:
    with pytest.raises(UsageError):
        parse_spec({"model": "a/b", "dataset": "c/d", "train": {"args": args}})


def test_a_spec_is_refused_that_no_record_could_hold() -> None:
    args = {"a": "x" * SPEC_MAX_BYTES}
    with pytest.raises(UsageError, match="at most 256 are taken"):
        parse_spec({"model": "a/b", "dataset": "c/d", "train": {"args": args}})


@pytest.mark.parametrize("form", ["key{}", "train.key{}"])
def test_very_many_unknown_keys_cost_no_minutes(form: str) -> None:
    raw = {form.format(n): 1 for n in range(15_000)} | {"model": "a/b", "dataset": "c/d"}
    with pytest.raises(UsageError, match="no such key") as caught:
        parse_spec(raw)
    assert "the first 100" in caught.value.hint


def test_anchors_are_read_where_they_are_small(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: &m a/b\ndataset: c/d\nname: *m\n")
    assert parse_spec(load_yaml(tmp_path / "a.yaml")).name == "a/b"
