"""Do model, dataset, task and settings go together?"""

from ftq_shared.errors import Refused, task_unsupported
from ftq_shared.spec import JobSpec, Task
from ftq_worker.data.columns import ColumnLayout
from ftq_worker.validation.architecture import Architecture

TRAINED_TASKS = (Task.SFT, Task.CLASSIFICATION, Task.TEXT)
_WRITES = (Task.SFT, Task.TEXT, Task.PREFERENCE)


def check_task(spec: JobSpec, layout: ColumnLayout) -> tuple[Task, str]:
    """Return the task; raises Refused when this version does not train it."""
    if layout.task not in TRAINED_TASKS:
        raise task_unsupported(layout.task)
    how = "given" if spec.task is not Task.AUTO else f"from the columns: {layout.name}"
    return layout.task, f"{layout.task} ({how})"


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
