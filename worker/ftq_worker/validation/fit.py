"""Do model, dataset, task and settings go together, and on a card?"""

import shlex
from dataclasses import replace

from ftq_shared.errors import Refused, task_unsupported
from ftq_shared.spec import Columns, GpuRequest, JobSpec, Task
from ftq_worker.data.chat_messages import as_rows, is_message
from ftq_worker.data.column_values import Rows, values_of
from ftq_worker.data.columns import ColumnLayout
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import ModelFacts
from ftq_worker.training.memory_need import (
    CARDS,
    USABLE,
    Need,
    Setup,
    Uncountable,
    gb,
    named_card,
    smallest_card,
)
from ftq_worker.training.memory_plan import Method
from ftq_worker.validation.architecture import Architecture

TRAINED_TASKS = (Task.SFT, Task.CLASSIFICATION, Task.TEXT)
_WRITES = (Task.SFT, Task.TEXT, Task.PREFERENCE)


def check_task(spec: JobSpec, layout: ColumnLayout, rows: Rows) -> tuple[Task, str]:
    """Return the task; raises Refused when this version does not train it."""
    if layout.task not in TRAINED_TASKS:
        raise task_unsupported(layout.task, _without_rejected(layout.columns, rows))
    how = "given" if spec.task is not Task.AUTO else f"from the columns: {layout.name}"
    return layout.task, f"{layout.task} ({how})"


def _without_rejected(columns: Columns, rows: Rows) -> str:
    """Return how to train the preferred answers alone."""
    chosen = columns.chosen or ""
    asked = columns.prompt or columns.messages
    value = as_rows(next(iter(values_of(rows, chosen)), None))
    if isinstance(value, list | tuple) and sum(map(is_message, value)) > 1:
        sets = f"--set task=sft --set data.columns.messages={shlex.quote(chosen)}"
    elif asked:
        sets = f"--set task=sft --set data.columns.prompt={shlex.quote(asked)}"
        sets += f" --set data.columns.completion={shlex.quote(chosen)}"
    else:
        sets = f"--set task=text --set data.columns.text={shlex.quote(chosen)}"
    sets += " --set data.allow=unused_columns"
    return f"{sets} trains what column {chosen} holds, and leaves {columns.rejected} out"


def check_fit(spec: JobSpec, architecture: Architecture, task: Task) -> tuple[bool, str]:
    """Return True when the model can learn the task; raises Refused (`task_mismatch`)."""
    kind = architecture.kind
    if kind == "encoder" and task in _WRITES:
        raise Refused(
            f"{architecture.name} is an encoder: it cannot write text, which {task} needs",
            code="task_mismatch",
            hint="choose a decoder such as Qwen, Llama or SmolLM, or for labels map "
            "data.columns.text and data.columns.label",
            field="model",
        )
    if kind == "encoder" and spec.publish.format == "adapter" and spec.train.method == "auto":
        raise Refused(
            "publish.format is adapter, but an encoder is trained in full by default",
            code="format_mismatch",
            hint="--set train.method=lora, or publish.format=auto",
            field="publish.format",
        )
    if spec.train.class_weights != "none" and task is not Task.CLASSIFICATION:
        raise Refused(
            f"train.class_weights is {spec.train.class_weights}, but {task} has no labels to weigh",
            code="task_mismatch",
            hint="leave train.class_weights out, or for labels map data.columns.text and"
            " data.columns.label",
            field="train.class_weights",
        )
    return True, f"{architecture.name} ({kind}) can be trained for {task}"


def check_memory(
    ctx: PhaseContext, facts: ModelFacts, task: Task, longest: int
) -> tuple[Need | None, str]:
    """Count the least that training needs of a GPU; return it, None where it cannot be counted.

    Which card it will be is not known here, nor rows longer than the first, of `longest` tokens:
    refused (`does_not_fit`) is what fits no card, or not the kind that was asked for.
    """
    # Only here: where the training stack is not preloaded, its import takes seconds.
    from ftq_worker.data.hub import fetch_text_files
    from ftq_worker.training.memory_count import count

    request = GpuRequest.parse(ctx.spec.resources.gpus)
    room = named_card(request.kind) or CARDS[-1][0]
    for setup in _least(ctx.spec, facts, task, longest):
        try:
            need = count(fetch_text_files(ctx, facts), setup)
        except Uncountable as error:
            return None, f"what training needs of a GPU cannot be counted: {error}"
        given = f"{setup.method} on rows of {setup.length:,} tokens"
        if request.count > 1 or need.fits(room * 10**9):
            return need, f"on a GPU, {given} needs {gb(need.total)} at least: {smallest_card(need)}"
    raise Refused(
        f"{given} needs {gb(need.total)} of a GPU at least ({need.words()}); of the {room} GB of"
        f" {request.kind or 'the largest card'} {USABLE:.0%} can be planned with",
        code="does_not_fit",
        hint=f"{smallest_card(need)} would do; or lower train.max_length, or take a smaller model",
        field="resources.gpus",
    )


def _least(spec: JobSpec, facts: ModelFacts, task: Task, longest: int) -> list[Setup]:
    """Return the setups that need least of what the person leaves open, by method."""
    # Only here, as above.
    from ftq_worker.data.limits import SOFT_LIMIT

    train = spec.train
    methods: list[Method] = ["full"] if facts.kind == "encoder" else ["lora", "qlora"]
    length = min(longest, SOFT_LIMIT if train.max_length == "auto" else train.max_length)
    one = Setup(
        task=task,
        method="full",
        precision="bf16" if train.precision == "auto" else train.precision,
        micro_batch=1 if train.micro_batch == "auto" else train.micro_batch,
        length=max(8, min(length, facts.max_positions or length)),
        lora=train.lora,
        checkpointing="all"
        if train.gradient_checkpointing == "auto"
        else train.gradient_checkpointing,
    )
    given = train.method
    return [replace(one, method=it) for it in (methods if given == "auto" else [given])]
