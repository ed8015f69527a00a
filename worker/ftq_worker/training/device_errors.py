"""What a device's errors mean: the job asked for too much, or the host's cards do not work."""

import contextlib
from collections.abc import Iterator

import torch

from ftq_shared.errors import TrainingFailed
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


@contextlib.contextmanager
def device_errors(settings: TrainSettings | None) -> Iterator[None]:
    """Translate what a device raises; `settings` are None where the saved model is scored.

    Raises TrainingFailed when memory ran out, on the device or the host, and where a kernel's check
    failed; HostFault when the cards, or the way between them, do not work.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "the host"
        raise _out_of_memory(where, settings) from error
    except torch.distributed.DistBackendError as error:
        first = str(error).strip().splitlines()[0]
        message = f"the job's GPUs cannot talk to each other: {first}"
        raise gpu_fault(message, GPU_FAILED) from error
    except torch.AcceleratorError as error:
        code = getattr(error, "error_code", None)  # set by torch, absent in what tests make
        first = str(error).strip().splitlines()[0]
        if code in HARDWARE:
            raise gpu_fault(f"the GPU failed ({HARDWARE[code]}): {first}", GPU_FAILED) from error
        if code == ASSERT:
            raise TrainingFailed(
                f"a check on the GPU failed: {first}",
                code="device_assert",
                hint="usually a token or label that the model has no row for; "
                "the worker's output shows which kernel",
            ) from error
        raise


def _out_of_memory(where: str, settings: TrainSettings | None) -> TrainingFailed:
    if settings is None:
        return TrainingFailed(
            f"{where} ran out of memory while the saved model was verified",
            code="out_of_memory",
            hint="the model is kept, and a retry goes on from here: on a larger device, or with "
            "nothing else on it",
        )
    return TrainingFailed(
        f"{where} ran out of memory with micro_batch {settings.micro_batch} "
        f"and rows of up to {settings.max_length} tokens",
        code="out_of_memory",
        hint=f"set train.micro_batch to {max(1, settings.micro_batch // 2)} (the batch size "
        "stays the same), lower train.max_length, or use train.method lora or qlora",
    )
