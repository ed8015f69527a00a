"""The facts that the `auto` rules look at: the device, the model, the data."""

from dataclasses import dataclass, field

from ftq_shared.spec import Task
from ftq_worker.host.messages import GPU_FAULT
from ftq_worker.job.context import Devices, HostFault
from ftq_worker.job.reports import ModelFacts, Prepared
from ftq_worker.training.attention import HostAttention, ModelAttention


@dataclass(frozen=True)
class DeviceFacts:
    """What one rank computes on."""

    kind: str  # cpu or cuda
    name: str  # for people, for example NVIDIA H100
    memory_bytes: int = 0  # of one card; 0 on the CPU, where nothing is estimated
    capability: tuple[int, int] = (0, 0)  # CUDA compute capability
    world_size: int = 1  # ranks that train together

    @property
    def bf16(self) -> bool:
        """Whether bfloat16 runs in hardware: Ampere (8.0) and later."""
        return self.kind == "cuda" and self.capability >= (8, 0)


@dataclass(frozen=True)
class RunFacts:
    """Everything that the rules may depend on."""

    task: Task
    model: ModelFacts
    device: DeviceFacts
    rows: int  # training rows
    validation_rows: int
    max_length: int  # tokens of the longest row
    labels: int = 0  # classification: number of classes
    mean_length: float = 0.0  # tokens of a training row; 0.0 where nobody has counted
    trained_tokens: int = 0  # of the training rows; 0 where nobody has counted
    adapter_numbers: int = 0  # that LoRA of rank 1 trains; 0 where nobody has counted
    attention: ModelAttention = field(default_factory=ModelAttention)
    host: HostAttention = field(default_factory=HostAttention)


def look_at_device(devices: Devices) -> DeviceFacts:
    """Return the facts of this rank's device; CUDA is initialised only if GPUs were given.

    Raises HostFault where the GPUs that were given cannot be used: never the CPU in silence.
    """
    import torch  # here: the rules of `auto` need no torch

    if not devices.gpus:
        return DeviceFacts("cpu", "CPU", world_size=devices.world_size)
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        found, given = torch.cuda.device_count(), len(devices.gpus)
        if found < given:
            raise gpu_fault(f"CUDA finds {found} of the job's {given} GPUs")
        properties = torch.cuda.get_device_properties(devices.rank)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a driver's errors
        raise gpu_fault(f"CUDA cannot be used: {error}") from error
    return DeviceFacts(
        kind="cuda",
        name=properties.name,
        memory_bytes=properties.total_memory,
        capability=(properties.major, properties.minor),
        world_size=devices.world_size,
    )


def gpu_fault(message: str, code: str = GPU_FAULT) -> HostFault:
    """Return the error for cards that were given and do not work; its host sets them aside."""
    return HostFault(message, code=code)


def run_facts(
    task: Task,
    model: ModelFacts,
    prepared: Prepared,
    device: DeviceFacts,
    attention: ModelAttention,
    host: HostAttention,
    adapter_numbers: int = 0,
) -> RunFacts:
    """Put the facts of the earlier phases together; `adapter_numbers` are those of rank 1."""
    rows = prepared.rows.get("train", 0)
    return RunFacts(
        task=task,
        model=model,
        device=device,
        rows=rows,
        validation_rows=prepared.rows.get("validation", 0),
        max_length=prepared.max_length,
        labels=len(prepared.labels),
        mean_length=prepared.tokens.get("total", 0) / max(rows, 1),
        trained_tokens=prepared.tokens.get("trained", 0),
        adapter_numbers=adapter_numbers,
        attention=attention,
        host=host,
    )
