"""The cards of this host, asked of the driver's own tool so that no process here needs CUDA."""

import shutil
import subprocess

from ftq_shared.errors import UsageError
from ftq_shared.hosts import Gpu

_QUERY = "--query-gpu=uuid,name,memory.total"


def all_gpus() -> list[Gpu]:
    """Return every card that nvidia-smi reports; none where there is no driver.

    Raises UsageError when the tool is there but fails: a host with broken cards must not
    silently offer itself as a CPU host.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run(
            [tool, _QUERY, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise UsageError(
            f"nvidia-smi fails: {error}",
            code="gpu_driver",
            hint="mend the driver, or start the worker with --gpus 0",
        ) from error
    return parse_smi(done.stdout)


def parse_smi(text: str) -> list[Gpu]:
    """Read nvidia-smi's CSV: UUID, name, memory in MiB."""
    gpus = []
    for line in filter(None, map(str.strip, text.splitlines())):
        uuid, name, mib = (part.strip() for part in line.split(","))
        gpus.append(Gpu(uuid, name, round(float(mib) * 2**20 / 1e9, 1)))
    return gpus


def offered_gpus(wanted: str) -> list[Gpu]:
    """Return the cards that `--gpus` offers; the driver is not asked when it offers none."""
    return [] if wanted == "0" else choose_gpus(all_gpus(), wanted)


def choose_gpus(found: list[Gpu], wanted: str) -> list[Gpu]:
    """Return the cards that a worker offers: `all`, a count, or a list of indexes or UUIDs.

    Raises UsageError that names the cards there are.
    """
    if wanted == "all":
        return found
    if wanted.isdigit():
        if int(wanted) > len(found):
            raise UsageError(f"--gpus {wanted}: this host has {len(found)}", field="--gpus")
        return found[: int(wanted)]
    by_name = {gpu.uuid: gpu for gpu in found} | {str(n): gpu for n, gpu in enumerate(found)}
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if unknown := [name for name in names if name not in by_name]:
        raise UsageError(
            f"--gpus: no such card: {', '.join(unknown)}",
            hint=f"this host has: {', '.join(by_name) or 'none'}",
            field="--gpus",
        )
    return [by_name[name] for name in names]
