"""The environment of a host's processes: no secret in it, seeds and threads pinned."""

import os
from collections.abc import Mapping

# For every process of the host. Seeds and threads are pinned so that a resumed training computes
# the same numbers; the first two keep the zygote single-threaded, so that it can fork safely.
PINNED = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    # Threads that spin at a barrier starve each other once two trainings share the cores: a small
    # model's 300 steps took 36 s against 2.4 s when two cores were busy otherwise.
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "PYTHONUNBUFFERED": "1",
}
SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "WANDB_API_KEY")


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for zygote and children: without the way to the broker as well."""
    return {k: v for k, v in env.items() if k not in ("FTQ_REDIS_URL", "FTQ_FLEET_KEY")}


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the host's processes: no secret in it, seeds pinned."""
    return {k: v for k, v in env.items() if k not in SECRET_VARIABLES} | PINNED


def rank_variables(rank: int, ranks: int) -> dict[str, str]:
    """Return what torch and accelerate read of several ranks on one host; nothing for one."""
    if ranks == 1:
        return {}
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GLOO_SOCKET_IFNAME": "lo",  # all are on this host, whatever its name resolves to
    }
