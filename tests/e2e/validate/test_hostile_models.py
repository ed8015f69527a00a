"""Model folders that were made to break a reader: each is a refusal that names the file."""

import json
from math import prod
from typing import Any

import pytest
from tests.e2e.validate.conftest import DECODER, model_files, safetensors, shapes_of, write_files

from ftq_shared.errors import Refused

DEEP = "[" * 100_000


def header(content: Any, tail: bytes = b"") -> bytes:
    text = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + tail


def tensor(shape: Any, offsets: Any, dtype: str = "F32") -> bytes:
    return header({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, bytes(64))


def config(**changes: Any) -> dict[str, str]:
    return {"config.json": json.dumps(DECODER | changes)}


FOLDERS: dict[str, tuple[dict[str, Any], str]] = {
    "config deep": ({"config.json": DEEP}, "broken_file"),
    "config list": ({"config.json": "[]"}, "broken_file"),
    "config digits": ({"config.json": '{"hidden_size": ' + "9" * 5000 + "}"}, "broken_file"),
    "config no UTF-8": ({"config.json": b"\xff\xfe"}, "broken_file"),
    "config empty": ({"config.json": ""}, "broken_file"),
    "layers": (config(num_hidden_layers=10**9), "size_mismatch"),
    "more layers": (config(num_hidden_layers=10**12), "broken_config"),
    "negative": (config(hidden_size=-5), "broken_config"),
    "true": (config(hidden_size=True), "broken_config"),
    "text": (config(num_hidden_layers="2"), "broken_config"),
    "wide": (config(hidden_size=10**8), "size_mismatch"),
    "vocabulary": (config(vocab_size=10**9), "size_mismatch"),
    "experts": (config(num_local_experts=10**9), "size_mismatch"),
    "inner": (config(text_config={"intermediate_size": 10**12}), "size_mismatch"),
    "type list": (config(model_type=["llama"]), "unknown_architecture"),
    "type deep": (config(model_type={"a": 1}), "unknown_architecture"),
    "tokenizer list": ({"tokenizer_config.json": "[]"}, "broken_file"),
    "tokenizer deep": ({"tokenizer_config.json": DEEP}, "broken_file"),
    "weights deep": ({"model.safetensors": header(DEEP)}, "broken_weights"),
    "weights list": ({"model.safetensors": header("[1]")}, "broken_weights"),
    "weights null": ({"model.safetensors": header("null")}, "broken_weights"),
    "no shape": ({"model.safetensors": header({"w": {}})}, "broken_weights"),
    "no tensor": ({"model.safetensors": header({"w": 7})}, "broken_weights"),
    "overflow": ({"model.safetensors": tensor([2**62, 2**62], [0, 64])}, "broken_weights"),
    "below nothing": ({"model.safetensors": tensor([-4, -4], [0, 64])}, "broken_weights"),
    "text shape": ({"model.safetensors": tensor(["4"], [0, 64])}, "broken_weights"),
    "backwards": ({"model.safetensors": tensor([16], [64, 0])}, "broken_weights"),
    "beyond": ({"model.safetensors": tensor([1600], [0, 6400])}, "broken_weights"),
    "too short": ({"model.safetensors": tensor([4], [0, 16])}, "broken_weights"),
    "long header": ({"model.safetensors": (2**60).to_bytes(8, "little")}, "broken_weights"),
    "index list": (
        {"model.safetensors": None, "model.safetensors.index.json": '{"weight_map": [1]}'},
        "broken_weights",
    ),
    "index deep": (
        {"model.safetensors": None, "model.safetensors.index.json": DEEP},
        "broken_file",
    ),
    "index leads out": (
        {
            "model.safetensors": None,
            "model.safetensors.index.json": '{"weight_map": {"w": "../../x", "v": {"a": 1}}}',
        },
        "weights_incomplete",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_model_is_refused_by_name(start: Any, tmp_path: Any, name: str) -> None:
    changes, code = FOLDERS[name]
    files = model_files(tokenizer_config__json="{}") | changes
    write_files(tmp_path / "m", {path: text for path, text in files.items() if text is not None})
    run = start({"model": f"worker:{tmp_path / 'm'}"})
    with pytest.raises(Refused) as caught:
        run.go()
    assert caught.value.code == code
    assert len(caught.value.message) < 2000


@pytest.mark.parametrize("named", [{"a": 1}, "Llama", [None], []])
def test_what_does_no_harm_is_not_refused(start: Any, tmp_path: Any, named: Any) -> None:
    files = model_files() | config(architectures=named)
    write_files(tmp_path / "m", files)
    assert start({"model": f"worker:{tmp_path / 'm'}"}).go().model.layers == 2


def test_weights_are_counted(start: Any, tmp_path: Any) -> None:
    shapes = shapes_of(DECODER)
    files = model_files() | {"model.safetensors": safetensors(shapes)}
    write_files(tmp_path / "m", files)
    found = start({"model": f"worker:{tmp_path / 'm'}"}).go().model
    assert found.parameters == sum(map(prod, shapes.values()))
