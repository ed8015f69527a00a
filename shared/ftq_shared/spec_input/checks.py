"""Checks across the fields of a spec: what each value allows alone but not together.

Every check yields (dotted field, what is wrong and what to write).
"""

import math
import re
import string
from collections.abc import Iterator
from typing import Any

from ftq_shared.duration import parse_duration
from ftq_shared.errors import UsageError
from ftq_shared.redaction import HIDDEN, Redactor, escape_control
from ftq_shared.sources import READ_KINDS, Place, compression, is_data_name, parse_source
from ftq_shared.spec import GpuRequest, JobSpec, Task
from ftq_shared.spec_input.aliases import owned_arg

Problem = tuple[str, str]

_REPO = re.compile(
    r"^(?:[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?/)?[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?$"
)
_GPUS = re.compile(
    r"(?:auto|[0-9]{1,4}|(?:[0-9]{1,4})?[A-Za-z][\w .-]{0,60}(?::[0-9]{1,4})?)", re.ASCII
)
_MAX_GPUS = 64
_MAX_NAME = 80
# Files that people have, that ftq does not read; a Hub id never ends like this.
_OTHER_FILES = (".xlsx", ".xls", ".ods", ".zip", ".tar", ".tgz", ".pkl", ".yaml", ".yml", ".docx")
_MODEL_FILES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".onnx")


def check(spec: JobSpec) -> Iterator[Problem]:
    """Yield every problem of a spec whose single values are all allowed."""
    for function in (_sources, _name, _gpus, _columns, _template, _splits, _train, _publish):
        yield from function(spec)
    yield from _own_args(spec)
    yield from _everywhere("", spec.model_dump(mode="python"))


def _sources(spec: JobSpec) -> Iterator[Problem]:
    for what, text in (("model", spec.model), ("dataset", spec.dataset)):
        if _is_wrong_file(what, text):
            yield what, _wrong_file(what, text)
            continue
        try:
            source = parse_source(text, what=what)
        except UsageError as error:
            yield what, f"{text!r} is neither a Hub id nor a path; {error.hint}"
            continue
        if source.place is not Place.HUB and not source.name.strip():
            yield what, f"{text!r} names no file; write the path after worker:"
        if what == "model" and is_data_name(source.name):
            yield what, f"{text!r} is a data file; a model is a Hub id or a folder"


def _is_wrong_file(what: str, text: str) -> bool:
    if what == "model":
        return text.lower().endswith(_MODEL_FILES)
    unpacked = text.lower().removesuffix(compression(text))
    packed = unpacked != text.lower() and not is_data_name(text)
    return unpacked.endswith(_OTHER_FILES) or packed


def _wrong_file(what: str, text: str) -> str:
    if what == "dataset":
        return f"{text!r} is a kind of file that is not read; convert it to {READ_KINDS}"
    return f"{text!r} is one file; name the folder that holds config.json, or the Hub id"


def _name(spec: JobSpec) -> Iterator[Problem]:
    if spec.name is None:
        return
    if not spec.name.strip() or len(spec.name) > _MAX_NAME:
        yield "name", f"{len(spec.name)} characters; write 1 to {_MAX_NAME}"
    elif spec.name != escape_control(spec.name, keep_newlines=False):
        yield "name", "holds control characters; write plain text"


def _gpus(spec: JobSpec) -> Iterator[Problem]:
    gpus, train = spec.resources.gpus, spec.train
    if not _GPUS.fullmatch(str(gpus)):
        yield "resources.gpus", f"{gpus!r} is no GPU request; write 2, h100, h100:2 or auto"
        return
    request = GpuRequest.parse(gpus)
    if request.count > _MAX_GPUS or (request.kind and not request.count):
        yield "resources.gpus", f"{gpus!r} asks for {request.count} GPUs; write 1 to {_MAX_GPUS}"
    if request.count == 0:
        yield from _without_gpu(spec)
    if train.parallel.strategy == "fsdp" and request.count < 2:
        yield (
            "train.parallel.strategy",
            f"fsdp shards the model over several GPUs and resources.gpus is {gpus};"
            " write 2 or more GPUs, or ddp",
        )
    if isinstance(train.batch_size, int) and train.batch_size < request.count:
        yield (
            "train.batch_size",
            f"{train.batch_size} is below the {request.count} GPUs; each needs one example a step",
        )


def _without_gpu(spec: JobSpec) -> Iterator[Problem]:
    if spec.train.method == "qlora":
        yield "train.method", "qlora needs a GPU and resources.gpus is 0; write lora"
    if spec.train.precision == "fp16":
        yield "train.precision", "fp16 needs a GPU and resources.gpus is 0; write fp32 or auto"
    if spec.resources.min_vram_gb:
        yield "resources.min_vram_gb", "asks for GPU memory and resources.gpus is 0; leave it out"


def _columns(spec: JobSpec) -> Iterator[Problem]:
    columns = spec.data.columns
    given = {name for name, value in columns.model_dump().items() if value is not None}
    for name in sorted(given):
        if not getattr(columns, name).strip():
            yield f"data.columns.{name}", "is empty; write the name of a column, or null"
    if clash := given & {"prompt", "completion", "text"} if "messages" in given else set():
        yield "data.columns.messages", f"cannot stand beside {_and(clash)}: choose one shape"
    if len(given & {"chosen", "rejected"}) == 1:
        yield (
            f"data.columns.{(given & {'chosen', 'rejected'}).pop()}",
            ("chosen and rejected go together; name both"),
        )
    if clash := given & _FOREIGN.get(spec.task, set()):
        yield "task", f"{spec.task} does not use the column {_and(clash)}; change either"


_FOREIGN = {
    Task.CLASSIFICATION: {"completion", "messages", "chosen", "rejected"},
    Task.SFT: {"chosen", "rejected"},  # a label says which answers are learned
    Task.TEXT: {"label", "completion", "messages", "chosen", "rejected"},
}


def _and(names: set[str]) -> str:
    return " and ".join(sorted(names))


def _template(spec: JobSpec) -> Iterator[Problem]:
    template = spec.data.row_template
    if template is None:
        return
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        yield "data.row_template", f"{error}; a brace that is meant is written twice: {{{{"
        return
    if not names or not all(re.match(r"^[^\s!:{}.\[\]]", name) for name in names):
        yield "data.row_template", "names no column; write for example 'Q: {question}'"
    for part in ("prompt", "messages", "text"):
        if getattr(spec.data.columns, part) is not None:
            yield f"data.columns.{part}", f"row_template builds the prompt; {part} would be unused"


def _splits(spec: JobSpec) -> Iterator[Problem]:
    data = spec.data
    for name in ("split", "validation", "test"):
        if not getattr(data, name).strip():
            yield f"data.{name}", "is empty; write the name of a split"
    for name in ("validation", "test"):
        if getattr(data, name) == data.split:
            yield f"data.{name}", f"{data.split!r} is the split that is trained on; write auto"
    if data.validation == data.test and data.test not in ("auto", "none"):
        yield "data.test", f"{data.test!r} is the validation split; what steers must not judge"


def _train(spec: JobSpec) -> Iterator[Problem]:
    train = spec.train
    batch, micro = train.batch_size, train.micro_batch
    if isinstance(batch, int) and isinstance(micro, int) and batch % micro:
        yield "train.micro_batch", f"{micro} does not divide batch_size {batch}"
    if train.parallel.strategy == "fsdp" and train.method == "qlora":
        yield "train.parallel.strategy", "fsdp does not shard qlora's 4-bit weights; write ddp"
    if train.class_weights != "none" and spec.task not in (Task.AUTO, Task.CLASSIFICATION):
        yield "train.class_weights", f"{spec.task} has no labels to weigh; leave it out"
    if train.lora.target_modules == []:
        yield "train.lora.target_modules", "is empty; write auto or name the layers"
    every = parse_duration(train.save_every)
    if isinstance(every, float) and not 0 < every < math.inf:
        yield "train.save_every", f"{train.save_every!r} is no time to wait; write for example 10m"


def _publish(spec: JobSpec) -> Iterator[Problem]:
    repo = spec.publish.repo
    if repo is not None and (
        not _REPO.match(repo)
        or "--" in repo
        or ".." in repo
        or len(repo) > 96
        or repo.endswith(".git")
    ):
        yield (
            "publish.repo",
            f"{repo!r} is no repo; write name or org/name (letters, digits, - _ .)",
        )
    if spec.publish.format == "adapter" and spec.train.method == "full":
        yield "publish.format", "adapter needs lora or qlora and train.method is full; write merged"


def _own_args(spec: JobSpec) -> Iterator[Problem]:
    for name in spec.train.args:
        if answer := owned_arg(name):
            yield f"train.args.{name}", answer


def _everywhere(name: str, value: Any) -> Iterator[Problem]:
    """Look at every value: no infinite number, no token."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _everywhere(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, float) and not math.isfinite(value):
        yield name, "is not a finite number"
    elif isinstance(value, str) and HIDDEN in Redactor().text(value) and HIDDEN not in value:
        yield name, "holds a token or password; a spec is no secret, set HF_TOKEN or --secret"
