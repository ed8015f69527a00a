"""What a device's errors mean: the job asked for too much, or the host's cards do not work."""

import contextlib
from collections.abc import Iterator

import torch

from ftq_shared.errors import FtqError, TrainingFailed
from ftq_worker.host.messages import GPU_FAILED
from ftq_worker.training.facts import gpu_fault
from ftq_worker.training.settings import TrainSettings

# cudaError_t of the CUDA runtime API (docs.nvidia.com/cuda/cuda-runtime-api, "Data types") that
# speak of the card or its driver, not of the program.
HARDWARE = {
    35: "insufficient driver",
    46: "devices unavailable",
    100: "no device",
    209: "torch was not built for this kind of GPU",
    214: "uncorrectable ECC error",
    220: "NVLink error",
    714: "hardware stack error",
    719: "launch failure",
    721: "contained memory error",
    802: "system not ready",
    803: "driver and runtime do not match",
    999: "unknown error",
}
ASSERT = 710  # a kernel's own check failed


class OutOfMemory(TrainingFailed):
    """Raised when memory ran out, on the device or the host."""

    default_code = "out_of_memory"


@contextlib.contextmanager
def device_errors(settings: TrainSettings | None) -> Iterator[None]:
    """Translate what a device raises; `settings` are None where the saved model is scored.

    Raises OutOfMemory; TrainingFailed where a kernel's check failed; HostFault when the cards, or
    the way between them, do not work.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        meaning = _meaning(error, settings)
        if meaning is None:
            raise
        raise meaning from error


def _meaning(error: Exception, settings: TrainSettings | None) -> FtqError | None:
    """Return the error to raise instead, None for one of the program."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in first:
        return _out_of_memory("the GPU", settings)
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error):
        return _out_of_memory("the host", settings)
    if isinstance(error, torch.distributed.DistBackendError):
        return gpu_fault(f"the job's GPUs cannot talk to each other: {first}", GPU_FAILED)
    if not isinstance(error, torch.AcceleratorError):
        return None
    code = getattr(error, "error_code", None)  # set by torch, absent in what tests make
    if code in HARDWARE:
        return gpu_fault(f"the GPU failed ({HARDWARE[code]}): {first}", GPU_FAILED)
    if code == ASSERT:
        return TrainingFailed(
            f"a check on the GPU failed: {first}",
            code="device_assert",
            hint="usually a token or label that the model has no row for; "
            "the worker's output shows which kernel",
        )
    return None


def _out_of_memory(where: str, settings: TrainSettings | None) -> OutOfMemory:
    if settings is None:
        return OutOfMemory(
            f"{where} ran out of memory while the saved model was verified",
            hint="the model is kept, and a retry goes on from here: on a larger device, or with "
            "nothing else on it",
        )
    less = "lower train.max_length, or use train.method lora or qlora"
    if settings.micro_batch > 1:
        less = (
            f"set train.micro_batch to {settings.micro_batch // 2} (the batch size stays the "
            f"same), {less}"
        )
    return OutOfMemory(
        f"{where} ran out of memory with micro_batch {settings.micro_batch} "
        f"and rows of up to {settings.max_length} tokens",
        hint=less,
    )
