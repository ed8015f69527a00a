"""Ranks that meet: what one is told when another one is gone, and who looks for all."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ftq_worker.host.messages import RANK_LOST
from ftq_worker.job.context import Devices
from ftq_worker.training.parallel import agree, from_first_rank, gang

# Rank 1 dies without a word while rank 0 waits for it.
PAIR = """
    import os, sys
    import torch
    from torch import distributed
    from ftq_worker.job.context import Devices, HostFault
    from ftq_worker.training.parallel import from_first_rank, gang

    torch.set_num_threads(1)
    rank = 0 if os.fork() else 1
    try:
        with gang(Devices(rank=rank, world_size=2, meeting=sys.argv[1])):
            found = from_first_rank(lambda: f"by rank {distributed.get_rank()}")
            if rank == 1:
                os._exit(0 if found == "by rank 0" else 3)
            distributed.all_reduce(torch.ones(2))
    except HostFault as error:
        assert os.wait()[1] == 0
        print(error.code, error.message)
"""


def test_a_rank_whose_peer_has_gone_says_so(tmp_path: Path):
    command = [sys.executable, "-c", textwrap.dedent(PAIR), str(tmp_path / "meeting")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    code, _, message = ended.stdout.strip().partition(" ")
    assert code == RANK_LOST, ended.stderr
    assert message.startswith("it lost the connection to another rank: ")


def test_one_rank_meets_nobody_and_its_errors_stay_its_own():
    with gang(Devices()):
        agree(lambda: pytest.fail("there is nobody to compare with"))
        assert from_first_rank(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError), gang(Devices()):
        1 / 0  # noqa: B018
