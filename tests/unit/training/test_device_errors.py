"""What a device raises is told apart: too much was asked for, or the cards do not work.

The errors are made here: this machine has no card that could raise them.
"""

from typing import Any

import pytest
import torch

from ftq_shared.errors import FtqError, TrainingFailed
from ftq_worker.host.messages import GPU_FAILED, GPU_FAULT
from ftq_worker.job.context import Devices, HostFault
from ftq_worker.training.device_errors import OutOfMemory, device_errors
from ftq_worker.training.facts import look_at_device

NO_MEMORY_ON_THE_CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
NO_MEMORY_FOR_CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


def cuda_error(code: int) -> torch.AcceleratorError:
    error: Any = torch.AcceleratorError("CUDA error: it failed\nmore lines")
    error.error_code = code
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), TrainingFailed, "out_of_memory"),
        (MemoryError(), TrainingFailed, "out_of_memory"),
        (RuntimeError(NO_MEMORY_ON_THE_CPU), TrainingFailed, "out_of_memory"),
        (RuntimeError(NO_MEMORY_FOR_CUBLAS), TrainingFailed, "out_of_memory"),
        (cuda_error(214), HostFault, GPU_FAILED),
        (cuda_error(719), HostFault, GPU_FAILED),
        (cuda_error(710), TrainingFailed, "device_assert"),
        (torch.distributed.DistBackendError("NCCL error: remote"), HostFault, GPU_FAILED),
    ],
)
def test_whose_fault_it_is(error: Exception, kind: type[FtqError], code: str) -> None:
    settings: Any = type("Settings", (), {"micro_batch": 4, "max_length": 128})
    with pytest.raises(kind) as raised, device_errors(settings):
        raise error
    assert raised.value.code == code


def test_an_error_of_the_program_stays_what_it_is() -> None:
    with pytest.raises(torch.AcceleratorError), device_errors(None):  # type: ignore[arg-type]
        raise cuda_error(700)


def test_what_torch_says_without_memory_is_known() -> None:
    with pytest.raises(OutOfMemory), device_errors(None):
        torch.empty(10**15)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card that works")
def test_cards_that_cannot_be_used_are_never_the_cpu_in_silence() -> None:
    assert look_at_device(Devices()).kind == "cpu"
    with pytest.raises(HostFault, match="CUDA") as raised:
        look_at_device(Devices(("GPU-a",)))
    assert raised.value.code == GPU_FAULT
