"""A local Hub with small models and datasets, and a validate phase to run against it."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from ftq_hub import Fault, HubApp, HubStore, Tls, running
from ftq_shared.errors import Refused
from ftq_shared.events import EventType, make_body
from ftq_shared.hub import HubClient, Retry
from ftq_shared.paths import JobPaths
from ftq_shared.spec_input import merge, parse_spec
from ftq_shared.states import Phase
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import Validated
from ftq_worker.phases import validate

TOKENS = {
    "hf_me": ("me", "write", ("team",)),
    "hf_reader": ("me", "read", ()),
    "hf_other": ("other", "write", ()),
}
DECODER = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 32,
    "max_position_embeddings": 128,
}
ENCODER = DECODER | {"architectures": ["BertModel"], "model_type": "bert"}
ROWS = [{"question": f"q{n}?", "answer": f"a{n}"} for n in range(8)]


def safetensors(shapes: dict[str, list[int]]) -> bytes:
    """Return a safetensors file of zeros."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(at)


def shapes_of(config: dict[str, Any]) -> dict[str, list[int]]:
    """Return the names and shapes of the weights that a model of this config has."""
    return dict(_shapes(json.dumps(config)))


@functools.cache
def _shapes(config: str) -> dict[str, list[int]]:
    known = json.loads(config)
    kind = AutoModelForMaskedLM if known["model_type"] == "bert" else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(AutoConfig.for_model(**known))
    return {name: list(weight.shape) for name, weight in model.named_parameters()}


def tokenizer_json() -> str:
    """Return a tokenizer of bytes that are words: none of them beyond the vocabulary."""
    words = {"<unk>": 0, "</s>": 1} | {letter: n for n, letter in enumerate("qa?0123456789", 2)}
    raw = Tokenizer(WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = Split("", "isolated")
    raw.add_special_tokens(["</s>"])
    return raw.to_str()


def model_files(config: dict[str, Any] | None = None, **more: str | bytes) -> dict[str, Any]:
    """Return the files of a small model; names in `more` have __ for a dot, None drops one."""
    files: dict[str, Any] = {
        "config.json": json.dumps(config or DECODER),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
        ),
        "model.safetensors": safetensors(shapes_of(ENCODER if config is ENCODER else DECODER)),
    }
    files |= {name.replace("__", "."): content for name, content in more.items()}
    return {name: content for name, content in files.items() if content is not None}


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(path: Path, rows: list[dict[str, Any]]) -> bytes:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path.read_bytes()


def write_files(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


class Hub:
    """The Hub of a test module, with shorthands."""

    def __init__(self, url: str, app: HubApp, work: Path) -> None:
        self.url, self.app, self.store, self.work = url, app, app.store, work
        self._count = 0

    def add(
        self, kind: str, repo: str, files: dict[str, Any], title: str = "x", **flags: Any
    ) -> str:
        """Make a repo when it is missing, commit files to it, and return the commit."""
        self._count += 1
        if not self.store.has_repo(kind, repo):
            self.store.create_repo(kind, repo, **flags)
        folder = write_files(self.work / str(self._count), files)
        return self.store.commit_folder(kind, repo, folder, title).sha

    def fault(self, **fields: Any) -> None:
        self.app.faults.add(Fault(**fields))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, tls: Tls) -> Iterator[Hub]:
    """A Hub with `org/base` (decoder), `org/bert` (encoder), and `org/rows`."""
    work = tmp_path_factory.mktemp("hub")
    store = HubStore(work / "store")
    for token, (user, role, orgs) in TOKENS.items():
        store.add_token(token, user, role, orgs)
    app = HubApp(store)
    with running(app, tls=tls) as url:
        hub = Hub(url, app, work)
        card = "---\nlicense: apache-2.0\n---\n"
        hub.add("model", "org/base", model_files(README__md=card))
        hub.add("model", "org/bert", model_files(ENCODER))
        hub.add("dataset", "org/rows", {"train.jsonl": jsonl(ROWS), "test.jsonl": jsonl(ROWS)})
        yield hub


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads go to a folder of the test run, never to the person's own cache."""
    cache = str(tmp_path_factory.getbasetemp() / "hub-cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").app.faults.clear()


class Run:
    """One validate phase and what it said."""

    def __init__(self, tmp_path: Path, hub: Hub | None, raw: dict[str, Any], token: str) -> None:
        self.events: list[tuple[EventType, dict[str, Any]]] = []
        # Without a card nothing is counted of the memory of one, which would be most of the time.
        base = {"model": "org/base", "dataset": "org/rows", "resources": {"gpus": 0}}
        self.token = token
        self.ctx = PhaseContext(
            job="ft-aaaaaaaa",
            phase=Phase.VALIDATE,
            attempt=1,
            token_number=1,
            spec=parse_spec(merge(base, raw)),
            paths=JobPaths(tmp_path, "ft-aaaaaaaa"),
            emit=self._emit,
            secrets={"HF_TOKEN": token} if token else {},
            endpoint=hub.url if hub else "http://127.0.0.1:9",
            data_roots=DataRoots(open=(str(tmp_path.parent),)),
        )

    def _emit(self, type_: EventType, /, **data: Any) -> None:
        body = make_body(type_, data, attempt=1, host="here", phase=Phase.VALIDATE)
        assert not self.token or self.token not in body
        self.events.append((type_, data))

    def open_to(self, *folders: Path) -> None:
        """Let the worker open other folders than those of the test."""
        roots = DataRoots(open=tuple(map(str, folders)))
        self.ctx = dataclasses.replace(self.ctx, data_roots=roots)

    def go(self) -> Validated:
        validate.run(self.ctx)
        return Validated.load(self.ctx.paths.validated)

    def of(self, type_: EventType) -> list[dict[str, Any]]:
        return [data for found, data in self.events if found is type_]

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        return {data["name"]: data for data in self.of(EventType.CHECK)}

    @property
    def failed(self) -> list[str]:
        return [name for name, data in self.checks.items() if not data["ok"]]


@pytest.fixture
def start(tmp_path: Path, hub: Hub) -> Any:
    """Return a function that makes a validate phase: start({spec}, token)."""
    counter = itertools.count()

    def make(raw: dict[str, Any] | None = None, token: str = "") -> Run:
        return Run(tmp_path / f"storage{next(counter)}", hub, raw or {}, token)

    return make


class Clock:
    """Time that only passes in sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def client(hub: Any, clock: Clock, told: list[str]) -> Callable[..., HubClient]:
    """Return a function that makes a client whose waits take no time."""

    def make(token: str = "", url: str | None = None, **retry: Any) -> HubClient:
        waits = Retry(sleep=clock.sleep, clock=lambda: clock.now, **retry)
        return HubClient(url or hub.url, token, told.append, waits)

    return make


def refused(run: Any) -> Refused:
    """Return what refuses a run, whose failed checks all say what to do."""
    with pytest.raises(Refused) as caught:
        run.go()
    assert not run.ctx.paths.validated.exists()
    assert caught.value.exit_code == 5
    for data in run.of(EventType.CHECK):
        assert data["ok"] or data["hint"], data
    return caught.value
