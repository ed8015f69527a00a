"""Do model, dataset, task and settings go together?"""

import shlex

from ftq_shared.errors import Refused, task_unsupported
from ftq_shared.spec import Columns, JobSpec, Task
from ftq_worker.data.chat_messages import as_rows, is_message
from ftq_worker.data.column_values import Rows, values_of
from ftq_worker.data.columns import ColumnLayout
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
    return True, f"{architecture.name} ({kind}) can be trained for {task}"
